"""ObdCar on an adapter by rote, and the hand that samples it, in a time that only waiting moves."""

from collections.abc import Callable

from components.edge.obd_car import ObdCar
from components.edge.ports import Sample
from components.wire.signals import OBD_SIGNALS
from tests.fakes import FakeClock, FakeElm, whole_car

ALL = {signal.key for signal in OBD_SIGNALS}


class Drive:
    """A car, its adapter, and the hand that samples it."""

    def __init__(self, elm: FakeElm, protocol: str = "auto", period_ms: int = 1_000) -> None:
        self.elm = elm
        self.clock = elm.clock
        self.car = ObdCar("/dev/x", protocol=protocol, clock=elm.clock, period_ms=period_ms, open_line=elm.open)

    def sample(self, within_ms: int = 900) -> Sample:
        """One pass; the second it stands for is over afterwards."""
        began_ms = self.clock.at_ms
        sample = self.car.sample(began_ms + within_ms)
        assert self.clock.at_ms <= began_ms + within_ms + 50
        assert {*sample.values, *sample.why} == ALL
        assert sample.values.keys() == sample.measured_ms.keys()
        self.clock.at_ms = max(self.clock.at_ms, began_ms + 1_000)
        return sample

    def until(self, holds: Callable[[Sample], bool], seconds: int = 30) -> Sample:
        for _ in range(seconds):
            sample = self.sample()
            if holds(sample):
                return sample
        raise AssertionError(self.car.state())


def drive(pids: dict[int, bytes] | None = None, takes_ms: int = 10, **answers: bytes) -> Drive:
    commands = {key.removeprefix("_"): answer for key, answer in answers.items()}
    return Drive(FakeElm(FakeClock(), whole_car() if pids is None else pids, commands, takes_ms))


def requests(elm: FakeElm, since: int = 0) -> list[str]:
    return [command for command in elm.said[since:] if not command.startswith("AT")]
