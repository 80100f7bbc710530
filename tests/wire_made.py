"""Hypothesis strategies for readings and packets over the whole catalogue, and the real minute as readings."""

import json
import math
from pathlib import Path
from typing import Final, cast

from hypothesis import strategies as st

from components.wire import packet
from components.wire.reading import Reading
from components.wire.signals import BY_KEY, OBD_SIGNALS, REASONS, SIGNALS, Linear, Signal, Value, span
from components.wire.summary import summarise
from components.wire.times import parse_iso

REAL: Final = Path(__file__).resolve().parents[2] / "shared/data/real_minute.json"
START_MS: Final = 1_795_255_500_000
SESSION: Final = "00f1e2d3c4b5a697"


def _raws(signal: Signal) -> st.SearchStrategy[Value]:
    assert signal.codec is not None
    if signal.codec.total:
        return st.integers(0, 256**signal.size - 1).map(signal.codec.decode)
    found = []
    for raw in range(256**signal.size):
        try:
            found.append(signal.codec.decode(raw))
        except ValueError:
            continue
    return st.sampled_from(found)


def _values(signal: Signal) -> st.SearchStrategy[Value]:
    if signal.key == "location":
        side = [st.integers(-most * 10**7, most * 10**7).map(lambda n: n / 10**7) for most in (180, 90)]
        return st.tuples(*side).map(lambda place: {"type": "Point", "coordinates": list(place)})
    if signal.codec is not None and not isinstance(signal.codec, Linear):
        return _raws(signal)
    least, most = span(signal)
    odd = st.floats(least, most) | st.integers(math.ceil(least), math.floor(most))
    short = st.integers(math.ceil(least) * 10, math.floor(most) * 10).map(lambda n: n / 10)
    return odd | short if signal.codec is None else _raws(signal) | odd


VALUES: Final = {signal.key: _values(signal) for signal in SIGNALS}


@st.composite
def readings(draw: st.DrawFn, most: int = 5) -> tuple[Reading, ...]:
    """Readings of one period from START_MS: some signals mostly there, some never, each null with its reason."""
    times = sorted(draw(st.lists(st.integers(0, 59_999), max_size=most)))
    kept = draw(st.sets(st.sampled_from(sorted(BY_KEY)), max_size=12))
    always = {key: draw(st.sampled_from(REASONS)) for key in BY_KEY if key not in kept}
    found = []
    for time in times:
        values = {key: draw(VALUES[key]) for key in sorted(kept) if draw(st.integers(0, 4))}
        why = always | {key: draw(st.sampled_from(REASONS)) for key in sorted(kept - values.keys())}
        aged = draw(st.sets(st.sampled_from(sorted(values)))) if values else set()
        ages = {key: draw(st.sampled_from((1, 250, 90_000)) | st.integers(1, 2**40)) for key in sorted(aged)}
        found.append(Reading.checked(START_MS + time, values, why, ages))
    return tuple(found)


def minute(found: tuple[Reading, ...] | None, **other: object) -> packet.Packet:
    """Return a packet that holds these readings and little else."""
    nobody = packet.Identity(None, None, None, dict.fromkeys(("vin", "iccid", "imei"), "no_data"))
    summary = {key: {"count": 0.0} for key, signal in BY_KEY.items() if signal.summarised}
    summary = {key: {"count": 0} for key in summary}
    form: dict[str, object] = {
        "device": "car_one", "session": SESSION, "start_ms": START_MS, "period_s": 60, "clock": "gps",
        "identity": nobody, "readings": found, "summary": summary, "config_hash": "0" * 16,
    }  # fmt: skip
    return packet.Packet(**(form | other))  # type: ignore[arg-type]


def real_minute() -> packet.Packet:
    """Return the real minute as a packet, each value on the grid of what a car can say."""
    recorded = json.loads(REAL.read_text())
    start_ms = parse_iso(recorded["minute"])
    found = tuple(_real(row) for row in recorded["readings"])
    return minute(found, start_ms=start_ms, summary=summarise(found))


def _real(row: dict[str, object]) -> Reading:
    values: dict[str, Value] = {}
    for signal in SIGNALS:
        value = cast("Value | None", row.get(signal.key))
        if value is not None and isinstance(signal.codec, Linear):
            value = signal.codec.decode(signal.codec.encode(value))
        if value is not None:
            values[signal.key] = value
    values["o212"] = BY_KEY["o212"].codec.decode(cast("int", row["o212_raw"]))  # type: ignore[union-attr]
    values["fuel_status"] = BY_KEY["fuel_status"].codec.decode(int(cast("str", row["fuel_status_raw"]), 16))  # type: ignore[union-attr]
    place = cast("dict[str, list[float]]", values["location"])["coordinates"]
    values["location"] = {"type": "Point", "coordinates": [round(side, 7) for side in place]}
    why = {signal.key: "unsupported" for signal in SIGNALS if signal.key not in values}
    return Reading.checked(parse_iso(row["time"]), values, why, {})


def same(one: object, other: object) -> bool:
    """Tell whether two values are the same JSON: equal, no bool for a number, and -0.0 is not 0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and one == 0:
        return other == 0 and math.copysign(1, one) == math.copysign(1, cast("float", other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


EXHAUSTIVE: Final = tuple(signal for signal in OBD_SIGNALS if signal.size <= 2)
