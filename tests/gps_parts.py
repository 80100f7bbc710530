"""What tests of GPS share: a client on the reactor, how to wait for what it says, and what a receiver writes."""

import contextlib
from collections.abc import Callable, Iterator
from typing import cast

from components.edge.gpsd_gps import GpsdGps
from components.edge.ports import Sample
from components.edge.system_clock import elapsed_ms
from tests.waiting import until
from tests.wamp_peer import reactor, run


@contextlib.contextmanager
def watching(address: str) -> Iterator[GpsdGps]:
    """A client that listens to the gpsd at `host:port`, or waits for it."""
    gps = GpsdGps(reactor, address, elapsed_ms)

    async def start() -> None:
        gps.start()

    run(start)
    try:
        yield gps
    finally:
        run(gps.stop)


def wait_for(gps: GpsdGps, holds: Callable[[Sample], bool]) -> Sample:
    """Return the first sample of which it holds."""

    def found() -> Sample | None:
        sample = gps.sample(elapsed_ms())
        return sample if holds(sample) else None

    return cast("Sample", until(found, "a sample of the GPS"))


def lost(sample: Sample, why: str = "no_fix") -> bool:
    """Whether there is nothing, for that one reason."""
    return not sample.values and set(sample.why.values()) == {why}


def sentence(body: str) -> str:
    r"""An NMEA 0183 sentence with its checksum.

    >>> sentence("GPGLL,5300.97914,N,00259.98174,E,125926,A")
    '$GPGLL,5300.97914,N,00259.98174,E,125926,A*28\r\n'
    """
    checksum = 0
    for character in body:
        checksum ^= ord(character)
    return f"${body}*{checksum:02X}\r\n"


def epoch(second: int, mode: int = 3, *, north: str = "4807.4000", moves: bool = True) -> str:
    """One second of a receiver at `north` (ddmm.mmmm) and 11 degrees 59.2 minutes east.

    Args:
        second: After noon of 2026-11-22.
        mode: 1 no fix, 2 without height, 3 whole.
        north: Its latitude.
        moves: At 10 m/s (19.4 knots) to the east; else it says neither speed nor course.
    """
    at = f"12{second // 60:02d}{second % 60:02d}.00"
    if mode == 1:
        return (
            sentence(f"GPRMC,{at},V,,,,,,,221126,,,N")
            + sentence(f"GPGGA,{at},,,,,0,00,,,M,,M,,")
            + sentence("GPGSA,A,1,,,,,,,,,,,,,,,")
        )
    moving, height = "019.4,090.0" if moves else ",", "519.3,M,46.9,M" if mode == 3 else ",M,,M"
    return (
        sentence(f"GPRMC,{at},A,{north},N,01159.2000,E,{moving},221126,,,A")
        # gpsd takes a height for a third dimension, whatever GSA says.
        + sentence(f"GPGGA,{at},{north},N,01159.2000,E,1,08,0.9,{height},,")
        + sentence(f"GPGSA,A,{mode},04,05,09,12,24,25,29,31,,,,,1.8,0.9,1.5")
    )
