"""Who may do what at the router: one table, and the one function that reads it. Pure.

router/README.md shows the same table to people; a test holds the two together. What is not in the table is refused.

In a URI of the table, `{self}` is the peer's own id and `{own_shard}` the shard of that id; `{device}` is any device
id, `{shard}` any shard, `{name}` any one word. `match` is the only matching policy that the row allows.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from components.wire.topics import DEVICE_PROCEDURES, ID_PATTERN, shard

Action = Literal["publish", "subscribe", "call", "register"]
ACTIONS: Final[tuple[Action, ...]] = ("publish", "subscribe", "call", "register")
PEER_ROLES: Final = ("device", "persister", "viewer", "technician", "admin")
OPERATOR_ROLES: Final = ("viewer", "technician", "admin")


@dataclass(frozen=True, slots=True)
class Right:
    """One row: these roles may do this, at these URIs, with this matching policy."""

    roles: tuple[str, ...]
    action: Action
    uri: str
    match: Literal["exact", "prefix"] = "exact"


_CLEARING: Final = ("prepare_clear", "clear_dtcs")
_LOOKING: Final = tuple(name for name in DEVICE_PROCEDURES if name not in _CLEARING)

TABLE: Final = (
    Right(("device",), "publish", "odograph.packet.{own_shard}.{self}"),
    Right(("device",), "publish", "odograph.event.{self}"),
    Right(("device",), "subscribe", "odograph.receipt.{self}"),
    Right(("device",), "call", "odograph.fleet.bundle"),
    *(Right(("device",), "register", f"odograph.device.{{self}}.{name}") for name in DEVICE_PROCEDURES),
    Right(("persister",), "subscribe", "odograph.packet.{shard}.", "prefix"),
    Right(("persister",), "publish", "odograph.receipt.{device}"),
    Right(("persister",), "register", "odograph.fleet.{name}"),
    *(Right(OPERATOR_ROLES, "call", f"odograph.device.{{device}}.{name}") for name in _LOOKING),
    Right(OPERATOR_ROLES, "call", "odograph.fleet.{name}"),
    Right(OPERATOR_ROLES, "subscribe", "odograph.event.{device}"),
    Right(OPERATOR_ROLES, "subscribe", "odograph.event.", "prefix"),
    *(Right(("technician", "admin"), "call", f"odograph.device.{{device}}.{name}") for name in _CLEARING),
)


def allowed(role: str, authid: str, uri: str, action: str, options: Mapping[str, object]) -> bool:
    """Say whether a peer may do this.

    Args:
        role: As the router authenticated the peer.
        authid: Likewise.
        uri: Topic or procedure; for a subscription by prefix, the prefix.
        action: One of ACTIONS.
        options: Of the WAMP message. `match` must be the row's. Refused is whatever has `forward_for`, with which a
            peer would be announced under another's name (it is for links between routers, and there are none), or
            `retain`, with which the router would keep what is not for it to keep.
    """
    if options.get("forward_for") or options.get("retain"):
        return False
    match = options.get("match") or "exact"
    return any(
        right.action == action and role in right.roles and right.match == match and _is_at(right.uri, authid, uri)
        for right in TABLE
    )


def _is_at(form: str, authid: str, uri: str) -> bool:
    found = _pattern(form).fullmatch(uri)
    if found is None:
        return False
    mine = found.groupdict()
    return mine.get("self", authid) == authid and mine.get("own_shard") in {None, shard(authid)}


@cache
def _pattern(form: str) -> re.Pattern[str]:
    """The table's URI as a pattern; the peer's own id and shard are compared afterwards, so rows compile once."""
    meaning = {
        "{self}": f"(?P<self>{ID_PATTERN})",
        "{own_shard}": "(?P<own_shard>[0-9a-f]{2})",
        "{device}": ID_PATTERN,
        "{shard}": "[0-9a-f]{2}",
        "{name}": "[a-z][a-z0-9_]*",
    }
    return re.compile("".join(meaning.get(part) or re.escape(part) for part in re.split(r"(\{\w+\})", form)))
