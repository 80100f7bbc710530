"""What the edges have recorded and sealed, read from the SQLite files themselves with nothing of the product's code.

It remembers all that it has seen: an edge may forget, on its card, what is elsewhere or is said to be lost, and whether
that is so is asked here and by the oracle.
"""

import hashlib
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.campaign.ground import PERIOD_S


@dataclass
class Sealed:
    """A committed packet.

    Attributes:
        hashes: The SHA-256 of every envelope that was ever sealed for it.
        state: As it stood in the outbox last: waiting, receipted or rejected.
        forgotten: It is in the outbox no more.
        promised: It is forgotten, and its receipt was on its way before that was seen.
        declared: Some stored packet says that it is lost.
        epoch: Of the outbox that it was last seen in.
        told: The hashes that stood beside it there.
    """

    id: str
    device: str
    hashes: set[str] = field(default_factory=set)
    state: str = "waiting"
    forgotten: bool = False
    promised: bool = False
    declared: bool = False
    epoch: str = ""
    told: set[str] = field(default_factory=set)

    @property
    def session(self) -> str:
        return self.id.split("/")[1]

    @property
    def start_ms(self) -> int:
        return start_of(self.id)

    @property
    def is_owed(self) -> bool:
        """Whether its receipt is to come, or, where it is forgotten without one, the word that it is lost."""
        if self.declared or self.promised:
            return False
        return self.state == "waiting" or (self.state == "rejected" and self.forgotten)

    @property
    def is_settled(self) -> bool:
        """Whether a receipt said that it is stored."""
        return self.state == "receipted" or self.promised


@dataclass(frozen=True)
class Row:
    """What a row of readings.db is."""

    kind: str
    session: str
    at_ms: int


@dataclass
class Spool:
    """One car's spool, seen again and again.

    Attributes:
        times: Of every reading that was ever seen, ms UTC, by session, in the order of recording.
        vanished: What no edge may forget, and is not there any more though its file is.
        disorder: Readings of a session that are not one after the other.
        given_up: Sessions of a readings.db that was broken: what was not sealed of them is lost.
        was_full: The card was full once: only then, in the days of a campaign, may anything be forgotten.
    """

    device: str
    directory: Path
    sealed: dict[str, Sealed] = field(default_factory=dict)
    times: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    vanished: list[str] = field(default_factory=list)
    disorder: list[str] = field(default_factory=list)
    given_up: set[str] = field(default_factory=set)
    was_full: bool = False
    _gone: list[Row] = field(default_factory=list)
    _rows_of: dict[int, dict[int, Row]] = field(default_factory=lambda: defaultdict(dict))
    _last_of: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def look(self) -> bool:
        """Read both files afresh; False when one cannot be read just now."""
        try:
            self._look_at_outbox()
            self._look_at_readings()
            if self._gone:
                # Their packet may have been made after the first look.
                self._look_at_outbox()
        except sqlite3.Error:
            return False
        gone, self._gone = self._gone, []
        for row in gone:
            if self._packet_of(row.session, row.at_ms) not in self.sealed:
                self.vanished.append(f"{self.device}: {row}, of which no packet is made")
        return True

    def owed(self) -> set[str]:
        """Return the ids of packets whose receipt, or loss, is still to be told, as of the last look."""
        return {one.id for one in self.sealed.values() if one.is_owed}

    def receipted(self) -> set[str]:
        """Return the ids of packets that are stored, as the edge has heard."""
        return {one.id for one in self.sealed.values() if one.state == "receipted"}

    def periods(self) -> set[str]:
        """Return the id of every packet that the readings seen so far are to be in, except of what was given up."""
        kept = ((session, times) for session, times in self.times.items() if session not in self.given_up)
        return {self._packet_of(session, at_ms) for session, times in kept for at_ms in times}

    def in_period(self, packet: Sealed) -> list[int]:
        """Return the times of the readings that are to be in a packet."""
        end_ms = packet.start_ms + PERIOD_S * 1000
        return [at for at in self.times[packet.session] if packet.start_ms <= at < end_ms]

    def holes(self, packet: Sealed, longest_ms: int) -> Iterator[tuple[int, int]]:
        """Yield the times in a packet's period in which its session should have recorded and did not, ms UTC.

        What goes on after the period counts with all its length where it begins, and only so far as it lies there.
        """
        session, end_ms = self.times[packet.session], packet.start_ms + PERIOD_S * 1000
        marks = self.in_period(packet)
        if session[0] < packet.start_ms:
            marks = [packet.start_ms, *marks]
        marks += [at_ms for at_ms in session if at_ms >= end_ms][:1]
        for before, after in pairwise(marks):
            if after - before > longest_ms:
                yield before, min(after, end_ms)

    def _look_at_outbox(self) -> None:
        with self._open("outbox.db") as db:
            if db is None:
                return
            epochs = db.execute("SELECT epoch FROM meta").fetchall()
            if not epochs:
                # It is being made just now.
                return
            ((epoch,),) = epochs
            states = {}
            for id_, state, sha256 in db.execute("SELECT id, state, sha256 FROM packets").fetchall():
                one = self.sealed.setdefault(id_, Sealed(id_, self.device))
                one.epoch, states[id_] = epoch, state
                # It may have been sealed again. What the edge says of it is not believed, only taken for a change.
                if sha256 not in one.told:
                    one.told.add(sha256)
                    ((envelope,),) = db.execute("SELECT envelope FROM packets WHERE id = ?", (id_,)).fetchall()
                    one.hashes.add(hashlib.sha256(envelope).hexdigest())
        for one in self.sealed.values():
            # Those of a file that was broken are made again from their rows.
            forgotten = one.epoch == epoch and one.id not in states
            if forgotten and not one.forgotten and not self.was_full:
                self.vanished.append(f"{one.id}, {one.state}, from a card with room")
            one.forgotten = forgotten
            one.state = states.get(one.id, one.state)

    def _look_at_readings(self) -> None:
        with self._open("readings.db") as db:
            if db is None:
                return
            (file_id,) = db.execute("PRAGMA application_id").fetchone()
            known, last = self._rows_of[file_id], self._last_of[file_id]
            (there,) = db.execute("SELECT count(*) FROM rows WHERE seq <= ?", (last,)).fetchone()
            left = set(known)
            if there != len(known):
                left = {seq for (seq,) in db.execute("SELECT seq FROM rows WHERE seq <= ?", (last,))}
            new = db.execute(
                "SELECT seq, session, kind, at_ms FROM rows WHERE seq > ? ORDER BY seq", (last,)
            ).fetchall()
            (floor,) = db.execute("SELECT seq FROM floor").fetchone()
        gone = {seq: known.pop(seq) for seq in set(known) - left}
        for seq, session, kind, at_ms in new:
            known[seq] = Row(kind, session, at_ms)
            self._last_of[file_id] = seq
            if kind == "reading":
                if self.times[session] and at_ms <= self.times[session][-1]:
                    self.disorder.append(f"{self.device}: row {seq} of {session} is not after the one before it")
                self.times[session].append(at_ms)
        self._gone += [row for row in gone.values() if row.kind == "reading"]
        self.vanished += [f"{self.device}: {gone[seq]}: {why}" for seq, why in self._wrongly_gone(gone, known, floor)]

    def _wrongly_gone(self, gone: Mapping[int, Row], left: Mapping[int, Row], floor: int) -> Iterator[tuple[int, str]]:
        """Yield which rows may not be forgotten whatever became of their packets, and why."""
        read = {row.session for seq, row in left.items() if row.kind == "reading" and seq >= floor} if gone else set()
        for seq, row in gone.items():
            if not self.was_full:
                yield seq, "the card has room"
            elif seq >= floor:
                yield seq, f"the file says that all from {floor} on is there"
            elif row.kind == "audit":
                yield seq, "the audit trail stays"
            elif row.kind not in {"reading", "lost"} and row.session in read:
                yield seq, "its session has readings still"

    def _packet_of(self, session: str, at_ms: int) -> str:
        return f"{self.device}/{session}/{_name(at_ms - at_ms % (PERIOD_S * 1000))}"

    def _open(self, name: str) -> Any:  # noqa: ANN401 - a connection that closes itself, or a None that does
        path = self.directory / name
        if not path.exists():
            return nullcontext()
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
        # One moment of the file for all that is read of it.
        db.execute("BEGIN")
        return closing(db)


def start_of(packet_id: str) -> int:
    """Return the start of the period that a packet id names, ms UTC."""
    return int(datetime.strptime(packet_id.rpartition("/")[2], "%Y%m%dT%H%M%S%z").timestamp()) * 1000


def _name(start_ms: int) -> str:
    return f"{datetime.fromtimestamp(start_ms // 1000, UTC):%Y%m%dT%H%M%SZ}"
