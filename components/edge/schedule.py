"""Which signals are due, the longest due first. Pure.

Tiers (wire.signals): F every pass, M about every 5 s, S every 30 s, O once a session; a configured period replaces its
signal's tier. The first pass asks everything. After that what has a period longer than the pass is dealt out over its
period like cards, one moment each, so that no pass carries them all.

    what came of asking             when it is due again
    -----------------------------   ---------------------------------------------------------------
    a value                         F: at once (the next pass); M, S: its moment in the next period; O: never
    no value, something went wrong  as after a value, but after 5 s at the latest
    no value, the ECU has none      after 1, 2, 4, … periods, but 60 s at most (O: 30 s, then 60 s)

Nothing starves, however little fits into a pass: what had no time stays due, and who has been due longest comes first.
Where the adapter is too slow for all of F in each pass, F goes round, and M and S wait for one round at most.

A value is too old after three periods. F's period is the pass; where it goes round, it is the round, as long as that
is shorter than M's period: the car is then read as often as it can be, and a value's age says how often that is.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from components.wire.signals import Signal

_PERIOD_MS: Final = {"M": 5_000, "S": 30_000}
"""Of the tiers that have one; F's is the pass itself, O has none."""
_AGAIN_MS: Final = 5_000
_RAREST_MS: Final = 60_000


@dataclass(slots=True)
class _Turn:
    """One signal's place in the schedule.

    Attributes:
        period_ms: None: once a session.
        offset_ms: Its moment in the period.
        due_ms: When it is due.
        silences: How often in succession the ECU had no value for it.
        asked_ms: When it was last asked; None: never.
        rounds_ms: The last two times from asking it to asking it again; before there were two, M's period counts for
            each that is missing: how fast this adapter is nobody knows yet.
    """

    period_ms: int | None
    offset_ms: int = 0
    due_ms: float = -math.inf
    silences: int = 0
    asked_ms: int | None = None
    rounds_ms: tuple[int, int] = (_PERIOD_MS["M"], _PERIOD_MS["M"])


class Schedule:
    """What to ask of one car in one session.

    Args:
        signals: What to ask, in the catalogue's order.
        pass_ms: The sampling period: how often `due` is called, about.
        rates: Seconds by signal key, instead of the period of its tier; 0: every pass.
    """

    def __init__(self, signals: Sequence[Signal], pass_ms: int, rates: Mapping[str, float]) -> None:
        def period_ms(signal: Signal) -> int | None:
            if signal.key in rates:
                return max(pass_ms, round(1000 * rates[signal.key]))
            return None if signal.tier == "O" else max(pass_ms, _PERIOD_MS.get(signal.tier, 0))

        self._signals = tuple(signals)
        self._pass_ms = pass_ms
        self._turns = {signal.key: _Turn(period_ms(signal)) for signal in signals}
        for shared_ms in {turn.period_ms for turn in self._turns.values()} - {None, pass_ms}:
            dealt = [turn for turn in self._turns.values() if turn.period_ms == shared_ms]
            for place, turn in enumerate(dealt):
                turn.offset_ms = (shared_ms or 0) * place // len(dealt)

    def due(self, at_ms: int) -> list[Signal]:
        """Return the signals to ask now, the longest due first, of equals the one with the shortest period."""

        def urgency(signal: Signal) -> tuple[float, float]:
            turn = self._turns[signal.key]
            return turn.due_ms, math.inf if turn.period_ms is None else turn.period_ms

        return sorted((signal for signal in self._signals if self._turns[signal.key].due_ms <= at_ms), key=urgency)

    def answered(self, signals: Iterable[Signal], at_ms: int) -> None:
        """Note that these have a value now."""
        for turn in self._turns_of(signals):
            turn.silences = 0
            self._deal(turn, at_ms)

    def failed(self, signals: Iterable[Signal], at_ms: int) -> None:
        """Note that these were asked, and something else than the car is the reason that they have no value."""
        for turn in self._turns_of(signals):
            self._deal(turn, at_ms)
            turn.due_ms = min(turn.due_ms, at_ms + max(_AGAIN_MS, self._pass_ms))

    def silent(self, signals: Iterable[Signal], at_ms: int) -> None:
        """Note that the car was asked for these and has no value: the more often that happens, the rarer they are."""
        for turn in self._turns_of(signals):
            self._deal(turn, at_ms)
            if turn.silences or turn.period_ms is None:
                period_ms = turn.period_ms or _PERIOD_MS["S"]
                turn.due_ms = at_ms + max(period_ms, min(_RAREST_MS, period_ms << min(turn.silences, 10)))
            turn.silences += 1

    def stale_ms(self, signal: Signal) -> int | None:
        """Return the age past which this signal's value is too old to show; None where it holds for the session."""
        turn = self._turns.get(signal.key)
        if turn is None:
            return 3 * self._pass_ms
        if turn.period_ms is None:
            return None
        # One long round is an interruption; two in succession are what this adapter can do.
        round_ms = min(*turn.rounds_ms, _PERIOD_MS["M"]) if turn.period_ms == self._pass_ms else 0
        return 3 * max(turn.period_ms, round_ms)

    def _turns_of(self, signals: Iterable[Signal]) -> list[_Turn]:
        return [self._turns[signal.key] for signal in signals if signal.key in self._turns]

    def _deal(self, turn: _Turn, at_ms: int) -> None:
        """Give a turn its next moment, after it was asked at `at_ms`."""
        if turn.asked_ms is not None:
            turn.rounds_ms = (turn.rounds_ms[1], at_ms - turn.asked_ms)
        turn.asked_ms = at_ms
        if turn.period_ms is None:
            turn.due_ms = math.inf
        elif turn.period_ms == self._pass_ms:
            turn.due_ms = at_ms + 1
        else:
            # The next moment of this signal's own comb that is more than half a period away.
            earliest_ms = at_ms + turn.period_ms // 2
            turn.due_ms = earliest_ms + (turn.offset_ms - earliest_ms) % turn.period_ms
