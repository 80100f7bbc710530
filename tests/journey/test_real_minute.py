"""The whole real minute, twice round and at its own period: 130 s, so not by default (`make slow`)."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.commands import odograph
from tests.conftest import missing
from tests.journey_fleet import ROOT, lines
from tests.replayed import LOOP_MS, rows_that_came_back

REAL = next((path for up in (1, 2) if (path := ROOT.parents[up - 1] / "shared/data/real_minute.json").exists()), None)
FAST = ("rpm", "speed", "throttle_pos", "load", "maf", "timing_advance", "location", "gps_speed")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_real_minute_comes_back_whole_and_nothing_else(tmp_path: Path) -> None:
    if REAL is None:
        missing("../shared/data/real_minute.json is not here: put the recording there")
    home, report_path = tmp_path / "home", tmp_path / "report.json"
    ended = odograph(
        *("demo", "--replay", REAL, "--period", 60, "--for", 130, "--home", home, "--report", report_path),
        timeout_s=280,
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(report_path.read_text())
    t0_ms = report["replay_t0_ms"]["car_01"]
    minutes = lines("minutes", "car_01", "--archive", f"sqlite:{home}/archive.db", "--readings")
    recording = json.loads(REAL.read_text())
    seen = rows_that_came_back(minutes, recording, t0_ms)
    recorded = {key for row in recording["readings"] for key, value in row.items() if value is not None}
    assert seen.keys() - {""} <= recorded
    whole = Counter(loop for loop, _ in seen[""]).most_common(1)[0][0]
    assert LOOP_MS == 60_000
    for key in FAST:
        came = sum(loop == whole for loop, _ in seen[key])
        assert came >= 0.95 * len(recording["readings"]), (key, came)
