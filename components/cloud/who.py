"""Who there is, as shapes: devices, operators, persisters, invitations; and what an operator's limits mean. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Final, Literal, TypeGuard, get_args

from components.wire.errors import ConfigError
from components.wire.times import LAST_MS
from components.wire.topics import is_id

State = Literal["invited", "active", "suspended", "revoked"]
Role = Literal["viewer", "technician", "admin", "persister"]
OLD_KEY_MS: Final = 45 * 24 * 3600 * 1000
"""How long packets that a device signed with its key before are taken: three times the days that an edge keeps them."""
MAX_REFUSED: Final = 5
"""So many refused attempts with the right ticket lock an invitation."""

MAX_TEXT: Final = 4096
"""Characters of an account, a vehicle, a driver or notes: as many as the command line takes in one argument."""

_HEX: Final = re.compile(r"[0-9a-f]{64}")
_PRIME: Final = 2**255 - 19
_ORDER_8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_WEAK: Final = frozenset((0, 1, _PRIME - 1, _ORDER_8, _PRIME - _ORDER_8))
"""The y of edwards25519's points of small order: for such a key everybody can sign, and pyca finds it good."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device as the registry knows it; `account`, `vehicle`, `driver` and `notes` are "" where nothing was said.

    Attributes:
        pubkey: Ed25519 public key, 64 hex digits in lower case; it joins with it and signs packets with it. "" while
            it is invited.
        added_ms, changed_ms: ms UTC.
    """

    id: str
    pubkey: str
    state: State
    account: str
    vehicle: str
    driver: str
    notes: str
    added_ms: int
    changed_ms: int


@dataclass(frozen=True, slots=True)
class Principal:
    """An operator or a persister as the registry knows it; fields as in `Device`.

    Attributes:
        account: An operator reaches the devices of this account only; "" where there is no such limit.
        devices: An operator reaches these devices; with an account, these and those of the account. () where there is
            no such limit.
        expires_ms: From then on it is nobody, ms UTC; None: never.
    """

    id: str
    pubkey: str
    role: Role
    state: State
    account: str
    devices: tuple[str, ...]
    expires_ms: int | None
    added_ms: int
    changed_ms: int

    @property
    def limited(self) -> bool:
        """Whether there are devices that it does not reach."""
        return bool(self.account or self.devices)

    def reaches(self, device: str, account: str) -> bool:
        """Tell whether this operator reaches a device that is of `account` now.

        >>> vera = Principal("vera", "", "viewer", "active", "acme", ("car_one",), None, 0, 0)
        >>> vera.reaches("car_one", "other"), vera.reaches("car_two", "acme"), vera.reaches("car_two", "")
        (True, True, False)
        """
        return not self.limited or device in self.devices or (self.account != "" and account == self.account)

    def account_for(self, device: str) -> str | None:
        """Return of which account's time it hears of a device that it reaches; None: of all times.

        >>> vera = Principal("vera", "", "viewer", "active", "acme", ("car_one",), None, 0, 0)
        >>> vera.account_for("car_one"), vera.account_for("car_two")
        (None, 'acme')
        """
        return self.account if self.limited and device not in self.devices else None

    def admitted(self, now_ms: int) -> bool:
        """Tell whether it may join, and act: active, and not expired."""
        return self.state == "active" and (self.expires_ms is None or now_ms < self.expires_ms)


@dataclass(frozen=True, slots=True)
class Invitation:
    """A device's enrolment code as the registry keeps it: nothing of which the code could be made again.

    Attributes:
        ticket_sha256: Hex, of the ticket with which the device joins to enrol.
        proof_key: Ed25519 public key, 64 hex digits; only who has the code can sign for it.
        expires_ms: ms UTC.
        refused: How many attempts with the right ticket were refused.
        used_by: The device's public key that was enrolled with it; "" while it is unused.
    """

    device: str
    ticket_sha256: str
    proof_key: str
    expires_ms: int
    refused: int
    used_by: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What a session rests on; it must end when that does not hold any more.

    Attributes:
        role: As the router's permissions know it.
        key: What was proved: a public key, or the SHA-256 of a ticket.
        reach: The devices to which an operator is limited; None: no limit.
        expires_ms: ms UTC; None: never.
    """

    role: str
    key: str
    reach: frozenset[str] | None = None
    expires_ms: int | None = None

    def holds(self, now: "Standing | None") -> bool:
        """Tell whether a session that rests on this may go on, now that the registry says `now`.

        >>> before = Standing("viewer", "aa", frozenset({"car_one"}))
        >>> before.holds(Standing("viewer", "aa")), before.holds(Standing("viewer", "aa", frozenset()))
        (True, False)
        """
        if now is None or (now.role, now.key) != (self.role, self.key):
            return False
        return now.reach is None or (self.reach is not None and self.reach <= now.reach)


def is_pubkey(found: object) -> TypeGuard[str]:
    """Tell whether this is an Ed25519 public key as the registry keeps it: 64 hex digits, of no point of small order.

    Source: RFC 8032, 5.1.2: 255 bits of y, the least first, then one of x; its 5.1.7 refuses no such point.

    >>> is_pubkey("66" * 32), is_pubkey("00" * 32), is_pubkey("01" + "00" * 31)
    (True, False, False)
    """
    if not isinstance(found, str) or not _HEX.fullmatch(found):
        return False
    return int.from_bytes(bytes.fromhex(found), "little") % 2**255 % _PRIME not in _WEAK


def _is_text(found: object) -> bool:
    return isinstance(found, str) and len(found) <= MAX_TEXT and found.isprintable()


def _is_hex(found: object) -> bool:
    return isinstance(found, str) and _HEX.fullmatch(found) is not None


def _is_pubkey_or_nothing(found: object) -> bool:
    return found == "" or is_pubkey(found)


def _is_name(found: object) -> bool:
    return isinstance(found, str) and is_id(found)


def _is_time(found: object) -> bool:
    return type(found) is int and 0 <= found <= LAST_MS


_RULES: Final[Mapping[str, Callable[[object], bool]]] = {
    "id": _is_name,
    "device": _is_name,
    "pubkey": _is_pubkey_or_nothing,
    "proof_key": is_pubkey,
    "ticket_sha256": _is_hex,
    "used_by": _is_pubkey_or_nothing,
    "state": lambda found: found in get_args(State),
    "role": lambda found: found in get_args(Role),
    **dict.fromkeys(("account", "vehicle", "driver", "notes"), _is_text),
    "devices": lambda found: isinstance(found, tuple) and all(map(_is_name, found)),
    "added_ms": _is_time,
    "changed_ms": _is_time,
    "expires_ms": lambda found: found is None or _is_time(found),
    "refused": lambda found: type(found) is int and found >= 0,
}
"""What each field of these shapes may hold, by its name."""


def faults(one: Device | Principal | Invitation) -> list[str]:
    """Return the names of the fields that hold what odograph would not write there; its rows may come from elsewhere.

    >>> faults(Device("car_one", "", "active", "", "", "", "x" * 5000, 1, -1))
    ['notes', 'changed_ms', 'pubkey']
    """
    found = [field.name for field in fields(one) if not _RULES[field.name](getattr(one, field.name))]
    # Only who has not enrolled has no key.
    if not isinstance(one, Invitation) and one.state == "active" and one.pubkey == "":
        found.append("pubkey")
    return found


def why_not(invitation: Invitation | None, device: Device | None, now_ms: int, pubkey: str = "") -> str:
    """Say why a device cannot be enrolled by its invitation; "" when it can.

    Args:
        invitation, device: As the registry has them.
        now_ms: ms UTC.
        pubkey: The key to enrol; "" to ask whether the code opens anything at all.
    """
    if invitation is None or device is None:
        return "not_invited"
    if device.state not in {"invited", "active"}:
        return f"{device.state}_device"
    if now_ms >= invitation.expires_ms:
        return "code_expired"
    if invitation.refused >= MAX_REFUSED:
        return "code_locked"
    return "code_used" if invitation.used_by and pubkey and pubkey != invitation.used_by else ""


def check_pubkey(pubkey: str) -> str:
    """Return `pubkey` in lower case if it is one; ConfigError otherwise."""
    if not is_pubkey(pubkey.lower()):
        raise ConfigError("not a public key of 64 hex digits", "`odograph edge init` prints the one to give here")
    return pubkey.lower()


def difference(before: object, after: object, fields: Iterable[str]) -> dict[str, list[object]]:
    """Return what changed, by field, as [before, after]; a text that is longer than odograph writes it is cut."""
    pairs = {name: [getattr(before, name), getattr(after, name)] for name in fields}
    return {name: list(map(_cut, pair)) for name, pair in pairs.items() if pair[0] != pair[1]}


def _cut(value: object) -> object:
    return value[:MAX_TEXT] if isinstance(value, str) else value
