"""A whole odograph on this machine: router, persister, virtual cars and agents, each a process of its own.

Process wiring: every process that is started here is ended here, by its pid.
"""

import json
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from components.cloud.sqlite_registry import Registry
from components.console.home import Home, make_home
from components.console.node import Node, Urls, free_port, write_node
from components.keyfile import make_key, write_key_file
from components.virtual_car.drive import FINAL_DRIVE, GEAR_RATIOS
from components.wire.errors import UnavailableError

_BAUD: Final = 115_200
_CAR_READY_S: Final = 20
_END_S: Final = 45.0
_TYRE: Final = "205/55 R16"

_EDGE_TOML: Final = """\
[device]
id = "{id}"
key = "device.key"
[router]
url = "{router}"
[server]
bundle = "{bundle}"
[obd]
port = "{obd}"
baud = {baud}
[gps]
gpsd = "{gpsd}"
[modem]
port = "{modem}"
[packet]
period_s = {period_s}
[spool]
dir = "spool"
{vehicle}"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to set up.

    Attributes:
        home: Directory to make; the server's home, with `router/`, `cars/<id>/` and `logs/` beside.
        replay: A recording that every car drives after; None: the drive model.
    """

    home: Path
    cars: int
    period_s: int
    parked: bool
    replay: Path | None
    archive: str
    feed: str


@dataclass(slots=True)
class Process:
    """A program of ours with its log."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def running(self) -> bool:
        """Whether it has not ended."""
        return self.popen.poll() is None

    def end(self) -> int:
        """Ask it to end (SIGTERM), wait, and return its exit code; SIGKILL when it does not in 45 s."""
        if self.running():
            self.popen.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; SIGKILL when it does not come in 45 s."""
        try:
            return self.popen.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()

    def kill(self) -> None:
        """End it as a power cut does."""
        if self.running():
            self.popen.kill()
            self.popen.wait()

    def trouble(self) -> UnavailableError:
        """Say that it ended when it should not have, with its last words."""
        lines = self.log.read_text("utf-8", "replace").splitlines() if self.log.exists() else []
        return UnavailableError(f"{self.name} ended with exit code {self.popen.poll()}: {' / '.join(lines[-3:])}")


@dataclass(slots=True)
class Car:
    """One virtual car with its agent; `hello` is what the virtual car said of itself."""

    device: str
    directory: Path
    car: Process
    hello: Mapping[str, Any]
    agent: Process | None = None

    @property
    def spool(self) -> Path:
        """Where the agent keeps its files."""
        return self.directory / "spool"

    @property
    def config(self) -> Path:
        """The agent's edge.toml."""
        return self.directory / "edge.toml"


@dataclass(slots=True)
class Fleet:
    """The processes of one plan; a context manager that ends all of them, whatever happens."""

    plan: Plan
    home: Home
    urls: Urls
    cars: list[Car] = field(default_factory=list)
    node: Node | None = None
    persister: Process | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def made(cls, plan: Plan, now_ms: int) -> Self:
        """Make the home: keys, registry, node and directories; nothing runs yet. ConfigError when it is there."""
        ws_port, rs_port = free_port(), free_port()
        home = make_home(
            plan.home, now_ms, router_url=f"rs://127.0.0.1:{rs_port}", archive=plan.archive, feed=plan.feed
        )
        urls = write_node(home.path / "router", home.path, ws_port, rs_port)
        (home.path / "logs").mkdir()
        return cls(plan, home, urls)

    def start(self) -> None:
        """Start router, persister and cars with their agents; returns when each runs."""
        self.node = self._stack.enter_context(Node(self.home.path / "router", self.urls))
        self.start_persister()
        for number in range(1, self.plan.cars + 1):
            self.cars.append(self._start_car(number))
        for car in self.cars:
            self.start_agent(car)

    def start_persister(self) -> None:
        """Start the persister; again when the one before has ended."""
        self.persister = self.start_process("persister", self.odograph("persist", "--config", str(self.home.config)))

    def start_agent(self, car: Car) -> None:
        """Start a car's agent; again when the one before has ended."""
        car.agent = self.start_process(f"{car.device}-agent", self.odograph("edge", "--config", str(car.config)))

    def check(self) -> None:
        """UnavailableError when something ended that should run."""
        for process in (self.persister, *(one for car in self.cars for one in (car.car, car.agent))):
            if process is not None and not process.running():
                raise process.trouble()

    def end_agents(self) -> None:
        """SIGTERM to every agent at once; returns when all have ended. UnavailableError when one did not end well.

        One that was still loading its program ends by the signal itself: it had nothing to close.
        """
        for agent in self._ended_agents():
            if agent.popen.returncode not in {0, -signal.SIGTERM}:
                raise agent.trouble()

    def start_process(self, name: str, command: Sequence[str], *, speaks: bool = False) -> Process:
        """Start a program whose words go to logs/<name>.log; it is ended with the fleet at the latest.

        With `speaks` its standard streams are ours: its stdin closes when we end, however that is.
        """
        log = self.home.path / "logs" / f"{name}.log"
        with log.open("ab") as errors:
            # In a session of its own, so that Ctrl-C reaches this program only, which ends the others in order.
            stream = subprocess.PIPE if speaks else subprocess.DEVNULL
            started = subprocess.Popen(  # noqa: S603 - our own programs
                command, stdin=stream, stdout=stream, stderr=errors, start_new_session=True
            )
        process = Process(name, started, log)
        self._stack.callback(process.end)
        return process

    @staticmethod
    def odograph(*arguments: str) -> list[str]:
        """Return the command line of `odograph …` with this very code."""
        return [sys.executable, "-m", "components.console", *arguments]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The agents first: they deliver what they have in hand, and wait for a persister that is not there.
        try:
            self._ended_agents()
        finally:
            self._stack.close()

    def _ended_agents(self) -> list[Process]:
        agents = [car.agent for car in self.cars if car.agent is not None]
        for agent in agents:
            if agent.running():
                agent.popen.terminate()
        for agent in agents:
            agent.wait()
        return agents

    def _start_car(self, number: int) -> Car:
        device = f"car_{number:02d}"
        command = [sys.executable, "-m", "components.virtual_car", "--seed", str(number), "--baud", str(_BAUD)]
        command += ["--until-stdin-closes"]
        command += ["--parked"] if self.plan.parked else []
        command += ["--replay", str(self.plan.replay)] if self.plan.replay else []
        process = self.start_process(f"{device}-car", command, speaks=True)
        directory = self.home.path / "cars" / device
        directory.mkdir(parents=True)
        car = Car(device, directory, process, _hello(process))
        key = make_key(device, "device")
        write_key_file(directory / "device.key", key)
        vehicle = f'[vehicle]\ngear_ratios = {list(GEAR_RATIOS)}\nfinal_drive = {FINAL_DRIVE}\ntyre = "{_TYRE}"\n'
        car.config.write_text(
            _EDGE_TOML.format(
                id=device,
                router=self.urls.devices,
                bundle=shutil.copy(self.home.bundle, directory / "server.pub.json"),
                obd=car.hello["obd"],
                baud=_BAUD,
                gpsd=car.hello["gpsd"],
                modem=car.hello["modem"],
                period_s=self.plan.period_s,
                # A recording says nothing of its car's gearbox.
                vehicle="" if self.plan.replay else vehicle,
            ),
            "utf-8",
        )
        with Registry.open(self.home.registry, write=True) as registry:
            now_ms = time.time_ns() // 1_000_000
            registry.add_device(device, key.public_key, now_ms, account="demo", vehicle="virtual-car", driver="nobody")
        return car


def _hello(process: Process) -> Mapping[str, Any]:
    """Read the one line that a virtual car says of itself."""
    out = process.popen.stdout
    if out is None or not select.select([out], [], [], _CAR_READY_S)[0] or not (line := out.readline()):
        raise process.trouble()
    found: Mapping[str, Any] = json.loads(line)
    return found
