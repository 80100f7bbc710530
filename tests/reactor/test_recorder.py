"""The recorder on a clock that the test moves: its rhythm, whatever car, card and clocks do."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Self, cast

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from components.edge.minute import read_reading
from components.edge.ports import Dtc, Sample
from components.edge.recorder import Recorder, Sources
from components.edge.timeline import Timeline, Told
from components.wire.errors import UnavailableError
from components.wire.signals import OBD_SIGNALS
from tests.edge_parts import ONE, HeldLane, InlineLane, Journal, as_lane
from tests.fakes import FakeCar, FakeGps

T0 = 1_795_312_800_000
"""2026-11-22T02:00:00Z: a whole minute, and one that a clock may tell."""
P0420 = Dtc("P0420", "stored", "7E8")


class Bench:
    """A recorder with all that it needs; `run(s)` lets that many seconds pass, alarm by alarm."""

    def __init__(self, interval_ms: int = 1000, source: str = "ntp") -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.car = FakeCar(self.elapsed_ms, {"rpm": 800.0, "speed": 0})
        self.gps = FakeGps()
        self.car_lane: InlineLane | HeldLane = InlineLane()
        self.journal = Journal()
        self.sessions: Iterator[str] = iter(f"{n:016x}" for n in range(100_000, 200_000))
        self.closed: list[int] = []
        self.changed: list[tuple[tuple[object, ...], tuple[object, ...]]] = []
        self.source, self.interval_ms = source, interval_ms
        self.recorder: Recorder
        self.done: Deferred[None]

    def elapsed_ms(self) -> int:
        return round(self.clock.seconds() * 1000)

    def start(self, network_time: Callable[[], Told | None] = lambda: None) -> Self:
        self.recorder = Recorder(
            reactor=self.clock,
            elapsed_ms=self.elapsed_ms,
            sources=Sources(self.car, self.gps, None, self.interval_ms, 60, "full", "c" * 16),
            car_lane=as_lane(self.car_lane),
            file_lane=as_lane(InlineLane()),
            journal=self.journal,
            timeline=Timeline(ONE, self.source, T0 - self.elapsed_ms()),
            new_session=lambda: next(self.sessions),
            closed=lambda: self.closed.append(self.elapsed_ms()),
            changed=lambda new, old: self.changed.append((new, old)),
            network_time=network_time,
        )
        self.done = ensureDeferred(self.recorder.run())
        return self

    def run(self, seconds: float) -> Self:
        end = self.clock.seconds() + seconds
        while (calls := self.clock.getDelayedCalls()) and (
            first := min(cast("Any", call).getTime() for call in calls)
        ) <= end:
            self.clock.rightNow = max(first, self.clock.rightNow)
            self.clock.advance(0)
        self.clock.rightNow = end
        return self

    def told(self, offset_ms: int, source: str = "gps") -> Told:
        """What a clock says that is `offset_ms` ahead of the first session's."""
        return Told(source, T0 - 1_000_000 + self.elapsed_ms() + offset_ms, self.elapsed_ms())

    def fixes(self, offset_ms: int) -> None:
        """From now on gpsd tells a time, new at every look, that is so far ahead of the first session's."""

        def utc_ms() -> tuple[int, int]:
            told = self.told(offset_ms)
            return told.utc_ms, told.elapsed_ms

        self.gps.utc_ms = utc_ms  # type: ignore[method-assign]

    @property
    def offsets(self) -> list[int]:
        """When readings were made, ms after the start."""
        return [at_ms - T0 for _, _, at_ms, _ in self.journal.of("reading")]


def failure_of(work: Coroutine[Any, Any, object]) -> BaseException | None:
    """What the work raised."""
    raised: list[BaseException] = []

    def note(failure: Failure) -> None:
        raised.append(cast("BaseException", failure.value))

    ensureDeferred(work).addErrback(note)
    return raised[0] if raised else None


def never(*_: object) -> None:
    raise AssertionError


@pytest.mark.parametrize("interval_ms", [1000, 100])
def test_there_is_a_reading_every_interval(interval_ms: int) -> None:
    bench = Bench(interval_ms).start().run(3.05)
    assert bench.offsets == list(range(0, 3001, interval_ms))
    assert bench.recorder.recorded == len(bench.offsets)


def test_the_row_that_opens_the_session_comes_first_then_who_it_is_then_the_reading() -> None:
    bench = Bench().start()
    assert [kind for _, kind, _, _ in bench.journal.rows] == ["session", "identity", "reading", "dtcs"]
    opening = bench.journal.rows[0][3]
    assert (opening["clock"], opening["interval_ms"], opening["period_s"], opening["clock_fix"]) == (
        "ntp", 1000, 60, None,
    )  # fmt: skip


def test_identity_is_written_again_when_it_changes_and_not_otherwise() -> None:
    bench = Bench().start().run(3)
    assert len(bench.journal.of("identity")) == 1
    bench.car.vin = None
    bench.run(3)
    assert [row[3]["vin"] for row in bench.journal.of("identity")] == ["1ZZVCAR59T0197980", None]


def test_the_car_that_was_met_last_is_who_is_recorded_until_another_one_is_met() -> None:
    bench = Bench().start().run(3)
    vin, bench.car.vin, bench.car.away = bench.car.vin, None, "timeout"
    bench.run(3)
    assert [row[3]["vin"] for row in bench.journal.of("identity")] == [vin]
    bench.car.away = ""
    bench.run(3)
    assert [row[3]["vin"] for row in bench.journal.of("identity")] == [vin, None]


def test_codes_are_read_at_the_start_and_once_a_minute_and_what_changed_is_told() -> None:
    bench = Bench().start().run(30)
    assert bench.changed == []
    bench.car.codes = (P0420,)
    bench.run(35)
    assert [row[2] - T0 for row in bench.journal.of("dtcs")] == [0, 60_000]
    assert bench.changed == [((P0420,), ())]
    bench.car.codes = ()
    bench.run(60)
    assert [(new, len(old)) for new, old in bench.changed[1:]] == [((), 1)]


def test_a_car_that_does_not_tell_its_codes_is_asked_again_after_ten_seconds() -> None:
    bench = Bench()
    bench.car.away = "no_data"
    bench.start().run(5)
    bench.car.away = ""
    bench.run(6)
    assert [row[2] - T0 for row in bench.journal.of("dtcs")] == [10_000]


def test_the_period_that_is_over_is_told_of_once() -> None:
    bench = Bench().start().run(125)
    assert [at - 1_000_000 for at in bench.closed] == [60_000, 120_000]


def test_a_car_call_that_overruns_leaves_reasons_keeps_the_rhythm_and_is_never_doubled() -> None:
    bench = Bench()
    bench.car_lane = held = HeldLane()
    bench.gps.values = {"gps_fix": 3}
    bench.gps.heard_ms = bench.elapsed_ms()
    bench.start().run(3.5)
    assert bench.offsets == [900, 1900, 2900]
    bodies = [body for _, _, _, body in bench.journal.of("reading")]
    assert all({body["why"][signal.key] for signal in OBD_SIGNALS} == {"timeout"} for body in bodies)
    assert all(body["values"]["gps_fix"] == 3 for body in bodies)
    # One `sample`, and the codes that wait behind it.
    assert len(held.queue) == 2
    held.release()
    held.is_holding = False
    bench.run(1)
    assert bench.journal.of("reading")[-1][3]["values"]["rpm"] == 800.0


def keeping() -> Bench:
    """A bench whose car has told three values at 0 s, each good for another while, and then overruns."""
    bench = Bench()
    bench.car_lane = held = HeldLane()
    bench.car.values = {"rpm": 800.0, "temp": 80, "obd_standard": "eobd", "speed": 0}
    bench.car.keep_ms = {"rpm": 3_000, "temp": 90_000, "obd_standard": None}
    held.is_holding = False
    bench.start()
    held.is_holding = True
    return bench


def test_while_a_car_call_overruns_each_value_stays_with_its_age_until_it_is_too_old() -> None:
    bench = keeping().run(5)
    readings = [read_reading(*row[2:]) for row in bench.journal.of("reading")]
    assert [sorted(reading.values) for reading in readings[1:]] == [
        ["obd_standard", "rpm", "temp"],
        ["obd_standard", "rpm", "temp"],
        ["obd_standard", "temp"],
        ["obd_standard", "temp"],
    ]
    assert [reading.age_ms["temp"] for reading in readings[1:]] == [1_900, 2_900, 3_900, 4_900]
    assert {readings[-1].why[key] for key in ("rpm", "speed", "load")} == {"timeout"}


def test_a_car_that_is_gone_or_whose_driver_broke_leaves_no_values_behind() -> None:
    bench = keeping().run(1.95)
    bench.car.away = "bus_error"
    bench.run(1)
    assert "temp" not in bench.journal.of("reading")[-1][3]["values"]
    bench = keeping()
    bench.car.sample = never  # type: ignore[assignment]
    bench.run(1.5)
    cast("HeldLane", bench.car_lane).release()
    bench.run(2)
    assert [row[3]["why"].get("temp") for row in bench.journal.of("reading")] == [None, "adapter_error", "timeout"]


@pytest.mark.parametrize("interval_ms", [1000, 100])
def test_the_rhythm_is_kept_while_the_car_is_silent(interval_ms: int) -> None:
    bench = Bench(interval_ms)
    bench.car_lane = HeldLane()
    bench.start().run(3)
    distances = {late - early for early, late in zip(bench.offsets, bench.offsets[1:], strict=False)}
    assert distances == {interval_ms}


def test_what_an_overrun_call_brought_is_used_with_its_age_by_the_next_reading() -> None:
    bench = Bench()
    bench.car_lane = held = HeldLane()
    bench.start().run(0.95)
    held.release()
    bench.run(0.1)
    latest = bench.journal.of("reading")[-1]
    assert (latest[2] - T0, latest[3]["values"]["rpm"], latest[3]["age_ms"]["rpm"]) == (1000, 800.0, 50)


def test_reading_codes_makes_no_hole_in_the_readings() -> None:
    bench = Bench()
    bench.car_lane = held = HeldLane()
    held.is_holding = False
    bench.start()
    held.is_holding = True
    bench.run(59.5 - 58)
    held.is_holding = False
    while held.queue:
        held.release()
    bench.run(58)
    held.is_holding = True
    bench.run(5)
    distances = [late - early for early, late in zip(bench.offsets, bench.offsets[1:], strict=False)]
    assert max(distances) < 2000


def test_a_driver_that_raises_though_it_never_may_does_not_end_recording() -> None:
    bench = Bench()
    sample = bench.car.sample
    bench.car.sample = never  # type: ignore[assignment]
    bench.start().run(2)
    assert bench.journal.of("reading")[-1][3]["why"]["rpm"] == "adapter_error"
    bench.car.sample = sample  # type: ignore[method-assign]
    bench.run(1)
    assert bench.offsets == [0, 1000, 2000, 3000]
    assert bench.journal.of("reading")[-1][3]["values"]["rpm"] == 800.0


def test_a_source_that_breaks_its_word_costs_its_readings_and_no_more() -> None:
    bench = Bench()
    sample = bench.gps.sample
    bench.gps.sample = lambda elapsed_ms: Sample({}, {}, {})  # type: ignore[method-assign] # noqa: ARG005
    bench.start().run(1.5)
    bench.gps.sample = sample  # type: ignore[method-assign]
    bench.run(1)
    assert (bench.offsets, bench.recorder.lost) == ([2000], 2)


def test_a_full_card_ends_nothing_is_counted_and_is_told_until_it_takes_rows_again() -> None:
    bench = Bench()
    bench.journal.full = OSError("database or disk is full")
    bench.start().run(2.5)
    assert (bench.recorder.recorded, bench.recorder.lost, bench.recorder.trouble) == (0, 3, "database or disk is full")
    bench.journal.full = None
    bench.run(10)
    assert (bench.recorder.recorded, bench.recorder.lost, bench.recorder.trouble) == (10, 3, "")
    assert [kind for _, kind, _, _ in bench.journal.rows][:3] == ["session", "identity", "reading"]
    assert len(bench.journal.of("session")) == len(bench.journal.of("identity")) == 1
    # The codes could not be kept either: they are asked again.
    assert len(bench.journal.of("dtcs")) == 1


def test_a_period_that_ends_while_the_card_is_full_is_closed_when_it_takes_rows_again() -> None:
    bench = Bench().start().run(58)
    bench.journal.full = OSError("full")
    bench.run(5)
    bench.journal.full = None
    bench.run(3)
    assert len(bench.closed) == 1


def test_whoever_asks_for_codes_or_leaves_a_note_hears_that_it_was_not_kept() -> None:
    bench = Bench().start()
    bench.journal.full = OSError("full")
    assert isinstance(failure_of(bench.recorder.read_codes()), UnavailableError)
    assert isinstance(failure_of(bench.recorder.note({})), UnavailableError)


@pytest.mark.parametrize("offset_ms", [-86_400_000, 86_400_000])
def test_a_corrected_clock_starts_a_session_whose_row_comes_first_and_tells_of_the_old_one(offset_ms: int) -> None:
    bench = Bench(source="rtc")
    bench.car.codes = (P0420,)
    bench.start().run(2.5)
    bench.fixes(offset_ms)
    bench.run(3)
    session = bench.recorder.timeline.session
    new = [row for row in bench.journal.rows if row[0] == session]
    assert [kind for _, kind, _, _ in new] == ["session", "identity", "reading", "dtcs", "reading"]
    assert (new[0][3]["clock"], new[0][3]["clock_fix"]) == ("gps", [ONE, offset_ms])
    assert new[2][2] == T0 + 4000 + offset_ms
    # The book is kept: what was there before has not appeared now.
    assert bench.changed == [((P0420,), ())]
    assert bench.journal.rows.index(new[0]) == len(bench.journal.rows) - 5


def test_the_machine_s_own_clock_counts_when_it_becomes_better_than_the_session_s() -> None:
    is_synchronised = False
    bench = Bench(source="rtc")
    bench.start(lambda: bench.told(56_000, "ntp") if is_synchronised else None).run(3.5)
    assert bench.recorder.timeline.session == ONE
    is_synchronised = True
    bench.run(1)
    assert bench.recorder.timeline.source == "ntp"
    assert bench.journal.of("session")[-1][3]["clock_fix"] == [ONE, 56_000]


def test_codes_that_were_asked_for_before_a_correction_are_asked_again_after_it() -> None:
    bench = Bench(source="rtc")
    bench.car_lane = held = HeldLane()
    bench.start().run(1.5)
    bench.fixes(100_000)
    bench.run(2)
    while held.queue:
        held.release()
    held.is_holding = False
    bench.run(1)
    assert [row[0] for row in bench.journal.of("dtcs")] == [bench.recorder.timeline.session] * 2


def test_stop_ends_it_at_once_between_two_readings() -> None:
    bench = Bench().start().run(1.5)
    bench.recorder.stop()
    assert bench.done.called
    bench.run(5)
    assert bench.offsets == [0, 1000]
    assert bench.clock.getDelayedCalls() == []


def test_stop_ends_it_after_the_reading_in_hand_and_the_codes_in_hand() -> None:
    bench = Bench()
    bench.car_lane = held = HeldLane()
    bench.start().run(1.5)
    bench.recorder.stop()
    assert not bench.done.called
    bench.run(1)
    assert bench.offsets == [900, 1900]
    assert not bench.done.called
    while held.queue:
        held.release()
    assert bench.done.called


def test_codes_that_the_card_did_not_take_are_told_of_all_the_same() -> None:
    bench = Bench().start()
    bench.car.codes = (P0420,)
    bench.journal.full = OSError("full")
    assert isinstance(failure_of(bench.recorder.read_codes()), UnavailableError)
    assert bench.changed == [((P0420,), ())]
