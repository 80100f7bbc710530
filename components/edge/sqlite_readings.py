"""readings.db: every row that the recorder made, in order, each with a checksum. Rim.

One table of rows: `session` (clock, configuration), `identity`, `dtcs`, `reading`, `lost` (what no packet will bring),
`audit`. A packet is made of rows and of nothing else, so that making it again gives the same bytes. SQLite has no page
checksums: a CRC-32 a row tells a flipped bit. `floor` is the first row that has not been forgotten: what stands below
it is on its way out.

Readings that the card did not take are counted here, and declared by a `lost` row with the first reading that it takes
again.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from components.edge import minute, row_form, sqlite_spool
from components.edge.sqlite_spool import SpoolFaultError, SpoolFile
from components.sqlite_file import transaction
from components.wire import envelope, strict_json
from components.wire.packet import Lost

Kind = Literal["session", "identity", "dtcs", "reading", "lost", "audit"]

_BITS, _DICTIONARY = envelope.CODINGS["json+deflate-d1"]
"""Of bodies: as packets, whose dictionary knows the signals' names and is frozen, a row is a third of its text."""
_PAGE_BYTES = 2048
"""A commit a second writes its page whole: in pages of 4096 an hour costs half as much again (bench/card.py)."""
# Numbers are given by the writer, as AUTOINCREMENT would write a page of its own at every commit.
_SCHEMA = """
CREATE TABLE rows (
    seq INTEGER PRIMARY KEY,
    session TEXT NOT NULL,
    kind TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    body ANY NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE INDEX facts ON rows (session, kind, seq) WHERE kind <> 'reading';
CREATE TABLE floor (seq INTEGER NOT NULL, bare_ms INTEGER) STRICT;
INSERT INTO floor VALUES (0, NULL);
CREATE TABLE declared (key TEXT PRIMARY KEY) STRICT
"""
_UPGRADES = {
    # The first files of version 1 had no floor.
    1: """
CREATE TABLE IF NOT EXISTS floor (seq INTEGER NOT NULL) STRICT;
INSERT INTO floor SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM floor);
ALTER TABLE floor ADD COLUMN bare_ms INTEGER;
CREATE TABLE declared (key TEXT PRIMARY KEY) STRICT
"""
}
_MAX_DEPTH = 6
_MAX_SEQ = 2**53
"""Ten rows a second for thirty million years."""
_MAX_BODY = 1024 * 1024
"""A reading of everything is 2 KB; the codes of a car that has every one there is are some ten."""
_PACKED = "kind NOT IN ('session', 'identity', 'dtcs', 'audit')"
"""Readings and losses; and what was one of them before a bit of its kind flipped, which its checksum tells."""
_COLUMNS = "seq, session, kind, at_ms, body, crc"
_INSERT = "INSERT INTO rows (seq, session, kind, at_ms, body, crc) VALUES (?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `body` is None where the checksum does not hold, or what stands there is no JSON object."""

    seq: int
    session: str
    kind: str
    at_ms: int
    body: Mapping[str, object] | None


class ReadingsWriter(SpoolFile):
    """The one writer. Blocking; used from one lane.

    `file_id` is of this file: another file's row numbers have nothing to do with this one's.
    """

    def __init__(self, path: Path) -> None:
        self._unwritten: list[Lost] = []
        super().__init__(path, _SCHEMA, _UPGRADES, _PAGE_BYTES)

    def append(self, session: str, rows: Sequence[tuple[Kind, int, Mapping[str, object]]]) -> None:
        """Write rows (kind, ms UTC, body) in one commit; they are on the card when it returns."""
        try:
            with self._guarded() as db, transaction(db):
                self._insert(session, [("lost", one.from_ms, minute.lost_body("", one)) for one in self._unwritten])
                self._insert(session, rows)
        except sqlite3.IntegrityError:
            # Another hand wrote rows, and took their numbers.
            self._count_unwritten(session, rows, "card_error")
            self._renumber()
            raise
        except (sqlite3.OperationalError, SpoolFaultError) as error:
            # What a corrupt file loses is known where packets are counted: from the last one to now.
            if not (isinstance(error, SpoolFaultError) and error.kind == "corrupt"):
                self._count_unwritten(
                    session, rows, "card_full" if isinstance(error, SpoolFaultError) else "card_error"
                )
            raise
        self._unwritten.clear()

    def declare(self, session: str, at_ms: int, losses: Mapping[str, Lost]) -> list[Lost]:
        """Write down losses that are not yet, by their keys, and forget the keys that are no more among them.

        Returns:
            Those that were new.
        """
        with self._guarded() as db, transaction(db):
            known = {key for (key,) in db.execute("SELECT key FROM declared")}
            new = [(key, one) for key, one in losses.items() if key not in known]
            self._insert(session, [("lost", at_ms, minute.lost_body(key, one)) for key, one in new])
            db.executemany("INSERT INTO declared VALUES (?)", [(key,) for key, _ in new])
            db.executemany("DELETE FROM declared WHERE key = ?", [(key,) for key in known - losses.keys()])
        return [one for _, one in new]

    def forget(self, before_seq: int, limit: int, bare_ms: int | None = None) -> int:
        """Forget the readings below `before_seq`, which must be a packet's first row; return how many were deleted.

        At most `limit` are deleted now, the others by later calls; for readers all of them are gone at once. A packet
        that was made again of half its rows would contradict the first one.

        What a session said of itself goes with its last reading; the audit trail stays.

        Args:
            before_seq: The rows from here on stay.
            limit: How many rows are deleted at once.
            bare_ms: Since when there are packets without a receipt and without rows; None when there are none.
        """
        with self._guarded() as db, transaction(db):
            db.execute("UPDATE floor SET seq = max(seq, ?), bare_ms = ?", (before_seq, bare_ms))
            gone = db.execute(
                f"DELETE FROM rows WHERE seq IN (SELECT seq FROM rows "  # noqa: S608 - constants
                f"WHERE {_PACKED} AND seq < (SELECT seq FROM floor) ORDER BY seq LIMIT ?)",
                (limit,),
            ).rowcount
            # Sessions stand one after another: of those that begin below the floor only the last has readings above
            # it. A reading's own word for its session is not taken: it may be corrupt.
            db.execute(
                "DELETE FROM rows WHERE kind <> 'reading' AND kind <> 'audit' AND seq < (SELECT seq FROM floor) "
                "AND session <> (SELECT session FROM rows WHERE kind = 'session' "
                "AND seq < (SELECT seq FROM floor) ORDER BY seq DESC LIMIT 1)"
            )
        return gone

    def floor(self) -> int:
        """Return the first row that has not been forgotten."""
        with self._guarded():
            floor, _ = self._floor()
            if floor > self._next_seq:
                raise sqlite_spool.not_ours("it has forgotten rows that were not written yet")
            return floor

    def last_row(self, file_id: int) -> int:
        """Return the number of the last row that this file has, or had; the largest of all where it is another one."""
        return self._next_seq - 1 if file_id == self.file_id else _MAX_SEQ

    def bare(self) -> tuple[int, int] | None:
        """Return the time (ms UTC) of packets without a receipt whose rows are forgotten; None when there are none."""
        with self._guarded() as db:
            floor, bare_ms = self._floor()
            first = "SELECT at_ms FROM rows WHERE kind = 'reading' AND seq >= ? ORDER BY seq LIMIT 1"
            row = db.execute(first, (floor,)).fetchone()
        return None if bare_ms is None else (bare_ms, max(bare_ms, row[0] if row else 0))

    def last(self, kind: Kind) -> Row | None:
        """Return the newest sound row of a kind, of any session; None when there is none."""
        with self._guarded() as db:
            rows = _read(
                db.execute(
                    f"SELECT {_COLUMNS} FROM rows WHERE kind = ? ORDER BY seq DESC LIMIT 3",  # noqa: S608 - constants
                    (kind,),
                )
            )
        return next((row for row in rows if row.body is not None), None)

    def close(self) -> None:
        """Let go of the file; what the card did not take is declared if it takes that now."""
        if self._unwritten and self._is_open:
            with suppress(sqlite3.Error, SpoolFaultError):
                self.append(self._unwritten[-1].session or "", [])
        super().close()

    def _begin(self) -> None:
        db = self._connection
        self.file_id: int = db.execute("PRAGMA application_id").fetchone()[0]
        self._renumber()
        # In files that version 1 made, bodies are text for ever.
        (declared,) = db.execute("SELECT type FROM pragma_table_info('rows') WHERE name = 'body'").fetchone()
        self._is_text = declared == "TEXT"
        self._unwritten.clear()

    def _renumber(self) -> None:
        """Go on after the last number that the file gave."""
        (newest,) = self._connection.execute("SELECT ifnull(max(seq), 0) FROM rows").fetchone()
        if newest >= _MAX_SEQ:
            raise sqlite_spool.not_ours(f"no recorder numbered a row {newest}")
        self._next_seq = max(self._floor()[0] - 1, newest) + 1

    def _floor(self) -> tuple[int, int | None]:
        """Return the first row that has not been forgotten, and since when (ms UTC) packets are bare."""
        floors = self._connection.execute("SELECT seq, bare_ms FROM floor").fetchall()
        if len(floors) != 1 or not 0 <= floors[0][0] < _MAX_SEQ or not 0 <= (floors[0][1] or 0) < row_form.MAX_MS:
            raise sqlite_spool.not_ours("it does not tell what was forgotten")
        seq, bare_ms = floors[0]
        return seq, bare_ms

    def _insert(self, session: str, rows: Iterable[tuple[Kind, int, Mapping[str, object]]]) -> None:
        for kind, at_ms, body in rows:
            text = json.dumps(body, separators=(",", ":"))
            stored = text if self._is_text else _deflated(text)
            self._connection.execute(
                _INSERT, (self._next_seq, session, kind, at_ms, stored, _crc(session, kind, at_ms, stored))
            )
            # A number that a commit did not take is missing ever after, which nobody minds.
            self._next_seq += 1

    def _count_unwritten(
        self, session: str, rows: Sequence[tuple[Kind, int, Mapping[str, object]]], reason: str
    ) -> None:
        for _, at_ms, _ in (row for row in rows if row[0] == "reading"):
            last = self._unwritten[-1] if self._unwritten else None
            if last is not None and (last.session, last.reason) == (session, reason):
                self._unwritten[-1] = replace(last, to_ms=at_ms + 1, count=(last.count or 0) + 1)
            else:
                self._unwritten.append(Lost(session, at_ms, at_ms + 1, "readings", 1, reason))


class ReadingsReader:
    """Reads what the writer committed. Blocking; used from one lane.

    SpoolFaultError from any method: the file is corrupt; setting it aside is the writer's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()

    def reopen(self) -> None:
        """Read the file that is in that place now; where there is none, as soon as it is needed and there is one."""
        self._connection.close()
        self._is_open = False

    @property
    def file_id(self) -> int:
        """Of the file that is read."""
        if not self._is_open:
            self._open()
        return self._file_id

    def readings_after(self, seq: int, limit: int) -> list[Row]:
        """Return rows of readings, and of losses, with a greater `seq` that are not forgotten, oldest first."""
        with self._guarded() as db:
            return _read(
                db.execute(
                    f"SELECT {_COLUMNS} FROM rows WHERE {_PACKED} "  # noqa: S608 - constants
                    "AND seq > max(?, ifnull((SELECT seq FROM floor), 0) - 1) ORDER BY seq LIMIT ?",
                    (seq, limit),
                )
            )

    def count_after(self, seq: int) -> int:
        """Return how many rows of readings, and of losses, have a greater `seq`."""
        with self._guarded() as db:
            found = db.execute(f"SELECT count(*) FROM rows WHERE {_PACKED} AND seq > ?", (seq,))  # noqa: S608 - constants
            return int(found.fetchone()[0])

    def fact(self, session: str, kind: Kind, up_to_seq: int) -> Row | None:
        """Return the newest row of a kind that the session had written up to `up_to_seq`; None when there is none."""
        with self._guarded() as db:
            rows = _read(
                db.execute(
                    f"SELECT {_COLUMNS} FROM rows WHERE session = ? AND kind = ? AND seq <= ? "  # noqa: S608 - constants
                    "AND kind <> 'reading' ORDER BY seq DESC LIMIT 1",
                    (session, kind, up_to_seq),
                )
            )
        return next(iter(rows), None)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _open(self) -> None:
        self._connection = sqlite_spool.open_reader(self._path)
        self._file_id: int = self._connection.execute("PRAGMA application_id").fetchone()[0]
        self._is_open = True

    @contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        try:
            if not self._is_open:
                self._open()
            yield self._connection
        except sqlite3.Error as error:
            is_broken = sqlite_spool.fault(error, self._path.parent) == "corrupt"
            if not is_broken and sqlite_spool.has_form(self._connection, _SCHEMA):
                raise
            raise SpoolFaultError(self._path, "corrupt", error) from error


def body_of(stored: str | bytes) -> dict[str, Any]:
    """Return the body of a row, as it stands in the file; ValueError where no recorder wrote that."""
    data = stored.encode() if isinstance(stored, str) else _inflated(stored)
    if len(data) > _MAX_BODY:
        raise ValueError(f"a body of more than {_MAX_BODY} bytes")
    body = strict_json.loads(data, _MAX_DEPTH)
    if not isinstance(body, dict):
        raise ValueError("a body is an object")  # noqa: TRY004 - as for what is no JSON
    return body


def _deflated(text: str) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, _BITS, zdict=_DICTIONARY)
    return deflate.compress(text.encode()) + deflate.flush()


def _inflated(stored: bytes) -> bytes:
    try:
        return zlib.decompressobj(_BITS, zdict=_DICTIONARY).decompress(stored, _MAX_BODY + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error


def _crc(session: str, kind: str, at_ms: int, stored: str | bytes) -> int:
    body = stored.encode() if isinstance(stored, str) else stored
    return zlib.crc32(f"{session}/{kind}/{at_ms}/".encode() + body)


def _read(rows: Iterable[tuple[int, str, str, int, object, int]] | sqlite3.Cursor) -> list[Row]:
    return [
        Row(seq, session, kind, at_ms, _believed(session, kind, at_ms, stored, crc))
        for seq, session, kind, at_ms, stored, crc in rows
    ]


def _believed(session: str, kind: str, at_ms: int, stored: object, crc: int) -> dict[str, Any] | None:
    if not isinstance(stored, str | bytes) or crc != _crc(session, kind, at_ms, stored):
        return None
    try:
        return body_of(stored)
    except ValueError:
        return None
