"""One TOML file -> a tree of frozen dataclasses, every fault reported at once with its path.

A shape is a dataclass whose fields are tables, themselves dataclasses whose fields are keys. Field types: str, int,
float, bool, Path, Path | None (relative ones stand beside the file), tuple[float, ...], tuple[str, ...],
Mapping[str, float] and Literal of strings. A field without a default is required. `checked` adds a rule to a field;
rules between fields of a table are a ValueError of its `__post_init__`, each of whose texts begins with the key.

No fault shows the password of a URI, or what was given for a field with repr=False.

Reads one file; otherwise pure. It knows nothing of what the keys mean.
"""

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from components.wire.errors import ConfigError

T = TypeVar("T")
_RULE = "rule"


def checked(rule: str, holds: Callable[[Any], bool], default: Any = MISSING) -> Any:  # noqa: ANN401 - a dataclass field
    """Return a dataclass field whose value must fulfil `holds`; `rule` says it in words ("be 1..16")."""
    return field(default=default, metadata={_RULE: (rule, holds)})


def read(path: Path, shape: type[T]) -> T:
    """Read a TOML file into `shape`.

    Raises:
        ConfigError: The file is missing, no TOML, or has faults; all of them are listed, each with its path.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read", str(error)) from error
    faults: list[str] = []
    settings = _table(document, shape, "", path.parent, faults)
    if settings is None or faults:
        raise ConfigError(f"{path} has {len(faults)} fault{'s' if len(faults) != 1 else ''}", faults=faults)
    return settings


def without_password(uri: str) -> str:
    """Return a URI as it may be shown.

    >>> without_password("mongodb://odograph:secret@db.example:27017/cars")
    'mongodb://…@db.example:27017/cars'
    """
    return re.sub(r"//.*@", "//…@", uri)


def _table(table: Mapping[str, object], shape: type[T], at: str, base: Path, faults: list[str]) -> T | None:
    names, before = [one.name for one in fields(shape)], len(faults)  # type: ignore[arg-type]
    for key in table.keys() - set(names):
        near = difflib.get_close_matches(key, names, 1)
        faults.append(f"{at}{key}: unknown key" + (f", did you mean {near[0]}?" if near else ""))
    types = get_type_hints(shape)
    found: dict[str, object] = {}
    for one in fields(shape):  # type: ignore[arg-type]
        where, kind = f"{at}{one.name}", types[one.name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            inner = table.get(one.name, {})
            if isinstance(inner, Mapping):
                found[one.name] = _table(inner, kind, f"{where}.", base, faults)
            else:
                faults.append(f"{where}: must be a table, got {inner!r}")
        elif one.name in table:
            value = _value(table[one.name], kind, base)
            rule, holds = one.metadata.get(_RULE, ("", None))
            if value is None:
                faults.append(f"{where}: must be {_words(kind)}{_got(table[one.name], one)}")
            elif holds is not None and not holds(value):
                faults.append(f"{where}: must {rule}{_got(table[one.name], one)}")
            found[one.name] = value
        elif one.default is MISSING and one.default_factory is MISSING:
            faults.append(f"{where}: missing; must be {_words(kind)}")
    return None if len(faults) > before else _made(shape, found, at, faults)


def _made(shape: type[T], found: Mapping[str, object], at: str, faults: list[str]) -> T | None:
    try:
        return shape(**found)
    except ValueError as error:
        faults += [f"{at}{text}" for text in error.args]
        return None


def _value(given: object, kind: Any, base: Path) -> object:  # noqa: ANN401 - a type form
    """Return `given` as `kind`; None where it is not."""
    if get_origin(kind) is Literal:
        return given if given in get_args(kind) else None
    if kind in {Path, Path | None}:
        return base / Path(given).expanduser() if isinstance(given, str) and given else None
    if kind == tuple[str, ...]:
        return tuple(given) if isinstance(given, list) and all(isinstance(one, str) for one in given) else None
    if kind == Mapping[str, float]:
        numbers = _numbers(given.values()) if isinstance(given, Mapping) else None
        return None if numbers is None else dict(zip(cast("Mapping[str, float]", given), numbers, strict=True))
    if kind is float or get_origin(kind) is tuple:
        numbers = _numbers(given if isinstance(given, list) and kind is not float else [given])
        return numbers[0] if numbers and kind is float else numbers
    return given if type(given) is kind else None


def _got(given: object, of: dataclasses.Field[Any]) -> str:
    """Say what was given; nothing of a field that is not for anybody to see."""
    return f", got {without_password(repr(given))}" if of.repr else ""


def _numbers(given: Iterable[object]) -> tuple[float, ...] | None:
    """Return them all as floats; None where one is no number."""
    found = tuple(given)
    numbers = tuple(float(one) for one in found if isinstance(one, (int, float)) and not isinstance(one, bool))
    return numbers if len(numbers) == len(found) else None


def _words(kind: Any) -> str:  # noqa: ANN401 - a type form
    if get_origin(kind) is Literal:
        return " or ".join(f'"{word}"' for word in get_args(kind))
    if kind == Mapping[str, float]:
        return "a table of numbers"
    if get_origin(kind) is tuple:
        return "a list of texts" if get_args(kind)[0] is str else "a list of numbers"
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a path")
