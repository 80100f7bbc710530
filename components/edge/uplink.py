"""What to publish, await, publish again and forget: a machine without I/O. Pure.

Events come in as method calls in the past tense, with the time (`now`, seconds of elapsed time); each returns the seqs
to publish now. `wake_at` tells when `woke` wants to be called next.

==========  =======================================================================================================
waiting     has no receipt; `soon` until its time has come, then `ready` until the window has room
in flight   published, or being so; takes a place in the window until its receipt comes, and is published again when
            its timer ends: 10 s doubling to 10 min, each drawn between half and one and a half, without end
==========  =======================================================================================================

A receipt is a sign of life: what was published before the receipted packet, and 10 s ago at least, is due again within
2 s, so that one long timer does not hold the window after an outage. Those 10 s double each time, up to 10 min: what
never gets its receipt is not published at each receipt of the others. A new session makes all due, their timers at
10 s again. A `retry` receipt stands above both: the server said when. PUBLISHED from the router means nothing here.

A packet that the server cannot open, and that cannot be sealed again, is put back: it waits, out of the window, as long
as the server said, and 10 s at least that double each time to 10 min. So a few of these never keep the others waiting.

Each session begins with a random wait of up to 5 s, so that a fleet that lost its router does not publish all at once
when it is back. Of a backlog every fourth packet is the newest, for the live view; the others are the oldest.
"""

from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

WINDOW: Final = 4
_FIRST_TIMER_S: Final = 10.0
_LONGEST_TIMER_S: Final = 600.0
_SIGN_OF_LIFE_S: Final = 2.0
_SHORTEST_RETRY_S: Final = 1.0
_LIVE_EVERY: Final = 4
"""Of so many packets of a backlog one is the newest, for the live view; the others are the oldest."""
_JOIN_SPREAD_S: Final = 5.0


@dataclass(slots=True)
class _Flight:
    published_at: float
    again_at: float
    attempts: int = 0
    signs: int = 0
    not_before: float = 0.0

    def hurry(self, at: float) -> None:
        """Be due at `at`, or before if it already is; not before the server wants it."""
        self.again_at = max(min(self.again_at, at), self.not_before)


class Uplink:
    """The packets of one outbox on their way.

    Args:
        spread_s: A fresh packet waits a random time up to this, so that a fleet does not publish at :00; the wait of a
            session is not longer either.
        random: Uniform in [0, 1).
    """

    def __init__(self, spread_s: float, random: Callable[[], float], window: int = WINDOW) -> None:
        self._spread_s = spread_s
        self._random = random
        self._window = window
        self._joined = False
        self._closing = False
        self._open_at = 0.0
        self._turn = 0
        # Sorted, so that a backlog of a fortnight costs no search; what was settled meanwhile is skipped when its turn
        # comes.
        self._waiting: set[int] = set()
        self._soon: list[tuple[float, int]] = []
        self._ready: list[int] = []
        self._flights: dict[int, _Flight] = {}
        self._put_back: dict[int, int] = {}
        """How often, of those that were."""

    @property
    def idle(self) -> bool:
        """Whether every packet has its receipt."""
        return not self._waiting and not self._flights

    @property
    def oldest(self) -> int | None:
        """The oldest packet that has no receipt; None where every packet has its."""
        return min((*self._waiting, *self._flights), default=None)

    @property
    def in_flight(self) -> int:
        """How many are published, or being so, and have no receipt."""
        return len(self._flights)

    def kept(self, seqs: Iterable[int], now: float, *, fresh: bool) -> list[int]:
        """Packets are in the outbox: `fresh` ones just made, others found there at the start.

        What is waiting or in flight already stays as it is.
        """
        for seq in seqs:
            if seq in self._waiting or seq in self._flights:
                continue
            self._waiting.add(seq)
            spread_s = self._spread_s * self._random() if fresh and not self._closing else 0.0
            heappush(self._soon, (now + spread_s, seq))
        return self._due(now)

    def joined(self, now: float) -> list[int]:
        """The session with the router is there; receipts may have been missed meanwhile."""
        self._joined = True
        self._open_at = now if self._closing else now + self._random() * min(self._spread_s, _JOIN_SPREAD_S)
        for flight in self._flights.values():
            flight.attempts = flight.signs = 0
            flight.hurry(now)
        return self._due(now)

    def left(self) -> None:
        """The session with the router is gone; nothing is published until the next."""
        self._joined = False

    def failed(self, seq: int, now: float) -> list[int]:
        """The router did not take a publication; the flight's timer stands."""
        if flight := self._flights.get(seq):
            flight.published_at = now
        return self._due(now)

    def settled(self, seqs: Iterable[int], now: float) -> list[int]:
        """Receipts came: these are stored or rejected for ever."""
        for seq in seqs:
            self._waiting.discard(seq)
            self._put_back.pop(seq, None)
            if settled := self._flights.pop(seq, None):
                for flight in self._flights.values():
                    out_s = now - flight.published_at
                    if flight.published_at < settled.published_at and out_s >= _doubling(flight.signs):
                        flight.signs += 1
                        flight.hurry(now + _SIGN_OF_LIFE_S * self._random())
        return self._due(now)

    def retry(self, seq: int, after_s: float, now: float) -> list[int]:
        """A `retry` receipt: not before that many seconds."""
        if flight := self._flights.get(seq):
            flight.not_before = now + max(after_s, _SHORTEST_RETRY_S) * (1 + self._random() / 2)
            flight.again_at = flight.not_before
        return self._due(now)

    def put_back(self, seq: int, after_s: float, now: float) -> list[int]:
        """A `retry` receipt of a packet that will stay as it is: not before that many seconds, others go meanwhile."""
        if self._flights.pop(seq, None):
            times = self._put_back.get(seq, 0)
            self._put_back[seq] = times + 1
            self._waiting.add(seq)
            heappush(self._soon, (now + max(after_s, _doubling(times)) * (1 + self._random() / 2), seq))
        return self._due(now)

    def closing(self, now: float) -> list[int]:
        """The agent ends soon: no more waiting for the sake of others."""
        self._closing = True
        self._open_at = min(self._open_at, now)
        self._soon = sorted((at if seq in self._put_back else min(at, now), seq) for at, seq in self._soon)
        return self._due(now)

    def woke(self, now: float) -> list[int]:
        """Time has passed."""
        return self._due(now)

    def wake_at(self) -> float | None:
        """When `woke` has something to do; None while only another event can change anything."""
        if not self._joined:
            return None
        times = [flight.again_at for flight in self._flights.values()]
        if len(self._flights) < self._window:
            times += [at for at, _ in self._soon[:1]]
            if any(seq in self._waiting for seq in self._ready):
                times.append(self._open_at)
        return max(min(times), self._open_at) if times else None

    def _due(self, now: float) -> list[int]:
        while self._soon and (self._soon[0][0] <= now or self._soon[0][1] not in self._waiting):
            seq = heappop(self._soon)[1]
            if seq in self._waiting:
                insort(self._ready, seq)
        if not self._joined or now < self._open_at:
            return []
        due = [seq for seq, flight in self._flights.items() if flight.again_at <= now]
        while len(self._flights) < self._window and (seq_or_none := self._next()) is not None:
            self._flights[seq_or_none] = _Flight(now, now)
            due.append(seq_or_none)
        for seq in due:
            flight = self._flights[seq]
            flight.published_at = now
            flight.again_at = now + _doubling(flight.attempts) * (0.5 + self._random())
            flight.attempts += 1
        return due

    def _next(self) -> int | None:
        """Take the next ready packet: the oldest, and in turn the newest."""
        while self._ready:
            newest = (self._turn + 1) % _LIVE_EVERY == 0
            seq = self._ready.pop(-1 if newest else 0)
            if seq in self._waiting:
                self._waiting.remove(seq)
                self._turn += 1
                return seq
        return None


def _doubling(times: int) -> float:
    """Return 10 s doubled so many times, at most 10 min."""
    # Bounded, so that it stays a float after a year without a persister.
    return min(_FIRST_TIMER_S * 2.0 ** min(times, 16), _LONGEST_TIMER_S)
