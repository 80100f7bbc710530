"""Readings as columns and back: lossless, and half the bytes of rows. Pure.

One entry a signal, in one of four forms:

================  ==================================================================================================
`"no_data"`       no reading has a value, all for this reason
`{"d": [n, …]}`   integers as the car sent them (the catalogue's codec reads them): the first as it is, each later one
                  as the difference to the one before; null where there is no value
`{"e": k, "d"}`   the same for receivers' numbers: n / 10^k
`{"v": [x, …]}`   numbers that those two forms cannot give back exactly, as they are
================  ==================================================================================================

`location` is `{"lon": [n, …], "lat": [n, …]}`, differences of differences of 1e-7 degrees, as a car keeps going. `at`
is the first reading's offset from the packet's start, then differences, ms. `measured` is a list of
`{"of": [signal, …], "at": [n, …]}`: when the values of signals that were answered together were measured, in the form
of `at`, null where there is no value; signals measured just at `at` are left out. `why` gives the reasons of the nulls
of mixed columns as runs `{reason: length}`. No array stands in an array: not every database can hold that.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby
from types import NoneType
from typing import Final, cast

from components.wire.reading import Reading, check_value
from components.wire.signals import BY_KEY, LARGEST, REASONS, Linear, Signal, Value, most_raw, span

Json = dict[str, object]
_MAX_EXPONENT: Final = 7
_PLACE_SCALE: Final = 10**7
_TABLE_KEYS: Final = frozenset(("at", "columns", "measured", "why"))


def encode(readings: Sequence[Reading], start_ms: int) -> Json:
    """Return the columns of a packet that starts at `start_ms`; `decode` gives the same readings back.

    Args:
        readings: Oldest first; places are rounded to 7 decimals.

    Raises:
        ValueError: A value that its signal cannot have (`reading.check_value`).
    """
    columns: Json = {}
    why: dict[str, list[object]] = {}
    for key, signal in BY_KEY.items():
        values = [reading.values.get(key) for reading in readings]
        reasons = [reading.why[key] for reading in readings if key in reading.why]
        if len(set(reasons)) == 1 and len(reasons) == len(readings):
            columns[key] = reasons[0]
            continue
        for value in values:
            if value is not None:
                check_value(key, value)
        columns[key] = _location(values) if key == "location" else _column(signal, values)
        if reasons:
            why[key] = [{reason: len(list(run))} for reason, run in groupby(reasons)]
    at = [reading.at_ms - start_ms for reading in readings]
    return {"at": _differences(at), "columns": columns, "measured": _measured(readings, at), "why": why}


def decode(form: object, start_ms: int, max_readings: int) -> tuple[Reading, ...]:
    """Return the readings of a packet that starts at `start_ms`; ValueError as `check`."""
    return check(form, max_readings).readings(start_ms)


def check(form: object, max_readings: int) -> "Columns":
    """Return the columns as far read as their checks need: a third of the work of `decode`.

    Raises:
        ValueError: `form` is not what `encode` makes: wrong types, lengths, keys, reasons, or more than `max_readings`.
    """
    table = _object(form, _TABLE_KEYS)
    at = _sums(_list(table["at"], None, max_readings))
    if None in at:
        raise ValueError("at: a reading without a time")
    columns, why = _object(table["columns"], BY_KEY.keys()), _object(table["why"], None)
    found: dict[str, _Column] = {}
    reasons: dict[str, list[str]] = {}
    for key, column in columns.items():
        if not isinstance(column, str):
            found[key] = _read_column(BY_KEY[key], column, len(at))
            if nulls := found[key].numbers.count(None):
                reasons[key] = _runs(key, why.get(key), nulls)
        elif column in REASONS:
            reasons[key] = [column] * len(at)
        else:
            raise ValueError(f"{key}: no such reason")
    if any(key not in found or key not in reasons for key in why):
        raise ValueError("why: reasons without nulls, or beside a column's own")
    return Columns(cast("list[int]", at), found, reasons, _read_measured(table["measured"], at, found))


@dataclass(frozen=True, slots=True)
class _Column:
    """A signal with values: a number for each, None for a null, and what makes a value of a number."""

    numbers: Sequence[object]
    read: Callable[[int], Value] | None = None

    def values(self) -> list[Value | None]:
        if self.read is None:
            return cast("list[Value | None]", self.numbers)
        read = {number: None if number is None else self.read(cast("int", number)) for number in set(self.numbers)}
        return [read[number] for number in self.numbers]


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns that `check` has found right; each signal is in `columns`, in `reasons`, or has its nulls' there.

    Attributes:
        at: Offset of each reading from the packet's start, ms.
        columns: By signal key, for each signal that may have values.
        reasons: By signal key: the reason of each null, in order.
        moments: By signal key, where not `at`: when each value was measured, in the form of `at`; None for a null.
    """

    at: list[int]
    columns: Mapping[str, _Column]
    reasons: Mapping[str, list[str]]
    moments: Mapping[str, list[int | None]]

    def readings(self, start_ms: int) -> tuple[Reading, ...]:
        """Return the readings of a packet that starts at `start_ms`, in their order; () where there are none."""
        values: list[dict[str, Value]] = [{} for _ in self.at]
        why: list[dict[str, str]] = [{} for _ in self.at]
        ages: list[dict[str, int]] = [{} for _ in self.at]
        for key, column in self.columns.items():
            for said, value in zip(values, column.values(), strict=True):
                if value is not None:
                    said[key] = value
        for key, reasons in self.reasons.items():
            missing = (row for row, said in zip(why, values, strict=True) if key not in said)
            for row, reason in zip(missing, reasons, strict=True):
                row[key] = reason
        for key, moments in self.moments.items():
            for age, at, moment in zip(ages, self.at, moments, strict=True):
                if moment is not None and moment != at:
                    age[key] = at - moment
        return tuple(map(Reading, [start_ms + at for at in self.at], values, why, ages))


def _column(signal: Signal, values: Sequence[Value | None]) -> Json:
    if signal.codec is not None:
        if (raws := _exactly(values, signal.codec.encode, signal.codec.decode)) is not None:
            return {"d": _differences(raws)}
    else:
        for exponent in range(_MAX_EXPONENT + 1):
            up, down = partial(_scaled_up, 10**exponent), partial(_scaled, 10**exponent)
            if (raws := _exactly(values, up, down)) is not None:
                return {"e": exponent, "d": _differences(raws)}
    return {"v": list(values)}


def _scaled_up(scale: int, value: Value) -> int:
    return round(cast("float", value) * scale)


def _scaled(scale: int, number: int) -> float:
    return number if scale == 1 else number / scale


def _exactly(
    values: Sequence[Value | None], encode_one: Callable[[Value], int], decode_one: Callable[[int], Value]
) -> list[int | None] | None:
    """Return the integers, or None where one value would not come back equal, its sign included."""
    found: list[int | None] = []
    for value in values:
        raw = None if value is None else encode_one(value)
        # An integer has no negative zero.
        if raw is not None and (decode_one(raw) != value or abs(raw) >= LARGEST or repr(value) == "-0.0"):
            return None
        found.append(raw)
    return found


def _location(values: Sequence[Value | None]) -> Json:
    points = [None if value is None else cast("list[float]", cast("Json", value)["coordinates"]) for value in values]
    sides = [[None if p is None else round(p[side] * _PLACE_SCALE) for p in points] for side in (0, 1)]
    return {"lon": _differences(_differences(sides[0])), "lat": _differences(_differences(sides[1]))}


def _read_column(signal: Signal, column: object, count: int) -> _Column:
    where, codec = signal.key, signal.codec
    if signal.key == "location":
        return _places(_object(column, {"lon", "lat"}), count)
    if isinstance(column, dict) and column.keys() == {"v"} and isinstance(codec, (Linear, NoneType)):
        numbers = _list(column["v"], count)
        if not set(map(type, numbers)) <= {int, float, NoneType}:
            raise ValueError(f"{where}: a column of values holds numbers")
        # NaN, which packet.parse never lets through, would hide from min and max.
        if any(number != number for number in numbers):  # noqa: PLR0124 - only NaN is not itself
            raise ValueError(f"{where}: NaN is no number")
        _check_span(where, cast("list[float | None]", numbers), *span(signal))
        return _Column(numbers)
    if codec is not None:
        raws = _sums(_list(_object(column, {"d"})["d"], count))
        _check_span(where, raws, 0, most_raw(signal))
        if not codec.total:
            for raw in set(raws) - {None}:
                codec.decode(cast("int", raw))
        return _Column(raws, codec.decode)
    scaled = _object(column, {"e", "d"})
    exponent = scaled["e"]
    if type(exponent) is not int or not 0 <= exponent <= _MAX_EXPONENT:
        raise ValueError(f"{where}: an exponent is 0 to {_MAX_EXPONENT}")
    steps, scale = _sums(_list(scaled["d"], count)), 10**exponent
    _check_span(where, steps, *(scale * edge for edge in span(signal)))
    return _Column(steps, partial(_scaled, scale))


def _check_span(where: str, numbers: Iterable[float | None], least: float, most: float) -> None:
    said = [number for number in numbers if number is not None]
    if said and not least <= min(said) <= max(said) <= most:
        raise ValueError(f"{where}: not from {least} to {most}")


def _places(sides: Json, count: int) -> _Column:
    lon, lat = (_sums(_sums(_list(sides[side], count))) for side in ("lon", "lat"))
    if [x is None for x in lon] != [y is None for y in lat]:
        raise ValueError("location: half a place")
    _check_span("location", lon, -180 * _PLACE_SCALE, 180 * _PLACE_SCALE)
    _check_span("location", lat, -90 * _PLACE_SCALE, 90 * _PLACE_SCALE)
    return _Column([
        None if x is None or y is None
        else {"type": "Point", "coordinates": [x / _PLACE_SCALE, y / _PLACE_SCALE]}
        for x, y in zip(lon, lat, strict=True)
    ])  # fmt: skip


def _measured(readings: Sequence[Reading], at: Sequence[int]) -> list[object]:
    """Group the signals that were measured at the same moments; those measured just at `at` are left out."""
    groups: dict[tuple[int | None, ...], list[str]] = {}
    aged = {key for reading in readings for key in reading.age_ms}
    for key in BY_KEY:
        if key in aged:
            moments = tuple(
                offset - reading.age_ms.get(key, 0) if key in reading.values else None
                for offset, reading in zip(at, readings, strict=True)
            )
            groups.setdefault(moments, []).append(key)
    return [{"of": keys, "at": _differences(moments)} for moments, keys in groups.items()]


def _read_measured(
    form: object, at: Sequence[int | None], columns: Mapping[str, _Column]
) -> dict[str, list[int | None]]:
    found: dict[str, list[int | None]] = {}
    for group in _list(form, None, len(BY_KEY)):
        together = _object(group, {"of", "at"})
        moments = _sums(_list(together["at"], len(at)))
        nulls = [moment is None for moment in moments]
        if any(moment is not None and moment > cast("int", now) for moment, now in zip(moments, at, strict=True)):
            raise ValueError("measured: later than the reading")
        for key in _list(together["of"], None, len(BY_KEY)):
            if not isinstance(key, str) or key not in columns or key in found:
                raise ValueError("measured: a signal that is unknown, without values, or there twice")
            if nulls != [number is None for number in columns[key].numbers]:
                raise ValueError(f"measured: {key} has a moment for exactly its values")
            found[key] = moments
    return found


def _differences(numbers: Sequence[int | None]) -> list[int | None]:
    found: list[int | None] = []
    last = 0
    for number in numbers:
        found.append(None if number is None else number - last)
        last = last if number is None else number
    return found


def _sums(differences: Sequence[object]) -> list[int | None]:
    steps = [step for step in differences if step is not None]
    # The very type: True is an int to isinstance, and 3.0 to a schema.
    if not set(map(type, steps)) <= {int}:
        raise ValueError("differences are whole numbers")
    sums = list(accumulate(cast("list[int]", steps)))
    if sums and not -LARGEST < min(sums) <= max(sums) < LARGEST:
        raise ValueError("differences add up to more than a number can be")
    if len(steps) == len(differences):
        return cast("list[int | None]", sums)
    said = iter(sums)
    return [None if step is None else next(said) for step in differences]


def _runs(key: str, form: object, nulls: int) -> list[str]:
    """Return the reason of each of so many nulls."""
    found: list[str] = []
    for run in _list(form, None, nulls):
        reason, length = next(iter(run.items())) if isinstance(run, dict) and len(run) == 1 else (None, None)
        if type(length) is not int or not 1 <= length <= nulls - len(found) or reason not in REASONS:
            raise ValueError(f"why.{key}: runs are {{reason: length}}, as many as nulls")
        found += [reason] * length
    if len(found) < nulls:
        raise ValueError(f"why.{key}: fewer reasons than nulls")
    return found


def _object(form: object, keys: object) -> Json:
    if not isinstance(form, dict) or (keys is not None and form.keys() != keys):
        raise ValueError("an object with other keys was expected")
    return form


def _list(form: object, length: int | None, most: int | None = None) -> list[object]:
    if not isinstance(form, list) or (length is not None and len(form) != length):
        raise ValueError("a list of another length was expected")
    if most is not None and len(form) > most:
        raise ValueError(f"a list of at most {most} was expected")
    return form
