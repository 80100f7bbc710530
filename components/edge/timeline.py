"""Session + elapsed time -> UTC. Pure.

A session has one clock base and never jumps: time = base + elapsed. A better source that disagrees by more than 2 s
starts a new session, whose first packet tells how far the one before was off.
"""

from dataclasses import dataclass
from typing import Final

from components.wire.packet import CLOCKS, ClockFix

TOLERANCE_MS: Final = 2000


@dataclass(frozen=True, slots=True)
class Timeline:
    """One session's time.

    Attributes:
        session: 16 hex digits.
        source: Where the base comes from, one of packet.CLOCKS (best first).
        base_ms: UTC in ms when elapsed time was 0.
        fix: How the session before was off; None where there was none.
    """

    session: str
    source: str
    base_ms: int
    fix: ClockFix | None = None

    def at(self, elapsed_ms: int) -> int:
        """Return ms UTC on this session's timeline.

        >>> Timeline("0" * 16, "ntp", 1_000_000).at(234)
        1000234
        """
        return self.base_ms + elapsed_ms

    def corrected(self, source: str, utc_ms: int, elapsed_ms: int, new_session: str) -> "Timeline | None":
        """Take the time of another source.

        Args:
            source: One of packet.CLOCKS; only a better one than this session's counts.
            utc_ms, elapsed_ms: What it said, and when it was heard.
            new_session: Name for the session that would begin.

        Returns:
            The timeline of a new session; None while this one stands (worse source, or within 2 s).
        """
        offset_ms = utc_ms - self.at(elapsed_ms)
        if CLOCKS.index(source) >= CLOCKS.index(self.source) or abs(offset_ms) <= TOLERANCE_MS:
            return None
        return Timeline(new_session, source, self.base_ms + offset_ms, ClockFix(self.session, offset_ms))
