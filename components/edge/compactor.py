"""Rows of closed periods -> packets -> envelopes -> outbox. Blocking; runs in the outbox's lane.

It may die anywhere: the same rows give the same packet under the same id, and the outbox keeps packet and cursor in
one transaction. The envelope alone differs (fresh keys), and only if the first one was never kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Final, cast

from Crypto.PublicKey import ECC, RSA

from components.edge import minute
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.sqlite_readings import ReadingsReader, Row
from components.wire import envelope, packet, receipt
from components.wire.packet import Packet
from components.wire.times import minute_id

_ROWS_AT_ONCE: Final = 2 * packet.MAX_READINGS


@dataclass(frozen=True, slots=True)
class Sealer:
    """Seals this device's packets for its server.

    `random` gives that many bytes of the system's randomness.
    """

    server_key: RSA.RsaKey
    server_kid: str
    device_key: ECC.EccKey
    device_kid: str
    random: Callable[[int], bytes]

    def seal(self, sealed: Packet, epoch: str, seq: int) -> bytes:
        """Return the envelope of a packet."""
        header = envelope.Header(
            device=sealed.device,
            session=sealed.session,
            minute=minute_id(sealed.start_ms),
            epoch=epoch,
            seq=seq,
            server_kid=self.server_kid,
            device_kid=self.device_kid,
        )
        return envelope.seal(packet.pack(sealed), header, self.server_key, self.device_key, self.random)


@dataclass(frozen=True, slots=True)
class Compactor:
    """Makes the packets of one device."""

    device: str
    readings: ReadingsReader
    outbox: SqliteOutbox
    sealer: Sealer

    def compact(self, *, closing: bool = False) -> int:
        """Make a packet of every closed period that has none yet.

        A period is closed when a later reading exists, in this session or another.

        Args:
            closing: The recorder has ended: the period in hand is closed as well.

        Returns:
            How many packets were made.
        """
        made = 0
        for rows, followed in self._periods(closing=closing):
            session = self.readings.fact(rows[0].session, "session", rows[-1].seq)
            span = rows[0].seq, rows[-1].seq
            if session is None or session.body is None:
                # Without the row that opened the session neither clock nor period is known: nothing can be said.
                self.outbox.skip(self.readings.file_id, span[1])
                continue
            built = minute.build(
                self.device,
                rows,
                session,
                self.readings.fact(rows[0].session, "identity", rows[-1].seq),
                self.readings.fact(rows[0].session, "dtcs", rows[-1].seq),
                followed=followed,
            )
            sealed = self.sealer.seal(built, self.outbox.epoch, self.outbox.next_seq())
            made += self.outbox.add(built.id, sealed, receipt.digest(sealed), self.readings.file_id, span)
        return made

    def _periods(self, *, closing: bool) -> Iterator[tuple[list[Row], bool]]:
        """Yield the rows of each closed period, and whether its session goes on after it."""
        more = True
        while more:
            rows = self.readings.readings_after(self.outbox.cursor(self.readings.file_id), _ROWS_AT_ONCE)
            more = len(rows) == _ROWS_AT_ONCE
            groups = self._grouped(rows)
            for group, following in pairwise(groups):
                yield group, following[0].session == group[0].session
            if groups and closing and not more:
                yield groups[-1], False

    def _grouped(self, rows: list[Row]) -> list[list[Row]]:
        periods = {session: self._period_s(session, rows[-1].seq) for session in {row.session for row in rows}}
        keyed = groupby(rows, lambda row: (row.session, minute.period_of(row.at_ms, periods[row.session])))
        return [list(group) for _, group in keyed]

    def _period_s(self, session: str, up_to_seq: int) -> int:
        opened = self.readings.fact(session, "session", up_to_seq)
        return cast("int", opened.body["period_s"]) if opened is not None and opened.body is not None else 60
