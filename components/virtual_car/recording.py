"""A recorded minute as a drive: row k is what the car says from its offset until the next row, again every 60 s.

Reading the file is the one thing here that is not pure.
"""

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from components.bounded_file import read_bytes
from components.virtual_car.moment import Moment, Place, Value
from components.virtual_car.pids import BY_KEY
from components.wire.errors import ConfigError

LOOP_MS = 60_000
_MAX_BYTES = 16 * 1024 * 1024
_MAX_WORDS = 300


class UnreadableRecordingError(Exception):
    """A recording that cannot be replayed.

    Args:
        path: The file.
        fault: What is wrong, and where.
        remedy: What the operator can do.
    """

    def __init__(self, path: Path, fault: str, remedy: str) -> None:
        super().__init__(f"{path}: {fault}; {remedy}")
        self.path = path
        self.fault = fault
        self.remedy = remedy


@dataclass(frozen=True)
class Row:
    """One recorded reading.

    Args:
        offset_ms: When it begins, 0 to 59,999 ms after the minute.
        moment: What the car said.
    """

    offset_ms: int
    moment: Moment


class Recording:
    """A minute that a real car has driven.

    Args:
        rows: At least one, by rising offset.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = tuple(rows)
        self._offsets_ms = [row.offset_ms for row in self.rows]
        # What is null in every row was asked for and never answered: the car does not have it.
        self._supported = frozenset(
            key for row in self.rows for key, value in row.moment.values.items() if value is not None
        )

    @property
    def supported(self) -> frozenset[str]:
        """The signals that have a value in at least one row."""
        return self._supported

    def index_at(self, elapsed_s: float) -> int:
        """Which row is in force.

        Args:
            elapsed_s: Since T0, 0 or more.

        Returns:
            Index into `rows`. Before the first row's offset it is the last row, in the first round too.
        """
        # Whole microseconds: float arithmetic must not put a row's own first instant before the row.
        into_loop_ms = (round(elapsed_s * 1_000_000) % (LOOP_MS * 1_000)) / 1_000
        return (bisect_right(self._offsets_ms, into_loop_ms) - 1) % len(self.rows)

    def row_at(self, elapsed_s: float) -> Row:
        """The row in force, for the adapter and for the GPS receiver alike."""
        return self.rows[self.index_at(elapsed_s)]

    def at(self, elapsed_s: float) -> Moment:
        """What the car says at this time."""
        return self.row_at(elapsed_s).moment

    def next_fix_s(self, elapsed_s: float) -> float:
        """When the next row begins."""
        elapsed_ms = round(elapsed_s * 1_000_000) / 1_000
        loop_ms = elapsed_ms // LOOP_MS * LOOP_MS
        later = [loop_ms + offset_ms for offset_ms in self._offsets_ms if loop_ms + offset_ms > elapsed_ms]
        return (later[0] if later else loop_ms + LOOP_MS + self._offsets_ms[0]) / 1_000


def load_recording(path: Path) -> Recording:
    """Read a recording: JSON `{"minute": …, "readings": [{"time": …, <signal>: value, "location": …}, …]}`.

    Keys that are no signal of the virtual car (`gear`, `*_raw`, `*_as_recorded`, …) are left alone, as are the code
    memory's `dtc_status` and `dtc_ff`: a replayed car has no codes.

    Raises:
        UnreadableRecordingError: There is no such file, it is not of this form, or a value does not fit its PID.
    """
    try:
        document = json.loads(read_bytes(path, _MAX_BYTES))
    except ConfigError as error:
        fault = error.message.removeprefix(f"{path} ")
        raise UnreadableRecordingError(path, fault, "name a recording of a minute") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableRecordingError(
            path, f"is not JSON: {error}", "a recording has the form of real_minute.json"
        ) from error
    try:
        return Recording(_rows(document))
    except (ValueError, TypeError, OverflowError) as error:
        raise UnreadableRecordingError(
            path, str(error)[:_MAX_WORDS], "a recording has the form of real_minute.json"
        ) from error


def _rows(document: object) -> list[Row]:
    if not isinstance(document, dict):
        raise TypeError("the document is not an object")
    minute = _time(document.get("minute"), "minute")
    readings = document.get("readings")
    if not isinstance(readings, list) or not readings:
        raise TypeError("readings: wanted a list with at least one row")
    rows: list[Row] = []
    for index, reading in enumerate(readings):
        where = f"readings[{index}]"
        if not isinstance(reading, dict):
            raise TypeError(f"{where}: is not an object")
        offset = _time(reading.get("time"), f"{where}.time") - minute
        offset_ms = round(offset.total_seconds() * 1_000)
        if not 0 <= offset_ms < LOOP_MS:
            raise ValueError(f"{where}.time: is not within 60 s after minute")
        if rows and offset_ms <= rows[-1].offset_ms:
            raise ValueError(f"{where}.time: is not later than the row before")
        values = {key: _value(key, value, where) for key, value in reading.items() if key in BY_KEY}
        rows.append(Row(offset_ms, Moment(values, _place(reading, where))))
    return rows


def _time(text: object, where: str) -> datetime:
    if not isinstance(text, str):
        raise TypeError(f"{where}: wanted an ISO 8601 time, got {text!r}")
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{where}: wanted an ISO 8601 time, got {text!r}") from error
    if time.tzinfo is None:
        raise ValueError(f"{where}: has no time zone, write Z for UTC")
    return time


def _value(key: str, value: object, where: str) -> Value | None:
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise TypeError(f"{where}.{key}: wanted a number or null, got {value!r}")
    try:
        BY_KEY[key].encode(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}.{key}: {error}") from error
    return value


def _place(reading: Mapping[str, object], where: str) -> Place | None:
    altitude, heading, climb, speed = (
        _number(reading.get(key), f"{where}.{key}") for key in ("altitude", "heading", "climb", "gps_speed")
    )
    location = reading.get("location")
    if location is None:
        return None
    coordinates = location.get("coordinates") if isinstance(location, dict) else None
    if not isinstance(coordinates, list) or len(coordinates) < 2:
        raise TypeError(f"{where}.location: wanted a GeoJSON point or null")
    lon, lat = (_number(part, f"{where}.location.coordinates") for part in coordinates[:2])
    if lon is None or lat is None or abs(lon) > 180 or abs(lat) > 90:
        raise ValueError(f"{where}.location.coordinates: wanted [lon, lat] in degrees, got {coordinates}")
    return Place(lat, lon, altitude, heading, climb, speed)


def _number(value: object, where: str) -> float | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf):
        return value
    raise TypeError(f"{where}: wanted a number or null, got {value!r}")
