"""A tap between the persister and the router: every WAMP frame that passes, both ways, in the clear of RawSocket."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self

import cbor2

from components.cloud.ports import StoredPacket
from components.cloud.stores import open_archive_reader
from components.console.fleet import Fleet

PUBLISH: Final = 16
EVENT: Final = 36


@dataclass
class Tap:
    """Listens on a port of its own and hands everything on to the router's; a context manager.

    Args:
        router_port: RawSocket port of the router.
    """

    router_port: int
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _streams: list[bytearray] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Where the persister is to join."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def frames(self) -> Iterator[bytes]:
        """Yield every packet (EVENT) and receipt (PUBLISH) frame that has passed."""
        for stream in list(self._streams):
            # Four bytes of handshake, then frames: a type, three bytes of length, the message.
            place = 4
            while place + 4 <= len(stream):
                size = int.from_bytes(stream[place + 1 : place + 4], "big")
                frame, kind = bytes(stream[place + 4 : place + 4 + size]), stream[place]
                place += 4 + size
                if kind == 0 and len(frame) == size and message(frame)[0] in {PUBLISH, EVENT}:
                    yield frame

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self.router_port))
                for source, target in ((near, far), (far, near)):
                    stream = bytearray()
                    self._streams.append(stream)
                    threading.Thread(target=_pump, args=(source, target, stream), daemon=True).start()


@dataclass(frozen=True)
class Tapped:
    """A fleet whose persister talks to the router through a tap."""

    fleet: Fleet
    tap: Tap

    def stored(self) -> list[StoredPacket]:
        """Return the packets of the first car."""
        with closing(open_archive_reader(self.fleet.plan.archive, self.fleet.home.path)) as archive:
            return list(archive.minutes("car_01"))


def message(frame: bytes) -> list[Any]:
    """Return the WAMP message of a frame."""
    found: list[Any] = cbor2.loads(frame)
    return found


def _pump(source: socket.socket, target: socket.socket, stream: bytearray) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            stream += data
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
