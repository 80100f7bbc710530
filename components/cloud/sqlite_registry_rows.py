"""The rows of registry.db as shapes, sound or not: one that odograph would not write hides no other. Rim (SQLite).

What of a row cannot be read (text that is not UTF-8, or longer than a row may be) is bytes here, which no field may
hold: `who.faults` names it. Whoever uses a row asks for its faults first.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final, TypeVar

from components.cloud.who import Device, Invitation, Principal, faults

Row = Device | Principal | Invitation
T = TypeVar("T", Device, Principal, Invitation)
_TABLES: Final[Mapping[type[Row], tuple[str, str]]] = {
    Device: ("device", "id"),
    Principal: ("principal", "id"),
    Invitation: ("invitation", "device"),
}
"""Each shape's table, and the column with the name."""
_TOO_LONG: Final = b""


def find(db: sqlite3.Connection, shape: type[T], name: str) -> T | None:
    """Return the row of that name, or None."""
    return _read(db, shape, _TABLES[shape][1], name)


def every(db: sqlite3.Connection, shape: type[T]) -> Iterator[T]:
    """Yield all rows, in no order."""
    # By their numbers: a query of the rows themselves would end at the first that is too long.
    for (number,) in db.execute(f"SELECT rowid FROM {_TABLES[shape][0]} NOT INDEXED"):  # noqa: S608 - of three
        one = _read(db, shape, "rowid", number)
        if one is not None:
            yield one


def put(db: sqlite3.Connection, one: Row) -> None:
    """Write a row in place of that of its name."""
    names = [field.name for field in fields(one)]
    row = [getattr(one, name) for name in names]
    row = [",".join(value) if isinstance(value, tuple) else value for value in row]
    marks = ", ".join("?" * len(row))
    table = _TABLES[type(one)][0]
    db.execute(f"INSERT OR REPLACE INTO {table} ({', '.join(names)}) VALUES ({marks})", row)  # noqa: S608 - of three


def told_faults(one: Row) -> list[str]:
    """Return the names of the fields that hold what odograph would not write, and what is wrong where that is known."""
    lost = unreadable(one)
    return [f"{name} is no UTF-8 text of at most 1 MiB" if name in lost else name for name in faults(one)]


def unreadable(one: Row) -> Sequence[str]:
    """Return the names of the fields that cannot be read."""
    return [field.name for field in fields(one) if isinstance(getattr(one, field.name), bytes)]


def without_unreadable(one: T) -> T:
    """Return a row with nothing in the fields that cannot be read."""
    nothing: dict[str, Any] = dict.fromkeys(unreadable(one), "")
    return replace(one, **nothing)


def _read(db: sqlite3.Connection, shape: type[T], column: str, key: object) -> T | None:
    names = [field.name for field in fields(shape)]
    query = "SELECT {} FROM " + f"{_TABLES[shape][0]} WHERE {column} = ?"  # noqa: S608 - names of our own
    try:
        row = db.execute(query.format(", ".join(names)), (key,)).fetchone()
    except sqlite3.DataError:
        row = tuple(_cell(db, query.format(name), key) for name in names)
    if row is None:
        return None
    form: dict[str, Any] = dict(zip(names, row, strict=True))
    if shape is Principal and isinstance(form["devices"], str):
        form["devices"] = tuple(form["devices"].split(",")) if form["devices"] else ()
    return shape(**form)


def _cell(db: sqlite3.Connection, query: str, key: object) -> object:
    try:
        (found,) = db.execute(query, (key,)).fetchone() or (_TOO_LONG,)
    except sqlite3.DataError:
        return _TOO_LONG
    return found
