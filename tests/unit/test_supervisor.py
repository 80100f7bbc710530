"""The word to the service manager, on a real datagram socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.console.supervisor import Supervisor


class Manager:
    """A service manager's socket, at a path or under an abstract name."""

    def __init__(self, name: str) -> None:
        self.address = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """What came since the last look."""
        found: list[str] = []
        while True:
            try:
                found.append(self.socket.recv(1000).decode())
            except BlockingIOError:
                return found


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@odograph-test-{os.getpid()}"
    one = Manager(name)
    yield one
    one.socket.close()


def test_the_first_turn_makes_it_ready_and_turns_within_the_watchdogs_time_keep_it_alive(manager: Manager) -> None:
    now = [1000.0]
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}
    supervisor = Supervisor.of(environment, lambda: now[0])
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


def test_a_watchdog_of_another_process_is_not_ours(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    supervisor = Supervisor.of(environment, lambda: 0.0)
    supervisor.turned()
    assert manager.heard() == ["READY=1"]


def test_programs_that_it_starts_cannot_speak_in_its_name() -> None:
    environment = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Supervisor.of(environment, lambda: 0.0)
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize("address", ["", "/nowhere/at/all"])
def test_where_nobody_listens_the_loop_goes_on(address: str) -> None:
    Supervisor.of({"NOTIFY_SOCKET": address}, lambda: 0.0).turned()
