"""What gpsd says, line by line: places that are places, and reasons for what is not there."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.edge.gpsd_gps import GpsdGps, parse_tpv
from components.wire.signals import GPS_SIGNALS, REASONS
from tests.fakes import FakeClock
from tests.wamp_peer import reactor

KEYS = {signal.key for signal in GPS_SIGNALS}
TPV = {
    "class": "TPV",
    "mode": 3,
    "time": "2026-11-22T02:05:00.887Z",
    "lat": 48.123456789,
    "lon": 11.987654321,
    "altMSL": 519.3,
    "alt": 566.1,
    "track": 87.5,
    "speed": 13.9,
    "climb": -0.2,
}


def line(**changes: object) -> bytes:
    report = {key: value for key, value in {**TPV, **changes}.items() if value is not None}
    return json.dumps(report).encode()


def gps(clock: FakeClock) -> GpsdGps:
    return GpsdGps(reactor, "127.0.0.1:2947", clock)


def test_a_fix_has_every_value_and_the_height_above_the_sea() -> None:
    fix = parse_tpv(line())
    assert fix is not None
    assert fix.values == {
        "location": {"type": "Point", "coordinates": [11.9876543, 48.1234568]},
        "heading": 87.5,
        "altitude": 519.3,
        "climb": -0.2,
        "gps_speed": 13.9,
        "gps_fix": 3,
    }
    assert (fix.why, fix.utc_ms) == ({}, 1_795_313_100_887)


def test_nothing_is_minus_zero_whose_sign_not_every_archive_keeps() -> None:
    fix = parse_tpv(line(climb=-0.0, speed=-0.0))
    assert fix is not None
    assert [str(fix.values[key]) for key in ("climb", "gps_speed")] == ["0.0", "0.0"]


def test_what_gpsd_leaves_out_is_left_out() -> None:
    fix = parse_tpv(line(mode=2, track=None, speed=None, altMSL=None, climb=None))
    assert fix is not None
    assert fix.values.keys() == {"location", "gps_fix"}
    assert fix.why == dict.fromkeys(("heading", "altitude", "climb", "gps_speed"), "no_data")


@pytest.mark.parametrize("mode", [0, 1, None, "3", True, 4, [3], 3.5])
def test_without_a_fix_there_is_no_place_whatever_else_it_says(mode: object) -> None:
    fix = parse_tpv(line(mode=mode))
    assert fix is not None
    assert fix.values == {}
    assert fix.why == dict.fromkeys(KEYS, "no_fix")


@pytest.mark.parametrize(
    ("key", "name", "value"),
    [
        ("location", "lat", 90.1),
        ("location", "lat", -91),
        ("location", "lon", 180.5),
        ("heading", "track", -1),
        ("heading", "track", 361),
        ("altitude", "altMSL", 1e6),
        ("gps_speed", "speed", -1),
        ("climb", "climb", 5000),
    ],
)
def test_what_cannot_be_is_out_of_range(key: str, name: str, value: float) -> None:
    fix = parse_tpv(line(**{name: value}))
    assert fix is not None
    assert fix.why == {key: "out_of_range"}


@pytest.mark.parametrize("value", ["48.1", True, [48.1], {}, 10**400])
def test_what_is_no_number_is_no_data(value: object) -> None:
    fix = parse_tpv(line(lat=value))
    assert fix is not None
    assert fix.why == {"location": "no_data"}


def test_north_is_said_in_one_way() -> None:
    fix = parse_tpv(line(track=360))
    assert fix is not None
    assert fix.values["heading"] == 0.0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"class":"SKY"}',
        b'{"class":"VERSION","release":"3.22"}',
        b'{"class":["TPV"]}',
        b'{"class":"TPV","mode":3,"lat":NaN,"lon":1}',
        b'{"class":"TPV","mode":3,"lat":1,"lat":2,"lon":1}',
        b"[" * 100_000,
        line()[:-1],
    ],
)
def test_a_line_that_is_no_report_of_a_place_is_ignored(raw: bytes) -> None:
    assert parse_tpv(raw) is None


@settings(deadline=None)
@given(st.binary(max_size=200) | st.dictionaries(
    st.sampled_from(sorted(TPV)),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just([3]),
).map(lambda changes: json.dumps({**TPV, **changes}).encode()))  # fmt: skip
def test_any_line_is_survived_and_every_signal_has_a_value_or_a_reason(raw: bytes) -> None:
    fix = parse_tpv(raw)
    if fix is not None:
        assert fix.values.keys() | fix.why.keys() == KEYS
        assert not fix.values.keys() & fix.why.keys()
        assert set(fix.why.values()) <= set(REASONS)


def test_a_fix_is_told_for_three_seconds_with_the_time_it_was_heard() -> None:
    clock = FakeClock(10_000)
    subject = gps(clock)
    assert set(subject.sample(10_000).why.values()) == {"no_fix"}
    assert subject.utc_ms() is None
    subject._heard(line())
    sample = subject.sample(13_000)
    assert sample.values.keys() == KEYS
    assert set(sample.measured_ms.values()) == {10_000}
    assert subject.utc_ms() == (1_795_313_100_887, 10_000)
    assert set(subject.sample(13_001).why.values()) == {"stale"}


def test_a_lost_fix_is_no_fix_at_once_and_its_time_is_no_source() -> None:
    subject = gps(FakeClock(10_000))
    subject._heard(line())
    subject._heard(line(mode=1, time="1999-08-22T00:00:00.000Z"))
    assert set(subject.sample(10_000).why.values()) == {"no_fix"}
    assert subject.utc_ms() == (1_795_313_100_887, 10_000)


def test_other_reports_change_nothing() -> None:
    subject = gps(FakeClock(10_000))
    subject._heard(line())
    subject._heard(b'{"class":"SKY","satellites":[]}')
    subject._heard(b"rubbish")
    assert subject.sample(10_000).values["gps_fix"] == 3
