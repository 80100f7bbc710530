"""Frames to messages and bytes to values: python-OBD behind guards, held to the catalogue."""

import math

import obd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from obd.protocols.protocol import Message as ObdMessage

from components.edge.obd_parser import Bus, Heard, Message, decode, parse_calibrations, parse_pids
from components.wire.signals import OBD_SIGNALS, Linear, Signal, TroubleCode
from tests.fakes import can_lines, older_line

CAN = Bus("6")


def values(bus: Bus, lines: list[str], **sizes: int) -> tuple[dict[int, dict[str, bytes]], str]:
    return parse_pids(bus.messages(lines), 1, {int(pid[1:], 16): size for pid, size in sizes.items()})


@pytest.mark.parametrize(
    ("number", "lines", "ecu"),
    [
        ("6", ["7E803410D32"], "7E8"),
        ("8", ["7EF03410D32AAAAAAAA"], "7EF"),
        ("7", ["18DAF11003410D32"], "18DAF110"),
        ("3", ["486B10410D3243"], "10"),
        ("5", ["83F111410D3205"], "11"),
        ("4", ["80F111410D3202"], "11"),  # a KWP header without a length
        ("1", ["416B10410D32F6"], "10"),
    ],
)
def test_every_bus_says_who_answered_what(number: str, lines: list[str], ecu: str) -> None:
    assert values(Bus(number), lines, x0D=1) == ({0x0D: {ecu: b"\x32"}}, "no_data")


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "no_data"),
        (["7E8037F0112"], "negative_response"),
        (["7E8037F0178"], "negative_response"),
        (["7E803410D3"], "truncated"),  # half a byte
        (["7E803410D"], "truncated"),
        (["7E803410C1A"], "truncated"),  # whole, but of another PID: not what was asked
        (["7E804410D3200"], "truncated"),  # longer than the PID is
        (["7E802410D"], "truncated"),
        (["7E804410D32"], "truncated"),  # the length lies
        (["7E8"], "truncated"),
        (["7E0020101"], "no_data"),  # a tester's own request
        (["18DAF11003410D321"], "no_data"),  # a header of another bus
        (["5A803410D32"], "no_data"),  # not one of those who answer testers
        (["7E803420D32"], "no_data"),  # another mode
        (["7E8100A410D3200"], "truncated"),  # a first frame without the rest
        (["7E82132"], "truncated"),
        (["7E803410D1232"], "truncated"),  # a byte too many
        (["7E803410D32000000"], "truncated"),  # a byte of padding lost: or of data
        (["7E8F3410D32"], "truncated"),  # no such frame type
        (["7E80143"], "truncated"),  # python-OBD alone fails on this one
        (["7E8100A410D32000000", "7E82100000000000000", "7E82200000000000000"], "truncated"),  # declares too little
        (["7E81003410D32000000", "7E82100000000000000"], "truncated"),  # a sequence for what fits one frame
        (["7E808410D3200000000"], "truncated"),  # more than a frame can hold
    ],
)
def test_what_is_not_a_whole_positive_answer_has_a_reason(lines: list[str], why: str) -> None:
    assert values(CAN, lines, x0D=1) == ({}, why)


def test_a_busy_ecu_that_answers_after_all_is_heard() -> None:
    found, _ = values(CAN, ["7E8037F0178", "7E803410D32"], x0D=1)
    assert found == {0x0D: {"7E8": b"\x32"}}


def test_interleaved_sequences_of_two_ecus_are_both_whole() -> None:
    data = bytes.fromhex("410C1AF80D3205 5B0B6411".replace(" ", ""))
    first, second = can_lines("7E8", data), can_lines("7E9", data)
    lines = [line for pair in zip(first, second, strict=True) for line in pair]
    assert [(message.ecu, message.data) for message in CAN.messages(lines).messages] == [("7E8", data), ("7E9", data)]


@pytest.mark.parametrize(
    "spoil",
    ["hole", "repeat", "no_first", "short_first", "short_middle", "short_last", "swapped", "late_first"],
)
def test_a_sequence_that_is_not_whole_and_in_order_is_no_message(spoil: str) -> None:
    lines = can_lines("7E8", bytes(range(0x40, 0x40 + 27)))
    spoilt = {
        "hole": lines[:1] + lines[2:],
        "repeat": [*lines, lines[-1]],
        "no_first": lines[1:],
        "short_first": [lines[0][:-2], *lines[1:]],
        "short_middle": [lines[0], lines[1][:-2], *lines[2:]],
        "short_last": [*lines[:-1], lines[-1][:-2]],
        "swapped": [lines[0], lines[2], lines[1], *lines[3:]],
        "late_first": [*lines[1:], lines[0]],
    }[spoil]
    heard = CAN.messages(spoilt)
    assert (heard.messages, heard.broken) == ((), 1)


def test_a_grouped_answer_is_cut_by_the_lengths_of_what_was_asked() -> None:
    lines = can_lines("7E8", bytes.fromhex("410C1AF80D32055B"))
    assert values(CAN, lines, x0C=2, x0D=1, x05=1)[0] == {
        0x0C: {"7E8": b"\x1a\xf8"},
        0x0D: {"7E8": b"\x32"},
        0x05: {"7E8": b"\x5b"},
    }
    assert values(CAN, lines, x0C=2, x0D=1) == ({}, "truncated")
    assert values(CAN, can_lines("7E8", bytes.fromhex("410D320D32")), x0D=1) == ({}, "truncated")


def test_the_bare_answer_to_clearing_is_heard_on_every_bus() -> None:
    assert CAN.messages(["7E80144"]).messages == (Message("7E8", b"\x44"),)
    assert Bus("3").messages([older_line("486B10", b"\x44")]).messages == (Message("10", b"\x44"),)


def test_lines_of_codes_on_an_older_bus_are_messages_of_their_own() -> None:
    said = ["43042001710000", "43030000000000", "47042000000000"]
    heard = Bus("3").messages([older_line("486B10", bytes.fromhex(data)) for data in said])
    assert [message.data.hex() for message in heard.messages] == said


@pytest.mark.parametrize(
    ("number", "line"),
    [
        ("1", "486B104100BE3EB811FA"),  # the example of the ELM327 data sheet
        ("2", "486B104100BE3EB811FA"),
        ("3", "486B104100BE3EB811C9"),
        ("5", "86F1104100BE3EB8118D"),
    ],
)
def test_on_an_older_bus_the_checksum_and_what_it_is_of_are_held_to_each_other(number: str, line: str) -> None:
    bus, asked = Bus(number), {0: 4}
    assert parse_pids(bus.messages([line]), 1, asked)[0] == {0: {"10": bytes.fromhex("BE3EB811")}}
    for place in range(len(line)):
        changed = line[:place] + f"{int(line[place], 16) ^ 1:X}" + line[place + 1 :]
        assert parse_pids(bus.messages([changed]), 1, asked) == ({}, "truncated"), place
    assert parse_pids(bus.messages([line[:-2]]), 1, asked) == ({}, "truncated")


def test_a_length_that_lies_is_not_believed_on_kwp_either() -> None:
    assert Bus("5").messages([older_line("84F111", bytes.fromhex("410D32"))]).messages == ()


def test_a_list_of_codes_is_not_cut_by_the_count_in_it() -> None:
    heard = CAN.messages(["7E81008430204200171", "7E821C1000000000000"])
    assert [message.data.hex() for message in heard.messages] == ["430204200171c100"]


@pytest.mark.parametrize("number", ["0", "A", "", "B", "x"])
def test_a_bus_that_obd_does_not_have_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match="none of OBD-II's"):
        Bus(number)


def every_raw(signal: Signal) -> list[int]:
    bits = 8 * signal.size
    # Two bytes are all tried; the four of PID 01 by every bit and every byte.
    return [*range(1 << bits)] if bits <= 16 else [*(1 << bit for bit in range(bits)), *range(256), 0xFFFFFFFF]


@pytest.mark.parametrize("signal", OBD_SIGNALS, ids=lambda signal: signal.key)
def test_every_raw_decodes_as_the_catalogue_says(signal: Signal) -> None:
    assert signal.codec is not None
    for raw in every_raw(signal):
        data = raw.to_bytes(signal.size, "big")
        try:
            expected = signal.codec.decode(raw)
        except ValueError:
            with pytest.raises(ValueError, match=r"meaning|no code"):
                decode(signal, data)
        else:
            value = decode(signal, data)
            assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize(
    "signal",
    [
        signal
        for signal in OBD_SIGNALS
        if isinstance(signal.codec, Linear | TroubleCode) and (signal.pid or 0) < len(obd.commands[1])
    ],
    ids=lambda signal: signal.key,
)
def test_the_catalogue_and_python_obd_agree_on_every_raw(signal: Signal) -> None:
    """Of numbers every 251st of two bytes: the test above holds each raw to it, to half a step of the catalogue."""
    assert signal.codec is not None
    assert signal.pid is not None
    decoder = obd.commands[1][signal.pid].decode
    step = 1 if isinstance(signal.codec, TroubleCode) or signal.size == 1 else 251
    for raw in range(isinstance(signal.codec, TroubleCode), 1 << 8 * signal.size, step):
        message = ObdMessage([])
        message.data = bytearray((0x41, signal.pid)) + raw.to_bytes(signal.size, "big")
        said, ours = decoder([message]), signal.codec.decode(raw)
        if isinstance(ours, str):
            assert said[0].upper() == ours
        else:
            assert isinstance(ours, int | float)
            assert math.isclose(said.magnitude, ours, rel_tol=1e-9, abs_tol=1e-9), raw


@given(st.lists(st.text("0123456789ABCDEF", max_size=30), max_size=8), st.sampled_from("123456789"))
def test_any_lines_are_messages_or_broken_and_nothing_raises(lines: list[str], number: str) -> None:
    heard = Bus(number).messages(lines)
    assert len(heard.messages) + heard.broken + heard.foreign <= len(lines)
    parse_pids(heard, 1, {0x0D: 1})


@given(st.lists(st.sampled_from([*can_lines("7E8", bytes(range(0x41, 0x41 + 30))), "7E80143", "7E8037F0112"])))
def test_any_mixture_of_frames_is_survived(lines: list[str]) -> None:
    whole = bytes(range(0x41, 0x41 + 30))
    assert {message.data for message in CAN.messages(lines).messages} <= {whole, b"\x7f\x01\x12"}


def calibrations(*answers: tuple[str, bytes], is_can: bool = True) -> tuple[str, ...]:
    return parse_calibrations(Heard(tuple(Message(ecu, data) for ecu, data in answers)), is_can=is_can)


ENGINE_ID, GEARBOX_ID = b"JMB*36761500".ljust(16, b"\0"), b"JMB*47872611WXYZ"


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        (b"\x49\x04\x01" + ENGINE_ID, ("JMB*36761500",)),
        (b"\x49\x04\x02" + ENGINE_ID + GEARBOX_ID, ("JMB*36761500", "JMB*47872611WXYZ")),
        (b"\x49\x04\x02" + ENGINE_ID + ENGINE_ID, ("JMB*36761500",)),
        (b"\x49\x04\x01" + bytes(16), ()),
        (b"\x49\x04\x00", ()),
        (b"\x49\x04\x02" + ENGINE_ID, ()),  # counts two, has one
        (b"\x49\x04\x01" + ENGINE_ID[:-1], ()),
        (b"\x49\x04\x01" + b"JMB*3676\xb300".ljust(16, b"\0"), ()),
        (b"\x49\x04\x01" + b"JM\0*36761500\r".ljust(16, b"\0"), ()),
        (b"\x49\x04", ()),
        (b"\x49\x02\x01" + ENGINE_ID, ()),
        (b"\x7f\x09\x12", ()),
    ],
)
def test_calibration_ids_are_whole_or_not_there(data: bytes, ids: tuple[str, ...]) -> None:
    assert calibrations(("7E8", data)) == ids


def test_calibration_ids_of_several_ecus_come_in_their_order_and_one_that_is_not_whole_spoils_no_other() -> None:
    engine, gearbox = b"\x49\x04\x01" + ENGINE_ID, b"\x49\x04\x01" + GEARBOX_ID
    assert calibrations(("7E8", engine), ("7E9", gearbox)) == ("JMB*36761500", "JMB*47872611WXYZ")
    assert calibrations(("7E8", engine[:-4]), ("7E9", gearbox)) == ("JMB*47872611WXYZ",)


def test_calibration_ids_of_an_older_bus_come_in_lines_of_four_bytes() -> None:
    ids = ENGINE_ID + GEARBOX_ID
    lines = [
        older_line("486B10", b"\x49\x04" + bytes([1 + at // 4]) + ids[at : at + 4]) for at in range(0, len(ids), 4)
    ]
    bus = Bus("3")
    assert parse_calibrations(bus.messages(lines), is_can=False) == ("JMB*36761500", "JMB*47872611WXYZ")
    assert parse_calibrations(bus.messages(lines[:-1]), is_can=False) == ()
    assert parse_calibrations(bus.messages(lines[:2] + lines[3:]), is_can=False) == ()
