"""The recorder while clocks err, jump and are corrected, and what the compactor makes of its rows."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred
from twisted.logger import capturedLogs

from components.edge.ports import Sample
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.sqlite_readings import ReadingsReader, ReadingsWriter
from components.wire.packet import Gap, Packet
from tests.edge_parts import ONE, HeldLane, compactor, packet_of
from tests.reactor.test_recorder import P0420, T0, Bench

DAY, YEAR = 86_400_000, 365 * 86_400_000
WEEKS_1024 = 1024 * 7 * DAY
MINUTE = 60_000


def packed(bench: Bench, directory: Path) -> list[Packet]:
    """The packets that the compactor makes of all rows that the recorder wrote, in the order of their making."""
    writer, outbox = ReadingsWriter(directory / "readings.db"), SqliteOutbox(directory / "outbox.db")
    reader = ReadingsReader(directory / "readings.db")
    group: list[Any] = []
    for session, *row in bench.journal.rows:
        if group and group[0][0] != session:
            writer.append(group[0][0], [tuple(one) for _, one in group])
            group = []
        group.append((session, row))
    writer.append(group[0][0], [tuple(one) for _, one in group])
    compactor(reader, outbox).compact(closing=True)
    made = [packet_of(outbox.envelope(one.seq) or b"") for one in outbox.waiting()]
    for file in (writer, reader, outbox):
        file.close()
    return made


def dated(packets: list[Packet]) -> list[int]:
    """The time of every reading of all packets, moved by each `clock_fix` that follows it, as an archive would."""
    fixes = {one.clock_fix.previous_session: (one.session, one.clock_fix.offset_ms) for one in packets if one.clock_fix}
    found: list[int] = []
    for packet in packets:
        session, offset_ms = packet.session, 0
        while session in fixes:
            session, further_ms = fixes[session]
            offset_ms += further_ms
        found += [reading.at_ms + offset_ms for reading in packet.readings or ()]
    return found


def sound(packets: list[Packet], bench: Bench) -> None:
    """Each reading is in exactly one packet, in order in its session; ids differ; only first packets have a fix."""
    rows = [(session, at_ms) for session, _, at_ms, _ in bench.journal.of("reading")]
    assert [(one.session, reading.at_ms) for one in packets for reading in one.readings or ()] == rows
    assert len({one.id for one in packets}) == len(packets)
    by_session: dict[str, list[Packet]] = {}
    for one in packets:
        by_session.setdefault(one.session, []).append(one)
    for session, own in by_session.items():
        times = [at_ms for name, at_ms in rows if name == session]
        assert times == sorted(set(times))
        assert [one.start_ms for one in own] == sorted({one.start_ms for one in own})
        assert all(one.clock_fix is None for one in own[1:])


def doubts(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the log said is not believed: by whom and why."""
    return [f"{event['source']}: {event['why']}" for event in events if "not believed" in str(event.get("log_format"))]


@pytest.mark.parametrize("source", ["none", "saved", "rtc", "ntp"])
@pytest.mark.parametrize("offset_ms", [-2 * WEEKS_1024, -WEEKS_1024, -YEAR, WEEKS_1024, 80 * YEAR])
def test_a_receiver_whose_weeks_have_rolled_over_is_refused_whatever_else_is_known_and_told_of_once(
    source: str, offset_ms: int
) -> None:
    bench = Bench(source=source)
    with capturedLogs() as logged:
        bench.fixes(offset_ms)
        bench.start().run(120)
    assert (bench.recorder.timeline.session, len(bench.journal.of("session"))) == (ONE, 1)
    (said,) = doubts(logged)
    assert said.startswith("gps: it is ")


def test_a_receiver_that_jumps_by_itself_is_refused_until_two_fixes_agree() -> None:
    bench = Bench(source="saved").start().run(1.5)
    with capturedLogs() as logged:
        for offset_ms in (100_000, 200_000, 100_000, 200_000):
            bench.fixes(offset_ms)
            bench.run(1)
    assert doubts(logged) == ["gps: it jumped by more than 2 s from one to the next"]
    assert bench.recorder.timeline.session == ONE
    bench.run(1)
    assert bench.recorder.timeline.at(0) == T0 - 1_000_000 + 200_000


def test_a_clock_that_says_it_is_synchronised_and_stands_in_1970_is_refused_and_told_of_once() -> None:
    bench = Bench(source="none")
    with capturedLogs() as logged:
        bench.start(lambda: bench.told(-T0, "ntp")).run(10)
    assert bench.recorder.timeline.session == ONE
    assert len(doubts(logged)) == 1


def test_gps_stands_above_a_synchronised_clock_that_it_contradicts(tmp_path: Path) -> None:
    bench = Bench(source="ntp")
    bench.start(lambda: bench.told(0, "ntp")).run(10)
    bench.fixes(-2001)
    bench.run(10)
    first, second = packed(bench, tmp_path)
    assert (first.clock, second.clock) == ("ntp", "gps")
    assert second.clock_fix is not None
    assert second.clock_fix.offset_ms == -2001


@pytest.mark.parametrize("offset_ms", [-2000, -1000, 1000, 2000])
def test_leap_seconds_and_jitter_begin_no_session(offset_ms: int) -> None:
    bench = Bench(source="saved").start().run(5)
    bench.fixes(offset_ms)
    bench.run(60)
    assert len(bench.journal.of("session")) == 1


@pytest.mark.parametrize("offset_ms", [-30 * DAY, -90_000, -60_000, 60_000, 90_000, 19 * YEAR])
def test_a_fix_ten_minutes_after_the_start_dates_all_that_was_recorded_before(tmp_path: Path, offset_ms: int) -> None:
    bench = Bench(5000, source="saved").start().run(600)
    bench.fixes(offset_ms)
    bench.run(300)
    packets = packed(bench, tmp_path)
    sound(packets, bench)
    first = [len(one.readings or ()) for one in packets if one.session == ONE]
    second = [len(one.readings or ()) for one in packets if one.session != ONE]
    assert (first, set(second[1:-1])) == ([12] * 10 + [2], {12})
    assert dated(packets) == [T0 + offset_ms + at for at in range(0, 900_001, 5000)]
    assert [gap for one in packets for gap in one.gaps] == []


@pytest.mark.parametrize("at_s", [30, 59, 60, 61])
def test_the_minute_of_a_correction_is_split_over_two_sessions_and_both_are_whole(tmp_path: Path, at_s: int) -> None:
    bench = Bench(source="rtc").start().run(at_s - 1.5)
    bench.fixes(-MINUTE)
    bench.run(130)
    packets = packed(bench, tmp_path)
    sound(packets, bench)
    sessions = list(dict.fromkeys(one.session for one in packets))
    minutes = [{one.start_ms for one in packets if one.session == session} for session in sessions]
    assert len(sessions) == 2
    # The clock went back by a minute: the new session has minutes that the old one had too.
    assert minutes[0] & minutes[1] or at_s < 60
    assert dated(packets) == [T0 - MINUTE + at for at in range(0, len(bench.offsets) * 1000, 1000)]
    assert sum(one.clock_fix is not None for one in packets) == 1


def test_saved_then_network_then_gps_is_a_chain_that_dates_every_reading_to_the_ms(tmp_path: Path) -> None:
    bench = Bench(source="saved")
    bench.car.codes = (P0420,)
    is_synchronised = False
    bench.start(lambda: bench.told(90_777, "ntp") if is_synchronised else None).run(100)
    is_synchronised = True
    bench.run(100)
    bench.fixes(12_345)
    bench.run(100)
    packets = packed(bench, tmp_path)
    sound(packets, bench)
    fixed = [(one.clock, one.clock_fix.offset_ms) for one in packets if one.clock_fix is not None]
    assert fixed == [("ntp", 90_777), ("gps", 12_345 - 90_777)]
    assert dated(packets) == [T0 + 12_345 + at for at in range(0, 300_001, 1000)]
    # The code that was there from the start has its first moment told anew by each session.
    assert packets[-1].dtcs[0].first_seen_ms == T0 + 12_345
    assert {one.dtcs[0].first_seen_ms for one in packets if one.clock == "ntp"} == {T0 + 90_777}
    assert bench.changed == [((P0420,), ())]


def test_a_session_that_the_card_never_took_is_no_hole_in_the_chain(tmp_path: Path) -> None:
    bench = Bench(source="saved")
    is_synchronised = False
    bench.start(lambda: bench.told(90_000, "ntp") if is_synchronised else None).run(10.5)
    is_synchronised = True
    bench.journal.full = OSError("full")
    bench.run(5)
    bench.fixes(12_345)
    bench.run(5)
    bench.journal.full = None
    bench.run(10)
    packets = packed(bench, tmp_path)
    sound(packets, bench)
    assert [one.clock for one in packets] == ["saved", "gps"]
    assert dated(packets) == [T0 + 12_345 + at for at in (*range(0, 10_001, 1000), *range(21_000, 30_001, 1000))]


def test_a_file_that_breaks_before_a_corrected_session_reached_it_loses_no_link_of_the_chain() -> None:
    bench = Bench(source="saved").start().run(5)
    bench.journal.full = OSError("no room")
    bench.fixes(90_000)
    bench.run(5)
    bench.recorder.begin_session()
    bench.journal.full = None
    bench.run(5)
    assert [row[3]["clock_fix"] for row in bench.journal.of("session")] == [None, [ONE, 90_000]]


def test_a_clock_that_is_right_before_the_first_reading_corrects_nobody(tmp_path: Path) -> None:
    bench = Bench(source="saved")
    bench.start(lambda: bench.told(90_000, "ntp")).run(10)
    (packet,) = packed(bench, tmp_path)
    assert (packet.clock, packet.clock_fix) == ("ntp", None)


def test_a_note_before_a_session_s_first_reading_does_not_keep_its_first_packet_from_telling_of_the_clock(
    tmp_path: Path,
) -> None:
    bench = Bench(source="saved").start().run(57.5)
    bench.fixes(3_600_000)
    # The correction comes at 59 s, and its reading is lost; the note is kept; the next minute has the first reading.
    bench.run(1)
    bench.journal.full = OSError("full")
    bench.run(0.6)
    bench.journal.full = None
    ensureDeferred(bench.recorder.note({"step": "prepare_clear"}))
    bench.run(5)
    packets = packed(bench, tmp_path)
    sound(packets, bench)
    assert [one.start_ms for one in packets] == [T0, T0 + 3_660_000]
    assert packets[1].clock_fix is not None
    assert packets[1].clock_fix.offset_ms == 3_600_000


def suspended(bench: Bench, seconds: float) -> None:
    """The machine sleeps: elapsed time goes on, and no timer was called."""
    bench.clock.rightNow += seconds


def test_after_a_suspend_there_is_a_reading_at_once_of_what_the_car_says_now_and_the_gap_is_told(
    tmp_path: Path,
) -> None:
    bench = Bench().start().run(10.5)
    asked: list[tuple[int, int]] = []
    sample = bench.car.sample

    def asking(deadline_ms: int) -> Sample:
        asked.append((bench.elapsed_ms(), deadline_ms))
        return sample(deadline_ms)

    bench.car.sample = asking  # type: ignore[method-assign]
    suspended(bench, 3600)
    bench.run(0.05)
    # The tick that was due is long over; that the car had no time to answer it must not show.
    assert asked[-1][1] > asked[-1][0]
    bench.run(60)
    assert [at for at in bench.offsets if at > 10_000][:3] == [3_610_500, 3_611_000, 3_612_000]
    packets = packed(bench, tmp_path)
    sound(packets, bench)
    assert [gap for one in packets for gap in one.gaps] == [
        Gap(T0 + 10_000, T0 + MINUTE, "late"),
        Gap(T0 + 3_600_000, T0 + 3_610_500, "late"),
    ]


@pytest.mark.parametrize("is_answered_before", [False, True])
def test_what_the_car_said_before_a_suspend_is_never_shown_after_it(is_answered_before: bool) -> None:
    bench = Bench()
    bench.car_lane = held = HeldLane()
    held.is_holding = False
    bench.start().run(9.5)
    held.is_holding = True
    bench.run(1)
    bench.car.values = {"rpm": 4000.0}
    if is_answered_before:
        # In the thread, and nobody has looked yet.
        early = bench.car.sample(0)
        suspended(bench, 3600)
        held.queue[0] = (held.queue[0][0], lambda: early)
    else:
        suspended(bench, 3600)
    bench.car.values = {"rpm": 900.0}
    while held.queue:
        held.release()
    held.is_holding = False
    bench.run(3)
    after = [body for _, _, at_ms, body in bench.journal.of("reading") if at_ms > T0 + 3_600_000]
    assert len(after) >= 3
    assert all(body["values"].get("rpm") in {None, 900.0} for body in after)
    assert all(age_ms < 3000 for body in after for age_ms in body["age_ms"].values())


STEPS: st.SearchStrategy[list[tuple[str, int]]] = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.integers(1, 400_000)),
        st.tuples(st.just("suspend"), st.integers(1, 4_000_000)),
        st.tuples(
            st.just("gps"), st.one_of(st.integers(-100_000, 100_000), st.sampled_from([-WEEKS_1024, -DAY, YEAR]))
        ),
        st.tuples(st.just("ntp"), st.one_of(st.integers(-100_000, 100_000), st.sampled_from([-T0, -DAY, 10 * YEAR]))),
        st.tuples(st.just("card"), st.integers(0, 1)),
        st.tuples(st.just("note"), st.just(0)),
    ),
    max_size=10,
)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["none", "saved", "rtc", "ntp"]), STEPS)
@example("none", [("suspend", 125_000)])
def test_whatever_clocks_card_and_sleep_do_every_kept_reading_is_in_one_packet_and_dated_by_the_last_session(
    source: str, steps: list[tuple[str, int]]
) -> None:
    bench, network = Bench(5000, source), [0]
    says_ntp = False

    def note() -> None:
        ensureDeferred(bench.recorder.note({})).addErrback(lambda _full: None)

    bench.start(lambda: bench.told(network[0], "ntp") if says_ntp else None).run(5)
    for step, amount in [*steps, ("card", 0), ("run", 20_000)]:
        if step == "run":
            bench.run(amount / 1000)
        elif step == "suspend":
            suspended(bench, amount / 1000)
        elif step == "gps":
            bench.fixes(amount)
        elif step == "ntp":
            says_ntp, network[0] = True, amount
        elif step == "card":
            bench.journal.full = OSError("full") if amount else None
        else:
            note()
    with TemporaryDirectory() as directory:
        packets = packed(bench, Path(directory))
    sound(packets, bench)
    times = dated(packets)
    assert times == sorted(set(times))
    timeline = bench.recorder.timeline
    assert bench.recorder.latest is not None
    assert (times[0], times[-1]) == (timeline.at(1_000_000), bench.recorder.latest.at_ms)
