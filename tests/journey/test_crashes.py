"""Crashes of every part in mid-drive: at the end made = stored, no id twice, every event id fed.

One fleet for all of them, one car; each test leaves it whole, the last one ends it.
"""

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from components.cloud.stores import open_archive_reader
from components.console.fleet import Fleet
from components.edge.spool_view import SpoolView
from components.edge.sqlite_readings import ReadingsReader
from components.wire import bundle, envelope
from components.wire import packet as packets
from tests.commands import odograph
from tests.journey_fleet import access, balanced, counted, more_receipts, running_fleet, script, told
from tests.waiting import PATIENCE_S, until


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("crashes") / "home") as running:
        yield running


@pytest.fixture(autouse=True)
def driving(fleet: Fleet) -> None:
    more_receipts(fleet.cars[0])


def stored_times(fleet: Fleet) -> list[int]:
    """Return the time of every stored reading, ms UTC."""
    with closing(open_archive_reader(fleet.plan.archive, fleet.home.path)) as archive:
        found = [packets.read(one.packet) for one in archive.minutes(fleet.cars[0].device)]
    return [reading.at_ms for one in found for reading in one.readings or ()]


def test_a_router_that_is_killed_and_comes_back_costs_nothing(fleet: Fleet) -> None:
    assert fleet.node is not None
    before = counted(fleet).made
    fleet.node.kill()
    # Long enough that packets are made which cannot go anywhere.
    until(lambda: len(SpoolView(fleet.cars[0].spool).packets()) >= before + 2)
    fleet.node.launch()
    fleet.node.wait_until_ready()
    balanced(fleet, before + 2)


def test_a_persister_killed_between_storing_and_receipt_is_told_again_and_stores_once(fleet: Fleet) -> None:
    assert fleet.persister is not None
    assert fleet.persister.end() == 0
    dying = fleet.start_process("dying", [*script("dying_persister.py"), str(fleet.home.config)])
    before = counted(fleet)
    assert dying.wait() == -signal.SIGKILL
    after = counted(fleet)
    unreceipted = after.stored - after.receipted
    assert after.stored > before.stored
    assert unreceipted >= 1
    twice = told("status", "car_01", *access(fleet))["uplink"]["duplicate"]
    fleet.start_persister()
    balanced(fleet, after.made)
    assert told("status", "car_01", *access(fleet))["uplink"]["duplicate"] >= twice + unreceipted


def test_an_edge_that_is_killed_loses_nothing_that_it_had_recorded_and_doubles_nothing(fleet: Fleet) -> None:
    car = fleet.cars[0]
    assert car.agent is not None
    with closing(ReadingsReader(car.spool / "readings.db")) as reader:
        recorded = {row.at_ms for row in reader.readings_after(0, 10_000)}
    car.agent.kill()
    made = counted(fleet).made
    fleet.start_agent(car)
    more_receipts(car)
    figures = balanced(fleet, made + 2)
    assert figures.duplicates == 0
    times = stored_times(fleet)
    assert [at for at, count in Counter(times).items() if count > 1] == []
    assert recorded
    assert recorded <= set(times)


def believed_kid(fleet: Fleet) -> str:
    """Return the name of the server's bundle that the car's agent has kept."""
    return bundle.parse((fleet.cars[0].directory / "server.pub.json").read_text("utf-8")).kid


def rotate(fleet: Fleet) -> str:
    """Make new server keys; return the name of their bundle."""
    ended = odograph("keys", "rotate", "--home", fleet.home.path)
    assert ended.returncode == 0, ended.stderr
    return bundle.parse(fleet.home.bundle.read_text("utf-8")).kid


def stored_for(fleet: Fleet) -> set[str]:
    """Return the server's keys for which what is stored was sealed."""
    with closing(open_archive_reader(fleet.plan.archive, fleet.home.path)) as archive:
        return {envelope.server_kid(one.envelope) for one in archive.minutes(fleet.cars[0].device)}


def test_server_keys_are_rotated_while_packets_flow_and_none_is_lost(fleet: Fleet) -> None:
    old, made = believed_kid(fleet), counted(fleet).made
    new = rotate(fleet)
    until(lambda: believed_kid(fleet) == new)
    until(lambda: stored_for(fleet) >= {old, new})
    balanced(fleet, made + 2)


@pytest.mark.slow
def test_a_device_that_was_away_for_two_rotations_climbs_to_the_newest_key_and_loses_nothing(fleet: Fleet) -> None:
    assert fleet.node is not None
    old, made = believed_kid(fleet), counted(fleet).made
    fleet.node.kill()
    between, newest = rotate(fleet), rotate(fleet)
    until(lambda: len(SpoolView(fleet.cars[0].spool).packets()) >= made + 2)
    assert believed_kid(fleet) == old
    fleet.node.launch()
    fleet.node.wait_until_ready()
    until(lambda: believed_kid(fleet) == newest)
    until(lambda: newest in stored_for(fleet))
    figures = balanced(fleet, made + 3)
    assert figures.duplicates == 0
    assert between not in stored_for(fleet)


def test_the_agent_runs_under_autobahns_own_runner_too(fleet: Fleet) -> None:
    car = fleet.cars[0]
    assert car.agent is not None
    assert car.agent.end() == 0
    for number in (signal.SIGTERM, signal.SIGINT):
        car.agent = fleet.start_process("plain-agent", [*script("plain_runner.py"), str(car.config)])
        more_receipts(car)
        recorded = SpoolView(car.spool).readings()
        until(lambda: SpoolView(car.spool).readings() > recorded)  # noqa: B023 - called at once
        car.agent.popen.send_signal(number)
        assert car.agent.popen.wait(PATIENCE_S) == 0, car.agent.trouble()
        figures = counted(fleet)
        # What it had in hand it has closed, and delivered.
        assert figures.made == figures.stored == figures.receipted
        assert figures.readings_recorded == figures.readings_stored
    fleet.start_agent(car)


def test_nobody_is_left_behind_when_all_has_ended(fleet: Fleet) -> None:
    fleet.end_agents()
    figures = balanced(fleet, 1)
    assert figures.readings_recorded == figures.readings_stored
    assert odograph("status", "car_01", *access(fleet)).returncode == 1
