"""outbox.db: sealed packets until the server has them, and how far compaction has come. Rim.

Packet and cursor move in one transaction, so a packet is made once or again, never lost. A receipt marks; retention,
later, deletes. Ages are counted in time that agents ran (`ran_ms`), which no change of a clock can hurry.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.edge import sqlite_spool
from components.sqlite_file import transaction

_SCHEMA = """
CREATE TABLE packets (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    envelope BLOB NOT NULL,
    sha256 TEXT NOT NULL UNIQUE,
    file_id INTEGER NOT NULL,
    first_row INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'receipted', 'rejected')),
    code TEXT,
    settled_ms INTEGER
) STRICT;
CREATE INDEX rows_in_packets ON packets (file_id, first_row);
CREATE INDEX waiting ON packets (seq) WHERE state = 'waiting';
CREATE TABLE cursors (file_id INTEGER PRIMARY KEY, seq INTEGER NOT NULL) STRICT;
CREATE TABLE meta (epoch TEXT NOT NULL, ran_ms INTEGER NOT NULL) STRICT
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A packet that has no receipt yet."""

    seq: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How many packets there are, by state, and the waiting ones' bytes."""

    waiting: int
    receipted: int
    rejected: int
    waiting_bytes: int


class SqliteOutbox:
    """The one writer of outbox.db. Blocking; used from one lane."""

    def __init__(self, path: Path) -> None:
        opened = sqlite_spool.open_writer(path, _SCHEMA)
        self._connection = opened.connection
        self.quarantined = opened.quarantined
        self._connection.execute(
            "INSERT INTO meta SELECT ?, 0 WHERE NOT EXISTS (SELECT 1 FROM meta)", (os.urandom(8).hex(),)
        )
        self.epoch: str
        self.ran_ms: int
        self.epoch, self.ran_ms = self._connection.execute("SELECT epoch, ran_ms FROM meta").fetchone()

    def cursor(self, file_id: int) -> int:
        """Return the last row of that readings file that is in a packet; 0 when none is."""
        row = self._connection.execute("SELECT seq FROM cursors WHERE file_id = ?", (file_id,)).fetchone()
        return row[0] if row else 0

    def next_seq(self) -> int:
        """Return the sequence number that the next added packet gets."""
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'packets'").fetchone()
        return (row[0] if row else 0) + 1

    def add(self, packet_id: str, envelope: bytes, sha256: str, file_id: int, rows: tuple[int, int]) -> bool:
        """Keep a packet and move the cursor, both or neither; False when a packet of that id is there already.

        Args:
            rows: First and last row of the readings file that are in it.
        """
        with transaction(self._connection):
            added = self._connection.execute(
                "INSERT INTO packets (id, envelope, sha256, file_id, first_row) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                (packet_id, envelope, sha256, file_id, rows[0]),
            ).rowcount
            self._move(file_id, rows[1])
        return added == 1

    def skip(self, file_id: int, last_row: int) -> None:
        """Move the cursor past rows of which no packet can be made."""
        with transaction(self._connection):
            self._move(file_id, last_row)

    def waiting(self, after_seq: int = 0) -> list[Waiting]:
        """Return the packets without a receipt, oldest first."""
        rows = self._connection.execute(
            "SELECT seq, sha256 FROM packets WHERE state = 'waiting' AND seq > ? ORDER BY seq", (after_seq,)
        )
        return [Waiting(*row) for row in rows]

    def envelope(self, seq: int) -> bytes | None:
        """Return a sealed packet; None when it is gone."""
        row = self._connection.execute("SELECT envelope FROM packets WHERE seq = ?", (seq,)).fetchone()
        return row[0] if row else None

    def settle(
        self, marks: Sequence[tuple[str, Literal["receipted", "rejected"], str | None]], ran_ms: int
    ) -> list[int]:
        """Mark packets (envelope hash, state, code) in one commit; return the seq of those that were still waiting."""
        settled: list[int] = []
        with transaction(self._connection):
            # Here too, as most runs of a car are shorter than the time from one tidying to the next.
            self._connection.execute("UPDATE meta SET ran_ms = max(ran_ms, ?)", (ran_ms,))
            for sha256, state, code in marks:
                rows = self._connection.execute(
                    "UPDATE packets SET state = ?, code = ?, settled_ms = ? "
                    "WHERE sha256 = ? AND state = 'waiting' RETURNING seq",
                    (state, code, ran_ms, sha256),
                ).fetchall()
                settled += [row[0] for row in rows]
        return settled

    def forget(self, settled_before_ms: int, ran_ms: int, limit: int) -> int:
        """Delete at most `limit` of the oldest packets settled before `settled_before_ms`; note `ran_ms`.

        Returns:
            How many went.
        """
        with transaction(self._connection):
            self._connection.execute("UPDATE meta SET ran_ms = ?", (ran_ms,))
            gone = self._connection.execute(
                "DELETE FROM packets WHERE seq IN (SELECT seq FROM packets "
                "WHERE state <> 'waiting' AND settled_ms < ? ORDER BY seq LIMIT ?)",
                (settled_before_ms, limit),
            ).rowcount
        if gone:
            self._connection.executescript("PRAGMA incremental_vacuum(256)")
        return gone

    def first_row_kept(self, file_id: int) -> int:
        """Return the first row of that readings file which a packet here, or one to come, is made of."""
        row = self._connection.execute("SELECT min(first_row) FROM packets WHERE file_id = ?", (file_id,)).fetchone()
        return self.cursor(file_id) + 1 if row[0] is None else row[0]

    def counts(self) -> Counts:
        """Count the packets."""
        rows: Mapping[str, tuple[int, int]] = {
            state: (count, size)
            for state, count, size in self._connection.execute(
                "SELECT state, count(*), sum(length(envelope)) FROM packets GROUP BY state"
            )
        }
        waiting = rows.get("waiting", (0, 0))
        return Counts(waiting[0], rows.get("receipted", (0, 0))[0], rows.get("rejected", (0, 0))[0], waiting[1])

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _move(self, file_id: int, last_row: int) -> None:
        self._connection.execute(
            "INSERT INTO cursors (file_id, seq) VALUES (?, ?) ON CONFLICT (file_id) DO UPDATE SET seq = excluded.seq",
            (file_id, last_row),
        )
