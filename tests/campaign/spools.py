"""What the edges have recorded and sealed, read from the SQLite files themselves with nothing of the product's code.

It remembers all that it has seen, so that what vanishes is noticed.
"""

import hashlib
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.campaign.ground import PERIOD_S


@dataclass
class Sealed:
    """A committed packet: the SHA-256 of every envelope that was ever sealed for it, and what became of it."""

    id: str
    device: str
    hashes: set[str] = field(default_factory=set)
    state: str = "waiting"

    @property
    def session(self) -> str:
        return self.id.split("/")[1]

    @property
    def start_ms(self) -> int:
        return start_of(self.id)


@dataclass
class Spool:
    """One car's spool, seen again and again.

    Attributes:
        times: Of every reading that was ever seen, ms UTC, by session, in the order of recording.
        vanished: What was committed and is not there any more though its file is.
        given_up: Sessions of a readings.db that was broken: what was not sealed of them is lost.
    """

    device: str
    directory: Path
    sealed: dict[str, Sealed] = field(default_factory=dict)
    times: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    vanished: list[str] = field(default_factory=list)
    given_up: set[str] = field(default_factory=set)
    _rows_of: dict[int, tuple[int, int]] = field(default_factory=dict)
    _packets_of: dict[str, int] = field(default_factory=dict)

    def look(self) -> bool:
        """Read both files afresh; False when one cannot be read just now."""
        try:
            self._look_at_outbox()
            self._look_at_readings()
        except sqlite3.Error:
            return False
        return True

    def waiting(self) -> set[str]:
        """Return the ids of packets that have no receipt, as of the last look."""
        return {one.id for one in self.sealed.values() if one.state == "waiting"}

    def receipted(self) -> set[str]:
        """Return the ids of packets that are stored, as the edge has heard."""
        return {one.id for one in self.sealed.values() if one.state == "receipted"}

    def periods(self) -> set[str]:
        """Return the id of every packet that the readings seen so far are to be in, except of what was given up."""
        found = set()
        for session, times in self.times.items():
            for start_ms in {at - at % (PERIOD_S * 1000) for at in times}:
                found.add(f"{self.device}/{session}/{_name(start_ms)}")
        return {one for one in found if one.split("/")[1] not in self.given_up}

    def in_period(self, packet: Sealed) -> list[int]:
        """Return the times of the readings that are to be in a packet."""
        end_ms = packet.start_ms + PERIOD_S * 1000
        return [at for at in self.times[packet.session] if packet.start_ms <= at < end_ms]

    def holes(self, packet: Sealed, longest_ms: int) -> Iterator[tuple[int, int]]:
        """Yield the times in a packet's period in which its session should have recorded and did not, ms UTC."""
        session, end_ms = self.times[packet.session], packet.start_ms + PERIOD_S * 1000
        marks = self.in_period(packet)
        if session[0] < packet.start_ms:
            marks = [packet.start_ms, *marks]
        if session[-1] >= end_ms:
            marks = [*marks, end_ms]
        for before, after in pairwise(marks):
            if after - before > longest_ms:
                yield before, after

    def _look_at_outbox(self) -> None:
        with self._open("outbox.db") as db:
            if db is None:
                return
            epochs = db.execute("SELECT epoch FROM meta").fetchall()
            if not epochs:
                # It is being made just now.
                return
            ((epoch,),) = epochs
            after = self._packets_of.get(epoch, 0)
            rows = db.execute("SELECT seq, id, envelope FROM packets WHERE seq > ? ORDER BY seq", (after,)).fetchall()
            for seq, id_, envelope in rows:
                one = self.sealed.setdefault(id_, Sealed(id_, self.device))
                one.hashes.add(hashlib.sha256(envelope).hexdigest())
                self._packets_of[epoch] = seq
            states = dict(db.execute("SELECT id, state FROM packets"))
        if len(states) != self._packets_of.get(epoch, 0):
            self.vanished.append(f"{self.device}: {len(states)} of {self._packets_of[epoch]} packets in the outbox")
        for id_, state in states.items():
            self.sealed[id_].state = state

    def _look_at_readings(self) -> None:
        with self._open("readings.db") as db:
            if db is None:
                return
            (file_id,) = db.execute("PRAGMA application_id").fetchone()
            last, seen = self._rows_of.get(file_id, (0, 0))
            rows = db.execute("SELECT seq, session, kind, at_ms FROM rows WHERE seq > ? ORDER BY seq", (last,))
            (there,) = db.execute("SELECT count(*) FROM rows WHERE seq <= ?", (last,)).fetchone()
            if there != seen:
                self.vanished.append(f"{self.device}: {there} of {seen} rows in readings.db")
            for seq, session, kind, at_ms in rows:
                if kind == "reading":
                    self.times[session].append(at_ms)
                last, seen = seq, seen + 1
            self._rows_of[file_id] = last, seen

    def _open(self, name: str) -> Any:  # noqa: ANN401 - a connection that closes itself, or a None that does
        path = self.directory / name
        return closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) if path.exists() else nullcontext()


def start_of(packet_id: str) -> int:
    """Return the start of the period that a packet id names, ms UTC."""
    return int(datetime.strptime(packet_id.rpartition("/")[2], "%Y%m%dT%H%M%S%z").timestamp()) * 1000


def _name(start_ms: int) -> str:
    return f"{datetime.fromtimestamp(start_ms // 1000, UTC):%Y%m%dT%H%M%SZ}"
