"""Rows of closed periods -> packets -> envelopes -> outbox. Blocking; runs in the outbox's lane.

It may die anywhere: the same rows give the same packet under the same id, and the outbox keeps packet and cursor in
one transaction. The envelope alone differs (fresh keys), and only if the first one was never kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, cast

from Crypto.PublicKey import ECC
from twisted.logger import Logger

from components import packet_log
from components.edge import minute, row_form
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.sqlite_readings import Kind, ReadingsReader, Row
from components.edge.trust import SealingKey
from components.wire import envelope, packet, receipt
from components.wire.packet import MAX_READINGS, Lost, Packet
from components.wire.times import minute_id

_ROWS_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class SigningKey:
    """This device's key, and its name."""

    kid: str
    key: ECC.EccKey


@dataclass(frozen=True, slots=True)
class Sealer:
    """Seals this device's packets for its server.

    `server` and `device` tell the keys to seal for and to sign with as of now; `random` gives that many bytes of the
    system's randomness.
    """

    server: Callable[[], SealingKey]
    device: Callable[[], SigningKey]
    random: Callable[[int], bytes]

    def seal(self, sealed: Packet, epoch: str, seq: int) -> bytes:
        """Return the envelope of a packet."""
        server, device = self.server(), self.device()
        header = envelope.Header(
            device=sealed.device,
            session=sealed.session,
            minute=minute_id(sealed.start_ms),
            epoch=epoch,
            seq=seq,
            server_kid=server.kid,
            device_kid=device.kid,
            alg=server.alg,
        )
        return envelope.seal(packet.pack(sealed), header, server.key, device.key, self.random)


@dataclass(frozen=True, slots=True)
class _Period:
    """Rows of one packet, whether its session goes on after it, and the losses declared with it and after it."""

    rows: list[Row]
    followed: bool
    lost: list[Row]
    lost_after: list[Row]


@dataclass(frozen=True, slots=True)
class Compactor:
    """Makes the packets of one device."""

    device: str
    readings: ReadingsReader
    outbox: SqliteOutbox
    sealer: Sealer
    _log = Logger()

    def compact(self, *, closing: bool = False, ended: str = "") -> int:
        """Make a packet of every closed period that has none yet.

        A period is closed when a later reading exists, in this session or another.

        Args:
            closing: The recorder has ended: the period in hand is closed as well.
            ended: A session that will have no more readings: the period in hand is closed if it is of that session. A
                later session may have begun by now, and its first period must not be closed before its time: rows
                that came after would be lost, as part of a packet that is there already.

        Returns:
            How many packets were made.
        """
        made = 0
        file_id = self.readings.file_id
        for period in self._periods(closing=closing, ended=ended):
            rows = period.rows
            lost = _losses(period.lost)
            # A loss belongs to the reading that follows it.
            span = (period.lost or rows)[0].seq, rows[-1].seq
            sound = [row for row in rows if row.body is not None]
            # A corrupt row may lie about its session.
            name = sound[0].session if sound else ""
            session = self._fact(name, "session", rows[-1].seq)
            if session is None or session.body is None or len(sound) > MAX_READINGS:
                # Without a sound row, or the one that opened the session, clock and period are not known.
                why = f"no sound row tells of {name}" if len(sound) <= MAX_READINGS else "too many for one packet"
                self._log.error("{count} rows are lost: {why}", count=len(rows), why=why)
                self.outbox.skip(file_id, span[1], [*lost.values(), self._lost(rows)])
                continue
            built = minute.build(
                self.device,
                rows,
                session,
                self._fact(name, "identity", rows[-1].seq),
                self._fact(name, "dtcs", rows[-1].seq),
                followed=period.followed,
                lost=tuple(lost.values()),
                lost_after=tuple(_losses(period.lost_after).values()),
            )
            sealed = self.sealer.seal(built, self.outbox.epoch, self.outbox.next_seq())
            sha256, end_ms = receipt.digest(sealed), built.start_ms + built.period_s * 1000
            if self.outbox.add(built.id, sealed, sha256, file_id, span, end_ms=end_ms, lost=lost):
                packet_log.tell(self._log, "made", built.id, envelope=sha256, bytes=len(sealed))
                made += 1
        return made

    def _lost(self, rows: list[Row]) -> Lost:
        """Return what it is that rows are lost, dated by those that are sound, or else by the packet before."""
        sound = [row for row in rows if row.body is not None]
        if sound:
            return Lost(sound[0].session, sound[0].at_ms, sound[-1].at_ms + 1, "readings", len(rows), "corrupt")
        end_ms = self.outbox.end_ms(self.readings.file_id)
        return Lost(None, end_ms, end_ms, "readings", len(rows), "corrupt")

    def _periods(self, *, closing: bool, ended: str) -> Iterator[_Period]:
        """Yield each closed period.

        A corrupt row belongs to the period in hand, whatever it says of itself: it must not end the period.
        """
        group: list[Row] = []
        lost: list[Row] = []
        lost_after: list[Row] = []
        of: tuple[str, int] | None = None
        periods: dict[str, int] = {}
        for row in self._rows():
            if row.kind == "lost" and row.body is not None:
                lost_after.append(row)
                continue
            key = None if row.body is None else self._key(row, periods)
            if of is not None and key is not None and key != of:
                yield _Period(group, key[0] == of[0], lost, lost_after)
                group, lost, of = [], [], None
            if len(group) > 2 * MAX_READINGS:
                # More than any recorder makes; the last one stays, as the cursor moves past it.
                group.pop()
            group.append(row)
            lost += lost_after
            lost_after = []
            of = of or key
        if group and (closing or (of is not None and of[0] == ended)):
            yield _Period(group, followed=False, lost=lost, lost_after=lost_after)

    def _rows(self) -> Iterator[Row]:
        seq = self.outbox.cursor(self.readings.file_id)
        while rows := self.readings.readings_after(seq, _ROWS_AT_ONCE):
            yield from map(_believed, rows)
            seq = rows[-1].seq

    def _fact(self, session: str, kind: Kind, up_to_seq: int) -> Row | None:
        row = self.readings.fact(session, kind, up_to_seq)
        return None if row is None else _believed(row)

    def _key(self, row: Row, periods: dict[str, int]) -> tuple[str, int]:
        """Return session and period of a sound row; `periods` remembers the length by session."""
        if row.session not in periods:
            opened = self._fact(row.session, "session", row.seq)
            body = opened.body if opened is not None else None
            periods[row.session] = cast("int", body["period_s"]) if body is not None else 60
        return row.session, minute.period_of(row.at_ms, periods[row.session])


def _believed(row: Row) -> Row:
    """Return the row; without its body where no recorder wrote that: it counts as corrupt then."""
    if row.body is None or row_form.is_sound(row.session, row.kind, row.at_ms, row.body):
        return row
    return replace(row, body=None)


def _losses(rows: list[Row]) -> dict[str, Lost]:
    """Return what rows declare, by the outbox's keys; where it was not known there, by one that it never gives."""
    told = ((row.seq, *minute.read_lost(row.body)) for row in rows if row.body is not None)
    return {key or f"/{seq}": lost for seq, key, lost in told}
