"""Packets in from the router, receipts out to the devices, stored packets on to the feed. Rim.

What waits is bounded; whatever waits is stored as one batch. The feed runs beside and never delays a receipt; what it
could not feed, a sweep finds in the archive.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

from autobahn.twisted.wamp import ApplicationSession
from autobahn.wamp.types import EventDetails, SubscribeOptions
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from components import packet_log
from components.cloud.events import events
from components.cloud.judge import Addressee, Arrival
from components.cloud.persister import Persister, Result
from components.cloud.ports import MAX_WEIGHT, Feed, FeedEvent, StoredPacket
from components.lane import Lane
from components.wire import receipt, topics
from components.wire.errors import RejectedError, UnavailableError
from components.wire.receipt import Receipt

MAX_WAITING: Final = 1024
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
_MAX_BATCH: Final = 256
_FEED_BATCH: Final = 64
_MAX_FEED_WAITING: Final = 512
_MAX_EVENTS: Final = 10_000
"""Published at once, where several packets give more: an event is a few KB."""
SWEEP_AFTER_MS: Final = 10_000


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Intake:
    """Serves one session with the router after the other; the queue and the stores outlive them.

    Args:
        sign: Makes signed receipts' bytes of receipts, by the key that goes with the kid of the envelopes.
        lane: Where packets are stored, width 1.
        feed_lane: Where they are fed and marked, width 1: a receipt does not wait for that.
        turned: Called when both lanes have turned with work, or with a look whether there is any, whatever the stores
            said.

    Attributes:
        fed: Packets that were announced.
        unfit: Ids of stored packets that cannot be fed; they stay pending, for another version of this.
        lag_s: From the end of a packet's period until it was stored, summed over the new ones.
        newest_s: End of the newest period that was stored, s since the epoch; None before the first.
        trouble: What each store last said that kept it from its work; "" while it does it.
    """

    persister: Persister
    feed: Feed
    lane: Lane
    feed_lane: Lane
    shards: Sequence[str]
    sign: Callable[[str, Sequence[Receipt]], bytes]
    turned: Callable[[], object] = lambda: None
    fed: int = 0
    unfit: set[str] = field(default_factory=set)
    lag_s: float = 0.0
    newest_s: float | None = None
    trouble: dict[str, str] = field(default_factory=lambda: {"archive": "", "feed": ""})
    _session: ApplicationSession | None = None
    _queue: deque[Arrival] = field(default_factory=deque)
    _queued_bytes: int = 0
    _to_feed: deque[StoredPacket] = field(default_factory=deque)
    _draining: bool = False
    _feeding: bool = False
    _stopping: bool = False
    _quiet: list[Deferred[None]] = field(default_factory=list)
    _log = Logger()

    @property
    def connected(self) -> bool:
        """Whether a session with the router is there now."""
        return self._session is not None and self._session.is_attached()

    @property
    def waiting(self) -> dict[str, int]:
        """How many packets are in hand, by what they wait for, and the size of those to be judged."""
        return {"intake": len(self._queue), "feed": len(self._to_feed), "bytes": self._queued_bytes}

    async def attend(self, session: ApplicationSession) -> None:
        """Subscribe to the shards; returns when packets can come."""
        self._session = session
        options = SubscribeOptions(match="prefix", details_arg="details")
        for shard in self.shards:
            await session.subscribe(self._on_packet, topics.packet_prefix(shard), options=options)

    def start(self) -> None:
        """Let the stores make what they need (indexes, topics) before all else; one that is away makes it later."""
        self._start(self._prepare(), "stores not prepared")

    async def _prepare(self) -> None:
        archive, feed = self.persister.archive.insert, self.feed.publish
        for store, lane, make in (("archive", self.lane, archive), ("feed", self.feed_lane, feed)):
            try:
                await lane.run(make, [])
            except UnavailableError as error:
                self.trouble[store] = str(error)
                self._log.warn("not there yet: {error}", error=error)

    async def stop(self) -> None:
        """Take no more packets; return when those in hand are stored, receipted and tried at the feed."""
        self._stopping = True
        if self._draining or self._feeding:
            quiet = Deferred[None]()
            self._quiet.append(quiet)
            await quiet

    def sweep(self) -> None:
        """Feed what lies in the archive unfed for 10 s, whoever stored it."""
        if not self._stopping and not self._feeding:
            self._feeding = True
            self._start(self._feed_all(sweeping=True), "sweep failed")

    def _on_packet(self, *args: Any, details: EventDetails, **_kwargs: Any) -> None:  # noqa: ANN401 - whatever comes
        envelope = args[0] if len(args) == 1 and type(args[0]) is bytes else b""
        arrival = Arrival(str(details.topic), envelope, details.publisher_authid, _now_ms())
        if self._stopping:
            return
        if len(self._queue) >= MAX_WAITING or self._queued_bytes + len(envelope) > MAX_WAITING_BYTES:
            if (to := arrival.addressee) is not None:
                self._send(to, [self.persister.refuse(arrival, "queue_full")])
            return
        self._queue.append(arrival)
        self._queued_bytes += len(envelope)
        if not self._draining:
            self._draining = True
            self._start(self._drain(), "batch failed")

    async def _drain(self) -> None:
        try:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), _MAX_BATCH))]
                self._queued_bytes -= sum(len(one.envelope) for one in batch)
                try:
                    self._answer(await self.lane.run(self.persister.persist, batch))
                except Exception:  # noqa: BLE001 - whatever it is, the packets behind must go through
                    # Nobody has a receipt for these; their devices send them again.
                    self._log.failure("batch of {count} failed", count=len(batch))
        finally:
            self._draining = False
            self._settle()

    def _answer(self, result: Result) -> None:
        if result.unavailable not in {"", self.trouble["archive"]}:
            self._log.error("archive: {trouble}", trouble=result.unavailable)
        self.trouble["archive"] = result.unavailable
        if result.unavailable and self._stopping:
            # Nobody has a receipt for these; an end takes one time-out, not one for each batch.
            self._queue.clear()
        by_addressee: dict[Addressee, list[Receipt]] = defaultdict(list)
        for to, one in result.receipts:
            by_addressee[to].append(one)
        for to, receipts in by_addressee.items():
            self._send(to, receipts)
        for stored in result.stored:
            end_s = stored.start_ms / 1000 + cast("int", stored.packet["period_s"])
            self.lag_s += max(0.0, stored.received_ms / 1000 - end_s)
            self.newest_s = max(self.newest_s or 0.0, end_s)
        # What does not fit is in the archive as pending; the sweep takes it.
        if sum(one.weight for one in self._to_feed) < MAX_WEIGHT:
            self._to_feed.extend(result.stored[: max(0, _MAX_FEED_WAITING - len(self._to_feed))])
        if self._to_feed and not self._feeding:
            self._feeding = True
            self._start(self._feed_all(), "feed failed")

    def _send(self, to: Addressee, receipts: Sequence[Receipt]) -> None:
        session = self._session
        if session is not None and session.is_attached():
            for first in range(0, len(receipts), receipt.MAX_RECEIPTS):
                part = receipts[first : first + receipt.MAX_RECEIPTS]
                session.publish(topics.receipt(to.device), self.sign(to.server_kid, part))

    async def _feed_all(self, *, sweeping: bool = False) -> None:
        try:
            going = not sweeping or await self._sweep()
            while going and self._to_feed:
                batch = [self._to_feed.popleft() for _ in range(min(len(self._to_feed), _FEED_BATCH))]
                going = await self._feed(batch)
        finally:
            # What is left is in the archive as pending; a sweep takes it.
            self._to_feed.clear()
            self._feeding = False
            self._settle()

    async def _sweep(self) -> bool:
        """Feed what is pending; False when feed or archive is away."""
        archive = self.persister.archive
        try:
            while not self._stopping:
                # The batch in hand, if there is one: what has turned then are both lanes.
                await self.lane.run(lambda: None)
                with self._noting("archive"):
                    before_ms = _now_ms() - SWEEP_AFTER_MS
                    found = await self.feed_lane.run(archive.pending, before_ms, _FEED_BATCH, self.unfit)
                self.turned()
                if not found:
                    break
                if not await self._feed(found):
                    return False
        except UnavailableError:
            self.turned()
            return False
        return True

    async def _feed(self, batch: Sequence[StoredPacket]) -> bool:
        """Announce packets and mark them; False when a store is away, and they stay pending."""
        try:
            with self._noting("feed"):
                fed = await self.feed_lane.run(self._announce, batch)
            with self._noting("archive"):
                await self.feed_lane.run(self.persister.archive.mark_fed, fed)
        except UnavailableError:
            self.turned()
            return False
        self.fed += len(fed)
        for packet_id in fed:
            packet_log.tell(self._log, "fed", packet_id)
        self.turned()
        return True

    @contextmanager
    def _noting(self, store: str) -> Iterator[None]:
        """Keep what a store says while it is away, and say it once."""
        try:
            yield
        except UnavailableError as error:
            if str(error) != self.trouble[store]:
                self._log.warn("{store}: {error}; packets stay pending", store=store, error=error)
            self.trouble[store] = str(error)
            raise
        self.trouble[store] = ""

    def _announce(self, batch: Sequence[StoredPacket]) -> list[str]:
        """Publish the events of a batch; return the ids of its packets but those that cannot be fed."""
        fed: list[str] = []
        together: list[StoredPacket] = []
        weight = 0
        for one in batch:
            weight += one.weight
            if together and weight > _MAX_EVENTS:
                fed += self._publish(together)
                together, weight = [], one.weight
            together.append(one)
        return fed + self._publish(together)

    def _publish(self, together: Sequence[StoredPacket]) -> list[str]:
        announced: list[FeedEvent] = []
        fit: list[StoredPacket] = []
        for one in together:
            try:
                announced += list(events(one))
                fit.append(one)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other packets must go through
                self._set_aside(one, error)
        try:
            self.feed.publish(announced)
        except RejectedError as error:
            if len(fit) > 1:
                return [packet_id for one in fit for packet_id in self._publish([one])]
            self._set_aside(fit[0], error)
            return []
        return [one.id for one in fit]

    def _set_aside(self, one: StoredPacket, error: Exception) -> None:
        self._log.error("{id} is stored and cannot be fed: {error}", id=one.id, error=error)
        self.unfit.add(one.id)

    def _start(self, work: Any, words: str) -> None:  # noqa: ANN401 - a coroutine
        ensureDeferred(work).addErrback(lambda failure: self._log.failure(words, failure))

    def _settle(self) -> None:
        if not self._draining and not self._feeding:
            waiting, self._quiet = self._quiet, []
            for quiet in waiting:
                quiet.callback(None)
