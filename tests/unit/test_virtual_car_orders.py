"""Orders and what a vehicle makes of them, on a clock of the test's own: no thread, no port."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.virtual_car.drive import DriveModel
from components.virtual_car.faults import FAULTS
from components.virtual_car.marked import MarkedDrive
from components.virtual_car.orders import OrderError, parse_order
from components.virtual_car.pids import ITEMS
from components.virtual_car.recording import UnreadableRecordingError, load_recording
from components.virtual_car.scenario import UnreadableScenarioError, load_scenario
from components.virtual_car.vehicle import Options, Vehicle


class Bench:
    """A vehicle, a chip at its bus, and a clock that a test sets."""

    def __init__(self, options: Options) -> None:
        self.now_s = 0.0
        self.vehicle = Vehicle(options, lambda: self.now_s)
        self.chip = self.vehicle.adapter()
        for command in ("ATE0", "ATS0", "ATSP6"):
            self.say(command)

    def order(self, **order: object) -> None:
        self.vehicle.obey(parse_order(order))

    def say(self, command: str) -> str:
        turn = self.chip.received(command.encode() + b"\r")
        out = turn.out
        while turn.wake_s is not None:
            turn = self.chip.woke()
            out += turn.out
        return out.decode().removesuffix("\r\r>")


@pytest.fixture
def bench() -> Bench:
    return Bench(Options(seed=3))


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"fault": "no_dta"}, "fault: 'no_dta' is none; there are no_data, "),
        ({"fault": ["no_data", 7]}, "fault: 7 is none"),
        ({"ignition": "of"}, "ignition: wanted one of run, on, off, crank, got 'of'"),
        ({"voltage": -1}, "voltage: wanted a number from 0 to 36"),
        ({"voltage": True}, "voltage: "),
        ({"slow_s": float("nan")}, "slow_s: "),
        ({"stall_s": "1"}, "stall_s: "),
        ({"codes": {"storied": []}}, "codes.storied: wanted lists named stored, pending, permanent"),
        ({"codes": {"stored": ["P042"]}}, "codes.stored: not a trouble code: 'P042'"),
        ({"codes": []}, "codes: wanted an object"),
        ({"plugged": "../x"}, "plugged: wanted true, false or a device name"),
        ({"plugged": False, "for_s": 1}, "for_s: not with codes or plugged"),
        ({"fault": None, "for_s": -1}, "for_s: "),
        ({"volts": 12}, "volts: no such order; there are fault, ignition, voltage"),
        (["fault"], "an order is an object"),
    ],
)
def test_an_order_that_nobody_can_obey_says_what_is_wrong(order: object, says: str) -> None:
    with pytest.raises(OrderError) as caught:
        parse_order(order)
    assert str(caught.value).startswith(says)


def test_an_order_with_an_end_gives_back_what_was_before(bench: Bench) -> None:
    bench.order(fault="no_data")
    bench.order(fault=["echo_on", "can_error"], voltage=9.5, for_s=10)
    assert bench.say("010C1") == "010C1\rCAN ERROR"
    assert bench.say("ATRV") == "ATRV\r9.5V"
    bench.now_s = 10
    assert bench.say("010C1") == "NO DATA"
    assert bench.say("ATRV") == "14.1V"


def test_an_order_without_end_ends_one_with(bench: Bench) -> None:
    bench.order(fault="no_data", for_s=10)
    bench.now_s = 5
    bench.order(fault="can_error")
    bench.now_s = 20
    assert bench.say("010C1") == "CAN ERROR"


def test_an_order_within_another_ends_in_what_comes_after_both(bench: Bench) -> None:
    bench.order(fault="no_data", for_s=10)
    bench.now_s = 5
    bench.order(fault="can_error", for_s=1)
    bench.now_s = 7
    assert bench.say("010C1").startswith("410C")


def test_with_the_ignition_off_nobody_answers_and_the_battery_rests(bench: Bench) -> None:
    bench.order(ignition="off")
    assert bench.say("0100") == "NO DATA"
    assert bench.say("ATRV") == "12.4V"
    bench.say("ATSP0")
    assert bench.say("0100") == "SEARCHING...\rUNABLE TO CONNECT"


def test_with_the_engine_off_the_units_say_that_it_stands(bench: Bench) -> None:
    bench.order(ignition="on")
    assert (bench.say("010C1"), bench.say("010D1"), bench.say("ATRV")) == ("410C0000", "410D00", "12.4V")


def test_the_starter_turns_the_engine_and_pulls_the_battery_down(bench: Bench) -> None:
    bench.order(ignition="on")
    bench.order(ignition="crank", for_s=1)
    assert 100 < int(bench.say("010C1")[4:], 16) / 4 < 400
    assert bench.say("ATRV") == "9.6V"
    bench.now_s = 1
    bench.order(ignition="run")
    assert int(bench.say("010C1")[4:], 16) / 4 > 600
    assert bench.say("ATRV") == "14.1V"


def test_a_parked_car_can_be_started(bench: Bench) -> None:
    bench = Bench(Options(parked=True))
    assert bench.say("010C1") == "410C0000"
    bench.order(ignition="run")
    assert int(bench.say("010C1")[4:], 16) / 4 > 600
    assert bench.say("010D1") == "410D00"


def test_the_drive_goes_on_only_while_the_engine_runs(bench: Bench) -> None:
    drive = DriveModel(3)
    bench.now_s = 20
    bench.order(ignition="off")
    bench.now_s = 50
    place = bench.vehicle.at(50).place
    before = drive.at(20).place
    assert place is not None
    assert before is not None
    assert (place.lat, place.lon, place.speed_m_s) == (before.lat, before.lon, 0.0)
    bench.order(ignition="run")
    bench.now_s = 57
    assert bench.vehicle.at(57) == drive.at(27)


def test_without_orders_it_is_the_drive_at_every_time(bench: Bench) -> None:
    drive = DriveModel(3)
    for at_s in (0.0, 0.1, 12.345, 1e5):
        assert bench.vehicle.at(at_s) == drive.at(at_s)
        assert bench.vehicle.next_fix_s(at_s) == drive.next_fix_s(at_s)


def test_codes_come_with_a_freeze_frame_and_go_with_it(bench: Bench) -> None:
    bench.say("ATSH7E0")
    bench.order(codes={"stored": ["P0301", "U0100"], "permanent": ["P0301"]})
    assert [bench.say(mode) for mode in ("03", "07", "0A")] == ["43020301C100", "4700", "4A010301"]
    assert bench.say("020200") == "4202000301"
    assert bench.say("020C00") == "420C00" + bench.say("010C1")[4:]
    bench.order(codes={})
    assert bench.say("03") == "4300"
    assert bench.say("020200") == "4202000000"


def test_an_order_leaves_the_codes_alone_unless_it_is_about_them(bench: Bench) -> None:
    bench.order(codes={"stored": ["P0301"]})
    bench.order(fault=None, voltage=12)
    assert bench.vehicle.state()["codes"] == {"stored": ("P0301",), "pending": (), "permanent": ()}


def test_the_car_knows_what_it_has_said_and_when(bench: Bench) -> None:
    bench.now_s = 3
    one = bytes.fromhex(bench.say("010C1")[4:])
    bench.now_s = 9
    group = bench.say("010D0C")
    assert group.startswith("410D")
    said = bench.vehicle.said
    assert said.has(0x0C, one, by_s=3)
    assert not said.has(0x0C, one, by_s=2.9)
    assert not said.has(0x0D, one, by_s=9)
    assert said.has(0x0D, bytes.fromhex(group[4:6]), by_s=9, since_s=9)
    assert said.last(0x0C, by_s=8.9) == one
    assert said.last(0x05, by_s=9) is None


def test_a_fault_changes_what_is_heard_and_not_what_was_said(bench: Bench) -> None:
    bench.order(fault="rx_error")
    heard = bench.say("010C1").removesuffix("<RX ERROR")[4:]
    said = bench.vehicle.said
    assert said.last(0x0C, 0) is not None
    assert not said.has(0x0C, bytes.fromhex(heard), by_s=0)


def test_no_two_moments_of_a_marked_car_are_alike() -> None:
    drive = MarkedDrive()
    wide = [item.key for item in ITEMS if item.size == 2 and item.key != "fuel_status"]
    narrow = ("temp", "speed", "load", "throttle_pos")
    steps = [drive.at(step / 10).values for step in range(255)]
    for key in (*wide, *narrow):
        assert len({moment[key] for moment in steps}) == len(steps), key
    assert all(len({moment[key] for key in narrow}) == len(narrow) for moment in steps)


def test_a_marked_car_says_its_marks() -> None:
    bench = Bench(Options(marked=True))
    bench.now_s = 12.3
    temp = MarkedDrive().at(12.3).values["temp"]
    assert isinstance(temp, bytes)
    assert bench.say("01051") == "4105" + temp.hex().upper()


def test_a_scenario_may_be_toml_or_json(tmp_path: Path) -> None:
    as_toml, as_json = tmp_path / "scenario.toml", tmp_path / "scenario.json"
    as_toml.write_text('[[moments]]\nat_s = 9\nignition = "off"\n[[moments]]\nat_s = 1.5\nfault = "nul"\nfor_s = 2\n')
    moments = [{"at_s": 9, "ignition": "off"}, {"at_s": 1.5, "fault": "nul", "for_s": 2}]
    as_json.write_text(json.dumps({"moments": moments}))
    scenes = load_scenario(as_toml)
    assert scenes == load_scenario(as_json)
    assert [(scene.at_s, scene.order) for scene in scenes] == [
        (1.5, parse_order({"fault": "nul", "for_s": 2})),
        (9, parse_order({"ignition": "off"})),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "moments: wanted a list"),
        ('{"moments": [7]}', "moments[0]: wanted an object"),
        ('{"moments": [{"fault": null}]}', "moments[0].at_s: wanted seconds"),
        ('{"moments": [{"at_s": 1}, {"at_s": 2, "fault": "x"}]}', "moments[1].fault: 'x' is none"),
    ],
)
def test_a_scenario_that_cannot_be_played_says_where_it_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "scenario.json"
    path.write_text(text)
    with pytest.raises(UnreadableScenarioError) as caught:
        load_scenario(path)
    assert str(caught.value).startswith(f"{path}: {says}")


@pytest.mark.parametrize("key", ["at_s", "voltage", "for_s", "ignition", "fault", "codes", "plugged", "x" * 9_000])
@pytest.mark.parametrize("value", ["0x" + "f" * 4_000, '"' + "x" * 9_000 + '"', "[" * 200 + "]" * 200, "1e300"])
def test_a_value_that_is_out_of_all_bounds_is_named_in_a_short_line(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(f"[[moments]]\nat_s = 1\n{key} = {value}".replace("at_s = 1\nat_s", "at_s"))
    with pytest.raises(UnreadableScenarioError, match=rf"moments\[0\]\.{key[:5]}") as caught:
        load_scenario(path)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("load", [load_scenario, load_recording])
def test_a_pipe_is_not_waited_for(tmp_path: Path, load: Callable[[Path], object]) -> None:
    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    with pytest.raises((UnreadableScenarioError, UnreadableRecordingError), match="is not a file"):
        load(path)


NOISE = st.binary(max_size=24) | st.sampled_from(
    [b"ATZ\r", b"ATD\r", b"010C1\r", b"0902\r", b"03\r", b"\r", b"ATSP0\r"]
)
CHOSEN = st.lists(st.sampled_from(sorted(FAULTS)), max_size=4)


@given(st.lists(st.tuples(CHOSEN, NOISE), max_size=8), st.integers(1, 9))
def test_whatever_is_said_under_whatever_faults_the_chip_comes_to_rest(
    script: list[tuple[list[str], bytes]], bus: int
) -> None:
    bench = Bench(Options(bus=bus))
    for faults, noise in script:
        bench.order(fault=faults)
        turn = bench.chip.received(noise)
        for _ in range(5):
            if turn.wake_s is not None:
                turn = bench.chip.woke()
        assert turn.wake_s is None
    # What was begun is ended by one character, or was ended already; then the line is clean.
    bench.order(fault=None)
    bench.say("x")
    assert bench.say("ATI").removeprefix("ATI\r").strip() == "ELM327 v2.1"
