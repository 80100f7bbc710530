"""A remedy that a person finds: the last line of a node that cannot start. Rim (processes and their files; Linux).

An error in an embedded component ends Crossbar behind a traceback and a page of its worker's goodbyes, and nothing that
a component logs comes after those. So a child is forked that outlives the node by an instant: it waits for the
controller's end and then writes one line where the controller wrote.
"""

import contextlib
import os
import select
from typing import Final

_LONGEST_SHUTDOWN_MS: Final = 60_000


def leave_last_words(line: str) -> None:
    """Have `line` written to the parent process's standard error and output when that process has ended.

    To be called in a process that is about to end together with its parent. Where the parent's output cannot be opened
    (a socket, as under systemd) the line is left out; the log above has it too.
    """
    with contextlib.suppress(OSError):
        ending = os.pidfd_open(os.getppid())
        outputs = _outputs(os.getppid())
        if os.fork() == 0:
            # Nothing but system calls from here: the reactor, its threads and its locks are not ours any more.
            try:
                _close_all_but({ending, *outputs})
                select.select([ending], [], [], _LONGEST_SHUTDOWN_MS / 1000)
                for output in outputs:
                    os.write(output, line.encode() + b"\n")
            finally:
                os._exit(0)


def _outputs(pid: int) -> list[int]:
    """Open what a process has as standard error and output, each once; may be empty."""
    opened: dict[tuple[int, int, int], int] = {}
    for number in (2, 1):
        with contextlib.suppress(OSError):
            handle = os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_APPEND | os.O_NOCTTY)
            stat = os.fstat(handle)
            opened.setdefault((stat.st_dev, stat.st_ino, stat.st_rdev), handle)
    return list(opened.values())


def _close_all_but(kept: set[int]) -> None:
    """Crossbar would wait for the pipes that lead to it."""
    for handle in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - wants no objects after a fork
        if handle not in kept:
            with contextlib.suppress(OSError):
                os.close(handle)
