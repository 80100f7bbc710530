"""Real servers for tests: each a process of the tests' own, on loopback, in a folder of its own.

`make services` fetches them into .cache/. A test gets one through a fixture of tests/conftest.py, and may stop, kill
and start it again: it comes back on the same port with the same data.
"""

import os
import shutil
import socket
import subprocess
import time
from base64 import urlsafe_b64encode
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT, SIGSTOP, SIGTERM

from components.console.node import free_port
from tests.waiting import PATIENCE_S, until

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
FERRETDB = CACHE / "ferretdb"
KAFKA_LIBS = CACHE / "kafka"

_CLUSTER = urlsafe_b64encode(b"odograph's tests").decode().rstrip("=")
"""A cluster's name is 16 bytes; clusters on ports of their own may share it."""


def hang(pid: int) -> None:
    """Make a process hang: SIGSTOP, and wait until its last thread stands still, as others run on for a moment."""
    os.kill(pid, SIGSTOP)
    until(lambda: _stands_still(pid), f"process {pid} stands still")


def _stands_still(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):  # one that has ended stands still, too
        for task in Path(f"/proc/{pid}/task").iterdir():
            if (task / "stat").read_text().rpartition(")")[2].split()[0] not in "TtZX":
                return False
    return True


class ServerDidNotStartError(Exception):
    """It ended, or was not there in time; the message has the end of its log."""


class Server:
    """One server process.

    Args:
        name: For messages.
        command: What starts it; it stays in the foreground and ends by SIGTERM.
        port: Where it listens; it is up when that answers.
        folder: For its log, and as its working directory.
    """

    def __init__(self, name: str, command: list[str], port: int, folder: Path) -> None:
        self.name = name
        self.port = port
        self.log = folder / f"{name}.log"
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start it and wait until it listens; nothing when it runs.

        Raises:
            ServerDidNotStartError: It ended or did not listen in time; no process is left.
        """
        if self.pid:
            return
        # A test run that is killed must not leave servers behind.
        leash = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                leash + self._command, cwd=self.log.parent, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._listens():
            try:
                code = self._process.wait(timeout=0.1)
                raise ServerDidNotStartError(f"{self.name} ended with {code}; the end of its log:\n{self.log_tail()}")
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    self.kill()
                    words = f"{self.name} did not listen within {PATIENCE_S} s; the end of its log:"
                    raise ServerDidNotStartError(f"{words}\n{self.log_tail()}") from None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def log_tail(self, lines: int = 30) -> str:
        """Return the end of what it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, within_s: float = 30.0) -> None:
        """End it as an operator does, by SIGTERM, and wait; by SIGKILL when it takes longer."""
        if self._process:
            self._process.send_signal(SIGTERM)
            try:
                self._process.wait(within_s)
            except subprocess.TimeoutExpired:
                self.kill()

    def hang(self) -> None:
        """Make it hang."""
        if self.pid:
            hang(self.pid)

    def go_on(self) -> None:
        """End its hanging, if it hangs."""
        if self._process:
            self._process.send_signal(SIGCONT)

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True)
class Service:
    """Something to talk to. `address` is `host:port[,…]`; `server` is the process where it is ours, else None."""

    address: str
    server: Server | None


def ferretdb(folder: Path) -> Server:
    """Return FerretDB on a free port with its data in a folder, not started: it speaks MongoDB's protocol."""
    port = free_port()
    data = folder / "data"
    data.mkdir()
    return Server("ferretdb", [str(FERRETDB), f"127.0.0.1:{port}", str(data)], port, folder)


def kafka(folder: Path) -> Server:
    """Return Apache Kafka, one KRaft node, on a free port with its data in a folder, formatted and not started."""
    port, controller = free_port(), free_port()
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": folder / "data",
        # What needs a topic makes it: a typing error must not.
        "auto.create.topics.enable": "false",
        "offsets.topic.num.partitions": 1,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # A broker that was killed may register again only when its old session is over (9 s unless told).
        "broker.session.timeout.ms": 4000,
        "broker.heartbeat.interval.ms": 1000,
    }
    properties = folder / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    java = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{KAFKA_LIBS}/*"]
    command = [*java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(properties), "--standalone"]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    return Server("kafka", [*java, "kafka.Kafka", str(properties)], port, folder)
