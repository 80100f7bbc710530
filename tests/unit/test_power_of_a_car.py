"""How soon a car is left alone, and read again: ObdCar on an adapter by rote, sampled as the recorder does."""

import pytest

from components.edge.obd_car import ObdCar
from components.edge.power import LOOK_EVERY_MS, Limits, Look, Power
from tests.fakes import FakeClock, FakeElm, whole_car
from tests.obd_drive import requests


class Engine(FakeElm):
    """An adapter whose car stops answering; looking for a bus takes as long as the test says, or until it is stopped.

    A command sent into a search stops it and is lost.
    """

    runs = True
    charges_v = 14.1
    search_ms = 0
    _searching_until_ms = 0

    def _answer(self, command: str) -> bytes:
        if self.clock.at_ms < self._searching_until_ms:
            self._searching_until_ms, self._out = 0, []
            return b"\rSTOPPED\r\r>"
        if command == "ATRV":
            return f"{self.charges_v if self.runs else min(12.5, self.charges_v)}V\r\r>".encode()
        if self.runs or command.startswith("AT"):
            return super()._answer(command)
        if command != "0100" or not self.search_ms:
            return b"NO DATA\r\r>"
        self._searching_until_ms = self.clock.at_ms + self.search_ms
        self.send_later(self.search_ms, b"\rUNABLE TO CONNECT\r\r>")
        return b"SEARCHING..."


class Watched:
    """The car and its machine, turn by turn."""

    def __init__(self, search_ms: int, charges_v: float = 14.1) -> None:
        self.elm = Engine(FakeClock(), whole_car())
        self.elm.search_ms, self.elm.charges_v = search_ms, charges_v
        self.clock = self.elm.clock
        self.car = ObdCar("/dev/x", clock=self.clock, open_line=self.elm.open)
        self.power = Power(Limits(), self.clock.at_ms)

    def turn(self) -> None:
        began_ms, is_asleep = self.clock.at_ms, self.power.state == "asleep"
        leaves_alone = is_asleep and not self.power.tries_bus(began_ms)
        sample = (self.car.rest if leaves_alone else self.car.sample)(began_ms + (4_000 if is_asleep else 800))
        rpm, speed = (sample.values.get(key) for key in ("rpm", "speed"))
        assert rpm is None or isinstance(rpm, float)
        assert speed is None or isinstance(speed, int | float)
        state = self.car.state()
        self.power.heard(Look(self.clock.at_ms, rpm, speed, state.voltage_v, state.voltage_ms))
        self._rpm = rpm
        self.clock.at_ms = began_ms + (LOOK_EVERY_MS if is_asleep and self.power.state == "asleep" else 1_000)

    def reads_engine(self) -> bool:
        return bool(self._rpm)

    def turns(self, seconds: float) -> None:
        end_ms = self.clock.at_ms + seconds * 1000
        while self.clock.at_ms < end_ms:
            self.turn()


@pytest.mark.parametrize("search_ms", [0, 3_000, 14_500])
@pytest.mark.parametrize("drove_s", [20, 21, 22, 23, 24])
def test_polling_ends_within_thirty_seconds_and_begins_within_ten(search_ms: int, drove_s: int) -> None:
    watched = Watched(search_ms)
    watched.turns(drove_s)
    assert watched.reads_engine()
    watched.elm.runs = False
    watched.turns(30)
    assert watched.power.state == "asleep"
    said = len(watched.elm.said)
    watched.turns(590)
    assert requests(watched.elm, said) == []
    watched.turns(3_000)
    assert len(requests(watched.elm, said)) <= 6
    assert watched.power.state == "asleep"
    assert begins_within_ten_seconds(watched)


@pytest.mark.parametrize("search_ms", [0, 3_000, 14_500])
@pytest.mark.parametrize("slept_s", range(40, 60, 3))
def test_where_the_voltage_never_tells_of_the_engine_polling_begins_within_ten_seconds_too(
    search_ms: int, slept_s: int
) -> None:
    watched = Watched(search_ms, charges_v=12.5)
    watched.turns(20)
    watched.elm.runs = False
    watched.turns(30)
    assert watched.power.state == "asleep"
    watched.turns(slept_s)
    assert watched.power.state == "asleep"
    assert begins_within_ten_seconds(watched)


def begins_within_ten_seconds(watched: Watched) -> bool:
    watched.elm.runs, started_ms = True, watched.clock.at_ms
    while not watched.reads_engine() and watched.clock.at_ms - started_ms <= 10_000:
        watched.turn()
    return watched.reads_engine()
