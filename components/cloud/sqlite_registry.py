"""Who there is: devices, operators and persisters, with their public keys and states, in one SQLite file. Rim.

Written by the command line only; the router's authenticator and the persisters open it read-only and read afresh each
time, so that a device which was just added is let in at once. It holds public keys and names, never a private key.
The journal is a rollback journal, because a WAL needs a writable directory even for readers.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, get_args

from components.sqlite_file import transaction
from components.wire.errors import ConfigError, UnavailableError
from components.wire.topics import check_id

VERSION: Final = 1
State = Literal["active", "revoked"]
Role = Literal["viewer", "technician", "admin", "persister"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

_PUBKEY: Final = re.compile(r"[0-9a-f]{64}")
_BUSY_TIMEOUT_S: Final = 2.0
_SCHEMA: Final = f"""
CREATE TABLE devices (
    id TEXT PRIMARY KEY, pubkey TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN ('active', 'revoked')),
    account TEXT NOT NULL, vehicle TEXT NOT NULL, driver TEXT NOT NULL,
    added_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE principals (
    id TEXT PRIMARY KEY, pubkey TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'technician', 'admin', 'persister')),
    state TEXT NOT NULL CHECK (state IN ('active', 'revoked')),
    added_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL
) STRICT;
PRAGMA user_version = {VERSION};
"""


@dataclass(frozen=True, slots=True)
class Device:
    """A device as the registry knows it; `account`, `vehicle` and `driver` are "" where nothing was said.

    Attributes:
        pubkey: Ed25519 public key, 64 hex digits in lower case; it joins with it and signs packets with it.
        added_ms, changed_ms: ms UTC.
    """

    id: str
    pubkey: str
    state: State
    account: str
    vehicle: str
    driver: str
    added_ms: int
    changed_ms: int


@dataclass(frozen=True, slots=True)
class Principal:
    """An operator or a persister as the registry knows it; fields as in `Device`."""

    id: str
    pubkey: str
    role: Role
    state: State
    added_ms: int
    changed_ms: int


def check_pubkey(pubkey: str) -> str:
    """Return `pubkey` in lower case if it is 64 hex digits; ConfigError otherwise."""
    if not _PUBKEY.fullmatch(pubkey.lower()):
        raise ConfigError("public key is not 64 hex digits", "`odograph edge init` prints the one to give here")
    return pubkey.lower()


class Registry:
    """One connection to registry.db; `create` makes the file, `open` reads it or writes to it.

    The connection may be used from any one thread at a time (a Lane's).
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a new, empty registry; ConfigError when `path` is there already."""
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            raise ConfigError(f"{path} is there already") from None
        connection = _connect(path, "rw")
        connection.executescript(_SCHEMA)
        return cls(path, connection)

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> Self:
        """Open an existing registry, read-only unless `write`.

        Raises:
            ConfigError: There is none, or it is not of this version; the hint says what to do.
            UnavailableError: It cannot be read just now.
        """
        if not path.is_file():
            raise ConfigError(f"{path} does not exist", f"run: odograph init --home {path.parent}")
        connection = None
        try:
            connection = _connect(path, "rw" if write else "ro")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.OperationalError):
                raise UnavailableError(f"{path} cannot be read: {error}") from error
            raise ConfigError(f"{path} is not a registry", "restore it, or run: odograph init --home NEW") from error
        if version != VERSION:
            connection.close()
            hint = "install the odograph that made it" if version else "run: odograph init --home NEW"
            raise ConfigError(f"{path} has registry version {version}, this odograph reads version {VERSION}", hint)
        return cls(path, connection)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def device(self, device_id: str) -> Device | None:
        """Return the device as it is now; None when there is none of that id."""
        with self._reading():
            row = self._connection.execute("SELECT * FROM devices WHERE id = ?", (device_id,)).fetchone()
        return Device(*row) if row else None

    def devices(self) -> list[Device]:
        """Return every device, by id; may be empty."""
        with self._reading():
            return [Device(*row) for row in self._connection.execute("SELECT * FROM devices ORDER BY id")]

    def principal(self, principal_id: str) -> Principal | None:
        """Return the operator or persister as it is now; None when there is none of that id."""
        with self._reading():
            row = self._connection.execute("SELECT * FROM principals WHERE id = ?", (principal_id,)).fetchone()
        return Principal(*row) if row else None

    def principals(self) -> list[Principal]:
        """Return every operator and persister, by id; may be empty."""
        with self._reading():
            return [Principal(*row) for row in self._connection.execute("SELECT * FROM principals ORDER BY id")]

    def add_device(
        self, device_id: str, pubkey: str, now_ms: int, *, account: str = "", vehicle: str = "", driver: str = ""
    ) -> Device:
        """Add an active device and return it.

        Raises:
            ConfigError: The id is not valid or taken (by a device, an operator or a persister), or the key is no key;
                nothing was changed.
        """
        one = Device(
            check_id(device_id, "device"), check_pubkey(pubkey), "active", account, vehicle, driver, now_ms, now_ms
        )
        with self._writing():
            self._refuse_taken(one.id)
            row = (one.id, one.pubkey, one.state, account, vehicle, driver, now_ms, now_ms)
            self._connection.execute("INSERT INTO devices VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        return one

    def revoke_device(self, device_id: str, now_ms: int) -> Device:
        """Set a device's state to revoked and return it; revoking again changes nothing. ConfigError when unknown."""
        with self._writing():
            self._connection.execute(
                "UPDATE devices SET state = 'revoked', changed_ms = ? WHERE id = ? AND state <> 'revoked'",
                (now_ms, device_id),
            )
        one = self.device(device_id)
        if one is None:
            raise ConfigError(f"there is no device {device_id!r}", "`odograph device list` shows them")
        return one

    def add_principal(self, principal_id: str, pubkey: str, role: Role, now_ms: int) -> Principal:
        """Add an active operator or persister and return it; ConfigError as for `add_device`."""
        what = "persister" if role == "persister" else "operator"
        one = Principal(check_id(principal_id, what), check_pubkey(pubkey), role, "active", now_ms, now_ms)
        with self._writing():
            self._refuse_taken(one.id)
            row = (one.id, one.pubkey, one.role, one.state, now_ms, now_ms)
            self._connection.execute("INSERT INTO principals VALUES (?, ?, ?, ?, ?, ?)", row)
        return one

    def _refuse_taken(self, name: str) -> None:
        """Ids are one space: the router knows a peer by its id alone."""
        for table, what in (("devices", "a device"), ("principals", "an operator or persister")):
            row = self._connection.execute(f"SELECT state FROM {table} WHERE id = ?", (name,)).fetchone()  # noqa: S608
            if row:
                raise ConfigError(f"there is {what} {name!r} already ({row[0]})", "choose another id")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise UnavailableError(f"{self._path} cannot be read: {error}") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction that sees its own checks: the lock is taken before anything is read."""
        try:
            with transaction(self._connection):
                yield
        except sqlite3.Error as error:
            raise UnavailableError(f"{self._path} cannot be written: {error}") from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
