"""A serial line, or the TCP socket that stands for one: bytes out, bytes in, each by a deadline. Rim.

What it is not: it knows no prompt, no command and no retry; `obd_car` and `at_modem` do. It waits in poll(2) and reads
what there is in one go, because pyserial's `read_until` costs two system calls a byte.
"""

import contextlib
import os
import select
import socket
import termios
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

import serial

Clock = Callable[[], int]
"""Returns elapsed ms (ports.py)."""


class LineGoneError(Exception):
    """The port cannot be opened, or it went away; the text is the system's own."""


class Line(Protocol):
    """An open line."""

    def write(self, data: bytes, until_ms: int) -> None:
        """Send all of `data`; LineGoneError when the line takes it not whole by then."""

    def read(self, until_ms: int) -> bytes:
        """Return what has come, waiting until `until_ms` for the first byte; b"" when none came. LineGoneError."""

    def close(self) -> None:
        """Let go of the port. Never raises."""


class SerialLine:
    """A device path, opened by pyserial, or `socket://host:port`.

    Args:
        url: Device path or `socket://host:port`.
        baud: Bits a second; nothing to a socket.
        clock: Elapsed ms.
        until_ms: Elapsed ms by which a socket is connected.

    Raises:
        LineGoneError: It could not be opened; nothing is left open.
    """

    def __init__(self, url: str, baud: int, clock: Clock, until_ms: int) -> None:
        self._clock = clock
        self._port: socket.socket | serial.Serial
        try:
            if url.startswith("socket://"):
                # Not pyserial's socket: that one waits 5 s for a connection and sleeps 0.3 s in close().
                address = urlsplit(url)
                wait_s = max(0.05, (until_ms - clock()) / 1000)
                self._port = socket.create_connection((address.hostname or "", address.port or 0), timeout=wait_s)
                self._port.settimeout(0)
                self._port.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            else:
                # `exclusive`: a second reader of one adapter would steal half of every answer.
                self._port = serial.serial_for_url(url, baudrate=baud, timeout=0, exclusive=True)
            self._fd = self._port.fileno()
        except (OSError, ValueError, termios.error) as error:  # pyserial's SerialException is an OSError
            if (port := getattr(self, "_port", None)) is not None:
                port.close()
            raise LineGoneError(str(error)) from error
        self._readable = select.poll()
        self._readable.register(self._fd, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(self._fd, select.POLLOUT)

    def write(self, data: bytes, until_ms: int) -> None:
        """See Line."""
        while data:
            if not self._writable.poll(max(0, until_ms - self._clock())):
                raise LineGoneError("the port takes no more bytes")
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise LineGoneError(str(error)) from error

    def read(self, until_ms: int) -> bytes:
        """See Line."""
        if not self._readable.poll(max(0, until_ms - self._clock())):
            return b""
        try:
            data = os.read(self._fd, 4096)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise LineGoneError(str(error)) from error
        if not data:
            raise LineGoneError("the port was closed by the other end")
        return data

    def close(self) -> None:
        """See Line."""
        with contextlib.suppress(OSError):  # an unplugged device may fail even in this; it is gone either way
            self._port.close()
