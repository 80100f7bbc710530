"""A running fleet for journey tests: started, waited for, counted, asked by the command line."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from components.cloud.config import ARCHIVE_URI, FEED_URI
from components.console import tally
from components.console.fleet import Car, Fleet, Plan
from components.console.tally import Tally
from components.edge.spool_view import SpoolView
from tests.commands import odograph
from tests.waiting import until

ROOT: Final = Path(__file__).parents[1]
ENVIRONMENT: Final = {**os.environ, "PYTHONPATH": str(ROOT)}
PERIOD_S: Final = 5
Json = Mapping[str, Any]


@contextmanager
def running_fleet(home: Path, *, start: bool = True, **different: Any) -> Iterator[Fleet]:  # noqa: ANN401
    """Yield a fleet of one car with packets of 5 s and SQLite stores, or what `different` says of the Plan."""
    plan: dict[str, Any] = {
        "cars": 1,
        "period_s": PERIOD_S,
        "parked": False,
        "replay": None,
        "archive": ARCHIVE_URI,
        "feed": FEED_URI,
    }
    with Fleet.made(Plan(home=home, **plan | different), now_ms()) as fleet:
        if start:
            fleet.start()
        yield fleet


def now_ms() -> int:
    """Return ms UTC."""
    return time.time_ns() // 1_000_000


def receipted(car: Car) -> int:
    """Count the packets that the car has a receipt for."""
    return sum(packet.state == "receipted" for packet in SpoolView(car.spool).packets())


def more_receipts(car: Car, count: int = 1) -> None:
    """Wait until the car has `count` receipts more than now."""
    before = receipted(car)
    until(lambda: receipted(car) >= before + count, f"{count} more receipts for {car.device}")


def counted(fleet: Fleet) -> Tally:
    """Count the packets of every car in all stores, now."""
    spools = {car.device: car.spool for car in fleet.cars}
    return tally.count(spools, fleet.plan.archive, fleet.plan.feed, fleet.home.path)


def balanced(fleet: Fleet, at_least: int) -> Tally:
    """Wait until at least so many packets are made, and each made is stored once, fed whole and receipted."""
    figures = counted(fleet)

    def are_balanced() -> bool:
        nonlocal figures
        figures = counted(fleet)
        return figures.balanced and figures.made >= at_least

    until(are_balanced, f"balanced, with {at_least} packets")
    return figures


def note(text: str) -> None:
    """Say what was measured, for `pytest -s` and for the log of a failure."""
    sys.stdout.write(f"  {text}\n")


def told(*arguments: object) -> Any:  # noqa: ANN401 - JSON
    """Run a command with --json that ends well; return what it printed."""
    ended = odograph(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def lines(*arguments: object) -> list[Any]:
    """Run a command with --json that ends well; return the JSON of each line that it printed."""
    ended = odograph(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def access(fleet: Fleet, key: Path | None = None) -> list[str]:
    """Return the options with which an operator reaches this fleet."""
    return ["--router", fleet.urls.devices, "--key", str(key or fleet.home.admin_key)]


def operator(fleet: Fleet, name: str, role: str) -> Path:
    """Add an operator and return its key file."""
    path = fleet.home.path / "operators" / f"{name}.key"
    ended = odograph("operator", "add", name, "--role", role, "--out", path, "--home", fleet.home.path)
    assert ended.returncode == 0, ended.stderr
    return path


def one_line(ended: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the one line with which a command failed, after checking that it was one, with this exit code."""
    assert ended.returncode == code, (ended.returncode, ended.stdout, ended.stderr)
    (line,) = ended.stderr.splitlines()
    assert line.startswith("odograph: ")
    return line.removeprefix("odograph: ")


def descendants_of(*words: str) -> dict[int, str]:
    """Return the processes, by pid, whose command line has one of these words: who belongs to a home."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if any(word in line for word in words):
                found[int(entry.name)] = line
    return found


def script(name: str) -> list[str]:
    """Return the command line of a program in tests/journey_programs/."""
    return [sys.executable, str(ROOT / "tests" / "journey_programs" / name)]
