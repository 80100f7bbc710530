"""Summary: the eight statistics, held against the standard library and against the recording of 2017."""

import json
import math
import statistics as standard
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.wire.summary import STATISTICS, circular, statistics

RECORDED = Path(__file__).resolve().parents[2] / "../shared/data/real_minute.as_recorded.json"

numbers = st.lists(st.integers(-1000, 1000).map(lambda n: n / 4), min_size=1, max_size=60)


@given(numbers)
def test_statistics_agree_with_the_standard_library(values: list[float]) -> None:
    found = statistics(values)
    assert tuple(found) == STATISTICS
    assert found["count"] == len(values)
    assert found["mean"] == pytest.approx(standard.fmean(values), abs=1e-9)
    assert found["median"] == standard.median(values)
    assert found["mode"] == min(standard.multimode(values))
    assert found["variance"] == pytest.approx(standard.pvariance(values), abs=1e-9)
    assert found["stdev"] == pytest.approx(standard.pstdev(values), abs=1e-9)
    assert (found["min"], found["max"]) == (min(values), max(values))


@given(st.lists(st.floats(0, 359.99), min_size=1, max_size=20), st.floats(0, 360))
def test_turning_every_heading_turns_the_mean_by_as_much(degrees: list[float], turn: float) -> None:
    mean, turned = circular(degrees).get("mean"), circular([d + turn for d in degrees]).get("mean")
    if mean is None or turned is None or math.hypot(*_sum(degrees)) < 1e-3:
        return
    assert 0 <= mean < 360
    assert math.isclose((turned - mean - turn + 180) % 360, 180, abs_tol=1e-4)


def _sum(degrees: list[float]) -> tuple[float, float]:
    return sum(math.sin(math.radians(d)) for d in degrees), sum(math.cos(math.radians(d)) for d in degrees)


def test_no_value_has_a_count_only() -> None:
    assert statistics([]) == circular([]) == {"count": 0}


@pytest.mark.skipif(not RECORDED.exists(), reason="the real recording is not beside this checkout (../shared/data)")
def test_the_recording_of_2017_gets_its_own_summary_back() -> None:
    minute = json.loads(RECORDED.read_text())
    for key, recorded in minute["summary"].items():
        if key == "heading":
            continue  # an angle; theirs is not circular
        values = [row[key] for row in minute["data"] if isinstance(row[key], (int, float))]
        assert statistics(values) == pytest.approx(recorded, rel=1e-9, abs=1e-9), key
