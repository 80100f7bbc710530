"""A drive that never ends: stops, accelerations, gears, a warming engine, a closed road. Pure.

Everything follows from one speed profile: gear and engine speed from the ratios, torque from the forces on the car,
air and fuel from the torque, place from the distance. So the 36 items and the GPS tell one story. The ratios are
public: who is told them can derive the gear.
"""

import math
from dataclasses import dataclass

from components.virtual_car.identity import draw
from components.virtual_car.moment import O2, Moment, Value
from components.virtual_car.pids import ALL_KEYS
from components.virtual_car.road import Road

GEAR_RATIOS = (3.55, 2.05, 1.38, 1.03, 0.82, 0.66)
"""Engine turns per turn of the gearbox's output, first gear first."""
FINAL_DRIVE = 4.06
TYRE_CIRCUMFERENCE_M = 1.98
SHIFT_UP_KMH = (18.0, 35.0, 55.0, 78.0, 105.0)
"""Above the n-th speed the (n+1)-th gear is in."""
IDLE_RPM = 780.0
REFERENCE_TORQUE_NM = 220.0

# Duration in seconds and speed at its end in km/h; the first leg starts from a standstill, the last ends in one.
_LEGS = (
    (12, 0), (7, 32), (18, 32), (8, 50), (24, 53), (9, 0), (14, 0), (16, 70), (30, 72), (16, 98),
    (35, 95), (10, 60), (22, 58), (9, 30), (11, 34), (8, 0),
)  # fmt: skip
CYCLE_S = float(sum(duration for duration, _ in _LEGS))

_MASS_KG, _ROLLING, _DRAG = 1450.0, 0.012, 0.5 * 1.2 * 0.62
_FRICTION_NM, _DRIVETRAIN = 20.0, 0.92
_DISPLACEMENT_L, _FILLING = 2.0, 0.85
_AMBIENT_C, _AMBIENT_KPA = 18.0, 100.0


@dataclass(frozen=True)
class Motion:
    """How the car moves at one instant.

    Args:
        speed_m_s: 0 or more.
        acceleration_m_s2: Its derivative.
        distance_m: Its integral since the start of the cycle.
    """

    speed_m_s: float
    acceleration_m_s2: float
    distance_m: float


def _leg(t: float, duration: float, v0: float, v1: float) -> Motion:
    """A smooth passage between two speeds: half a cosine, so that speed, its slope and its integral are exact."""
    angle = math.pi * t / duration
    half = (v1 - v0) / 2
    return Motion(
        v0 + half * (1 - math.cos(angle)),
        half * math.pi / duration * math.sin(angle),
        v0 * t + half * (t - duration / math.pi * math.sin(angle)),
    )


def motion_at(cycle_s: float) -> Motion:
    """The motion at a time of the speed profile; the profile repeats every `CYCLE_S`."""
    rounds, rest = divmod(cycle_s, CYCLE_S)
    speed, distance = 0.0, rounds * CYCLE_M
    for duration, end_kmh in _LEGS:
        end = end_kmh / 3.6
        if rest < duration:
            now = _leg(rest, duration, speed, end)
            return Motion(now.speed_m_s, now.acceleration_m_s2, distance + now.distance_m)
        distance += duration * (speed + end) / 2
        rest -= duration
        speed = end
    return Motion(0.0, 0.0, distance)


CYCLE_M = sum(
    duration * (before + after) / 7.2
    for (duration, after), before in zip(_LEGS, (0, *(end for _, end in _LEGS)), strict=False)
)
"""Metres in one round of the speed profile."""


def gear_at(speed_m_s: float) -> int:
    """The gear at a speed, 1 to 6; at a standstill the first, with the clutch down."""
    return 1 + sum(speed_m_s * 3.6 > limit for limit in SHIFT_UP_KMH)


def rpm_of(speed_m_s: float, gear: int) -> float:
    """Engine speed with the clutch closed."""
    return speed_m_s / TYRE_CIRCUMFERENCE_M * 60 * GEAR_RATIOS[gear - 1] * FINAL_DRIVE


class DriveModel:
    """A car that drives.

    Args:
        seed: Another seed starts elsewhere, at another point of the speed profile.
    """

    supported = ALL_KEYS

    def __init__(self, seed: int = 0) -> None:
        self._phase_s = draw(seed, "phase", round(CYCLE_S))
        self._road = Road(seed)

    def at(self, elapsed_s: float) -> Moment:
        """What the car says at this time."""
        motion = motion_at(elapsed_s + self._phase_s)
        place = self._road.place(motion.distance_m, motion.speed_m_s)
        return Moment(engine_values(elapsed_s, motion, self._road.slope(motion.distance_m)), place)

    def next_fix_s(self, elapsed_s: float) -> float:
        """The receiver has news every full second."""
        return math.floor(elapsed_s + 1e-6) + 1.0


def engine_values(elapsed_s: float, motion: Motion, slope: float) -> dict[str, Value | None]:
    """The items of the engine.

    Args:
        elapsed_s: Since the engine was started, cold.
        motion: Of the car.
        slope: Of the road, metres up per metre.

    Returns:
        Every item that is not in the code memory, within what its PID can carry.
    """
    warmth = 1 - math.exp(-elapsed_s / 180)
    coolant_c = min(90.0, 20 + 71 * warmth) + 0.8 * math.sin(elapsed_s / 23) * warmth
    v = motion.speed_m_s
    idle = IDLE_RPM + 320 * (1 - warmth) + 12 * math.sin(elapsed_s * 1.7)
    rpm = max(idle, rpm_of(v, gear_at(v)))
    force_n = _MASS_KG * (motion.acceleration_m_s2 + 9.81 * (slope + (_ROLLING if v > 0 else 0))) + _DRAG * v * v
    brake_nm = force_n * v / (rpm * math.tau / 60) / _DRIVETRAIN
    overrun = brake_nm < -_FRICTION_NM and rpm > 1_150
    full_nm = REFERENCE_TORQUE_NM * (0.82 + 0.18 * math.exp(-(((rpm - 3_200) / 1_800) ** 2)))
    indicated_nm = 0.0 if overrun else min(full_nm, max(8.0, brake_nm + _FRICTION_NM))
    load = indicated_nm / full_nm
    manifold_kpa = 22.0 if overrun else 26 + (_AMBIENT_KPA - 28) * load
    intake_c = _AMBIENT_C + 6 + 9 * warmth - min(7.0, v / 4)
    air_g_l = manifold_kpa * 28.97 / (8.314 * (intake_c + 273.15))
    maf_g_s = rpm / 120 * _DISPLACEMENT_L * _FILLING * air_g_l
    pedal = 0.0 if overrun or brake_nm <= 0 else load**0.8
    throttle = 12.0 if overrun else 13.0 + 68 * load**1.3
    closed_loop = coolant_c > 45 and not overrun
    trims = _trims(elapsed_s, closed_loop)
    torque = indicated_nm / REFERENCE_TORQUE_NM * 100
    return {
        **trims,
        "fuel_status": 4 if overrun else 2 if closed_loop else 1,
        "load": load * 100,
        "temp": coolant_c,
        "fuel_pressure": 300 + 9 * math.sin(elapsed_s / 3),
        "manifold_pressure": manifold_kpa,
        "rpm": rpm,
        "speed": v * 3.6,
        "timing_advance": 8 + 16 * (1 - load) + min(8.0, (rpm - idle) / 250),
        "intake_air_temp": intake_c,
        "maf": maf_g_s,
        "throttle_pos": throttle,
        "secondary_air_status": 4,
        "obd_standard": 6,
        "o2_sensor_position_b": 0b00000011,
        "aux_input": False,
        "engine_time": min(65_535, int(elapsed_s)),
        "abs_load": maf_g_s * 120 / rpm / _DISPLACEMENT_L / 1.184 * 100,
        "rel_throttle_pos": throttle - 12,
        "ambient_air_temp": _AMBIENT_C,
        "abs_throttle_pos_b": throttle + 0.8,
        "acc_pedal_pos_d": 15 + 65 * pedal,
        "acc_pedal_pos_e": 7.5 + 32.5 * pedal,
        "comm_throttle_ac": throttle - 0.5,
        "rel_acc_pedal_pos": 80 * pedal,
        "eng_fuel_rate": 0.0 if overrun else maf_g_s / 14.7 * 3_600 / 745,
        "drv_demand_eng_torq": min(125.0, torque + 1.5 * (pedal > 0)),
        "act_eng_torq": torque,
        "eng_ref_torq": REFERENCE_TORQUE_NM,
    }


def _trims(elapsed_s: float, closed_loop: bool) -> dict[str, Value | None]:
    """Fuel trims and sensors: they swing while the loop is closed and rest while it is open."""
    short_1 = 2.8 * math.sin(elapsed_s * 2.1) if closed_loop else 0.0
    short_2 = 2.2 * math.sin(elapsed_s * 1.9 + 1) if closed_loop else 0.0
    swing = 0.38 * math.sin(elapsed_s * 5) if closed_loop else -0.3
    return {
        "short_term_fuel_trim_1": short_1,
        "long_term_fuel_trim_1": 5.5 + 1.2 * math.sin(elapsed_s / 70),
        "short_term_fuel_trim_2": short_2,
        "long_term_fuel_trim_2": 2.3 + 0.9 * math.sin(elapsed_s / 80 + 2),
        "o211": O2(0.45 + swing, short_1),
        "o212": O2(0.66 + 0.05 * math.sin(elapsed_s / 4), None),
    }
