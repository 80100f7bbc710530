"""Events in one SQLite file: an append-only log that can be tailed; the embedded default. Rim.

Not for several persisters, and it forgets nothing by itself: kafka_feed.py is for both.
"""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.cloud.ports import FeedEvent
from components.sqlite_file import connect_reader, connect_writer, transaction, unavailable

VERSION = 0x0D0F01
"""In the file's user_version: a feed, form 1."""

PAGE = 1000
"""Events of one query of a reader."""

POLL_S = 0.2
"""How long a follower waits before it looks again: SQLite tells nobody that a row has come."""

# AUTOINCREMENT: a number is never used again, whatever is deleted, so that a follower's place stays true.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, key TEXT NOT NULL, id TEXT NOT NULL,
    type TEXT NOT NULL, source TEXT NOT NULL, time TEXT NOT NULL, data BLOB NOT NULL)
"""


class SqliteFeed:
    """A Feed into one file, which this process alone may write while this object is open.

    Args:
        path: The file; made where it is missing, its directory is not.

    Raises:
        OperatorError: Another process holds it, or it cannot be used; the message says which and what to do.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        hint = "stop it, or use Kafka, which several persisters can share"
        self._db, self._lock = connect_writer(path, _SCHEMA, VERSION, hint)

    def publish(self, events: Sequence[FeedEvent]) -> None:
        """See Feed; all of them or none."""
        rows = [(x.topic, x.key, x.id, x.type, x.source, x.time, x.data) for x in events]
        with unavailable(self._path), transaction(self._db):
            self._db.executemany(
                "INSERT INTO log (topic, key, id, type, source, time, data) VALUES (?, ?, ?, ?, ?, ?, ?)", rows
            )

    def close(self) -> None:
        """See Feed."""
        self._db.close()
        self._lock.release()


class SqliteFeedReader:
    """A FeedReader on a file that a SqliteFeed writes, or has written.

    Args:
        path: The file.

    Raises:
        OperatorError: There is no such file, or it is no feed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = connect_reader(path, VERSION)
        self._guard = threading.Lock()  # close() may come from another thread than read()
        self._closed = threading.Event()

    def read(self, *, from_start: bool, follow: bool) -> Iterator[FeedEvent]:
        """See FeedReader; the feed's order is the order in which events were published."""
        with unavailable(self._path):
            (last,) = self._db.execute("SELECT coalesce(max(seq), 0) FROM log").fetchone()
        return self._events(0 if from_start else last, None if follow else last)

    def _events(self, place: int, last: int | None) -> Iterator[FeedEvent]:
        while rows := self._page(place, last):
            place = rows[-1][0]
            for _, topic, key, id_, type_, source, time, data in rows:
                yield FeedEvent(topic, key, id_, type_, source, time, data)

    def _page(self, place: int, last: int | None) -> list[tuple[int, str, str, str, str, str, str, bytes]]:
        """Return the next events; empty at `last`, or when the reader was closed. Without a `last`, wait for some."""
        while True:
            with self._guard, unavailable(self._path):
                if self._closed.is_set():
                    return []
                rows = self._db.execute(
                    "SELECT seq, topic, key, id, type, source, time, data FROM log WHERE seq > ? AND seq <= ?"
                    " ORDER BY seq LIMIT ?",
                    (place, 2**63 - 1 if last is None else last, PAGE),
                ).fetchall()
            if rows or last is not None:
                return rows
            self._closed.wait(POLL_S)

    def close(self) -> None:
        """See FeedReader; a follower's iteration ends."""
        self._closed.set()
        with self._guard:
            self._db.close()
