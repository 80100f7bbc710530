"""ObdCar on adapters that lack, or hang on, what is asked before the first value: they are read all the same."""

import pytest

from tests.fakes import FakeClock, FakeElm, can_lines, older_line, whole_car
from tests.obd_drive import Drive, drive

VIN = b"7E8101449020131 5A5A\r7E8215643 4152 3539 54\r7E82230313937393830\r\r>"


@pytest.mark.parametrize("said", [b"", b"7E8101449020131 5A5A\r"])
def test_an_adapter_that_hangs_on_the_vin_is_read_and_asked_for_it_once_more(said: bytes) -> None:
    subject = drive(_0902=said)
    subject.until(lambda sample: sample.why == {}, 5)
    assert (subject.car.state().vin, subject.car.state().vin_why) == (None, "timeout")
    assert subject.elm.said.count("0902") == 1
    assert subject.elm.said.count("ATZ") == 0
    subject.elm.answers["0902"] = VIN
    subject.until(lambda _: subject.car.state().vin == "1ZZVCAR59T0197980", 8)


def test_a_vin_that_hangs_the_adapter_again_and_again_does_not_lose_the_car() -> None:
    subject = drive(_0902=b"")
    subject.until(lambda sample: sample.why == {}, 5)
    for _ in range(20):
        assert subject.sample().values
    assert subject.elm.said.count("0902") == 2


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (b"?\r\r>", "ISO 15765-4 (CAN 11/500)"),
        (b"AUTO, ISO 15765-4 (CAN 11/250)\r\r>", "ISO 15765-4 (CAN 11/250)"),
    ],
)
def test_a_clone_that_does_not_tell_its_bus_by_number_is_read(said: bytes, name: str) -> None:
    subject = drive(ATDPN=b"?\r\r>", ATDP=said)
    assert subject.sample().why == {}
    assert subject.car.state().protocol == name


def test_the_long_headers_and_an_older_bus_are_known_without_a_number_too() -> None:
    first = bytes.fromhex("410000180000")
    long = Drive(FakeElm(FakeClock(), {}, {"ATDPN": b"?\r\r>", "0100": _said(*can_lines("18DAF110", first))}))
    long.sample()
    assert long.car.state().protocol == "ISO 15765-4 (CAN 29/500)"
    answers = {"ATDPN": b"?\r\r>", "ATDP": b"ISO 9141-2\r\r>", "0100": _said(older_line("486B10", first))}
    older = Drive(FakeElm(FakeClock(), {}, answers))
    older.sample()
    assert older.car.state().protocol == "ISO 9141-2"
    older = Drive(FakeElm(FakeClock(), {}, {**answers, "ATDP": b"?\r\r>"}))
    older.sample()
    assert not older.car.state().connected


def _said(*lines: str) -> bytes:
    return "".join(f"{line}\r" for line in lines).encode() + b"\r>"


def test_a_clone_whose_banner_has_no_digit_is_read() -> None:
    banner = b"OBDII by X\r\r>"
    subject = Drive(FakeElm(FakeClock(), whole_car(), dict.fromkeys(("ATWS", "ATZ", "ATI"), banner)))
    subject.until(lambda sample: sample.why == {}, 4)
    assert subject.car.state().adapter == "OBDII by X"
