"""One sample of everything, with its time and the age of each value that was not measured just then. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self, cast

from components.wire.signals import BY_KEY, REASONS, Linear, Value, most_raw, span
from components.wire.times import iso_ms


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
        if not all(reason in REASONS for reason in why.values()):
            raise ValueError(f"reasons are {', '.join(REASONS)}")
        if not age_ms.keys() <= values.keys() or any(age <= 0 for age in age_ms.values()):
            raise ValueError("an age is positive and belongs to a value")
        return cls(at_ms, values, why, age_ms)

    def as_row(self) -> dict[str, object]:
        """Return it as people and programs read it: `at` as RFC 3339, every signal's value or None, `age_ms`, `why`."""
        return {
            "at": iso_ms(self.at_ms),
            **{key: self.values.get(key) for key in BY_KEY},
            "age_ms": dict(self.age_ms),
            "why": dict(self.why),
        }


def check_value(key: str, value: object) -> None:
    """Check that a signal can have this value: the rule for readings and freeze frames alike.

    A number may lie between the steps of the car's resolution, but not beyond what its bytes can say.

    Raises:
        ValueError: It cannot; the message names the signal, not the value.
    """
    signal = BY_KEY[key]
    if key == "location":
        fits = _is_place(value)
    elif signal.codec is None or isinstance(signal.codec, Linear):
        least, most = span(signal)
        fits = _is_number(value, least, most)
    else:
        try:
            raw = signal.codec.encode(cast("Value", value))
            fits = 0 <= raw <= most_raw(signal) and signal.codec.decode(raw) == value
        except (TypeError, ValueError, KeyError, OverflowError):
            fits = False
    if not fits:
        raise ValueError(f"{key}: not a value that it can have")


def _is_number(value: object, least: float, most: float) -> bool:
    return type(value) in {int, float} and least <= cast("float", value) <= most


def _is_place(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != {"type", "coordinates"} or value["type"] != "Point":
        return False
    place = value["coordinates"]
    return (
        isinstance(place, list)
        and len(place) == 2
        and _is_number(place[0], -180, 180)
        and _is_number(place[1], -90, 90)
    )
