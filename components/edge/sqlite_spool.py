"""The spool's SQLite files: opened, checked, and set aside when broken, for recording must go on. Rim."""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from components.sqlite_file import WriterLock, connect_reader, open_private, transaction
from components.wire.errors import OperatorError

VERSION = 1


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection, and the file that was set aside because it was corrupt (None when the file was sound)."""

    connection: sqlite3.Connection
    quarantined: Path | None


def open_writer(path: Path, schema: str) -> Opened:
    """Open or make a database for its one writer: WAL, every commit on the card before it returns.

    A corrupt file is renamed to `<name>.corrupt-<n>` and a new one made in its place.

    Raises:
        OperatorError: The file cannot be opened, or is of another version of odograph.
    """
    try:
        return Opened(_open(path, schema), None)
    except (OSError, sqlite3.OperationalError) as error:
        raise OperatorError(f"{path} cannot be opened", str(error)) from error
    except sqlite3.DatabaseError:
        aside = _set_aside(path)
        return Opened(_open(path, schema), aside)


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a file beside its writer or after it; nothing can be written through this. OperatorError when it cannot."""
    return _tolerant(connect_reader(path, VERSION))


def lock(directory: Path) -> WriterLock:
    """Take the spool for this process, until it ends or releases it; OperatorError when another process has it."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise OperatorError(f"{directory} cannot be used as spool", str(error)) from error
    return WriterLock(directory / "spool", "stop the agent that runs there, or give [spool] dir another")


def _open(path: Path, schema: str) -> sqlite3.Connection:
    connection = open_private(path)
    try:
        _prepare(_tolerant(connection), path, schema)
    except BaseException:
        connection.close()
        raise
    return connection


def _tolerant(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Let text come out whatever its bytes are: a flipped bit is for the row's checksum to tell, not for UTF-8."""
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, schema: str) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found not in {0, VERSION}:
        raise OperatorError(f"{path} has version {found}, this odograph writes {VERSION}", "update odograph")
    if found == 0:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        # Tells this file from the one that stood here before it, whose row numbers mean something else.
        connection.execute(f"PRAGMA application_id = {int.from_bytes(os.urandom(4), 'big', signed=True)}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("quick_check failed")
    if found == 0:
        with transaction(connection):
            for statement in schema.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")


def _set_aside(path: Path) -> Path:
    n = 1
    while (aside := path.with_name(f"{path.name}.corrupt-{n}")).exists():
        n += 1
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    path.rename(aside)
    return aside
