"""A moment of `make fuzz` in every run of the tests: inputs near to right ones, and what the fuzzers once found."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import seeds
from tests.fuzz.mutations import near
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_near_misses_bring_out_no_error_but_the_documented_one(name: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(near(seeds.of(name)))
    def feed(data: bytes) -> None:
        TARGETS[name](data)

    feed()


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_small_and_is_eaten(name: str) -> None:
    found = seeds.of(name)
    assert 0 < sum(map(len, found)) < 16_384
    for data in found:
        TARGETS[name](data)


@given(st.binary(max_size=64))
def test_what_a_fuzzer_calls_a_bug_is_one(data: bytes) -> None:
    for eat in TARGETS.values():
        eat(data)
