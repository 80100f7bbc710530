"""Whether the loops of recorder and intake are heard to turn, and what both ends tell of themselves."""

import os
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Never, TypeVar

import pytest
from twisted.internet.defer import ensureDeferred

from components.cloud import wamp_intake
from components.cloud.outside import Outside as CloudOutside
from components.console.supervisor import Supervisor
from components.edge.outside import Outside as EdgeOutside
from components.edge.power import LOOK_EVERY_MS
from components.edge.sqlite_readings import ReadingsReader, ReadingsWriter
from components.metrics import Metric
from tests.edge_parts import ONE, T0, HeldLane, as_lane, compactor, drive
from tests.intake_parts import Cloud
from tests.reactor import test_device
from tests.reactor.test_recorder import Bench
from tests.reactor.test_recorder_asleep import Night
from tests.sealed import plain, sealed
from tests.service_manager import Manager

T = TypeVar("T")


def now(work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine that waits for nothing returns."""
    found: list[T] = []
    ensureDeferred(work).addCallback(found.append)
    (one,) = found
    return one


def numbers(told: Sequence[Metric]) -> Mapping[tuple[str, ...], float]:
    """Return them by name, without its `odograph_`, and labels."""
    return {
        (metric.name.removeprefix("odograph_"), *labels): value
        for metric in told
        for labels, value in metric.values.items()
    }


def turns(bench: Bench) -> list[float]:
    """Return when its loop turns, from now on."""
    found: list[float] = []
    bench.recorder.turned = lambda: found.append(bench.clock.seconds())
    return found


def test_a_recorder_turns_with_each_reading_that_is_kept_and_with_none_while_the_card_does_not_answer() -> None:
    bench = Bench().start()
    found = turns(bench)
    bench.run(5)
    assert len(found) == 5
    bench.recorder.file_lane = as_lane(held := HeldLane())
    bench.run(300)
    assert len(found) == 5
    held.release()
    held.is_holding = False
    bench.run(2)
    assert len(found) >= 7


def test_the_watchdog_of_a_service_manager_hears_of_a_loop_that_turns_and_nothing_of_one_that_hangs(
    tmp_path: Path,
) -> None:
    with Manager(str(tmp_path / "notify")) as manager:
        bench, held = Bench(), HeldLane()
        supervisor = Supervisor.of(manager.environment(60, os.getpid()), bench.clock.seconds)
        bench.start()
        bench.recorder.turned = supervisor.turned
        bench.recorder.file_lane = as_lane(held)
        bench.run(30)
        assert manager.heard() == []
        held.release()
        held.is_holding = False
        bench.run(60)
        first, *more = manager.heard()
        assert first.startswith("READY=1")
        assert set(more) == {"WATCHDOG=1"}
        assert len(more) >= 3
        bench.recorder.file_lane = as_lane(HeldLane())
        bench.run(600)
        assert manager.heard() == []


def test_a_card_that_refuses_is_a_turn_and_an_error_of_another_kind_is_none() -> None:
    bench = Bench().start()
    found = turns(bench)
    bench.journal.full = OSError("database or disk is full")
    bench.run(3)
    assert (len(found), bench.recorder.lost) == (3, 3)

    def broken() -> None:
        raise RuntimeError("a fault of ours")

    bench.recorder.network_time = broken
    bench.run(3)
    assert (len(found), bench.recorder.lost) == (3, 6)


def test_to_look_at_a_sleeping_car_is_a_turn_and_it_may_take_as_long_as_three_looks() -> None:
    night = Night().night()
    night.run(60)
    assert night.recorder.power.state == "asleep"
    found = turns(night)
    night.run(60)
    assert len(found) == 60_000 / LOOK_EVERY_MS
    assert night.recorder.interval_ms == LOOK_EVERY_MS


def test_the_edge_tells_its_readings_its_backlog_and_how_old_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = test_device.Bench(tmp_path)
    view = EdgeOutside(bench.device, {"bound": 3})
    assert view.patience_s == 3.0
    empty = numbers(now(view.metrics()))
    assert (empty["outbox_packets", "waiting"], empty["oldest_unsent_age_seconds",]) == (0, 0)
    assert ("latest_reading_age_seconds",) not in empty
    writer = ReadingsWriter(tmp_path / "readings.db")
    drive(writer, ONE, T0 - 120_000, 150)
    outbox = bench.device.outbox
    compactor(ReadingsReader(tmp_path / "readings.db"), outbox).compact()
    bench.link.kept(outbox.waiting(), fresh=False)
    bench.recorder.recorded, bench.recorder.lost = 7, 2
    bench.link.counts |= {"stored": 5, "bad": 3, "bad.grammar": 1, "bad.signature": 2, "foreign": 4}
    said = replace(bench.car.state(), rejected={"timeout": 3}, voltage_v=12.5)
    monkeypatch.setattr(bench.car, "state", lambda: said)
    bench.clock.advance(30)
    told = numbers(now(view.metrics()))
    assert told["outbox_packets", "waiting"] == 2
    assert told["outbox_waiting_bytes",] == sum(len(outbox.envelope(one.seq) or b"") for one in outbox.waiting())
    assert told["oldest_unsent_age_seconds",] == 150
    assert (told["readings_total", "kept"], told["readings_total", "lost"]) == (7, 2)
    assert {key[1]: value for key, value in told.items() if key[0] == "power_state"} == {"awake": 1, "asleep": 0}
    assert {key[1] for key, value in told.items() if key[0] == "clock_source" and value} == {"ntp"}
    assert (told["signals_without_value_total", "timeout"], told["plug_volts",]) == (3, 12.5)
    assert told["receipts_total", "stored"] == 5
    assert {key[1]: value for key, value in told.items() if key[0] == "bad_receipts_total"} == {
        "grammar": 1, "signature": 2
    }  # fmt: skip
    assert (told["foreign_receipts_total",], told["lost_ranges_total", "bound"]) == (4, 3)
    assert told["router_connected",] == 0
    assert view.unready() == ["no session with the router"]
    bench.recorder.trouble = "disk is full"
    assert view.unready()[1] == "the card takes no readings: disk is full"


def test_the_cloud_tells_each_packet_by_its_outcome_and_code_and_each_once() -> None:
    cloud = Cloud()
    view = CloudOutside(cloud.intake)
    assert view.unready() == []
    good = sealed()
    cloud.hear(good, good, good[:-1] + bytes([good[-1] ^ 1]), b"nonsense")
    told = numbers(now(view.metrics()))
    packets = {key[1:]: value for key, value in told.items() if key[0] == "packets_total"}
    assert packets == {
        ("stored", ""): 1,
        ("duplicate", ""): 2 - 1,
        ("rejected", "signature"): 1,
        ("rejected", "grammar"): 1,
    }
    assert sum(packets.values()) == 4
    assert told["fed_packets_total",] == 1
    assert told["queue_packets", "intake"] == 0
    end_s = plain().start_ms / 1000 + plain().period_s
    assert told["newest_packet_timestamp_seconds",] == end_s
    assert told["lag_seconds_total",] > 0


def test_a_store_that_is_away_is_told_and_is_not_when_it_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wamp_intake, "SWEEP_AFTER_MS", -60_000)
    cloud = Cloud()
    view = CloudOutside(cloud.intake)
    cloud.feed.away = True
    cloud.hear(sealed())
    assert numbers(now(view.metrics()))["store_up", "feed"] == 0
    assert [fault.partition(":")[0] for fault in view.unready()] == ["feed"]
    cloud.archive.away = True
    cloud.intake.sweep()
    assert [fault.partition(":")[0] for fault in view.unready()] == ["archive", "feed"]
    cloud.archive.away = cloud.feed.away = False
    cloud.intake.sweep()
    assert view.unready() == []
    cloud.session.attached = False
    assert view.unready() == ["no session with the router"]


def test_a_packet_that_cannot_be_fed_is_counted_until_a_version_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_stored: object) -> Never:
        raise KeyError("a key of another version")

    monkeypatch.setattr(wamp_intake, "events", broken)
    cloud = Cloud()
    cloud.hear(sealed(), sealed(n=1))
    assert numbers(now(CloudOutside(cloud.intake).metrics()))["unfit_packets",] == 2
    assert cloud.archive.counts()["pending"] == 2


def test_the_intake_does_not_turn_while_the_archives_lane_hangs() -> None:
    cloud = Cloud()
    found: list[int] = []
    cloud.intake.turned = lambda: found.append(1)
    cloud.lane.held = True
    for _ in range(3):
        cloud.intake.sweep()
    assert found == []
    cloud.lane.release()
    assert found == [1]


def test_the_intake_turns_with_each_look_and_each_feeding_whatever_the_stores_say_and_not_while_one_hangs() -> None:
    cloud = Cloud()
    found: list[int] = []
    cloud.intake.turned = lambda: found.append(1)
    cloud.intake.sweep()
    assert len(found) == 1
    cloud.archive.away = True
    cloud.intake.sweep()
    assert len(found) == 2
    cloud.archive.away = False
    cloud.feed_lane.held = True
    cloud.hear(sealed())
    before = len(found)
    for _ in range(10):
        cloud.intake.sweep()
    assert len(found) == before
    cloud.feed_lane.release()
    assert len(found) > before
