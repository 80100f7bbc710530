"""Every URI of the realm is built and parsed here, and nowhere else. Pure."""

import hashlib
import re
from typing import Final

from components.wire.errors import ConfigError

REALM: Final = "odograph"
ID_PATTERN: Final = r"[a-z][a-z0-9_]{2,31}"
ID_RULE: Final = "3 to 32 of a-z, 0-9 and _, a letter first"
_ID: Final = re.compile(ID_PATTERN)
_PACKET: Final = re.compile(rf"odograph\.packet\.([0-9a-f]{{2}})\.({ID_PATTERN})")

AUTHENTICATE: Final = "odograph.auth.authenticate"
AUTHORIZE: Final = "odograph.auth.authorize"
EVENT_PREFIX: Final = "odograph.event."
ENROL: Final = "odograph.enrol"
REKEY: Final = "odograph.rekey"
DEVICE_PROCEDURES: Final = ("status", "dtcs", "prepare_clear", "clear_dtcs", "query", "watch")
FLEET_PROCEDURES: Final = ("devices", "latest", "minutes", "bundle")


def is_id(name: str) -> bool:
    """Tell whether this can be the id of a device or an operator: ID_RULE."""
    return _ID.fullmatch(name) is not None


def check_id(name: str, what: str) -> str:
    """Return `name` if it is a device or operator id; ConfigError otherwise. `what` says whose id it is."""
    if not is_id(name):
        raise ConfigError(f"{what} id {name!r} is not valid", ID_RULE)
    return name


def shard(device: str) -> str:
    """Two hex digits: the first byte of SHA-256 of the device id.

    >>> shard("car_one")
    '0b'
    """
    return hashlib.sha256(device.encode()).hexdigest()[:2]


def packet(device: str) -> str:
    """Topic to which a device publishes its envelopes."""
    return f"odograph.packet.{shard(device)}.{device}"


def packet_prefix(shard_id: str) -> str:
    """Prefix to which a persister subscribes for one shard."""
    return f"odograph.packet.{shard_id}."


def device_of(topic: str) -> str | None:
    """The device whose packet topic this is; None when it is none, or the shard is not that device's."""
    match = _PACKET.fullmatch(topic)
    return match[2] if match and match[1] == shard(match[2]) else None


def receipt(device: str) -> str:
    """Topic on which a device hears its receipts."""
    return f"odograph.receipt.{device}"


def event(device: str) -> str:
    """Topic of what happens at a device: online, offline, asleep, awake, codes, lost ranges."""
    return f"{EVENT_PREFIX}{device}"


def device_procedure(device: str, name: str) -> str:
    """Procedure that the device itself answers."""
    return f"odograph.device.{device}.{name}"


def fleet_procedure(name: str) -> str:
    """Procedure that the cloud answers for the whole fleet."""
    return f"odograph.fleet.{name}"
