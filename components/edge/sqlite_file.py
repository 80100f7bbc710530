"""One SQLite file with one writer: opened, checked, locked, set aside when it is broken. Rim."""

import fcntl
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from components.wire.errors import OperatorError

_BUSY_S = 5.0


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection, and the file that was set aside because it was corrupt (None when the file was sound)."""

    connection: sqlite3.Connection
    quarantined: Path | None


def open_writer(path: Path, schema: str, version: int) -> Opened:
    """Open or make a database for its one writer: WAL, every commit on the card before it returns.

    A corrupt file is renamed to `<name>.corrupt-<n>` and a new one made in its place: recording goes on.

    Raises:
        OperatorError: The directory cannot be written, or the file is of another version of odograph.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Opened(_open(path, schema, version), None)
    except sqlite3.OperationalError as error:
        raise OperatorError(f"{path} cannot be opened", str(error)) from error
    except sqlite3.DatabaseError:
        aside = _set_aside(path)
        return Opened(_open(path, schema, version), aside)
    except OSError as error:
        raise OperatorError(f"{path.parent} cannot be used as spool", str(error)) from error


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a database that another connection writes; nothing can be written through this one."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_BUSY_S, check_same_thread=False)
    connection.execute("PRAGMA query_only = 1")
    return connection


def lock(directory: Path) -> int:
    """Take the spool for this process, until it ends; return the lock's file descriptor.

    Raises:
        OperatorError: Another process has it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OperatorError(f"{directory} is in use by another agent", "stop it, or give [spool] dir another") from None
    return descriptor


def _open(path: Path, schema: str, version: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path, schema, version)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, schema: str, version: int) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found not in {0, version}:
        raise OperatorError(f"{path} has version {found}, this odograph writes {version}", "update odograph")
    if found == 0:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        # Tells this file from the one that stood here before it, whose row numbers mean something else.
        connection.execute(f"PRAGMA application_id = {int.from_bytes(os.urandom(4), 'big', signed=True)}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("quick_check failed")
    if found == 0:
        connection.executescript(f"BEGIN; {schema}; PRAGMA user_version = {version}; COMMIT;")


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
