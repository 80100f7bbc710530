"""The minute that the benches weigh: the real one where it is beside this checkout, else one that the model drives."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from components.virtual_car.drive import DriveModel
from components.virtual_car.pids import BY_KEY as ITEMS
from components.wire.packet import Identity, Packet
from components.wire.reading import Reading
from components.wire.signals import BY_KEY, SIGNALS, Linear, Value
from components.wire.summary import summarise
from components.wire.times import parse_iso

_ROOT: Final = Path(__file__).resolve().parents[1]
_START_MS: Final = 1_795_255_500_000
_FROM_GPS: Final = {
    "altitude": "altitude_m", "heading": "heading_deg", "climb": "climb_m_s", "gps_speed": "speed_m_s",
}  # fmt: skip


def recorded(name: str = "real_minute.json") -> Path | None:
    """Return a file of the recording; None where it is not (it is no part of the repository)."""
    places = (above / "shared/data" / name for above in (_ROOT.parent, _ROOT.parent.parent))
    return next((path for path in places if path.exists()), None)


def minute() -> tuple[str, Packet]:
    """Return what it is, in words, and the packet, its summary included."""
    path = recorded()
    if path is None:
        return "a minute of the drive model (the real one is not at ../shared/data)", packed_of(modelled())
    rows = json.loads(path.read_text("utf-8"))["readings"]
    return "the real minute of 2017", packed_of(tuple(_of_row(row) for row in rows))


def packed_of(readings: tuple[Reading, ...]) -> Packet:
    """Return the packet of one minute of readings; the car says nothing of itself."""
    first_ms = readings[0].at_ms
    nobody = Identity(None, None, None, dict.fromkeys(("vin", "iccid", "imei"), "unsupported"))
    return Packet(
        device="car_one",
        session="00f1e2d3c4b5a697",
        start_ms=first_ms - first_ms % 60_000,
        period_s=60,
        clock="gps",
        identity=nobody,
        readings=readings,
        summary=summarise(readings),
        config_hash="0123456789abcdef",
    )


def modelled() -> tuple[Reading, ...]:
    """Return a minute of driving, one reading a second, every signal but the gear."""
    drive = DriveModel(1)
    found = []
    for second in range(60):
        moment, values = drive.at(600.0 + second), dict[str, Value]()
        for key, said in moment.values.items():
            codec, item = BY_KEY[key].codec, ITEMS[key]
            if said is not None and codec is not None:
                values[key] = codec.decode(int.from_bytes(item.encode(said)))
        if (place := moment.place) is not None:
            values["location"] = {"type": "Point", "coordinates": [round(place.lon, 7), round(place.lat, 7)]}
            said_of = {key: getattr(place, name) for key, name in _FROM_GPS.items()}
            values |= {key: round(number, 3) for key, number in said_of.items() if number is not None}
        found.append(_reading(_START_MS + second * 1000 + 40, values))
    return tuple(found)


def _of_row(row: Mapping[str, Any]) -> Reading:
    """Return a recorded row, each number on the grid of what a car can say."""
    values: dict[str, Value] = {}
    for signal in SIGNALS:
        value = cast("Value | None", row.get(signal.key))
        if value is not None and isinstance(signal.codec, Linear):
            value = signal.codec.decode(signal.codec.encode(value))
        if value is not None:
            values[signal.key] = value
    raws = {"o212": row["o212_raw"], "fuel_status": int(row["fuel_status_raw"], 16)}
    values |= {key: codec.decode(raw) for key, raw in raws.items() if (codec := BY_KEY[key].codec) is not None}
    lon, lat = row["location"]["coordinates"]
    values["location"] = {"type": "Point", "coordinates": [round(lon, 7), round(lat, 7)]}
    return _reading(parse_iso(row["time"]), values)


def _reading(at_ms: int, values: Mapping[str, Value]) -> Reading:
    why = {signal.key: "unsupported" for signal in SIGNALS if signal.key not in values}
    return Reading.checked(at_ms, values, why, {})
