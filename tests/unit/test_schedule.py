"""Which signals are due when."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.edge.schedule import Schedule
from components.wire.signals import BY_KEY, OBD_SIGNALS


def run(passes: int, pass_ms: int, at_most: int = 99) -> tuple[Counter[str], list[int]]:
    schedule = Schedule(OBD_SIGNALS, pass_ms, {})
    asked: Counter[str] = Counter()
    sizes = []
    for number in range(passes):
        due = schedule.due(1_000 + number * pass_ms)[:at_most]
        schedule.answered(due, 1_000 + number * pass_ms)
        asked.update(signal.key for signal in due)
        sizes.append(len(due))
    return asked, sizes


def test_the_first_pass_asks_everything_and_the_next_ones_are_even() -> None:
    _, sizes = run(61, 1_000)
    assert sizes[0] == 36
    assert min(sizes[1:]) >= 14
    assert max(sizes[1:]) <= 19


def test_each_tier_has_its_period() -> None:
    asked, _ = run(601, 1_000)
    periods_s = {"F": 1, "M": 5, "S": 30}
    for signal in OBD_SIGNALS:
        if signal.tier == "O":
            assert asked[signal.key] == 1
        else:
            assert asked[signal.key] == pytest.approx(600 / periods_s[signal.tier], rel=0.1, abs=2)


def test_at_a_slow_rate_every_pass_asks_the_middle_tier_too() -> None:
    asked, _ = run(13, 5_000)
    assert asked["fuel_pressure"] == asked["rpm"] == 13


@given(st.integers(1, 36), st.sampled_from([100, 1_000, 5_000]))
def test_whatever_fits_into_a_pass_nothing_starves(at_most: int, pass_ms: int) -> None:
    asked, _ = run(3_000 // at_most + 400, pass_ms, at_most)
    assert all(asked[signal.key] for signal in OBD_SIGNALS)
    fast = [asked[signal.key] for signal in OBD_SIGNALS if signal.tier == "F"]
    assert max(fast) <= 2 * min(fast) + 2


def test_what_is_asked_once_is_asked_again_only_when_it_gave_nothing() -> None:
    schedule = Schedule([BY_KEY["obd_standard"]], 1_000, {})
    schedule.answered(schedule.due(0), 0)
    assert schedule.due(10**9) == []
    schedule.failed([BY_KEY["obd_standard"]], 0)
    assert schedule.due(4_999) == []
    assert len(schedule.due(5_000)) == 1


def test_a_value_is_stale_after_three_periods_of_its_tier() -> None:
    schedule = Schedule(OBD_SIGNALS, 2_000, {})
    for at_ms in (0, 2_000, 4_000):
        schedule.answered(OBD_SIGNALS, at_ms)
    ages = [schedule.stale_ms(BY_KEY[key]) for key in ("rpm", "fuel_pressure", "temp", "obd_standard")]
    assert ages == [6_000, 15_000, 90_000, None]


def test_what_the_ecu_never_answers_is_asked_ever_more_rarely_and_at_once_again_when_it_does() -> None:
    rpm = BY_KEY["rpm"]
    schedule = Schedule([rpm], 1_000, {})
    asked_s = []
    for second in range(400):
        if schedule.due(1_000 * second):
            schedule.silent([rpm], 1_000 * second)
            asked_s.append(second)
    assert asked_s[:7] == [0, 1, 3, 7, 15, 31, 63]
    assert [later - sooner for sooner, later in pairwise(asked_s[6:])] == [60] * 5
    schedule.answered([rpm], 400_000)
    assert schedule.due(401_000) == [rpm]


def test_what_only_failed_is_not_asked_more_rarely() -> None:
    rpm = BY_KEY["rpm"]
    schedule = Schedule([rpm], 1_000, {})
    for second in range(20):
        assert schedule.due(1_000 * second) == [rpm]
        schedule.failed([rpm], 1_000 * second)


def test_a_rate_replaces_the_tier() -> None:
    rates = {"rpm": 10, "temp": 0, "obd_standard": 2, "speed": 0.001}
    schedule = Schedule(OBD_SIGNALS, 1_000, rates)
    asked: Counter[str] = Counter()
    for number in range(101):
        due = schedule.due(number * 1_000)
        schedule.answered(due, number * 1_000)
        asked.update(signal.key for signal in due)
    assert (asked["temp"], asked["speed"], asked["load"]) == (101, 101, 101)
    assert asked["rpm"] == pytest.approx(11, abs=1)
    assert asked["obd_standard"] == pytest.approx(51, abs=1)
    assert schedule.stale_ms(BY_KEY["rpm"]) == 30_000
    assert schedule.stale_ms(BY_KEY["temp"]) == 3_000


def test_where_the_fast_tier_goes_round_the_others_wait_one_round_and_its_period_is_the_round() -> None:
    schedule = Schedule(OBD_SIGNALS, 100, {})
    asked_ms: dict[str, list[int]] = {signal.key: [] for signal in OBD_SIGNALS}
    for at_ms in range(0, 120_000, 100):
        due = schedule.due(at_ms)[:4]  # 40 a second, where 160 are wanted
        schedule.answered(due, at_ms)
        for signal in due if at_ms >= 900 else ():  # the first pass is over by then
            asked_ms[signal.key].append(at_ms)
    waits = {signal.key: max(later - sooner for sooner, later in pairwise(asked_ms[signal.key]))
             for signal in OBD_SIGNALS if signal.tier != "O"}  # fmt: skip
    assert max(wait for key, wait in waits.items() if BY_KEY[key].tier == "F") <= 500
    assert max(wait for key, wait in waits.items() if BY_KEY[key].tier == "M") <= 7_500 + 500
    assert max(wait for key, wait in waits.items() if BY_KEY[key].tier == "S") <= 45_000 + 500
    assert 3 * 300 <= (schedule.stale_ms(BY_KEY["rpm"]) or 0) <= 3 * 500


@pytest.mark.parametrize("takes_ms", [80, 140, 220])
def test_while_nobody_knows_how_slow_an_adapter_is_no_value_of_the_fast_tier_is_too_old(takes_ms: int) -> None:
    schedule = Schedule(OBD_SIGNALS, 1_000, {})
    asked_ms: dict[str, int] = {}
    at_ms = 0
    for end_ms in range(800, 60_000, 1_000):
        while at_ms < end_ms:
            first = schedule.due(at_ms)[:1]
            at_ms += takes_ms
            schedule.answered(first, at_ms)
            asked_ms.update((signal.key, at_ms) for signal in first)
        for key in {"rpm", "speed"} & asked_ms.keys():
            assert end_ms - asked_ms[key] <= (schedule.stale_ms(BY_KEY[key]) or 0)
        at_ms = end_ms + 200


def test_one_interruption_does_not_make_a_value_last_longer() -> None:
    schedule = Schedule(OBD_SIGNALS, 1_000, {})
    schedule.answered(schedule.due(0), 0)
    for at_ms in (1_000, 2_000, 9_000, 10_000):
        schedule.answered(schedule.due(at_ms), at_ms)
        assert schedule.stale_ms(BY_KEY["rpm"]) == 3_000
