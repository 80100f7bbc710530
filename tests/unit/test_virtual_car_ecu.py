"""The control units: request in, answer out."""

import pytest

from components.virtual_car.codes import CodeMemory, FreezeFrame, code_bytes
from components.virtual_car.drive import DriveModel
from components.virtual_car.identity import identity_of
from components.virtual_car.moment import Moment
from components.virtual_car.pids import ALL_KEYS
from components.virtual_car.vehicle_bus import ENGINE, TRANSMISSION, VehicleBus, two_unit_bus

RUNNING = Moment({"rpm": 1726.0, "speed": 50.4, "temp": 90.6, "maf": None}, None)
STANDING = Moment({"rpm": 0.0, "speed": 0.0}, None)
FAULTY = CodeMemory(
    stored=("P0420", "U0100"), pending=("P0171",), permanent=("P0420",), freeze=FreezeFrame("P0420", RUNNING)
)


def car(codes: CodeMemory = FAULTY, supported: frozenset[str] = ALL_KEYS) -> VehicleBus:
    return two_unit_bus(supported, codes, identity_of(1))


def ask(bus: VehicleBus, request: str, moment: Moment = RUNNING, address: int = 0x7E0) -> str | None:
    answers = bus.ask(address, bytes.fromhex(request), moment)
    assert len(answers) <= 1
    return answers[0][1].hex(" ") if answers else None


def test_all_units_hear_a_functional_request_and_the_engine_answers_first() -> None:
    assert car().ask(0x7DF, bytes.fromhex("010D"), RUNNING) == [
        (ENGINE, bytes.fromhex("410D32")),
        (TRANSMISSION, bytes.fromhex("410D32")),
    ]
    assert car().ask(0x7DF, bytes.fromhex("010C"), RUNNING) == [(ENGINE, bytes.fromhex("410C1AF8"))]


def test_a_fully_equipped_car_has_the_36_items() -> None:
    assert len(ALL_KEYS) == 36
    masks = {base: ask(car(), f"01{base:02X}") for base in (0x00, 0x20, 0x40, 0x60, 0x80)}
    assert masks == {
        0x00: "41 00 ff ff d8 1f",
        0x20: "41 20 00 00 00 01",
        0x40: "41 40 2e d0 00 45",
        0x60: "41 60 e0 00 00 00",
        0x80: None,
    }


def test_the_masks_follow_from_what_the_car_has() -> None:
    small = car(supported=frozenset({"rpm", "speed"}))
    assert ask(small, "0100") == "41 00 00 18 00 00"
    assert ask(small, "0120") is None
    assert ask(small, "0100", address=0x7E1) == "41 00 00 08 00 00"
    assert ask(small, "0105") is None, "the drive has a temperature, this car has no sensor"


def test_a_request_of_several_pids_is_answered_by_those_that_have_a_value() -> None:
    assert ask(car(), "01 0D 10 05 0C A6") == "41 0d 32 05 83 0c 1a f8"
    assert ask(car(), "01 10 A6") is None
    assert ask(car(), "01 0C 0C 0C 0C 0C 0C 0C") is None, "seven are too many"


def test_status_tells_lamp_and_number_of_codes() -> None:
    assert ask(car(), "0101") == "41 01 82 07 e5 00"
    assert ask(car(CodeMemory(pending=("P0171",))), "0101") == "41 01 00 07 e5 00"


def test_code_lists_carry_their_number() -> None:
    assert ask(car(), "03") == "43 02 04 20 c1 00"
    assert ask(car(), "07") == "47 01 01 71"
    assert ask(car(), "0A") == "4a 01 04 20"
    assert ask(car(), "03", address=0x7E1) == "43 00"


def test_the_freeze_frame_is_read_by_pid_and_frame_number() -> None:
    bus = car()
    assert ask(bus, "02 02 00", STANDING) == "42 02 00 04 20"
    assert ask(bus, "02 0C 00", STANDING) == "42 0c 00 1a f8"
    assert ask(bus, "02 0C 00 0D 00", STANDING) == "42 0c 00 1a f8 0d 00 32"
    assert ask(bus, "02 0C 01", STANDING) is None
    assert ask(bus, "02 0C", STANDING) is None, "the frame number is missing"
    assert ask(bus, "0102") == "41 02 04 20"


def test_without_a_freeze_frame_only_its_absence_is_told() -> None:
    bus = car(CodeMemory())
    assert ask(bus, "02 02 00") == "42 02 00 00 00"
    assert ask(bus, "02 00 00") == "42 00 00 40 00 00 00"
    assert ask(bus, "02 0C 00") is None


def test_clearing_is_refused_while_the_engine_runs() -> None:
    bus = car()
    assert [answer.hex() for _, answer in bus.ask(0x7DF, b"\x04", RUNNING)] == ["7f0422", "7f0422"]
    assert ask(bus, "03") == "43 02 04 20 c1 00"


def test_clearing_forgets_everything_but_permanent_codes() -> None:
    bus = car()
    assert ask(bus, "04", STANDING) == "44"
    assert (ask(bus, "03"), ask(bus, "07"), ask(bus, "0A")) == ("43 00", "47 00", "4a 01 04 20")
    assert ask(bus, "02 02 00") == "42 02 00 00 00"
    assert ask(bus, "0101") == "41 01 00 77 e5 e5", "lamp off, self-tests to be run again"


def test_vehicle_information() -> None:
    vin = identity_of(1).vin.encode()
    bus = car()
    assert bus.ask(0x7DF, b"\x09\x02", RUNNING) == [(ENGINE, b"\x49\x02\x01" + vin)]
    assert ask(bus, "0900") == "49 00 50 40 00 00"
    assert len(bus.ask(0x7E0, b"\x09\x04", RUNNING)[0][1]) == 3 + 16
    assert bus.ask(0x7E0, b"\x09\x0a", RUNNING)[0][1][3:] == b"ECM\x00-EngineControl".ljust(20, b"\x00")
    assert ask(bus, "0906") is None


@pytest.mark.parametrize("request_hex", ["06", "08", "22F190", "0301", "09", "02", "01"])
def test_what_a_unit_does_not_know_it_does_not_answer(request_hex: str) -> None:
    assert ask(car(), request_hex) is None


def test_a_code_is_two_bytes() -> None:
    assert [code_bytes(code).hex() for code in ("P0171", "C1234", "B2345", "U3FFF")] == ["0171", "5234", "a345", "ffff"]
    with pytest.raises(ValueError, match="P0"):
        code_bytes("P017")


def test_the_drive_model_answers_every_pid_that_its_masks_promise() -> None:
    bus, moment = car(), DriveModel().at(100.0)
    for base in (0x00, 0x20, 0x40, 0x60):
        mask = int.from_bytes(bus.ask(0x7E0, bytes([1, base]), moment)[0][1][2:], "big")
        for bit in range(32):
            if mask >> (31 - bit) & 1:
                assert bus.ask(0x7E0, bytes([1, base + bit + 1]), moment)
