"""What the outside saw of the two ends: written down at each step, and judged. Knows the files, not the code behind.

Every look goes through a connection of its own, so that only what is committed is seen.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

from components.cloud.ports import FeedEvent
from components.wire import envelope, packet
from components.wire.packet import Lost
from components.wire.receipt import Receipt, digest

Row = tuple[str, int, int]
"""Session, ms UTC, speed: no two readings of a run are the same."""
DURABLE: Final = ("stored", "duplicate")


class Minute:
    """A packet as it was committed: its envelopes (another only where an outbox was lost), and what is in it."""

    def __init__(self, sealed: bytes, plaintext: bytes) -> None:
        self.envelopes = {digest(sealed): sealed}
        self.plaintext = plaintext
        self.packet = packet.read(packet.parse(plaintext))
        self.rows = [
            (self.packet.session, one.at_ms, cast("int", one.values["speed"])) for one in self.packet.readings or ()
        ]

    def is_told_of(self, losses: Iterable[Lost]) -> bool:
        """Whether a loss takes it in; one without a session tells of packets that nobody can count any more."""
        return any(
            one.what == "packets"
            and (one.session is None or one.session == self.packet.session)
            and (one.session is None or one.from_ms <= self.packet.start_ms < one.to_ms)
            for one in losses
        )


class Ledger:
    """Keeps what happened, and says what must not have.

    Attributes:
        rows: Each reading that was on the card when `append` returned.
        minutes: Each packet that was ever in the outbox, by id.
        heard: Status of each true receipt that reached the edge, by envelope.
        garbage: Envelopes that nobody sealed.
        contradicted: Packets of which another content was sealed by the car's own key and handed in.
        given_up: Packets that the car forgot, or lost, without a receipt; stored, or declared, in the end.
        wrong: Promises that were broken; the first is the one to look at.
    """

    def __init__(self, outbox: Path, archive: Path, opened: Callable[[bytes], bytes]) -> None:
        self._outbox, self._archive, self._open = outbox, archive, opened
        self.rows: list[Row] = []
        self.minutes: dict[str, Minute] = {}
        self.heard: dict[str, set[str]] = {}
        self.garbage: set[str] = set()
        self.contradicted: set[str] = set()
        self.given_up: set[str] = set()
        self.wrong: list[str] = []
        self._by_envelope: dict[str, str] = {}
        self._in_outbox: set[str] = set()
        self.stored: dict[str, bytes] = {}
        self._events: dict[str, bytes] = {}

    def outbox_was_lost(self) -> None:
        """Its packets are made again of the rows, those whose rows are gone are declared."""
        self.given_up |= {self._by_envelope[sha256] for sha256 in self._in_outbox}
        self._in_outbox = set()

    def receipt_left(self, one: Receipt) -> None:
        """The server signed this just now: what it says must be true already."""
        name = one.envelope_sha256
        with _opened(self._archive) as db:
            if one.status in DURABLE:
                found = db.execute(
                    "SELECT envelope FROM packets WHERE id = ?", (self._by_envelope.get(name),)
                ).fetchone()
                if found is None or digest(found[0]) not in self.minutes[self._by_envelope[name]].envelopes:
                    self.wrong.append(f"receipt {one.status} without a document: {one}")
            elif one.code == "conflict":
                found = db.execute("SELECT 1 FROM conflicts WHERE id = ?", (one.packet_id,)).fetchone()
                if found is None or one.packet_id not in self.contradicted or name in self._by_envelope:
                    self.wrong.append(f"conflict: {one}")
            elif one.status == "rejected":
                found = db.execute("SELECT 1 FROM dead_letters WHERE envelope_sha256 = ?", (name,)).fetchone()
                if found is None or name not in self.garbage:
                    self.wrong.append(f"rejected: {one}")

    def receipt_heard(self, one: Receipt) -> None:
        """The edge was handed this, signed by the server."""
        self.heard.setdefault(one.envelope_sha256, set()).add(one.status)

    def look(self, feed: list[FeedEvent]) -> None:
        """Compare the stores with what may be in them now."""
        self.look_at_outbox()
        self._look_at_archive()
        for one in feed:
            self._event(one)

    def ended(self, feed: list[FeedEvent]) -> None:
        """All faults are over, and all is quiet: everything is where it belongs, once."""
        self.look(feed)
        missing = self.minutes.keys() - self.stored.keys()
        declared = [one for name in self.stored for one in self.minutes[name].packet.lost]
        silent = [name for name in missing if name not in self.given_up or not self.minutes[name].is_told_of(declared)]
        if silent:
            self.wrong.append(f"committed, not stored, not declared: {sorted(silent)}")
        ended = Counter(row for one in self.minutes.values() for row in one.rows)
        if ended != Counter(self.rows):
            lost, twice = Counter(self.rows) - ended, ended - Counter(self.rows)
            self.wrong.append(f"readings lost {sorted(lost)}, too often or never recorded {sorted(twice)}")
        due = {f"{name}/{tail}" for name in self.stored for tail in _tails(self.minutes[name])}
        if due != self._events.keys():
            self.wrong.append(f"fed is not what is stored: {sorted(due ^ self._events.keys())[:5]}")
        with _opened(self._archive) as db:
            odd = {name for (name,) in db.execute("SELECT id FROM conflicts")} - self.contradicted
            letters = {name for (name,) in db.execute("SELECT envelope_sha256 FROM dead_letters")}
        if odd or not letters <= self.garbage:
            self.wrong.append(f"conflicts {odd}, dead letters {letters - self.garbage}")

    def look_at_outbox(self) -> None:
        """Note what was committed, and what is gone or marked."""
        with _opened(self._outbox) as db:
            found = db.execute("SELECT id, sha256, state, envelope FROM packets").fetchall()
            losses = [Lost(*json.loads(what)) for (what,) in db.execute("SELECT what FROM lost")]
        for name, sha256, state, sealed in found:
            if sha256 not in self._by_envelope:
                self._committed(name, sha256, sealed)
            heard = self.heard.get(sha256, set())
            if state == "receipted" and not heard & set(DURABLE):
                self.wrong.append(f"{name} counts as receipted: heard {heard}")
            if state == "rejected" and "rejected" not in heard:
                self.wrong.append(f"{name} counts as rejected: heard {heard}")
        gone = self._in_outbox - {sha256 for _, sha256, _, _ in found}
        for sha256 in gone:
            if not self.heard.get(sha256, set()) & {*DURABLE, "rejected"}:
                name = self._by_envelope[sha256]
                self.given_up.add(name)
                if not self.minutes[name].is_told_of(losses):
                    self.wrong.append(f"{name} forgotten without a receipt, and not declared")
        self._in_outbox = {sha256 for _, sha256, _, _ in found}

    def _committed(self, name: str, sha256: str, sealed: bytes) -> None:
        one = Minute(sealed, self._open(sealed))
        if sha256 != digest(sealed) or envelope.parse(sealed).header.packet_id != name:
            self.wrong.append(f"{name} is kept under another name")
        first = self.minutes.setdefault(name, one)
        if first.plaintext != one.plaintext:
            self.wrong.append(f"{name} was made twice, differently: {first.rows} and {one.rows}")
        first.envelopes[sha256] = sealed
        self._by_envelope[sha256] = name

    def _look_at_archive(self) -> None:
        with _opened(self._archive) as db:
            found = dict(db.execute("SELECT id, envelope FROM packets").fetchall())
        for name, sealed in found.items():
            if name not in self.minutes or digest(sealed) not in self.minutes[name].envelopes:
                self.wrong.append(f"{name} is stored and was never committed so")
        for name, sealed in self.stored.items():
            if found.get(name) != sealed:
                self.wrong.append(f"{name} was stored and is gone or another now")
        self.stored = found

    def _event(self, one: FeedEvent) -> None:
        if one.id.rsplit("/", 1)[0] not in self.stored:
            self.wrong.append(f"{one.id} is fed and not stored")
        if self._events.setdefault(one.id, one.data) != one.data:
            self.wrong.append(f"{one.id} is fed with another content than before")


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(path)
    try:
        yield db
    finally:
        db.close()


def _tails(one: Minute) -> list[str]:
    return ["summary", *(f"r{n}" for n in range(len(one.rows)))]
