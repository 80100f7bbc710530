"""What gpsd says, line by line: places that are places, and reasons for what is not there."""

import json
import math
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from components.edge.gpsd_gps import GpsdGps, _Watcher, parse_tpv
from components.wire.signals import GPS_SIGNALS, REASONS
from components.wire.times import LAST_MS
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


def test_a_height_that_comes_with_a_two_dimensional_fix_was_not_measured_with_it() -> None:
    fix = parse_tpv(line(mode=2))
    assert fix is not None
    assert fix.values.keys() == {"location", "gps_fix", "heading", "gps_speed"}
    assert fix.why == {"altitude": "no_data", "climb": "no_data"}


@pytest.mark.parametrize("mode", [0, 1, None, "3", True, 4, -3, 1e400, [3], {"3": 3}, 3.5])
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
        ("location", "lon", -180.0000001),
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


@pytest.mark.parametrize("value", ["48.1", True, [48.1], {}, 10**400, math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_data(value: object) -> None:
    fix = parse_tpv(line(lat=value))
    assert fix is not None
    assert fix.why == {"location": "no_data"}


def test_a_number_too_large_for_a_float_is_no_number() -> None:
    fix = parse_tpv(b'{"class":"TPV","mode":3,"lat":1e400,"lon":1,"altMSL":-1e400,"speed":1E+999}')
    assert fix is not None
    assert fix.values == {"gps_fix": 3}
    assert set(fix.why.values()) == {"no_data"}


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
@pytest.mark.parametrize(("lat", "lon"), [(0, 0), (0.0, -0.0), (1e-9, -1e-9)])
def test_nowhere_is_no_place_whatever_the_mode_says(mode: int, lat: float, lon: float) -> None:
    fix = parse_tpv(line(mode=mode, lat=lat, lon=lon))
    assert fix is not None
    assert fix.values == {}
    assert set(fix.why.values()) == {"no_fix"}


def test_the_equator_and_the_meridian_are_places() -> None:
    for lat, lon in ((0, 9.5), (51.5, 0), (90, 180), (-90, -180)):
        fix = parse_tpv(line(lat=lat, lon=lon))
        assert fix is not None
        assert fix.values["location"] == {"type": "Point", "coordinates": [lon, lat]}


@pytest.mark.parametrize("end", [b"\r", b" ", b"\r\r"])
def test_the_end_of_a_line_does_not_matter(end: bytes) -> None:
    assert parse_tpv(line() + end) == parse_tpv(line())


def test_a_byte_that_is_no_text_in_a_name_does_not_cost_the_place() -> None:
    fix = parse_tpv(b'{"class":"TPV","device":"/dev/tty\xff","mode":2,"lat":48.1,"lon":11.5}')
    assert fix is not None
    assert fix.values["location"] == {"type": "Point", "coordinates": [11.5, 48.1]}


def test_a_mode_written_with_a_point_is_the_same_number() -> None:
    assert parse_tpv(line(mode=3.0)) == parse_tpv(line(mode=3))


@pytest.mark.parametrize(
    ("time", "utc_ms"),
    [
        ("1999-08-22T00:00:00.000Z", 935_280_000_000),  # a week counter that rolled over: `timeline` judges it
        ("2026-11-22T02:05:00Z", 1_795_313_100_000),
        ("2026-11-22T02:05:00.8877777Z", 1_795_313_100_888),
        ("9999-12-31T23:59:59.9999Z", LAST_MS),  # a later one has no name, and could not be told as refused
        (None, None),
        ("", None),
        ("2026-11-22T02:05:00.887", None),
        ("2026-11-22T02:05:00+01:00", None),
        ("2026-11-22", None),
        ("20261122T020500Z", None),
        ("2026-13-22T02:05:00Z", None),
        ("2026-11-22T02:05:60Z", None),
        ("0000-00-00T00:00:00Z", None),
        ("٢٠٢٦-11-22T02:05:00Z", None),
        (1_795_313_100.887, None),
        (True, None),
        (["2026-11-22T02:05:00Z"], None),
    ],
)
def test_a_time_is_one_only_in_the_form_that_gpsd_writes_and_costs_no_place(time: object, utc_ms: int | None) -> None:
    fix = parse_tpv(line(time=time))
    assert fix is not None
    assert fix.utc_ms == utc_ms
    assert fix.values.keys() == KEYS


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
        b'{"class":"ERROR","message":"Unrecognized request"}',
        b'{"class":"DEVICES","devices":[{"class":"DEVICE","path":"/dev/ttyACM0"}]}',
        b'{"class":"TPV","mode":3,"lat":1,"lat":2,"lon":1}',
        b'{"class":"TPV","mode":1,"mode":3,"lat":1,"lon":1}',
        b'{"class":"tpv","mode":3,"lat":1,"lon":1}',
        b'{"mode":3,"lat":1,"lon":1}',
        b'[{"class":"TPV","mode":3,"lat":1,"lon":1}]',
        line() + line(),
        b'{"class":"TPV","mode":3,"lat":' + b"1" * 5_000 + b',"lon":1}',
        b"[" * 100_000,
        line()[:-1],
    ],
)
def test_a_line_that_is_no_report_of_a_place_is_ignored(raw: bytes) -> None:
    assert parse_tpv(raw) is None


@settings(deadline=None)
@given(st.binary(max_size=200) | st.dictionaries(
    st.sampled_from(sorted(TPV)),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([3]),
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


def test_of_two_receivers_one_counts_and_the_place_does_not_flap() -> None:
    clock = FakeClock(10_000)
    subject = gps(clock)
    for second in range(5):
        clock.at_ms = 10_000 + 1_000 * second
        subject._heard(line(device="/dev/a", lat=48))
        assert place(subject, clock) == 48
        subject._heard(line(device="/dev/b", lat=49, time="2026-11-22T03:00:00Z"))
        assert place(subject, clock) == 48
    assert subject.utc_ms() == (1_795_313_100_887, clock.at_ms)


def test_the_receiver_with_the_better_fix_counts_and_goes_on_counting() -> None:
    clock = FakeClock(10_000)
    subject = gps(clock)
    subject._heard(line(device="/dev/a", lat=48, mode=2))
    subject._heard(line(device="/dev/b", lat=49, mode=3))
    assert place(subject, clock) == 49
    subject._heard(line(device="/dev/a", lat=48, mode=3))
    assert place(subject, clock) == 49
    subject._heard(line(device="/dev/b", mode=1))
    assert place(subject, clock) == 48
    subject._heard(line(device="/dev/b", lat=49, mode=2))
    assert place(subject, clock) == 48


def test_a_receiver_that_fell_silent_hands_over_to_the_other() -> None:
    clock = FakeClock(10_000)
    subject = gps(clock)
    subject._heard(line(device="/dev/a", lat=48))
    clock.at_ms = 12_500
    subject._heard(line(device="/dev/b", lat=49, mode=2))
    clock.at_ms = 13_000
    assert place(subject, clock) == 48
    clock.at_ms = 13_001
    assert place(subject, clock) == 49
    clock.at_ms = 15_501
    assert set(subject.sample(15_501).why.values()) == {"stale"}
    assert len(subject._fixes) == 1


def test_values_of_two_receivers_are_never_mixed() -> None:
    clock = FakeClock(10_000)
    subject = gps(clock)
    subject._heard(line(device="/dev/a", speed=None))
    subject._heard(line(device="/dev/b", mode=2))
    assert subject.sample(10_000).why == {"gps_speed": "no_data"}


def place(subject: GpsdGps, clock: FakeClock) -> float:
    location: Any = subject.sample(clock.at_ms).values["location"]
    lat: float = location["coordinates"][1]
    return lat


class Called:
    """A connection of gpsd's without a socket, and what was heard on it."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.timers = Clock()
        self.transport = cast("Any", StringTransport)()  # no types in there
        self.protocol = cast("Any", _Watcher(self.timers, self.lines.append, lambda: self.lines.append(b"lost")))
        self.protocol.makeConnection(self.transport)


@pytest.mark.parametrize("size", [1, 2, 7, 50, 10_000])
def test_reports_are_found_however_the_bytes_are_cut(size: int) -> None:
    called = Called()
    stream = line() + b"\r\n" + line(mode=2) + b"\n" + b"\xff\n" + line(mode=1) + b"\r\n" + line()
    for at in range(0, len(stream), size):
        called.protocol.dataReceived(stream[at : at + size])
    assert called.lines == [line() + b"\r", line(mode=2), b"\xff", line(mode=1) + b"\r"]


def test_a_line_without_end_is_dropped_and_what_follows_is_heard() -> None:
    called = Called()
    for _ in range(100):
        called.protocol.dataReceived(b"x" * 1_000)
    called.protocol.dataReceived(b"x\n" + line() + b"\n")
    assert called.lines == [line()]


def test_a_gpsd_that_says_nothing_any_more_is_hung_up_on() -> None:
    called = Called()
    assert called.transport.value() == b'?WATCH={"enable":true,"json":true};\n'
    called.timers.advance(29)
    called.protocol.dataReceived(b'{"class":"SKY"}\n')
    called.timers.advance(29)
    assert not called.transport.disconnecting
    called.timers.advance(1)
    assert called.transport.disconnected


def test_nothing_is_left_to_run_when_gpsd_hangs_up() -> None:
    called = Called()
    called.protocol.connectionLost()
    assert called.lines == [b"lost"]
    assert called.timers.getDelayedCalls() == []
