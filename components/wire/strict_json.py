"""JSON from outside, without the holes of `json.loads`: no NaN, no Infinity, no duplicate key, bounded depth. Pure."""

import json
import math
import re
from typing import Final, cast

_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)
_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
# Digits after a point are a fraction, which may be as long as it likes.
_LONG: Final = re.compile(rb"(?<![.0-9])[0-9]{18}")


def loads(data: bytes, max_depth: int) -> object:
    """Read one JSON value, in time linear in the size of `data`.

    Args:
        data: UTF-8 text without a byte order mark; the caller has bounded its size.
        max_depth: How many arrays and objects may stand inside each other.

    Raises:
        ValueError: Not JSON, deeper than `max_depth`, a duplicate key, half a surrogate pair, or a number that is not
            finite or has more than 17 digits before its point.
    """
    # Before json reads it: its own answer to deep nesting is the stack's limit, to long numbers quadratic time.
    outside = _outside_strings(data)
    _check_depth(outside, max_depth)
    if _LONG.search(outside):
        raise ValueError("a number has more than 17 digits")
    # json.loads would take bytes too, but guesses at UTF-16 and UTF-32.
    found = _DECODER.decode(data.decode())
    if b"\\" in data:
        # Half a surrogate pair can be escaped, but no store and no log can write it.
        json.dumps(found, ensure_ascii=False).encode()
    return cast("object", found)


def dumps(value: object) -> bytes:
    """Write compact UTF-8 JSON; ValueError where a number is not finite."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _outside_strings(data: bytes) -> bytes:
    """Return what stands outside strings; where `data` is no JSON, at least up to json's first complaint."""
    if b"\\" in data:
        data = _ESCAPE.sub(b"", data)
    return b" ".join(data.split(b'"')[::2])


def _check_depth(outside: bytes, max_depth: int) -> None:
    brackets = outside.translate(_BRACKETS, _NO_BRACKET)
    # Each round takes away the innermost pairs, all at once; who pairs with whom is json's to judge.
    for _ in range(max_depth):
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise ValueError(f"deeper than {max_depth}, or a bracket without its other")


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
        # The text may be as long as the packet.
        raise ValueError(f"{text[:40]} is not finite")
    return number


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
