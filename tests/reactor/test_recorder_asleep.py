"""The recorder of a car that falls asleep and wakes: what is recorded, asked and begun, and when."""

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred

from components.edge.minute import read_reading
from components.edge.ports import Sample
from components.edge.power import Limits, Order, Power
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.sqlite_readings import ReadingsReader, ReadingsWriter
from components.wire.packet import parse, read
from components.wire.signals import OBD_SIGNALS
from tests.edge_parts import ONE, HeldLane, compactor, packets
from tests.reactor.test_recorder import T0, Bench


class Night(Bench):
    """A car whose engine the test starts and stops; what the recorder asks of it and orders is noted."""

    def __init__(self, source: str = "ntp", limits: Limits | None = None) -> None:
        super().__init__(source=source)
        self.limits = limits or Limits()
        self.orders: list[tuple[float, Order]] = []
        self.asked: list[tuple[float, str]] = []
        self.sent = True
        for name in ("sample", "rest", "read_dtcs"):
            self._note(name, getattr(self.car, name))
        self.engine(on=True)

    def _note(self, name: str, call: Any) -> None:  # noqa: ANN401 - any of the car's methods
        def noted(deadline_ms: int) -> object:
            self.asked.append((self.at_s, name))
            return call(deadline_ms)

        setattr(self.car, name, noted)

    def engine(self, *, on: bool) -> "Night":
        self.car.away, self.car.voltage_v = ("", 14.1) if on else ("no_data", 12.4)
        return self

    def night(self) -> "Night":
        """Start, drive for 10.5 s, stop the engine: the car sleeps 20 s after the look at 11 s."""
        self.start()
        self.recorder.power = Power(self.limits, self.elapsed_ms())
        self.recorder.power_changed = lambda order: self.orders.append((self.at_s, order))
        self.recorder.sent = lambda: self.sent
        self.run(10.5)
        return self.engine(on=False)

    @property
    def at_s(self) -> float:
        return self.clock.seconds() - 1000

    @property
    def sessions_of_readings(self) -> list[str]:
        return [session for session, *_ in self.journal.of("reading")]

    def asked_since(self, since_s: float) -> list[tuple[float, str]]:
        return [one for one in self.asked if one[0] > since_s]


def test_the_last_reading_says_asleep_and_has_its_place_and_after_it_nothing_is_recorded() -> None:
    night = Night().night()
    night.gps.values = {"gps_fix": 3}
    night.run(3600)
    assert night.offsets[-3:] == [30_000, 31_000, 32_000]
    last = read_reading(*night.journal.of("reading")[-1][2:])
    assert {last.why[signal.key] for signal in OBD_SIGNALS} == {"asleep"}
    assert last.values == {"gps_fix": 3}
    assert night.orders == [(32.0, "sleep")]
    assert night.recorder.lost == 0


def test_asleep_the_car_is_left_alone_but_for_its_voltage_every_five_seconds() -> None:
    night = Night().night().run(120)
    assert night.asked_since(31) == [(32.0 + 5 * n, "rest") for n in range(20)]


def test_a_car_that_wakes_is_recorded_in_a_new_session_of_the_same_clock_at_the_look_that_finds_it_charging() -> None:
    night = Night().night().run(60)
    night.engine(on=True).run(10)
    assert night.orders == [(32.0, "sleep"), (72.0, "wake")]
    assert night.offsets[-10:] == [32_000, *range(72_000, 81_000, 1_000)]
    session = night.recorder.timeline.session
    assert night.sessions_of_readings.index(session) == 33
    assert session != ONE
    assert (night.recorder.timeline.source, night.recorder.timeline.base_ms) == ("ntp", T0 - 1_000_000)
    rows = [row for row in night.journal.rows if row[0] == session]
    assert [kind for _, kind, _, _ in rows][:4] == ["session", "identity", "reading", "dtcs"]
    assert (rows[0][3]["clock"], rows[0][3]["clock_fix"]) == ("ntp", [ONE, 0])


@pytest.mark.parametrize("slept_s", [6, 3600])
def test_nothing_more_is_written_of_a_session_that_has_slept_whatever_wakes_and_falls_asleep(slept_s: int) -> None:
    night = Night().night()
    for _ in range(3):
        night.run(30 + slept_s).engine(on=True).run(20).engine(on=False)
    ended: set[str] = set()
    before = ""
    for session in night.sessions_of_readings:
        if session != before:
            assert session not in ended
            ended.add(before)
        before = session
    assert len(ended) == 4  # "" and three nights


def test_better_clocks_heard_in_the_night_date_the_session_before_it_and_nothing_is_recorded_for_them() -> None:
    night = Night(source="rtc").night().run(60)
    night.recorder.network_time = lambda: night.told(5_000, "ntp")
    night.run(10)
    night.fixes(86_400_000)
    night.run(30)
    night.gps.utc_ms = lambda: None  # type: ignore[method-assign]
    assert len(night.journal.of("session")) == 1
    night.engine(on=True).run(10)
    sessions = night.journal.of("session")
    assert [(row[3]["clock"], row[3]["clock_fix"]) for row in sessions] == [
        ("rtc", None), ("gps", [ONE, 86_400_000]),
    ]  # fmt: skip
    assert night.sessions_of_readings[-1] == sessions[-1][0]


def test_a_correction_after_the_night_dates_the_sessions_before_it_too() -> None:
    night = Night(source="rtc").night().run(60)
    night.engine(on=True).run(15)
    night.fixes(86_400_000)
    night.run(5)
    (first, _, _, _), (second, _, _, opening), (_, _, _, last) = night.journal.of("session")
    assert (opening["clock_fix"], last["clock_fix"]) == ([first, 0], [second, 86_400_000])


def test_a_clock_that_gps_set_and_that_drifts_is_right_again_after_the_night_and_no_time_is_told_twice() -> None:
    night, bases = Night(source="gps").night(), []
    for off_ms in (1_000, 3_000, 4_000, -9_000):
        night.run(60).fixes(off_ms)
        night.run(10).engine(on=True).run(20).engine(on=False)
        bases.append(night.recorder.timeline.base_ms - (T0 - 1_000_000))
    assert bases == [0, 3_000, 3_000, -9_000]
    sessions = night.journal.of("session")
    assert [row[3]["clock_fix"] for row in sessions] == [None, [ONE, 0], None, [sessions[2][0], 0], None]
    assert {row[3]["clock"] for row in sessions} == {"gps"}
    assert night.offsets == sorted(set(night.offsets))


def test_a_session_of_which_no_reading_was_kept_goes_on_after_the_night_with_what_it_has_to_tell() -> None:
    night = Night(source="rtc").night()
    night.journal.full = OSError("full")
    night.fixes(86_400_000)
    night.run(60)
    night.journal.full = None
    night.engine(on=True).run(10)
    assert [row[3]["clock_fix"] for row in night.journal.of("session")] == [None, [ONE, 86_400_000]]


def test_codes_are_asked_for_at_once_when_the_car_wakes() -> None:
    night = Night(limits=Limits(dwell_ms=5_000)).night().run(12)
    assert night.orders == [(17.0, "sleep")]
    night.engine(on=True).run(10)
    assert [row[2] - T0 for row in night.journal.of("dtcs")] == [0, 27_000]


def test_codes_that_an_operator_asks_for_in_the_night_are_read_and_the_car_sleeps_on() -> None:
    night = Night().night().run(60)
    night.car.away = ""
    found: list[object] = []
    ensureDeferred(night.recorder.read_codes()).addCallback(found.append)
    night.run(60)
    assert len(found) == 1
    assert night.recorder.power.state == "asleep"
    assert [name for _, name in night.asked_since(60)].count("read_dtcs") == 1


def test_a_card_that_takes_no_rows_does_not_keep_the_car_from_sleeping_or_waking() -> None:
    night = Night().night()
    night.journal.full = OSError("full")
    night.run(60)
    assert night.orders == [(32.0, "sleep")]
    night.engine(on=True).run(10)
    night.journal.full = None
    night.run(10)
    assert [order for _, order in night.orders] == ["sleep", "wake"]
    assert night.sessions_of_readings[-1] == night.recorder.timeline.session != ONE


def test_a_car_that_wakes_while_its_last_reading_is_made_is_closed_and_begun_anew() -> None:
    night = Night().night().run(21)
    assert night.recorder.power.state == "asleep"
    night.engine(on=True).run(10)
    assert [order for _, order in night.orders] == ["sleep", "wake"]
    assert len(set(night.sessions_of_readings)) == 2
    assert night.journal.of("reading")[-1][3]["values"]["rpm"] == 800.0


def test_a_look_may_take_longer_than_a_reading() -> None:
    night = Night().night().run(60)
    deadlines: list[int] = []
    rest = night.car.rest

    def noted(deadline_ms: int) -> Sample:
        deadlines.append(deadline_ms - night.elapsed_ms())
        return rest(deadline_ms)

    night.car.rest = noted  # type: ignore[method-assign]
    night.run(10)
    assert deadlines == [4_000, 4_000]


def test_a_driver_that_hangs_or_raises_in_the_night_ends_nothing() -> None:
    night = Night().night().run(60)
    night.car_lane = held = HeldLane()
    night.recorder.car_lane = held  # type: ignore[assignment]
    night.run(12)
    assert len(held.queue) == 1
    held.is_holding = False
    held.release()
    rest, night.car.rest = night.car.rest, no_rest  # type: ignore[method-assign]
    night.run(11)
    night.car.rest = rest  # type: ignore[method-assign]
    night.engine(on=True).run(10)
    assert night.orders[-1][1] == "wake"
    assert night.journal.of("reading")[-1][3]["values"]["rpm"] == 800.0


def test_a_rest_that_ends_after_the_car_woke_says_nothing_of_it() -> None:
    night = Night().night().run(60)
    night.recorder.car_lane = held = HeldLane()  # type: ignore[assignment]
    night.run(70)
    assert night.orders[-1][1] == "wake"  # nobody knows any more
    night.engine(on=True)
    held.is_holding = False
    while held.queue:
        held.release()
    night.run(5)
    since = [row[3] for row in night.journal.of("reading") if row[0] == night.recorder.timeline.session]
    assert not any("asleep" in body["why"].values() for body in since)
    assert since[-1]["values"]["rpm"] == 800.0


def no_rest(deadline_ms: int) -> Sample:
    raise AssertionError(deadline_ms)


def test_the_command_is_ordered_once_a_night_and_when_the_packet_was_sent() -> None:
    night = Night(limits=Limits(idle_ms=10_000)).night()
    night.sent = False
    night.run(40)
    assert [order for _, order in night.orders] == ["sleep"]
    night.sent = True
    night.run(3600)
    assert night.orders == [(32.0, "sleep"), (52.0, "command")]


def test_stop_ends_a_sleeping_recorder_at_once() -> None:
    night = Night().night().run(60)
    night.recorder.stop()
    assert night.done.called
    assert night.clock.getDelayedCalls() == []


def test_rows_of_two_nights_in_one_minute_make_packets_that_hold_every_reading_once(tmp_path: Path) -> None:
    night = Night(limits=Limits(dwell_ms=5_000))
    writer, outbox = ReadingsWriter(tmp_path / "readings.db"), SqliteOutbox(tmp_path / "outbox.db")
    packer = compactor(ReadingsReader(tmp_path / "readings.db"), outbox)
    night.journal = writer  # type: ignore[assignment]
    night.night()
    recorder = night.recorder

    def obey(order: Order) -> None:
        if order == "sleep":
            packer.compact(ended=recorder.timeline.session)

    recorder.power_changed = obey
    recorder.closed = packer.compact
    for _ in range(2):
        night.run(10).engine(on=True).run(6).engine(on=False)
    recorder.stop()
    packer.compact(closing=True)
    rows = ReadingsReader(tmp_path / "readings.db").readings_after(0, 1000)
    made = [read(parse(plain)) for plain in packets(outbox).values()]
    assert {one.start_ms for one in made} == {T0}
    assert len({one.session for one in made}) == len(made) == 3
    packed = [(one.session, reading.at_ms) for one in made for reading in one.readings or ()]
    assert sorted(packed) == sorted((row.session, row.at_ms) for row in rows)
