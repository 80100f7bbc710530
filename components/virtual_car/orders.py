"""What can be ordered of a running car, and from when until when each order holds. Pure.

An order is one JSON object. Its keys, which may stand together:

| key | value | what it orders |
| --- | --- | --- |
| fault | a name of `faults.FAULTS`, a list of them, null | these faults and no others |
| ignition | "run", "on", "off", "crank" | driving; engine off; units silent; the starter turns |
| voltage | volts, null | what ATRV measures; null: what belongs to the ignition |
| slow_s | seconds | the units answer later by this; beyond ATST the adapter has NO DATA |
| stall_s | seconds | the adapter begins each command later by this |
| codes | {"stored", "pending", "permanent": [code, …]} | the engine's code memory; {}: cleared |
| plugged | true, false, a device name | in the same socket again, out, in another one |
| for_s | seconds | so long, then as before; not with codes or plugged, which are no states to go back from |

An empty order changes nothing.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final, TypeAlias, get_args
from typing import Literal as OneOf

from components.settings import shown
from components.virtual_car.codes import CodeMemory, code_bytes
from components.virtual_car.faults import FAULTS

Ignition: TypeAlias = OneOf["run", "on", "off", "crank"]

_IGNITIONS: Final[tuple[str, ...]] = get_args(Ignition)
_CODE_LISTS: Final = ("stored", "pending", "permanent")
_LONGEST_S: Final = 86_400.0
_MAX_SHOWN: Final = 60


class OrderError(ValueError):
    """An order that nobody can obey; nothing of it has happened. The text begins with the key at fault."""


@dataclass(frozen=True)
class Condition:
    """How the car and its adapter are at one instant.

    Args:
        fault: Names of the faults that are on, in their order.
        ignition: Where the key is.
        voltage: At the plug, volts; None: what belongs to the ignition.
        slow_s: How much later the units answer.
        stall_s: How much later the adapter begins a command.
    """

    fault: tuple[str, ...] = ()
    ignition: Ignition = "run"
    voltage: float | None = None
    slow_s: float = 0.0
    stall_s: float = 0.0


@dataclass(frozen=True)
class Order:
    """An order that has been understood.

    Args:
        changes: Fields of a `Condition`.
        for_s: How long they hold; None: until another order.
        codes: The code memory, without a freeze frame; None: it stays as it is.
        plugged: A device name, True for the last one, False: unplugged; None: as it is.
    """

    changes: Mapping[str, object] = field(default_factory=dict)
    for_s: float | None = None
    codes: CodeMemory | None = None
    plugged: bool | str | None = None


def parse_order(document: object) -> Order:
    """Understand an order.

    Args:
        document: What JSON or TOML gives.

    Raises:
        OrderError: It is no order.

    >>> parse_order({"fault": "no_data", "for_s": 10}).changes
    {'fault': ('no_data',)}
    """
    if not isinstance(document, Mapping):
        raise OrderError(f"an order is an object, got {shown(document)}")
    known = (*_CHANGES, "codes", "plugged", "for_s")
    for key in document:
        if key not in known:
            raise OrderError(f"{key[:_MAX_SHOWN]}: no such order; there are {', '.join(known)}")
    order = Order(changes={key: parse(document[key]) for key, parse in _CHANGES.items() if key in document})
    if "codes" in document:
        order = replace(order, codes=_codes(document["codes"]))
    if "plugged" in document:
        order = replace(order, plugged=_plugged(document["plugged"]))
    if "for_s" in document:
        if order.codes is not None or order.plugged is not None:
            raise OrderError("for_s: not with codes or plugged, they do not end by themselves")
        order = replace(order, for_s=_seconds("for_s")(document["for_s"]))
    return order


def _fault(value: object) -> tuple[str, ...]:
    names = [] if value is None else value if isinstance(value, list) else [value]
    for name in names:
        if not isinstance(name, str) or name not in FAULTS:
            raise OrderError(f"fault: {shown(name)} is none; there are {', '.join(FAULTS)}")
    return tuple(names)


def _ignition(value: object) -> str:
    if value not in _IGNITIONS:
        raise OrderError(f"ignition: wanted one of {', '.join(_IGNITIONS)}, got {shown(value)}")
    return str(value)


def _number(key: str, value: object, highest: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= highest:
        raise OrderError(f"{key}: wanted a number from 0 to {highest:g}, got {shown(value)}")
    return float(value)


def _voltage(value: object) -> float | None:
    return None if value is None else _number("voltage", value, 36.0)


def _seconds(key: str) -> Callable[[object], float]:
    return lambda value: _number(key, value, _LONGEST_S)


_CHANGES: Final[Mapping[str, Callable[[object], object]]] = {
    "fault": _fault,
    "ignition": _ignition,
    "voltage": _voltage,
    "slow_s": _seconds("slow_s"),
    "stall_s": _seconds("stall_s"),
}


def _codes(value: object) -> CodeMemory:
    if not isinstance(value, Mapping):
        raise OrderError(f"codes: wanted an object, got {shown(value)}")
    for key, codes in value.items():
        if key not in _CODE_LISTS or not isinstance(codes, list):
            raise OrderError(f"codes.{key[:_MAX_SHOWN]}: wanted lists named {', '.join(_CODE_LISTS)}")
        for code in codes:
            try:
                code_bytes(code)
            except (TypeError, ValueError):
                raise OrderError(f"codes.{key}: not a trouble code: {shown(code)}") from None
    stored, pending, permanent = (tuple(value.get(key, ())) for key in _CODE_LISTS)
    return CodeMemory(stored, pending, permanent)


def _plugged(value: object) -> bool | str:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isalnum() and len(value) <= _MAX_SHOWN:
        return value
    raise OrderError(f"plugged: wanted true, false or a device name of letters and digits, got {shown(value)}")


class Orders:
    """What was ordered, by the time at which it begins to hold. Each field of the condition has its own line of time.

    Args:
        first: The condition at the beginning.
    """

    def __init__(self, first: Condition) -> None:
        self._lines: dict[str, list[tuple[float, object]]] = {
            each.name: [(-math.inf, getattr(first, each.name))] for each in fields(first)
        }
        # What holds for good, and from when on: mostly the answer, and a chip asks at every byte.
        self._settled = (-math.inf, first)

    def give(self, order: Order, now_s: float) -> None:
        """Obey an order from now on; it ends what was ordered of the same fields before.

        Args:
            order: Its changes count here.
            now_s: Seconds, never less than at the order before.
        """
        for name, value in order.changes.items():
            line = self._lines[name]
            after = line[-1][1]
            kept = [*(one for one in line if one[0] <= now_s), (now_s, value)]
            # Assigned whole: a thread that looks at the condition meanwhile sees the line before or the one after.
            self._lines[name] = kept if order.for_s is None else [*kept, (now_s + order.for_s, after)]
        settled_s = max(line[-1][0] for line in self._lines.values())
        self._settled = (settled_s, self._looked_up(settled_s))

    def at(self, now_s: float) -> Condition:
        """The condition at a time."""
        settled_s, condition = self._settled
        return condition if now_s >= settled_s else self._looked_up(now_s)

    def _looked_up(self, now_s: float) -> Condition:
        held = {
            name: next(value for since_s, value in reversed(line) if since_s <= now_s)
            for name, line in self._lines.items()
        }
        return Condition(**held)  # type: ignore[arg-type]  # the fields' values, checked by parse_order

    def ran_s(self, now_s: float) -> float:
        """For how long the ignition has been at "run" since 0, at a time from 0."""
        line = [(max(0.0, since_s), value) for since_s, value in self._lines["ignition"]]
        ends_s = [since_s for since_s, _ in line[1:]] + [math.inf]
        return sum(
            max(0.0, min(end_s, now_s) - since_s)
            for (since_s, value), end_s in zip(line, ends_s, strict=True)
            if value == "run"
        )
