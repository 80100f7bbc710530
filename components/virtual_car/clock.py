"""When the drive began and how long ago that is. Rim: it reads the clocks."""

import time


class Clock:
    """Time since T0; made at T0. Steady from then on: a clock that is set meanwhile does not move the drive."""

    def __init__(self) -> None:
        now_s = time.time()
        self.t0_ms = int(now_s * 1_000)
        self._t0_monotonic_s = time.monotonic() - (now_s - self.t0_ms / 1_000)

    def elapsed_s(self) -> float:
        """Seconds since T0."""
        return time.monotonic() - self._t0_monotonic_s

    def at_ms(self, elapsed_s: float) -> int:
        """The time of day, ms since 1970, at so many seconds after T0."""
        return self.t0_ms + round(elapsed_s * 1_000)
