"""Who there is: devices, operators and persisters, with their public keys and states, in one SQLite file. Rim.

Written by the command line, and by a persister when a device enrols or changes its key; the router opens it read-only.
All read it afresh each time, so that whoever was just added is let in at once. It holds public keys, hashes and names,
never a private key or a code. Every change is in its audit log, in the same transaction. The journal is a rollback
journal, because a WAL needs a writable directory even for readers, and because there are several writers.
"""

import os
import pwd
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

from components.cloud import sqlite_audit, sqlite_registry_rows, sqlite_registry_schema
from components.cloud.refusals import Note
from components.cloud.sqlite_audit import AuditLog
from components.cloud.sqlite_registry_rows import Row, T
from components.cloud.sqlite_registry_schema import BUSY_S, RESTORE
from components.cloud.who import (
    MAX_REFUSED,
    MAX_TEXT,
    OLD_KEY_MS,
    Device,
    Invitation,
    Principal,
    Role,
    Standing,
    State,
    check_pubkey,
    difference,
    faults,
    why_not,
)
from components.sqlite_file import transaction
from components.wire.bundle import key_id
from components.wire.errors import ConfigError, RefusedError, UnavailableError
from components.wire.topics import check_id

_DAY_MS: Final = 24 * 3600 * 1000
_KEYS_A_DAY: Final = 10
_NOTES: Final = ("account", "vehicle", "driver", "notes")
_LIMITS: Final = ("role", "account", "devices", "expires_ms")
_FROM: Final[Mapping[State, tuple[State, ...]]] = {
    "suspended": ("active",),
    "active": ("suspended",),
}
"""Which states a device may come from when its state is set; from all to `revoked`; to be enrolled is not in here."""
_MEND: Final[Mapping[type[Row], str]] = {
    Device: f"write anew what is noted of it by `odograph device set`, or revoke it, or {RESTORE}",
    Principal: f"`odograph operator revoke`, or {RESTORE}",
    Invitation: "`odograph device invite` makes another",
}
"""What to do about a row that odograph would not write; until then it vouches for nobody."""
_DONE: Final[Mapping[State, str]] = {"suspended": "suspended", "active": "resumed", "revoked": "revoked"}


class Registry:
    """One connection to registry.db; `create` makes the file, `open` reads it or writes to it.

    The connection may be used from any one thread at a time (a Lane's).
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, by: str) -> None:
        self._path = path
        self._connection = connection
        self._by = by

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a new, empty registry; ConfigError when `path` is there already."""
        return cls(path, sqlite_registry_schema.made(path, _now_ms(), _user()), _user())

    @classmethod
    def open(cls, path: Path, *, write: bool = False, by: str = "", busy_s: float = BUSY_S) -> Self:
        """Open an existing registry, read-only unless `write`.

        Args:
            path: registry.db.
            write: One of an earlier version is then brought to this one.
            by: Who writes, for the audit log; the command line's user when it is not given.
            busy_s: How long to wait while another has a lock on it.

        Raises:
            ConfigError: There is none, or it is not of this version; the hint says what to do.
            UnavailableError: It cannot be read just now.
        """
        by = by or _user()
        return cls(path, sqlite_registry_schema.opened(path, write=write, busy_s=busy_s, at_ms=_now_ms(), by=by), by)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def audit(self) -> AuditLog:
        """The log of all changes; its head moves with every one of them."""
        return AuditLog(self._path, self._connection)

    def device(self, device_id: str) -> Device | None:
        """Return the device as it is now; None when there is none of that id."""
        return self._one(Device, device_id)

    def devices(self) -> list[Device]:
        """Return every device whose row is sound, by id; may be empty. `unsound` names the others."""
        return sorted(self._every(Device, lambda one: not faults(one)), key=lambda one: one.id)

    def unsound_devices(self) -> list[str]:
        """Say of each device's row that is unsound what is wrong and what to do."""
        return self._unsound(Device)

    def unsound_principals(self) -> list[str]:
        """Say the same of operators and persisters."""
        return self._unsound(Principal)

    def device_key(self, device_id: str, kid: str, now_ms: int) -> str | None:
        """Return the public key of that kid by which a device signed not long ago; None when it has none such.

        Args:
            device_id: Whose packet it is.
            kid: `device_kid` of the packet's header.
            now_ms: ms UTC.
        """
        query = "SELECT pubkey FROM old_key WHERE device = ? AND kid = ? AND until_ms > ?"
        with self._reading():
            row = self._connection.execute(query, (device_id, kid, now_ms)).fetchone()
        return check_pubkey(str(row[0])) if row else None

    def sender(self, device_id: str, kid: str) -> Device | None:
        """Return a device with the key by which its packet must be signed: its own, or the one before that `kid` names.

        Args:
            device_id, kid: `device` and `device_kid` of the packet's header.
        """
        one = self.device(device_id)
        before = self.device_key(device_id, kid, _now_ms()) if one is not None else None
        return replace(one, pubkey=before) if one is not None and before else one

    def invitation(self, device_id: str) -> Invitation | None:
        """Return a device's invitation, used or not; None when it was never invited."""
        return self._one(Invitation, device_id)

    def principal(self, principal_id: str) -> Principal | None:
        """Return the operator or persister as it is now; None when there is none of that id."""
        return self._one(Principal, principal_id)

    def principals(self) -> list[Principal]:
        """Return every operator and persister whose row is sound, by id; may be empty. `unsound` names the others."""
        return sorted(self._every(Principal, lambda one: not faults(one)), key=lambda one: one.id)

    def standing(self, name: str, now_ms: int) -> Standing | None:
        """Return on what a session of this device, operator or persister rests; None when it may not join."""
        device = self.device(name)
        if device is not None:
            return Standing("device", device.pubkey) if device.state == "active" else None
        one = self.principal(name)
        if one is None or not one.admitted(now_ms):
            return None
        reach = frozenset(one.devices) | self._of_account(one.account) if one.limited else None
        return Standing(one.role, one.pubkey, reach, one.expires_ms)

    def _of_account(self, account: str) -> set[str]:
        """Return the ids of an account's devices; "" is none that anybody could be limited to."""
        try:
            query = "SELECT id FROM device WHERE account = ? AND account <> ''"
            with self._reading():
                return {device_id for (device_id,) in self._connection.execute(query, (account,))}
        except ConfigError:
            # To look at each row by itself takes longer.
            return {one.id for one in self.devices() if one.account == account != ""}

    def enrolling(self, name: str, now_ms: int) -> Standing | None:
        """Return on what a session that enrols a device rests; None when there is no code for it that is good."""
        invitation = self.invitation(name)
        if invitation is None or why_not(invitation, self.device(name), now_ms):
            return None
        return Standing("enrolling", invitation.ticket_sha256, None, invitation.expires_ms)

    def add_device(
        self,
        device_id: str,
        pubkey: str,
        now_ms: int,
        *,
        account: str = "",
        vehicle: str = "",
        driver: str = "",
        notes: str = "",
    ) -> Device:
        """Add an active device and return it.

        Raises:
            ConfigError: The id is not valid or taken (by a device, an operator or a persister), or the key is no key;
                nothing was changed.
        """
        check_id(device_id, "device")
        key = check_pubkey(pubkey)
        one = Device(device_id, key, "active", account, vehicle, driver, notes, added_ms=now_ms, changed_ms=now_ms)
        with self._writing():
            self._refuse_taken(one.id)
            self._put(one)
            self._note(now_ms, "device.added", one.id, _told(one, "pubkey", *_NOTES))
        return one

    def invite_device(self, invitation: Invitation, now_ms: int, **notes: Any) -> Device:  # noqa: ANN401 - by field
        """Add an invited device, or give one that is there a code for another key; return it.

        An active one goes on with its key until the code is used; a revoked one is invited from now on.

        Args:
            invitation: The code's public half; one that the device had is void.
            now_ms: ms UTC.
            notes: Any of account, vehicle, driver, notes; what is not given stays.

        Raises:
            ConfigError: The id is not valid, or taken by an operator or a persister, or the device is suspended.
        """
        name = check_id(invitation.device, "device")
        with self._writing():
            before = self.device(name)
            if before is None:
                self._refuse_taken(name)
                before = Device(name, "", "invited", "", "", "", "", now_ms, now_ms)
            if before.state == "suspended":
                raise ConfigError(f"{name} is suspended", "resume it first, or revoke it")
            state: State = "invited" if before.state == "revoked" else before.state
            one = replace(before, state=state, changed_ms=now_ms, **notes)
            self._put(one)
            self._put(invitation)
            told = {"expires_ms": invitation.expires_ms, "state": state, **_told(one, *_NOTES)}
            self._note(now_ms, "device.invited", name, told | difference(before, one, ("state",)))
        return one

    def enrol_device(self, device_id: str, pubkey: str, now_ms: int) -> Device:
        """Use a device's invitation up for a public key whose proofs were checked, and return the active device.

        A key that the device had opens nothing any more, neither sessions nor packets. With the key that used the
        invitation up already, or an earlier one: the same again, as the answer may have been lost on its way.

        Raises:
            RefusedError: The code expired, is locked or was used; the device was shut out; or it had that key before.
        """
        with self._writing():
            invitation, one = self.invitation(device_id), self.device(device_id)
            why = why_not(invitation, one, now_ms, pubkey)
            if why or invitation is None or one is None:
                raise RefusedError(why, f"{device_id} cannot be enrolled: {why}")
            if not invitation.used_by:
                self._note(now_ms, "device.enrolled", device_id, {"pubkey": [one.pubkey, pubkey]})
                if one.state != "active" or one.pubkey != pubkey:
                    if self._had(one, check_pubkey(pubkey)):
                        raise RefusedError("key_had_before", f"{device_id} had this key before")
                    self._connection.execute("UPDATE old_key SET until_ms = 0 WHERE device = ?", (device_id,))
                    one = self._give_key(replace(one, state="active"), pubkey, 0, now_ms)
                self._put(replace(invitation, used_by=pubkey))
        return one

    def count_refusal(self, device_id: str) -> None:
        """Count a refused enrolment against the invitation."""
        with self._writing():
            invitation = self.invitation(device_id)
            if invitation is not None and invitation.refused < MAX_REFUSED:
                self._put(replace(invitation, refused=invitation.refused + 1))

    def note_refusal(self, at_ms: int, note: Note, count: int) -> None:
        """Note what was refused, and how often."""
        with self._writing():
            self._note(at_ms, note.what, note.whom, note.detail(count))

    def rekey_device(self, device_id: str, pubkey: str, now_ms: int) -> Device:
        """Give an active device another key; packets signed with the one before are taken for OLD_KEY_MS more.

        With the key that it has already, nothing changes. ConfigError when it is not active, had that key before, or
        changed its key ten times in a day: neither the registry nor its log may be filled by a device that goes on so.
        """
        check_pubkey(pubkey)
        with self._writing():
            one = self._known(device_id)
            if one.state != "active":
                raise ConfigError(f"{device_id} is {one.state}")
            if one.pubkey != pubkey:
                if self._had(one, pubkey):
                    raise ConfigError(f"{device_id} had this key before", "make a new one")
                query = "SELECT count(*) FROM old_key WHERE device = ? AND until_ms > ?"
                (changes,) = self._connection.execute(query, (device_id, now_ms + OLD_KEY_MS - _DAY_MS)).fetchone()
                if changes >= _KEYS_A_DAY:
                    raise ConfigError(f"{device_id} changed its key {changes} times in a day", "try again tomorrow")
                self._note(now_ms, "device.rekeyed", device_id, {"pubkey": [one.pubkey, pubkey]})
                one = self._give_key(one, pubkey, now_ms + OLD_KEY_MS, now_ms)
        return one

    def set_state(self, device_id: str, state: State, now_ms: int) -> Device:
        """Suspend, resume (`active`) or revoke a device and return it; in that state already, nothing changes.

        A revoked one comes back by an invitation only. One whose row is unsound can be revoked all the same.

        Raises:
            ConfigError: It is unknown, or cannot come there from where it is.
        """
        with self._writing():
            one = self._any(device_id) if state == "revoked" else self._known(device_id)
            if one.state != state:
                if state != "revoked" and one.state not in _FROM.get(state, ()):
                    raise ConfigError(f"{device_id} is {one.state}: it cannot be {_DONE.get(state, state)}")
                self._note(now_ms, f"device.{_DONE[state]}", device_id, {"state": [one.state, state]})
                one = replace(one, state=state, changed_ms=now_ms)
                self._put(one, ("state", "changed_ms"))
        return one

    def set_device(self, device_id: str, now_ms: int, **notes: Any) -> Device:  # noqa: ANN401 - by field
        """Change any of account, vehicle, driver and notes of a device and return it. ConfigError when unknown.

        What its row holds beside them may be unsound, and stays; what cannot be read is emptied.
        """
        with self._writing():
            before = self._any(device_id)
            one = replace(before, changed_ms=now_ms, **notes)
            if changed := difference(before, one, _NOTES):
                self._put(one, ("changed_ms", *notes))
                self._note(now_ms, "device.changed", device_id, changed)
        return one if changed else before

    def add_principal(
        self,
        principal_id: str,
        pubkey: str,
        role: Role,
        now_ms: int,
        *,
        account: str = "",
        devices: tuple[str, ...] = (),
        expires_ms: int | None = None,
    ) -> Principal:
        """Add an active operator or persister and return it; ConfigError as for `add_device`."""
        what = "persister" if role == "persister" else "operator"
        check_id(principal_id, what)
        key = check_pubkey(pubkey)
        one = Principal(principal_id, key, role, "active", account, _ids(devices), expires_ms, now_ms, now_ms)
        with self._writing():
            self._refuse_taken(one.id)
            self._put(one)
            self._note(now_ms, f"{what}.added", one.id, _told(one, "pubkey", *_LIMITS))
        return one

    def set_operator(self, operator_id: str, now_ms: int, **changes: Any) -> Principal:  # noqa: ANN401 - by field
        """Change role, account, devices, expires_ms or pubkey of an active operator, or revoke them (state).

        One whose row is unsound can be revoked all the same.

        Raises:
            ConfigError: There is no such operator, or they are revoked.
        """
        if "devices" in changes:
            changes["devices"] = _ids(changes["devices"])
        with self._writing():
            before = sqlite_registry_rows.find(self._connection, Principal, operator_id)
            if before is None or before.role == "persister":
                raise ConfigError(f"there is no operator {operator_id!r}", "`odograph operator list` shows them")
            if "state" not in changes:
                # Nothing less: a limit that cannot be read would be lifted.
                self.principal(operator_id)
            before = sqlite_registry_rows.without_unreadable(before)
            one = replace(before, changed_ms=now_ms, **changes)
            changed = difference(before, one, (*_LIMITS, "pubkey", "state"))
            if changed and before.state == "revoked":
                raise ConfigError(f"{operator_id} is revoked")
            if changed:
                done = {"pubkey": "rekeyed", "state": "revoked"}.get(next(iter(changed)), "changed")
                self._put(one, ("changed_ms", *changes))
                self._note(now_ms, f"operator.{done}", operator_id, changed)
        return one if changed else before

    def note_keys(self, kid: str, before: str, removed: Sequence[str], now_ms: int) -> None:
        """Note that the server's keys were rotated: to `kid`, from `before`, and which were removed for their age."""
        with self._writing():
            self._note(now_ms, "keys.rotated", kid, {"before": before, "removed": list(removed)})

    def _had(self, one: Device, pubkey: str) -> bool:
        """Tell whether a device has a key, or had it: none comes back."""
        query = "SELECT 1 FROM old_key WHERE device = ? AND pubkey = ?"
        return pubkey == one.pubkey or self._connection.execute(query, (one.id, pubkey)).fetchone() is not None

    def _give_key(self, one: Device, pubkey: str, until_ms: int, now_ms: int) -> Device:
        """Put a device with another key, and keep the one before, good for packets until then; return the device."""
        if one.pubkey:
            row = (one.id, key_id(bytes.fromhex(one.pubkey)), one.pubkey, until_ms)
            self._connection.execute("INSERT INTO old_key VALUES (?, ?, ?, ?)", row)
        one = replace(one, pubkey=pubkey, changed_ms=now_ms)
        self._put(one)
        return one

    def _one(self, shape: type[T], name: str) -> T | None:
        """Return the row of that name; ConfigError when it is unsound."""
        with self._reading():
            one = sqlite_registry_rows.find(self._connection, shape, name)
        if one is not None and faults(one):
            raise ConfigError(self._wrong(one), _MEND[shape])
        return one

    def _every(self, shape: type[T], wanted: Callable[[T], bool]) -> list[T]:
        with self._reading():
            return [one for one in sqlite_registry_rows.every(self._connection, shape) if wanted(one)]

    def _unsound(self, shape: type[T]) -> list[str]:
        return [f"{self._wrong(one)}: {_MEND[shape]}" for one in self._every(shape, lambda one: bool(faults(one)))]

    def _wrong(self, one: Row) -> str:
        return self._said(one, "is not as odograph writes it", sqlite_registry_rows.told_faults(one))

    def _said(self, one: Row, what: str, wrong: Iterable[str]) -> str:
        name = str(one.device if isinstance(one, Invitation) else one.id)[:40]
        return f"{self._path}: the row of {name!r} {what} ({', '.join(wrong)})"

    def _put(self, one: Row, changed: Sequence[str] = ()) -> None:
        """Write a row, or `changed` of it: then only these fields must be sound, so that a row can be mended."""
        if wrong := [name for name in faults(one) if not changed or name in changed]:
            hint = f"texts are printable and of at most {MAX_TEXT} characters, times of the years 1970 to 9999"
            raise ConfigError(self._said(one, "cannot be written", wrong), hint)
        sqlite_registry_rows.put(self._connection, one)

    def _note(self, at_ms: int, action: str, subject: str, detail: Mapping[str, object]) -> None:
        sqlite_audit.append(self._connection, at_ms, action, self._by, subject, detail)

    def _known(self, device_id: str) -> Device:
        self.device(device_id)
        return self._any(device_id)

    def _any(self, device_id: str) -> Device:
        """Return a device whose row may be unsound; what cannot be read of it is ""."""
        one = sqlite_registry_rows.find(self._connection, Device, device_id)
        if one is None:
            raise ConfigError(f"there is no device {device_id!r}", "`odograph device list` shows them")
        return sqlite_registry_rows.without_unreadable(one)

    def _refuse_taken(self, name: str) -> None:
        """Ids are one space: the router knows a peer by its id alone."""
        for table, what in (("device", "a device"), ("principal", "an operator or persister")):
            row = self._connection.execute(f"SELECT state FROM {table} WHERE id = ?", (name,)).fetchone()  # noqa: S608 - of two
            if row:
                raise ConfigError(f"there is {what} {name!r} already ({row[0]})", "choose another id")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DataError as error:
            raise ConfigError(f"{self._path}: a row is longer than odograph writes it", RESTORE) from error
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise UnavailableError(f"{self._path} cannot be read: {error}") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction that sees its own checks: the lock is taken before anything is read."""
        try:
            with transaction(self._connection):
                yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise UnavailableError(f"{self._path} cannot be written: {error}") from error


def _told(one: object, *names: str) -> dict[str, object]:
    """Return the fields that say something, for the audit log."""
    return {name: value for name in names if (value := getattr(one, name)) not in ("", (), None)}


def _ids(devices: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({check_id(one, "device") for one in devices}))


def _user() -> str:
    """Who runs the command line, by the system's word."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return f"cli:{name}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
