"""How often a wrong ticket may be tried: MOST at once for one code from one address, then one a minute. Pure.

By address, so that a stranger who knows a device's id locks nobody out but their own address. What keeps a code safe is
its 128 bits of chance, not this.
"""

from dataclasses import dataclass, field
from typing import Final

MOST: Final = 5
BACK_MS: Final = 60_000
"""After so long one try is forgotten."""
FORGOTTEN_MS: Final = MOST * BACK_MS
_MAX_KEPT: Final = 10_000


@dataclass(slots=True)
class Tries:
    """Wrong tickets by code and address; times are ms UTC, so that they can be taken up from the audit log."""

    _wrong: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)

    def wrong(self, code: str, address: str, at_ms: int, count: int = 1) -> None:
        """Wrong tickets came."""
        key = code, address
        level = self._level(key, at_ms) + count
        self._wrong.pop(key, None)
        while len(self._wrong) >= _MAX_KEPT:
            # The one that has been left alone for longest.
            del self._wrong[next(iter(self._wrong))]
        self._wrong[key] = level, at_ms

    def are_left(self, code: str, address: str, at_ms: int) -> bool:
        """Tell whether a ticket that comes from there is looked at."""
        return self._level((code, address), at_ms) <= MOST - 1

    def _level(self, key: tuple[str, str], at_ms: int) -> float:
        level, then_ms = self._wrong.get(key, (0.0, at_ms))
        return max(0.0, level - abs(at_ms - then_ms) / BACK_MS)
