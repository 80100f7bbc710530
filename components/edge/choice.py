"""Which signals a device records, and how often: what `[signals]` chooses. Pure.

What is not wanted is null, `unsupported`, in every reading, and nothing else of it is kept: no age, no summary, no
freeze frame. The car is asked for the wanted signals only, at their rates (obd_car); what it is not asked for, the
receivers' signals and the gear, is thinned out here.
"""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Final

from components.wire.signals import BY_KEY, Value

_NEEDED: Final = frozenset(("rpm", "speed"))
"""Asked whatever is chosen: they tell whether the car sleeps, and its gear. They are recorded only where wanted."""


@dataclass(slots=True)
class Choice:
    """What is recorded of one device.

    Args:
        wanted: Keys of the signals.
        rates: Seconds from one value to the next by key, 0 for every reading; others have the rate of their tier.
    """

    wanted: frozenset[str] = frozenset(BY_KEY)
    rates: Mapping[str, float] = field(default_factory=dict)
    _held: dict[str, tuple[Value, int]] = field(default_factory=dict)

    @property
    def asked(self) -> frozenset[str]:
        """Keys of the signals that the car is asked for."""
        return frozenset(key for key in self.wanted | _NEEDED if BY_KEY[key].pid is not None)

    @property
    def car_rates(self) -> dict[str, float]:
        """The rates of the car's own signals."""
        return {key: rate for key, rate in self.rates.items() if BY_KEY[key].pid is not None}

    def apply(
        self,
        values: MutableMapping[str, Value],
        measured_ms: MutableMapping[str, int],
        why: MutableMapping[str, str],
    ) -> None:
        """Take out of a sample what is not wanted, and hold values that are wanted more seldom than they come.

        A held value keeps the moment when it was measured, and goes as soon as there is none: an old place is not
        shown where there is no fix.
        """
        for key in BY_KEY.keys() - self.wanted:
            values.pop(key, None)
            measured_ms.pop(key, None)
            why[key] = "unsupported"
        for key in self.rates.keys() - self.car_rates.keys():
            if key not in values:
                self._held.pop(key, None)
                continue
            held = self._held.get(key)
            if held is None or measured_ms[key] - held[1] >= self.rates[key] * 1000:
                self._held[key] = held = values[key], measured_ms[key]
            values[key], measured_ms[key] = held
