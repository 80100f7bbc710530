"""Rows of closed periods -> packets -> envelopes -> outbox. Blocking; runs in the outbox's lane.

It may die anywhere: the same rows give the same packet under the same id, and the outbox keeps packet and cursor in
one transaction. The envelope alone differs (fresh keys), and only if the first one was never kept.
"""

from collections.abc import Callable, Iterator, Mapping
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
from components.wire.packet import MAX_LIST, MAX_READINGS, Lost, Packet
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
    """Rows of one packet, when its session goes on after it (None: not), and the losses declared with it and after."""

    rows: list[Row]
    next_ms: int | None
    lost: list[Row]
    lost_after: list[Row]

    @property
    def first_seq(self) -> int:
        """Its first row: a loss belongs to the reading that follows it."""
        return (self.lost or self.rows)[0].seq


@dataclass(frozen=True, slots=True)
class _Made:
    """A packet and its envelope.

    `strays` are corrupt rows of a session before, of which nothing else is left; this one was opened at `opened_ms`.
    """

    packet: Packet
    envelope: bytes
    strays: list[Row]
    opened_ms: int


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
        for period in self._periods(self.outbox.cursor(file_id), closing=closing, ended=ended):
            lost = _losses(period.lost)
            span = period.first_seq, period.rows[-1].seq
            one = self._made(period, lost, self.outbox.next_seq())
            if one is None:
                self.outbox.skip(file_id, span[1], [self._lost(period.rows, "corrupt")], lost)
                continue
            strays = [self._lost(one.strays, "corrupt", one.opened_ms)] if one.strays else []
            sha256, end_ms = receipt.digest(one.envelope), one.packet.start_ms + one.packet.period_s * 1000
            if self.outbox.add(
                one.packet.id, one.envelope, sha256, file_id, span, end_ms=end_ms, lost=lost, also=strays
            ):
                packet_log.tell(self._log, "made", one.packet.id, envelope=sha256, bytes=len(one.envelope))
                made += 1
        return made

    def remake(self, seq: int) -> str | None:
        """Seal a packet again whose envelope is damaged, or is for a key that the server has no more.

        The same rows give the same plaintext: where the server has it already, it is a duplicate. Where the rows are
        gone, a damaged packet is declared as lost, and one for an old key stays as it is: only one persister has said
        that it does not know the key, another may, and a key can be restored.

        Args:
            seq: Of a packet without a receipt.

        Returns:
            The hash of its envelope, which may be the one that it had: sealed for the newest key, or not to be made
            again. None where it does not wait any more.
        """
        old = self.outbox.sealed(seq)
        if old is None:
            return None
        is_whole = receipt.digest(old.envelope) == old.sha256
        if is_whole and envelope.server_kid(old.envelope) == self.sealer.server().kid:
            return old.sha256
        if old.file_id == self.readings.file_id:
            period = next(self._periods(old.first_row - 1, closing=True, ended=""), None)
            if period is not None and period.first_seq == old.first_row:
                one = self._made(period, _losses(period.lost), seq)
                if one is not None and one.packet.id == old.id:
                    sha256 = receipt.digest(one.envelope)
                    self.outbox.replace(seq, one.envelope, sha256)
                    packet_log.tell(self._log, "made", old.id, envelope=sha256, bytes=len(one.envelope))
                    return sha256
        if is_whole:
            return old.sha256
        self.outbox.lose(seq, "corrupt")
        packet_log.tell(self._log, "rejected", old.id, code="corrupt")
        return None

    def give_up(self, limit: int, reason: str) -> int:
        """Pass over the oldest rows of which no packet could be made, where they are more than a packet may hold.

        Args:
            limit: How many at most.
            reason: Why they are lost; they are declared.

        Returns:
            How many; 0 where only such are left as will be packed when their period is over.
        """
        file_id = self.readings.file_id
        cursor = self.outbox.cursor(file_id)
        count = min(limit, self.readings.count_after(cursor) - MAX_READINGS)
        rows = [_believed(row) for row in self.readings.readings_after(cursor, count)] if count > 0 else []
        if not rows:
            return 0
        told = [row for row in rows if row.kind == "lost"]
        readings = [row for row in rows if row.kind != "lost"]
        lost = [self._lost(readings, reason)] if readings else []
        self.outbox.skip(file_id, rows[-1].seq, lost, _losses(told))
        return len(rows)

    def _made(self, period: _Period, lost: Mapping[str, Lost], seq: int) -> _Made | None:
        """Make the packet of a period and seal it; None where none can be made of these rows."""
        sound = [row for row in period.rows if row.body is not None]
        # A corrupt row may lie about its session.
        name, last_seq = sound[0].session if sound else "", period.rows[-1].seq
        session = self._fact(name, "session", last_seq)
        if session is None or session.body is None or len(sound) > MAX_READINGS:
            # Without a sound row, or the one that opened the session, clock and period are not known.
            why = f"no sound row tells of {name}" if len(sound) <= MAX_READINGS else "too many for one packet"
            self._log.error("{count} rows are lost: {why}", count=len(period.rows), why=why)
            return None
        built = minute.build(
            self.device,
            [row for row in period.rows if row.seq > session.seq],
            session,
            self._fact(name, "identity", last_seq),
            self._fact(name, "dtcs", last_seq),
            next_ms=period.next_ms,
            lost=tuple(lost.values()),
            lost_after=tuple(_losses(period.lost_after).values()),
        )
        try:
            sealed = self.sealer.seal(built, self.outbox.epoch, seq)
        except ValueError as error:
            self._log.error("{count} rows are lost: {why}", count=len(period.rows), why=error)
            return None
        return _Made(built, sealed, [row for row in period.rows if row.seq < session.seq], session.at_ms)

    def _lost(self, rows: list[Row], reason: str, until_ms: int = 0) -> Lost:
        """Return what it is that rows are lost, dated by those that are sound, or else by what is before and after."""
        sound = [row for row in rows if row.body is not None]
        if sound:
            return Lost(sound[0].session, sound[0].at_ms, sound[-1].at_ms + 1, "readings", len(rows), reason)
        end_ms = self.outbox.end_ms(self.readings.file_id)
        return Lost(None, end_ms, max(end_ms, until_ms), "readings", len(rows), reason)

    def _periods(self, after_seq: int, *, closing: bool, ended: str) -> Iterator[_Period]:
        """Yield each closed period of what comes after that row.

        A corrupt row belongs to the period in hand, whatever it says of itself: it must not end the period.
        """
        group: list[Row] = []
        lost: list[Row] = []
        lost_after: list[Row] = []
        of: tuple[str, int] | None = None
        periods: dict[str, int] = {}
        for row in self._rows(after_seq):
            if row.kind == "lost" and row.body is not None:
                lost_after.append(row)
                continue
            key = None if row.body is None else self._key(row, periods)
            if of is not None and key is not None and key != of:
                yield _Period(group, row.at_ms if key[0] == of[0] else None, lost, lost_after)
                group, lost, of = [], [], None
            if len(group) > 2 * MAX_READINGS:
                # More than any recorder makes; the last one stays, as the cursor moves past it.
                group.pop()
            group.append(row)
            lost += lost_after
            lost_after = []
            of = of or key
        if group and (closing or (of is not None and of[0] == ended)):
            yield _Period(group, next_ms=None, lost=lost, lost_after=lost_after)

    def _rows(self, seq: int) -> Iterator[Row]:
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
    """Return what rows declare, by the outbox's keys; where it was not known there, by one that it never gives.

    Those beyond what a packet may tell were never written by this recorder.
    """
    told = ((row.seq, *minute.read_lost(row.body)) for row in rows[:MAX_LIST] if row.body is not None)
    return {key or f"/{seq}": lost for seq, key, lost in told}
