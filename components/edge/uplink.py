"""What to publish, await, publish again and forget: a machine without I/O. Pure.

Events come in as method calls in the past tense, with the time (`now`, seconds of elapsed time); each returns the seqs
to publish now. `wake_at` tells when `woke` wants to be called next.

==========  =======================================================================================================
waiting     has no receipt; may be published once its time has come and the window has room
in flight   published, or being so; takes a place in the window until its receipt comes, and is published again when
            its timer ends: 10 s doubling to 10 min, each drawn between half and one and a half, without end
==========  =======================================================================================================

A receipt is a sign of life: what was published before the receipted packet is due again within 2 s, so that one long
timer does not hold the window after an outage. PUBLISHED from the router means nothing here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

WINDOW: Final = 4
_FIRST_TIMER_S: Final = 10.0
_LONGEST_TIMER_S: Final = 600.0
_SIGN_OF_LIFE_S: Final = 2.0
_LIVE_EVERY: Final = 4
"""Of so many packets of a backlog one is the newest, for the live view; the others are the oldest."""


@dataclass(slots=True)
class _Flight:
    published_at: float
    again_at: float
    attempts: int


class Uplink:
    """The packets of one outbox on their way.

    Args:
        spread_s: A fresh packet waits a random time up to this, so that a fleet does not publish at :00.
        random: Uniform in [0, 1).
    """

    def __init__(self, spread_s: float, random: Callable[[], float], window: int = WINDOW) -> None:
        self._spread_s = spread_s
        self._random = random
        self._window = window
        self._joined = False
        self._closing = False
        self._turn = 0
        self._waiting: dict[int, float] = {}
        self._flights: dict[int, _Flight] = {}

    @property
    def idle(self) -> bool:
        """Whether every packet has its receipt."""
        return not self._waiting and not self._flights

    def kept(self, seqs: Iterable[int], now: float, *, fresh: bool) -> list[int]:
        """Packets are in the outbox: `fresh` ones just made, others found there at the start."""
        for seq in seqs:
            self._waiting[seq] = now + (self._spread_s * self._random() if fresh and not self._closing else 0.0)
        return self._due(now)

    def joined(self, now: float) -> list[int]:
        """The session with the router is there; receipts may have been missed meanwhile."""
        self._joined = True
        for flight in self._flights.values():
            flight.again_at = now
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
            self._waiting.pop(seq, None)
            if settled := self._flights.pop(seq, None):
                for flight in self._flights.values():
                    if flight.published_at < settled.published_at:
                        flight.again_at = min(flight.again_at, now + _SIGN_OF_LIFE_S * self._random())
        return self._due(now)

    def retry(self, seq: int, after_s: float, now: float) -> list[int]:
        """A `retry` receipt: not before that many seconds."""
        if flight := self._flights.get(seq):
            flight.again_at = now + after_s * (1 + self._random() / 2)
        return self._due(now)

    def closing(self, now: float) -> list[int]:
        """The agent ends soon: no more waiting for the sake of others."""
        self._closing = True
        for seq in self._waiting:
            self._waiting[seq] = now
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
            times += self._waiting.values()
        return min(times, default=None)

    def _due(self, now: float) -> list[int]:
        if not self._joined:
            return []
        due = [seq for seq, flight in self._flights.items() if flight.again_at <= now]
        while len(self._flights) < self._window and (seq := self._next(now)) is not None:
            del self._waiting[seq]
            self._flights[seq] = _Flight(now, now, 0)
            due.append(seq)
        for seq in due:
            flight = self._flights[seq]
            timer = min(_FIRST_TIMER_S * 2**flight.attempts, _LONGEST_TIMER_S)
            flight.published_at, flight.again_at = now, now + timer * (0.5 + self._random())
            # Bounded, so that 2**attempts stays a float after a year without a persister.
            flight.attempts = min(flight.attempts + 1, 16)
        return due

    def _next(self, now: float) -> int | None:
        ready = [seq for seq, not_before in self._waiting.items() if not_before <= now]
        if not ready:
            return None
        self._turn += 1
        return max(ready) if self._turn % _LIVE_EVERY == 0 else min(ready)
