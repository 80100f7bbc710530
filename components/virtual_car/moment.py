"""What a car has to say at one instant, and the Protocol of everything that can say it. Pure: data only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True)
class O2:
    """One narrow-band oxygen sensor.

    Args:
        voltage_v: 0 to 1.275 V.
        trim_percent: Short-term trim that this sensor drives, -100 to 99.2; None: the sensor takes no part in trim.
    """

    voltage_v: float
    trim_percent: float | None


Value: TypeAlias = float | bool | O2 | bytes
"""A number in the unit of the signal table; a bit-coded enumeration as its byte; a bool; an oxygen sensor. Bytes are
the PID's data bytes as they are."""


@dataclass(frozen=True)
class Place:
    """Where the car is, as a GPS receiver would know it.

    Args:
        lat: Degrees north.
        lon: Degrees east.
        altitude_m: Above mean sea level; None if unknown (then the fix is two-dimensional).
        heading_deg: 0 to 360, clockwise from true north; None if unknown.
        climb_m_s: Vertical speed, upwards positive; None if unknown.
        speed_m_s: Over ground; None if unknown.
    """

    lat: float
    lon: float
    altitude_m: float | None
    heading_deg: float | None
    climb_m_s: float | None
    speed_m_s: float | None


@dataclass(frozen=True)
class Moment:
    """Everything that the car says at one instant.

    Args:
        values: By signal key. A key that is absent, or None, is not answered: no ECU invents a value.
        place: None when the receiver has no fix.
    """

    values: Mapping[str, Value | None]
    place: Place | None

    @property
    def engine_runs(self) -> bool:
        """Whether the crankshaft turns; a car that does not tell its engine speed counts as standing."""
        rpm = self.values.get("rpm")
        return any(rpm) if isinstance(rpm, bytes) else isinstance(rpm, int | float) and rpm > 0


class Drive(Protocol):
    """A source of moments: the drive model, the parked car, a recording. A pure function of the time since T0."""

    @property
    def supported(self) -> frozenset[str]:
        """Signal keys that the car's ECUs support."""
        ...

    def at(self, elapsed_s: float) -> Moment:
        """What the car says `elapsed_s` seconds after T0 (0 or more)."""
        ...

    def next_fix_s(self, elapsed_s: float) -> float:
        """The first instant after `elapsed_s` at which the GPS receiver has news; seconds since T0."""
        ...
