"""What came back of a replayed recording, held against the recording itself."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from components.wire.signals import BY_KEY, Linear
from components.wire.times import parse_iso

LOOP_MS: Final = 60_000
Seen = Mapping[str, set[tuple[int, int]]]


def rows_that_came_back(minutes: Iterable[Mapping[str, Any]], recording: Mapping[str, Any], t0_ms: int) -> Seen:
    """Check every stored value; return, by signal, the (loop, row) that came back, and under "" those in force.

    A value must be what the recording says at `at - age`, in the row in force then or one beside it, within the PID's
    resolution; what is null has a reason. AssertionError otherwise, also for a value of a signal that is not recorded
    (`gps_fix` is the receiver's own).
    """
    rows: Sequence[Mapping[str, Any]] = recording["readings"]
    offsets = [parse_iso(row["time"]) - parse_iso(recording["minute"]) for row in rows]
    seen: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for minute in minutes:
        for reading in minute["readings"]:
            at_ms = parse_iso(reading["at"]) - t0_ms
            seen[""].add((at_ms // LOOP_MS, _row(offsets, at_ms)))
            for key in BY_KEY.keys() - {"gps_fix"}:
                if reading[key] is None:
                    assert key in reading["why"], (reading["at"], key)
                    continue
                then_ms = at_ms - reading["age_ms"].get(key, 0)
                k = _row(offsets, then_ms)
                near = [row % len(rows) for row in (k, k - 1, k + 1)]
                same = [row for row in near if _same(key, reading[key], rows[row].get(key))]
                assert same, (reading["at"], key, reading[key], [rows[row].get(key) for row in near])
                seen[key].add((then_ms // LOOP_MS, same[0]))
    return seen


def _row(offsets: Sequence[int], elapsed_ms: int) -> int:
    """Return the row in force; before the first it is the last."""
    begun = [k for k, offset in enumerate(offsets) if offset <= elapsed_ms % LOOP_MS]
    return begun[-1] if begun else len(offsets) - 1


def _same(key: str, value: Any, recorded: Any) -> bool:  # noqa: ANN401 - any signal's value
    if recorded is None:
        return False
    if key == "location":
        pairs = zip(value["coordinates"], recorded["coordinates"], strict=True)
        return all(abs(one - other) <= 1.0000001e-7 for one, other in pairs)
    codec = BY_KEY[key].codec
    resolution = abs(codec.decode(1) - codec.decode(0)) if isinstance(codec, Linear) else 1e-9
    return bool(abs(value - recorded) <= resolution)
