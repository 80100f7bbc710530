"""Identity of modem and SIM: check digits, makers' dialects, and a modem that does not answer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.edge.at_modem import read_sim
from components.edge.ports import Sim
from components.edge.serial_line import LineGoneError
from components.edge.sim_identity import is_luhn
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
        said = "\r\nERROR\r\n" if answer is None else answer if "\r" in answer else f"\r\n{answer}\r\n\r\nOK\r\n"
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
    "answer",
    [
        f"+CCID:{ICCID}",
        f"+ccid: {ICCID}f",
        f'+CCID: "{ICCID}F"',
        f"ICCID: {ICCID}",
        f"\r\n{ICCID}\r\nOK\r\n",
        f"AT+CCID\r\r\n+CCID: {ICCID}\r\n\r\nOK\r\n",
        f"\r\nRING\r\n\r\n+CCID: {ICCID}\r\n\r\nOK\r\n",
        f"\r\n+CREG: 1,5\r\n\r\n{ICCID}\r\n\r\n+CSQ: 20,99\r\n\r\nOK\r\n",
        f'\r\n+CLIP: "490154203237518",129\r\n\r\n+CCID: {ICCID}\r\n\r\nOK\r\n',
        f"\0\r\n\0+CCID: {ICCID}\0\r\n\0OK\r\n",
        f"\n+CCID: {ICCID}\n\nOK\n",
    ],
)
def test_the_card_s_number_is_found_among_echo_padding_and_what_nobody_asked_for(answer: str) -> None:
    sim, _ = ask({"AT+CCID": answer})
    assert (sim.iccid, sim.iccid_why) == (ICCID, "")


@pytest.mark.parametrize("number", ["890126000000000009", "8949200000123456780", "89492000001234567805"])
@pytest.mark.parametrize("padding", ["", "F", "ff"])
def test_a_card_s_number_has_eighteen_to_twenty_digits(number: str, padding: str) -> None:
    number = next(number[:-1] + digit for digit in "0123456789" if is_luhn(number[:-1] + digit))
    assert ask({"AT+CCID": f"+CCID: {number}{padding}"})[0].iccid == number


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("+CCID: 8949200000123456781", "out_of_range"),  # check digit
        ("+CCID: 79492000001234567", "unsupported"),  # 17 digits
        ("+CCID: 894920000012345678012", "unsupported"),  # 21
        ("+CCID: 1234567890123456789", "out_of_range"),  # does not begin with 89
        ("+CCID: 89492000001234567A0", "unsupported"),
        ("+CCID: ", "unsupported"),
        ("+CCID", "unsupported"),
        (f'+CMT: "{ICCID}"', "unsupported"),
        (f"call from {ICCID}", "unsupported"),
        (f"{ICCID}{ICCID}", "unsupported"),
        ("\r\n+CME ERROR: 10\r\n", "no_data"),
        ("\r\n+CME ERROR: SIM not inserted\r\n", "no_data"),
        ("\r\n+CME ERROR:10\r\n", "no_data"),
        ("\r\n+CME ERROR: 100\r\n", "adapter_error"),
        ("\r\n+CME ERROR: 11\r\n", "adapter_error"),
        ("\r\n+CME ERROR: SIM PIN required\r\n", "adapter_error"),
        ("\r\n+CME ERROR: SIM failure\r\n", "adapter_error"),
        ("\r\n+CME ERROR: 14\r\n", "adapter_error"),
        ("\r\n+CMS ERROR: 310\r\n", "adapter_error"),
        ("\r\nCOMMAND NOT SUPPORT\r\n", "unsupported"),
        ("\r\nERROR\r\n", "unsupported"),
    ],
)
def test_a_card_s_number_that_is_not_there_has_its_reason(answer: str, why: str) -> None:
    sim, _ = ask({"AT+CCID": answer})
    assert (sim.iccid, sim.iccid_why) == (None, why)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("+CPIN: NOT INSERTED", "no_data"),
        ("+CPIN: SIM REMOVED", "no_data"),
        ("\r\n+CME ERROR: 10\r\n", "no_data"),
        ("\r\n+CME ERROR: SIM not inserted\r\n", "no_data"),
        ("+CPIN: NOT READY", ""),
        ("+CPIN: SIM PIN", ""),
        ("+CPIN: READY", ""),
        ("\r\n+CME ERROR: SIM busy\r\n", ""),
        ("\r\nERROR\r\n", ""),
    ],
)
def test_a_modem_that_has_no_card_is_not_asked_for_the_number_it_remembers(answer: str, why: str) -> None:
    sim, modem = ask({"AT+CPIN?": answer, "AT+CCID": f"+CCID: {ICCID}"})
    assert (sim.iccid, sim.iccid_why) == ((None, why) if why else (ICCID, ""))
    assert ("AT+CCID" in modem.said) == (not why)


def test_a_card_that_is_not_ready_is_told_from_a_modem_that_knows_no_card() -> None:
    assert ask({"AT+CPIN?": "+CPIN: SIM PIN"})[0].iccid_why == "adapter_error"
    assert ask({"AT+CPIN?": "+CPIN: READY"})[0].iccid_why == "unsupported"


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("AT+CGSN", IMEI),
        ("AT+CGSN", f'"{IMEI}"'),
        ("AT+CGSN", f"+CGSN: {IMEI}"),
        ("AT+CGSN", f'+CGSN: "{IMEI}"'),
        ("AT+CGSN", f"IMEI: {IMEI}"),
        ("AT+CGSN", f"AT+CGSN\r\r\n{IMEI}\r\n\r\nOK\r\n"),
        ("AT+CGSN", f'\r\n+CLIP: "356938035643809",129\r\n{IMEI}\r\n\r\nOK\r\n'),
        ("AT+CGSN=1", f"+CGSN: {IMEI}"),
        ("AT+GSN", f"+GSN: {IMEI}"),
    ],
)
def test_the_modem_s_number_is_found_in_every_dialect(command: str, answer: str) -> None:
    sim, _ = ask({command: answer})
    assert (sim.imei, sim.imei_why) == (IMEI, "")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("490154203237519", "out_of_range"),  # check digit
        ("000000000000000", "out_of_range"),  # never given one
        ("4901542032375101", "out_of_range"),  # IMEISV: no check digit, so it cannot be verified
        ("49015420323751", "out_of_range"),  # without its check digit
        ("4901542032375", "unsupported"),
        ("49015420323751899", "unsupported"),
        ("SERIAL", "unsupported"),
        ("", "unsupported"),
        (f'+CLIP: "{IMEI}",129', "unsupported"),
        ("٤٩٠١٥٤٢٠٣٢٣٧٥١٨", "unsupported"),
        ("\r\n+CME ERROR: 4\r\n", "adapter_error"),
        ("\r\n+CME ERROR: memory failure\r\n", "adapter_error"),
    ],
)
def test_a_modem_s_number_that_is_not_there_has_its_reason(answer: str, why: str) -> None:
    sim, _ = ask({"AT+CGSN": answer})
    assert (sim.imei, sim.imei_why) == (None, why)


def test_a_modem_that_says_its_imeisv_is_asked_for_its_imei() -> None:
    sim, _ = ask({"AT+CGSN": "4901542032375101", "AT+CGSN=1": f"+CGSN: {IMEI}"})
    assert (sim.imei, sim.imei_why) == (IMEI, "")


def test_a_modem_that_knows_nothing_has_nothing() -> None:
    assert ask({})[0] == Sim(None, None, "unsupported", "unsupported")


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
