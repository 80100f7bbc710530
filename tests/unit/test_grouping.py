"""What one request may hold, and what is learnt of its answer."""

from collections.abc import Sequence

import pytest

from components.edge.grouping import Grouping, Request
from components.edge.obd_parser import Bus
from components.wire.signals import BY_KEY, OBD_SIGNALS, Signal

ALL = frozenset(signal.pid or 0 for signal in OBD_SIGNALS)
ENGINE = {"7E8": ALL}


def requests(grouping: Grouping, signals: Sequence[Signal]) -> list[Request]:
    made = []
    while signals:
        made.append(request := grouping.request(signals))
        signals = [signal for signal in signals if signal not in request.signals]
    return made


def sizes(grouping: Grouping) -> list[int]:
    return [len(request.signals) for request in requests(grouping, OBD_SIGNALS)]


def test_36_items_are_six_requests_in_as_few_lines_as_there_can_be() -> None:
    made = requests(Grouping(Bus("6"), ENGINE), OBD_SIGNALS)
    assert [len(request.signals) for request in made] == [6] * 6
    assert sum(sum(request.lines) for request in made) == 14
    assert sorted(signal.key for request in made for signal in request.signals) == sorted(
        signal.key for signal in OBD_SIGNALS
    )


def test_the_most_urgent_is_in_the_first_request() -> None:
    urgent = [*OBD_SIGNALS[20:], *OBD_SIGNALS[:20]]
    assert OBD_SIGNALS[20] in Grouping(Bus("6"), ENGINE).request(urgent).signals


def test_what_two_ecus_answer_stands_together_and_both_are_counted() -> None:
    grouping = Grouping(Bus("6"), {"7E8": ALL, "7E9": frozenset({0x01, 0x0D})})
    made = requests(grouping, OBD_SIGNALS)
    assert sum(len(request.lines) for request in made) == 7
    assert len(made) == 6


def test_older_buses_are_asked_one_by_one() -> None:
    assert set(sizes(Grouping(Bus("3"), {"10": ALL}))) == {1}


def test_the_count_is_given_when_it_was_seen_to_come_out_and_not_before() -> None:
    grouping = Grouping(Bus("6"), ENGINE)
    first = grouping.request([BY_KEY["rpm"], BY_KEY["speed"]])
    assert first.command == "010C0D"
    assert not grouping.heard(first, (), "", 1)
    assert grouping.is_counted
    assert grouping.request([BY_KEY["rpm"], BY_KEY["speed"]]).command == "010C0D1"
    other = grouping.request(OBD_SIGNALS)
    assert not other.is_counted  # three lines were not seen yet
    assert not grouping.heard(other, (), "", sum(other.lines) + 1)
    assert not grouping.request(OBD_SIGNALS).is_counted


def test_a_count_that_cuts_is_learnt_again_and_given_up_after_three_times() -> None:
    grouping = Grouping(Bus("6"), ENGINE)
    rpm = [BY_KEY["rpm"]]
    for _ in range(3):
        assert not grouping.heard(grouping.request(rpm), (), "", 1)
        counted = grouping.request(rpm)
        assert counted.is_counted
        assert list(grouping.heard(counted, rpm, "no_data", 1)) == rpm  # an answer, but not the right line
        assert not grouping.request(rpm).is_counted
    assert not grouping.heard(grouping.request(rpm), (), "", 1)
    assert not grouping.request(rpm).is_counted


def test_a_count_is_not_blamed_for_an_answer_that_is_shorter() -> None:
    grouping = Grouping(Bus("6"), ENGINE)
    rpm = [BY_KEY["rpm"]]
    grouping.heard(grouping.request(rpm), (), "", 1)
    assert not grouping.heard(grouping.request(rpm), rpm, "no_data", 0)
    assert grouping.request(rpm).is_counted


@pytest.mark.parametrize("why", ["no_data", "negative_response", "adapter_error", "truncated"])
def test_a_group_that_is_refused_is_doubted_and_smaller_when_one_of_it_answers_alone(why: str) -> None:
    grouping = Grouping(Bus("6"), ENGINE)
    group = grouping.request(OBD_SIGNALS)
    again = grouping.heard(group, group.signals, why, 0)
    assert list(again) == list(group.signals)
    alone = grouping.request(list(again))
    assert len(alone.signals) == 1
    assert not grouping.heard(alone, (), "", 1)
    assert grouping.size == 3
    assert max(sizes(grouping)) == 3


def test_what_does_not_answer_alone_either_is_silent_and_the_group_stays() -> None:
    grouping = Grouping(Bus("6"), ENGINE)
    group = grouping.request(OBD_SIGNALS)
    missing = group.signals[2:3]
    assert list(grouping.heard(group, missing, "no_data", 2)) == list(missing)
    alone = grouping.request(list(missing))
    assert not grouping.heard(alone, missing, "no_data", 0)
    assert grouping.size == 6
    assert grouping.silent == {missing[0].key}
    assert all(missing[0] not in request.signals or len(request.signals) == 1
               for request in requests(grouping, OBD_SIGNALS))  # fmt: skip
    assert not grouping.heard(grouping.request(list(missing)), (), "", 1)
    assert grouping.silent == set()


def test_a_proven_group_is_not_doubted_for_a_bad_moment() -> None:
    grouping = Grouping(Bus("6"), ENGINE)
    assert not grouping.heard(grouping.request(OBD_SIGNALS), (), "", 9)
    group = grouping.request(OBD_SIGNALS)
    assert not grouping.heard(group, group.signals, "no_data", 0)
    assert not grouping.heard(group, group.signals, "timeout", 0)
    assert not grouping.heard(group, group.signals, "adapter_error", 0)
    assert grouping.size == 6


def test_a_proven_group_that_does_not_come_whole_is_asked_again_as_it_is() -> None:
    grouping = Grouping(Bus("6"), ENGINE)
    assert not grouping.heard(grouping.request(OBD_SIGNALS), (), "", 9)
    group = grouping.request(OBD_SIGNALS)
    again = grouping.heard(group, group.signals[:2], "truncated", 3)
    assert grouping.request(tuple(again)) == group


def test_a_length_that_silences_the_adapter_is_given_up_step_by_step() -> None:
    grouping = Grouping(Bus("6"), ENGINE)
    seen = []
    for _ in range(4):
        seen.append(grouping.size)
        group = grouping.request(OBD_SIGNALS)
        grouping.heard(group, group.signals, "timeout", 0)
    assert seen == [6, 3, 2, 1]


def test_a_group_that_is_cut_short_again_and_again_is_doubted_though_others_work() -> None:
    grouping = Grouping(Bus("6"), ENGINE)
    small = grouping.request(OBD_SIGNALS[3:9])
    assert not grouping.heard(small, (), "", 9)
    group = grouping.request(OBD_SIGNALS)
    assert group.lines != small.lines
    for _ in range(2):
        assert grouping.heard(group, group.signals, "truncated", 2) == group.signals
        assert grouping.request(group.signals) == group
    assert grouping.heard(group, group.signals, "truncated", 2) == group.signals
    assert grouping.request(group.signals).signals == group.signals[:1]
