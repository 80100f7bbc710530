"""Columns: nothing is lost on the way there and back, and nothing else is let in."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.wire import columns
from components.wire.reading import Reading, check_value
from components.wire.signals import BY_KEY, Value
from tests.wire_made import START_MS, readings, same


def one(values: dict[str, Value], at: int = 0, **ages: int) -> Reading:
    why = {key: "no_data" for key in BY_KEY if key not in values}
    return Reading.checked(START_MS + at, values, why, ages)


def form_of(*found: Reading) -> Any:  # noqa: ANN401 - JSON to be spoilt
    return columns.encode(found, START_MS)


@given(readings())
@settings(max_examples=150, deadline=None)
def test_arbitrary_readings_come_back_the_same(found: tuple[Reading, ...]) -> None:
    back = columns.decode(columns.encode(found, START_MS), START_MS, 6000)
    assert len(back) == len(found)
    for was, came in zip(found, back, strict=True):
        assert came.at_ms == was.at_ms
        assert same(dict(was.values), dict(came.values))
        assert came.why == was.why
        assert came.age_ms == was.age_ms


def test_no_readings_come_back_as_none() -> None:
    assert columns.decode(form_of(), START_MS, 6000) == ()


@pytest.mark.parametrize(
    "value", [-0.0, 0.1234567, 0.1 + 0.2, 12.345678901234567, 1e-9, 2.0**52 + 0.5, 2.0**53, 7, -3.25]
)
def test_a_receivers_number_keeps_its_last_digit_and_its_sign(value: float) -> None:
    (back,) = columns.decode(form_of(one({"climb": value})), START_MS, 1)
    assert repr(float(back.values["climb"])) == repr(float(value))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("speed", 256), ("speed", -1), ("temp", -41), ("rpm", float("nan")), ("rpm", float("inf")), ("rpm", True),
        ("climb", "up"), ("climb", 1e300), ("heading", 361), ("gps_fix", 1), ("dtc_ff", "P0_42"),
        ("fuel_status", "sleepy"), ("aux_input", 1), ("o211", {"voltage_v": 9, "trim_percent": None}),
        ("o211", {"voltage_v": 0.1}), ("o211", {"voltage_v": float("inf"), "trim_percent": None}),
        ("o211", {"voltage_v": 0.1, "trim_percent": None, "more": 1}), ("o2_sensor_position_b", ["b1s2", "b1s1"]),
        ("location", {"type": "Point", "coordinates": [181, 0]}), ("location", {"type": "Point", "coordinates": [0]}),
        ("location", {"type": "Point", "coordinates": [0, 0], "bbox": []}), ("location", [0, 0]),
        ("location", {"type": "Spot", "coordinates": [0, 0]}), ("location", {"type": "Point", "coordinates": [0, 91]}),
        ("location", {"type": "Point", "coordinates": {0: 0, 1: 0}}),
    ],
)  # fmt: skip
def test_what_decode_would_refuse_for_ever_is_never_encoded(key: str, value: Value) -> None:
    with pytest.raises(ValueError, match=key):
        check_value(key, value)
    with pytest.raises(ValueError, match=key):
        form_of(one({key: value}))


def test_the_ends_of_the_earth_come_back() -> None:
    ends: list[Value] = [{"type": "Point", "coordinates": [x, y]} for x, y in ((180.0, 90.0), (-180.0, -90.0))]
    found = tuple(one({"location": end}, n) for n, end in enumerate(ends))
    assert columns.decode(form_of(*found), START_MS, 2) == found


def test_a_wide_band_sensor_travels_beside_narrow_ones() -> None:
    narrow: Value = {"voltage_v": 0.45, "trim_percent": 0.78125}
    wide: Value = {"voltage_v": 0.449951171875, "trim_percent": None}
    found = (one({"o211": narrow, "o212": wide}, 0), one({"o212": wide}, 1000), one({"o212": narrow}, 2000))
    assert columns.decode(form_of(*found), START_MS, 10) == found


def test_a_table_says_what_its_form_says() -> None:
    form = form_of(
        one({"rpm": 900.0, "gear": 2, "altitude": 1.5}), one({"rpm": 901.0, "gear": 3, "altitude": 1.25}, 1000)
    )
    table = form["columns"]
    assert form["at"] == [0, 1000]
    assert {key: table[key] for key in ("rpm", "gear", "altitude", "load")} == {
        "rpm": {"d": [3600, 4]},
        "gear": {"e": 0, "d": [2, 1]},
        "altitude": {"e": 2, "d": [150, -25]},
        "load": "no_data",
    }
    values = [reading.values for reading in columns.decode(form, START_MS, 2)]
    assert [repr([value["rpm"], value["gear"], value["altitude"]]) for value in values] == [
        "[900.0, 2, 1.5]",
        "[901.0, 3, 1.25]",
    ]


def spoilt() -> list[Any]:
    two = (one({"rpm": 900.0, "o211": {"voltage_v": 0.1, "trim_percent": 0.0}}, 0, rpm=5), one({"speed": 3}, 1000))

    def change(message: str, what: str, *path: str | int, to: object) -> Any:  # noqa: ANN401 - pytest's own
        form = form_of(*two)
        found = form
        for step in path[:-1]:
            found = found[step]
        found[path[-1]] = to
        return pytest.param(form, message, id=what)

    whole, other, length = "differences are whole numbers", "an object with other keys", "a list of another length"
    exponent, runs = "climb: an exponent is 0 to 7", r"why.rpm: runs are \{reason: length\}, as many as nulls"
    exactly, stranger = "rpm has a moment for exactly its values", "unknown, without values, or there twice"
    return [
        change("at: a reading without a time", "a reading without a time", "at", 1, to=None),
        change(whole, "True for 1", "at", 1, to=True),
        change(whole, "a float difference", "columns", "rpm", "d", 0, to=3600.0),
        change("load: no such reason", "no such reason", "columns", "load", to="bored"),
        change(other, "a form of another signal", "columns", "rpm", to={"e": 0, "d": [900, None]}),
        change(other, "values where the car sends codes", "columns", "dtc_ff", to={"v": [1, None]}),
        change(length, "one value too many", "columns", "rpm", "d", to=[3600, None, None]),
        change(length, "more values than readings", "columns", "climb", to={"e": 1, "d": [1, 1, 1]}),
        change("rpm: not from 0 to 65535", "more than two bytes", "columns", "rpm", "d", 0, to=65536),
        change("rpm: not from 0 to 65535", "less than none", "columns", "rpm", "d", 0, to=-1),
        change(exponent, "an exponent of 8", "columns", "climb", to={"e": 8, "d": [1, None]}),
        change(exponent, "an exponent below 0", "columns", "climb", to={"e": -1, "d": [1, None]}),
        change(exponent, "a true exponent", "columns", "climb", to={"e": True, "d": [1, None]}),
        change(
            "location: not from -18", "too far east", "columns", "location", to={"lon": [18 * 10**8, 1], "lat": [0, 0]}
        ),
        change(
            "location: not from -9", "too far south", "columns", "location", to={"lon": [0, 0], "lat": [-9 * 10**8, -1]}
        ),
        change("location: half a place", "half a place", "columns", "location", to={"lon": [1, None], "lat": [1, 1]}),
        change("heading: not from 0 to", "out of a receiver's span", "columns", "heading", to={"e": 1, "d": [3601, 0]}),
        change("0000 is no code", "a number without a meaning", "columns", "dtc_ff", to={"d": [0, None]}),
        change("speed: not from 0 to 255", "a value out of its span", "columns", "speed", to={"v": [None, 256]}),
        change("NaN is no number", "NaN", "columns", "climb", to={"v": [float("nan"), 1]}),
        change("NaN is no number", "NaN behind a number", "columns", "climb", to={"v": [1, float("nan")]}),
        change("holds numbers", "a word among values", "columns", "climb", to={"v": ["1", 1]}),
        change("why.rpm: fewer reasons than nulls", "reasons missing", "why", "rpm", to=[]),
        change(runs, "reasons too many", "why", "rpm", to=[{"no_data": 2}]),
        change(runs, "a reason unknown", "why", "rpm", to=[{"bored": 1}]),
        change(runs, "an endless run", "why", "rpm", to=[{"no_data": 10**15}]),
        change(runs, "an empty run", "why", "rpm", to=[{"no_data": 0}]),
        change(runs, "a true run", "why", "rpm", to=[{"no_data": True}]),
        change(runs, "a run of two reasons", "why", "rpm", to=[{"no_data": 1, "stale": 1}]),
        change(runs, "a list for a run", "why", "rpm", to=[["no_data"]]),
        change(runs, "a number for a run", "why", "rpm", to=[5]),
        change("at most 1", "more runs than nulls", "why", "rpm", to=[{"no_data": 1}, {"no_data": 1}]),
        change("beside a column's own", "reasons beside a column's own", "why", "load", to=[{"no_data": 2}]),
        change("reasons without nulls", "reasons without nulls", "columns", "speed", to={"d": [3, 0]}),
        change("beside a column's own", "reasons for nobody", "why", "stranger", to=[{"no_data": 1}]),
        change("later than the reading", "a moment after it", "measured", to=[{"of": ["rpm"], "at": [1, None]}]),
        change(exactly, "a moment of a null", "measured", to=[{"of": ["rpm"], "at": [-5, 5]}]),
        change(exactly, "a moment missing", "measured", to=[{"of": ["rpm"], "at": [None, None]}]),
        change(stranger, "a signal twice", "measured", to=[{"of": ["rpm"], "at": [-5, None]}] * 2),
        change(stranger, "a signal twice in a group", "measured", to=[{"of": ["rpm", "rpm"], "at": [-5, None]}]),
        change(stranger, "a moment of an unknown signal", "measured", to=[{"of": ["stranger"], "at": [-5, None]}]),
        change(stranger, "a moment of none", "measured", to=[{"of": ["load"], "at": [None, None]}]),
        change(stranger, "an unhashable signal", "measured", to=[{"of": [["rpm"]], "at": [-5, None]}]),
        change("more than a number can be", "sums beyond what numbers can be", "at", to=[2**53, 0]),
        change("more than a number can be", "sums below it", "at", to=[-(2**53), 0]),
    ]


@pytest.mark.parametrize(("form", "message"), spoilt())
def test_a_spoilt_table_is_refused_for_what_is_wrong_with_it(form: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        columns.check(form, 6000)


def test_more_readings_than_allowed_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 1"):
        columns.decode(form_of(one({}), one({})), START_MS, 1)


def test_a_signal_named_a_hundred_thousand_times_costs_nothing() -> None:
    form = form_of(*(one({"rpm": 900.0}, at) for at in range(6000)))
    form["measured"] = [{"of": ["rpm"] * 100_000, "at": [-1] + [1] * 5999}]
    began = time.process_time()
    with pytest.raises(ValueError, match="at most"):
        columns.decode(form, START_MS, 6000)
    assert time.process_time() - began < 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(["at", "measured", "why", *BY_KEY]), json_values)
@settings(max_examples=200, deadline=None)
def test_any_json_anywhere_is_read_or_refused_by_one_kind_of_error(place: str, junk: object) -> None:
    form = form_of(one({"rpm": 900.0, "climb": 0.5}, 0, rpm=5))
    (form["columns"] if place in BY_KEY else form)[place] = junk
    try:
        columns.decode(form, START_MS, 6000)
    except ValueError:
        return
