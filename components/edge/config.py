"""edge.toml: what one device is and what it is connected to. Reads one file; otherwise pure."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Literal, cast

from components import settings
from components.edge.power import Limits
from components.edge.serial_line import is_bluetooth
from components.edge.trust import SuiteChoice
from components.metrics import Metrics
from components.settings import checked, is_address, is_url, shown_key
from components.wire.signals import BY_KEY
from components.wire.topics import ID_RULE, REALM, is_id

_MB = 1_000_000
_DAY_MS = 86_400_000
_TYRE = re.compile(r"([1-9][0-9]{2})/([1-9][0-9]) ?R([1-9][0-9])")


def _is_command(words: tuple[str, ...]) -> bool:
    return not words or (words[0] != "" and not any("\0" in word for word in words))


def _are_ratios(ratios: tuple[float, ...]) -> bool:
    return len(ratios) <= 24 and all(0.05 <= ratio <= 50 for ratio in ratios)


def _is_port(text: str) -> bool:
    if text.startswith("socket://"):
        return is_address(text.removeprefix("socket://"))
    return is_bluetooth(text) or _is_device(text)


def _is_device(text: str) -> bool:
    return text == "auto" or (text.startswith("/") and text.isprintable() and len(text) < 1024)


@dataclass(frozen=True)
class Device:
    """Who this is; `key` is the key file that `odograph edge init` made."""

    key: Path
    id: str = checked(f"be {ID_RULE}", is_id)


@dataclass(frozen=True)
class Router:
    """Where the router listens; `ca` has the only CAs whose certificate it may show, and needs a wss:// URL."""

    url: str = checked("be like ws://HOST:8080/ws or wss://HOST/ws", lambda url: is_url(url, "ws", "wss"))
    realm: str = checked("be a realm's name", lambda realm: re.fullmatch(r"[!-~]{3,64}", realm) is not None, REALM)
    ca: Path | None = None

    def __post_init__(self) -> None:
        if self.ca is not None and not self.url.startswith("wss://"):
            raise ValueError("ca: must be left out where url does not begin with wss://")


@dataclass(frozen=True)
class Server:
    """For whom packets are sealed, and how: the public bundle of `odograph init`; `auto`: as the server prefers."""

    bundle: Path
    suite: SuiteChoice = "auto"


@dataclass(frozen=True)
class Obd:
    """The adapter: a device, a socket, a Bluetooth address, or `auto`. `protocol` is ELM327's digit, or `auto`."""

    port: str = checked("be auto, a device, socket://HOST:PORT or bluetooth://ADDRESS[/CHANNEL]", _is_port, "auto")
    baud: int = checked("be 9600..2000000", lambda baud: 9600 <= baud <= 2_000_000, 38400)
    protocol: str = checked("be auto or one of 1..9", lambda p: p == "auto" or p in set("123456789"), "auto")


@dataclass(frozen=True)
class Gps:
    """gpsd's address; empty for a car without one."""

    gpsd: str = checked("be HOST:PORT, or empty for none", lambda text: not text or is_address(text), "127.0.0.1:2947")


@dataclass(frozen=True)
class Modem:
    """The modem's AT port: a device, `auto` (by udev's name), or empty for none."""

    port: str = checked("be auto, a device, socket://HOST:PORT or empty", lambda p: not p or _is_port(p), "auto")


@dataclass(frozen=True)
class Sampling:
    """How often a reading is made."""

    rate_hz: float = checked("be 0.2..10", lambda hz: 0.2 <= hz <= 10, 1.0)

    @property
    def interval_ms(self) -> int:
        """Time from one reading to the next."""
        return round(1000 / self.rate_hz)


@dataclass(frozen=True)
class Vehicle:
    """What `gear` is derived from; without all three there is no gear."""

    gear_ratios: tuple[float, ...] = checked("be up to 24 of 0.05..50, first gear first", _are_ratios, ())
    final_drive: float = checked("be 0.05..20; 0 for none", lambda r: r == 0 or 0.05 <= r <= 20, 0.0)
    tyre: str = checked("be like 205/55 R16, or empty", lambda t: not t or _TYRE.fullmatch(t) is not None, "")

    @property
    def circumference_m(self) -> float | None:
        """Of the tyre; None when it is not configured."""
        if not (match := _TYRE.fullmatch(self.tyre)):
            return None
        width_mm, aspect, rim_in = map(int, match.groups())
        return 3.141592653589793 * (rim_in * 25.4 + 2 * width_mm * aspect / 100) / 1000


@dataclass(frozen=True)
class PacketSettings:
    """The period of a packet and what is in it."""

    period_s: int = checked("be a divisor of 60 from 5 to 60", lambda s: 5 <= s <= 60 and 60 % s == 0, 60)
    content: Literal["full", "summary"] = "full"


@dataclass(frozen=True)
class Spool:
    """Where rows and packets wait, how long receipted ones stay, and how much of the card they may take."""

    dir: Path
    keep_days: float = checked("be 0.01..3650", lambda days: 0.01 <= days <= 3650, 15.0)
    max_mb: int = checked("be at least 16", lambda mb: mb >= 16, 1024)

    @property
    def keep_ms(self) -> int:
        """How long receipted packets stay."""
        return int(self.keep_days * _DAY_MS)

    @property
    def max_bytes(self) -> int:
        """How much of the card all of it may take."""
        return self.max_mb * _MB


@dataclass(frozen=True)
class Power:
    """When the car counts as asleep (power.py), and what is run when its battery or patience is at an end."""

    charging_v: float = checked("be 0..30", lambda volts: 0 <= volts <= 30, 13.2)
    dwell_s: float = checked("be 5..600", lambda s: 5 <= s <= 600, 20.0)
    low_v: float = checked("be 0..30; 0 for never", lambda volts: 0 <= volts <= 30, 11.8)
    idle_s: float = checked("be 0..31536000; 0 for never", lambda s: 0 <= s <= 31_536_000, 0.0)
    command: tuple[str, ...] = checked("begin with a program, and hold no NUL", _is_command, ())

    def __post_init__(self) -> None:
        if self.low_v and self.low_v >= self.charging_v:
            raise ValueError(
                f"low_v: must be below charging_v ({self.charging_v}), got {self.low_v} (11.8 where not given)"
            )

    @property
    def limits(self) -> Limits:
        """The same for the machine."""
        return Limits(self.charging_v, round(self.dwell_s * 1000), self.low_v, round(self.idle_s * 1000))


@dataclass(frozen=True)
class Signals:
    """Which signals are recorded, `only` these or all but `never` these, and every how many seconds."""

    only: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = [
            f"{name}: there is no signal {shown_key(key)}" + (f", did you mean {near[0]}?" if near else "")
            for name, keys in (("only", self.only), ("never", self.never), ("rates", self.rates))
            for key in keys
            if key not in BY_KEY
            for near in [get_close_matches(key, BY_KEY, 1)]
        ]
        faults += [
            f"rates.{key}: must be 0..3600 (seconds), got {rate}"
            for key, rate in self.rates.items()
            if not 0 <= rate <= 3600
        ]
        if self.only and self.never:
            faults.append("never: must be left out where only says it all")
        if faults:
            raise ValueError(*faults)

    @property
    def wanted(self) -> frozenset[str]:
        """Keys of the signals that are recorded."""
        return frozenset(self.only) if self.only else frozenset(BY_KEY.keys() - set(self.never))


@dataclass(frozen=True)
class EdgeConfig:
    """edge.toml as a whole."""

    device: Device
    router: Router
    server: Server
    spool: Spool
    obd: Obd = field(default_factory=Obd)
    gps: Gps = field(default_factory=Gps)
    modem: Modem = field(default_factory=Modem)
    sampling: Sampling = field(default_factory=Sampling)
    vehicle: Vehicle = field(default_factory=Vehicle)
    packet: PacketSettings = field(default_factory=PacketSettings)
    power: Power = field(default_factory=Power)
    metrics: Metrics = field(default_factory=Metrics)

    signals: Signals = field(default_factory=Signals)

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of what is configured; it travels in every packet.

        Of the whole file, defaults filled in, but for the paths of keys, bundle, CA and spool, as JSON with its keys
        sorted and no spaces: layout, comments, the order of keys and of chosen signals do not count, nor do the machine
        and its Python.
        """
        form = cast("dict[str, dict[str, object]]", asdict(self))
        form["signals"] |= {
            name: sorted(set(cast("Iterable[str]", form["signals"][name]))) for name in ("only", "never")
        }
        plain = {
            table: {key: value for key, value in keys.items() if not isinstance(value, Path | None)}
            for table, keys in form.items()
        }
        return sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def load(path: Path) -> EdgeConfig:
    """Return the configuration; ConfigError when the file is missing or has faults, all of them listed."""
    return settings.read(path, EdgeConfig)
