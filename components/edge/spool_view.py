"""A spool seen from outside, while its agent runs or after: reads, never writes. Rim."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from components.edge import sqlite_spool
from components.edge.sqlite_readings import body_of
from components.wire.errors import OperatorError


@dataclass(frozen=True, slots=True)
class SpooledPacket:
    """A sealed packet: its id, its envelope's size, and `waiting`, `receipted` or `rejected`."""

    id: str
    size: int
    state: str


@dataclass(frozen=True, slots=True)
class SpoolView:
    """The two files of one spool directory, which need not be there yet."""

    directory: Path

    def latest(self) -> Mapping[str, object] | None:
        """Return the values of the newest reading, by signal key; None while there is none."""
        rows = self._select("readings.db", "SELECT body FROM rows WHERE kind = 'reading' ORDER BY seq DESC LIMIT 1")
        values: Mapping[str, object] | None = body_of(rows[0][0])["values"] if rows else None
        return values

    def readings(self) -> int:
        """Return how many readings are recorded."""
        rows = self._select("readings.db", "SELECT count(*) FROM rows WHERE kind = 'reading'")
        return int(rows[0][0]) if rows else 0

    def packets(self) -> list[SpooledPacket]:
        """Return the packets, oldest first."""
        rows = self._select("outbox.db", "SELECT id, length(envelope), state FROM packets ORDER BY seq")
        return [SpooledPacket(*row) for row in rows]

    def _select(self, name: str, statement: str) -> list[tuple[str, int, str]]:
        path = self.directory / name
        if not path.exists():
            return []
        try:
            with closing(sqlite_spool.open_reader(path)) as connection:
                return connection.execute(statement).fetchall()
        except (sqlite3.OperationalError, OperatorError):
            # The agent is making the file just now.
            return []
