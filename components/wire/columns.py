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
is the first reading's offset from the packet's start, then differences, ms. `measured` is a list of `[keys, moments]`:
when the values of signals that were answered together were measured, in the form of `at`; signals measured just at
`at` are left out. `why` gives the reasons of the nulls of mixed columns as runs `[reason, length]`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from types import NoneType
from typing import Final, cast

from components.wire.reading import Reading
from components.wire.signals import BY_KEY, REASONS, Linear, Signal, Value

Json = dict[str, object]
_MAX_EXPONENT: Final = 7
_LARGEST: Final = 2**53


def encode(readings: Sequence[Reading], start_ms: int) -> Json:
    """Return the columns of a packet that starts at `start_ms`; `decode` gives the same readings back.

    Args:
        readings: Oldest first; places have at most 7 decimals.

    Raises:
        ValueError: A value that its signal cannot have.
    """
    columns: Json = {}
    why: dict[str, list[object]] = {}
    for key, signal in BY_KEY.items():
        values = [reading.values.get(key) for reading in readings]
        reasons = [reading.why[key] for reading in readings if key in reading.why]
        if len(set(reasons)) == 1 and len(reasons) == len(readings):
            columns[key] = reasons[0]
            continue
        columns[key] = _location(values) if key == "location" else _column(signal, values)
        if reasons:
            why[key] = [[reason, len(list(run))] for reason, run in groupby(reasons)]
    at = [reading.at_ms - start_ms for reading in readings]
    return {"at": _differences(at), "columns": columns, "measured": _measured(readings, at), "why": why}


def decode(form: object, start_ms: int, max_readings: int) -> tuple[Reading, ...]:
    """Return the readings of a packet that starts at `start_ms`.

    Raises:
        ValueError: `form` is not what `encode` makes: wrong types, lengths, keys, reasons, or more than `max_readings`.
    """
    table = _object(form, {"at", "columns", "measured", "why"})
    at = _whole(_list(table["at"], None))
    if len(at) > max_readings:
        raise ValueError(f"more than {max_readings} readings")
    columns, why = _object(table["columns"], BY_KEY.keys()), _object(table["why"], None)
    ages = _ages(table["measured"], at)
    values: list[dict[str, Value]] = [{} for _ in at]
    reasons: list[dict[str, str]] = [{} for _ in at]
    for key, column in columns.items():
        nulls = iter(()) if isinstance(column, str) else _runs(why.pop(key, []))
        for n, value in enumerate(_values(BY_KEY[key], column, len(at))):
            if value is not None:
                values[n][key] = value
            else:
                reasons[n][key] = column if isinstance(column, str) else next(nulls, "")
        if next(nulls, None) is not None:
            raise ValueError(f"why.{key}: more reasons than nulls")
    if why:
        raise ValueError(f"why: {', '.join(why)} have no nulls")
    return tuple(
        Reading.checked(start_ms + at[n], values[n], reasons[n], {key: age for key, age in ages[n].items() if age})
        for n in range(len(at))
    )


def _column(signal: Signal, values: Sequence[Value | None]) -> Json:
    if signal.codec is not None:
        if (raws := _exactly(values, signal.codec.encode, signal.codec.decode)) is not None:
            return {"d": _differences(raws)}
    else:
        for exponent in range(_MAX_EXPONENT + 1):
            up, down = partial(_scaled_up, 10**exponent), partial(_scaled, 10**exponent)
            if (raws := _exactly(values, up, down)) is not None:
                return {"e": exponent, "d": _differences(raws)}
    if any(type(value) not in {int, float, NoneType} for value in values):
        raise ValueError(f"{signal.key}: a value that its codec does not give back")
    return {"v": list(values)}


def _scaled_up(scale: int, value: Value) -> int:
    return round(cast("float", value) * scale)


def _scaled(scale: int, number: int) -> float:
    return number if scale == 1 else number / scale


def _exactly(
    values: Sequence[Value | None], encode_one: Callable[[Value], int], decode_one: Callable[[int], Value]
) -> list[int | None] | None:
    """Return the integers, or None where one value would not come back the same, type included."""
    found: list[int | None] = []
    for value in values:
        if value is None:
            found.append(None)
            continue
        try:
            raw = encode_one(value)
            back = decode_one(raw)
        except (TypeError, ValueError, KeyError, OverflowError):
            return None
        if back != value or not -_LARGEST < raw < _LARGEST:
            return None
        found.append(raw)
    return found


def _location(values: Sequence[Value | None]) -> Json:
    points = [None if value is None else cast("list[float]", cast("Json", value)["coordinates"]) for value in values]
    scale = 10**_MAX_EXPONENT
    sides = [[None if p is None else round(p[side] * scale) for p in points] for side in (0, 1)]
    return {"lon": _differences(_differences(sides[0])), "lat": _differences(_differences(sides[1]))}


def _values(signal: Signal, column: object, count: int) -> list[Value | None]:
    where = signal.key
    if isinstance(column, str):
        if column not in REASONS:
            raise ValueError(f"{where}: {column} is no reason")
        return [None] * count
    if not isinstance(column, dict):
        raise ValueError(f"{where}: a column is a reason or an object")  # noqa: TRY004 - one error for all bad input
    if signal.key == "location":
        sides = _object(column, {"lon", "lat"})
        lon, lat = (_sums(_sums(_list(sides[side], count))) for side in ("lon", "lat"))
        return [_point(x, y) for x, y in zip(lon, lat, strict=True)]
    if set(column) == {"v"} and isinstance(signal.codec, (Linear, NoneType)):
        numbers = _list(column["v"], count)
        if any(type(number) not in {int, float, NoneType} for number in numbers):
            raise ValueError(f"{where}: a column of values holds numbers")
        return cast("list[Value | None]", numbers)
    if signal.codec is not None:
        raws = _sums(_list(_object(column, {"d"})["d"], count))
        if any(raw is not None and not 0 <= raw < 256**signal.size for raw in raws):
            raise ValueError(f"{where}: does not fit the {signal.size} bytes that the car sends")
        read = {raw: signal.codec.decode(raw) for raw in raws if raw is not None}
        return [None if raw is None else read[raw] for raw in raws]
    scaled = _object(column, {"e", "d"})
    exponent = scaled["e"]
    if type(exponent) is not int or not 0 <= exponent <= _MAX_EXPONENT:
        raise ValueError(f"{where}: an exponent is 0 to {_MAX_EXPONENT}")
    return [None if n is None else _scaled(10**exponent, n) for n in _sums(_list(scaled["d"], count))]


def _point(lon: int | None, lat: int | None) -> Value | None:
    if lon is None or lat is None:
        if lon is not lat:
            raise ValueError("location: half a place")
        return None
    scale = 10**_MAX_EXPONENT
    if abs(lon) > 180 * scale or abs(lat) > 90 * scale:
        raise ValueError("location: off the Earth")
    return {"type": "Point", "coordinates": [lon / scale, lat / scale]}


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
    return [[keys, _differences(moments)] for moments, keys in groups.items()]


def _ages(form: object, at: Sequence[int]) -> list[dict[str, int]]:
    ages: list[dict[str, int]] = [{} for _ in at]
    for group in _list(form, None):
        keys, moments = _list(group, 2)
        for key in _list(keys, None):
            if not isinstance(key, str) or key not in BY_KEY:
                raise ValueError(f"measured: {key!r} is no signal")
            for n, moment in enumerate(_sums(_list(moments, len(at)))):
                if moment is not None:
                    ages[n][key] = at[n] - moment
    return ages


def _differences(numbers: Sequence[int | None]) -> list[int | None]:
    found: list[int | None] = []
    last = 0
    for number in numbers:
        found.append(None if number is None else number - last)
        last = last if number is None else number
    return found


def _sums(differences: Sequence[object]) -> list[int | None]:
    found: list[int | None] = []
    last = 0
    for difference in differences:
        if difference is None:
            found.append(None)
        elif type(difference) is int and abs(last := last + difference) < _LARGEST:
            found.append(last)
        else:
            raise ValueError(f"{difference!r} is no difference of whole numbers")
    return found


def _whole(differences: Sequence[object]) -> list[int]:
    found = [n for n in _sums(differences) if n is not None]
    if len(found) < len(differences):
        raise ValueError("at: a reading without a time")
    return found


def _runs(form: object) -> Iterator[str]:
    for run in _list(form, None):
        reason, length = _list(run, 2)
        if type(length) is not int or length < 1 or not isinstance(reason, str):
            raise ValueError("why: runs are [reason, length]")
        for _ in range(length):
            yield reason


def _object(form: object, keys: object) -> Json:
    if not isinstance(form, dict) or (keys is not None and form.keys() != keys):
        raise ValueError("an object with other keys was expected")
    return form


def _list(form: object, length: int | None) -> list[object]:
    if not isinstance(form, list) or (length is not None and len(form) != length):
        raise ValueError("a list of another length was expected")
    return form
