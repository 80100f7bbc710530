"""How both ends open a SQLite file: one writer under a lock, readers beside it. Rim.

Not a store: archive, feed, readings and outbox are. One writer a file, because SQLite before 3.51.3 can corrupt a
WAL that two connections write and check-point (facts.md), and because two processes would fight for it anyway.
"""

import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from components.wire.errors import OperatorError, UnavailableError

BUSY_S = 10.0
"""How long a statement waits for a lock before it is an UnavailableError."""

MAX_ROW = 1024 * 1024
"""Bytes, of a row of a file of several writers."""


class WriterLock:
    """The right to write one file, held by this process until `release()` or its death, however it dies.

    It is a lock file beside the database and not on it: SQLite's own locks live there, and a process that closes any
    descriptor of a file loses all its POSIX locks on that file.

    Args:
        path: The file, or what stands for several; the lock is `<path>.lock`.
        hint: What to do when another process has it.

    Raises:
        OperatorError: Another process has it, or its directory cannot be written.
    """

    def __init__(self, path: Path, hint: str) -> None:
        self._path = path.with_name(path.name + ".lock")
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OperatorError(
                f"{path} cannot be written ({error.strerror})", "make its directory and let this user write there"
            ) from error
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise OperatorError(f"{self._path} is no file", "remove it")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            process = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            message = f"{path} is in use by another process ({process or 'unknown'})"
            raise OperatorError(message, hint) from error
        # The number is for the message above only; the lock is what counts, and a full card has that, too.
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give it back; again does nothing. The lock file stays: removed, two processes could lock two of one name."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_private(path: Path) -> sqlite3.Connection:
    """Open a file, or make it, readable by its owner only: it tells where people were.

    The connection begins no transaction by itself, and may move between threads, one at a time. OSError or
    sqlite3.Error when it cannot be.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)


def connect_writer(path: Path, schema: str, version: int, hint: str) -> tuple[sqlite3.Connection, WriterLock]:
    """Open a file as its one writer, and make it and its tables where it is new; commits survive a power cut.

    Args:
        path: The file; its directory exists.
        schema: SQL that makes the tables, statements separated by semicolons.
        version: Of that schema; kept in the file.
        hint: What to do when another process writes it.

    Returns:
        Also the lock, to be released when the connection is closed.

    Raises:
        OperatorError: It cannot be opened, is no SQLite file, or holds something else or another version.
    """
    lock = WriterLock(path, hint)
    try:
        return _connect_writer(path, schema, version), lock
    except BaseException:
        lock.release()
        raise


def _connect_writer(path: Path, schema: str, version: int) -> sqlite3.Connection:
    try:
        db = open_private(path)
    except (OSError, sqlite3.Error) as error:
        raise OperatorError(f"{path} cannot be opened ({error})", "check the path and its rights") from error
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        _check_version(db, path, version, may_be_new=True)
        with transaction(db):
            for statement in schema.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {version}")
    except sqlite3.Error as error:
        db.close()
        raise OperatorError(f"{path} is not usable ({error})", "check the disk, or name another file") from error
    except OperatorError:
        db.close()
        raise
    return db


def connect_reader(path: Path, version: int) -> sqlite3.Connection:
    """Open a file for reading only, beside a writer or after it.

    Raises:
        OperatorError: There is no such file, it may not be read, or it is something else.
    """
    if not path.is_file():
        raise OperatorError(f"there is no {path}", "check the path; a persister makes the file when it starts")
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    try:
        db = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _check_version(db, path, version, may_be_new=False)
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        raise OperatorError(
            f"{path} cannot be read ({error})",
            "read it as the user who writes it, in a directory which that user can write",
        ) from error
    return db


def connect_shared(path: Path, *, write: bool, busy_s: float) -> sqlite3.Connection:
    """Open a file of several writers, who wait for each other's locks for so long; it has no WAL.

    What a writer left half written when it was killed is put back, where this process may write. Text that is not UTF-8
    comes as bytes. Reading or writing what is longer than MAX_ROW is a sqlite3.DataError, and nothing of it comes into
    memory. sqlite3.Error when it cannot be opened.
    """
    uri = f"{path.absolute().as_uri()}?mode={'rw' if write else 'ro'}"
    db = sqlite3.connect(uri, uri=True, timeout=busy_s, isolation_level=None, check_same_thread=False)
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW)
    db.text_factory = _text
    try:
        db.execute("PRAGMA schema_version")
    except sqlite3.Error as error:
        db.close()
        if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
        if write:
            raise sqlite3.OperationalError("a writer was killed half way: its owner must open it once") from error
        connect_shared(path, write=True, busy_s=busy_s).close()
        return connect_shared(path, write=False, busy_s=busy_s)
    return db


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _check_version(db: sqlite3.Connection, path: Path, version: int, *, may_be_new: bool) -> None:
    (found,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if found == version or (may_be_new and found == 0 and tables == 0):
        return
    raise OperatorError(
        f"{path} holds something else (schema {found}, wanted {version})", "name another file for this store"
    )


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Run the block as one transaction: all of it is durable after it, or nothing of it is there."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # Some failures (a full disk) have rolled back already; what counts is the error that led here.
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


@contextmanager
def unavailable(path: Path) -> Iterator[None]:
    """Turn what SQLite raises in the block into UnavailableError: a full disk, a lost one, a lock that stayed."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter where a message quotes a corrupt file
        raise UnavailableError(f"{path}: {error}") from error
