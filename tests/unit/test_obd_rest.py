"""ObdCar at rest: the adapter's voltage, and nothing that a control unit of the car could notice."""

import pytest

from components.edge.obd_link import ObdLink
from tests.fakes import FakeClock, FakeElm, whole_car
from tests.obd_drive import Drive, drive, requests


def test_at_rest_the_bus_is_left_alone_and_the_car_taken_up_again() -> None:
    subject = drive()
    subject.sample()
    said = len(subject.elm.said)
    subject.elm.answers["ATRV"] = b"12.1V\r\r>"
    for _ in range(3):
        subject.car.rest(subject.clock.at_ms + 500)
        assert subject.car.state().voltage_v == 12.1
        subject.clock.at_ms += 5_000
    assert set(subject.elm.said[said:]) == {"ATI", "ATRV"}
    assert subject.sample().why == {}


def test_a_rest_connects_to_the_adapter_but_not_to_the_car() -> None:
    subject = drive()
    assert set(subject.car.rest(subject.clock.at_ms + 900).why.values()) == {"asleep"}
    assert requests(subject.elm) == []
    assert subject.car.state().voltage_v == 12.6
    assert subject.car.state().voltage_ms == subject.clock.at_ms


@pytest.mark.parametrize("within_ms", [0, 5, 10, 15])
@pytest.mark.parametrize("call", ["sample", "measure_now", "read_dtcs", "clear_dtcs"])
def test_a_rest_that_its_deadline_cut_is_ended_by_whatever_is_asked_next(within_ms: int, call: str) -> None:
    subject = drive(_03=b"7E8024300\r\r>", _07=b"7E8024700\r\r>", _0A=b"7E8024A00\r\r>", _04=b"7E8037F0422\r\r>")
    subject.sample()
    subject.car.rest(subject.clock.at_ms + within_ms)
    deadline_ms = subject.clock.at_ms + 4_000
    if call == "sample":
        assert subject.car.sample(deadline_ms).why == {}
    elif call == "measure_now":
        assert subject.car.measure_now(("rpm",), deadline_ms).values == {"rpm": 1726.0}
    elif call == "read_dtcs":
        assert subject.car.read_dtcs(deadline_ms).codes == ()
    else:
        assert subject.car.clear_dtcs(deadline_ms) == "refused"
    assert subject.car.state().connected


@pytest.mark.parametrize(
    ("said", "volts"), [("0.0V", None), ("5.9V", None), ("6.0V", 6.0), ("28.4", 28.4), ("50V", None)]
)
def test_what_no_battery_has_is_no_voltage(said: str, volts: float | None) -> None:
    subject = drive(ATRV=f"{said}\r\r>".encode())
    subject.car.rest(subject.clock.at_ms + 900)
    assert subject.car.state().voltage_v == volts


def test_a_rest_ends_a_search_for_the_bus() -> None:
    class Searching(FakeElm):
        """Its search never ends by itself; the first byte of a command stops it and is lost."""

        searches = False

        def _answer(self, command: str) -> bytes:
            if self.searches:
                self.searches = False
                return b"\rSTOPPED\r\r>?\r\r>"
            self.searches = command == "0100"
            return b"SEARCHING..." if self.searches else super()._answer(command)

    subject = Drive(Searching(FakeClock(), {}))
    subject.sample()
    assert subject.elm.said[-1] == "0100"
    subject.car.rest(subject.clock.at_ms + 900)
    assert subject.car.state().voltage_v == 12.6
    assert requests(subject.elm) == ["0100"]


def test_a_rest_is_short_and_takes_no_old_voltage_for_a_new_one() -> None:
    subject = drive()
    subject.sample()
    assert subject.car.state().voltage_v == 12.6
    subject.elm.is_silent = True
    for _ in range(30):
        deadline_ms = subject.clock.at_ms + 400
        subject.car.rest(deadline_ms)
        assert subject.clock.at_ms <= deadline_ms + 50
        assert (subject.car.state().voltage_v, subject.car.state().voltage_ms) == (None, None)
    subject.elm.is_silent = False
    for _ in range(30):
        subject.car.rest(subject.clock.at_ms + 400)
        subject.clock.at_ms += 400
    assert subject.car.state().voltage_v == 12.6


def test_a_question_whose_limit_a_tick_put_behind_its_deadline_leaves_nothing_on_its_way() -> None:
    class Ticking(FakeClock):
        """The next looks at it move it."""

        ticks = 0

        def __call__(self) -> int:
            self.at_ms += self.ticks > 0
            self.ticks -= 1
            return self.at_ms

    clock = Ticking()
    elm = FakeElm(clock, whole_car())
    link = ObdLink(lambda: ("/dev/x",), elm.open, "auto", clock)
    assert link.advance(clock() + 3_000)
    elm.answers["03"] = b""
    clock.ticks = 2
    assert link.ask("03", clock.at_ms + 100, lambda _: True).answer.reason == "timeout"
    assert (link.state, link.is_waiting) == ("resync", False)
