"""JSON from outside, without the holes of `json.loads`: no NaN, no Infinity, no duplicate key, bounded depth. Pure."""

import json
import math
import re
from typing import Final

_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]')
_DIGITS: Final = 17


def loads(data: bytes, max_depth: int) -> object:
    """Read one JSON value.

    Args:
        data: UTF-8 text; the caller has bounded its size.
        max_depth: How many arrays and objects may stand inside each other.

    Raises:
        ValueError: Not JSON, deeper than `max_depth`, a duplicate key, or a number that is not finite or has more
            than 17 digits before its point.
    """
    _check_depth(data, max_depth)
    return json.loads(data, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int)


def dumps(value: object) -> bytes:
    """Write compact UTF-8 JSON; ValueError where a number is not finite."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _check_depth(data: bytes, max_depth: int) -> None:
    # Before json.loads, whose own answer to deep nesting is the stack's limit.
    depth = 0
    for match in _STRUCTURE.finditer(data):
        mark = match[0]
        if mark in b"[{":
            depth += 1
            if depth > max_depth:
                raise ValueError(f"deeper than {max_depth}")
        elif mark in b"]}":
            depth -= 1


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


def _int(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError("a number has more than 17 digits")
    return int(text)
