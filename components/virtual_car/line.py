"""A chip at a line: reads, writes at the line's speed, sleeps on the chip's behalf. Rim: descriptors and a clock.

The same loop serves a pseudo terminal and a socket. It blocks in `select`; between requests it costs nothing.
"""

import os
import select
import time
from dataclasses import dataclass

from components.virtual_car.chip import Chip, Turn

_READ_BYTES = 1024
# A write in pieces of this size: long answers trickle, short ones are one system call.
_PIECE_BYTES = 32
_GIVE_UP_WRITING_S = 2.0


class Stop:
    """A switch that ends every `select` that watches it. Thread-safe; close it when all watchers have gone."""

    def __init__(self) -> None:
        self.fd, self._set_fd = os.pipe()

    def set(self) -> None:
        """Throw the switch; once is enough, again does no harm."""
        os.write(self._set_fd, b"x")

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self.fd)
        os.close(self._set_fd)

    def wait(self, seconds: float) -> bool:
        """Sleep; True as soon as the switch is thrown."""
        return bool(select.select([self.fd], [], [], max(0.0, seconds))[0])


@dataclass(frozen=True)
class Speed:
    """How fast a line is.

    Args:
        baud: Bits a second; a byte takes ten of them (8N1). 0: as fast as the machine can.
    """

    baud: int = 115_200

    def seconds(self, count: int) -> float:
        """Line time of `count` bytes."""
        return count * 10 / self.baud if self.baud else 0.0


class Line:
    """One chip at one open line.

    Args:
        fd: Readable and writable, non-blocking; stays the caller's to close.
        chip: What is at the end of the line.
        speed: Line speed; sending and hearing both take their time.
        stop: Ends `serve`.
    """

    def __init__(self, fd: int, chip: Chip, speed: Speed, stop: Stop) -> None:
        self._fd = fd
        self._chip = chip
        self._speed = speed
        self._stop = stop
        self._sent_until = 0.0
        self._wake_at: float | None = None

    def serve(self) -> None:
        """Serve the client until it hangs up or the stop switch is thrown; the chip is then ready for another line."""
        self._serve()
        # What the client has left unfinished the chip finishes, to nobody: the next client must not stop it.
        while self._wake_at is not None:
            self._wake_at = self._chip.woke().wake_s

    def _serve(self) -> None:
        while True:
            wait_s = None if self._wake_at is None else max(0.0, self._wake_at - time.monotonic())
            ready, _, _ = select.select([self._fd, self._stop.fd], [], [], wait_s)
            if self._stop.fd in ready:
                return
            if not ready:
                now = time.monotonic()
                if not self._obey(self._chip.woke(), now, now):
                    return
                continue
            data = self._read()
            if not data or not self._hear(data):
                return

    def _read(self) -> bytes:
        """What has come in; empty: the client is gone."""
        try:
            return os.read(self._fd, _READ_BYTES)
        except OSError:
            # EIO of a terminal and ECONNRESET of a socket say the same thing as an end of file.
            return b""

    def _hear(self, data: bytes) -> bool:
        began = time.monotonic()
        if self._stop.wait(self._speed.seconds(len(data))):
            return False
        # An echo leaves while the bytes come in, an answer only after the last of them.
        echoing = self._chip.echo
        now = time.monotonic()
        return self._obey(self._chip.received(data), now, began if echoing else now)

    def _obey(self, turn: Turn, now: float, sending_from: float) -> bool:
        """Do what the chip wants; False: the line has ended."""
        if not turn.keeps_waiting:
            self._wake_at = None if turn.wake_s is None else now + turn.wake_s
        self._sent_until = max(self._sent_until, sending_from)
        for at in range(0, len(turn.out), _PIECE_BYTES):
            piece = turn.out[at : at + _PIECE_BYTES]
            self._sent_until += self._speed.seconds(len(piece))
            ahead_s = self._sent_until - time.monotonic()
            if (ahead_s > 0 and self._stop.wait(ahead_s)) or not self._write(piece):
                return False
        return True

    def _write(self, data: bytes) -> bool:
        """Send; a client that does not read loses what does not fit, as behind a real UART. False: it is gone."""
        while data:
            ready = select.select([self._stop.fd], [self._fd], [], _GIVE_UP_WRITING_S)
            if self._stop.fd in ready[0]:
                return False
            if not ready[1]:
                return True
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                continue
            except OSError:
                return False
        return True
