"""Many packets of one car, and few packets of many cars: who waits for whom. The uplink alone, against a model."""

from collections import Counter, deque
from heapq import heappop, heappush
from random import Random
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from components.cloud.persister import RETRY_AFTER_S
from components.edge.uplink import Uplink

CARS: Final = 200
SPREAD_S: Final = 30.0
RECONNECT_S: Final = (0.7, 1.3)
"""When Autobahn is back: after 1 s, normally distributed by a tenth; drawn evenly here."""


@settings(max_examples=60, deadline=None)
@given(data=st.data(), window=st.integers(1, 16), backlog=st.integers(20, 120))
def test_while_a_backlog_drains_a_live_packet_waits_for_three_others_and_the_oldest_for_one(
    data: st.DataObject, window: int, backlog: int
) -> None:
    uplink = Uplink(0.0, lambda: 0.5, window)
    uplink.joined(0.0)
    waiting = set(range(1, backlog + 1))
    begun = uplink.kept(waiting, 0.0, fresh=False)
    order = list(begun)
    newest, now, live = backlog, 0.0, dict[int, int]()
    while waiting:
        now += 0.01
        done = data.draw(st.sampled_from(begun))
        begun.remove(done)
        waiting.discard(done)
        new = uplink.settled([done], now)
        if newest < backlog + 5 and data.draw(st.integers(0, 4)) == 0:
            newest += 1
            waiting.add(newest)
            live[newest] = len(order) + len(new)
            new += uplink.kept([newest], now, fresh=True)
        begun += new
        order += new
        assert len(begun) <= window
    assert sorted(order) == list(range(1, newest + 1))
    for seq, at in live.items():
        younger = sum(other > seq for other in live)
        assert order.index(seq) - at <= 3 + 4 * younger, "what is live waits for the backlog"
    for at in range(len(order) - 1):
        oldest = min(order[at:])
        assert oldest in order[at : at + 2], "two in a row were not the oldest"


class Fleet:
    """Cars that lost their router at one moment; a persister of so many packets a second, before which so many wait."""

    def __init__(self, seed: int, packets: int, queue: int, rate_hz: float) -> None:
        self._random = Random(seed)  # noqa: S311 - jitter
        self._queue_most, self._every_s = queue, 1 / rate_hz
        self._queue: deque[tuple[int, int]] = deque()
        self._agenda: list[tuple[float, int, str, int]] = []
        self.cars = [Uplink(SPREAD_S, self._random.random) for _ in range(CARS)]
        self.published: list[tuple[float, int, int]] = []
        self.stored: set[tuple[int, int]] = set()
        self.refused = 0
        for number, car in enumerate(self.cars):
            car.kept(range(1, packets + 1), 0.0, fresh=False)
            self._at(self._random.uniform(*RECONNECT_S), "joined", number)
        self._at(0.0, "serves", 0)

    def run(self, until_s: float) -> float:
        """Let time pass until every packet has its receipt; return when that was."""
        while self._agenda:
            now, _, what, number = heappop(self._agenda)
            assert now < until_s, f"{len(self.stored)} are stored after {now:.0f} s"
            if what == "serves":
                self._serve(now)
                if all(car.idle for car in self.cars):
                    return now
                self._at(now + self._every_s, "serves", 0)
                continue
            car = self.cars[number]
            self._publish(number, car.joined(now) if what == "joined" else car.woke(now), now)
        raise AssertionError("nothing left to happen")

    def _publish(self, number: int, seqs: list[int], now: float) -> None:
        for seq in seqs:
            self.published.append((now, number, seq))
            if len(self._queue) < self._queue_most:
                self._queue.append((number, seq))
            else:
                self.refused += 1
                self._publish(number, self.cars[number].retry(seq, RETRY_AFTER_S, now), now)
        wake_at = self.cars[number].wake_at()
        if wake_at is not None:
            self._at(wake_at, "woke", number)

    def _serve(self, now: float) -> None:
        if self._queue:
            number, seq = self._queue.popleft()
            self.stored.add((number, seq))
            self._publish(number, self.cars[number].settled([seq], now), now)

    def _at(self, when: float, what: str, number: int) -> None:
        heappush(self._agenda, (when, len(self._agenda), what, number))


def test_two_hundred_cars_that_lost_their_router_come_back_one_after_the_other() -> None:
    fleet = Fleet(1, packets=3, queue=1024, rate_hz=300)
    took_s = fleet.run(60)
    first: dict[int, float] = {}
    for at, number, _ in fleet.published:
        first.setdefault(number, at)
    tenths = Counter(int(at * 10) for at in first.values())
    assert len(first) == CARS
    assert max(tenths.values()) <= CARS // 10, "a tenth of a second has a tenth of them at most: 4 on average"
    assert max(first.values()) - min(first.values()) > 4
    assert (fleet.refused, len(fleet.published)) == (0, 3 * CARS)
    assert took_s < 15


def test_a_persister_whose_queue_is_full_is_not_asked_again_by_all_at_once() -> None:
    fleet = Fleet(2, packets=8, queue=50, rate_hz=100)
    took_s = fleet.run(200)
    assert len(fleet.stored) == 8 * CARS
    assert fleet.refused > 100
    # Without a refusal it would be 16 s of work; each refused packet costs one more publication, and no storm.
    assert took_s < 120
    assert len(fleet.published) < 4 * len(fleet.stored)
    busiest = Counter(int(at) for at, _, _ in fleet.published)
    assert max(busiest.values()) <= 2 * CARS
