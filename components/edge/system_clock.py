"""The machine's clocks. Rim: the one place at the edge that reads them."""

import time
from pathlib import Path
from typing import Literal

ClockSource = Literal["ntp", "rtc", "none"]

_SYNCHRONISED = Path("/run/systemd/timesync/synchronized")
_BUILT_MS = 1_790_000_000_000
"""September 2026: a clock before that has not been set since this was written."""


def elapsed_s() -> float:
    """Seconds of CLOCK_BOOTTIME: it runs on in suspend and never jumps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def elapsed_ms() -> int:
    """Return `elapsed_s` in whole ms."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def utc() -> tuple[ClockSource, int]:
    """Return where the system's time comes from, and the time in ms UTC."""
    now_ms = time.time_ns() // 1_000_000
    if now_ms < _BUILT_MS:
        return "none", now_ms
    return ("ntp" if _SYNCHRONISED.exists() else "rtc"), now_ms
