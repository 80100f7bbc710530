"""Position from gpsd, by its own JSON protocol over TCP. Rim: one Twisted client; `parse_tpv` is pure.

What it is not: no history, no filter, no guess. gpsd leaves out what it does not know, and so does this; the last fix
is dropped when gpsd hangs up, and told no more when it is 3 s old.

Where gpsd has several receivers their reports come interleaved. One of them counts, all of its report and nothing of
another's: of those heard in the last 3 s the one with the best fix, and of equals the one that counted before. So the
place does not flap between two antennas; it moves over when the other is better, or the one in use falls silent.

Source: gpsd_json(5): ?WATCH, TPV, device, mode 2 and 3, altMSL, track, climb, speed, time; gpsd's gps.h: mode 2 is good
for latitude and longitude, mode 3 for altitude and climb too.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, cast

from twisted.application.internet import ClientService
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.protocol import Factory, Protocol

from components.edge.ports import Sample
from components.edge.serial_line import Clock
from components.wire.signals import GPS_SIGNALS, Value
from components.wire.times import LAST_MS

STALE_MS: Final = 3_000
_MAX_LINE_BYTES: Final = 16_384
"""gpsd's longest report, SKY with all satellites, is about 10 KiB."""
_MAX_RECEIVERS: Final = 16
"""No car has more; whoever tells of others while so many are heard is not listened to."""
_SILENCE_S: Final = 30.0
"""After this long without a report gpsd is called again: a host that lost its power does not hang up."""
_MAX_NAME: Final = 256
_WATCH: Final = b'?WATCH={"enable":true,"json":true};\n'
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", re.ASCII)
_KEYS: Final = tuple(signal.key for signal in GPS_SIGNALS)
_NUMBERS: Final[Mapping[str, tuple[str, int, float, float]]] = {
    # signal key: (TPV key, least mode, least, most). Beyond these no car is, whatever the receiver says. To measure a
    # height takes a 3D fix: with a 2D one a receiver may repeat the last that it knew.
    "heading": ("track", 2, 0.0, 360.0),
    "altitude": ("altMSL", 3, -500.0, 10_000.0),
    "climb": ("climb", 3, -200.0, 200.0),
    "gps_speed": ("speed", 2, 0.0, 200.0),
}


@dataclass(frozen=True, slots=True)
class Fix:
    """One TPV report.

    Attributes:
        values: By signal key; {} without a fix.
        why: Reason for each signal of GPS_SIGNALS that has no value.
        utc_ms: Its time, where it has one.
        device: gpsd's name of the receiver; "" where it gave none.
        mode: 3, 2, or 0 without a fix.
    """

    values: Mapping[str, Value]
    why: Mapping[str, str]
    utc_ms: int | None = None
    device: str = ""
    mode: int = 0


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
    if b'"TPV"' not in line:
        # Most lines are of something else; a flood of them must not hold up the loop.
        return None
    try:
        text = line.decode("utf-8", "replace")
        # NaN and Infinity are no JSON; receivers' drivers wrote them for "unknown", which a missing key says now.
        report = json.loads(text, object_pairs_hook=_unique, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    if not isinstance(report, dict) or report.get("class") != "TPV":
        return None
    utc_ms, device = _utc_ms(report.get("time")), _name(report.get("device"))
    mode, place = _mode(report.get("mode")), _place(report.get("lat"), report.get("lon"))
    if not mode or place == [0.0, 0.0]:
        # A receiver that says exactly (0, 0) has no place, whatever mode it says: no car is in the Gulf of Guinea.
        return Fix({}, dict.fromkeys(_KEYS, "no_fix"), utc_ms, device)
    values: dict[str, Value] = {"gps_fix": mode}
    why: dict[str, str] = {}
    for key, (name, least_mode, least, most) in _NUMBERS.items():
        number = _number(report.get(name))
        if number is None or mode < least_mode:
            why[key] = "no_data"
        elif not least <= number <= most:
            why[key] = "out_of_range"
        else:
            values[key] = number
    if values.get("heading") == 360.0:
        values["heading"] = 0.0
    if isinstance(place, str):
        why["location"] = place
    else:
        values["location"] = {"type": "Point", "coordinates": place}
    return Fix(values, why, utc_ms, device, mode)


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
        self._fixes: dict[str, tuple[Fix, int]] = {}
        self._device = ""
        self._time: tuple[int, int] | None = None
        factory = Factory.forProtocol(lambda: _Watcher(reactor, self._heard, self._lost))
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
        self._choose(elapsed_ms)
        if self._device not in self._fixes:
            return Sample({}, {}, dict.fromkeys(_KEYS, "no_fix"))
        fix, heard_ms = self._fixes[self._device]
        if elapsed_ms - heard_ms > STALE_MS:
            return Sample({}, {}, dict.fromkeys(_KEYS, "stale" if fix.mode else "no_fix"))
        return Sample(fix.values, dict.fromkeys(fix.values, heard_ms), fix.why)

    def utc_ms(self) -> tuple[int, int] | None:
        """See ports.Gps."""
        return self._time

    def _heard(self, line: bytes) -> None:
        fix = parse_tpv(line)
        if fix is None:
            return
        now_ms = self._clock()
        fresh = self._fresh(now_ms)
        if fix.device in fresh or len(fresh) < _MAX_RECEIVERS:
            self._fixes = fresh | {fix.device: (fix, now_ms)}
        self._choose(now_ms)
        # A receiver without a fix tells the time of its own, unset clock.
        if fix.device == self._device and fix.mode and fix.utc_ms is not None:
            self._time = (fix.utc_ms, now_ms)

    def _choose(self, now_ms: int) -> None:
        """Choose whose report counts, and forget the receivers that fell silent; with none left all stays as it was."""
        fresh = self._fresh(now_ms)
        if fresh:
            self._fixes = fresh
            self._device = max(fresh, key=lambda device: (fresh[device][0].mode, device == self._device))

    def _fresh(self, now_ms: int) -> dict[str, tuple[Fix, int]]:
        return {device: heard for device, heard in self._fixes.items() if now_ms - heard[1] <= STALE_MS}

    def _lost(self) -> None:
        self._fixes = {}
        self._time = None


class _Reactor(IReactorTCP, IReactorTime):
    """What is needed of the reactor."""


class _Watcher(Protocol):
    """One connection to gpsd.

    Not Twisted's LineReceiver: that one throws away, with a line that is too long, the good ones that came after it.
    """

    def __init__(self, reactor: Any, heard: Callable[[bytes], None], lost: Callable[[], None]) -> None:  # noqa: ANN401 - zope's interfaces are no types
        self._reactor = reactor
        self._heard = heard
        self._lost = lost
        self._rest = b""
        self._is_too_long = False

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """See Protocol."""
        transport = cast("Any", self.transport)  # as the reactor
        transport.write(_WATCH)
        self._silence = self._reactor.callLater(_SILENCE_S, transport.abortConnection)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """See Protocol."""
        self._silence.reset(_SILENCE_S)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not self._is_too_long:
                self._heard(line)
            self._is_too_long = False
        if len(self._rest) > _MAX_LINE_BYTES:
            self._rest, self._is_too_long = b"", True

    def connectionLost(self, reason: object = None) -> None:  # noqa: N802, ARG002 - Twisted's name and signature
        """See Protocol."""
        if self._silence.active():
            self._silence.cancel()
        self._lost()


def _retry_s(failures: int) -> float:
    return min(5.0, 0.5 * 2.0 ** min(failures, 8))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _name(value: object) -> str:
    return value[:_MAX_NAME] if isinstance(value, str) else ""


def _mode(value: object) -> Literal[0, 2, 3]:
    """Return 2 or 3, or 0 for whatever else: no fix."""
    if isinstance(value, bool):
        return 0
    return 2 if value == 2 else 3 if value == 3 else 0


def _place(lat: object, lon: object) -> list[float] | str:
    """Return [lon, lat] as GeoJSON has it, or the reason why there is none."""
    north, east = _number(lat), _number(lon)
    if north is None or east is None:
        return "no_data"
    if not (-90 <= north <= 90 and -180 <= east <= 180):
        return "out_of_range"
    return [round(east, 7), round(north, 7)]


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e9 < value < 1e9:
        return None
    # Minus zero becomes zero: an archive that keeps no sign of it would have the same event fed with two contents.
    return float(value) + 0.0


def _utc_ms(text: object) -> int | None:
    """Read `2026-11-22T02:05:00.887Z`; None when it is no such time."""
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        return None
    try:
        return min(round(datetime.fromisoformat(text).timestamp() * 1_000), LAST_MS)
    except (ValueError, OverflowError):
        return None
