"""A chip behind a TCP port, as in a WiFi adapter: raw bytes, one client at a time. Rim; loopback only."""

import select
import socket

from components.virtual_car.chip import Chip
from components.virtual_car.line import Line, Speed
from components.virtual_car.server import Server


class TcpPort(Server):
    """A listening port with a chip behind it, served by a thread of its own from construction to `close`.

    The chip outlives its clients: what one has set, the next one finds, as on a real adapter. A second client waits
    until the first has hung up.

    Args:
        chip: An adapter.
        speed: Of the serial line inside the adapter.
        port: 0 for any free one.
        name: For the thread.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, chip: Chip, speed: Speed, port: int, name: str) -> None:
        self._chip = chip
        self._speed = speed
        super().__init__(port, name)

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener.fileno(), self._stop.fd], [], [])
            if self._stop.fd in ready:
                return
            client, _ = self._listener.accept()
            with client:
                client.settimeout(0)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                Line(client.fileno(), self._chip, self._speed, self._stop).serve()
