"""A drive that makes no sense, so that no value can be a lucky guess: every raw walks, each PID at its own. Pure."""

import math
from collections.abc import Mapping
from typing import Final

from components.virtual_car.moment import Moment, Value
from components.virtual_car.pids import ALL_KEYS, ITEMS, Item

STEPS_PER_S: Final = 10
_STRIDE: Final = 37
# Items whose raw has a meaning for some numbers only (SAE J1979): they walk over those.
_MEANINGS: Final[Mapping[str, tuple[int, ...]]] = {
    "fuel_status": (0x0100, 0x0200, 0x0400, 0x0800, 0x1000),
    "secondary_air_status": (1, 2, 4, 8),
    "obd_standard": (1, 3, 6, 9),
    "aux_input": (0, 1),
}


class MarkedDrive:
    """Ten times a second every raw steps on; one of one byte comes again after 25.5 s, one of two after 1.8 hours."""

    supported = ALL_KEYS

    def at(self, elapsed_s: float) -> Moment:
        """What the car says at this time; it has no place."""
        step = int(elapsed_s * STEPS_PER_S)
        values: dict[str, Value | None] = {item.key: _raw(item, step).to_bytes(item.size, "big") for item in ITEMS}
        return Moment(values, None)

    def next_fix_s(self, elapsed_s: float) -> float:
        """The receiver has news every full second."""
        return math.floor(elapsed_s + 1e-6) + 1.0


def _raw(item: Item, step: int) -> int:
    walk = step * _STRIDE + item.pid * 11
    meanings = _MEANINGS.get(item.key)
    # 0 is left out: an engine at 0 rpm stands.
    return meanings[walk % len(meanings)] if meanings else walk % (256**item.size - 1) + 1
