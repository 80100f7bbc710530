"""Inputs near to right ones: a seed of the corpus with a few changes of the kinds that parsers trip over. Pure.

For Hypothesis, where atheris (which finds its own way by coverage) is not installed, and in the unit tests.
"""

from typing import Final

from hypothesis import strategies as st

_WORDS: Final = (
    b"null", b"true", b"NaN", b"Infinity", b"-0.0", b"1e400", b"1e-400", b"9" * 17, b"9" * 18, b"9" * 5_000, b"{}",
    b"[]", b"[" * 64, b'{"a":' * 40, b'""', b'"\\ud800"', b"\\u0000", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b",", b":",
    b"0", b"-1", b"1.5", b"9999-12-31T23:59:59Z", b"1969-12-31T23:59:59Z", b"2106-02-07T06:28:16.000Z", b"\xc2\x41\xff",
    b"\xfb\x7f\xf0" + bytes(6), b"\x9b" + b"\xff" * 8, b"\x5f", b"\x7f", b"\x9f", b"\xbf", b"\xd8\x1d", b"\x81" * 40,
    b"\xf9\x7e\x00", b"\x1b" + b"\xff" * 8,
)  # fmt: skip


@st.composite
def near(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Return a seed with one to six changes: some bytes, a cut, an evil word, a part repeated or put elsewhere."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        to = draw(st.integers(at, min(len(data), at + draw(st.sampled_from((0, 1, 2, 8, 64, 512))))))
        kind = draw(st.integers(0, 4))
        if kind == 0:
            data = data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[to:]
        elif kind == 1:
            data = data[:at] + data[to:]
        elif kind == 2:
            data = data[:at] + draw(st.sampled_from(_WORDS)) + data[to:]
        elif kind == 3:
            data = data[:to] + data[at:to] * draw(st.sampled_from((1, 2, 50))) + data[to:]
        else:
            elsewhere = draw(st.integers(0, len(data)))
            data = data[:elsewhere] + data[at:to] + data[elsewhere:]
    return data[:300_000]
