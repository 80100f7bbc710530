"""Packets: the same packet, the same bytes; any other bytes, one kind of error."""

import contextlib
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.wire import packet, strict_json
from components.wire.errors import RejectedError
from components.wire.reading import Reading
from components.wire.signals import BY_KEY, Value
from components.wire.summary import STATISTICS
from components.wire.times import iso_ms, iso_s, minute_id, parse_iso
from tests.wire_made import REAL, SESSION, START_MS, minute, readings, real_minute

text = st.text(max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=8,
)


def form() -> dict[str, Any]:
    found = packet.parse(packet.pack(full()))
    assert isinstance(found, dict)
    return found


def full() -> packet.Packet:
    values: dict[str, Value] = {"rpm": 900.0, "climb": 0.5}
    reading = Reading.checked(START_MS, values, {key: "no_data" for key in BY_KEY if key not in values}, {"rpm": 7})
    return minute(
        (reading,),
        identity=packet.Identity("JTEEP21A750123456", None, "3" * 15, {"iccid": "unsupported"}),
        dtcs=(packet.TroubleCode("P0420", "stored", "7E8", START_MS - 1, START_MS + 1),),
        dtcs_at_ms=START_MS + 1,
        freeze_frame={"dtc_ff": "P0420", "o211": {"voltage_v": 0.1, "trim_percent": None}, "aux_input": True},
        gaps=(packet.Gap(START_MS, START_MS + 999, "late"),),
        clock_fix=packet.ClockFix("f" * 16, -7),
    )


@given(readings())
@settings(max_examples=60, deadline=None)
def test_a_packet_comes_back_equal_and_packs_to_the_same_bytes(found: tuple[Reading, ...]) -> None:
    first = minute(found)
    packed = packet.pack(first)
    again = packet.read(packet.parse(packed))
    assert again == first
    assert packet.pack(again) == packed == packet.pack(minute(tuple(found)))


def test_a_packet_with_every_part_comes_back_equal() -> None:
    assert packet.read(form()) == full()


@pytest.mark.parametrize("without", ["readings", "freeze_frame", "clock_fix"])
def test_an_optional_part_may_be_missing(without: str) -> None:
    found = form()
    del found[without]
    again = packet.read(found)
    assert getattr(again, without) is None
    assert without not in strict_json.dumps(packet.parse(packet.pack(again))).decode()


def test_a_check_without_readings_gives_the_rest_of_the_packet() -> None:
    found = packet.read(form(), with_readings=False)
    assert found.readings is None
    assert (found.id, found.start_ms) == (full().id, START_MS)
    spoilt = form()
    spoilt["readings"]["columns"]["rpm"]["d"] = [70_000]
    with pytest.raises(RejectedError, match="schema: rpm"):
        packet.read(spoilt, with_readings=False)


@pytest.mark.skipif(not REAL.exists(), reason="the real recording is not beside this checkout (../shared/data)")
def test_the_real_minute_comes_back_to_the_last_digit() -> None:
    first = real_minute()
    packed = packet.pack(first)
    again = packet.read(packet.parse(packed))
    assert again.readings == first.readings
    assert packet.pack(again) == packed
    recorded = json.loads(REAL.read_text())["readings"]
    assert [reading.values["maf"] for reading in again.readings or ()] == [row["maf"] for row in recorded]
    assert [reading.values["heading"] for reading in again.readings or ()] == [row["heading"] for row in recorded]


def test_the_id_is_the_natural_key() -> None:
    assert full().id == f"car_one/{SESSION}/{minute_id(START_MS)}"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "odograph.packet.v2"),
        (("id",), "car_two/x/y"),
        (("device",), "Car"),
        (("period_s",), 7),
        (("period_s",), True),
        (("start",), "2026-11-21T10:05:00.000Z"),
        (("start",), "0999-01-01T00:00:00Z"),
        (("start",), "2026-13-01T00:00:00Z"),
        (("dtcs_at",), "2026-11-21T10:05:00Z"),
        (("dtcs_at",), "\u0662026"),
        (("clock",), []),
        (("identity", "vin"), "JTEEP21A75012345O"),
        (("identity", "vin"), None),
        (("identity", "iccid"), "1" * 19),
        (("summary", "rpm"), {"count": 5}),
        (("summary", "rpm", "count"), 6001),
        (("summary", "heading"), {"count": 0, "mean": 1.0}),
        (("summary", "heading"), {"count": 1, "mean": 1e999}),
        (("summary", "rpm"), dict.fromkeys(STATISTICS, 0)),
        (("summary", "fuel_pressure"), {"count": 0}),
        (("freeze_frame", "rpm"), "fast"),
        (("freeze_frame", "rpm"), 99999),
        (("freeze_frame", "stranger"), 1),
        (("gaps",), [None]),
        (("gaps",), [{}] * 1001),
        (("dtcs", 0, "code"), "P04200"),
        (("dtcs", 0, "ecu"), "x"),
        (("clock_fix", "offset_ms"), 2**53 + 1),
        (("clock_fix",), None),
        (("readings",), None),
        (("readings", "at"), [60_000]),
        (("readings", "at"), [-1]),
        (("config_hash",), "0" * 15),
        (("x\ud800",), 1),
        (("schema",), "x" * 9000),
    ],
)
def test_a_part_out_of_form_is_rejected_by_the_schema(path: tuple[Any, ...], value: object) -> None:
    found: Any = form()
    inner = found
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(RejectedError) as caught:
        packet.read(found)
    assert caught.value.code == "schema"
    str(caught.value).encode()  # a message that no store can keep would stop the persister
    assert len(str(caught.value)) < 400


FIGURES: dict[str, float] = dict.fromkeys(STATISTICS, 900.0) | {"count": 1, "stdev": 0.0, "variance": 0.0}


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("summary", "rpm"), FIGURES | {"min": 901.0}, "summary.rpm: no values"),
        (("summary", "rpm"), FIGURES | {"mean": 899.0}, "summary.rpm: no values"),
        (("summary", "rpm"), FIGURES | {"median": 1e17}, "summary.rpm: no values"),
        (("summary", "rpm"), FIGURES | {"mode": -900.0}, "summary.rpm: no values"),
        (("summary", "rpm"), FIGURES | {"max": 899.0}, "summary.rpm: no values"),
        (("summary", "rpm"), FIGURES | {"max": 17_000.0}, "summary.rpm: no values"),
        (("summary", "rpm"), FIGURES | {"min": -1.0}, "summary.rpm: no values"),
        (("summary", "rpm"), FIGURES | {"stdev": -1.0, "variance": 1.0}, "summary.rpm: no values"),
        (("summary", "rpm"), FIGURES | {"stdev": 1.0, "variance": 1.0}, "summary.rpm: no values"),
        (("summary", "rpm"), FIGURES | {"max": 902.0, "stdev": 1.0, "variance": 2.0}, "summary.rpm: no values"),
        (("summary", "rpm"), FIGURES | {"max": 1e308}, "summary.rpm: no values"),
        (("summary", "altitude"), FIGURES | {"stdev": 1e308, "variance": 1e308}, "summary.altitude: no values"),
        (("summary", "o212"), FIGURES, "summary.o212: no values"),
        (("summary", "heading"), {"count": 1, "mean": 360.5}, "summary.heading: no values"),
        (("summary", "rpm"), FIGURES | {"count": 2}, "summary.rpm.count: must be a whole number from 0 to 1"),
        (("gaps", 0, "from"), "2026-11-21T10:04:59.999Z", "gaps: not from"),
        (("gaps", 0, "to"), "2026-11-21T10:06:00.001Z", "gaps: not from"),
        (("gaps", 0, "from"), "2026-11-21T10:05:01.000Z", "gaps: not from"),
        (("dtcs_at",), None, "dtcs_at: codes without"),
        (("clock_fix", "previous_session"), "00f1e2d3c4b5a697", "clock_fix.previous_session: is"),
    ],
)
def test_parts_that_contradict_each_other_are_rejected(path: tuple[Any, ...], value: object, fault: str) -> None:
    found: Any = form()
    inner = found
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(RejectedError, match=fault):
        packet.read(found)


def test_statistics_that_values_can_have_are_read() -> None:
    found: Any = form()
    found["summary"] |= {
        "rpm": FIGURES | {"stdev": 1e-14, "variance": 1e-28},
        "o212": FIGURES | dict.fromkeys(("mean", "median", "mode", "max", "min"), 7.99987792969),
    }
    assert packet.read(found).summary["rpm"]["stdev"] == 1e-14


@pytest.mark.parametrize(
    ("start_ms", "period_s"), [(START_MS - START_MS % 7000, 7), (START_MS + 30_000, 60), (1000, 5)]
)
def test_a_start_that_begins_no_period_of_a_minute_is_rejected_although_the_id_is_right(
    start_ms: int, period_s: int
) -> None:
    found = packet.pack(minute((), start_ms=start_ms, period_s=period_s))
    with pytest.raises(RejectedError, match="not the start of a period"):
        packet.read(packet.parse(found))


@pytest.mark.parametrize("at_ms", [-1, 59_999, 60_000])
def test_a_reading_outside_the_period_is_rejected_and_its_last_millisecond_is_inside(at_ms: int) -> None:
    one = Reading(START_MS + at_ms, {}, dict.fromkeys(BY_KEY, "no_data"))
    found = packet.parse(packet.pack(minute((one,))))
    if at_ms == 59_999:
        assert packet.read(found).readings == (one,)
        return
    with pytest.raises(RejectedError, match="times are not in order inside the period"):
        packet.read(found)


def test_readings_out_of_order_are_rejected() -> None:
    empty = dict.fromkeys(BY_KEY, "no_data")
    found = tuple(Reading(START_MS + at, {}, empty) for at in (0, 2, 1))
    with pytest.raises(RejectedError, match="not in order"):
        packet.read(packet.parse(packet.pack(minute(found))))


@pytest.mark.parametrize(("offset_s", "period_s"), [(0, 50), (30, 60)])
def test_periods_never_overlap(offset_s: int, period_s: int) -> None:
    start_ms = START_MS + 1000 * offset_s
    found = {**form(), "start": iso_s(start_ms), "period_s": period_s}
    found["id"] = f"{found['device']}/{SESSION}/{minute_id(start_ms)}"
    with pytest.raises(RejectedError, match="not the start of a period that divides a minute"):
        packet.read(found)


def test_a_list_has_at_most_a_thousand_entries() -> None:
    found = form()
    packet.read({**found, "dtcs": found["dtcs"] * packet.MAX_LIST})
    with pytest.raises(RejectedError, match="must be a list of 0 to 1000"):
        packet.read({**found, "dtcs": found["dtcs"] * (packet.MAX_LIST + 1)})


def test_more_readings_than_allowed_are_rejected() -> None:
    why = dict.fromkeys(BY_KEY, "no_data")
    found = tuple(Reading.checked(START_MS + 9 * n, {}, why, {}) for n in range(packet.MAX_READINGS + 1))
    assert packet.read(packet.parse(packet.pack(minute(found[:-1]))), with_readings=False).start_ms == START_MS
    with pytest.raises(RejectedError, match="at most 6000") as refused:
        packet.read(packet.parse(packet.pack(minute(found))), with_readings=False)
    assert refused.value.code == "schema"


@pytest.mark.parametrize("key", ["dtcs", "gaps", "lost"])
def test_a_list_has_a_thousand_entries_at_most_and_losses_are_not_told_of_where_there_are_none(key: str) -> None:
    loss = packet.Lost(None, START_MS, START_MS + 1, "readings", 1, "bound")
    found: Any = packet.parse(packet.pack(dataclasses.replace(full(), lost=(loss,))))
    found[key] *= 1000
    assert len(getattr(packet.read(found), key)) == 1000
    found[key] += found[key][:1]
    with pytest.raises(RejectedError, match=f"{key}: must be a list of"):
        packet.read(found)
    found[key] = []
    if key == "lost":
        with pytest.raises(RejectedError, match="lost: must be a list of 1"):
            packet.read(found)
    else:
        assert len(getattr(packet.read(found), key)) == 0


def test_headings_that_cancel_out_have_a_count_and_no_mean_and_nothing_else_has() -> None:
    found: Any = form()
    del found["readings"]
    found["summary"]["heading"] = {"count": 2}
    assert packet.read(found).summary["heading"] == {"count": 2}
    for key, figures in (("heading", {"count": 0, "mean": 1.0}), ("speed", {"count": 2})):
        spoilt = found | {"summary": {**found["summary"], key: figures}}
        with pytest.raises(RejectedError, match=f"summary.{key}: has all statistics, or a count of 0 only"):
            packet.read(spoilt)


def test_two_readings_at_one_moment_are_kept() -> None:
    twins = (Reading(START_MS, {}, dict.fromkeys(BY_KEY, "no_data")),) * 2
    assert packet.read(packet.parse(packet.pack(minute(twins)))).readings == twins


@given(st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_packet_or_rejected(data: bytes) -> None:
    with pytest.raises(RejectedError) as caught:
        packet.read(packet.parse(data))
    assert caught.value.code in {"parse", "schema"}


@given(json_values | st.lists(json_values))
def test_any_json_for_a_packet_is_rejected(value: Any) -> None:  # noqa: ANN401 - JSON
    with pytest.raises(RejectedError, match="schema"):
        packet.read(value)


@given(st.sampled_from(sorted(form())), json_values)
@settings(deadline=None)
def test_any_json_in_any_part_is_read_or_rejected(key: str, value: object) -> None:
    with contextlib.suppress(RejectedError):
        packet.read(form() | {key: value})


@given(st.integers(0, 253_402_300_799_999))
def test_every_moment_comes_back(at_ms: int) -> None:
    assert parse_iso(iso_ms(at_ms)) == at_ms
    assert parse_iso(iso_s(at_ms // 1000 * 1000)) == at_ms // 1000 * 1000
