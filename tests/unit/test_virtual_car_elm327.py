"""The adapter chip, word for word: what a client sees and how long it waits. No clock."""

from collections.abc import Callable, Sequence

import pytest

from components.virtual_car.elm327 import RESET_S, Elm327

VIN = b"1ZZVCAR57T0827074"
ST_S = 0x32 * 0.004096

Answers = Sequence[tuple[int, bytes]]


def bus(address: int, request: bytes) -> Answers:
    answers: dict[bytes, Answers] = {
        bytes.fromhex("0100"): [(0x7E8, bytes.fromhex("4100BE3FA813")), (0x7E9, bytes.fromhex("410080080000"))],
        bytes.fromhex("010C"): [(0x7E8, bytes.fromhex("410C1AF8"))],
        bytes.fromhex("0902"): [(0x7E8, b"\x49\x02\x01" + VIN)],
        bytes.fromhex("010C0D05"): [(0x7E8, bytes.fromhex("410C1AF80D32057B"))],
        bytes.fromhex("03"): [(0x7E8, bytes.fromhex("43060100020003000400050006"))],
        bytes.fromhex("04"): [(0x7E8, bytes.fromhex("7F0422"))],
    }
    return [answer for answer in answers.get(request, []) if address in (0x7DF, answer[0] - 8)]


@pytest.fixture
def chip() -> Elm327:
    return Elm327(bus, lambda: 14.1, latency_s=0.010)


def say(chip: Elm327, line: str) -> tuple[str, float]:
    """Say a line, wait for the prompt; what came back and how long the chip let us wait."""
    turn = chip.received(line.encode() + b"\r")
    out, waited = turn.out, 0.0
    while turn.wake_s is not None:
        waited += turn.wake_s
        turn = chip.woke()
        out += turn.out
    assert out.endswith(b">")
    return out.decode(), round(waited, 6)


def quiet(chip: Elm327, *lines: str) -> None:
    for line in ("ATE0", "ATSP6", *lines):
        say(chip, line)


def test_a_fresh_chip_echoes_searches_and_puts_spaces(chip: Elm327) -> None:
    assert say(chip, "010C1")[0] == "010C1\rSEARCHING...\r41 0C 1A F8 \r\r>"
    assert say(chip, "010C1")[0] == "010C1\r41 0C 1A F8 \r\r>"


def test_a_reset_says_the_version_after_a_while_and_hears_nothing_meanwhile(chip: Elm327) -> None:
    quiet(chip, "ATH1")
    assert chip.received(b"ATZ\r").wake_s == RESET_S
    lost = chip.received(b"ATE0\r")
    assert (lost.out, lost.keeps_waiting) == (b"", True)
    assert chip.woke().out == b"\r\rELM327 v2.1\r\r>"
    assert say(chip, "010C1")[0] == "010C1\r41 0C 1A F8 \r\r>", "settings are forgotten, the protocol is not"


@pytest.mark.parametrize(("model", "banner"), [("v1.5", "ELM327 v1.5"), ("v2.1", "ELM327 v2.1")])
def test_it_is_the_version_that_was_asked_for(model: str, banner: str) -> None:
    chip = Elm327(bus, lambda: 12.4, model=model)
    assert say(chip, "ATI")[0] == f"ATI\r{banner}\r\r>"


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("AT@1", "OBDII to RS232 Interpreter"),
        ("at rv", "14.1V"),
        ("ATD", "OK"),
        ("ATAL", "OK"),
        ("ATM0", "OK"),
        ("ATCAF1", "OK"),
        ("ATST 19", "OK"),
        ("ATAT2", "OK"),
        ("ATSH 7E0 ", "OK"),
        ("ATSH18DB33F1", "OK"),
        ("ATSPA6", "OK"),
        ("ATTP6", "OK"),
        ("ATCEA", "?"),
        ("ATST", "?"),
        ("ATSTXY", "?"),
        ("ATSPF", "?"),
        ("ATAT3", "?"),
        ("AT", "?"),
        ("HELLO", "?"),
        ("1", "?"),
        ("0102030405060708", "?"),
    ],
)
def test_an_at_command_is_answered_at_once(chip: Elm327, command: str, answer: str) -> None:
    say(chip, "ATE0")
    text, waited = say(chip, command)
    assert text.startswith(f"{answer}\r")
    assert text.endswith("\r>")
    assert waited == 0.0


def test_linefeeds_follow_every_carriage_return_when_they_are_on(chip: Elm327) -> None:
    quiet(chip, "ATL1")
    assert say(chip, "010C1")[0] == "41 0C 1A F8 \r\n\r\n>"
    say(chip, "ATE1")
    assert say(chip, "ATI")[0] == "ATI\r\nELM327 v2.1\r\n\r\n>"


def test_headers_show_who_speaks_and_the_length_but_not_the_padding(chip: Elm327) -> None:
    quiet(chip, "ATH1")
    assert say(chip, "0100")[0] == "7E8 06 41 00 BE 3F A8 13 \r7E9 06 41 00 80 08 00 00 \r\r>"
    say(chip, "ATS0")
    assert say(chip, "010C1")[0] == "7E804410C1AF8\r\r>"


def test_several_frames_are_numbered_without_headers(chip: Elm327) -> None:
    quiet(chip)
    assert say(chip, "0902")[0] == (
        "014\r0: 49 02 01 31 5A 5A \r1: 56 43 41 52 35 37 54 \r2: 30 38 32 37 30 37 34 \r\r>"
    )
    say(chip, "ATS0")
    assert say(chip, "03")[0] == "00D\r0:430601000200\r1:03000400050006\r\r>"


def test_several_frames_with_headers_are_the_frames_of_the_bus(chip: Elm327) -> None:
    quiet(chip, "ATH1", "ATS0")
    assert say(chip, "010C0D05")[0] == "7E81008410C1AF80D32\r7E821057B0000000000\r\r>"


def test_without_can_formatting_the_client_writes_and_reads_the_length(chip: Elm327) -> None:
    quiet(chip, "ATCAF0")
    assert say(chip, "02 01 0C")[0] == "04 41 0C 1A F8 00 00 00 \r\r>"


def test_the_response_count_ends_the_wait_and_cuts_what_comes_after(chip: Elm327) -> None:
    quiet(chip, "ATH1")
    assert say(chip, "01001") == ("7E8 06 41 00 BE 3F A8 13 \r\r>", 0.010)
    assert say(chip, "01002")[1] == 0.010
    assert say(chip, "01003")[1] == 0.050, "a third line never comes: the adapter waits as without a digit"


@pytest.mark.parametrize(
    ("settings", "wait_s"),
    [
        ((), 0.040),
        (("ATAT0",), ST_S),
        (("ATAT2",), 0.020),
        (("ATAT0", "ATST0A"), 10 * 0.004096),
        (("ATST01",), 0.004096),
    ],
)
def test_after_the_last_answer_the_adapter_waits(chip: Elm327, settings: Sequence[str], wait_s: float) -> None:
    quiet(chip, *settings)
    text, waited = say(chip, "010C")
    assert text == "41 0C 1A F8 \r\r>"
    assert waited == pytest.approx(0.010 + wait_s)


def test_nobody_answering_costs_the_whole_timeout(chip: Elm327) -> None:
    quiet(chip, "ATAT2")
    text, waited = say(chip, "01A6")
    assert text == "NO DATA\r\r>"
    assert waited == pytest.approx(0.010 + ST_S)


def test_a_negative_answer_is_shown_as_it_came(chip: Elm327) -> None:
    quiet(chip)
    assert say(chip, "041")[0] == "7F 04 22 \r\r>"


@pytest.mark.parametrize(
    ("setting", "lines"),
    [
        ("ATSH7E0", "7E8 06 41 00 BE 3F A8 13 \r\r>"),
        ("ATSH7E1", "7E9 06 41 00 80 08 00 00 \r\r>"),
        ("ATCRA7E9", "7E9 06 41 00 80 08 00 00 \r\r>"),
        ("ATSH7E5", "NO DATA\r\r>"),
    ],
)
def test_a_header_or_a_filter_chooses_the_unit(chip: Elm327, setting: str, lines: str) -> None:
    quiet(chip, "ATH1", setting)
    assert say(chip, "0100")[0] == lines
    quiet(chip, "ATD", "ATE0", "ATH1")
    assert say(chip, "0100")[0].count("\r7E9") == 1


@pytest.mark.parametrize(
    ("select", "before", "after"),
    [
        ("ATSP0", ("AUTO", "A0"), ("AUTO, ISO 15765-4 (CAN 11/500)", "A6")),
        ("ATSP6", ("ISO 15765-4 (CAN 11/500)", "6"), ("ISO 15765-4 (CAN 11/500)", "6")),
    ],
)
def test_the_protocol_is_told_as_it_is_known(
    chip: Elm327, select: str, before: tuple[str, str], after: tuple[str, str]
) -> None:
    quiet(chip, select)
    assert [say(chip, "ATDP")[0], say(chip, "ATDPN")[0]] == [f"{word}\r\r>" for word in before]
    say(chip, "0100")
    assert [say(chip, "ATDP")[0], say(chip, "ATDPN")[0]] == [f"{word}\r\r>" for word in after]


@pytest.mark.parametrize(
    ("protocol", "answer"), [("1", "NO DATA"), ("3", "BUS INIT: ...ERROR"), ("7", "NO DATA"), ("8", "CAN ERROR")]
)
def test_another_protocol_finds_no_car(chip: Elm327, protocol: str, answer: str) -> None:
    quiet(chip, f"ATSP{protocol}")
    assert say(chip, "0100")[0] == f"{answer}\r\r>"


def test_a_search_that_finds_nobody_says_so() -> None:
    chip = Elm327(lambda _address, _request: [], lambda: 12.4)
    assert say(chip, "0100")[0] == "0100\rSEARCHING...\rUNABLE TO CONNECT\r\r>"
    assert say(chip, "0100")[0] == "0100\rSEARCHING...\rUNABLE TO CONNECT\r\r>"


def test_an_empty_line_repeats_the_one_before(chip: Elm327) -> None:
    quiet(chip)
    say(chip, "010C1")
    assert say(chip, "")[0] == "41 0C 1A F8 \r\r>"


def test_any_character_stops_a_running_request_and_is_lost(chip: Elm327) -> None:
    quiet(chip)
    assert chip.received(b"010C\r").wake_s == 0.010
    stopped = chip.received(b"x")
    assert (stopped.out, stopped.wake_s) == (b"STOPPED\r\r>", None)
    assert say(chip, "010C1")[0] == "41 0C 1A F8 \r\r>"


def test_a_linefeed_behind_the_carriage_return_stops_nothing(chip: Elm327) -> None:
    quiet(chip)
    assert chip.received(b"010C1\r\n").wake_s == 0.010
    assert chip.received(b"\n").keeps_waiting
    assert chip.woke().out == b"41 0C 1A F8 \r\r>"


def test_the_car_is_asked_when_it_answers_and_not_before() -> None:
    asked: list[bytes] = []

    def listening(address: int, request: bytes) -> Answers:
        asked.append(request)
        return bus(address, request)

    chip = Elm327(listening, lambda: 14.1)
    chip.received(b"010C1\r")
    assert not asked
    chip.woke()
    assert asked == [b"\x01\x0c"]


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_bytes_may_come_in_any_pieces(cut: int) -> None:
    def run(feed: Callable[[Elm327], bytes]) -> bytes:
        chip = Elm327(bus, lambda: 14.1)
        return feed(chip) + chip.woke().out

    line = b"at i\r01 0c 1\r"
    pieces = [line[at : at + cut] for at in range(0, len(line), cut)]
    assert run(lambda chip: b"".join(chip.received(piece).out for piece in pieces)) == run(
        lambda chip: chip.received(line).out
    )
