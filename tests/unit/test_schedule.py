"""Which signals are due when."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.edge.schedule import Schedule
from components.wire.signals import BY_KEY, OBD_SIGNALS


def run(passes: int, pass_ms: int, at_most: int = 99) -> tuple[Counter[str], list[int]]:
    schedule = Schedule(OBD_SIGNALS, pass_ms)
    asked: Counter[str] = Counter()
    sizes = []
    for number in range(passes):
        due = schedule.due(1_000 + number * pass_ms)[:at_most]
        schedule.asked(due, 1_000 + number * pass_ms)
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
    schedule = Schedule([BY_KEY["obd_standard"]], 1_000)
    schedule.asked(schedule.due(0), 0)
    assert schedule.due(10**9) == []
    schedule.unanswered([BY_KEY["obd_standard"], BY_KEY["rpm"]][:1], 0)
    assert schedule.due(29_999) == []
    assert len(schedule.due(30_000)) == 1


def test_a_value_is_stale_after_three_periods_of_its_tier() -> None:
    schedule = Schedule(OBD_SIGNALS, 2_000)
    ages = [schedule.stale_ms(BY_KEY[key]) for key in ("rpm", "fuel_pressure", "temp", "obd_standard")]
    assert ages == [6_000, 15_000, 90_000, None]
