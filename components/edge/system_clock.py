"""The machine's clocks. Rim: the one place at the edge that reads them. What to make of them is timeline's.

Who set the system's clock is known, without being root, as far as this goes:

ntp    the kernel says that it is synchronised; chrony, ntpd and systemd-timesyncd all tell it so
rtc    it is not, but a battery clock says the same within 2 s: the boot took the time from there
saved  neither: fake-hwclock, timesyncd's or systemd's own file of the last known time, a person, nobody
"""

import ctypes
import time
from pathlib import Path
from typing import Final

from components.edge.timeline import TOLERANCE_MS, Told

_SYNCHRONISED: Final = Path("/run/systemd/timesync/synchronized")
_RTCS: Final = Path("/sys/class/rtc")
_MAXERROR: Final = 3
_UNSYNCHRONISED_US: Final = 16_000_000


def elapsed_s() -> float:
    """Seconds of CLOCK_BOOTTIME: it runs on in suspend and never jumps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def elapsed_ms() -> int:
    """Return `elapsed_s` in whole ms."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def system_time() -> Told:
    """Return the system's time, from ntp, rtc or saved. It may read a battery clock over a slow bus."""
    now_ms = _utc_ms()
    if is_synchronised():
        source = "ntp"
    else:
        source = "rtc" if any(abs(rtc_ms - now_ms) <= TOLERANCE_MS for rtc_ms in battery_clocks_ms()) else "saved"
    return Told(source, now_ms, elapsed_ms())


def network_time() -> Told | None:
    """Return the system's time while it is synchronised; None while it is not."""
    return Told("ntp", _utc_ms(), elapsed_ms()) if is_synchronised() else None


def is_synchronised() -> bool:
    """Ask the kernel; where a sandbox forbids that, systemd-timesyncd's mark.

    Whoever disciplines the clock sets the kernel's estimate of its largest error, and whoever sets it by hand makes it
    16 s, as it is at boot. STA_UNSYNC alone is no word on it: chrony leaves it set where it may not touch the RTC.

    Source: adjtimex(2); `ntp_synced` of systemd.
    """
    # struct timex as words: with `modes`, the first, 0 nothing is changed.
    words = (ctypes.c_long * 64)()
    try:
        answer = ctypes.CDLL(None).adjtimex(words)
    except (OSError, AttributeError):
        answer = -1
    return words[_MAXERROR] < _UNSYNCHRONISED_US if answer >= 0 else _SYNCHRONISED.exists()


def battery_clocks_ms(rtcs: Path = _RTCS) -> list[int]:
    """Return what each hardware clock says, ms UTC, to the second; [] where there is none, as on most Pis."""
    found: list[int] = []
    for rtc in sorted(rtcs.glob("*/since_epoch")):
        try:
            found.append(int(rtc.read_text("ascii")) * 1000)
        except (OSError, ValueError):
            # One that lost its time has none to read.
            continue
    return found


def _utc_ms() -> int:
    return time.time_ns() // 1_000_000
