"""What keeps the keys of a running process inside it. Process wiring."""

import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4
"""Source: prctl(2)."""


def keep_memory_private() -> None:
    """Let no core dump of this process be written, and no other process of the same user read its memory.

    A core dump that is piped to a program, as systemd-coredump has it, does not ask the limit (core(5)); it asks
    whether the process is dumpable at all.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
