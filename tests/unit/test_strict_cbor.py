"""What cbor2 would read and this does not."""

import pytest

from components.wire import strict_cbor


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_arrays_are_read_as_deep_as_allowed_inside_the_outermost_and_no_deeper(depth: int) -> None:
    nested = b"\x81" * depth + b"\x80"
    assert strict_cbor.dumps(strict_cbor.loads(nested, depth)) == nested
    with pytest.raises(ValueError, match="not CBOR"):
        strict_cbor.loads(b"\x81" + nested, depth)
