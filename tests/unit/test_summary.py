"""Summary: the eight statistics, held against the standard library and against the recording of 2017."""

import json
import math
import statistics as standard
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.wire.summary import STATISTICS, Statistics, check_statistics, circular, statistics

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


def figures(**changed: float) -> Statistics:
    """The statistics of 800 and 1000 rpm, but for what is changed; the variance follows the deviation."""
    found = statistics([800, 1000]) | changed
    return found | ({"variance": found["stdev"] ** 2} if "variance" not in changed else {})


@pytest.mark.parametrize(
    "changed",
    [
        {"min": -0.25}, {"max": 16384.0}, {"mean": 799.9}, {"mean": 1000.1}, {"median": 799.9}, {"median": 1000.1},
        {"mode": 799.9}, {"mode": 1000.1}, {"stdev": 100.1}, {"stdev": -0.1}, {"variance": 10000.1},
        {"variance": 9999.9}, {"min": 1000.1, "max": 900.0},
    ],
)  # fmt: skip
def test_statistics_that_no_values_have_are_refused(changed: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"summary\.rpm: no values have these statistics"):
        check_statistics("rpm", figures(**changed))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("rpm", [0, 16383.75]), ("rpm", [0]), ("rpm", [16383.75]), ("o211", [0, 1.275]), ("temp", [-40, 215]),
        ("climb", [0.1, 0.2, 0.3]), ("gps_speed", [1e-7]), ("climb", [0.1] * 3),
    ],
)  # fmt: skip
def test_the_statistics_of_values_are_taken_with_the_noise_of_their_twelve_digits(
    key: str, values: list[float]
) -> None:
    found = statistics(values)
    check_statistics(key, found)
    check_statistics(key, {name: float(f"{figure:.12g}") for name, figure in found.items()})


@pytest.mark.parametrize("mean", [-0.1, 360.1])
def test_a_heading_beyond_the_compass_is_refused(mean: float) -> None:
    check_statistics("heading", {"count": 2, "mean": 0.0})
    check_statistics("heading", {"count": 2, "mean": 359.999999999})
    with pytest.raises(ValueError, match="heading"):
        check_statistics("heading", {"count": 2, "mean": mean})
