"""What ObdCar concludes over several answers: from what is missing, only what is sure."""

import pytest

from components.edge.obd_car import ObdCar
from components.edge.ports import CarAwayError
from components.virtual_car.codes import CodeMemory
from tests.simulated import BusMessages, SimulatedAdapter, Time, untrue


class Bench:
    def __init__(self, bus: int = 6, codes: CodeMemory | None = None) -> None:
        self.time = Time()
        self.adapter = SimulatedAdapter(self.time, codes=codes, bus=bus)
        self.car = ObdCar("/dev/ttyUSB0", clock=self.time, open_line=self.adapter.open)

    def drive(self, seconds: int) -> dict[str, str]:
        """Sample once a second; return the reasons of the last sample."""
        for _ in range(seconds):
            began_ms = self.time()
            sample = self.car.sample(began_ms + 800)
            assert untrue(self.adapter, sample.values, sample.measured_ms) == {}
            self.time.at_ms = began_ms + 1_000
        return dict(sample.why)

    def codes(self) -> set[tuple[str, str]]:
        return {(code.code, code.status) for code in self.car.read_dtcs(self.time() + 5_000).codes}

    def refuse(self, mode: int) -> None:
        def on_bus(request: bytes, messages: BusMessages) -> BusMessages:
            return [(ecu, bytes((0x7F, mode, 0x11))) for ecu, _ in messages] if request[0] == mode else messages

        self.adapter.on_bus = on_bus


@pytest.mark.parametrize("base", ["0100", "0120", "0140", "0160"])
@pytest.mark.parametrize("words", [b"7E8\r\r>", b"CAN ERROR\r\r>", b"NO DATA\r\r>", b"ELM327 v1.5\r\r>"])
def test_a_bit_map_that_came_spoilt_takes_no_signal_from_the_car(base: str, words: bytes) -> None:
    bench, left = Bench(), [words]
    bench.adapter.instead = lambda command, answer: left.pop() if left and command.startswith(base) else answer
    assert bench.drive(8) == {}
    assert not left


def test_an_adapter_that_swallows_the_first_answer_without_a_word_of_a_search_costs_seconds_only() -> None:
    bench, left = Bench(), [b""]
    bench.adapter.instead = lambda command, answer: left.pop() if left and command == "0100" else answer
    bench.drive(7)
    assert bench.car.state().connected


@pytest.mark.parametrize("bus", [6, 3])
def test_codes_are_not_cleared_because_a_mode_is_refused_for_a_while_even_over_a_reconnection(bus: int) -> None:
    bench = Bench(bus)
    bench.drive(8)
    true = bench.codes()
    assert ("P0300", "pending") in true
    bench.refuse(0x07)
    bench.adapter.reset()
    bench.drive(8)
    for _ in range(2):
        with pytest.raises(CarAwayError, match="mode 07"):
            bench.codes()
    bench.adapter.on_bus = None
    assert bench.codes() == true


def test_an_ecu_that_stays_away_does_not_keep_the_codes_away_for_ever() -> None:
    bench = Bench()
    bench.drive(3)
    true = bench.codes()
    bench.refuse(0x0A)
    for _ in range(2):
        with pytest.raises(CarAwayError):
            bench.codes()
    assert bench.codes() == {code for code in true if code[1] != "permanent"}


def test_a_list_of_an_older_bus_that_is_shorter_than_announced_is_not_whole() -> None:
    bench = Bench(3, CodeMemory(stored=("P0420", "P0171", "C1234", "U0100")))
    bench.drive(8)
    assert len(bench.codes()) == 4
    bench.adapter.instead = lambda command, answer: (
        b"\r".join(line for line in answer.split(b"\r") if b"C100" not in line) if command == "03" else answer
    )
    with pytest.raises(CarAwayError, match="not all of 10"):
        bench.codes()


@pytest.mark.parametrize("bus", [6, 7])
def test_a_list_that_is_lost_whole_is_missed_even_where_its_ecu_has_never_told_one(bus: int) -> None:
    bench = Bench(bus, CodeMemory(stored=("P0420",)))
    bench.drive(8)

    def on_bus(request: bytes, messages: BusMessages) -> BusMessages:
        return list(messages)[1:] if request == b"\x03" else messages

    bench.adapter.on_bus = on_bus
    with pytest.raises(CarAwayError, match="mode 03"):
        bench.codes()
    bench.adapter.on_bus = None
    assert ("P0420", "stored") in bench.codes()
