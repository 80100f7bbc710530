"""The demo: what it makes arrives, by its own report and by what the stores tell, however it is ended."""

import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from components.wire.times import iso_ms
from tests.commands import odograph
from tests.demos import Run, begin, readings_of
from tests.journey_fleet import PERIOD_S, lines, one_line
from tests.replayed import rows_that_came_back
from tests.waiting import PATIENCE_S, until

RECORDING_T0_MS = 1_795_255_500_000
STEP_MS = 2_000


def recording() -> dict[str, Any]:
    """A minute of 30 rows, 2 s each, in which no row is like its neighbours; some signals are never there."""
    rows = [
        {
            "time": iso_ms(RECORDING_T0_MS + k * STEP_MS + 100),
            "speed": 10 + 3 * k,
            "rpm": 1000 + 50 * k,
            "throttle_pos": 20 * 100 / 255 if k % 2 else 40 * 100 / 255,
            "temp": 60 + k,
            "maf": None,
            "gear": 3,
            "fuel_status_raw": "0200",
            "location": {"type": "Point", "coordinates": [8.5 + k / 1000, 47.25 + k / 1000]},
            "heading": 7.5 * k,
            "altitude": 400.0 + k,
            "climb": 0.5,
            "gps_speed": 3.25 + k,
        }
        for k in range(30)
    ]
    return {"minute": iso_ms(RECORDING_T0_MS), "readings": rows}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Run]]:
    """Two demos beside each other: most of their time is waiting."""
    base = tmp_path_factory.mktemp("demo")
    (base / "minute.json").write_text(json.dumps(recording()))
    begun = {
        "cars": begin(base / "cars", "--for", 12, "--cars", 2),
        "replay": begin(base / "replay", "--for", 20, "--replay", base / "minute.json"),
    }
    yield begun
    for run in begun.values():
        if run.process.poll() is None:
            run.process.terminate()
        run.process.wait(PATIENCE_S)


def test_two_cars_drive_and_everything_arrives_and_nothing_is_left_behind(runs: Mapping[str, Run]) -> None:
    out = runs["cars"].ended()
    report = runs["cars"].report
    assert "balanced" in out
    assert "NOT" not in out
    assert report["made"] == report["stored"] == report["fed"] == report["receipted"] >= 4
    assert (report["duplicates"], report["rejected"], report["devices"]) == (0, 0, ["car_01", "car_02"])
    assert report["readings_stored"] == report["readings_recorded"] >= 20
    assert 0 < report["packet_bytes"]["min"] <= report["packet_bytes"]["median"] <= report["packet_bytes"]["max"]


def test_what_the_stores_tell_afterwards_is_what_the_report_says(runs: Mapping[str, Run]) -> None:
    run = runs["cars"]
    run.process.wait(PATIENCE_S)
    minutes = {car: lines("minutes", car, "--archive", run.archive, "--readings") for car in ("car_01", "car_02")}
    every = [minute for found in minutes.values() for minute in found]
    assert len(every) == run.report["stored"]
    assert sum(len(minute["readings"]) for minute in every) == run.report["readings_stored"]
    for car, found in minutes.items():
        assert {(minute["device"], minute["account"], minute["vehicle"]) for minute in found} == {
            (car, "demo", "virtual-car")
        }
        assert {minute["period_s"] for minute in found} == {PERIOD_S}
        assert [minute["start"] for minute in found] == sorted(minute["start"] for minute in found)
        assert len({minute["identity"]["vin"] for minute in found} - {None}) == 1
    events = lines("feed", "tail", "--from-start", "--home", run.home)
    ids = [event["id"] for event in events]
    assert len(ids) == len(set(ids))
    wanted = {f"{minute['id']}/{tail}" for minute in every for tail in ("summary", *readings_of(minute))}
    wanted |= {f"{minute['id']}/d{n}" for minute in every for n in range(len(minute["dtcs"]))}
    assert set(ids) == wanted
    readings = {event["id"]: event["data"] for event in events if event["type"] == "odograph.reading.v1"}
    for minute in every:
        for n, row in enumerate(minute["readings"]):
            assert row.items() <= readings[f"{minute['id']}/r{n}"].items()


def test_a_replayed_minute_comes_back_and_nothing_else(runs: Mapping[str, Run]) -> None:
    run = runs["replay"]
    run.ended()
    minutes = lines("minutes", "car_01", "--archive", run.archive, "--readings")
    seen = rows_that_came_back(minutes, recording(), run.report["replay_t0_ms"]["car_01"])
    told = {"speed", "rpm", "throttle_pos", "temp", "location", "heading", "altitude", "climb", "gps_speed"}
    assert seen.keys() - {""} == told
    for key in ("speed", "rpm", "location"):
        assert len(seen[key]) >= 0.95 * len(seen[""]) - 1, (key, seen[key], seen[""])


def test_ctrl_c_ends_as_cleanly(tmp_path: Path) -> None:
    run = begin(tmp_path / "home")
    spool = run.home / "cars" / "car_01" / "spool" / "outbox.db"
    until(spool.exists)
    run.process.send_signal(signal.SIGINT)
    assert "\nbalanced\n" in run.ended()
    report = run.report
    assert report["made"] == report["stored"] == report["fed"] == report["receipted"]


def test_ctrl_c_while_everything_still_starts_ends_as_cleanly(tmp_path: Path) -> None:
    run = begin(tmp_path / "home")
    until((run.home / "router" / "node.log").exists)
    run.process.send_signal(signal.SIGINT)
    assert "\nbalanced\n" in run.ended()


def test_what_cannot_be_run_is_said_in_one_line_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("mine")
    (tmp_path / "bad.json").write_text('{"minute": "now"}')
    cases: dict[str, tuple[object, ...]] = {
        "does not exist": ("--replay", tmp_path / "none.json"),
        "minute: wanted an ISO 8601 time": ("--replay", tmp_path / "bad.json"),
        "is there already": ("--home", tmp_path / "taken"),
        "--archive: must be sqlite:PATH": ("--archive", "postgres://here/cars"),
        "--feed: must be sqlite:PATH": ("--feed", "kafka://nowhere"),
        "exclude each other": ("--parked", "--replay", tmp_path / "bad.json"),
        "is not one of": ("--period", "7"),
        "No such option": ("--fast",),
    }
    for words, arguments in cases.items():
        home = [] if "--home" in arguments else ["--home", tmp_path / "home"]
        assert words in one_line(odograph("demo", "--for", 5, *home, *arguments), 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.json", "taken"]
    assert list((tmp_path / "taken").iterdir()) == [tmp_path / "taken" / "letter.txt"]
