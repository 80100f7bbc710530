"""A service manager for tests: the datagram socket that processes tell of themselves."""

import socket
from typing import Self


class Manager:
    """Hears what is sent to `address`: a path, or "@" and an abstract name; a context manager."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.settimeout(0)

    def environment(self, watchdog_s: float = 60, pid: int | None = None) -> dict[str, str]:
        """What it would give a process that it starts."""
        whose = {} if pid is None else {"WATCHDOG_PID": str(pid)}
        return {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": str(round(watchdog_s * 1e6)), **whose}

    def heard(self) -> list[str]:
        """What came since the last look."""
        found: list[str] = []
        while True:
            try:
                found.append(self._socket.recv(1000).decode())
            except BlockingIOError:
                return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
