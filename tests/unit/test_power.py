"""When a car counts as asleep: the table of power.py row by row, and what holds whatever is heard."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.edge.power import Limits, Look, Order, Power

REST = Look(0, voltage_v=12.4)


class Car:
    """A machine that is shown looks, one after another; the voltage is measured at each unless it says otherwise."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.power = Power(limits or Limits(), 0)
        self.now_ms = 0

    def show(self, look: Look, after_s: float = 1.0) -> Order | None:
        self.now_ms += round(after_s * 1000)
        measured_ms = self.now_ms if look.voltage_ms is None and look.voltage_v is not None else look.voltage_ms
        return self.power.heard(replace(look, at_ms=self.now_ms, voltage_ms=measured_ms))

    def keep_showing(self, look: Look, seconds: float, every_s: float = 1.0) -> list[tuple[float, Order]]:
        """Show the same for so long; return the orders that came, and after how many seconds."""
        began_ms, orders = self.now_ms, []
        while self.now_ms < began_ms + seconds * 1000:
            if (order := self.show(look, every_s)) is not None:
                orders.append(((self.now_ms - began_ms) / 1000, order))
        return orders

    def asleep(self, look: Look = REST) -> "Car":
        assert self.keep_showing(look, 21) == [(21, "sleep")]
        return self


def looks(**values: Any) -> Look:  # noqa: ANN401 - any of its fields
    return replace(REST, **values)


def test_a_car_that_says_nothing_and_does_not_charge_falls_asleep_after_the_dwell() -> None:
    car = Car()
    assert car.keep_showing(REST, 60) == [(21.0, "sleep")]
    assert (car.power.state, car.power.since_ms, car.power.voltage_v) == ("asleep", 21_000, 12.4)


@pytest.mark.parametrize("dwell_s", [5, 20, 600])
def test_the_dwell_is_as_configured(dwell_s: int) -> None:
    car = Car(Limits(dwell_ms=dwell_s * 1000))
    assert car.keep_showing(REST, dwell_s + 1) == [(dwell_s + 1, "sleep")]


@pytest.mark.parametrize(
    "look",
    [
        looks(rpm=800.0),
        looks(rpm=800.0, speed=0),
        looks(speed=50),
        looks(voltage_v=13.2),
        looks(voltage_v=14.4),
        Look(0),
        looks(rpm=800.0, voltage_v=14.4),
    ],
)
def test_what_keeps_a_car_awake_for_ever_and_makes_the_dwell_begin_anew(look: Look) -> None:
    car = Car()
    assert car.keep_showing(look, 700) == []
    assert car.keep_showing(REST, 20) == []
    assert car.show(look) is None
    assert car.keep_showing(REST, 22)[0][0] >= 20


def test_a_voltage_measured_before_the_engine_fell_silent_says_nothing_of_what_came_after() -> None:
    car = Car(Limits(dwell_ms=5_000))
    car.keep_showing(looks(rpm=800.0, voltage_v=12.5), 10)
    before = looks(voltage_v=12.5, voltage_ms=car.now_ms)
    assert car.keep_showing(before, 60) == []
    assert car.keep_showing(REST, 6) == [(6.0, "sleep")]


def test_an_old_voltage_is_no_voltage() -> None:
    car = Car(Limits(dwell_ms=30_000))
    car.show(REST)
    old = looks(voltage_ms=car.now_ms)
    assert car.keep_showing(old, 60) == []
    assert car.power.voltage_v is None


def test_a_search_of_fifteen_seconds_without_a_measurement_does_not_begin_the_dwell_anew() -> None:
    car = Car()
    car.show(REST)
    assert car.keep_showing(looks(voltage_ms=car.now_ms), 17) == []
    assert car.keep_showing(REST, 3) == [(3.0, "sleep")]


@pytest.mark.parametrize("look", [looks(rpm=0.0, speed=0), looks(rpm=0.0)])
def test_a_standing_engine_that_does_not_charge_falls_asleep_after_ten_minutes(look: Look) -> None:
    car = Car()
    assert car.keep_showing(look, 602) == [(601.0, "sleep")]


@pytest.mark.parametrize("look", [looks(rpm=1.0, speed=0), looks(rpm=0.0, speed=1), looks(rpm=0.0, voltage_v=13.2)])
def test_a_moment_of_turning_rolling_or_charging_makes_the_ten_minutes_begin_anew(look: Look) -> None:
    car = Car()
    assert car.keep_showing(looks(rpm=0.0, speed=0), 600) == []
    assert car.show(look) is None
    assert car.keep_showing(looks(rpm=0.0, speed=0), 600) == []


def test_a_car_that_answers_now_and_then_without_ever_turning_falls_asleep_after_ten_minutes_too() -> None:
    car = Car()
    orders = [order for n in range(602) for order in [car.show(looks(rpm=0.0) if n % 10 else REST)] if order]
    assert orders == ["sleep"]


@pytest.mark.parametrize(
    "look",
    [
        looks(voltage_v=13.2),
        looks(voltage_v=14.4),
        looks(voltage_v=12.9),
        looks(voltage_v=11.4),
        looks(rpm=800.0),
        looks(speed=3),
    ],
)
def test_one_look_at_an_engine_that_starts_wakes_and_the_full_dwell_is_needed_again(look: Look) -> None:
    car = Car().asleep()
    car.keep_showing(REST, 3600, every_s=5)
    assert car.show(look, 5) == "wake"
    assert (car.power.state, car.power.since_ms) == ("awake", car.now_ms)
    assert car.keep_showing(REST, 20) == []
    assert car.keep_showing(REST, 2) == [(1.0, "sleep")]


def test_a_battery_that_rests_and_drains_slowly_wakes_nobody() -> None:
    car = Car(Limits(low_v=0)).asleep(looks(voltage_v=13.0))
    for tenth in range(130, 100, -1):
        assert car.keep_showing(looks(voltage_v=tenth / 10), 600, every_s=5) == []
    assert car.show(looks(voltage_v=10.4), 5) is None
    assert car.show(looks(voltage_v=10.6), 5) == "wake"


@pytest.mark.parametrize(("rest", "then"), [(13.1, 13.2), (12.3, 12.8), (12.4, 12.9), (12.4, 11.4), (12.2, 11.2)])
def test_what_the_limits_name_is_enough_in_tenths_of_a_volt(rest: float, then: float) -> None:
    car = Car().asleep(looks(voltage_v=rest))
    assert car.show(looks(voltage_v=then), 5) == "wake"


@pytest.mark.parametrize(("rest", "then"), [(13.0, 13.1), (12.3, 12.7), (12.4, 12.8), (12.4, 11.5), (12.2, 11.3)])
def test_a_tenth_less_is_not_enough(rest: float, then: float) -> None:
    car = Car().asleep(looks(voltage_v=rest))
    assert car.show(looks(voltage_v=then), 5) is None


def test_an_alternator_that_takes_its_time_wakes_too() -> None:
    car = Car().asleep()
    assert [car.show(looks(voltage_v=volts), 5) for volts in (12.5, 12.7, 12.8, 12.9)] == [None, None, None, "wake"]


def test_a_voltage_that_stays_unknown_wakes_after_thirty_seconds() -> None:
    car = Car().asleep()
    assert car.keep_showing(Look(0), 25, every_s=5) == []
    car.show(REST, 5)
    assert car.keep_showing(Look(0), 40, every_s=5) == [(30.0, "wake")]
    assert car.power.voltage_v is None


def test_a_low_voltage_runs_the_command_once_after_the_dwell_and_the_last_packet() -> None:
    car = Car().asleep()
    low = looks(voltage_v=11.7)
    assert car.keep_showing(low, 20, every_s=5) == []
    assert car.show(looks(voltage_v=11.7, sent=True), 5) == "command"
    assert car.keep_showing(looks(voltage_v=11.7, sent=True), 3600, every_s=5) == []


def test_the_command_waits_for_the_last_packet_thirty_seconds_and_no_longer() -> None:
    car = Car().asleep()
    assert car.keep_showing(looks(voltage_v=11.7), 60, every_s=5) == [(30.0, "command")]


def test_a_voltage_that_recovers_or_is_unknown_makes_the_dwell_of_the_command_begin_anew() -> None:
    for other in (looks(voltage_v=11.8), Look(0)):
        car = Car().asleep()
        low = looks(voltage_v=11.7, sent=True)
        assert car.keep_showing(low, 20, every_s=5) == []
        assert car.show(other, 5) is None
        assert car.keep_showing(low, 25, every_s=5) == [(25.0, "command")]


def test_who_sleeps_long_enough_is_sent_the_command_whatever_the_voltage_and_again_in_the_next_sleep() -> None:
    car = Car(Limits(idle_ms=3_600_000))
    for _ in range(2):
        car.asleep()
        assert car.keep_showing(replace(REST, sent=True), 7200, every_s=5) == [(3600.0, "command")]
        assert car.show(looks(voltage_v=14.0), 5) == "wake"


def test_never_is_never() -> None:
    car = Car(Limits(low_v=0, idle_ms=0)).asleep()
    assert car.keep_showing(looks(voltage_v=12.0, sent=True), 86_400, every_s=5) == []


volts = st.one_of(st.none(), st.floats(0, 30, width=32), st.sampled_from([11.7, 12.4, 12.9, 13.1, 13.2]))
any_look = st.builds(
    lambda rpm, speed, voltage_v, sent, age_ms: (Look(0, rpm, speed, voltage_v, sent=sent), age_ms),
    st.one_of(st.none(), st.just(0.0), st.floats(1, 8000)),
    st.one_of(st.none(), st.just(0), st.integers(1, 255)),
    volts,
    st.booleans(),
    st.sampled_from([0, 0, 0, 5_000, 19_000, 21_000]),
)


def shown(power: Power, at_ms: int, look: Look, age_ms: int) -> tuple[Look, Order | None]:
    measured_ms = at_ms - age_ms if look.voltage_v is not None else None
    timed = replace(look, at_ms=at_ms, voltage_ms=measured_ms)
    return timed, power.heard(timed)


@given(
    st.lists(st.tuples(st.one_of(any_look, st.just((REST, 0))), st.integers(1, 40)), max_size=80),
    st.sampled_from([5_000, 20_000]),
)
def test_whatever_is_heard_sleep_needs_a_known_low_voltage_and_no_turning_engine(
    course: list[tuple[tuple[Look, int], int]], dwell_ms: int
) -> None:
    power, at_ms, woke_ms, commands = Power(Limits(dwell_ms=dwell_ms), 0), 1_000, 0, 0
    for (look, age_ms), repeats in course:
        for _ in range(repeats):
            at_ms += 1_000
            before = power.state
            seen, order = shown(power, at_ms, look, age_ms)
            if seen.rpm or seen.speed:
                assert power.state == "awake"
            if seen.known_v is not None and seen.known_v >= 13.2:
                assert power.state == "awake"
            if order == "sleep":
                assert seen.known_v is not None
                assert seen.known_v < 13.2
                assert before == "awake"
                assert at_ms - woke_ms >= dwell_ms
                commands = 0
            if order == "wake":
                woke_ms = at_ms
            if order == "command":
                commands += 1
                assert (before, power.state) == ("asleep", "asleep")
                assert seen.sent or at_ms - power.since_ms >= 30_000
            assert commands <= 1
            assert (order in {"sleep", "wake"}) == (power.state != before)


def tried_s(car: Car, seconds: int) -> list[int]:
    """After how many seconds of sleep a look every 5 s may ask the bus."""
    since_ms = car.power.since_ms
    return [s for s in range(5, seconds, 5) if car.power.tries_bus(since_ms + s * 1000)]


def test_the_bus_of_a_sleeping_car_is_tried_every_ten_minutes_where_the_engine_was_seen_to_charge() -> None:
    car = Car()
    car.show(looks(rpm=800.0, voltage_v=14.1))
    assert tried_s(car.asleep(), 2400) == [600, 1200, 1800]


def test_it_is_tried_much_more_often_where_the_voltage_never_told_of_the_engine() -> None:
    car = Car()
    car.show(looks(rpm=800.0, voltage_v=13.1))
    tried = tried_s(car.asleep(looks(voltage_v=13.1)), 800)
    assert tried[:59] == list(range(10, 600, 10))
    assert tried[59:] == [600, 660, 720, 780]


def test_each_drive_shows_anew_whether_the_voltage_tells() -> None:
    car = Car()
    car.show(looks(rpm=800.0, voltage_v=14.1))
    car.asleep()
    assert car.show(looks(rpm=800.0, voltage_v=12.6)) == "wake"
    assert tried_s(car.asleep(), 30) == [10, 20]


def test_a_car_without_an_engine_speed_is_on_as_long_as_it_tells_its_speed() -> None:
    electric = looks(speed=0, voltage_v=12.9)
    assert Car().keep_showing(replace(electric, has_rpm=False), 300) == []
    assert Car().keep_showing(electric, 60) == [(21.0, "sleep")]
