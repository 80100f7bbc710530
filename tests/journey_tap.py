"""A tap between the persister and the router: every WAMP frame that passes, both ways, in the clear of RawSocket."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import cbor2

from components.cloud.ports import StoredPacket
from components.cloud.stores import open_archive_reader
from components.console.fleet import Fleet
from tests.proxy import Proxy, Watch

PUBLISH: Final = 16
EVENT: Final = 36


class Tap(Proxy):
    """Listens on a port of its own and hands everything on to the router's; a context manager.

    Args:
        router_port: RawSocket port of the router.
    """

    def __init__(self, router_port: int) -> None:
        super().__init__(router_port, self._record)
        self._streams: list[bytearray] = []

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

    def _record(self) -> Watch:
        streams = {"up": bytearray(), "down": bytearray()}
        self._streams += streams.values()
        return lambda direction, piece: streams[direction].extend(piece)


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
