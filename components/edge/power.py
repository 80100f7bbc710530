"""Whether the car is awake, told from its engine speed and the voltage at its plug: a machine without I/O. Pure.

Each look at the car is an event in the past tense (`heard`); it returns what is to be done now, or None. A voltage
counts as known while it is not older than 20 s; `low` is known and below `charging_v`.

======  =====================================================================  =============================
state   when a look finds                                                      then
======  =====================================================================  =============================
awake   no engine speed, no speed or 0, and low, measured since there was an   asleep, `sleep`
        engine speed: all that for `dwell_s`
awake   no engine speed or 0, no speed or 0, and low: for 10 minutes           asleep, `sleep`
asleep  an engine speed or speed above 0 (an answer that came late)            awake, `wake`
asleep  a voltage of `charging_v` or more: the alternator charges              awake, `wake`
asleep  0.5 V more than the least of this sleep: a smart alternator charges    awake, `wake`
asleep  1 V less than at the look before: the starter turns the engine         awake, `wake`
asleep  no known voltage for 30 s: nobody knows any more                       awake, `wake`
asleep  its time has come (`tries_bus`)                                        asleep, the look may ask the bus
asleep  below `low_v` for `dwell_s`, or asleep for `idle_s`; and the last      asleep, `command`; once a sleep
        packet has its receipt, or 30 s have passed
======  =====================================================================  =============================

The second row is for cars that only our questions keep awake. An engine that turns is never asleep, with an unknown
voltage nobody falls asleep, and who has woken needs the full time again.

The bus of a sleeping car is tried by one look in 10 minutes. Where the voltage cannot tell of the engine's start, since
it never came to `charging_v` in the drive before (a smart alternator, a limit that does not fit, an adapter that
measures badly), by one look every 10 s for 10 minutes, then every minute.
"""

from dataclasses import dataclass
from typing import Final, Literal

State = Literal["awake", "asleep"]
Order = Literal["sleep", "wake", "command"]

LOOK_EVERY_MS: Final = 5_000
"""From one look at a sleeping car to the next."""
KNOWN_MS: Final = 20_000
"""A search for the car's bus, in which no voltage is measured, and the wait after it (obd_link)."""
STANDING_MS: Final = 600_000
UNKNOWN_MS: Final = 30_000
SENDING_MS: Final = 30_000
_TRY_EVERY_MS: Final = 600_000
_TRY_SOON_EVERY_MS: Final = 10_000
_TRY_LATER_EVERY_MS: Final = 60_000
RISE_V: Final = 0.5
DIP_V: Final = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What config.Power says; volts and ms, `low_v` and `idle_ms` 0 for never."""

    charging_v: float = 13.2
    dwell_ms: int = 20_000
    low_v: float = 11.8
    idle_ms: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the car; every time is elapsed ms.

    Attributes:
        at_ms: Now.
        rpm, speed: As the car said; None where it said nothing.
        has_rpm: Whether the car has an engine speed to tell; of an electric one the speed tells that it is on.
        voltage_v, voltage_ms: At the plug, and when that was measured; None and None while unknown.
        sent: Whether the packet that was closed when the car fell asleep has its receipt.
    """

    at_ms: int
    rpm: float | None = None
    speed: float | None = None
    voltage_v: float | None = None
    voltage_ms: int | None = None
    sent: bool = False
    has_rpm: bool = True

    @property
    def known_v(self) -> float | None:
        """The voltage, where it is known."""
        return self.voltage_v if self.voltage_ms is not None and self.at_ms - self.voltage_ms <= KNOWN_MS else None


@dataclass(slots=True)
class Power:
    """The state of one car.

    Attributes:
        since_ms: When the state began, elapsed ms.
        voltage_v: At the latest look, None where it was not known then.
    """

    limits: Limits
    since_ms: int
    state: State = "awake"
    voltage_v: float | None = None
    _told_ms: int | None = None
    _off_ms: int | None = None
    _standing_ms: int | None = None
    _known_ms: int = 0
    _before_v: float | None = None
    _least_v: float | None = None
    _low_ms: int | None = None
    _commanded: bool = False
    _has_charged: bool = False

    def heard(self, look: Look) -> Order | None:
        """Take a look at the car; return what it means."""
        self.voltage_v = look.known_v
        return self._awake(look) if self.state == "awake" else self._asleep(look)

    def tries_bus(self, at_ms: int) -> bool:
        """Return whether a look at a sleeping car, at `at_ms` (elapsed ms), is one that may ask its bus."""
        slept_ms = at_ms - self.since_ms
        every_ms = _TRY_EVERY_MS
        if not self._has_charged:
            every_ms = _TRY_SOON_EVERY_MS if slept_ms < _TRY_EVERY_MS else _TRY_LATER_EVERY_MS
        return slept_ms >= every_ms and slept_ms % every_ms < LOOK_EVERY_MS

    def _awake(self, look: Look) -> Order | None:
        limits, voltage_v = self.limits, look.known_v
        if look.rpm is not None or (look.speed is not None and not look.has_rpm):
            self._told_ms = look.at_ms
        low = voltage_v is not None and voltage_v < limits.charging_v
        self._has_charged |= voltage_v is not None and not low
        stands = low and not look.rpm and not look.speed
        is_silent = self._told_ms is None or (look.voltage_ms or 0) > self._told_ms
        self._off_ms = _since(self._off_ms, look.at_ms, holds=stands and is_silent)
        self._standing_ms = _since(self._standing_ms, look.at_ms, holds=stands)
        if _lasts(self._off_ms, look.at_ms, limits.dwell_ms) or _lasts(self._standing_ms, look.at_ms, STANDING_MS):
            self._begin("asleep", look.at_ms)
            return "sleep"
        return None

    def _asleep(self, look: Look) -> Order | None:
        limits, voltage_v = self.limits, look.known_v
        if look.rpm or look.speed or self._charges(voltage_v):
            self._begin("awake", look.at_ms)
            return "wake"
        if voltage_v is not None:
            self._known_ms = look.at_ms
            self._before_v = voltage_v
            self._least_v = voltage_v if self._least_v is None else min(voltage_v, self._least_v)
        elif look.at_ms - self._known_ms >= UNKNOWN_MS:
            self._begin("awake", look.at_ms)
            return "wake"
        self._low_ms = _since(self._low_ms, look.at_ms, holds=voltage_v is not None and voltage_v < limits.low_v)
        is_due = _lasts(self._low_ms, look.at_ms, limits.dwell_ms) or (
            limits.idle_ms > 0 and look.at_ms - self.since_ms >= limits.idle_ms
        )
        if is_due and not self._commanded and (look.sent or look.at_ms - self.since_ms >= SENDING_MS):
            self._commanded = True
            return "command"
        return None

    def _charges(self, voltage_v: float | None) -> bool:
        if voltage_v is None:
            return False
        return (
            voltage_v >= self.limits.charging_v
            or (self._least_v is not None and voltage_v - self._least_v >= RISE_V)
            or (self._before_v is not None and self._before_v - voltage_v >= DIP_V)
        )

    def _begin(self, state: State, at_ms: int) -> None:
        self.state, self.since_ms, self._known_ms = state, at_ms, at_ms
        self._before_v = self._least_v = self.voltage_v if state == "asleep" else None
        self._off_ms = self._standing_ms = self._low_ms = None
        self._commanded = False
        if state == "awake":
            self._has_charged = False


def _since(before_ms: int | None, now_ms: int, *, holds: bool) -> int | None:
    """Return since when something holds, given since when it held at the look before."""
    if not holds:
        return None
    return now_ms if before_ms is None else before_ms


def _lasts(since_ms: int | None, now_ms: int, long_ms: int) -> bool:
    return since_ms is not None and now_ms - since_ms >= long_ms
