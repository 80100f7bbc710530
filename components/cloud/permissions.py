"""Who may do what at the router: one table, and the one function that reads it. Pure.

router/README.md shows the same table to people; a test holds the two together. What is not in the table is refused.

In a URI of the table, `{self}` is the peer's own id and `{own_shard}` the shard of that id; `{device}` is any device
id, `{shard}` any shard, `{name}` any one word. `match` is the only matching policy that the row allows. `limited` says
what becomes of a row for an operator who is limited to some devices: `yes`, and whoever answers tells of those devices
only; `reached`, where the URI's device is one of those; `no`.
"""

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from components.wire.topics import DEVICE_PROCEDURES, ENROL, ID_PATTERN, REKEY, shard

Action = Literal["publish", "subscribe", "call", "register"]
ACTIONS: Final[tuple[Action, ...]] = ("publish", "subscribe", "call", "register")
PEER_ROLES: Final = ("device", "enrolling", "persister", "viewer", "technician", "admin")
OPERATOR_ROLES: Final = ("viewer", "technician", "admin")


@dataclass(frozen=True, slots=True)
class Right:
    """One row: these roles may do this, at these URIs, with this matching policy."""

    roles: tuple[str, ...]
    action: Action
    uri: str
    match: Literal["exact", "prefix"] = "exact"
    limited: Literal["", "yes", "reached", "no"] = ""


_CLEARING: Final = ("prepare_clear", "clear_dtcs")
_LOOKING: Final = tuple(name for name in DEVICE_PROCEDURES if name not in _CLEARING)

TABLE: Final = (
    Right(("device",), "publish", "odograph.packet.{own_shard}.{self}"),
    Right(("device",), "publish", "odograph.event.{self}"),
    Right(("device",), "subscribe", "odograph.receipt.{self}"),
    Right(("device",), "call", "odograph.fleet.bundle"),
    *(Right(("device",), "register", f"odograph.device.{{self}}.{name}") for name in DEVICE_PROCEDURES),
    Right(("device",), "call", REKEY),
    Right(("enrolling",), "call", ENROL),
    Right(("persister",), "subscribe", "odograph.packet.{shard}.", "prefix"),
    Right(("persister",), "publish", "odograph.receipt.{device}"),
    Right(("persister",), "register", "odograph.fleet.{name}"),
    Right(("persister",), "register", ENROL),
    Right(("persister",), "register", REKEY),
    *(Right(OPERATOR_ROLES, "call", f"odograph.device.{{device}}.{name}", limited="reached") for name in _LOOKING),
    Right(OPERATOR_ROLES, "call", "odograph.fleet.{name}", limited="yes"),
    Right(OPERATOR_ROLES, "subscribe", "odograph.event.{device}", limited="reached"),
    Right(OPERATOR_ROLES, "subscribe", "odograph.event.", "prefix", limited="no"),
    *(
        Right(("technician", "admin"), "call", f"odograph.device.{{device}}.{name}", limited="reached")
        for name in _CLEARING
    ),
)


def allowed(
    role: str,
    authid: str,
    uri: str,
    action: str,
    options: Mapping[str, object],
    reach: Container[str] | None = None,
) -> bool:
    """Say whether a peer may do this.

    Args:
        role: As the router authenticated the peer.
        authid: Likewise.
        uri: Topic or procedure; for a subscription by prefix, the prefix.
        action: One of ACTIONS.
        options: Of the WAMP message. `match` must be the row's. Refused is whatever has `forward_for`, with which a
            peer would be announced under another's name (it is for links between routers, and there are none), or
            `retain`, with which the router would keep what is not for it to keep.
        reach: The devices to which an operator is limited; None for everybody else.
    """
    if options.get("forward_for") or options.get("retain"):
        return False
    match = options.get("match") or "exact"
    return any(
        right.action == action and role in right.roles and right.match == match and _is_at(right, authid, uri, reach)
        for right in TABLE
    )


def _is_at(right: Right, authid: str, uri: str, reach: Container[str] | None) -> bool:
    found = _pattern(right.uri).fullmatch(uri)
    if found is None:
        return False
    named = found.groupdict()
    mine = named.get("self", authid) == authid and named.get("own_shard") in {None, shard(authid)}
    if reach is None:
        return mine
    return mine and (right.limited == "yes" or (right.limited == "reached" and named["device"] in reach))


@cache
def _pattern(form: str) -> re.Pattern[str]:
    """The table's URI as a pattern; what it names is compared afterwards, so rows compile once."""
    meaning = {
        "{self}": f"(?P<self>{ID_PATTERN})",
        "{own_shard}": "(?P<own_shard>[0-9a-f]{2})",
        "{device}": f"(?P<device>{ID_PATTERN})",
        "{shard}": "[0-9a-f]{2}",
        "{name}": "[a-z][a-z0-9_]*",
    }
    return re.compile("".join(meaning.get(part) or re.escape(part) for part in re.split(r"(\{\w+\})", form)))
