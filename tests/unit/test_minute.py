"""Rows of readings.db -> a packet, and a reading <-> its row."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from components.edge import minute
from components.edge.minute import SomeRow
from components.wire.packet import ClockFix, Gap, Packet, TroubleCode, pack, parse, read
from components.wire.reading import Reading
from components.wire.signals import BY_KEY
from tests.edge_parts import ONE, T0, TWO, reading, session_row


@dataclass(frozen=True)
class Row:
    at_ms: int
    body: Mapping[str, object] | None
    session: str = ONE


def rows(*seconds: float, corrupt: tuple[float, ...] = ()) -> list[SomeRow]:
    made = []
    for second in seconds:
        at_ms = T0 + round(second * 1000)
        made.append(Row(at_ms, None if second in corrupt else minute.reading_body(reading(at_ms, speed=50))))
    return list[SomeRow](made)


def build(
    readings: list[SomeRow],
    *,
    began_ms: int = T0 - 60_000,
    next_ms: int | None = T0 + 60_000,
    identity: Row | None = None,
    **of: Any,  # noqa: ANN401 - a body is made of anything
) -> Packet:
    dtcs = of.pop("dtcs", None)
    session = Row(began_ms, session_row(began_ms, **of)[2])
    return minute.build("car_one", readings, session, identity, dtcs, next_ms=next_ms)


def test_a_reading_comes_back_from_its_row_with_the_reason_that_rows_leave_out() -> None:
    why = {key: "unsupported" for key in BY_KEY if key != "rpm"} | {"speed": "timeout"}
    made = Reading(T0, {"rpm": 800.0}, why, {"rpm": 30})
    body = json.loads(json.dumps(minute.reading_body(made)))
    assert body["why"] == {"speed": "timeout"}
    assert minute.read_reading(T0, body) == made


def test_a_whole_minute_that_goes_on_has_no_gap() -> None:
    assert build(rows(*range(60))).gaps == ()


@pytest.mark.parametrize(
    ("present", "gap"),
    [
        ([*range(10), *range(20, 60)], Gap(T0 + 9000, T0 + 20_000, "late")),
        ([*range(5, 60)], Gap(T0, T0 + 5000, "late")),
        ([*range(50)], Gap(T0 + 49_000, T0 + 60_000, "late")),
    ],
    ids=["inside", "at the start", "at the end"],
)
def test_a_hole_of_more_than_two_and_a_half_intervals_is_a_late_gap(present: list[int], gap: Gap) -> None:
    assert build(rows(*present)).gaps == (gap,)


def test_a_hole_across_the_end_of_a_period_is_declared_where_it_begins_however_little_of_it_is_there() -> None:
    """Each part of it may be too short to be one by itself; between the two there may be periods without a packet."""
    end_ms = T0 + 60_000
    assert build(rows(*range(60)), next_ms=end_ms + 1500).gaps == ()
    assert build(rows(*range(60)), next_ms=end_ms + 1501).gaps == (Gap(T0 + 59_000, end_ms, "late"),)
    assert build(rows(*range(59), 59.999), next_ms=end_ms + 600_000).gaps == (Gap(end_ms - 1, end_ms, "late"),)


def test_a_hole_of_two_and_a_half_intervals_is_none() -> None:
    assert build(rows(*range(10), 11.5, *range(12, 60))).gaps == ()


def test_a_session_that_begins_or_ends_in_the_period_has_no_gap_outside_itself() -> None:
    assert build(rows(*range(20, 30)), began_ms=T0 + 20_000, next_ms=None).gaps == ()


def test_corrupt_rows_are_one_gap_from_the_sound_reading_before_to_the_one_after() -> None:
    made = build(rows(*range(60), corrupt=(10, 11)))
    assert made.gaps == (Gap(T0 + 9000, T0 + 12_000, "corrupt"),)
    assert made.readings is not None
    assert len(made.readings) == 58


def test_corrupt_rows_at_either_end_are_gaps_up_to_the_ends_of_the_period() -> None:
    made = build(rows(*range(60), corrupt=(0, 58, 59)))
    assert made.gaps == (Gap(T0, T0 + 1000, "corrupt"), Gap(T0 + 57_000, T0 + 60_000, "corrupt"))


def test_a_corrupt_row_at_the_start_of_a_session_is_a_gap_and_lies_to_nobody() -> None:
    lying: list[SomeRow] = [Row(T0 + 10**9, None, TWO), *rows(6, 7), Row(5, None, TWO)]
    made = build(lying, began_ms=T0 + 5000, next_ms=None)
    assert (made.session, made.start_ms) == (ONE, T0)
    assert made.gaps == (Gap(T0 + 5000, T0 + 6000, "corrupt"), Gap(T0 + 7000, T0 + 8000, "corrupt"))


def test_the_first_packet_of_a_session_tells_of_the_clock_and_no_other_does() -> None:
    fix = [TWO, -5000]
    assert build(rows(30, 31), began_ms=T0 + 30_000, clock_fix=fix).clock_fix == ClockFix(TWO, -5000)
    assert build(rows(0, 1), began_ms=T0 - 1, clock_fix=fix).clock_fix is None


def test_identity_is_the_rows_and_without_a_row_nothing_is_invented() -> None:
    body = {"vin": "1ZZVCAR59T0197980", "iccid": None, "imei": None, "why": {"iccid": "timeout", "imei": "timeout"}}
    assert build(rows(0), identity=Row(T0, body)).identity.vin == "1ZZVCAR59T0197980"
    nobody = build(rows(0)).identity
    assert (nobody.vin, nobody.iccid, nobody.imei) == (None, None, None)
    assert build(rows(0), identity=Row(T0, None)).identity == nobody


def test_codes_and_freeze_frame_are_the_rows_and_a_corrupt_row_says_nothing() -> None:
    code = TroubleCode("P0420", "stored", "7E8", T0 - 1000, T0)
    body = json.loads(json.dumps(minute.dtcs_body([code], {"rpm": 800.0})))
    made = build(rows(0), dtcs=Row(T0 + 3, body))
    assert (made.dtcs, made.dtcs_at_ms, made.freeze_frame) == ((code,), T0 + 3, {"rpm": 800.0})
    silent = build(rows(0), dtcs=Row(T0 + 3, None))
    assert (silent.dtcs, silent.dtcs_at_ms, silent.freeze_frame) == ((), None, None)


def test_a_device_that_sends_summaries_only_sends_no_readings_and_the_same_summary() -> None:
    full, short = build(rows(*range(60))), build(rows(*range(60)), content="summary")
    assert short.readings is None
    assert short.summary == full.summary
    assert short.summary["speed"]["count"] == 60


def test_the_same_rows_give_the_same_bytes_and_the_other_end_reads_them() -> None:
    first, second = (build(rows(*range(60), corrupt=(3,)), clock_fix=[TWO, 9]) for _ in range(2))
    assert pack(first) == pack(second)
    assert read(parse(pack(first))).gaps == first.gaps
