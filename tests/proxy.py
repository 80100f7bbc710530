"""A TCP proxy in threads: a connection that can be cut, stalled (in mid-frame, too) or deaf on one side. Rim.

Whoever watches sees every piece before it is handed on: what has not been seen has not arrived.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal, Self

HOST: Final = "127.0.0.1"
_PIECE: Final = 65_536

Direction = Literal["up", "down"]
"""`up` is from who connected to the server behind the proxy."""
Watch = Callable[[Direction, bytes], None]
Which = Callable[[bytes], bool]
"""Tells the pieces that are meant from others."""


def whatever(_piece: bytes) -> bool:
    """Every piece is meant."""
    return True


class Proxy:
    """Listens on a port of its own and hands on to `target`; a context manager.

    Args:
        target: Port on loopback.
        watch: Makes, for each connection, what is shown every piece.
    """

    def __init__(self, target: int, watch: Callable[[], Watch] | None = None) -> None:
        self._target = target
        self._watch = watch
        self._listener = socket.create_server((HOST, 0))
        self._guard = threading.Lock()
        self._live: set[socket.socket] = set()
        self._cut = False
        self._muted: Direction | None = None
        self._to_mute: tuple[Direction, Which] | None = None
        self._halved: tuple[Direction, Which] | None = None
        self._expected: tuple[Direction, Which] | None = None
        self._seen = threading.Event()
        self._flowing = threading.Event()
        self._flowing.set()

    @property
    def port(self) -> int:
        """Where to connect to."""
        return int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """End every connection; those that come are ended at once, until `heal`."""
        self._cut = True
        self._end_all()

    def stall(self) -> None:
        """Hand nothing on, until `heal`; nothing is lost."""
        self._flowing.clear()

    def halve(self, direction: Direction, which: Which = whatever) -> None:
        """Stall in the middle of what is meant: half of the next such piece is handed on, the rest waits for `heal`."""
        self._halved = direction, which

    def expect(self, direction: Direction, which: Which) -> threading.Event:
        """Return what is set as soon as such a piece comes this way; `heal` ends that."""
        self._seen = threading.Event()
        self._expected = direction, which
        return self._seen

    @property
    def is_stalled(self) -> bool:
        """Whether nothing is handed on."""
        return not self._flowing.is_set()

    def mute(self, direction: Direction, first: Which = whatever) -> None:
        """Lose all that goes this way from the next piece on that is meant, as if it had been sent.

        Ended by `heal`, with its connections.
        """
        self._to_mute = direction, first

    @property
    def is_mute(self) -> bool:
        """Whether something has been lost."""
        return self._muted is not None

    def heal(self) -> None:
        """Be a wire again. A connection that has lost something is ended, as its two ends do not agree any more."""
        if self._muted is not None:
            self._end_all()
        self._muted, self._to_mute, self._halved, self._expected, self._cut = None, None, None, None, False
        self._flowing.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Who waits for a call hears of the end by this, not by `close`.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._flowing.set()

    def _end_all(self) -> None:
        with self._guard:
            ending, self._live = self._live, set()
        for one in ending:
            _end(one)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection((HOST, self._target), timeout=5)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        with self._guard:
            self._live |= {near, far}
        if self._cut:
            self._end_all()
        self.carry(near, far)
        with self._guard:
            self._live -= {near, far}
        near.close()
        far.close()

    def carry(self, near: socket.socket, far: socket.socket) -> None:
        """Hand on what comes, both ways, until one end is gone; both are closed then."""
        watch = self._watch() if self._watch is not None else None
        back = threading.Thread(target=self._pump, args=(far, near, "down", watch), daemon=True)
        back.start()
        self._pump(near, far, "up", watch)
        back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: Direction, watch: Watch | None) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE):
                self._flowing.wait()
                if _is_meant(self._expected, direction, piece):
                    self._seen.set()
                if _is_meant(self._to_mute, direction, piece):
                    self._muted = direction
                if self._muted == direction:
                    continue
                half = 0
                if _is_meant(self._halved, direction, piece):
                    half = (len(piece) + 1) // 2
                    self._hand_on(piece[:half], direction, sink, watch)
                    self.stall()
                    self._flowing.wait()
                self._hand_on(piece[half:], direction, sink, watch)
        _end(source)
        _end(sink)

    def _hand_on(self, piece: bytes, direction: Direction, sink: socket.socket, watch: Watch | None) -> None:
        if sink not in self._live:
            raise ConnectionAbortedError("cut, or ended for what it has lost: so is what came in meanwhile")
        if watch is not None:
            watch(direction, piece)
        sink.sendall(piece)


def _is_meant(meant: tuple[Direction, Which] | None, direction: Direction, piece: bytes) -> bool:
    return meant is not None and meant[0] == direction and meant[1](piece)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
