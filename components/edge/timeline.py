"""Session + elapsed time -> UTC. Pure: it reads no clock, it is told what the clocks said.

A session has one clock base and never jumps: time = base + elapsed, whatever the machine's own clock does meanwhile.
What replaces the base is a better source that disagrees by more than 2 s, and then a new session begins, whose first
packet tells how far the session before was off. Sources, best first (packet.CLOCKS):

======  =========================================================  ===================================================
source  how it is known                                            what it may do
======  =========================================================  ===================================================
gps     gpsd tells two fixes, at most 10 s apart, that agree with  begins a new session where any other source was
        each other as elapsed time does (`Confirmation`)
ntp     the kernel says that the system's clock is synchronised    the base at the start; begins a new session where
                                                                   it was rtc, saved or none
rtc     unsynchronised, but a battery clock says the same          the base at the start, unless it is before the
                                                                   newest row: time does not go back
saved   the newest row of readings.db, or the system's clock       the base at the start: a time that has been, so the
        where nobody knows who set it (fake-hwclock, a person),    true one is later
        whichever is later
none    nothing of that; the system's clock as it is               the base at the start
======  =========================================================  ===================================================

A clock that runs on drifts, some 50 s a month where nothing disciplines it. So a session that begins as the car wakes
takes up what its own source told last, where that is more than 2 s away and the night was long enough that no time is
told twice. The sessions before it stand as they were told: since when they were off nobody knows.

No source is believed outside of [BUILT_MS, BUILT_MS + 1024 weeks): a clock that was never set is before it, and so is
a GPS receiver whose week number of ten bits has rolled over, as the true time is after this was written.
"""

from dataclasses import dataclass, replace
from typing import Final

from components.wire.packet import CLOCKS, ClockFix

TOLERANCE_MS: Final = 2_000
"""Leap seconds, latency and jitter stay below it."""
BUILT_MS: Final = 1_790_000_000_000
"""September 2026: this was written later. Moved on with releases; it need not be exact."""
ROLLOVER_MS: Final = 1024 * 7 * 86_400_000
"""GPS counts weeks modulo 1024. Source: IS-GPS-200, 20.3.3.3.1.1."""
_APART_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Told:
    """What a source said of the time.

    Attributes:
        source: One of packet.CLOCKS.
        utc_ms: Ms UTC.
        elapsed_ms: When it was heard.
    """

    source: str
    utc_ms: int
    elapsed_ms: int

    @property
    def doubt(self) -> str:
        """Why this cannot be the time, in words; "" where it can."""
        if self.utc_ms < BUILT_MS:
            return "it is before this software was written"
        if self.utc_ms >= BUILT_MS + ROLLOVER_MS:
            return "it is more than 1024 weeks after this software was written"
        return ""


@dataclass(frozen=True, slots=True)
class Timeline:
    """One session's time.

    Attributes:
        session: 16 hex digits.
        source: Where the base comes from, one of packet.CLOCKS.
        base_ms: UTC in ms when elapsed time was 0.
        fix: How the session before was off; None where there was none.
    """

    session: str
    source: str
    base_ms: int
    fix: ClockFix | None = None

    @classmethod
    def begun(cls, session: str, system: Told, newest_ms: int | None) -> "Timeline":
        """Choose the base of a run's first session.

        Args:
            session: Its name.
            system: The system's clock; its source is ntp, rtc or saved.
            newest_ms: Ms UTC of the newest row that an earlier run kept; None where there is none.
        """
        if system.source == "ntp" and not system.doubt:
            chosen = system
        else:
            kept = Told("saved", newest_ms or 0, system.elapsed_ms)
            possible = [told for told in (system, kept) if not told.doubt]
            unset_ms = system.utc_ms if 0 <= system.utc_ms < BUILT_MS else 0
            # Of two times that have been, the later one is nearer to now.
            chosen = max(possible, key=lambda told: told.utc_ms, default=Told("none", unset_ms, system.elapsed_ms))
        return cls(session, chosen.source, chosen.utc_ms - chosen.elapsed_ms)

    def at(self, elapsed_ms: int) -> int:
        """Return ms UTC on this session's timeline.

        >>> Timeline("0" * 16, "ntp", 1_000_000).at(234)
        1000234
        """
        return self.base_ms + elapsed_ms

    def corrected(self, told: Told, new_session: str, *, kept: bool) -> "Timeline | None":
        """Take the time that another source told.

        Args:
            told: Counts when it is possible, and its source better than this session's.
            new_session: Name for the session that would begin.
            kept: Whether a row of this session is on the card. Where none is, nothing needs to know how far it was
                off, and the new session follows the one before it.

        Returns:
            The timeline of a new session; None while this one stands (worse source, or within 2 s).
        """
        offset_ms = told.utc_ms - self.at(told.elapsed_ms)
        if told.doubt or CLOCKS.index(told.source) >= CLOCKS.index(self.source) or abs(offset_ms) <= TOLERANCE_MS:
            return None
        if kept:
            fix: ClockFix | None = ClockFix(self.session, offset_ms)
        elif self.fix is not None:
            fix = ClockFix(self.fix.previous_session, self.fix.offset_ms + offset_ms)
        else:
            fix = None
        return Timeline(new_session, told.source, self.base_ms + offset_ms, fix)

    def renewed(self, new_session: str) -> "Timeline":
        """Return a new session on the same base, where one ends for another reason than its clock.

        It follows this one by 0 ms, so that what corrects it dates this one too.
        """
        return replace(self, session=new_session, fix=ClockFix(self.session, 0))

    def woken(self, new_session: str, told: Told | None, newest_ms: int, elapsed_ms: int) -> "Timeline":
        """Return a new session on the same clock, which is set right where it has drifted.

        Args:
            new_session: Its name.
            told: What this session's source told last; None where it told nothing since.
            newest_ms: The latest time of this session.
            elapsed_ms: Now.
        """
        if told is None or told.doubt or told.source != self.source:
            return self.renewed(new_session)
        base_ms = told.utc_ms - told.elapsed_ms
        if abs(base_ms - self.base_ms) <= TOLERANCE_MS or base_ms + elapsed_ms <= newest_ms:
            return self.renewed(new_session)
        return Timeline(new_session, self.source, base_ms)


@dataclass(slots=True)
class Confirmation:
    """What counts of a source that may err once: a time that agrees with the one told before it.

    Attributes:
        doubt: Why the latest was refused, in words; "" where it was not, or had nothing to be compared with.
    """

    doubt: str = ""
    _before: Told | None = None

    def heard(self, told: Told) -> bool:
        """Take the latest, which may be the same as before; return whether it is new and counts."""
        self.doubt = told.doubt
        if self.doubt:
            return False
        before, self._before = self._before, told
        if before is None or not 0 < told.elapsed_ms - before.elapsed_ms <= _APART_MS:
            return False
        if abs((told.utc_ms - before.utc_ms) - (told.elapsed_ms - before.elapsed_ms)) > TOLERANCE_MS:
            self.doubt = "it jumped by more than 2 s from one to the next"
        return not self.doubt
