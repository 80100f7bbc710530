"""Strict JSON: what json.loads lets through is stopped, in time that grows with the size only."""

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.wire import strict_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17) + 1, 10**17 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('"\\[]{}a', max_size=4), inner, max_size=3),
    max_leaves=10,
)


def depth(value: object) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(map(depth, inner), default=0) if isinstance(inner, list) else 0


@given(values)
def test_what_is_written_is_read_back_at_its_depth_and_no_shallower(value: object) -> None:
    written, deep = strict_json.dumps(value), depth(value)
    assert strict_json.loads(written, deep) == value
    if deep:
        with pytest.raises(ValueError, match="deeper"):
            strict_json.loads(written, deep - 1)


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[Infinity]",
        "-Infinity",
        "1e400",
        "[-1e999]",
        '{"a":1,"a":2}',
        '{"b":{"a":1,"\\u0061":2}}',
        "1" * 18,
        "[-" + "9" * 18 + "]",
        "9" * 18 + ".5",
        "9" * 18 + "e1",
        "1" * 5000,
        "[" * 7 + "]" * 7,
        "{}{}",
        "[1,]",
        "",
        '"',
        '"\\',
        '["\\"]',
        "\ufeff{}",
        "'a'",
        '{"a":1}x',
        "[}",
        "01",
        '"\n"',
        '\\"[[[[[[[[',
        '1"2',
        '"\\ud800"',
        '{"\\udfff":1}',
        '["\\ude00\\ud83d"]',
    ],
)
def test_what_is_no_strict_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own messages
        strict_json.loads(text.encode(), 6)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_only_utf_8_without_a_mark_is_read(encoding: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - two kinds of it
        strict_json.loads('{"a":"é"}'.encode(encoding), 6)


@pytest.mark.parametrize("text", ["0.00012345678901234567", "1e-300", "-99999999999999999", "[1.7976931348623157e308]"])
def test_long_fractions_and_seventeen_digits_are_read(text: str) -> None:
    assert strict_json.loads(text.encode(), 1) == json.loads(text)


def test_digits_and_brackets_inside_strings_do_not_count() -> None:
    text = '{"iccid":"8949020000012345678901","x":"[[[[[[[[\\"{{{{"}'
    assert strict_json.loads(text.encode(), 1) == json.loads(text)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 1_000_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 200_000,
        b'"' + b'\\"' * 500_000,
        b"9" * 1_000_000,
        b'["' * 500_000,
        b"\\" * 1_000_000,
        b'"' * 1_000_000,
        b"1." + b"9" * 1_000_000 + b"x",
    ],
    ids=range(9),
)
def test_a_mebibyte_of_malice_is_refused_within_a_second(data: bytes) -> None:
    began = time.process_time()
    with pytest.raises(ValueError):  # noqa: PT011 - json's own messages
        strict_json.loads(data, 6)
    assert time.process_time() - began < 1


@given(st.binary(max_size=200) | st.text('[]{}",:\\0123456789eE.-truefalsn ', max_size=80).map(str.encode))
def test_any_bytes_are_read_or_refused_by_one_kind_of_error(data: bytes) -> None:
    try:
        found = strict_json.loads(data, 6)
    except ValueError:
        return
    # Whatever it takes, json takes too, and means the same.
    assert found == json.loads(data)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_no_number_that_is_none_is_written(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        strict_json.dumps([number])
