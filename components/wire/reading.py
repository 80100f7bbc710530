"""One sample of everything, with its time and the age of each value that was not measured just then. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from components.wire.signals import BY_KEY, REASONS, Value


@dataclass(frozen=True, slots=True)
class Reading:
    """What the car and its receivers said at one moment.

    Attributes:
        at_ms: ms since the Unix epoch, UTC, on the session's timeline.
        values: By signal key; only what was said.
        why: Reason by signal key, for exactly the keys of the catalogue that `values` lacks.
        age_ms: How long before `at_ms` a value was measured; only where that is not 0.
    """

    at_ms: int
    values: Mapping[str, Value]
    why: Mapping[str, str]
    age_ms: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def checked(
        cls, at_ms: int, values: Mapping[str, Value], why: Mapping[str, str], age_ms: Mapping[str, int]
    ) -> Self:
        """Make a reading of parts that come from elsewhere.

        Raises:
            ValueError: A key is in both or neither of `values` and `why`, a reason is not on the list, or an age is
                not positive or belongs to no value.
        """
        if values.keys() | why.keys() != BY_KEY.keys() or values.keys() & why.keys():
            raise ValueError("each signal has either a value or a reason")
        if not set(why.values()) <= set(REASONS):
            raise ValueError(f"reasons are {', '.join(REASONS)}")
        if not age_ms.keys() <= values.keys() or any(age <= 0 for age in age_ms.values()):
            raise ValueError("an age is positive and belongs to a value")
        return cls(at_ms, values, why, age_ms)

    def as_row(self) -> dict[str, object]:
        """Return it as people and programs read it: `at` in ms, every signal's value or None, `age_ms`, `why`."""
        return {
            "at": self.at_ms,
            **{key: self.values.get(key) for key in BY_KEY},
            "age_ms": dict(self.age_ms),
            "why": dict(self.why),
        }
