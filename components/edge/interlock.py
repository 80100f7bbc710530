"""The interlock of `clear_dtcs`: one-time tokens, and a car that stands with its engine off. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from components.wire.signals import Value

TOKEN_LIFE_MS: Final = 60_000
MUST_BE_ZERO: Final = ("rpm", "speed")


@dataclass(slots=True)
class Interlock:
    """The tokens that are out; one a caller, each good once and for 60 s of elapsed time."""

    _tokens: dict[str, tuple[str, int]] = field(default_factory=dict)

    def prepare(self, caller: str, token: str, elapsed_ms: int) -> None:
        """Give `token` to a caller; one that the caller had before is void."""
        self._tokens[caller] = (token, elapsed_ms + TOKEN_LIFE_MS)

    def redeem(self, caller: str, token: str, elapsed_ms: int) -> str | None:
        """Use a token up; return why it is not good, or None when it is."""
        given, expires_ms = self._tokens.pop(caller, ("", 0))
        if not token or given != token:
            return "token_unknown"
        return "token_expired" if elapsed_ms >= expires_ms else None


def refusal(values: Mapping[str, Value]) -> str | None:
    """Say why a car that was just measured may not be cleared; None when it may.

    >>> refusal({"rpm": 0.0, "speed": 0}), refusal({"rpm": 800.0, "speed": 0}), refusal({"rpm": 0.0})
    (None, 'engine_running', 'speed_unknown')
    """
    for key in MUST_BE_ZERO:
        if key not in values:
            return f"{key}_unknown"
    if values["rpm"] != 0:
        return "engine_running"
    return "vehicle_moving" if values["speed"] != 0 else None
