"""A scenario: orders with their times, from a file. Reading the file is the one thing here that is not pure.

JSON: `{"moments": [{"at_s": 10, "fault": "no_data", "for_s": 5}, …]}`; TOML: `[[moments]]` tables of the same keys.
Beside `at_s`, seconds since T0, a moment has the keys of an order (`orders`).
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from components.bounded_file import read_text
from components.settings import shown
from components.virtual_car.orders import Order, OrderError, parse_order
from components.wire.errors import ConfigError

_MAX_BYTES: Final = 1024 * 1024
_LAST_S: Final = 365 * 86_400


class UnreadableScenarioError(Exception):
    """A scenario that cannot be played; the text says where it is wrong."""


@dataclass(frozen=True)
class Scene:
    """One moment of a scenario.

    Args:
        at_s: When, seconds since T0.
        order: What.
    """

    at_s: float
    order: Order


def load_scenario(path: Path) -> tuple[Scene, ...]:
    """Read a scenario, by time; what is at the same time stays in the order of the file.

    Raises:
        UnreadableScenarioError: There is no such file, or it is no scenario.
    """
    try:
        text = read_text(path, _MAX_BYTES)
        document = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ConfigError as error:
        raise UnreadableScenarioError(str(error)) from error
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise UnreadableScenarioError(f"{path}: is not {kind}: {error}") from error
    try:
        return parse_scenario(document)
    except OrderError as error:
        raise UnreadableScenarioError(f"{path}: {error}") from error


def parse_scenario(document: object) -> tuple[Scene, ...]:
    """Understand a scenario, as JSON or TOML gives it.

    Raises:
        OrderError: It is none; the text begins with the place.
    """
    moments = document.get("moments") if isinstance(document, Mapping) else None
    if not isinstance(moments, list):
        raise OrderError("moments: wanted a list")
    return tuple(sorted((_scene(moment, f"moments[{n}]") for n, moment in enumerate(moments)), key=lambda at: at.at_s))


def _scene(moment: object, where: str) -> Scene:
    if not isinstance(moment, Mapping):
        raise OrderError(f"{where}: wanted an object, got {shown(moment)}")
    at_s = moment.get("at_s")
    if isinstance(at_s, bool) or not isinstance(at_s, int | float) or not 0 <= at_s <= _LAST_S:
        raise OrderError(f"{where}.at_s: wanted seconds from 0 to {_LAST_S}, got {shown(at_s)}")
    try:
        order = parse_order({key: value for key, value in moment.items() if key != "at_s"})
    except OrderError as error:
        raise OrderError(f"{where}.{error}") from error
    return Scene(float(at_s), order)
