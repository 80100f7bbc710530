"""A Crossbar node as a process of its own: its directory, its start, its readiness, its end. Process wiring.

Every node runs router/.crossbar/config.yaml; `write_node` changes ports and paths, adds a home's certificate, and
changes nothing else. It blocks, so it is for commands and tests, not for a reactor's thread.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from components.cloud.certificates import Tls
from components.cloud.config import HOST
from components.wire.errors import ConfigError, UnavailableError

CHECKOUT: Final = Path(__file__).resolve().parents[2]
CONFIG: Final = CHECKOUT / "router" / ".crossbar" / "config.yaml"
_INSTALL_ROUTER: Final = "run: pip install -e '.[router]'"
_LOG_NAME: Final = "node.log"
_TAIL_LINES: Final = 15
_PROBE_EVERY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Urls:
    """Where a node listens.

    Attributes:
        devices: For devices and operators, ws://…, or wss://… where the home has a certificate.
        persisters: For persisters, rs://….
    """

    devices: str
    persisters: str


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on now, and that nobody else is given while this process lives.

    It lies below the range that the system gives to outgoing connections: from there, a client that retries the port
    of a router which is away could be given that very port, talk to itself, and keep the router from coming back.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        claim = socket.socket()
        try:
            claim.bind((HOST, port))
        except OSError:
            claim.close()
            continue
        # From now on a server may have it, as those ask for it with this option; a bind without it fails, as the one
        # above. It stays claimed until this process ends.
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        claim.detach()
        return port


def write_node(cbdir: Path, home: Path, ws_port: int, rs_port: int) -> Urls:
    """Write the project's node configuration into a directory of its own.

    Args:
        cbdir: Made when missing; two nodes cannot share one.
        home: The server's home, whose registry.db the node reads, and whose certificate it shows where there is one.
        ws_port: For devices and operators.
        rs_port: For persisters.
    """
    # With the router's extra installed only: the edge never starts a node.
    try:
        import yaml  # type: ignore[import-untyped] # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("crossbar is not installed", _INSTALL_ROUTER) from error

    document: dict[str, Any] = yaml.safe_load(CONFIG.read_text("utf-8"))
    (worker,) = document["workers"]
    worker["options"]["pythonpath"] = [str(CHECKOUT)]
    for component in worker["components"]:
        if "extra" in component:
            component["extra"]["registry"] = str(home.absolute() / "registry.db")
    certificate = Tls(home.absolute() / "tls").router
    ports = {"websocket": ws_port, "rawsocket": rs_port}
    for transport in worker["transports"]:
        transport["endpoint"]["port"] = ports[transport["id"]]
        if transport["id"] == "websocket" and certificate.exists():
            transport["endpoint"]["tls"] = {"certificate": str(certificate), "key": str(certificate)}
    cbdir.mkdir(parents=True, exist_ok=True)
    # JSON is YAML, and Crossbar's own reading of YAML objects to what PyYAML writes for it.
    (cbdir / "config.yaml").write_text(json.dumps(document, indent=1), "utf-8")
    scheme = "wss" if certificate.exists() else "ws"
    return Urls(f"{scheme}://{HOST}:{ws_port}/ws", f"rs://{HOST}:{rs_port}")


@dataclass(slots=True)
class Node:
    """`crossbar start` in `cbdir`, which `write_node` has written; a context manager that starts and ends it.

    Its output goes to node.log in `cbdir`.
    """

    cbdir: Path
    urls: Urls
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """Process id of Crossbar's controller; UnavailableError when it was never started."""
        return self._running().pid

    @property
    def log(self) -> Path:
        """What Crossbar printed."""
        return self.cbdir / _LOG_NAME

    def launch(self, *, log_level: str = "info") -> None:
        """Start the process and return at once, before it is ready; UnavailableError when a port is taken."""
        for url in (self.urls.devices, self.urls.persisters):
            _refuse_taken(_port(url))
        command = [_crossbar(), "start", "--cbdir", str(self.cbdir), "--loglevel", log_level, "--color", "false"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the project's own program
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def is_ready(self) -> bool:
        """Probe once whether it listens, which it does after its authenticator and authorizer are there.

        Raises:
            UnavailableError: The process has ended; with the log's end.
        """
        ended = self._running().poll()
        if ended is not None:
            raise UnavailableError(f"the router ended with exit code {ended}; {self.log} ends:\n{self.tail()}")
        with contextlib.suppress(OSError):
            for url in (self.urls.devices, self.urls.persisters):
                socket.create_connection((HOST, _port(url)), timeout=1).close()
            return True
        return False

    def wait_until_ready(self, timeout_s: float = 60) -> None:
        """Return when peers can join; UnavailableError, with the log's end, when that does not come about in time."""
        end = time.monotonic() + timeout_s
        while not self.is_ready():
            if time.monotonic() > end:
                self.stop()
                raise UnavailableError(f"the router was not ready within {timeout_s:.0f} s:\n{self.tail()}")
            time.sleep(_PROBE_EVERY_S)

    def stop(self, timeout_s: float = 20) -> int | None:
        """End the process by SIGTERM, by SIGKILL after `timeout_s`; return its exit code (Crossbar's is 1, always).

        Stopping one that has ended, or never started, does nothing.
        """
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)  # its workers too: `launch` made the group
        return self._process.wait()

    def kill(self) -> None:
        """End the controller and its workers as a power cut does; `launch` starts them again on the same ports."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # its workers too: `launch` made the group
            self._process.wait()

    def tail(self) -> str:
        """Return the last lines of the log; may be empty."""
        text = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-_TAIL_LINES:])

    def __enter__(self) -> Self:
        self.launch()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise UnavailableError("the router was not started")
        return self._process


def _crossbar() -> str:
    """The `crossbar` beside the Python that runs, or on PATH."""
    beside = Path(sys.executable).parent / "crossbar"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("crossbar")
    if found is None:
        raise ConfigError("crossbar is not installed", _INSTALL_ROUTER)
    return found


def _port(url: str) -> int:
    port = urllib.parse.urlsplit(url).port
    if port is None:
        raise ConfigError(f"{url} has no port")
    return port


def _refuse_taken(port: int) -> None:
    """Ask before Crossbar does: its own answer is a traceback, and somebody else's answer would pass for readiness."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise UnavailableError(f"port {port} is taken: end the program that listens there") from None
