"""Which gear is in, from engine speed, road speed and the vehicle's ratios. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.wire.signals import Value

_SLOWEST_KMH = 5
_TOLERANCE = 0.08


@dataclass(frozen=True, slots=True)
class Gearbox:
    """The ratios, first gear first; the final drive; the tyre's circumference in metres."""

    ratios: Sequence[float]
    final_drive: float
    circumference_m: float

    def gear(self, values: Mapping[str, Value]) -> int | None:
        """Return the gear, 1 the first; None where speed and engine speed do not fit one (clutch, neutral, standing).

        >>> Gearbox((3.5, 2.0, 1.3), 4.0, 2.0).gear({"rpm": 2000.0, "speed": 30})
        2
        """
        rpm, speed = values.get("rpm"), values.get("speed")
        if not isinstance(rpm, (int, float)) or not isinstance(speed, (int, float)) or speed < _SLOWEST_KMH:
            return None
        wheel_rpm = speed / 3.6 / self.circumference_m * 60
        ratio = rpm / wheel_rpm / self.final_drive
        best = min(range(len(self.ratios)), key=lambda n: abs(self.ratios[n] - ratio))
        return best + 1 if abs(self.ratios[best] - ratio) <= _TOLERANCE * self.ratios[best] else None
