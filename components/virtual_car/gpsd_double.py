"""A gpsd without a receiver: the JSON protocol on a loopback port, positions from a drive. Rim: sockets, one thread."""

import select
import socket
from dataclasses import dataclass

from components.virtual_car import gpsd_protocol
from components.virtual_car.clock import Clock
from components.virtual_car.moment import Drive
from components.virtual_car.server import Server

_READ_BYTES = 4096
_SKY_EVERY = 10
_MAX_REQUEST_CHARACTERS = 4096


@dataclass
class _Client:
    """One connection."""

    socket: socket.socket
    buffer: str = ""
    watching: bool = False
    gone: bool = False

    def send(self, report: dict[str, object]) -> None:
        """Send a report; who does not read, or has left, is dropped, as gpsd does it."""
        data = gpsd_protocol.line(report)
        try:
            self.gone = self.gone or self.socket.send(data) != len(data)
        except OSError:
            self.gone = True


class GpsdDouble(Server):
    """The daemon; it serves from construction to `close`.

    Args:
        drive: Where the positions come from, and when there is a new one.
        clock: Time since T0.
        port: 0 for any free one.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, drive: Drive, clock: Clock, port: int = 0) -> None:
        self._drive = drive
        self._clock = clock
        self._clients: list[_Client] = []
        self._fixes = 0
        super().__init__(port, "virtual_car gpsd")

    def _serve(self) -> None:
        next_fix_s = self._drive.next_fix_s(self._clock.elapsed_s())
        while True:
            by_fd = {client.socket.fileno(): client for client in self._clients}
            wait_s = max(0.0, next_fix_s - self._clock.elapsed_s())
            # With nobody watching no fix is due: the daemon sleeps until somebody calls.
            watched = any(client.watching for client in self._clients)
            ready, _, _ = select.select(
                [self._listener.fileno(), self._stop.fd, *by_fd], [], [], wait_s if watched else None
            )
            if self._stop.fd in ready:
                break
            while (elapsed_s := self._clock.elapsed_s()) >= next_fix_s:
                if watched:
                    self._fix(next_fix_s)
                # Who watches misses no fix, even if we are late; for nobody there is nothing to catch up with.
                next_fix_s = self._drive.next_fix_s(next_fix_s if watched else elapsed_s)
            if self._listener.fileno() in ready:
                self._welcome()
            for fd in set(ready) & set(by_fd):
                self._hear(by_fd[fd])
            self._forget_the_gone()
        for client in self._clients:
            client.socket.close()

    def _welcome(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(0)
        client = _Client(connection)
        client.send(gpsd_protocol.VERSION)
        self._clients.append(client)

    def _forget_the_gone(self) -> None:
        for client in self._clients:
            if client.gone:
                client.socket.close()
        self._clients = [client for client in self._clients if not client.gone]

    def _fix(self, at_s: float) -> None:
        """Report the fix of this instant to everyone who watches."""
        time_ms = self._clock.at_ms(at_s)
        reports = [gpsd_protocol.tpv(self._drive.at(at_s).place, time_ms)]
        if self._fixes % _SKY_EVERY == 0:
            reports.append(gpsd_protocol.sky(time_ms))
        self._fixes += 1
        for client in self._clients:
            if client.watching:
                for report in reports:
                    client.send(report)

    def _hear(self, client: _Client) -> None:
        try:
            data = client.socket.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            client.gone = True
            return
        asked, client.buffer = gpsd_protocol.requests(client.buffer + data.decode("utf-8", "replace"))
        client.gone = len(client.buffer) > _MAX_REQUEST_CHARACTERS
        for request in asked:
            for report in self._answers(client, request):
                client.send(report)

    def _answers(self, client: _Client, request: gpsd_protocol.Request) -> list[dict[str, object]]:
        t0_ms = self._clock.t0_ms
        if request.name == "WATCH":
            if request.parameters:
                enable = request.parameters.get("enable", True) is True
                client.watching = enable and request.parameters.get("json") is True
            return [gpsd_protocol.devices(t0_ms), gpsd_protocol.watch(client.watching, client.watching)]
        if request.name == "POLL":
            now_s = self._clock.elapsed_s()
            now_ms = self._clock.at_ms(now_s)
            return [gpsd_protocol.poll(self._drive.at(now_s).place, now_ms, now_ms)]
        simple = {
            "VERSION": gpsd_protocol.VERSION,
            "DEVICES": gpsd_protocol.devices(t0_ms),
            "DEVICE": gpsd_protocol.device(t0_ms),
        }
        return [simple.get(request.name) or gpsd_protocol.error(f"Unrecognized request '{request.text}'")]
