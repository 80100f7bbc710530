"""One TOML file -> a tree of frozen dataclasses, every fault reported at once with its path.

A shape is a dataclass whose fields are tables, themselves dataclasses whose fields are keys. Field types: str, int,
float, bool, Path, Path | None (relative ones stand beside the file), tuple[float, ...], tuple[str, ...],
Mapping[str, float] and Literal of strings. A field without a default is required. `checked` adds a rule to a field;
rules between fields of a table are a ValueError of its `__post_init__`, each of whose texts begins with the key.

No fault shows the password of a URI, or what was given for a field with repr=False.

Reads one file of at most MAX_BYTES; otherwise pure. It knows nothing of what the keys mean.
"""

import dataclasses
import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, field, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeGuard, TypeVar, cast, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from components.bounded_file import read_text
from components.wire.errors import ConfigError

T = TypeVar("T")
MAX_BYTES: Final = 16 * 1024
_MAX_FAULTS: Final = 50
_MAX_SHOWN: Final = 60
_MAX_PATH: Final = 1024
_RULE = "rule"
_LABEL: Final = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
"""Source: RFC 1123, 2.1; with the underscore that some networks give."""


def checked(rule: str, holds: Callable[[Any], bool], default: Any = MISSING) -> Any:  # noqa: ANN401 - a dataclass field
    """Return a dataclass field whose value must fulfil `holds`; `rule` says it in words ("be 1..16")."""
    return field(default=default, metadata={_RULE: (rule, holds)})


def read(path: Path, shape: type[T]) -> T:
    """Read a TOML file into `shape`.

    Raises:
        ConfigError: The file is missing, too large, no TOML, or has faults; they are listed, each with its path.
    """
    text = read_text(path, MAX_BYTES)
    try:
        document = tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{path} cannot be read", "lists or tables stand too deep in each other") from error
    except ValueError as error:  # tomllib's own, and int's for a number of thousands of digits
        raise ConfigError(f"{path} cannot be read", str(error)) from error
    faults: list[str] = []
    settings = _table(document, shape, "", path.parent, faults)
    if settings is None or faults:
        message = f"{path} has {len(faults)} fault{'s' if len(faults) != 1 else ''}"
        raise ConfigError(message, faults=faults[:_MAX_FAULTS])
    return settings


def is_url(text: str, *schemes: str) -> bool:
    """Whether it is SCHEME://HOST[:PORT][/PATH] with one of these schemes, in plain ASCII, without a user.

    >>> is_url("ws://127.0.0.1:8080/ws", "ws", "wss"), is_url("ws://127.0.0.1:80800/ws", "ws"), is_url("ws://", "ws")
    (True, False, False)
    """
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return False
    is_plain = re.fullmatch(r"[!-~]{1,2048}", text) is not None and "@" not in url.netloc
    return is_plain and url.scheme in schemes and _is_host(url.hostname or "") and port != 0


def _is_host(name: str) -> bool:
    """Whether it is a name, an IPv4 address, or what stood in square brackets, which urlsplit has looked at."""
    return ":" in name or (len(name) <= 253 and re.fullmatch(rf"{_LABEL}(\.{_LABEL})*\.?", name) is not None)


def is_address(text: str) -> bool:
    """Whether it is HOST:PORT; an IPv6 host stands in square brackets.

    >>> is_address("127.0.0.1:2947"), is_address("[::1]:2947"), is_address("gps:65536"), is_address("::1:2947")
    (True, True, False, False)
    """
    return is_url(f"tcp://{text}", "tcp") and re.search(r":[0-9]{1,5}\Z", text) is not None and "/" not in text


def without_password(uri: str) -> str:
    """Return a URI as it may be shown.

    >>> without_password("mongodb://odograph:secret@db.example:27017/cars")
    'mongodb://…@db.example:27017/cars'
    """
    return re.sub(r"//.*@", "//…@", uri)


def _table(table: Mapping[str, object], shape: type[T], at: str, base: Path, faults: list[str]) -> T | None:
    names, before = [one.name for one in fields(shape)], len(faults)  # type: ignore[arg-type]
    for key in sorted(table.keys() - set(names)):
        near = difflib.get_close_matches(key[:_MAX_SHOWN], names, 1) if len(faults) < _MAX_FAULTS else []
        faults.append(f"{at}{shown_key(key)}: unknown key" + (f", did you mean {near[0]}?" if near else ""))
    types = get_type_hints(shape)
    found: dict[str, object] = {}
    for one in fields(shape):  # type: ignore[arg-type]
        where, kind = f"{at}{one.name}", types[one.name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            inner = table.get(one.name, {})
            if isinstance(inner, Mapping):
                found[one.name] = _table(inner, kind, f"{where}.", base, faults)
            else:
                faults.append(f"{where}: must be a table{_got(inner, one)}")
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
        return _path(given, base) if isinstance(given, str) and given else None
    if get_origin(kind) is tuple:
        return _list(given, get_args(kind)[0]) if isinstance(given, list) else None
    if kind == Mapping[str, float]:
        numbers = _numbers(given.values()) if isinstance(given, Mapping) else None
        return None if numbers is None else dict(zip(cast("Mapping[str, float]", given), numbers, strict=True))
    if kind is float:
        return float(given) if _is_number(given) else None
    return given if type(given) is kind and (kind is not int or _is_number(given)) else None


def _list(given: list[object], kind: type) -> object:
    """Return a list of texts or of numbers as a tuple; None where one is of another kind."""
    if kind is str:
        return tuple(given) if all(isinstance(one, str) for one in given) else None
    return _numbers(given)


def _is_number(given: object) -> TypeGuard[float]:
    """Whether a float can hold it exactly; TOML writes `inf` and `nan` too, and whole numbers of any length."""
    if type(given) is int:
        return abs(given) <= 2**53
    return isinstance(given, float) and math.isfinite(given)


def _path(text: str, base: Path) -> Path | None:
    """Return the path that stands beside `base`; None where no file can be called that, or nobody is called ~NAME."""
    if len(text) > _MAX_PATH or not text.isprintable():
        return None
    try:
        return base / Path(text).expanduser()
    except RuntimeError:
        return None


def shown_key(name: str) -> str:
    """Return a key as it may be shown: bare, or quoted and cut where it is no bare key."""
    return name if name.isidentifier() and len(name) <= _MAX_SHOWN else shown(name)


def shown(given: object) -> str:
    """Return a short repr, whatever it is: a number of a million digits or a tree of a thousand branches."""
    try:
        text = without_password(repr(given))
    except (ValueError, RecursionError):
        return "something too large to show"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _got(given: object, of: dataclasses.Field[Any]) -> str:
    """Say what was given; nothing of a field that is not for anybody to see."""
    return f", got {shown(given)}" if of.repr else ""


def _numbers(given: Iterable[object]) -> tuple[float, ...] | None:
    """Return them all as floats; None where one is no number."""
    found = tuple(given)
    numbers = tuple(float(one) for one in found if _is_number(one))
    return numbers if len(numbers) == len(found) else None


def _words(kind: Any) -> str:  # noqa: ANN401 - a type form
    if get_origin(kind) is Literal:
        return " or ".join(f'"{word}"' for word in get_args(kind))
    if kind == Mapping[str, float]:
        return "a table of numbers"
    if get_origin(kind) is tuple:
        return "a list of texts" if get_args(kind)[0] is str else "a list of numbers"
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a path")
