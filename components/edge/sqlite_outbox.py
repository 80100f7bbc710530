"""outbox.db: sealed packets until the server has them, and how far compaction has come. Rim.

Packet and cursor move in one transaction, so a packet is made once or again, never lost. A receipt marks; retention,
later, deletes. Ages are counted in time that agents ran (`ran_ms`), which no change of a clock can hurry.

The truth about what is lost stands here. What is forgotten without a receipt gets a row of `lost` in the transaction
that deletes it, and so do the rows of a readings file that is no more. From here it is written down in readings.db, of
which packets are made; it stays until a packet that tells of it is in this file, and comes back when that packet is
forgotten without a receipt. Told once or twice, as everything here, never not at all.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Final, Literal, cast

from components.edge import row_form
from components.edge.sqlite_spool import SpoolFile, not_ours
from components.sqlite_file import transaction
from components.wire import strict_json
from components.wire.packet import Lost
from components.wire.times import parse_minute

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
    settled_ms INTEGER,
    end_ms INTEGER,
    lost TEXT NOT NULL DEFAULT '[]'
) STRICT;
CREATE INDEX rows_in_packets ON packets (file_id, first_row);
CREATE INDEX waiting ON packets (seq) WHERE state = 'waiting';
CREATE TABLE cursors (file_id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, session TEXT, end_ms INTEGER) STRICT;
CREATE TABLE meta (epoch TEXT NOT NULL, ran_ms INTEGER NOT NULL) STRICT;
CREATE TABLE lost (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT NOT NULL) STRICT
"""
_UPGRADES = {
    1: """
ALTER TABLE packets ADD COLUMN end_ms INTEGER;
ALTER TABLE packets ADD COLUMN lost TEXT NOT NULL DEFAULT '[]';
ALTER TABLE cursors ADD COLUMN session TEXT;
ALTER TABLE cursors ADD COLUMN end_ms INTEGER;
CREATE TABLE lost (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT NOT NULL) STRICT
"""
}
_PAGE_BYTES: Final = 4096
_LARGEST: Final = 2**53
_NO_FILE: Final = 2**32
"""Of packets whose rows are in no file: no readings file has that name."""
_MAX_LOSSES: Final = 1 << 18
"""Characters: of the losses that one packet tells."""
_PERIOD_MS: Final = 60_000
"""Of packets that version 1 made: it did not say."""
_DAY_MS: Final = 86_400_000
_DECLARED_AT_ONCE: Final = 100
_MOST_LOSSES: Final = 1000
"""So many wait by themselves, and as many at most beside them before these become one range of each kind."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A packet that has no receipt yet."""

    seq: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """A packet's envelope, the hash that it had when it was sealed, and the first row that it was made of."""

    id: str
    envelope: bytes
    sha256: str
    file_id: int
    first_row: int


@dataclass(frozen=True, slots=True)
class Counts:
    """How many packets there are, by state, and the waiting ones' bytes."""

    waiting: int
    receipted: int
    rejected: int
    waiting_bytes: int


class SqliteOutbox(SpoolFile):
    """The one writer of outbox.db. Blocking; used from one lane.

    `epoch` is of this file: numbers of packets and losses begin anew with it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA, _UPGRADES, _PAGE_BYTES)

    def _begin(self) -> None:
        self._connection.execute(
            "INSERT INTO meta SELECT ?, 0 WHERE NOT EXISTS (SELECT 1 FROM meta)", (os.urandom(8).hex(),)
        )
        metas = self._connection.execute("SELECT epoch, ran_ms FROM meta").fetchall()
        if len(metas) != 1 or not row_form.is_hex16(metas[0][0]) or not 0 <= metas[0][1] < _LARGEST:
            raise not_ours("its epoch is none")
        self.epoch: str
        self.ran_ms: int
        self.epoch, self.ran_ms = metas[0]
        for table, column in (("packets", "seq"), ("lost", "id"), ("sqlite_sequence", "seq")):
            # These numbers go on from the largest, which the file itself tells. SQLite's own table takes any type.
            ends = self._connection.execute(
                f"SELECT ifnull(min({column}), 1), ifnull(max({column}), 1) FROM {table}"  # noqa: S608 - constants
            ).fetchone()
            if not all(type(end) is int and 0 <= end < _LARGEST for end in ends):
                raise not_ours("its packets and losses are not numbered as they come")

    def follow(
        self,
        file_id: int,
        last_row: int,
        session: str,
        last_ms: int,
        bare: tuple[int, int] | None,
        floor: int = 0,
    ) -> None:
        """Take packets from that readings file from now on, and declare what any other still held.

        Again does nothing. SpoolFaultError where what it knows of that file cannot be: there is another outbox then.

        Args:
            file_id: The file that is there now.
            last_row: The last row that it had.
            session: The session that is being recorded.
            last_ms: Until when (ms UTC) rows may have been written to another file.
            bare: The time (ms UTC) of packets that waited in an outbox before this one, and cannot be made again.
            floor: The first row that the file has not forgotten.
        """
        with self._guarded() as db, transaction(db):
            cursor, packed_ms = self._cursor(file_id)
            if cursor < 0:
                raise not_ours("it tells of packets that were never made")
            if cursor > last_row:
                self._step_back(file_id, last_row)
            elif packed_ms is not None and floor > cursor + 1:
                # Of what it has forgotten there was a packet, says this file; no such packet was made.
                self._declare([Lost(None, packed_ms, max(packed_ms, last_ms), "readings", None, "corrupt")])
                self._move(file_id, floor - 1, None, packed_ms)
            for of, end_ms in db.execute("SELECT session, end_ms FROM cursors WHERE file_id <> ?", (file_id,)):
                if not (of is None or row_form.is_hex16(of)) or not 0 <= (end_ms or 0) < row_form.MAX_MS:
                    raise not_ours("it tells of a file that never was")
                if end_ms is None or end_ms - _DAY_MS < last_ms <= end_ms:
                    # Its last rows are in a packet, whose period ends after them.
                    continue
                # A clock that was never set tells nothing of when that was.
                to_ms = max(end_ms, last_ms)
                self._declare([Lost(of if of == session else None, end_ms, to_ms, "readings", None, "corrupt")])
            db.execute("DELETE FROM cursors WHERE file_id <> ?", (file_id,))
            is_new = db.execute(
                "INSERT INTO cursors VALUES (?, 0, ?, ?) ON CONFLICT DO NOTHING", (file_id, session, last_ms)
            ).rowcount
            if is_new and bare is not None:
                self._declare([Lost(None, *bare, "packets", None, "corrupt")])

    def cursor(self, file_id: int) -> int:
        """Return the last row of that readings file that is in a packet; 0 when none is."""
        return self._cursor(file_id)[0]

    def end_ms(self, file_id: int) -> int:
        """Return until when (ms UTC) that readings file is in packets; 0 when that is not known."""
        return self._cursor(file_id)[1] or 0

    def next_seq(self) -> int:
        """Return the sequence number that the next added packet gets."""
        with self._guarded() as db:
            row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'packets'").fetchone()
            seq = row[0] if row else 0
            if type(seq) is not int:
                raise not_ours("its packets are not numbered as they come")
        return seq + 1

    def add(
        self,
        packet_id: str,
        envelope: bytes,
        sha256: str,
        file_id: int,
        rows: tuple[int, int],
        *,
        end_ms: int,
        lost: Mapping[str, Lost] | None = None,
        also: Sequence[Lost] = (),
    ) -> bool:
        """Keep a packet and move the cursor, both or neither; False when a packet of that id is there already.

        Args:
            packet_id, envelope, sha256: The packet, sealed, and the hash of that.
            file_id: Of the readings file that it was made of.
            rows: First and last row of that file that are in it.
            end_ms: End of its period, ms UTC.
            lost: What it declares, by the keys of `undeclared`.
            also: What is lost before it, and to be declared.
        """
        told = lost or {}
        with self._guarded() as db, transaction(db):
            added = db.execute(
                "INSERT INTO packets (id, envelope, sha256, file_id, first_row, end_ms, lost) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (packet_id, envelope, sha256, file_id, rows[0], end_ms, json.dumps([*map(astuple, told.values())])),
            ).rowcount
            self._move(file_id, rows[1], packet_id.split("/")[1], end_ms)
            db.executemany("DELETE FROM lost WHERE ? || '/' || id = ?", [(self.epoch, key) for key in told])
            self._declare(also)
        return added == 1

    def skip(self, file_id: int, last_row: int, lost: Sequence[Lost], told: Mapping[str, Lost] | None = None) -> None:
        """Move the cursor past rows of which no packet can be made, and declare what is lost by that.

        What those rows `told`, by the keys of `undeclared`, is declared again: the latest, under other keys.
        """
        told = told or {}
        with self._guarded() as db, transaction(db):
            losses = [*told.values(), *lost]
            self._move(file_id, last_row, None, max((one.to_ms for one in losses), default=0))
            db.executemany("DELETE FROM lost WHERE ? || '/' || id = ?", [(self.epoch, key) for key in told])
            self._declare(losses)

    def undeclared(self) -> dict[str, Lost]:
        """Return losses of which no packet tells yet, the oldest, by keys that are never given twice."""
        with self._guarded() as db:
            rows = db.execute("SELECT id, what FROM lost ORDER BY id LIMIT ?", (_DECLARED_AT_ONCE,)).fetchall()
            return {f"{self.epoch}/{number}": _loss(what) for number, what in rows}

    def waiting(self, after_seq: int = 0) -> list[Waiting]:
        """Return the packets without a receipt, oldest first."""
        with self._guarded() as db:
            rows = db.execute(
                "SELECT seq, sha256 FROM packets WHERE state = 'waiting' AND seq > ? ORDER BY seq", (after_seq,)
            ).fetchall()
        return [Waiting(*row) for row in rows]

    def envelope(self, seq: int) -> bytes | None:
        """Return a sealed packet; None when it is gone."""
        with self._guarded() as db:
            row = db.execute("SELECT envelope FROM packets WHERE seq = ?", (seq,)).fetchone()
        return row[0] if row else None

    def sealed(self, seq: int) -> Sealed | None:
        """Return a packet without a receipt, and of what it was made; None when it does not wait here."""
        with self._guarded() as db:
            row = db.execute(
                "SELECT id, envelope, sha256, file_id, first_row FROM packets WHERE seq = ? AND state = 'waiting'",
                (seq,),
            ).fetchone()
        return Sealed(*row) if row else None

    def replace(self, seq: int, envelope: bytes, sha256: str) -> None:
        """Put another envelope of the same packet in the place of the one that waits."""
        with self._guarded() as db, transaction(db):
            db.execute("UPDATE packets SET envelope = ?, sha256 = ? WHERE seq = ?", (envelope, sha256, seq))

    def lose(self, seq: int, reason: str) -> None:
        """Delete a packet that waits, and declare it."""
        with self._guarded() as db, transaction(db):
            self._declare_packets("seq = ?", (seq,), reason)
            db.execute("DELETE FROM packets WHERE seq = ?", (seq,))

    def settle(
        self, marks: Sequence[tuple[str, Literal["receipted", "rejected"], str | None]], ran_ms: int
    ) -> list[int]:
        """Mark packets (envelope hash, state, code) in one commit; return the seq of those that were still waiting."""
        settled: list[int] = []
        with self._guarded() as db, transaction(db):
            # Here too, as most runs of a car are shorter than the time from one tidying to the next.
            db.execute("UPDATE meta SET ran_ms = max(ran_ms, ?)", (ran_ms,))
            for sha256, state, code in marks:
                rows = db.execute(
                    "UPDATE packets SET state = ?, code = ?, settled_ms = ? "
                    "WHERE sha256 = ? AND state = 'waiting' RETURNING seq",
                    (state, code, ran_ms, sha256),
                ).fetchall()
                settled += [row[0] for row in rows]
        return settled

    def forget(self, settled_before_ms: int, ran_ms: int, limit: int) -> int:
        """Delete at most `limit` of the oldest packets settled before `settled_before_ms`; note `ran_ms`.

        One that the server refused for ever is declared.

        Returns:
            How many went.
        """
        with self._guarded() as db, transaction(db):
            db.execute("UPDATE meta SET ran_ms = ?", (ran_ms,))
            old = "SELECT seq FROM packets WHERE state <> 'waiting' AND settled_ms < ? ORDER BY seq LIMIT ?"
            self._declare_packets(f"state = 'rejected' AND seq IN ({old})", (settled_before_ms, limit), "rejected")
            return db.execute(f"DELETE FROM packets WHERE seq IN ({old})", (settled_before_ms, limit)).rowcount  # noqa: S608 - constants

    def forget_unsent(self, limit: int, reason: str) -> int:
        """Delete at most `limit` of the oldest packets that wait for a receipt, and declare them; return how many."""
        with self._guarded() as db, transaction(db):
            oldest = "seq IN (SELECT seq FROM packets WHERE state = 'waiting' ORDER BY seq LIMIT ?)"
            self._declare_packets(oldest, (limit,), reason)
            return db.execute(f"DELETE FROM packets WHERE {oldest}", (limit,)).rowcount  # noqa: S608 - constants

    def first_row_kept(self, file_id: int) -> int:
        """Return the first row of that readings file which a packet here, or one to come, is made of."""
        with self._guarded() as db:
            row = db.execute("SELECT min(first_row) FROM packets WHERE file_id = ?", (file_id,)).fetchone()
        return self.cursor(file_id) + 1 if row[0] is None else int(row[0])

    def row_after(self, file_id: int, row: int, count: int) -> int:
        """Return the first row of the packet that comes `count` packets after `row`; or that of the one to come."""
        with self._guarded() as db:
            found = db.execute(
                "SELECT first_row FROM packets WHERE file_id = ? AND first_row > ? ORDER BY first_row LIMIT 1 OFFSET ?",
                (file_id, row, count - 1),
            ).fetchone()
        return self.cursor(file_id) + 1 if found is None else int(found[0])

    def bare_ms(self, file_id: int, floor: int) -> int | None:
        """Return the start (ms UTC) of the oldest packet without a receipt whose rows are below `floor`, or None."""
        with self._guarded() as db:
            row = db.execute(
                "SELECT id FROM packets WHERE state = 'waiting' AND (file_id <> ? OR first_row < ?) "
                "ORDER BY seq LIMIT 1",
                (file_id, floor),
            ).fetchone()
            return None if row is None else _named(row[0])[1]

    def counts(self) -> Counts:
        """Count the packets."""
        with self._guarded() as db:
            rows: Mapping[str, tuple[int, int]] = {
                state: (count, size)
                for state, count, size in db.execute(
                    "SELECT state, count(*), sum(length(envelope)) FROM packets GROUP BY state"
                )
            }
        waiting = rows.get("waiting", (0, 0))
        return Counts(waiting[0], rows.get("receipted", (0, 0))[0], rows.get("rejected", (0, 0))[0], waiting[1])

    def _cursor(self, file_id: int) -> tuple[int, int | None]:
        with self._guarded() as db:
            row = db.execute("SELECT seq, end_ms FROM cursors WHERE file_id = ?", (file_id,)).fetchone()
        return (row[0], row[1]) if row else (0, None)

    def _step_back(self, file_id: int, last_row: int) -> None:
        """Rows have vanished, or never were: what is there is packed again, under the same ids.

        The packets that may have been made of others have no rows from now on: theirs will be another packet's.
        """
        db = self._connection
        (first_row,) = db.execute(
            "SELECT ifnull(max(first_row), 1) FROM packets WHERE file_id = ? AND first_row <= ?", (file_id, last_row)
        ).fetchone()
        db.execute("UPDATE cursors SET seq = ? WHERE file_id = ?", (first_row - 1, file_id))
        db.execute(
            "UPDATE packets SET file_id = ? WHERE file_id = ? AND first_row >= ?", (_NO_FILE, file_id, first_row)
        )

    def _move(self, file_id: int, last_row: int, session: str | None, end_ms: int) -> None:
        self._connection.execute(
            "INSERT INTO cursors VALUES (?, ?, ?, ?) ON CONFLICT (file_id) DO UPDATE SET seq = excluded.seq, "
            "session = excluded.session, end_ms = max(ifnull(end_ms, 0), excluded.end_ms)",
            (file_id, last_row, session, end_ms),
        )

    def _declare_packets(self, which: str, arguments: tuple[int, ...], reason: str) -> None:
        """Declare packets that go, neighbours of one session as one range, and again what they themselves declared."""
        ranges: list[Lost] = []
        before = -1
        rows = self._connection.execute(
            f"SELECT seq, id, end_ms, lost FROM packets WHERE {which} ORDER BY seq",  # noqa: S608 - constants
            arguments,
        ).fetchall()
        for seq, packet_id, end_ms, carried in rows:
            session, start_ms = _named(packet_id)
            one = Lost(session, start_ms, end_ms or start_ms + _PERIOD_MS, "packets", 1, reason)
            if ranges and seq == before + 1 and ranges[-1].session == session:
                one = replace(one, from_ms=ranges[-1].from_ms, count=(ranges[-1].count or 0) + 1)
                ranges[-1] = one
            else:
                ranges.append(one)
            before = seq
            self._declare(_losses(carried))
        self._declare(ranges)

    def _declare(self, losses: Iterable[Lost]) -> None:
        """Keep losses until packets tell of them; of very many the latest are told together."""
        db = self._connection
        for one in losses:
            db.execute("INSERT INTO lost (what) VALUES (?)", (json.dumps(astuple(one)),))
        late = db.execute("SELECT id, what FROM lost ORDER BY id LIMIT -1 OFFSET ?", (_MOST_LOSSES,)).fetchall()
        if len(late) <= _MOST_LOSSES:
            return
        joined: dict[tuple[str, str], Lost] = {}
        for _, what in late:
            one = _loss(what)
            before = joined.get((one.what, one.reason))
            joined[one.what, one.reason] = _joined(before, one) if before else one
        db.execute("DELETE FROM lost WHERE id >= ?", (late[0][0],))
        for one in joined.values():
            db.execute("INSERT INTO lost (what) VALUES (?)", (json.dumps(astuple(one)),))


def _loss(text: str) -> Lost:
    """Return the one loss that is kept as JSON; `not_ours` where no odograph wrote it."""
    losses = _losses(f"[{text}]")
    if len(losses) != 1:
        raise not_ours("it tells of losses that are none")
    return losses[0]


def _losses(text: str) -> list[Lost]:
    """Return the losses of which a list is kept as JSON; `not_ours` where no odograph wrote it."""
    try:
        if len(text) > _MAX_LOSSES:
            raise ValueError("too long")  # noqa: TRY301 - one way out
        forms = strict_json.loads(text.encode(), 3)
        return [row_form.read_loss(form) for form in cast("list[object]", forms)]
    except (TypeError, ValueError) as error:
        raise not_ours(f"it tells of losses that are none: {error}") from error


def _joined(one: Lost, other: Lost) -> Lost:
    """Return one range that has both, which are of one kind and reason."""
    return Lost(
        one.session if one.session == other.session else None,
        min(one.from_ms, other.from_ms),
        max(one.to_ms, other.to_ms),
        one.what,
        None if one.count is None or other.count is None else one.count + other.count,
        one.reason,
    )


def _named(packet_id: str) -> tuple[str, int]:
    """Return session and start (ms UTC) of a packet, by its id; `not_ours` where that is none."""
    try:
        _, session, name = packet_id.split("/")
        if row_form.is_hex16(session):
            return session, parse_minute(name)
    except ValueError:
        pass
    raise not_ours("it has a packet whose id is none")
