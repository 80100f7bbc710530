"""The configured command that a sleeping car's agent runs, such as a shutdown. Rim.

It is run beside the agent, without a shell; what it wrote and how it ended is logged. Nothing that it does or fails to
do comes back as an exception. It is logged as a warning: whoever finds the Pi off wants to read why.
"""

import shutil
from collections.abc import Sequence
from typing import Any, Final, cast

from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()
_KEPT_BYTES: Final = 4_000


def is_there(command: Sequence[str]) -> bool:
    """Whether its program can be found; an error in the log when not."""
    found = shutil.which(command[0]) is not None
    if not found:
        _log.error("power.command: no program {program} is there to be run", program=command[0])
    return found


def run(reactor: Any, command: Sequence[str]) -> None:  # noqa: ANN401 - a reactor is many interfaces
    """Start it, with this process's environment, and return at once."""
    if not is_there(command):
        return
    _log.warn("running {command}", command=list(command))
    try:
        reactor.spawnProcess(_Run(command), shutil.which(command[0]), list(command), env=None)
    except OSError as error:
        _log.error("{command} could not be started: {error}", command=list(command), error=error)


class _Run(ProcessProtocol):
    """Hears what one run writes, up to 4 kB."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._heard = b""

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """See ProcessProtocol."""
        cast("Any", self.transport).closeStdin()  # zope's interfaces are no types

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N802, N803 - Twisted's names
        """See ProcessProtocol."""
        del childFD
        self._heard = (self._heard + data)[:_KEPT_BYTES]

    def processEnded(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """See ProcessProtocol."""
        ended: Any = reason.value
        _log.warn(
            "{command} ended with {code}: {heard}",
            command=self._command,
            code=f"signal {ended.signal}" if ended.signal else f"exit code {ended.exitCode}",
            heard=self._heard.decode("utf-8", "replace").strip() or "it said nothing",
        )
