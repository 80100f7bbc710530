"""The drive model tells one story on the bus and on the GPS; so does the parked car."""

import math

import pytest

from components.virtual_car.drive import (
    CYCLE_M,
    CYCLE_S,
    GEAR_RATIOS,
    DriveModel,
    gear_at,
    motion_at,
    rpm_of,
)
from components.virtual_car.identity import identity_of, luhn, vin_check_digit
from components.virtual_car.moment import Moment, Place
from components.virtual_car.parked import ParkedCar, parked_codes
from components.virtual_car.pids import BY_KEY, BY_PID

SOME_ROUNDS = [step * 0.7 for step in range(round(3 * CYCLE_S / 0.7))]


def number(moment: Moment, key: str) -> float:
    value = moment.values[key]
    assert isinstance(value, int | float)
    return value


def place(moment: Moment) -> Place:
    assert moment.place is not None
    return moment.place


@pytest.mark.parametrize("seed", range(5))
def test_every_item_fits_its_bytes_at_all_times(seed: int) -> None:
    drive = DriveModel(seed)
    for elapsed_s in [*SOME_ROUNDS, 10_000.0, 100_000.0]:
        values = drive.at(elapsed_s).values
        assert set(values) == set(BY_KEY)
        for item in BY_PID.values():
            value = values[item.key]
            assert value is not None
            assert len(item.encode(value)) == item.size


def test_the_car_stops_shifts_and_uses_all_but_the_highest_gear() -> None:
    speeds = [motion_at(elapsed_s).speed_m_s * 3.6 for elapsed_s in SOME_ROUNDS]
    assert min(speeds) == 0
    assert 90 < max(speeds) < 120
    assert {gear_at(speed / 3.6) for speed in speeds} == {1, 2, 3, 4, 5}


def test_engine_speed_is_road_speed_times_the_gear() -> None:
    drive = DriveModel(3)
    for elapsed_s in SOME_ROUNDS:
        moment = drive.at(elapsed_s)
        speed_m_s = number(moment, "speed") / 3.6
        if speed_m_s > 5:
            derived = [rpm_of(speed_m_s, gear) for gear in range(1, len(GEAR_RATIOS) + 1)]
            assert min(abs(each - number(moment, "rpm")) for each in derived) < 1


def test_acceleration_and_distance_belong_to_the_speed() -> None:
    for cycle_s in SOME_ROUNDS:
        before, now, after = motion_at(cycle_s), motion_at(cycle_s + 0.005), motion_at(cycle_s + 0.01)
        assert (after.speed_m_s - before.speed_m_s) / 0.01 == pytest.approx(now.acceleration_m_s2, abs=0.02)
        assert (after.distance_m - before.distance_m) / 0.01 == pytest.approx(now.speed_m_s, abs=0.02)
    assert motion_at(2 * CYCLE_S).distance_m == pytest.approx(2 * CYCLE_M)


def test_places_headings_and_climb_belong_to_the_speed() -> None:
    drive = DriveModel(7)
    for elapsed_s in SOME_ROUNDS:
        moment = drive.at(elapsed_s)
        here, there = place(moment), place(drive.at(elapsed_s + 0.1))
        north = (there.lat - here.lat) * 111_320
        east = (there.lon - here.lon) * 111_320 * math.cos(math.radians(here.lat))
        speed, heading, climb, up, before = (
            here.speed_m_s, here.heading_deg, here.climb_m_s, there.altitude_m, here.altitude_m,
        )  # fmt: skip
        assert speed is not None
        assert heading is not None
        assert climb is not None
        assert up is not None
        assert before is not None
        assert number(moment, "speed") == pytest.approx(speed * 3.6)
        assert math.hypot(north, east) == pytest.approx(speed * 0.1, abs=0.03)
        assert (up - before) / 0.1 == pytest.approx(climb, abs=0.05)
        if speed > 2:
            turned = (math.degrees(math.atan2(east, north)) - heading + 180) % 360 - 180
            assert abs(turned) < 1


def test_load_air_fuel_and_torque_go_together() -> None:
    moments = [DriveModel().at(elapsed_s) for elapsed_s in SOME_ROUNDS]
    idle = [moment for moment in moments if number(moment, "speed") == 0]
    hard = [moment for moment in moments if number(moment, "load") > 60]
    overrun = [moment for moment in moments if moment.values["fuel_status"] == 4]
    assert idle
    assert hard
    assert overrun
    for key in ("load", "maf", "manifold_pressure", "throttle_pos", "acc_pedal_pos_d", "act_eng_torq", "eng_fuel_rate"):
        assert max(number(moment, key) for moment in idle) < min(number(moment, key) for moment in hard), key
    assert {number(moment, "eng_fuel_rate") for moment in overrun} == {0.0}
    assert max(number(moment, "load") for moment in moments) <= 100


def test_the_engine_warms_up_and_its_time_counts() -> None:
    drive = DriveModel()
    assert number(drive.at(0.0), "temp") == pytest.approx(20, abs=1)
    assert number(drive.at(1_800.0), "temp") == pytest.approx(90, abs=1.5)
    assert [number(drive.at(elapsed_s), "engine_time") for elapsed_s in (0.0, 61.5, 1e6)] == [0, 61, 65_535]
    assert drive.at(1.0).values["fuel_status"] in {1, 4}, "a cold engine does not listen to its sensors"


def test_another_seed_is_another_car_and_the_same_seed_the_same() -> None:
    assert DriveModel(1).at(50.0) == DriveModel(1).at(50.0)
    assert place(DriveModel(1).at(50.0)).lat != place(DriveModel(2).at(50.0)).lat
    assert len({identity_of(seed).vin for seed in range(50)}) == 50


def test_a_fix_is_due_every_full_second() -> None:
    assert [DriveModel().next_fix_s(elapsed_s) for elapsed_s in (0.0, 0.4, 1.0, 1.9999999)] == [1.0, 1.0, 2.0, 3.0]


def test_the_parked_car_stands_with_the_ignition_on() -> None:
    car = ParkedCar(2)
    moment = car.at(12.0)
    assert not moment.engine_runs
    assert [number(moment, key) for key in ("rpm", "speed", "load", "maf", "eng_fuel_rate", "engine_time")] == [0] * 6
    assert place(moment) == place(car.at(5_000.0))
    assert place(moment).speed_m_s == 0
    for item in BY_PID.values():
        value = moment.values[item.key]
        assert value is not None
        assert len(item.encode(value)) == item.size
    codes = parked_codes(2)
    assert codes.stored == ("P0420",)
    assert codes.mil
    assert not codes.pending
    assert codes.freeze is not None
    assert codes.freeze.moment.engine_runs


def test_identifiers_have_valid_check_digits() -> None:
    for seed in range(20):
        who = identity_of(seed)
        assert len(who.vin) == 17
        assert who.vin[8] == vin_check_digit(who.vin)
        assert not set("IOQ") & set(who.vin)
        assert len(who.iccid) == 19
        assert who.iccid[-1] == luhn(who.iccid[:-1])
        assert len(who.imei) == 15
        assert who.imei[-1] == luhn(who.imei[:-1])


def test_check_digits_of_known_numbers() -> None:
    assert vin_check_digit("11111111111111111") == "1"
    assert luhn("49015420323751") == "8"
