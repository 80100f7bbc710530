"""A serial line, or the TCP or Bluetooth socket that stands for one: bytes out, bytes in, each by a deadline. Rim.

What it is not: it knows no prompt, no command and no retry; `obd_car` and `at_modem` do. It waits in poll(2) and reads
what there is in one go, because pyserial's `read_until` costs two system calls a byte.

A Bluetooth adapter takes seconds to be connected to, more than one call's deadline. So such a line is there at once,
and connects while it is used: the latest that was written is sent when the connection is there.
"""

import contextlib
import errno
import os
import re
import select
import socket
import termios
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import urlsplit

import serial

Clock = Callable[[], int]
"""Returns elapsed ms (ports.py)."""
_BLUETOOTH: Final = re.compile(r"bluetooth://((?:[0-9A-F]{2}:){5}[0-9A-F]{2})(?:/([1-9]|[12][0-9]|30))?", re.IGNORECASE)
"""An address, and the RFCOMM channel (1..30). Source: Bluetooth RFCOMM 1.2, server channels."""
_GONE: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL


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
    """A device path, opened by pyserial, `socket://host:port`, or `bluetooth://address[/channel]`.

    Args:
        url: One of these three; an IPv6 host stands in square brackets, the channel is 1 unless given.
        baud: Bits a second; nothing to a socket.
        clock: Elapsed ms.
        until_ms: Elapsed ms by which a TCP socket is connected.

    Raises:
        LineGoneError: It could not be opened; nothing is left open.
    """

    def __init__(self, url: str, baud: int, clock: Clock, until_ms: int) -> None:
        self._clock = clock
        self._is_connecting = url.startswith("bluetooth://")
        self._unsent = b""
        try:
            self._port = self._open(url, baud, max(0.05, (until_ms - clock()) / 1000))
        except (OSError, ValueError, termios.error) as error:  # pyserial's SerialException is an OSError
            raise LineGoneError(str(error)) from error
        self._fd = self._port.fileno()
        self._readable = select.poll()
        self._readable.register(self._fd, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(self._fd, select.POLLOUT)

    def write(self, data: bytes, until_ms: int) -> None:
        """See Line."""
        if self._is_connecting:
            self._unsent = data
            return
        while data:
            events = self._writable.poll(max(0, until_ms - self._clock()))
            if not events:
                raise LineGoneError("the port takes no more bytes")
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError as error:
                _check_open(events, error)
            except OSError as error:
                raise LineGoneError(str(error)) from error

    def read(self, until_ms: int) -> bytes:
        """See Line."""
        if self._is_connecting and not self._connect(until_ms):
            return b""
        while events := self._readable.poll(max(0, until_ms - self._clock())):
            try:
                data = os.read(self._fd, 4096)
            except BlockingIOError as error:
                _check_open(events, error)
                continue
            except OSError as error:
                raise LineGoneError(str(error)) from error
            if not data:
                raise LineGoneError("the port was closed by the other end")
            return data
        return b""

    def close(self) -> None:
        """See Line."""
        with contextlib.suppress(OSError):  # an unplugged device may fail even in this; it is gone either way
            self._port.close()

    def _open(self, url: str, baud: int, wait_s: float) -> socket.socket | serial.Serial:
        if url.startswith("bluetooth://"):
            return _call_bluetooth(url)
        if not url.startswith("socket://"):
            # `exclusive`: a second reader of one adapter would steal half of every answer.
            return serial.serial_for_url(url, baudrate=baud, timeout=0, exclusive=True)
        # Not pyserial's socket: that one waits 5 s for a connection and sleeps 0.3 s in close().
        address = urlsplit(url)
        port = socket.create_connection((address.hostname or "", address.port or 0), timeout=wait_s)
        port.settimeout(0)
        port.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return port

    def _connect(self, until_ms: int) -> bool:
        """Wait for the connection; return whether it is there, with what was written meanwhile on its way."""
        if not self._writable.poll(max(0, until_ms - self._clock())):
            return False
        if isinstance(self._port, socket.socket) and (
            code := self._port.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        ):
            raise LineGoneError(f"the Bluetooth adapter does not answer: {os.strerror(code)}")
        self._is_connecting = False
        self.write(self._unsent, until_ms)
        return True


def is_bluetooth(url: str) -> bool:
    """Return whether `url` names a Bluetooth adapter as SerialLine takes it.

    >>> is_bluetooth("bluetooth://00:1D:A5:68:98:8A"), is_bluetooth("bluetooth://00:1D:A5:68:98:8A/2")
    (True, True)
    >>> is_bluetooth("bluetooth://OBDII"), is_bluetooth("bluetooth://00:1D:A5:68:98:8A/31")
    (False, False)
    """
    return _BLUETOOTH.fullmatch(url) is not None


def _call_bluetooth(url: str) -> socket.socket:
    """Begin to connect to a serial port over Bluetooth (RFCOMM)."""
    match = _BLUETOOTH.fullmatch(url)
    if match is None:
        raise ValueError(f"{url} is not bluetooth://AA:BB:CC:DD:EE:FF or bluetooth://AA:BB:CC:DD:EE:FF/CHANNEL")
    family, protocol = getattr(socket, "AF_BLUETOOTH", None), getattr(socket, "BTPROTO_RFCOMM", None)
    if family is None or protocol is None:
        raise OSError("this Python was built without Bluetooth: `rfcomm bind` the adapter, and name /dev/rfcomm0")
    port = socket.socket(family, socket.SOCK_STREAM, protocol)
    port.settimeout(0)
    code = port.connect_ex((match[1].upper(), int(match[2] or 1)))
    if code not in {0, errno.EINPROGRESS}:
        port.close()
        raise OSError(code, os.strerror(code))
    return port


def _check_open(events: list[tuple[int, int]], error: OSError) -> None:
    """Raise when poll(2) tells of a port that is gone: it does so at once every time, so to wait on would spin."""
    if any(flags & _GONE for _, flags in events):
        raise LineGoneError("the port hung up") from error
