"""registry.db as a file: its tables, how it is opened, how one of an earlier version becomes one of this. Rim (SQLite).

The tables have other names than those of version 1, which a persister of that version may still have open: it finds
none and answers `retry`, instead of taking a row that it does not understand for a poisonous packet.
"""

import sqlite3
from pathlib import Path
from typing import Final

from components.cloud import sqlite_audit
from components.sqlite_file import transaction
from components.wire.errors import ConfigError, UnavailableError

VERSION: Final = 2
RESTORE: Final = "restore it from a copy"
_BUSY_TIMEOUT_S: Final = 2.0
_MAX_ROW: Final = 1024 * 1024
"""Bytes; of a longer row, which odograph never writes, nothing is read into memory."""
TABLES: Final = (
    """CREATE TABLE device (
        id TEXT PRIMARY KEY, pubkey TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('invited', 'active', 'suspended', 'revoked')),
        account TEXT NOT NULL, vehicle TEXT NOT NULL, driver TEXT NOT NULL, notes TEXT NOT NULL,
        added_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE old_key (
        device TEXT NOT NULL, kid TEXT NOT NULL, pubkey TEXT NOT NULL, until_ms INTEGER NOT NULL,
        PRIMARY KEY (device, kid)
    ) STRICT""",
    """CREATE TABLE invitation (
        device TEXT PRIMARY KEY, ticket_sha256 TEXT NOT NULL, proof_key TEXT NOT NULL, expires_ms INTEGER NOT NULL,
        refused INTEGER NOT NULL, used_by TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE principal (
        id TEXT PRIMARY KEY, pubkey TEXT NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('viewer', 'technician', 'admin', 'persister')),
        state TEXT NOT NULL CHECK (state IN ('active', 'revoked')),
        account TEXT NOT NULL, devices TEXT NOT NULL, expires_ms INTEGER,
        added_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL
    ) STRICT""",
    *sqlite_audit.TABLE,
    f"PRAGMA user_version = {VERSION}",
)
"""Statements that make them; `principal.devices` is ids with commas between."""
_FROM_1: Final = (
    "INSERT INTO device SELECT id, pubkey, state, account, vehicle, driver, '', added_ms, changed_ms FROM devices",
    "INSERT INTO principal SELECT id, pubkey, role, state, '', '', NULL, added_ms, changed_ms FROM principals",
    "DROP TABLE devices",
    "DROP TABLE principals",
)


def made(path: Path, at_ms: int, by: str) -> sqlite3.Connection:
    """Make a new, empty registry and open it; ConfigError when `path` is there already."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        raise ConfigError(f"{path} is there already") from None
    connection = _connect(path, "rw")
    _make(connection, at_ms, by)
    return connection


def opened(path: Path, *, write: bool, at_ms: int, by: str) -> sqlite3.Connection:
    """Open an existing registry, read-only unless `write`; see Registry.open."""
    if not path.is_file():
        raise ConfigError(
            f"{path} {'is not a file' if path.exists() else 'does not exist'}",
            f"run: odograph init --home {path.parent}",
        )
    connection = None
    try:
        connection = _connect(path, "rw" if write else "ro")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 1 and write:
            _migrate(connection, at_ms, by)
            version = VERSION
        missing = _missing(connection)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.OperationalError):
            raise UnavailableError(f"{path} cannot be read: {error}") from error
        raise ConfigError(f"{path} is not a registry", "restore it, or run: odograph init --home NEW") from error
    if version != VERSION or missing:
        connection.close()
        message = f"{path} has registry version {version}, this odograph reads version {VERSION}"
        if version != VERSION:
            raise ConfigError(message, _remedy(path, version))
        raise ConfigError(f"{path} has no table {' '.join(missing)}", RESTORE)
    return connection


def _missing(db: sqlite3.Connection) -> list[str]:
    """Return the names of the tables that should be there and are not."""
    there = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    return [name for name in ("device", "old_key", "invitation", "principal", "audit") if name not in there]


def _make(db: sqlite3.Connection, at_ms: int, by: str) -> None:
    """Make the tables in a new file."""
    with transaction(db):
        for statement in TABLES:
            db.execute(statement)
        sqlite_audit.append(db, at_ms, "registry.made", by, "registry", {"version": VERSION})


def _migrate(db: sqlite3.Connection, at_ms: int, by: str) -> None:
    """Bring a registry of version 1 to this version, whole or not at all; one of this version stays as it is."""
    with transaction(db):
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if found == 1:
            for statement in (*TABLES, *_FROM_1):
                db.execute(statement)
            sqlite_audit.append(db, at_ms, "registry.migrated", by, "registry", {"from": found, "to": VERSION})


def _remedy(path: Path, version: int) -> str:
    if version == 1:
        return f"run, as its owner: odograph device list --home {path.parent}"
    return "install the odograph that made it" if version else "run: odograph init --home NEW"


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_ROW)
    return connection
