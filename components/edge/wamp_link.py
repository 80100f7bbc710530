"""The session with the router: packets out, receipts in, procedures offered. Rim.

It obeys `uplink` and decides nothing itself. A session is taken as it comes and done with when it goes; the packets'
state is in the outbox, not here.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from autobahn.exception import PayloadExceededError
from autobahn.twisted.wamp import ApplicationSession
from autobahn.wamp.exception import ApplicationError, SerializationError, TransportLost
from autobahn.wamp.types import PublishOptions, RegisterOptions
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from components.edge.sqlite_outbox import SqliteOutbox, Waiting
from components.edge.uplink import Uplink
from components.edge.wamp_trust import WampTrust
from components.lane import Lane
from components.packet_log import Event, tell
from components.timers import Timer, Timers
from components.wamp_procedure import guarded
from components.wire import envelope, receipt, topics
from components.wire.errors import RejectedError

_RETRY_AFTER_S = 5
_COUNTED = (*receipt.STATUSES, "published", "foreign", "bad")
_AWAY = (TransportLost, ApplicationError, SerializationError, PayloadExceededError)


class Procedures(Protocol):
    """What operators may ask of a device; by the name in topics.DEVICE_PROCEDURES."""

    def procedures(self) -> Mapping[str, Callable[..., Awaitable[object]]]:
        """Return the procedures by name."""


@dataclass(slots=True)
class WampLink:
    """Moves the packets of one outbox to the router, and the server's receipts back into the outbox.

    Args:
        reactor: Its `seconds` is elapsed time.
        trust: Whose receipts count.
        ran_ms: Time that agents have run, for retention.
        remake: Seals a packet again (Compactor.remake); blocking, in the outbox's lane.

    Attributes:
        counts: Packets published; receipts by status; of those `foreign` ones, about nothing that waits here (another
            device's, or heard before); messages that are no receipts of the server (`bad`, and `bad.<check>`).
    """

    reactor: Timers
    device: str
    uplink: Uplink
    outbox: SqliteOutbox
    outbox_lane: Lane
    trust: WampTrust
    ran_ms: Callable[[], int]
    remake: Callable[[int], str | None]
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTED, 0))
    _session: ApplicationSession | None = None
    _seqs: dict[str, int] = field(default_factory=dict)
    _ids: dict[str, str | None] = field(default_factory=dict)
    """Of the packets that were published, by the hash of their envelopes; for the log."""
    _alarm: Timer | None = None
    _drained: Deferred[None] | None = None
    _log = Logger()

    @property
    def connected(self) -> bool:
        """Whether a session with the router is there now."""
        return self._session is not None

    async def attend(self, session: ApplicationSession, device: Procedures) -> None:
        """Serve one session; returns when everything is registered and the first packets are on their way."""
        session.on("leave", self._on_leave)
        session.on("disconnect", self._on_leave)
        await session.subscribe(self._on_receipts, topics.receipt(self.device))
        # A half-open session of ours may still hold the procedures.
        options = RegisterOptions(force_reregister=True, details_arg="details")
        for name, procedure in device.procedures().items():
            await session.register(guarded(procedure), topics.device_procedure(self.device, name), options=options)
        self._session = session
        self.tell("online", {})
        self.trust.joined(session)
        self._publish(self.uplink.joined(self.reactor.seconds()))

    def kept(self, packets: Iterable[Waiting], *, fresh: bool) -> None:
        """Take packets that are in the outbox: `fresh` ones just made, others found there at the start."""
        added = {one.sha256: one.seq for one in packets}
        self._seqs |= added
        self._publish(self.uplink.kept(added.values(), self.reactor.seconds(), fresh=fresh))

    def begin_outbox(self, uplink: Uplink) -> None:
        """The outbox is another file now: what was known of its packets is of no use."""
        self.uplink = uplink
        self._seqs.clear()
        self._ids.clear()
        if self._session is not None:
            self._publish(self.uplink.joined(self.reactor.seconds()))

    def tell(self, name: str, what: Mapping[str, object]) -> None:
        """Tell operators that something happened; nobody hears it while there is no session."""
        if self._session is not None and self._session.is_attached():
            self._session.publish(topics.event(self.device), {"event": name, "device": self.device, **what})

    async def drained(self, timeout_s: float, away_s: float) -> None:
        """Hurry, and return when every packet has its receipt.

        Args:
            timeout_s: Return after that in any case.
            away_s: Return after that if there is no session with the router then; what waits is on the card.
        """
        self._publish(self.uplink.closing(self.reactor.seconds()))
        if self.uplink.idle:
            return
        done = self._drained = Deferred[None]()

        def give_up(*, even_if_connected: bool) -> None:
            if not done.called and (even_if_connected or not self.connected):
                done.callback(None)

        alarms = [
            self.reactor.callLater(timeout_s, lambda: give_up(even_if_connected=True)),
            self.reactor.callLater(away_s, lambda: give_up(even_if_connected=False)),
        ]
        await done
        for alarm in alarms:
            if alarm.active():
                alarm.cancel()

    def end(self) -> None:
        """Publish no more; the outbox may be closed after this."""
        self._session = None
        self.uplink.left()
        self._arm()

    def _on_leave(self, session: ApplicationSession, _details: object = None, **_kwargs: object) -> None:
        if session is self._session:
            self.end()

    def _publish(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            ensureDeferred(self._send(seq)).addErrback(lambda f: self._log.failure("publish failed", f))
        self._arm()
        if self.uplink.idle and self._drained is not None and not self._drained.called:
            self._drained.callback(None)

    async def _send(self, seq: int) -> None:
        sealed = await self.outbox_lane.run(self.outbox.envelope, seq)
        if sealed is not None and self._seqs.get(receipt.digest(sealed)) != seq:
            # Not what was sealed: no receipt would ever be found to be about it.
            sealed = await self._remade(seq)
        if sealed is None:
            self._publish(self.uplink.settled([seq], self.reactor.seconds()))
            return
        session = self._session
        if session is None or not session.is_attached():
            return
        name = receipt.digest(sealed)
        self._ids[name] = envelope.packet_id(sealed)
        try:
            self.counts["published"] += 1
            await session.publish(topics.packet(self.device), sealed, options=PublishOptions(acknowledge=True))
            self._say("published", name, seq=seq)
        except _AWAY as error:
            self._say("not_taken", name, seq=seq, why=error)
            self._publish(self.uplink.failed(seq, self.reactor.seconds()))

    async def _remade(self, seq: int) -> bytes | None:
        """Have a packet sealed again if it must be; return its envelope, None where it does not wait any more."""
        name = await self.outbox_lane.run(self.remake, seq)
        for sha256 in [sha256 for sha256, one in self._seqs.items() if one == seq and sha256 != name]:
            del self._seqs[sha256]
            self._ids.pop(sha256, None)
        if name is None:
            return None
        self._seqs[name] = seq
        return await self.outbox_lane.run(self.outbox.envelope, seq)

    def _on_receipts(self, *args: Any, **_kwargs: Any) -> None:  # noqa: ANN401 - whatever the topic brings
        try:
            if len(args) != 1 or type(args[0]) is not bytes:
                raise RejectedError("grammar", "receipts are one byte string")  # noqa: TRY301 - one way out
            receipts, newest_kid = receipt.verify(args[0], self.trust.receipt_keys)
        except RejectedError as error:
            for name in ("bad", f"bad.{error.code}"):
                self.counts[name] = self.counts.get(name, 0) + 1
            self._log.warn("receipts that do not count: {error}", error=error)
            return
        self.trust.announced(self._session, newest_kid)
        ensureDeferred(self._settle(receipts)).addErrback(lambda f: self._log.failure("receipts not kept", f))

    async def _settle(self, receipts: Iterable[receipt.Receipt]) -> None:
        marks: list[tuple[str, Literal["receipted", "rejected"], str | None]] = []
        stale: list[tuple[int, str, int]] = []
        now = self.reactor.seconds()
        for one in receipts:
            self.counts[one.status] += 1
            self.counts["foreign"] += one.envelope_sha256 not in self._seqs
            if one.status == "retry":
                if (seq := self._seqs.get(one.envelope_sha256)) is not None:
                    after_s = _RETRY_AFTER_S if one.retry_after_s is None else one.retry_after_s
                    self._publish(self.uplink.retry(seq, after_s, now))
                    self._say("retried", one.envelope_sha256, code=one.code, after_s=after_s)
                    if one.code == "unknown_server_key":
                        stale.append((seq, one.envelope_sha256, after_s))
                continue
            marks.append((one.envelope_sha256, "rejected" if one.status == "rejected" else "receipted", one.code))
        seqs = await self.outbox_lane.run(self.outbox.settle, marks, self.ran_ms())
        for sha256, state, code in marks:
            self._say(state, sha256, code=code)
            self._seqs.pop(sha256, None)
            self._ids.pop(sha256, None)
        self._publish(self.uplink.settled(seqs, self.reactor.seconds()))
        # Last, as one that fails must not cost the others' receipts.
        for seq, name, after_s in stale:
            sealed = await self._remade(seq)
            if sealed is None:
                self._publish(self.uplink.settled([seq], self.reactor.seconds()))
            elif receipt.digest(sealed) == name:
                self._publish(self.uplink.put_back(seq, after_s, self.reactor.seconds()))

    def _say(self, event: Event, name: str, **facts: object) -> None:
        tell(self._log, event, self._ids.get(name), envelope=name, **facts)

    def _arm(self) -> None:
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        self._alarm = None
        at = self.uplink.wake_at()
        if at is not None:
            self._alarm = self.reactor.callLater(max(0.0, at - self.reactor.seconds()), self._woke)

    def _woke(self) -> None:
        self._publish(self.uplink.woke(self.reactor.seconds()))
