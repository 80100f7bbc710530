"""The word to the service manager, on a real datagram socket."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.console.supervisor import Supervisor
from tests.service_manager import Manager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@odograph-test-{os.getpid()}"
    with Manager(name) as one:
        yield one


def test_the_first_turn_makes_it_ready_and_turns_within_the_watchdogs_time_keep_it_alive(manager: Manager) -> None:
    now = [1000.0]
    supervisor = Supervisor.of(manager.environment(60, os.getpid()), lambda: now[0])
    assert manager.heard() == []
    supervisor.turned()
    assert manager.heard() == ["READY=1\nWATCHDOG=1"]
    told = 0
    for _ in range(120):
        now[0] += 1
        supervisor.turned()
        told += len(manager.heard())
    # Often enough for 60 s, and not at every turn.
    assert 4 <= told <= 12
    now[0] += 300
    assert manager.heard() == []


def test_without_a_watchdog_it_is_ready_once_and_says_no_more(manager: Manager) -> None:
    now = [1000.0]
    supervisor = Supervisor.of({"NOTIFY_SOCKET": manager.address}, lambda: now[0])
    for _ in range(100):
        supervisor.turned()
        now[0] += 10
    assert manager.heard() == ["READY=1"]


def test_who_was_told_to_end_says_so(manager: Manager) -> None:
    Supervisor.of(manager.environment(60, os.getpid()), lambda: 0.0).stopping()
    assert manager.heard() == ["STOPPING=1"]


def test_a_watchdog_of_another_process_is_not_ours(manager: Manager) -> None:
    Supervisor.of(manager.environment(1, pid=1), lambda: 0.0).turned()
    assert manager.heard() == ["READY=1"]


def test_programs_that_it_starts_cannot_speak_in_its_name() -> None:
    environment = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Supervisor.of(environment, lambda: 0.0)
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize("address", ["", "/nowhere/at/all"])
def test_where_nobody_listens_the_loop_goes_on(address: str) -> None:
    Supervisor.of({"NOTIFY_SOCKET": address}, lambda: 0.0).turned()


@pytest.mark.parametrize("usec", ["\u00b2", "9" * 5_000, "-1", "1e6", " 5", "\u0665"])
def test_a_watchdogs_time_that_is_none_is_no_watchdog(usec: str) -> None:
    assert Supervisor.of({"WATCHDOG_USEC": usec}, lambda: 0.0).watchdog_s == 0
