"""Packets in one SQLite file: the embedded default, for one persister on one machine. Rim.

Not for several persisters: mongo_archive.py is. One row is one packet, as MongoDB has one document.
"""

import json
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from components.cloud.ports import DeadLetter, Outcome, StoredPacket, page
from components.sqlite_file import connect_reader, connect_writer, transaction, unavailable

VERSION = 0x0D0A01
"""In the file's user_version: an archive, form 1."""

PAGE = 20
"""Rows of one query of `minutes`: no read transaction stays open while the caller works, so the WAL can be reset.

A row can have a mebibyte and more, and all of a page are in memory at once.
"""

_SELECT = """
SELECT id, device, session, start_ms, account, vehicle, driver,
CAST(packet AS BLOB), envelope, plaintext_sha256, received_ms
FROM packets """
"""The packet as bytes: one of which a byte is broken must not fail the query."""
_PACKET = """
    device TEXT NOT NULL, session TEXT NOT NULL, start_ms INTEGER NOT NULL,
    account TEXT NOT NULL, vehicle TEXT NOT NULL, driver TEXT NOT NULL,
    packet TEXT NOT NULL, envelope BLOB NOT NULL, plaintext_sha256 TEXT NOT NULL, received_ms INTEGER NOT NULL
"""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS packets (id TEXT PRIMARY KEY, {_PACKET}, feed TEXT NOT NULL DEFAULT 'pending');
CREATE INDEX IF NOT EXISTS packets_by_start ON packets (device, start_ms, session);
CREATE INDEX IF NOT EXISTS packets_by_account ON packets (device, account, start_ms, session);
CREATE INDEX IF NOT EXISTS packets_to_feed ON packets (received_ms) WHERE feed = 'pending';
CREATE TABLE IF NOT EXISTS conflicts (id TEXT NOT NULL, {_PACKET}, PRIMARY KEY (id, plaintext_sha256));
CREATE TABLE IF NOT EXISTS dead_letters (
    envelope_sha256 TEXT PRIMARY KEY, topic TEXT NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL,
    envelope BLOB NOT NULL, received_ms INTEGER NOT NULL)
"""
_INSERT = """
INSERT INTO packets
(id, device, session, start_ms, account, vehicle, driver, packet, envelope, plaintext_sha256, received_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"""
_INSERT_CONFLICT = "INSERT INTO conflicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"


class SqliteArchiveReader:
    """An ArchiveReader on an archive that a persister writes, or has written. It changes nothing.

    Args:
        path: The file.

    Raises:
        OperatorError: There is no such file, or it is no archive.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = connect_reader(path, VERSION)

    def minutes(
        self, device: str, since_ms: int | None = None, until_ms: int | None = None, account: str | None = None
    ) -> Iterator[StoredPacket]:
        """See ArchiveReader."""
        which, of_whom = _of(device, account)
        after: tuple[int, str, str] = (-(2**63) if since_ms is None else since_ms, "", "")
        until = 2**63 - 1 if until_ms is None else until_ms
        while True:
            with unavailable(self._path):
                rows = self._db.execute(
                    _SELECT + which + "AND (start_ms, session, id) > (?, ?, ?)"
                    " AND start_ms < ? ORDER BY start_ms, session, id LIMIT ?",
                    (*of_whom, *after, until, PAGE),
                ).fetchall()
            yield from map(_packet, rows)
            if len(rows) < PAGE:
                return
            after = (rows[-1][3], rows[-1][2], rows[-1][0])

    def latest(self, device: str, account: str | None = None) -> StoredPacket | None:
        """See ArchiveReader."""
        which, of_whom = _of(device, account)
        with unavailable(self._path):
            row = self._db.execute(_SELECT + which + "ORDER BY start_ms DESC, session DESC LIMIT 1", of_whom).fetchone()
        return None if row is None else _packet(row)

    def counts(self) -> Mapping[str, int]:
        """See ArchiveReader."""
        with unavailable(self._path):
            row = self._db.execute(
                "SELECT (SELECT count(*) FROM packets), (SELECT count(*) FROM packets WHERE feed = 'pending'),"
                " (SELECT count(*) FROM conflicts), (SELECT count(*) FROM dead_letters)"
            ).fetchone()
        return dict(zip(("packets", "pending", "conflicts", "dead_letters"), row, strict=True))

    def close(self) -> None:
        """See ArchiveReader."""
        self._db.close()


class SqliteArchive(SqliteArchiveReader):
    """An Archive in one file, which this process alone may write while this object is open.

    Args:
        path: The file; made where it is missing, its directory is not.

    Raises:
        OperatorError: Another process holds it, or it cannot be used; the message says which and what to do.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        hint = "stop it, or use MongoDB, which several persisters can share"
        self._db, self._lock = connect_writer(path, _SCHEMA, VERSION, hint)
        self._guard = threading.Lock()  # of the transactions: the two who use it share one connection

    def insert(self, packets: Sequence[StoredPacket]) -> list[Outcome]:
        """See Archive."""
        rows = [_row(packet) for packet in packets]
        with self._guard, unavailable(self._path), transaction(self._db):
            return [self._insert(row) for row in rows]

    def _insert(self, row: tuple[object, ...]) -> Outcome:
        if self._db.execute(_INSERT, row).rowcount:
            return "stored"
        stored = self._db.execute("SELECT plaintext_sha256 FROM packets WHERE id = ?", row[:1]).fetchone()
        if stored == (row[9],):
            return "duplicate"
        self._db.execute(_INSERT_CONFLICT, row)
        return "conflict"

    def put_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """See Archive."""
        rows = [(x.envelope_sha256, x.topic, x.code, x.message, x.envelope, x.received_ms) for x in letters]
        with self._guard, unavailable(self._path), transaction(self._db):
            self._db.executemany("INSERT INTO dead_letters VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def pending(self, before_ms: int, limit: int, but: Collection[str] = ()) -> list[StoredPacket]:
        """See Archive."""
        # In the query: what is passed over is not read, not even its packet's pages.
        wanted = """WHERE feed = 'pending' AND received_ms < ? AND id NOT IN (SELECT value FROM json_each(?))
            ORDER BY received_ms, rowid"""
        values = (before_ms, json.dumps(list(but)))
        with self._guard, unavailable(self._path), closing(self._db.execute(_SELECT + wanted, values)) as rows:
            return page(map(_packet, rows), limit)

    def mark_fed(self, ids: Sequence[str]) -> None:
        """See Archive."""
        with self._guard, unavailable(self._path), transaction(self._db):
            self._db.executemany(
                "UPDATE packets SET feed = 'done' WHERE id = ? AND feed = 'pending'", [(id_,) for id_ in ids]
            )

    def close(self) -> None:
        """See ArchiveReader."""
        super().close()
        self._lock.release()


def _of(device: str, account: str | None) -> tuple[str, tuple[str, ...]]:
    """Return which packets are meant, as SQL with its values."""
    return (
        ("WHERE device = ? ", (device,))
        if account is None
        else ("WHERE device = ? AND account = ? ", (device, account))
    )


def _row(x: StoredPacket) -> tuple[object, ...]:
    packet = json.dumps(x.packet, allow_nan=False, separators=(",", ":"))
    return (
        *(x.id, x.device, x.session, x.start_ms, x.account, x.vehicle, x.driver),
        *(packet, x.envelope, x.plaintext_sha256, x.received_ms),
    )


def _packet(row: sqlite3.Row) -> StoredPacket:
    id_, device, session, start_ms, account, vehicle, driver, text, envelope, sha256, received_ms = row
    try:
        packet = json.loads(text)
    except (ValueError, RecursionError):
        packet = {}
    return StoredPacket(
        *(id_, device, session, start_ms, account, vehicle, driver),
        packet=packet if isinstance(packet, dict) else {},
        envelope=envelope,
        plaintext_sha256=sha256,
        received_ms=received_ms,
    )
