"""Every fault as a client of the adapter meets it, through pyserial, on a running car."""

from collections.abc import Iterator

import pytest
import serial

from components.virtual_car.car import Options, VirtualCar
from components.virtual_car.faults import FAULTS
from tests.waiting import PATIENCE_S

ONE, TWO = b"7E804410C0000\r", b"7E8100A410C00000D00\r7E8210400055F000000\r"
END = b"\r>"
CALIBRATION = b"7E81013490401564341\r7E821522D454E47494E\r7E822452D3030303100\r"
CALIBRATION_2 = b"7E91013490401564341\r7E921522D5452414E53\r7E9224D2D3030303100\r"
SPEED_2 = b"7E903410D00\r"

SEEN: dict[str, tuple[bytes, bytes]] = {
    # What is asked, headers on, spaces and echo off -> all that comes back.
    "no_data": (b"010C1", b"NO DATA\r" + END),
    "searching": (b"010C1", b"SEARCHING...\r" + ONE + END),
    "unable_to_connect": (b"010C1", b"UNABLE TO CONNECT\r" + END),
    "bus_init_error": (b"010C1", b"BUS INIT: ...ERROR\r" + END),
    "can_error": (b"010C1", b"CAN ERROR\r" + END),
    "buffer_full": (b"0904", CALIBRATION[:20] + b"BUFFER FULL\r" + END),
    "stopped": (b"010C1", b"STOPPED\r" + END),
    "rx_error": (b"010C1", b"7E804410C0001<RX ERROR\r" + END),
    "marked_data_error": (b"010C1", b"7E804410C0001<DATA ERROR\r" + END),
    "data_error": (b"010C1", b"DATA ERROR\r" + END),
    "fb_error": (b"010C1", b"FB ERROR\r" + END),
    "lv_reset": (b"010C1", b"LV RESET\r" + END),
    "act_alert": (b"010C1", ONE + b"ACT ALERT\r" + END),
    "question": (b"010C1", b"?\r" + END),
    "err94": (b"010C1", b"ERR94\r" + END),
    "banner": (b"010C1", b"7E8044\r\r\rELM327 v2.1\r" + END),
    "echo_on": (b"010C1", b"010C1\r" + ONE + END),
    "spaces_on": (b"010C1", b"7E8 04 41 0C 00 00 \r" + END),
    "crlf": (b"010C1", b"7E804410C0000\r\n\r\n>"),
    "no_prompt": (b"010C1", ONE + b"\r"),
    "two_prompts": (b"010C1", ONE + END + b"\r" + END),
    "half_line": (b"010C1", b"7E8044\r" + END),
    "nul": (b"010C1", b"7E804410\x00C0000\r" + END),
    "high_bytes": (b"010C1", b"7E804410\xff\xc3\x80C0000\r" + END),
    "another_pid": (b"010C1", b"7E803410D00\r" + END),
    "late_answer": (b"010C1", b"7E803410D00\r" + END),
    "interleaved": (b"010C0D0405", TWO[:20] + SPEED_2 + TWO[20:] + END),
    "hole": (b"010C0D0405", TWO[:20] + SPEED_2 + END),
    "repeat": (b"010C0D0405", TWO + TWO[20:] + SPEED_2 + END),
    "lying_length": (b"010C1", b"7E805410C000000\r" + END),
    "negative": (b"010C1", b"7E8037F0112\r" + END),
    "pending": (b"010C2", b"7E8037F0178\r" + ONE + END),
    "silent_car": (b"010C1", b"NO DATA\r" + END),
    "silent": (b"010C1", b""),
    "refuse_groups": (b"010C0D0405", b"NO DATA\r" + END),
    "partial_groups": (b"010C0D0405", b"7E806410C00000D00\r" + SPEED_2 + END),
    "count_unknown": (b"010C1", b"?\r" + END),
    "count_ignored": (b"010D1", b"7E803410D00\r" + SPEED_2 + END),
    "no_atat": (b"ATAT2", b"?\r" + END),
    "no_atst": (b"ATST19", b"?\r" + END),
    "no_atal": (b"ATAL", b"?\r" + END),
}


@pytest.fixture(scope="module")
def car() -> Iterator[VirtualCar]:
    with VirtualCar(Options(parked=True, latency_s=0.001, baud=0)) as running:
        yield running


@pytest.fixture
def line(car: VirtualCar) -> Iterator[serial.Serial]:
    """A line to the adapter, set up; the request before the test's own was the speed."""
    car.order({"fault": None})
    with serial.Serial(car.obd, timeout=PATIENCE_S) as port:
        for command in (b"ATD", b"ATE0", b"ATS0", b"ATH1", b"ATSP6", b"ATST05", b"010D1"):
            assert ask(port, command).endswith(END)
        yield port


def ask(line: serial.Serial, command: bytes) -> bytes:
    line.write(command + b"\r")
    return line.read_until(END)


def test_every_fault_is_looked_at() -> None:
    assert SEEN.keys() == FAULTS.keys()


@pytest.mark.parametrize("name", SEEN)
def test_a_fault_looks_as_on_the_real_adapter_and_ends_with_its_order(
    car: VirtualCar, line: serial.Serial, name: str
) -> None:
    command, expected = SEEN[name]
    car.order({"fault": name})
    line.write(command + b"\r")
    assert line.read(len(expected)) == expected
    line.timeout = 0.03
    assert line.read(1) == b"", "and nothing more"
    car.order({"fault": None})
    line.timeout = PATIENCE_S
    assert ask(line, b"ATI").endswith(b"ELM327 v2.1\r" + END)


@pytest.mark.parametrize("name", ["lv_reset", "err94", "banner"])
def test_after_a_reset_the_settings_are_those_of_a_fresh_chip(car: VirtualCar, line: serial.Serial, name: str) -> None:
    car.order({"fault": name})
    ask(line, b"010C1")
    car.order({"fault": None})
    assert ask(line, b"010C1") == b"010C1\r41 0C 00 00 \r" + END


def test_settings_that_a_fault_overrules_come_back_with_its_end(car: VirtualCar, line: serial.Serial) -> None:
    car.order({"fault": ["echo_on", "spaces_on"]})
    assert ask(line, b"ATH0") == b"ATH0\rOK\r" + END
    assert ask(line, b"010C1") == b"010C1\r41 0C 00 00 \r" + END
    car.order({"fault": None})
    assert ask(line, b"010C1") == b"410C0000\r" + END


def test_faults_go_together(car: VirtualCar, line: serial.Serial) -> None:
    car.order({"fault": ["pending", "hole", "crlf", "two_prompts"]})
    line.write(b"0904\r")
    first = b"7E8037F0978\r" + CALIBRATION[:20] + CALIBRATION[40:]
    second = b"7E9037F0978\r" + CALIBRATION_2[:20] + CALIBRATION_2[40:]
    expected = (first + second).replace(b"\r", b"\r\n") + b"\r\n>\r\r>"
    assert line.read(len(expected)) == expected


def test_units_that_are_slower_than_the_adapter_waits_have_not_answered(car: VirtualCar, line: serial.Serial) -> None:
    car.order({"slow_s": 0.030})
    assert ask(line, b"010C1") == b"NO DATA\r" + END
    ask(line, b"ATST0A")
    assert ask(line, b"010C1") == ONE + END
    car.order({"slow_s": 0})


def test_a_stalled_adapter_answers_when_it_has_come_round(car: VirtualCar, line: serial.Serial) -> None:
    car.order({"stall_s": 60})
    line.timeout = 0.05
    assert ask(line, b"ATI") == b""
    car.order({"stall_s": 0})
    line.timeout = PATIENCE_S
    # It was busy with the command: another character ends that.
    assert ask(line, b"x") == b"STOPPED\r" + END
    car.order({"stall_s": 0.01})
    assert ask(line, b"ATI").endswith(b"ELM327 v2.1\r" + END)
    car.order({"stall_s": 0})
