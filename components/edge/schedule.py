"""Which signals are due, the most overdue first. Pure.

Tiers (wire.signals): F every pass, M about every 5 s, S every 30 s, O once a session. The first pass asks everything;
after that the M and S signals are dealt out over their period like cards, one moment each, so that no pass carries
them all. What a pass had no time for stays due and is more overdue in the next one: nothing starves.
"""

import math
from collections.abc import Iterable, Sequence

from components.wire.signals import Signal

PERIOD_MS = {"M": 5_000, "S": 30_000}
"""Of the tiers that have one; F's is the pass itself, O has none."""


class Schedule:
    """What to ask of one car in one session.

    Args:
        signals: What the car has, in the catalogue's order.
        pass_ms: The sampling period: how often `due` is called, about.
    """

    def __init__(self, signals: Sequence[Signal], pass_ms: int) -> None:
        self._signals = tuple(signals)
        self._period_ms = {"F": pass_ms, **{tier: max(pass_ms, ms) for tier, ms in PERIOD_MS.items()}}
        self._pass_ms = pass_ms
        self._due_ms: dict[str, float] = dict.fromkeys((signal.key for signal in self._signals), -math.inf)
        self._offset_ms: dict[str, int] = {}
        for tier in PERIOD_MS:
            members = [signal.key for signal in self._signals if signal.tier == tier]
            for place, key in enumerate(members):
                self._offset_ms[key] = self._period_ms[tier] * place // len(members)

    def due(self, at_ms: int) -> list[Signal]:
        """Return the signals to ask now, the most overdue (in periods of its tier) first; may be empty."""
        due = [signal for signal in self._signals if self._due_ms[signal.key] <= at_ms]
        return sorted(due, key=lambda signal: (self._due_ms[signal.key] - at_ms) / self._period_ms.get(signal.tier, 1))

    def asked(self, signals: Iterable[Signal], at_ms: int) -> None:
        """Note that these were asked at `at_ms` (whatever came back), so that each gets its next moment.

        A signal of tier O is not asked again. F is due at once: the caller's passes are its clock.
        """
        for signal in signals:
            self._due_ms[signal.key] = self._next_ms(signal, at_ms)

    def unanswered(self, signals: Iterable[Signal], at_ms: int) -> None:
        """Note that these, of tier O, gave no value: they are asked again after the period of tier S."""
        for signal in signals:
            if signal.tier == "O":
                self._due_ms[signal.key] = at_ms + PERIOD_MS["S"]

    def stale_ms(self, signal: Signal) -> int | None:
        """Return the age past which this signal's value is too old to show: three periods; None for tier O.

        What is asked once a session does not change in it, so its value holds as long as the connection does.
        """
        period_ms = self._period_ms.get(signal.tier)
        return None if period_ms is None else 3 * period_ms

    def _next_ms(self, signal: Signal, at_ms: int) -> float:
        period_ms = self._period_ms.get(signal.tier)
        if period_ms is None:
            return math.inf
        if period_ms <= self._pass_ms:
            return at_ms + 1
        offset_ms = self._offset_ms[signal.key]
        # The next moment of this signal's own comb that is more than half a period away.
        earliest_ms = at_ms + period_ms // 2
        return earliest_ms + (offset_ms - earliest_ms) % period_ms
