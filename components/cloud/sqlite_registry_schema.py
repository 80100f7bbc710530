"""registry.db as a file: its tables, how it is opened, how one of an earlier version becomes one of this. Rim (SQLite).

The tables have other names than those of version 1, which a persister of that version may still have open: it finds
none and answers `retry`, instead of taking a row that it does not understand for a poisonous packet.
"""

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Final

from components.cloud import sqlite_audit
from components.sqlite_file import connect_shared, transaction
from components.wire.errors import ConfigError, UnavailableError

VERSION: Final = 2
RESTORE: Final = "restore it from a copy"
BUSY_S: Final = 2.0
"""How long who opens it waits while another has a lock on it."""
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
_COLUMNS: Final = """
SELECT t.name, t.wr, t.strict, c.name, c.type, c."notnull", c.pk
FROM pragma_table_list AS t JOIN pragma_table_info(t.name) AS c
WHERE t.schema = 'main' AND t.name IN ('device', 'old_key', 'invitation', 'principal', 'audit')
"""
_TRIGGERS: Final = "SELECT tbl_name, name, sql FROM sqlite_schema WHERE type = 'trigger'"
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
    connection = connect_shared(path, write=True, busy_s=BUSY_S)
    _make(connection, at_ms, by)
    return connection


def opened(path: Path, *, write: bool, busy_s: float, at_ms: int, by: str) -> sqlite3.Connection:
    """Open an existing registry, read-only unless `write`; see Registry.open."""
    if not path.is_file():
        raise ConfigError(
            f"{path} {'is not a file' if path.exists() else 'does not exist'}",
            f"run: odograph init --home {path.parent}",
        )
    connection = None
    try:
        connection = connect_shared(path, write=write, busy_s=busy_s)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 1 and write:
            _migrate(connection, at_ms, by)
            version = VERSION
        strange = _strange(connection) if version == VERSION else set()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.OperationalError):
            raise UnavailableError(f"{path} cannot be read: {error}") from error
        raise ConfigError(f"{path} is not a registry", "restore it, or run: odograph init --home NEW") from error
    if version != VERSION:
        connection.close()
        message = f"{path} has registry version {version}, this odograph reads version {VERSION}"
        raise ConfigError(message, _remedy(path, version))
    if strange:
        connection.close()
        raise ConfigError(f"{path}: not as odograph makes it: {' '.join(sorted(strange))}", RESTORE)
    return connection


def _strange(db: sqlite3.Connection) -> set[str]:
    """Return the names of tables of another form, and of those with somebody's trigger."""
    (columns, triggers), (our_columns, our_triggers) = _form(db), _own_form()
    # Where one of ours is missing, the audit log's chain says what was done with it.
    return {str(row[0])[:40] for row in (columns ^ our_columns) | (triggers - our_triggers)}


def _form(db: sqlite3.Connection) -> tuple[set[tuple[object, ...]], set[tuple[object, ...]]]:
    """Return what counts of the tables' form: a row for each column, and one for each trigger, first the table."""
    return set(db.execute(_COLUMNS)), set(db.execute(_TRIGGERS))


@cache
def _own_form() -> tuple[set[tuple[object, ...]], set[tuple[object, ...]]]:
    with closing(sqlite3.connect(":memory:")) as db:
        for statement in TABLES:
            db.execute(statement)
        return _form(db)


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
