"""readings.db: every row that the recorder made, in order, each with a checksum. Rim.

One table of rows of four kinds: `session` (clock, configuration), `identity`, `dtcs`, `reading`. A packet is made of
rows and of nothing else, so that making it again gives the same bytes. SQLite has no page checksums: a CRC-32 a row
tells a flipped bit. `floor` is the first row that has not been forgotten: what stands below it is on its way out.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.edge import sqlite_spool
from components.sqlite_file import transaction
from components.wire import strict_json

Kind = Literal["session", "identity", "dtcs", "reading", "audit"]

_SCHEMA = """
CREATE TABLE rows (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    session TEXT NOT NULL,
    kind TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    body TEXT NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE INDEX facts ON rows (session, kind, seq) WHERE kind <> 'reading';
CREATE TABLE floor (seq INTEGER NOT NULL) STRICT;
INSERT INTO floor VALUES (0)
"""
_MAX_DEPTH = 6
_MAX_BODY = 1024 * 1024
"""A reading of everything is 2 KB; the codes of a car that has every one there is are some ten."""
_COLUMNS = "seq, session, kind, at_ms, body, crc"


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `body` is None where the checksum does not hold, or what stands there is no JSON object."""

    seq: int
    session: str
    kind: str
    at_ms: int
    body: Mapping[str, object] | None


class ReadingsWriter:
    """The one writer. Blocking; used from one lane."""

    def __init__(self, path: Path) -> None:
        opened = sqlite_spool.open_writer(path, _SCHEMA)
        self._connection = opened.connection
        self.quarantined = opened.quarantined

    def append(self, session: str, rows: Sequence[tuple[Kind, int, Mapping[str, object]]]) -> None:
        """Write rows (kind, ms UTC, body) in one commit; they are on the card when it returns."""
        texts = [(kind, at_ms, json.dumps(body, separators=(",", ":"))) for kind, at_ms, body in rows]
        with transaction(self._connection):
            self._connection.executemany(
                "INSERT INTO rows (session, kind, at_ms, body, crc) VALUES (?, ?, ?, ?, ?)",
                [(session, kind, at_ms, text, _crc(session, kind, at_ms, text)) for kind, at_ms, text in texts],
            )

    def forget(self, before_seq: int, limit: int) -> int:
        """Forget the readings below `before_seq`, which must be a packet's first row; return how many were deleted.

        At most `limit` are deleted now, the others by later calls; for readers all of them are gone at once. A packet
        that was made again of half its rows would contradict the first one.

        What a session said of itself goes with its last reading; the audit trail stays.
        """
        with transaction(self._connection):
            self._connection.execute("UPDATE floor SET seq = max(seq, ?)", (before_seq,))
            gone = self._connection.execute(
                "DELETE FROM rows WHERE seq IN "
                "(SELECT seq FROM rows WHERE kind = 'reading' AND seq < (SELECT seq FROM floor) ORDER BY seq LIMIT ?)",
                (limit,),
            ).rowcount
            # Sessions stand one after another: of those that begin below the floor only the last has readings above
            # it. A reading's own word for its session is not taken: it may be corrupt.
            self._connection.execute(
                "DELETE FROM rows WHERE kind <> 'reading' AND kind <> 'audit' AND seq < (SELECT seq FROM floor) "
                "AND session <> (SELECT session FROM rows WHERE kind = 'session' "
                "AND seq < (SELECT seq FROM floor) ORDER BY seq DESC LIMIT 1)"
            )
        self._connection.executescript("PRAGMA incremental_vacuum(256)")
        return gone

    def last(self, kind: Kind) -> Row | None:
        """Return the newest sound row of a kind, of any session; None when there is none."""
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM rows WHERE kind = ? ORDER BY seq DESC LIMIT 3",  # noqa: S608 - constants
            (kind,),
        )
        return next((row for row in _read(rows) if row.body is not None), None)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


class ReadingsReader:
    """Reads what the writer committed. Blocking; used from one lane.

    `file_id` is of this file: another file's row numbers have nothing to do with this one's.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite_spool.open_reader(path)
        self.file_id: int = self._connection.execute("PRAGMA application_id").fetchone()[0]

    def readings_after(self, seq: int, limit: int) -> list[Row]:
        """Return reading rows with a greater `seq` that are not forgotten, oldest first."""
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM rows WHERE kind = 'reading' "  # noqa: S608
            "AND seq > max(?, (SELECT seq FROM floor) - 1) ORDER BY seq LIMIT ?",
            (seq, limit),
        )
        return _read(rows)

    def fact(self, session: str, kind: Kind, up_to_seq: int) -> Row | None:
        """Return the newest row of a kind that the session had written up to `up_to_seq`; None when there is none."""
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM rows WHERE session = ? AND kind = ? AND seq <= ? "  # noqa: S608
            "AND kind <> 'reading' ORDER BY seq DESC LIMIT 1",
            (session, kind, up_to_seq),
        )
        return next(iter(_read(rows)), None)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def _crc(session: str, kind: str, at_ms: int, body: str) -> int:
    return zlib.crc32(f"{session}/{kind}/{at_ms}/{body}".encode())


def _read(rows: Iterable[tuple[int, str, str, int, str, int]] | sqlite3.Cursor) -> list[Row]:
    return [
        Row(seq, session, kind, at_ms, _body(body) if crc == _crc(session, kind, at_ms, body) else None)
        for seq, session, kind, at_ms, body, crc in rows
    ]


def _body(text: str) -> Mapping[str, object] | None:
    try:
        body = strict_json.loads(text.encode(), _MAX_DEPTH) if len(text) <= _MAX_BODY else None
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
