"""All that a campaign is about, as real processes: Kafka, FerretDB, a router, two persisters, cars with their edges.

Each can be killed, stopped and started again, and each connection has a proxy; what is broken here is mended here.
The shards of the two persisters overlap: both hear car_01 and car_02, one each of the others.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from components.cloud.certificates import certify
from components.console.fleet import Car, Fleet, Plan, Process
from components.console.node import Node, write_node
from components.wire.errors import UnavailableError
from tests.proxy import Proxy, Watch
from tests.services import servers
from tests.services.servers import Server

CARS: Final = ("car_01", "car_02", "car_03", "car_04")
PERSISTERS: Final = {"persister_a": "00-bf", "persister_b": "40-ff"}
PERIOD_S: Final = 5
SMALL_DISK_CAR: Final = "car_02"
_SIGNALS: Final = ("rpm", "speed", "temp")
_DISK_MB: Final = 48
_EVERY_S: Final = 0.1
FAKETIME: Final = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


_LONGEST_PATIENCE: Final = 4.0


def patience() -> float:
    """Return how many times longer things may take on this machine now: as many as processes wait for each core."""
    waiting, _, _ = os.getloadavg()
    return min(max(waiting / (os.cpu_count() or 1), 1.0), _LONGEST_PATIENCE)


class NotInTimeError(Exception):
    """Something that must come about did not, within its bound."""


def until(found: Callable[[], object], within_s: float, what: str) -> float:
    """Wait until it is true and return how long that took, in seconds; NotInTimeError after `within_s`, or more.

    How much more, `patience` says.
    """
    began = time.monotonic()
    while not found():
        if time.monotonic() - began > within_s * patience():
            raise NotInTimeError(
                f"{what}: not within {within_s:.0f} s, and the machine had {os.getloadavg()[0]:.0f} to do"
            )
        time.sleep(_EVERY_S)
    return time.monotonic() - began


@dataclass
class Ground:
    """The processes and their connections; a context manager that starts all and ends all.

    Args:
        home: An empty directory, for everything.
        watch: Makes what is shown every piece between a persister, by name, and the router.

    Attributes:
        peaks_mb: Peak resident memory by the kind of process.
    """

    home: Path
    watch: Callable[[str], Watch]
    peaks_mb: Counter[str] = field(default_factory=Counter)
    proxies: dict[str, Proxy] = field(default_factory=dict)
    persisters: dict[str, Process] = field(default_factory=dict)
    small_disk: bool = False
    kafka: Server = field(init=False)
    ferretdb: Server = field(init=False)
    fleet: Fleet = field(init=False)
    node: Node = field(init=False)
    _stack: ExitStack = field(default_factory=ExitStack)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _servers_killed: Counter[str] = field(default_factory=Counter)
    _all_runs: list[tuple[str, Process]] = field(default_factory=list)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "node"):
            for name in (*self.persisters, *(car.device for car in self.fleet.cars), "router", "kafka", "ferretdb"):
                self.resume(name)
        for proxy in self.proxies.values():
            proxy.heal()
        self._stack.close()

    def car(self, name: str) -> Car:
        """Return a car by its device id."""
        return next(car for car in self.fleet.cars if car.device == name)

    def pids(self, name: str) -> list[int]:
        """Return the running processes of a part; empty while it is down."""
        if name == "router":
            return _group(self.node.pid) if self._router_runs() else []
        if name in {"kafka", "ferretdb"}:
            pid = getattr(self, name).pid
            return [pid] if pid else []
        process = self._process(name)
        return [process.popen.pid] if process is not None and process.running() else []

    def kill(self, name: str) -> None:
        """SIGKILL a part, whatever state it is in."""
        self.measure(name)
        if name in {"router", "kafka", "ferretdb"}:
            self._servers_killed[name] += bool(self.pids(name))
            (self.node if name == "router" else getattr(self, name)).kill()
        elif (process := self._process(name)) is not None:
            process.kill()

    def stop(self, name: str) -> None:
        """SIGSTOP: it hangs."""
        for pid in self.pids(name):
            with suppress(ProcessLookupError):
                servers.hang(pid)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        for pid in self.pids(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def start(self, name: str) -> None:
        """Start a part that is down, as it is in production; nothing while it runs."""
        if self.pids(name):
            return
        if name == "router":
            # A worker that was killed may hold its port a moment longer than the controller lives.
            until(self._launches_router, 10, "the router's port is free")
            self.node.wait_until_ready(60 * patience())
        elif name in {"kafka", "ferretdb"}:
            getattr(self, name).start()
        else:
            self._run(name, [sys.executable, "-m", "components.console"])

    def start_doomed(self, name: str, point: str, nth: int = 1, how: str = "KILL") -> None:
        """Start an edge or a persister that will get SIGKILL or SIGTERM at a point of tests.campaign.doomed."""
        self._run(name, [sys.executable, "-m", "tests.campaign.doomed", how, point, str(nth)])

    def start_at(self, name: str, clock: Path) -> None:
        """Start an edge whose wall clock is as far off as a file says, now and whenever that is written anew."""
        off = [f"LD_PRELOAD={FAKETIME}", f"FAKETIME_TIMESTAMP_FILE={clock}", "FAKETIME_NO_CACHE=1"]
        # The wall clock is the only one that jumps.
        off.append("FAKETIME_DONT_FAKE_MONOTONIC=1")
        self._run(name, ["env", *off, sys.executable, "-m", "components.console"])

    def died(self, name: str) -> bool:
        """Whether it has ended by SIGKILL."""
        return self.ended(name) == -signal.SIGKILL

    def ended(self, name: str) -> int | None:
        """Return the exit code of an edge or a persister; None while it runs."""
        process = self._process(name)
        return None if process is None else process.popen.poll()

    def end(self, name: str) -> int:
        """SIGTERM to an edge or a persister; return its exit code (-SIGKILL when it did not end within 45 s)."""
        process = self._process(name)
        return 0 if process is None else process.end()

    def measure(self, name: str) -> None:
        """Note how much memory a part has had at most."""
        kind = _kind(name)
        for pid in self.pids(name):
            with suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                # A process that is just dying has no such line.
                peaks_kb = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
                self.peaks_mb[kind] = max(self.peaks_mb[kind], *(peak // 1024 for peak in peaks_kb), 0)

    def ignorant(self) -> list[str]:
        """Return the cars that have not learnt of the server's newest keys."""
        newest = _kid(self.fleet.home.bundle)
        return [car.device for car in self.fleet.cars if _kid(car.directory / "server.pub.json") != newest]

    @property
    def kills(self) -> Counter[str]:
        """How many processes have ended by SIGKILL, by their kind; a router's group counts as one."""
        dead = (name for name, process in self._all_runs if process.popen.poll() == -signal.SIGKILL)
        return self._servers_killed + Counter(map(_kind, dead))

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Leave no byte on the card of SMALL_DISK_CAR while the block runs: another program has taken it all.

        Where there is no small disk, the edge may write to no file, which ends with the process that this is said to.
        """
        if not self.small_disk:
            with self._no_writing():
                yield
            return
        filler = self.car(SMALL_DISK_CAR).directory / "card" / "filler"
        try:
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            yield
        finally:
            filler.unlink(missing_ok=True)

    @contextmanager
    def _no_writing(self) -> Iterator[None]:
        pids = self.pids(SMALL_DISK_CAR)
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def end_agents(self) -> None:
        """Let every edge close the packet in hand, deliver and end; NotInTimeError when one does not end well."""
        for name in CARS:
            self.measure(name)
        self.fleet.end_agents()

    def _start(self) -> None:
        for name in ("kafka", "ferretdb"):
            (self.home / name).mkdir()
        self.kafka = servers.kafka(self.home / "kafka")
        self.ferretdb = servers.ferretdb(self.home / "ferretdb")
        for server in (self.ferretdb, self.kafka):
            self._stack.callback(server.stop)
            server.start()
        plan = Plan(
            home=self.home / "home",
            cars=len(CARS),
            period_s=PERIOD_S,
            parked=False,
            replay=None,
            archive=f"mongodb://127.0.0.1:{self.ferretdb.port}/odograph",
            feed=f"kafka://127.0.0.1:{self.kafka.port}",
        )
        self.fleet = self._stack.enter_context(Fleet.made(plan, time.time_ns() // 1_000_000))
        certify(self.fleet.home.tls, (), datetime.now(UTC))
        ports = (_port_of(self.fleet.urls.devices), _port_of(self.fleet.urls.persisters))
        router = self.fleet.home.path / "router"
        self.fleet.urls = write_node(router, self.fleet.home.path, *ports)
        self.node = Node(router, self.fleet.urls)
        self._stack.callback(self.node.stop)
        self.start("router")
        for name, shards in PERSISTERS.items():
            self._configure_persister(name, shards)
            self.start(name)
        for number, name in enumerate(CARS, 1):
            self._configure_car(self.fleet._start_car(number))
            self.start(name)

    def _configure_persister(self, name: str, shards: str) -> None:
        rs = self._proxy(f"{name}-router", _port_of(self.fleet.urls.persisters), lambda: self.watch(name))
        mongo = self._proxy(f"{name}-ferretdb", self.ferretdb.port)
        home = self.fleet.home
        text = home.config.read_text().replace(self.fleet.urls.persisters, f"rs://127.0.0.1:{rs.port}")
        text = text.replace('"00-ff"', f'"{shards}"').replace(f":{self.ferretdb.port}/", f":{mongo.port}/")
        (home.path / f"{name}.toml").write_text(text)

    def _configure_car(self, car: Car) -> None:
        proxy = self._proxy(f"{car.device}-router", _port_of(self.fleet.urls.devices))
        old = f'"{self.fleet.urls.devices}"'
        new = f'"wss://127.0.0.1:{proxy.port}/ws"\nca = "{self.fleet.home.tls.ca}"'
        # One car sends everything; of the others a few signals are enough, as FerretDB reads whole collections.
        only = "" if car.device == CARS[-1] else f"[signals]\nonly = {json.dumps(_SIGNALS)}\n"
        car.config.write_text(car.config.read_text().replace(old, new) + only)
        self.fleet.cars.append(car)
        if car.device == SMALL_DISK_CAR:
            card = car.directory / "card"
            (card / "spool").mkdir(parents=True)
            options = ["-t", "tmpfs", "-o", f"size={_DISK_MB}m,mode=700", "odograph-campaign", str(card)]
            self.small_disk = subprocess.run(["mount", *options], check=False, capture_output=True).returncode == 0
            (card / "spool").mkdir(mode=0o700, exist_ok=True)
            car.spool.symlink_to(card / "spool")
            if self.small_disk:
                self._stack.callback(subprocess.run, ["umount", "--lazy", str(card)], check=False)
                # Everybody else of the stack ends first.
                self._stack.callback(self.fleet.__exit__)

    def _proxy(self, name: str, target: int, watch: Callable[[], Watch] | None = None) -> Proxy:
        proxy = self.proxies[name] = self._stack.enter_context(Proxy(target, watch))
        return proxy

    def _run(self, name: str, command: Sequence[str]) -> None:
        with self._guard:
            if name in PERSISTERS:
                config = self.fleet.home.path / f"{name}.toml"
                process = self.fleet.start_process(name, [*command, "persist", "--config", str(config)])
                self.persisters[name] = process
            else:
                car = self.car(name)
                process = self.fleet.start_process(f"{name}-agent", [*command, "edge", "--config", str(car.config)])
                car.agent = process
            self._all_runs.append((name, process))

    def _process(self, name: str) -> Process | None:
        return self.persisters.get(name) if name in PERSISTERS else self.car(name).agent

    def _launches_router(self) -> bool:
        try:
            self.node.launch(log_level="warn")
        except UnavailableError:
            return False
        return True

    def _router_runs(self) -> bool:
        process: Any = self.node._process
        return process is not None and process.poll() is None


def _kind(name: str) -> str:
    return name.partition("_")[0].replace("car", "edge")


def _kid(bundle: Path) -> str:
    return str(json.loads(bundle.read_text("utf-8"))["recipients"][0]["kid"])


def _port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


def _group(pgid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ProcessLookupError):
                if os.getpgid(int(entry.name)) == pgid:
                    found.append(int(entry.name))
    return found
