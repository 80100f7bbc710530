"""registry.db's tables, and how a registry of an earlier version becomes one of this. Rim (SQLite).

The tables have other names than those of version 1, which a persister of that version may still have open: it finds
none and answers `retry`, instead of taking a row that it does not understand for a poisonous packet.
"""

import sqlite3
from typing import Final

from components.cloud import sqlite_audit
from components.sqlite_file import transaction

VERSION: Final = 2
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


def missing(db: sqlite3.Connection) -> list[str]:
    """Return the names of the tables that should be there and are not."""
    there = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    return [name for name in ("device", "old_key", "invitation", "principal", "audit") if name not in there]


def make(db: sqlite3.Connection, at_ms: int, by: str) -> None:
    """Make the tables in a new file."""
    with transaction(db):
        for statement in TABLES:
            db.execute(statement)
        sqlite_audit.append(db, at_ms, "registry.made", by, "registry", {"version": VERSION})


def migrate(db: sqlite3.Connection, at_ms: int, by: str) -> None:
    """Bring a registry of version 1 to this version, whole or not at all; one of this version stays as it is."""
    with transaction(db):
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if found == 1:
            for statement in (*TABLES, *_FROM_1):
                db.execute(statement)
            sqlite_audit.append(db, at_ms, "registry.migrated", by, "registry", {"from": found, "to": VERSION})
