"""A car at rest with the ignition on: the engine stands, one code is stored. Pure."""

import math

from components.virtual_car.codes import CodeMemory, FreezeFrame
from components.virtual_car.drive import DriveModel, Motion, engine_values
from components.virtual_car.identity import draw
from components.virtual_car.moment import O2, Moment, Value
from components.virtual_car.pids import ALL_KEYS
from components.virtual_car.road import ROUND_M, Road


class ParkedCar:
    """A car that stands.

    Args:
        seed: Where it stands.
    """

    supported = ALL_KEYS

    def __init__(self, seed: int = 0) -> None:
        self._place = Road(seed).place(draw(seed, "parking", round(ROUND_M)), 0.0)

    def at(self, elapsed_s: float) -> Moment:
        """What the car says at this time: the engine cools, nothing else changes."""
        coolant_c = 20 + 35 * math.exp(-elapsed_s / 1_800)
        still = engine_values(0.0, Motion(0.0, 0.0, 0.0), 0.0)
        values: dict[str, Value | None] = {
            **still,
            "fuel_status": 0,
            "load": 0.0,
            "temp": coolant_c,
            "short_term_fuel_trim_1": 0.0,
            "short_term_fuel_trim_2": 0.0,
            "fuel_pressure": 0.0,
            "manifold_pressure": 100.0,
            "rpm": 0.0,
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
        return Moment(values, self._place)

    def next_fix_s(self, elapsed_s: float) -> float:
        """The receiver has news every full second."""
        return math.floor(elapsed_s + 1e-6) + 1.0


def parked_codes(seed: int = 0) -> CodeMemory:
    """The engine's code memory of the parked car: one stored code, with the moment at which it was stored."""
    return CodeMemory(stored=("P0420",), freeze=FreezeFrame("P0420", DriveModel(seed).at(600.0)))
