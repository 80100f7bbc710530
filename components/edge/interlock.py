"""The interlock of `clear_dtcs`: one-time tokens, few attempts, and a car that stands with its engine off. Pure."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from components.wire.signals import Value

TOKEN_LIFE_MS: Final = 60_000
ATTEMPTS: Final = 20
"""So many steps may be begun in TOKEN_LIFE_MS: each is recorded on the card, which nobody may fill by asking."""
MUST_BE_ZERO: Final = ("rpm", "speed")
FRESH_MS: Final = 1_500
"""A car that has stood for longer than that, when the command would go out, may have started since."""


@dataclass(slots=True)
class Interlock:
    """The tokens that are out; one a caller, each good once and for 60 s of elapsed time.

    Attributes:
        refused: Attempts that were too many, since one was begun; they are told with the next.
    """

    refused: int = 0
    _tokens: dict[str, tuple[str, int]] = field(default_factory=dict)
    _begun_ms: deque[int] = field(default_factory=lambda: deque(maxlen=ATTEMPTS))

    def begins(self, elapsed_ms: int) -> bool:
        """Tell whether another step may be begun, by whomever: a router can call under any name."""
        if len(self._begun_ms) == ATTEMPTS and elapsed_ms - self._begun_ms[0] < TOKEN_LIFE_MS:
            self.refused += 1
            return False
        self._begun_ms.append(elapsed_ms)
        return True

    def prepare(self, caller: str, token: str, elapsed_ms: int) -> None:
        """Give `token` to a caller; one that the caller had before is void."""
        self._tokens = {who: one for who, one in self._tokens.items() if elapsed_ms < one[1]}
        self._tokens[caller] = (token, elapsed_ms + TOKEN_LIFE_MS)

    def redeem(self, caller: str, token: str, elapsed_ms: int) -> str | None:
        """Use a token up; return why it is not good, or None when it is."""
        given, expires_ms = self._tokens.pop(caller, ("", 0))
        if not token or given != token:
            return "token_unknown"
        return "token_expired" if elapsed_ms >= expires_ms else None


def refusal(values: Mapping[str, Value], measured_ms: Mapping[str, int], elapsed_ms: int) -> str | None:
    """Say why a car that was just measured may not be cleared; None when it may.

    Args:
        values, measured_ms: As `Car.measure_now` gave them, elapsed ms.
        elapsed_ms: Now, as the command is about to go out.

    >>> refusal({"rpm": 0.0, "speed": 0}, {"rpm": 10, "speed": 40}, 50)
    >>> refusal({"rpm": 800.0, "speed": 0}, {"rpm": 10, "speed": 40}, 50)
    'engine_running'
    >>> refusal({"rpm": 0.0, "speed": 0}, {"rpm": 10, "speed": 40}, 1511)
    'measured_too_slowly'
    """
    for key in MUST_BE_ZERO:
        if key not in values:
            return f"{key}_unknown"
    if values["rpm"] != 0:
        return "engine_running"
    if values["speed"] != 0:
        return "vehicle_moving"
    return "measured_too_slowly" if any(elapsed_ms - measured_ms[key] > FRESH_MS for key in MUST_BE_ZERO) else None
