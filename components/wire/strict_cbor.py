"""CBOR from outside in its one canonical form: no tags, no trailing bytes, no duplicate keys, bounded depth. Pure."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NoReturn, cast

import cbor2


def loads(data: bytes, max_depth: int) -> object:
    """Read one CBOR item of byte and text strings, numbers, arrays and maps.

    Args:
        data: The caller has bounded its size.
        max_depth: How many arrays and maps may stand inside each other in the outermost.

    Raises:
        ValueError: Not CBOR, or not the canonical form of what it says (RFC 8949 4.2).
    """
    try:
        found = cbor2.loads(
            data,
            semantic_decoders=_NO_TAGS,
            max_depth=max_depth,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
        canonical = dumps(found)
    except (cbor2.CBORError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"not CBOR: {error}"[:200]) from error
    # Trailing bytes and longer-than-needed lengths do not survive the way there and back.
    if canonical != data:
        raise ValueError("not the canonical CBOR form")
    return cast("object", found)


def dumps(value: object) -> bytes:
    """Write the canonical form."""
    return cbor2.dumps(value, canonical=True)


class _NoTags(Mapping[int, Callable[[object, bool], object]]):
    """The decoders of all tags: each refuses. cbor2's own make decimals, sets and huge integers."""

    def __getitem__(self, tag: int) -> Callable[[object, bool], object]:
        return self._refuse

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 1

    @staticmethod
    def _refuse(*_: object) -> NoReturn:
        raise ValueError("a tag")


_NO_TAGS: Final = _NoTags()
