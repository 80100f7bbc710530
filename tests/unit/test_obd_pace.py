"""ObdCar's pace: what it asks how often, what it learns of car and adapter, and how it stays inside its deadlines."""

from collections import Counter

import pytest

from components.edge.obd_car import ObdCar
from tests.fakes import FakeClock, FakeElm, bit_map, can_lines, whole_car
from tests.obd_drive import ALL, Drive, drive, requests


def test_it_says_how_it_asks() -> None:
    subject = drive()
    for _ in range(3):
        subject.sample()
    state = subject.car.state()
    assert (state.group, state.counted, state.timing, state.rejected) == (6, True, "ATAT1 ATST32", {})
    subject = drive()
    subject.elm.max_pids = 2
    subject.sample()
    assert subject.car.state().group == 2
    assert subject.car.state().rejected["no_data"] > 0


def test_rejected_answers_are_counted_by_reason_for_ever() -> None:
    subject = drive({0x0C: b"\x1a\xf8"})
    subject.sample()
    subject.elm.answers = {"010C1": b"CAN ERROR\r\r>"}
    subject.sample()
    subject.elm.answers = {}
    subject.sample()
    subject.elm.answers = {"010C1": b"BUFFER FULL\r\r>", "010C": b"7E8037F0112\r\r>"}
    subject.sample()
    subject.car.close()
    subject.elm.answers = {}
    subject.sample()
    assert subject.car.state().rejected == {"bus_error": 1, "adapter_error": 1, "negative_response": 1}


def test_a_pid_that_the_car_names_but_does_not_answer_is_asked_ever_more_rarely() -> None:
    class Without(FakeElm):
        def _values(self, asked: bytes) -> bytes:
            return super()._values(bytes(pid for pid in asked if pid not in {0x0C, 0x46}) or b"\xff")

    subject = Drive(Without(FakeClock(), whole_car()))
    for _ in range(130):
        sample = subject.sample()
    assert sample.why == {"rpm": "no_data", "ambient_air_temp": "no_data"}
    asked = Counter(request[:4] for request in requests(subject.elm) if len(request) < 6)
    assert 5 <= asked["010C"] <= 9
    assert 1 <= asked["0146"] <= 5
    assert subject.car.state().group == 6


def test_at_a_high_rate_a_slow_adapter_is_used_all_the_time_and_nothing_starves() -> None:
    subject = drive(takes_ms=140)
    car = ObdCar("/dev/x", clock=subject.clock, period_ms=100, open_line=subject.elm.open)
    began_ms = subject.clock.at_ms
    while subject.clock.at_ms < began_ms + 60_000:
        deadline_ms = subject.clock.at_ms + 100
        sample = car.sample(deadline_ms)
        assert subject.clock.at_ms <= deadline_ms
        subject.clock.at_ms = deadline_ms
        if subject.clock.at_ms > began_ms + 10_000:
            assert sample.why == {}
    assert len(requests(subject.elm)) > 60_000 / 140 * 0.8
    assert car.state().connected


def test_a_reader_that_is_behind_sends_no_request_half_full() -> None:
    subject = drive(takes_ms=45)
    car = ObdCar("/dev/x", clock=subject.clock, period_ms=100, open_line=subject.elm.open)
    for _ in range(200):
        deadline_ms = subject.clock.at_ms + 100
        car.sample(deadline_ms)
        subject.clock.at_ms = deadline_ms
    values = [request for request in requests(subject.elm)[-200:] if request[2:4] != "00"]
    assert sum(len(request) // 2 - 1 for request in values) / len(values) > 5.2


def test_what_was_under_way_at_the_deadline_has_no_time_after_it() -> None:
    subject = drive({0x0C: b"\x1a\xf8"})
    for _ in range(2):
        subject.sample()
    subject.elm.takes_ms = 300
    deadline_ms = subject.clock.at_ms + 200
    subject.car.sample(deadline_ms)
    subject.clock.at_ms += 500
    sample = subject.car.sample(subject.clock.at_ms + 1)
    assert sample.measured_ms["rpm"] == deadline_ms


def test_a_question_waits_for_the_answer_that_is_under_way() -> None:
    subject = drive(whole_car(), _03=b"7E8024300\r\r>")
    for _ in range(2):
        subject.sample()
    subject.elm.takes_ms = 300
    subject.car.sample(subject.clock.at_ms + 200)
    assert subject.car.read_dtcs(subject.clock.at_ms + 3_000).codes == ()
    subject.car.sample(subject.clock.at_ms + 200)
    subject.elm.pids[0x0C] = b"\0\0"  # it stalls when the answer is already under way
    assert subject.car.measure_now(("rpm",), subject.clock.at_ms + 900).values == {"rpm": 0}
    subject.elm.answers["04"] = b"7E80144\r\r>"
    subject.car.sample(subject.clock.at_ms + 200)
    assert subject.car.clear_dtcs(subject.clock.at_ms + 50) == "unknown"
    assert "04" not in subject.elm.said
    assert subject.car.clear_dtcs(subject.clock.at_ms + 1_000) == "cleared"


def test_where_lines_cannot_be_counted_the_adapter_waits_less_and_more_again_when_it_misses_something() -> None:
    class Waiting(FakeElm):
        """Each answer has one line more than the bit maps foretell, and below 25 ticks it misses the ECU."""

        ticks = 0x32

        def _answer(self, command: str) -> bytes:
            if command.startswith("ATST"):
                self.ticks = int(command[4:], 16)
            return super()._answer(command)

        def _values(self, asked: bytes) -> bytes:
            if self.ticks < 0x19 and asked[0] % 0x20:
                return b"NO DATA\r\r>"
            return b"7E9037F0112\r" + super()._values(asked)

    elm = Waiting(FakeClock(), whole_car())
    subject = Drive(elm)
    for _ in range(60):
        assert subject.sample().why == {}
    assert "ATST0F" in subject.elm.said
    assert subject.elm.said.count("ATST0F") == 1
    state = subject.car.state()
    assert (state.timing, state.counted) == ("ATAT2 ATST19", False)
    assert state.rejected["no_data"] <= 6  # of one request
    subject.car.rest(subject.clock.at_ms + 900)
    subject.sample()
    assert elm.ticks == 0x32  # what was learnt of a car is not trusted after a rest


def test_an_ecu_that_wakes_up_later_is_found() -> None:
    class Late(FakeElm):
        """A second ECU, with the coolant's temperature, that hears nothing at first."""

        is_awake = False

        def _values(self, asked: bytes) -> bytes:
            lines = super()._values(asked).decode().removesuffix("\r>")
            if self.is_awake and asked == b"\x00":
                lines += can_lines("7E9", b"\x41\x00" + bit_map(0, {0x05}))[0] + "\r"
            if self.is_awake and 0x05 in asked:
                lines = lines.replace("NO DATA\r", "") + "7E903410550\r"
            return lines.encode() + b"\r>"

    elm = Late(FakeClock(), {0x0C: b"\0\0", 0x0D: b"\0"})
    subject = Drive(elm)
    for _ in range(7):
        sample = subject.sample()
    assert sample.why["temp"] == "unsupported"
    elm.is_awake = True
    for _ in range(30):
        assert subject.sample().why["temp"] == "unsupported"
    subject.elm.pids[0x0C] = b"\x1a\xf8"  # the engine starts
    sample = subject.until(lambda sample: "temp" in sample.values, 6)
    assert (sample.values["rpm"], sample.values["temp"]) == (1726.0, 40)


def test_what_the_car_has_is_asked_again_every_ten_minutes() -> None:
    subject = drive({0x0C: b"\x1a\xf8"})
    for _ in range(1_250):
        subject.sample()
    assert subject.elm.said.count("0100") == 1 + 1 + 2  # met, soon after, and then


def test_every_ecu_is_asked_for_its_calibration_after_the_first_values() -> None:
    subject = drive(_0904=b"7E81013490401564341\r7E8212D454E47494E45\r7E8222D3030303100\r7E9025A\r\r>")
    assert subject.sample().why == {}
    assert "0904" not in subject.elm.said
    for _ in range(6):
        subject.sample()
    assert subject.car.state().calibration == ("VCA-ENGINE-0001",)
    assert subject.car.state().rejected == {}


def test_only_what_is_wanted_is_asked_and_at_its_rate() -> None:
    elm = FakeElm(FakeClock(), whole_car())
    car = ObdCar("/dev/x", clock=elm.clock, wanted={"rpm", "temp"}, rates={"temp": 0}, open_line=elm.open)
    for _ in range(20):
        sample = car.sample(elm.clock.at_ms + 900)
        elm.clock.at_ms += 1_000
    assert sample.values.keys() == {"rpm", "temp"}
    assert sample.why == dict.fromkeys(ALL - {"rpm", "temp"}, "unsupported")
    values = [request for request in requests(elm) if request[:2] == "01" and int(request[2:4], 16) % 0x20]
    assert {request[:6] for request in values} <= {"010C05", "01050C"}
    assert car.measure_now(("speed",), elm.clock.at_ms + 900).values == {"speed": 0x31}  # but asked when it must be


@pytest.mark.parametrize("within_ms", [40, 60, 100])
def test_an_adapter_that_needs_more_than_a_pass_is_met_and_read(within_ms: int) -> None:
    subject = drive(takes_ms=70)
    car = ObdCar("/dev/x", clock=subject.clock, period_ms=100, open_line=subject.elm.open)
    for _ in range(200):
        sample = car.sample(subject.clock.at_ms + within_ms)
        subject.clock.at_ms += 10
    assert len(sample.values) > 30
    assert requests(subject.elm).count("0100") == 2


def test_an_adapter_that_comes_back_under_another_name_is_read_within_5_s(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["/dev/ttyUSB0"]
    monkeypatch.setattr("components.edge.obd_car.find_obd_ports", lambda **_: tuple(names))
    elm = FakeElm(FakeClock(), whole_car())
    car = ObdCar("auto", clock=elm.clock, open_line=elm.open)
    assert len(car.sample(elm.clock.at_ms + 900).values) == 36
    elm.is_unplugged, names[:] = True, []
    for _ in range(20):
        assert car.sample(elm.clock.at_ms + 900).values == {}
        elm.clock.at_ms += 1_000
    assert "no OBD adapter is plugged in" in car.state().trouble
    elm.is_unplugged, names[:] = False, ["/dev/ttyUSB1"]
    back_ms = elm.clock.at_ms
    while not (sample := car.sample(elm.clock.at_ms + 900)).values:
        elm.clock.at_ms += 1_000
    assert elm.clock.at_ms - back_ms <= 5_000
    assert (len(sample.values), car.state().port) == (36, "/dev/ttyUSB1")


def test_what_a_bit_map_that_was_lost_would_have_named_is_asked_for_again() -> None:
    lost = iter([b"CAN ERROR\r\r>"])
    subject = drive()
    whole = subject.elm
    real = FakeElm(FakeClock(), whole_car())
    whole.answers["0140"] = lambda: next(lost, real._answer("0140"))
    assert subject.sample().why == {}
    assert whole.said.count("0140") == 2


@pytest.mark.parametrize(("dead", "at_once"), [(0x04, 6), (0x12, 6), (0x12, 1), (0x63, 1)])
def test_an_item_that_never_answers_does_not_make_the_adapter_wait_for_ever(dead: int, at_once: int) -> None:
    class Uncounting(FakeElm):
        """It takes no number of lines, and names an item that it has no value for."""

        def _answer(self, command: str) -> bytes:
            return b"?\r\r>" if command[:2] == "01" and len(command) % 2 else super()._answer(command)

        def _values(self, asked: bytes) -> bytes:
            return super()._values(bytes(pid for pid in asked if pid != dead))

    some = {pid: data for pid, data in whole_car().items() if pid in {dead, 0x05, 0x0C, 0x0D, 0x11, 0x2F, 0x46, 0x5C}}
    subject = Drive(Uncounting(FakeClock(), some))
    subject.elm.max_pids = at_once
    waits = []
    for _ in range(1_300):
        subject.sample()
        waits.append(subject.car.state().timing)
    assert waits[120] == waits[-1] == "ATAT2 ATST0F"
    assert len({*waits[120:]}) == 1
