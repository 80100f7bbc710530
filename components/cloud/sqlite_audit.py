"""An audit log: a table that only grows, each entry holding the SHA-256 of the one before. Rim (SQLite).

One chain a file, one kind of writer a file: registry.db has the changes of the registry, each in the transaction that
makes it, so that neither is there without the other; router/audit.db beside it has what the router refused and saw.

What `verify` finds: an entry that was changed, removed or put between; entries removed at the end, as SQLite counts
on. What it cannot find by itself: a chain that someone who may write the file made anew from some entry on. For that,
note the head that it prints, where that someone cannot write, and give it to the next `verify`.
"""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

from components.sqlite_file import connect_shared, transaction, unavailable
from components.wire.errors import ConfigError, OperatorError, RefusedError
from components.wire.times import LAST_MS

NOTHING_BEFORE: Final = "0" * 64
TABLE: Final = (
    """CREATE TABLE audit (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, action TEXT NOT NULL, by TEXT NOT NULL,
        subject TEXT NOT NULL, detail TEXT NOT NULL, hash TEXT NOT NULL
    ) STRICT""",
    "CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'only grows'); END",
    "CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'only grows'); END",
)
"""Statements that make the table."""
_TYPES: Final = (int, int, str, str, str, str, str)
_WRITABLE: Final = "let this user write it, and in its directory"
_PAGE: Final = (
    "SELECT seq, at_ms, action, by, subject, detail, hash FROM audit WHERE seq >= ? AND at_ms >= ? ORDER BY seq LIMIT ?"
)
_PAGE_ROWS: Final = 1000
_LEAST: Final = -(2**63)
_BUSY_S: Final = 2.0
_VERSION: Final = 1
_LAST_SEQ: Final = 2**53


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.

    Attributes:
        seq: From 1, without gaps.
        at_ms: ms UTC, by the writer's clock.
        action: What was done: `device.revoked`, `join.refused`.
        by: Who did it: an id, or `cli:<user>` for the command line.
        subject: Whose state it is about.
        detail: More, as a JSON object.
        hash: SHA-256 of the entry and the hash before, hex.
    """

    seq: int
    at_ms: int
    action: str
    by: str
    subject: str
    detail: Mapping[str, object]
    hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry's number and hash; 0 and NOTHING_BEFORE in an empty log."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


class BrokenChainError(RefusedError):
    """A log is not as it was written; `seq` is the first entry that is wrong or missing."""

    def __init__(self, seq: int, message: str) -> None:
        super().__init__("audit_broken", f"entry {seq}: {message}")
        self.seq = seq


def append(
    db: sqlite3.Connection, at_ms: int, action: str, by: str, subject: str, detail: Mapping[str, object]
) -> None:
    """Add an entry, in the caller's transaction."""
    last = head(db)
    # The counter and not the last row: a log whose end was cut must keep the gap.
    seq = max(last.seq, _counted(db)) + 1
    if seq > _LAST_SEQ:
        raise BrokenChainError(seq, "can have no number: somebody else wrote to this log")
    entry = (seq, at_ms, action, by, subject, _json(detail))
    db.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?)", (*entry, _hash(last.hash, *entry)))


def entries(db: sqlite3.Connection, since_ms: int = _LEAST) -> Iterator[Entry]:
    """Yield every entry, or those from a time on, oldest first; BrokenChainError where one cannot be read."""
    for seq, at_ms, action, by, subject, detail, hash_ in _rows(db, since_ms):
        try:
            found = json.loads(detail)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not 0 <= at_ms <= LAST_MS:
            raise BrokenChainError(seq, "was changed: its detail is no JSON object, or its time none")
        yield Entry(seq, at_ms, action, by, subject, found, hash_)


def head(db: sqlite3.Connection) -> Head:
    """Return the log's last entry."""
    row = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    return Head(*row) if row else Head(0, NOTHING_BEFORE)


def verify(db: sqlite3.Connection, expected: Head | None = None) -> Head:
    """Walk the whole chain and return its head.

    Args:
        expected: A head that was noted earlier; it must be in the chain.

    Raises:
        BrokenChainError: The log was changed; at the first entry where that shows.
    """
    last = Head(0, NOTHING_BEFORE)
    noted = expected is None or expected.seq == 0
    for seq, *fields, hash_ in _rows(db, _LEAST):
        if seq != last.seq + 1:
            raise BrokenChainError(last.seq + 1, "is missing")
        if hash_ != _hash(last.hash, seq, *fields):
            raise BrokenChainError(seq, "was changed, or one before it was")
        last = Head(seq, hash_)
        if expected is not None and expected.seq == seq:
            if expected.hash != hash_:
                raise BrokenChainError(seq, "is another one than was noted: the chain was made anew")
            noted = True
    if _counted(db) > last.seq or not noted:
        raise BrokenChainError(last.seq + 1, "is missing: the log's end was cut")
    return last


class AuditLog:
    """The log in a file that is open: `open` is for one that holds a log and nothing else. One thread at a time."""

    def __init__(self, path: Path, db: sqlite3.Connection, busy_s: float = _BUSY_S) -> None:
        self._path = path
        self._db = db
        self._busy_s = busy_s
        self._gone = False

    @classmethod
    def open(cls, path: Path, *, write: bool = False, busy_s: float = _BUSY_S) -> Self:
        """Open a log; with `write`, make it where there is none, for its owner only.

        Args:
            path: The file.
            write: Whether entries will be added.
            busy_s: How long to wait, once it is open, while another holds a lock on it.

        Raises:
            ConfigError: It is not a log, or there is none to read.
            OperatorError: It cannot be opened or made.
        """
        return cls(path, _opened(path, write=write, busy_s=busy_s), busy_s)

    def append(self, at_ms: int, action: str, by: str, subject: str, detail: Mapping[str, object]) -> None:
        """Add an entry; durable when it returns. A log that somebody removed is begun anew.

        Raises:
            UnavailableError: It cannot be written.
            BrokenChainError: Somebody else wrote to it, so that no number is left.
            OperatorError, ConfigError: It was removed and cannot be begun anew; the next call tries again.
        """
        self._gone = self._gone or not self._path.exists()
        if self._gone:
            self._db.close()
            self._db = _opened(self._path, write=True, busy_s=self._busy_s)
            self._gone = False
        with unavailable(self._path), transaction(self._db):
            append(self._db, at_ms, action, by, subject, detail)

    def entries(self) -> list[Entry]:
        """Return every entry, oldest first; UnavailableError when it cannot be read."""
        with unavailable(self._path):
            return list(entries(self._db))

    def since(self, at_ms: int) -> list[Entry]:
        """Return the entries from that time on, oldest first; UnavailableError when it cannot be read."""
        with unavailable(self._path):
            return list(entries(self._db, at_ms))

    def head(self) -> Head:
        """Return the log's last entry; UnavailableError when it cannot be read."""
        with unavailable(self._path):
            return head(self._db)

    def subjects_since(self, head: Head) -> set[str] | None:
        """Return whom the entries after `head` are about; None when that is no entry, or one of them too long."""
        with unavailable(self._path), suppress(sqlite3.DataError):
            if self._db.execute("SELECT 1 FROM audit WHERE seq = ? AND hash = ?", (head.seq, head.hash)).fetchone():
                return {row[0] for row in self._db.execute("SELECT subject FROM audit WHERE seq > ?", (head.seq,))}
        return None

    def verify(self, expected: Head | None = None) -> Head:
        """See `verify`; UnavailableError when it cannot be read."""
        with unavailable(self._path):
            return verify(self._db, expected)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def router_audit(registry: Path) -> Path:
    """Return where the router keeps its log: in a directory that it may write, unlike the registry's."""
    return registry.parent / "router" / "audit.db"


def form(entry: Entry) -> dict[str, object]:
    """Return an entry as JSON has it."""
    return asdict(entry)


def _opened(path: Path, *, write: bool, busy_s: float) -> sqlite3.Connection:
    if not write and not path.is_file():
        raise ConfigError(f"{path} does not exist")
    try:
        if write:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = connect_shared(path, write=write, busy_s=_BUSY_S)
        try:
            _prepare(db, path, write=write)
            db.execute(f"PRAGMA busy_timeout = {round(busy_s * 1000)}")
        except BaseException:
            db.close()
            raise
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.OperationalError):
            raise OperatorError(f"{path} cannot be opened ({error})", _WRITABLE) from error
        raise ConfigError(f"{path} is not an audit log", "put it aside; the router begins another") from error
    except OSError as error:
        raise OperatorError(f"{path} cannot be opened ({error})", _WRITABLE) from error
    return db


def _prepare(db: sqlite3.Connection, path: Path, *, write: bool) -> None:
    (found,) = db.execute("PRAGMA user_version").fetchone()
    if found == 0 and write:
        with transaction(db):
            if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'audit'").fetchone():
                for statement in TABLE:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")
    elif found != _VERSION:
        raise ConfigError(f"{path} is not an audit log of version {_VERSION}")


def _counted(db: sqlite3.Connection) -> int:
    """Return how many entries SQLite has counted, those among them that are gone."""
    (found,) = db.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'audit'").fetchone()
    # SQLite's own table takes anything.
    return found if type(found) is int else _LAST_SEQ if found else 0


def _rows(db: sqlite3.Connection, since_ms: int) -> Iterator[Any]:
    """Yield the rows as they are, oldest first, in pages: who reads a long log must not hold up the router.

    Raises:
        BrokenChainError: One is not of an entry's types, or has a number that no entry has.
    """
    seq = _LEAST
    while page := _page(db, seq, since_ms, _PAGE_ROWS):
        for row in page:
            if tuple(map(type, row)) != _TYPES or row[0] > _LAST_SEQ:
                raise BrokenChainError(max(seq, 1), "is not as odograph writes it")
            seq = row[0] + 1
            yield row


def _page(db: sqlite3.Connection, seq: int, since_ms: int, rows: int) -> list[Any]:
    """Return so many rows from a number on, or less where one after the first is longer than odograph writes it."""
    try:
        return db.execute(_PAGE, (seq, since_ms, rows)).fetchall()
    except sqlite3.DataError as error:
        if rows == 1:
            raise BrokenChainError(max(seq, 1), "is longer than odograph writes it") from error
        return _page(db, seq, since_ms, 1)


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _hash(before: str, seq: int, at_ms: int, action: str, by: str, subject: str, detail: str) -> str:
    """SHA-256 of the entry's canonical JSON: keys sorted, no spaces, ASCII; `detail` is such JSON as text."""
    entry = {"at_ms": at_ms, "action": action, "before": before, "by": by, "detail": detail}
    return sha256(_json({**entry, "seq": seq, "subject": subject}).encode()).hexdigest()
