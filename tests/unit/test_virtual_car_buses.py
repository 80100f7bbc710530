"""The adapter on every bus that OBD-II cars have: word for word on the chip, and as python-OBD reads it on a line."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import obd
import pytest

from components.virtual_car.car import Options, VirtualCar
from components.virtual_car.codes import CodeMemory
from components.virtual_car.orders import parse_order
from components.virtual_car.vehicle import Vehicle

CODES = CodeMemory(stored=("P0301", "P0420", "U0100", "C0035"), pending=("P0171",), permanent=("P0420",))


class Bench:
    """A chip at a car with this bus."""

    def __init__(self, bus: int, *settings: str, model: str = "v2.1", ignition: str = "on") -> None:
        self.vehicle = Vehicle(Options(parked=True, bus=bus, codes=CODES, model=model), lambda: 5.0)
        self.vehicle.obey(parse_order({"ignition": ignition}))
        self.chip = self.vehicle.adapter()
        self.waited_s = 0.0
        for setting in ("ATE0", "ATS0", *settings):
            self.say(setting)

    def say(self, command: str) -> list[str]:
        turn = self.chip.received(command.encode() + b"\r")
        out, self.waited_s = turn.out, 0.0
        while turn.wake_s is not None:
            self.waited_s += turn.wake_s
            turn = self.chip.woke()
            out += turn.out
        return out.decode().removesuffix("\r\r>").split("\r")


@pytest.mark.parametrize(
    ("bus", "name", "lines"),
    [
        (1, "SAE J1850 PWM", ["416B10410C0000DC"]),
        (2, "SAE J1850 VPW", ["486B10410C000053"]),
        (3, "ISO 9141-2", ["486B10410C000010"]),
        (4, "ISO 14230-4 (KWP 5BAUD)", ["84F110410C0000D2"]),
        (5, "ISO 14230-4 (KWP FAST)", ["84F110410C0000D2"]),
        (6, "ISO 15765-4 (CAN 11/500)", ["7E804410C0000"]),
        (7, "ISO 15765-4 (CAN 29/500)", ["18DAF11004410C0000"]),
        (8, "ISO 15765-4 (CAN 11/250)", ["7E804410C0000"]),
        (9, "ISO 15765-4 (CAN 29/250)", ["18DAF11004410C0000"]),
    ],
)
def test_a_search_finds_the_cars_bus_and_shows_its_headers(bus: int, name: str, lines: list[str]) -> None:
    bench = Bench(bus, "ATH1")
    assert bench.say("ATDPN") == ["A0"]
    assert bench.say("010C") == ["SEARCHING...", *lines]
    assert bench.say("010C") == lines
    assert (bench.say("ATDPN"), bench.say("ATDP")) == ([f"A{bus}"], [f"AUTO, {name}"])
    bench.say(f"ATSP{bus}")
    assert (bench.say("ATDPN"), bench.say("ATDP")) == ([f"{bus}"], [name])


def test_a_search_for_an_item_that_the_car_has_not_finds_the_bus_all_the_same() -> None:
    bench = Bench(7)
    assert bench.say("01A6") == ["SEARCHING...", "NO DATA"]
    assert bench.say("ATDPN") == ["A7"]


@pytest.mark.parametrize(
    ("bus", "opened", "failed"),
    [
        (3, "BUS INIT: ...OK", "BUS INIT: ...ERROR"),
        (4, "BUS INIT: ...OK", "BUS INIT: ...ERROR"),
        (5, "BUS INIT: OK", "BUS INIT: ERROR"),
    ],
)
def test_a_bus_that_must_be_opened_tells_so_once(bus: int, opened: str, failed: str) -> None:
    bench = Bench(bus, f"ATSP{bus}")
    assert bench.say("010D") == [opened, "410D00", "410D00"]
    slow_s = bench.waited_s
    assert bench.say("010D") == ["410D00", "410D00"]
    assert bench.waited_s < slow_s
    bench.say("ATPC")
    assert bench.say("01A6") == [opened, "NO DATA"]
    off = Bench(bus, f"ATSP{bus}", ignition="off")
    assert off.say("010D") == [failed]
    assert off.say("010D") == [failed]


@pytest.mark.parametrize(
    ("of_the_car", "tried", "says"),
    [
        (6, 1, "NO DATA"), (6, 3, "BUS INIT: ...ERROR"), (6, 5, "BUS INIT: ERROR"), (6, 7, "NO DATA"),
        (6, 8, "CAN ERROR"), (7, 6, "NO DATA"), (9, 8, "NO DATA"), (9, 6, "CAN ERROR"), (3, 6, "CAN ERROR"),
        (3, 4, "BUS INIT: ...ERROR"), (2, 1, "NO DATA"), (5, 11, "CAN ERROR"),
    ],
)  # fmt: skip
def test_on_another_bus_there_is_no_car(of_the_car: int, tried: int, says: str) -> None:
    assert Bench(of_the_car, f"ATSP{tried:X}").say("0100") == [says]


@pytest.mark.parametrize("bus", [1, 2, 3, 4, 5])
def test_before_can_codes_come_three_to_a_line_without_a_count(bus: int) -> None:
    bench = Bench(bus, "0100")
    assert bench.say("03") == ["4303010420C10000"[:14], "43403500000000", "43000000000000"]
    assert bench.say("07") == ["47017100000000", "47000000000000"]
    assert bench.say("0A") == ["4A042000000000", "4A000000000000"]


def test_before_can_the_vin_comes_in_five_numbered_lines_of_four_bytes() -> None:
    bench = Bench(3, "0100", "ATH1")
    lines = bench.say("0902")
    assert [line[:12] for line in lines] == [f"486B104902{number:02X}" for number in range(1, 6)]
    text = bytes.fromhex("".join(line[12:20] for line in lines))
    assert text == b"\0\0\0" + bench.vehicle.identity.vin.encode()
    for line in lines:
        assert sum(bytes.fromhex(line[:-2])) % 256 == int(line[-2:], 16)


def test_before_can_one_item_at_a_time_and_slower() -> None:
    older, can = Bench(3, "0100"), Bench(6, "0100")
    assert older.say("010C0D") == ["NO DATA"]
    assert older.say("020C00") == ["NO DATA"]
    assert older.say("020200") == ["42020000" + "00"]
    older.say("010C1")
    can.say("010C1")
    assert older.waited_s > can.waited_s


def test_a_hole_is_in_numbered_lines_too() -> None:
    bench = Bench(2, "0100")
    bench.vehicle.obey(parse_order({"fault": "hole"}))
    assert [line[4:6] for line in bench.say("0902")] == ["01", "03", "04", "05"]


@pytest.mark.parametrize(
    ("bus", "header", "answers"),
    [
        (7, "DB33F1", 2), (7, "18DB33F1", 2), (7, "DA10F1", 1), (7, "18DA18F1", 1), (7, "DA11F1", 0), (7, "7DF", 0),
        (3, "686AF1", 2), (3, "6810F1", 1), (5, "C233F1", 2), (5, "8118F1", 1), (1, "616AF1", 2), (1, "616A00", 0),
    ],
)  # fmt: skip
def test_a_header_chooses_who_is_asked(bus: int, header: str, answers: int) -> None:
    bench = Bench(bus, "0100", f"ATSH{header}")
    lines = bench.say("010D")
    assert lines == (["410D00"] * answers or ["NO DATA"])


@pytest.mark.parametrize(("bus", "receive", "sees"), [(7, "18DAF118", 1), (7, "7E8", 0), (8, "7E9", 1), (3, "7E9", 2)])
def test_a_receive_address_is_cans(bus: int, receive: str, sees: int) -> None:
    assert Bench(bus, "0100", f"ATCRA{receive}").say("010D") == (["410D00"] * sees or ["NO DATA"])


def test_frames_of_29_bits_have_a_space_behind_every_byte() -> None:
    assert Bench(7, "ATS1", "ATH1", "ATSP7").say("010C1") == ["18 DA F1 10 04 41 0C 00 00 "]


@pytest.mark.parametrize(("model", "says"), [("v2.1", "OK"), ("v1.5", "?")])
def test_the_older_chip_does_not_know_the_newer_commands(model: str, says: str) -> None:
    assert Bench(6, model=model).say("ATCTM5") == [says]


def test_python_obd_reads_every_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    # It waits seconds between its commands, whoever answers; its protocol does not need them.
    monkeypatch.setattr("obd.elm327.time", SimpleNamespace(sleep=lambda _seconds: None))
    # To python-OBD 3, 4 and 5 are one; 5 opens quickly. 6 has a test of its own.
    buses = (1, 2, 5, 7, 8)
    cars = [VirtualCar(Options(parked=True, bus=bus, codes=CODES, latency_s=0.002)) for bus in buses]
    try:
        with ThreadPoolExecutor(len(cars)) as pool:
            connections = list(pool.map(lambda car: obd.OBD(car.obd, fast=False), cars))
            try:
                assert [each.status() for each in connections] == [obd.OBDStatus.CAR_CONNECTED] * len(cars)
                assert [each.protocol_id() for each in connections] == [str(bus) for bus in buses]
                told = list(pool.map(asked, connections))
            finally:
                for each in connections:
                    each.close()
    finally:
        for car in cars:
            car.close()
    for bus, car, (rpm, coolant, codes, pending, vin) in zip(buses, cars, told, strict=True):
        assert rpm == 0, bus
        assert 50 < coolant <= 55, bus
        assert codes == list(CODES.stored), bus
        # Before CAN it takes the first byte of mode 07 for a count, and reads on in the middle of a code.
        assert bus < 6 or pending == list(CODES.pending), bus
        # It takes the digits 0, 1 and 2 at either end of a VIN for padding.
        assert vin == car.identity.vin.strip("012"), bus


def asked(connection: obd.OBD) -> tuple[float, float, list[str], list[str], str]:
    def value(name: str) -> obd.OBDResponse:
        return connection.query(obd.commands[name], force=True).value

    stored, pending = ([code for code, _ in value(name)] for name in ("GET_DTC", "GET_CURRENT_DTC"))
    return value("RPM").magnitude, value("COOLANT_TEMP").magnitude, stored, pending, value("VIN").decode().strip("\0")
