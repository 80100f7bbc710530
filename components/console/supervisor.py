"""Who started this process and waits for word of it: systemd's notification protocol. Rim.

`READY=1` when the working loop has turned for the first time, `WATCHDOG=1` when it has turned since: whoever feeds the
watchdog from a timer feeds it from a process that does nothing. `STOPPING=1` when it was told to end, which may take it
a while. Where nobody waits, nobody is told.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

import os
import re
import socket
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

_OFTEN: Final = 4
"""Of so many turns within the time that the watchdog allows, one is told."""


@dataclass(slots=True)
class Supervisor:
    """The service manager.

    Args:
        address: Of its datagram socket; "" where there is none. "@" stands for the NUL of an abstract name.
        watchdog_s: After how long without word it ends this process; 0 for never.
        clock: Seconds that never jump.
    """

    address: str
    watchdog_s: float
    clock: Callable[[], float]
    _told_s: float | None = None

    @classmethod
    def of(cls, environment: MutableMapping[str, str], clock: Callable[[], float]) -> Self:
        """Take what the environment says of it, and leave nothing there for programs that this one starts."""
        address = environment.pop("NOTIFY_SOCKET", "")
        usec, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        is_ours = pid in {"", str(os.getpid())}
        return cls(address, int(usec) / 1e6 if re.fullmatch("[0-9]{1,15}", usec) and is_ours else 0.0, clock)

    def turned(self) -> None:
        """The working loop has turned."""
        now_s = self.clock()
        if self._told_s is None:
            self._tell(b"READY=1\nWATCHDOG=1" if self.watchdog_s else b"READY=1")
        elif self.watchdog_s and now_s - self._told_s >= self.watchdog_s / _OFTEN:
            self._tell(b"WATCHDOG=1")
        else:
            return
        self._told_s = now_s

    def stopping(self) -> None:
        """The process was told to end, and does what is left to do."""
        self._tell(b"STOPPING=1")

    def _tell(self, words: bytes) -> None:
        if not self.address:
            return
        name = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        # It may be away for a moment; it asks for the next word, not for this one.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as to:
            to.sendto(words, name)
