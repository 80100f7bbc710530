"""The uplink's promises, held by a machine that does to it whatever may happen, and a few of them one by one."""

import random
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from components.edge.uplink import Uplink

SPREAD_S = 30.0
JOIN_SPREAD_S = 5.0
LONGEST_S = 900.0
"""Ten minutes and the jitter's half."""


class Everything(RuleBasedStateMachine):
    """A model beside the uplink: what is kept, what has been published, what the server said."""

    @initialize(window=st.integers(1, 16), seed=st.integers(0, 99))
    def begin(self, window: int, seed: int) -> None:
        self.window = window
        self.uplink = Uplink(SPREAD_S, random.Random(seed).random, window)  # noqa: S311 - jitter
        self.now = 100.0
        self.joined = self.closing = False
        self.open_by = 0.0
        self.last_seq = 0
        self.kept: set[int] = set()
        self.published_at: dict[int, float] = {}
        self.not_before: dict[int, float] = {}
        self.again_by: dict[int, float] = {}
        self.later_by: dict[int, float] = {}
        self.signs: dict[int, int] = {}
        self.back_by: dict[int, float] = {}

    def take(self, due: list[int]) -> None:
        assert len(due) == len(set(due)), "published twice at once"
        assert self.joined or not due, "published without a session"
        for seq in due:
            assert seq in self.kept, "published what is settled, or was never there"
            assert self.not_before.pop(seq, 0.0) <= self.now, "before the server wants it"
            self.later_by.pop(seq, None)
            self.back_by.pop(seq, None)
            self.published_at[seq] = self.now
            self.again_by[seq] = self.now + LONGEST_S

    @rule(count=st.integers(1, 30), fresh=st.booleans())
    def packets_are_kept(self, count: int, fresh: bool) -> None:
        new = range(self.last_seq + 1, self.last_seq + count + 1)
        self.last_seq += count
        self.kept |= set(new)
        self.take(self.uplink.kept(new, self.now, fresh=fresh))

    @rule(data=st.data(), fresh=st.booleans())
    @precondition(lambda self: self.kept)
    def a_packet_is_told_of_again(self, data: st.DataObject, fresh: bool) -> None:
        seq = data.draw(st.sampled_from(sorted(self.kept)))
        flights = dict(self.published_at)
        self.take(self.uplink.kept([seq], self.now, fresh=fresh))
        assert all(self.published_at[one] == at for one, at in flights.items())

    @rule()
    def the_router_is_there(self) -> None:
        self.joined = True
        self.signs.clear()
        self.open_by = self.now + JOIN_SPREAD_S
        for seq in self.published_at:
            self.again_by[seq] = max(self.open_by, self.later_by.get(seq, 0.0))
        self.take(self.uplink.joined(self.now))

    @rule()
    def the_router_is_gone(self) -> None:
        self.joined = False
        self.uplink.left()

    @rule(data=st.data(), anything=st.booleans())
    @precondition(lambda self: self.kept)
    def receipts_come(self, data: st.DataObject, anything: bool) -> None:
        # A receipt may be for a packet that this run of the agent has not published: the last one has.
        of = sorted(self.kept if anything or not self.published_at else self.published_at)
        seqs = data.draw(st.lists(st.sampled_from(of), min_size=1, max_size=3))
        for seq in seqs:
            self.kept.discard(seq)
            published = self.published_at.pop(seq, None)
            for known in (self.not_before, self.again_by, self.later_by, self.back_by):
                known.pop(seq, None)
            for other, at in self.published_at.items():
                wait_s = min(10 * 2 ** self.signs.get(other, 0), 600)
                if published is not None and at < published and self.now - at >= wait_s:
                    self.signs[other] = self.signs.get(other, 0) + 1
                    hurried = max(self.now + 2, self.open_by, self.later_by.get(other, 0.0))
                    self.again_by[other] = min(self.again_by[other], hurried)
        self.take(self.uplink.settled(seqs, self.now))

    @rule(data=st.data(), after_s=st.integers(0, 3600))
    @precondition(lambda self: self.published_at)
    def the_server_says_later(self, data: st.DataObject, after_s: int) -> None:
        seq = data.draw(st.sampled_from(sorted(self.published_at)))
        self.not_before[seq] = self.now + after_s
        self.again_by[seq] = self.later_by[seq] = self.now + max(after_s, 1) * 1.5
        self.take(self.uplink.retry(seq, after_s, self.now))

    @rule(data=st.data(), after_s=st.integers(0, 3600))
    @precondition(lambda self: self.published_at)
    def the_server_cannot_open_one(self, data: st.DataObject, after_s: int) -> None:
        seq = data.draw(st.sampled_from(sorted(self.published_at)))
        for known in (self.published_at, self.again_by, self.later_by):
            known.pop(seq, None)
        self.signs.pop(seq, None)
        self.not_before[seq] = self.now + after_s
        self.back_by[seq] = self.now + max(after_s, 600) * 1.5
        self.take(self.uplink.put_back(seq, after_s, self.now))

    @rule(data=st.data())
    @precondition(lambda self: self.published_at)
    def the_router_does_not_take_one(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(sorted(self.published_at)))
        self.take(self.uplink.failed(seq, self.now))
        self.published_at[seq] = self.now

    @rule()
    def the_agent_ends(self) -> None:
        self.closing = True
        self.take(self.uplink.closing(self.now))

    @rule(seconds=st.floats(0.01, 400))
    def time_passes(self, seconds: float) -> None:
        wake_at = self.uplink.wake_at()
        if wake_at is None or wake_at > self.now + seconds:
            self.now += seconds
            assert not self.uplink.woke(self.now) or not self.joined, "woke without an alarm"
            return
        self.now = wake_at
        due = self.uplink.woke(self.now)
        assert due, "an alarm for nothing"
        self.take(due)

    @invariant()
    def the_window_holds(self) -> None:
        if hasattr(self, "uplink"):
            assert len(self.published_at) <= self.window

    @invariant()
    def it_is_idle_when_all_have_receipts(self) -> None:
        if hasattr(self, "uplink"):
            assert self.uplink.idle == (not self.kept)

    @invariant()
    def it_wakes_when_there_is_something_to_do_and_never_in_the_past(self) -> None:
        if not hasattr(self, "uplink"):
            return
        wake_at = self.uplink.wake_at()
        if not self.joined or not self.kept:
            assert wake_at is None
            return
        assert wake_at is not None
        assert wake_at > self.now
        if len(self.published_at) < self.window:
            for seq, by in self.back_by.items():
                assert wake_at <= max(by, self.open_by), f"{seq} is forgotten where it was put back"
        if len(self.published_at) < min(self.window, len(self.kept) - len(self.back_by)):
            assert not self.closing, "waits for the sake of others while the agent ends"
            assert wake_at <= self.now + SPREAD_S
        for seq, by in self.again_by.items():
            assert wake_at <= by, f"{seq} is published again too late"

    def teardown(self) -> None:
        """Whatever has happened: with a router and a server, everything is delivered."""
        if not hasattr(self, "uplink"):
            return
        self.the_router_is_there()
        for _ in range(3 * self.last_seq + 100):
            if not self.kept:
                break
            wake_at = self.uplink.wake_at()
            assert wake_at is not None
            self.now = wake_at
            self.take(self.uplink.woke(self.now))
            for seq in sorted(self.published_at):
                if self.published_at[seq] == self.now:
                    self.kept.discard(seq)
                    del self.published_at[seq]
                    for known in (self.again_by, self.later_by):
                        known.pop(seq, None)
                    self.take(self.uplink.settled([seq], self.now))
        assert self.uplink.idle


Everything.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestEverything = Everything.TestCase


def middle() -> float:
    return 0.5


def joined(window: int = 4, spread_s: float = 0.0, rand: Callable[[], float] = middle) -> Uplink:
    uplink = Uplink(spread_s, rand, window)
    uplink.joined(0.0)
    return uplink


def test_of_a_backlog_every_fourth_packet_is_the_newest_and_the_others_are_the_oldest() -> None:
    uplink = joined(window=1)
    served = uplink.kept(range(1, 13), 0.0, fresh=False)
    for second in range(1, 12):
        served += uplink.settled(served[-1:], float(second))
    assert served == [1, 2, 3, 12, 4, 5, 6, 11, 7, 8, 9, 10]


def test_a_packet_without_a_receipt_is_published_again_after_ten_seconds_doubling_to_ten_minutes() -> None:
    uplink = joined()
    assert uplink.kept([1], 0.0, fresh=False) == [1]
    now, waits = 0.0, []
    for _ in range(9):
        at = uplink.wake_at()
        assert at is not None
        waits.append(at - now)
        now = at
        assert uplink.woke(now) == [1]
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600, 600]


def test_a_receipt_makes_what_was_published_ten_seconds_before_it_due_within_two() -> None:
    uplink = joined()
    uplink.kept([1], 0.0, fresh=False)
    assert uplink.woke(10.0) == [1]
    uplink.kept([2, 3], 15.0, fresh=False)
    uplink.settled([2], 19.9)
    assert uplink.wake_at() == 25.0
    uplink.settled([3], 20.0)
    assert uplink.wake_at() == 21.0
    assert uplink.woke(21.0) == [1]


def test_what_never_gets_a_receipt_is_not_published_at_each_receipt_of_the_others() -> None:
    uplink = joined()
    uplink.kept([1], 0.0, fresh=False)
    published = []
    for second in range(1, 3600):
        due = uplink.kept([second + 1], float(second), fresh=False) + uplink.settled([second + 1], second + 0.5)
        published += [second for seq in due + uplink.woke(second + 0.5) if seq == 1]
    pauses = [after - before for before, after in pairwise(published)]
    assert pauses[:5] == sorted(pauses[:5])
    assert all(300 <= pause <= 602 for pause in pauses[6:])


def test_receipts_that_take_seconds_and_come_in_any_order_make_nothing_due_again() -> None:
    uplink, now = joined(), 0.0
    published = uplink.kept(range(1, 101), now, fresh=False)
    waiting = list(published)
    while waiting:
        now += 1.0
        new = uplink.settled([waiting.pop(min(int(now) % 2, len(waiting) - 1))], now) + uplink.woke(now)
        published += new
        waiting += new
    assert sorted(published) == list(range(1, 101))


def test_in_a_new_session_the_timers_begin_anew_for_the_server_may_come_after_the_router() -> None:
    uplink, now = joined(), 0.0
    uplink.kept(range(1, 5), now, fresh=False)
    for _ in range(20):
        now = uplink.wake_at() or 0.0
        uplink.woke(now)
    uplink.left()
    assert uplink.joined(now + 1) == [1, 2, 3, 4]
    assert uplink.wake_at() == now + 11


def test_in_a_new_session_a_receipt_is_a_sign_of_life_after_ten_seconds_again() -> None:
    uplink = joined()
    uplink.kept([1], 0.0, fresh=False)
    uplink.woke(10.0)
    uplink.kept([2], 20.0, fresh=False)
    uplink.settled([2], 21.0)
    assert uplink.woke(22.0) == [1]
    uplink.joined(30.0)
    uplink.woke(40.0)
    uplink.kept([3], 50.0, fresh=False)
    uplink.settled([3], 51.0)
    assert uplink.wake_at() == 52.0


def test_a_receipt_says_nothing_about_what_was_published_after_it() -> None:
    uplink = joined()
    uplink.kept([1], 0.0, fresh=False)
    uplink.kept([2], 5.0, fresh=False)
    assert uplink.woke(10.0) == [1]
    assert uplink.woke(15.0) == [2]
    uplink.settled([1], 27.0)
    assert uplink.wake_at() == 35.0


def test_when_the_server_says_later_neither_a_receipt_nor_a_new_session_makes_it_sooner() -> None:
    uplink = joined()
    uplink.kept([1], 0.0, fresh=False)
    uplink.retry(1, 100, 1.0)
    uplink.kept([2], 5.0, fresh=False)
    uplink.settled([2], 6.0)
    assert uplink.wake_at() == 126.0
    uplink.left()
    assert uplink.joined(10.0) == []
    assert uplink.woke(126.0) == [1]


def test_a_server_that_says_at_once_is_not_asked_in_a_circle() -> None:
    uplink = joined()
    uplink.kept([1], 0.0, fresh=False)
    assert uplink.retry(1, 0, 1.0) == []
    assert uplink.wake_at() == 2.25


def test_packets_that_are_put_back_leave_the_window_to_the_others_and_come_again_ever_later() -> None:
    uplink = joined()
    assert uplink.kept(range(1, 10), 0.0, fresh=False) == [1, 2, 3, 9]
    served = [seq for stale in (1, 2, 3, 9) for seq in uplink.put_back(stale, 5.0, 1.0)]
    assert served == [4, 5, 6, 8]
    uplink.settled([*served, 7], 2.0)
    assert (uplink.in_flight, uplink.idle) == (0, False)
    waits, now = [], 1.0
    for _ in range(9):
        at = uplink.wake_at()
        assert at is not None
        waits.append(at - now)
        now = at
        for seq in uplink.woke(now):
            uplink.put_back(seq, 5.0, now)
    assert waits == [12.5, 25.0, 50.0, 100.0, 200.0, 400.0, 750.0, 750.0, 750.0]
    assert uplink.settled([1, 2, 3], now) == []
    assert not uplink.idle
    uplink.settled([9], now)
    assert uplink.idle


def test_what_is_put_back_waits_as_long_as_the_server_wants_and_the_agents_end_makes_it_no_sooner() -> None:
    uplink = joined()
    uplink.kept([1], 0.0, fresh=False)
    assert uplink.put_back(1, 100.0, 1.0) == []
    assert uplink.put_back(1, 100.0, 1.0) == [], "it is not in flight"
    assert uplink.closing(2.0) == []
    assert uplink.wake_at() == 126.0
    assert uplink.woke(126.0) == [1]


def test_a_fresh_packet_waits_so_that_a_fleet_does_not_publish_at_once_and_one_found_does_not() -> None:
    uplink = joined(spread_s=30.0)
    assert uplink.kept([1], 10.0, fresh=True) == []
    assert uplink.wake_at() == 25.0
    assert uplink.kept([2], 11.0, fresh=False) == [2]
    assert uplink.closing(12.0) == [1]
    assert uplink.kept([3], 13.0, fresh=True) == [3]


def test_a_session_begins_with_a_wait_so_that_a_fleet_that_lost_its_router_does_not_come_back_at_once() -> None:
    uplink = joined(spread_s=30.0)
    assert uplink.kept([1], 1.0, fresh=False) == []
    assert uplink.wake_at() == 2.5
    assert uplink.woke(2.5) == [1]
    uplink.left()
    assert uplink.joined(4.0) == []
    assert uplink.wake_at() == 6.5
    assert uplink.settled([7], 5.0) == []
    assert uplink.woke(6.5) == [1]


def test_an_agent_that_ends_before_its_first_session_publishes_nothing_until_that_is_there_and_then_at_once() -> None:
    uplink = Uplink(30.0, middle)
    assert uplink.kept([1], 1.0, fresh=True) == []
    assert uplink.closing(1.5) == []
    assert uplink.woke(20.0) == []
    assert uplink.joined(20.5) == [1]


def test_an_agent_that_ends_does_not_wait_at_the_beginning_of_a_session_either() -> None:
    uplink = joined(spread_s=30.0)
    uplink.kept([1], 1.0, fresh=False)
    assert uplink.closing(1.5) == [1]
    uplink.left()
    assert uplink.joined(2.0) == [1]


@pytest.mark.parametrize("fresh", [True, False])
def test_a_backlog_of_a_fortnight_costs_microseconds_a_packet(fresh: bool) -> None:
    count = 21_600
    uplink = joined(spread_s=30.0, rand=random.Random(1).random)  # noqa: S311 - jitter
    began = time.process_time()
    served = uplink.kept(range(1, count + 1), 0.0, fresh=fresh)
    served += uplink.woke(31.0)
    now = 31.0
    while not uplink.idle:
        now += 0.01
        uplink.wake_at()
        served += uplink.settled([served[-1]], now)
        served += uplink.settled(set(served[-8:]), now)
    assert set(served) == set(range(1, count + 1))
    # Before: 0.5 ms a packet. Generous, as this may run on anything.
    assert time.process_time() - began < 5
