"""What cbor2 would read and this does not."""

import pytest

from components.wire import strict_cbor


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_as_many_arrays_inside_each_other_as_allowed_are_read_and_one_more_is_not(depth: int) -> None:
    nested = b"\x81" * (depth - 1) + b"\x80"
    assert strict_cbor.dumps(strict_cbor.loads(nested, depth)) == nested
    with pytest.raises(ValueError, match="not CBOR"):
        strict_cbor.loads(b"\x81" + nested, depth)
