"""Identity of modem and SIM: check digits, makers' dialects, and a modem that does not answer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.edge.at_modem import is_luhn, read_sim
from components.edge.ports import Sim
from components.edge.serial_line import LineGoneError
from components.edge.system_clock import elapsed_ms
from components.virtual_car.car import VirtualCar
from tests.fakes import FakeClock

ICCID, IMEI = "8949200000123456780", "490154203237518"


class FakeModem:
    """A modem by rote; what it does not know is ERROR."""

    def __init__(self, clock: FakeClock, answers: dict[str, str], raw: bytes | None = None) -> None:
        self.clock = clock
        self.answers = {"AT": "", "ATE0": "", **answers}
        self.raw = raw
        self.said: list[str] = []
        self.is_open = True
        self._out = b""

    def write(self, data: bytes, until_ms: int) -> None:
        del until_ms
        command = data.decode().removesuffix("\r")
        self.said.append(command)
        answer = self.answers.get(command)
        said = "\r\nERROR\r\n" if answer is None else answer if "ERROR" in answer else f"\r\n{answer}\r\n\r\nOK\r\n"
        self._out += said.encode() if self.raw is None else self.raw

    def read(self, until_ms: int) -> bytes:
        out, self._out = self._out[:7], self._out[7:]
        if not out:
            self.clock.at_ms = max(self.clock.at_ms, until_ms)
        return out

    def close(self) -> None:
        self.is_open = False


def ask(answers: dict[str, str], raw: bytes | None = None, within_ms: int = 5_000) -> tuple[Sim, FakeModem]:
    clock = FakeClock()
    modem = FakeModem(clock, answers, raw)
    deadline_ms = clock.at_ms + within_ms
    sim = read_sim("/dev/modem", deadline_ms, clock=clock, open_line=lambda _port, _until: modem)
    assert clock.at_ms <= deadline_ms
    assert not modem.is_open
    return sim, modem


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("AT+CCID", f"+CCID: {ICCID}"),
        ("AT+CCID", f'+CCID: "{ICCID}"'),
        ("AT+CCID", ICCID),
        ("AT+ICCID", f"+ICCID: {ICCID}F"),
        ("AT^ICCID?", f"^ICCID: {ICCID}"),
    ],
)
def test_every_dialect_gives_the_same_numbers(command: str, answer: str) -> None:
    sim, _ = ask({command: answer, "AT+CGSN": IMEI})
    assert sim == Sim(ICCID, IMEI, "", "")


@pytest.mark.parametrize(
    ("answers", "iccid_why", "imei_why"),
    [
        ({}, "unsupported", "unsupported"),
        ({"AT+CCID": "+CCID: 8949000000000000009", "AT+CGSN": "490154203237519"}, "out_of_range", "out_of_range"),
        ({"AT+CCID": "\r\n+CME ERROR: 10\r\n"}, "adapter_error", "unsupported"),
        ({"AT+CCID": "+CCID: ", "AT+CGSN": "SERIAL"}, "unsupported", "unsupported"),
    ],
)
def test_a_number_that_is_not_there_has_its_reason(answers: dict[str, str], iccid_why: str, imei_why: str) -> None:
    assert ask(answers)[0] == Sim(None, None, iccid_why, imei_why)


def test_a_silent_modem_costs_its_deadline_and_no_more() -> None:
    assert ask({}, raw=b"", within_ms=700)[0] == Sim(None, None, "timeout", "timeout")


def test_a_port_that_is_not_there_is_an_adapter_error() -> None:
    def away(port: str, until_ms: int) -> FakeModem:
        raise LineGoneError(f"{port} {until_ms}")

    expected = Sim(None, None, "adapter_error", "adapter_error")
    assert read_sim("/dev/none", 1_000, clock=FakeClock(0), open_line=away) == expected
    assert read_sim("/dev/does-not-exist", elapsed_ms() + 500, clock=elapsed_ms) == expected


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=80))
def test_any_answer_is_survived(raw: bytes) -> None:
    sim, _ = ask({}, raw=raw)
    assert sim.imei is None or is_luhn(sim.imei)
    assert sim.iccid is None or is_luhn(sim.iccid)


def test_the_virtual_modem_is_who_it_is() -> None:
    with VirtualCar() as car:
        sim = read_sim(car.modem, elapsed_ms() + 3_000, clock=elapsed_ms)
    assert sim == Sim(car.identity.iccid, car.identity.imei, "", "")
