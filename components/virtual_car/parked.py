"""A car at rest: engine off, or at idle. Pure."""

import math
from dataclasses import replace

from components.virtual_car.codes import CodeMemory, FreezeFrame
from components.virtual_car.drive import DriveModel, Motion, engine_values
from components.virtual_car.identity import draw
from components.virtual_car.moment import O2, Moment, Value
from components.virtual_car.pids import ALL_KEYS
from components.virtual_car.road import ROUND_M, Road

_STARTER_RPM = 190.0

_ENGINE_OFF: dict[str, Value | None] = {
    "fuel_status": 0,
    "load": 0.0,
    "short_term_fuel_trim_1": 0.0,
    "short_term_fuel_trim_2": 0.0,
    "fuel_pressure": 0.0,
    "manifold_pressure": 100.0,
    "rpm": 0.0,
    "speed": 0.0,
    "timing_advance": 0.0,
    "maf": 0.0,
    "throttle_pos": 16.0,
    "o211": O2(0.45, 0.0),
    "o212": O2(0.45, None),
    "abs_load": 0.0,
    "rel_throttle_pos": 4.0,
    "abs_throttle_pos_b": 16.8,
    "comm_throttle_ac": 15.5,
    "eng_fuel_rate": 0.0,
    "drv_demand_eng_torq": 0.0,
    "act_eng_torq": 0.0,
}


def at_rest(moment: Moment, *, cranks: bool = False) -> Moment:
    """The car of this moment, standing with its engine off.

    Args:
        moment: Only what it has a value for gets another one.
        cranks: The starter turns the engine.
    """
    off = _ENGINE_OFF | ({"rpm": _STARTER_RPM} if cranks else {})
    values = {key: off.get(key, value) if value is not None else None for key, value in moment.values.items()}
    place = moment.place and replace(moment.place, climb_m_s=0.0, speed_m_s=0.0)
    return Moment(values, place)


class IdlingCar:
    """A car that stands and whose engine runs.

    Args:
        seed: Where it stands.
    """

    supported = ALL_KEYS

    def __init__(self, seed: int = 0) -> None:
        self._place = Road(seed).place(draw(seed, "parking", round(ROUND_M)), 0.0)

    def at(self, elapsed_s: float) -> Moment:
        """What the car says so long after a cold start."""
        return Moment(engine_values(elapsed_s, Motion(0.0, 0.0, 0.0), 0.0), self._place)

    def next_fix_s(self, elapsed_s: float) -> float:
        """The receiver has news every full second."""
        return math.floor(elapsed_s + 1e-6) + 1.0


class ParkedCar(IdlingCar):
    """A car with the ignition on and the engine off."""

    def at(self, elapsed_s: float) -> Moment:
        """What the car says at this time: the engine cools, nothing else changes."""
        still = at_rest(super().at(0.0))
        return Moment({**still.values, "temp": 20 + 35 * math.exp(-elapsed_s / 1_800)}, still.place)


def parked_codes(seed: int = 0) -> CodeMemory:
    """The engine's code memory of the parked car: one stored code, with the moment at which it was stored."""
    return CodeMemory(stored=("P0420",), freeze=FreezeFrame("P0420", DriveModel(seed).at(600.0)))
