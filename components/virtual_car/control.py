"""Where orders come from while the car runs: a loopback socket, and a scenario. Rim: threads, sockets, the car's clock.

At the socket an order is a line of JSON, and so is its answer: `{"state": {…}}` after it, or `{"error": "…"}`, and
then nothing has happened.
"""

import json
import select
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from components.virtual_car.clock import Clock
from components.virtual_car.line import Stop
from components.virtual_car.orders import Order, OrderError, parse_order
from components.virtual_car.scenario import Scene
from components.virtual_car.server import Server

Obey: TypeAlias = Callable[[Order], Mapping[str, object]]
"""Obey an order; the car's state after it. Thread-safe; raises OrderError."""

_READ_BYTES = 4096
_MAX_LINE_BYTES = 65_536


@dataclass
class _Client:
    """One connection."""

    socket: socket.socket
    buffer: bytes = b""
    gone: bool = False


class ControlPort(Server):
    """The socket; it serves from construction to `close`.

    Args:
        obey: Obeys orders.
        port: 0 for any free one.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, obey: Obey, port: int) -> None:
        self._obey = obey
        self._clients: list[_Client] = []
        super().__init__(port, "virtual_car control")

    def _serve(self) -> None:
        while True:
            by_fd = {client.socket.fileno(): client for client in self._clients}
            ready, _, _ = select.select([self._listener.fileno(), self._stop.fd, *by_fd], [], [])
            if self._stop.fd in ready:
                break
            if self._listener.fileno() in ready:
                self._clients.append(_Client(self._listener.accept()[0]))
            for fd in set(ready) & set(by_fd):
                self._hear(by_fd[fd])
            for client in self._clients:
                if client.gone:
                    client.socket.close()
            self._clients = [client for client in self._clients if not client.gone]
        for client in self._clients:
            client.socket.close()

    def _hear(self, client: _Client) -> None:
        try:
            data = client.socket.recv(_READ_BYTES)
            *lines, client.buffer = (client.buffer + data).split(b"\n")
            for line in lines:
                client.socket.sendall(json.dumps(self._answer(line)).encode() + b"\n")
        except OSError:
            data = b""
        client.gone = not data or len(client.buffer) > _MAX_LINE_BYTES

    def _answer(self, line: bytes) -> Mapping[str, object]:
        try:
            return {"state": self._obey(parse_order(json.loads(line)))}
        except OrderError as error:
            return {"error": str(error)}
        except (ValueError, RecursionError) as error:
            return {"error": f"not JSON: {error}"}


class Player:
    """Plays a scenario on the car's clock, from construction to its last scene or to `close`.

    Args:
        scenes: By time.
        clock: Of the car.
        obey: Obeys orders.
    """

    def __init__(self, scenes: Sequence[Scene], clock: Clock, obey: Obey) -> None:
        self._scenes = scenes
        self._clock = clock
        self._obey = obey
        self._stop = Stop()
        self._thread = threading.Thread(target=self._play, name="virtual_car scenario", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the play."""
        self._stop.set()
        self._thread.join()
        self._stop.close()

    def _play(self) -> None:
        for scene in self._scenes:
            if self._stop.wait(scene.at_s - self._clock.elapsed_s()):
                return
            self._obey(scene.order)
