"""A reading is whole: a value or a reason for each signal, and ages of values only."""

import pytest

from components.wire.reading import Reading, check_value
from components.wire.signals import BY_KEY, Value

VALUES: dict[str, Value] = {"rpm": 900.0}
WHY = {key: "no_data" for key in BY_KEY if key != "rpm"}


@pytest.mark.parametrize(
    ("values", "why", "ages", "fault"),
    [
        ({}, WHY, {}, "either a value or a reason"),
        (VALUES, WHY | {"rpm": "stale"}, {}, "either a value or a reason"),
        (VALUES | {"warp": 9}, WHY, {}, "either a value or a reason"),
        (VALUES, WHY | {"load": "bored"}, {}, "reasons are"),
        (VALUES, WHY, {"load": 1}, "belongs to a value"),
        (VALUES, WHY, {"rpm": 0}, "an age is positive"),
    ],
)
def test_what_is_no_reading_is_never_one(
    values: dict[str, Value], why: dict[str, str], ages: dict[str, int], fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        Reading.checked(0, values, why, ages)


@pytest.mark.parametrize("place", [[180, 90], [-180, -90], [0.0, 0]])
def test_the_ends_of_the_earth_are_on_it_and_a_step_beyond_is_not(place: list[float]) -> None:
    check_value("location", {"type": "Point", "coordinates": place})
    for side in (0, 1):
        beyond = [x + (x > 0) - (x <= 0) * 181 if at == side else x for at, x in enumerate(place)]
        with pytest.raises(ValueError, match="location"):
            check_value("location", {"type": "Point", "coordinates": beyond})


def test_a_reading_is_taken_with_an_age_of_a_millisecond() -> None:
    assert Reading.checked(0, VALUES, WHY, {"rpm": 1}).age_ms == {"rpm": 1}
