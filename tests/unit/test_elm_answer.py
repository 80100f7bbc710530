"""The adapter's words: what it may write up to its prompt, and what that means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.edge.elm_answer import parse_answer
from components.wire.signals import REASONS

SPEED = "7E803410D32"


@pytest.mark.parametrize(
    ("raw", "lines", "reason"),
    [
        (b"7E803410D32\r\r>", [SPEED], ""),
        (b"7E8 03 41 0D 32 \r\n\r\n>", [SPEED], ""),
        (b"010D\r7E803410D32\r\r>", [SPEED], ""),
        (b"01 0D\r7e803410d32\r\r>", [SPEED], ""),
        (b"SEARCHING...\r7E803410D32\r\r>", [SPEED], ""),
        (b"SEARCHING...7E803410D32\r\r>", [SPEED], ""),
        (b"BUS INIT: OK\r7E803410D32\r\r>", [SPEED], ""),
        (b"BUS INIT: ...OK\r7E803410D32\r\r>", [SPEED], ""),
        (b"\x007E8\x0003410D32\r\r>", [SPEED], ""),
        (b"NO DATA\r\r>", [], "no_data"),
        (b"SEARCHING...\rUNABLE TO CONNECT\r\r>", [], "bus_error"),
        (b"SEARCHING...UNABLE TO CONNECT\r\r>", [], "bus_error"),
        (b"BUS INIT: ...ERROR\r\r>", [], "bus_error"),
        (b"BUS BUSY\r\r>", [], "bus_error"),
        (b"BUS ERROR\r\r>", [], "bus_error"),
        (b"CAN ERROR\r\r>", [], "bus_error"),
        (b"FB ERROR\r\r>", [], "bus_error"),
        (b"7E803410D32 <DATA ERROR\r\r>", [], "bus_error"),
        (b"DATA ERROR\r\r>", [], "bus_error"),
        (b"7E803410D32<RX ERROR\r\r>", [], "bus_error"),
        (b"7E803410D32\r<RX ERROR\r\r>", [], "bus_error"),
        (b"7E803410D32\r7E903410D00\r<DATA ERROR\r\r>", [SPEED], "bus_error"),
        (b"FC RX TIMEOUT\r\r>", [], "bus_error"),
        (b"OUT OF MEMORY\r\r>", [], "adapter_error"),
        (b"BUFFER FULL\r\r>", [], "adapter_error"),
        (b"7E803410D32\rBUFFER FULL\r\r>", [SPEED], "adapter_error"),
        (b"STOPPED\r\r>", [], "adapter_error"),
        (b"?\r\r>", [], "adapter_error"),
        (b"WHATEVER\r\r>", [], "adapter_error"),
        (b"7E80\xb3410D32\r\r>", [], "adapter_error"),
    ],
)
def test_the_lines_and_the_reason_are_told_apart(raw: bytes, lines: list[str], reason: str) -> None:
    answer = parse_answer(raw, "010D")
    assert (list(answer.hex_lines), answer.reason, answer.prompted) == (lines, reason, True)
    assert not answer.lost_settings


@pytest.mark.parametrize("raw", [b"LV RESET\r\r>", b"\r\rELM327 v1.5\r\r>", b"ACT ALERT\r\r>", b"ERR94\r\r>"])
def test_words_of_a_reset_say_that_the_settings_are_lost(raw: bytes) -> None:
    answer = parse_answer(raw, "010D")
    assert (answer.reason, answer.lost_settings) == ("adapter_error", True)


def test_without_a_prompt_only_ended_lines_count() -> None:
    answer = parse_answer(b"7E803410D32\r7E904410C1A", "010D")
    assert (answer.hex_lines, answer.prompted) == ((SPEED,), False)


@given(st.binary(max_size=200))
def test_any_bytes_make_an_answer_with_a_known_reason(raw: bytes) -> None:
    answer = parse_answer(raw, "010D")
    assert answer.reason in {"", *REASONS}
    assert all(set(line) <= set("0123456789ABCDEF") for line in answer.hex_lines)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"7E803410D32<RX ERROR\r7E903410D00 <RX ERROR\r\r>", "<RX ERROR"),
        (b"7E80341STOPPED\r\r>", "STOPPED"),
        (b"7E80\xb3410D32\r7E80341\xff\r\r>", "bytes that are no text"),
        (b"!ACT ALERT\r\r>", "!ACT ALERT"),
        (b"ELM327 v1.5\r\r>", "ELM327 v1.5"),
        (b"WHAT NOW\r?\r\r>", "WHAT NOW; ?"),
        (b"7E803410D32\r\r>", ""),
    ],
)
def test_the_words_are_the_adapter_s_own_without_what_the_car_said(raw: bytes, words: str) -> None:
    assert parse_answer(raw, "010D").words == words
