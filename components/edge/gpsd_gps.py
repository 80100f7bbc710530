"""Position from gpsd, by its own JSON protocol over TCP. Rim: one Twisted client; `parse_tpv` is pure.

What it is not: no history, no filter, no guess. gpsd leaves out what it does not know, and so does this; the last fix
is dropped when gpsd hangs up, and told no more when it is 3 s old.

Source: gpsd_json(5): ?WATCH, TPV, mode 2 and 3, altMSL, track, climb, speed, time.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from twisted.application.internet import ClientService
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.protocol import Factory, Protocol

from components.edge.ports import Sample
from components.edge.serial_line import Clock
from components.wire.signals import GPS_SIGNALS, Value

STALE_MS: Final = 3_000
_MAX_LINE_BYTES: Final = 16_384
"""gpsd's longest report, SKY with all satellites, is about 10 KiB."""
_WATCH: Final = b'?WATCH={"enable":true,"json":true};\n'
_KEYS: Final = tuple(signal.key for signal in GPS_SIGNALS)
_NUMBERS: Final[Mapping[str, tuple[str, float, float]]] = {
    # signal key: (TPV key, least, most). Beyond these no car is, whatever the receiver says.
    "heading": ("track", 0.0, 360.0),
    "altitude": ("altMSL", -500.0, 10_000.0),
    "climb": ("climb", -200.0, 200.0),
    "gps_speed": ("speed", 0.0, 200.0),
}


@dataclass(frozen=True, slots=True)
class Fix:
    """One TPV report.

    Attributes:
        values: By signal key; {} without a fix.
        why: Reason for each signal of GPS_SIGNALS that has no value.
        utc_ms: Its time, where it has one.
    """

    values: Mapping[str, Value]
    why: Mapping[str, str]
    utc_ms: int | None = None


def parse_tpv(line: bytes) -> Fix | None:
    r"""Read one line of gpsd.

    Args:
        line: Without its end.

    Returns:
        The fix, or the lack of one (every signal `no_fix`); None when the line is no TPV, or none that can be read.
        Never raises.

    >>> parse_tpv(b'{"class":"TPV","mode":2,"lat":48.1,"lon":11.5}').values
    {'gps_fix': 2, 'location': {'type': 'Point', 'coordinates': [11.5, 48.1]}}
    """
    try:
        report = json.loads(line, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(report, dict) or report.get("class") != "TPV":
        return None
    utc_ms = _utc_ms(report.get("time"))
    mode = report.get("mode")
    if not isinstance(mode, int) or mode not in {2, 3}:
        return Fix({}, dict.fromkeys(_KEYS, "no_fix"), utc_ms)
    values: dict[str, Value] = {"gps_fix": 2 if mode == 2 else 3}
    why: dict[str, str] = {}
    for key, (name, least, most) in _NUMBERS.items():
        number = _number(report.get(name))
        if number is None:
            why[key] = "no_data"
        elif not least <= number <= most:
            why[key] = "out_of_range"
        else:
            values[key] = number
    if values.get("heading") == 360.0:
        values["heading"] = 0.0
    lat, lon = _number(report.get("lat")), _number(report.get("lon"))
    if lat is None or lon is None:
        why["location"] = "no_data"
    elif not (-90 <= lat <= 90 and -180 <= lon <= 180):
        why["location"] = "out_of_range"
    else:
        values["location"] = {"type": "Point", "coordinates": [round(lon, 7), round(lat, 7)]}
    return Fix(values, why, utc_ms)


class GpsdGps:
    """Implements ports.Gps.

    Args:
        reactor: Of the process.
        address: `host:port` of gpsd.
        clock: Elapsed ms.
    """

    def __init__(self, reactor: "_Reactor", address: str, clock: Clock) -> None:
        host, _, port = address.rpartition(":")
        self._clock = clock
        self._fix: Fix | None = None
        self._heard_ms = 0
        self._time: tuple[int, int] | None = None
        factory = Factory.forProtocol(lambda: _Watcher(self._heard, self._lost))
        endpoint = HostnameEndpoint(reactor, host.strip("[]"), int(port))
        # The classes say what they implement to zope.interface, which mypy does not read.
        self._service = ClientService(endpoint, factory, retryPolicy=_retry_s, clock=reactor)  # type: ignore[arg-type]

    def start(self) -> None:
        """Connect, and connect again for ever, with back-off."""
        self._service.startService()

    async def stop(self) -> None:
        """Hang up and stay away."""
        self._lost()
        await self._service.stopService()

    def sample(self, elapsed_ms: int) -> Sample:
        """See ports.Gps."""
        fix = self._fix
        if fix is None:
            return Sample({}, {}, dict.fromkeys(_KEYS, "no_fix"))
        if elapsed_ms - self._heard_ms > STALE_MS:
            return Sample({}, {}, dict.fromkeys(_KEYS, "stale" if fix.values else "no_fix"))
        return Sample(fix.values, dict.fromkeys(fix.values, self._heard_ms), fix.why)

    def utc_ms(self) -> tuple[int, int] | None:
        """See ports.Gps."""
        return self._time

    def _heard(self, line: bytes) -> None:
        fix = parse_tpv(line)
        if fix is None:
            return
        self._fix, self._heard_ms = fix, self._clock()
        # A receiver without a fix tells the time of its own, unset clock.
        if fix.values and fix.utc_ms is not None:
            self._time = (fix.utc_ms, self._heard_ms)

    def _lost(self) -> None:
        self._fix = None
        self._time = None


class _Reactor(IReactorTCP, IReactorTime):
    """What is needed of the reactor."""


class _Watcher(Protocol):
    """One connection to gpsd.

    Not Twisted's LineReceiver: that one throws away, with a line that is too long, the good ones that came after it.
    """

    def __init__(self, heard: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self._heard = heard
        self._lost = lost
        self._rest = b""
        self._is_too_long = False

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """See Protocol."""
        cast("Any", self.transport).write(_WATCH)  # zope's interfaces are no types

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """See Protocol."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not self._is_too_long:
                self._heard(line)
            self._is_too_long = False
        if len(self._rest) > _MAX_LINE_BYTES:
            self._rest, self._is_too_long = b"", True

    def connectionLost(self, reason: object = None) -> None:  # noqa: N802, ARG002 - Twisted's name and signature
        """See Protocol."""
        self._lost()


def _retry_s(failures: int) -> float:
    return min(5.0, 0.5 * 2.0 ** min(failures, 8))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e9 < value < 1e9:
        return None
    # Minus zero becomes zero: an archive that keeps no sign of it would have the same event fed with two contents.
    return float(value) + 0.0


def _utc_ms(text: object) -> int | None:
    """Read `2026-11-22T02:05:00.887Z`; None when it is no such time."""
    if not isinstance(text, str) or not text.endswith("Z"):
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1_000)
    except (ValueError, OverflowError):
        return None
