"""Packets in from the router, receipts out to the devices, stored packets on to the feed. Rim.

What waits is bounded; whatever waits is stored as one batch. The feed runs beside and never delays a receipt; what it
could not feed, a sweep finds in the archive.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from autobahn.twisted.wamp import ApplicationSession
from autobahn.wamp.types import EventDetails, SubscribeOptions
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from components.cloud.events import events
from components.cloud.judge import Addressee, Arrival
from components.cloud.persister import Persister, Result
from components.cloud.ports import Feed, FeedEvent, StoredPacket
from components.lane import Lane
from components.wire import receipt, topics
from components.wire.errors import BadInputError, UnavailableError
from components.wire.receipt import Receipt

MAX_WAITING: Final = 1024
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
_MAX_BATCH: Final = 256
_FEED_BATCH: Final = 64
_MAX_FEED_WAITING: Final = 512
_MAX_READINGS_WAITING: Final = 50_000
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
        lane: Of the archive's driver, width 1.
        feed_lane: Of the feed's driver, width 1.
    """

    persister: Persister
    feed: Feed
    lane: Lane
    feed_lane: Lane
    shards: Sequence[str]
    sign: Callable[[str, Sequence[Receipt]], bytes]
    fed: int = 0
    _session: ApplicationSession | None = None
    _queue: deque[Arrival] = field(default_factory=deque)
    _queued_bytes: int = 0
    _to_feed: deque[StoredPacket] = field(default_factory=deque)
    _draining: bool = False
    _feeding: bool = False
    _stopping: bool = False
    _quiet: list[Deferred[None]] = field(default_factory=list)
    _feed_trouble: str = ""
    _unreadable: set[str] = field(default_factory=set)
    _log = Logger()

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
        for lane, make in ((self.lane, self.persister.archive.insert), (self.feed_lane, self.feed.publish)):
            try:
                await lane.run(make, [])
            except UnavailableError as error:
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
        if result.unavailable:
            self._log.error("archive: {trouble}", trouble=result.unavailable)
        by_addressee: dict[Addressee, list[Receipt]] = defaultdict(list)
        for to, one in result.receipts:
            by_addressee[to].append(one)
        for to, receipts in by_addressee.items():
            self._send(to, receipts)
        # What does not fit is in the archive as pending; the sweep takes it.
        if sum(one.readings for one in self._to_feed) < _MAX_READINGS_WAITING:
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
        try:
            while not self._stopping:
                # What cannot be read stays pending, and must not fill the page.
                limit = _FEED_BATCH + len(self._unreadable)
                found = await self.lane.run(self.persister.archive.pending, _now_ms() - SWEEP_AFTER_MS, limit)
                if not found:
                    break
                if not await self._feed(found):
                    return False
        except UnavailableError as error:
            self._log.error("archive: {error}", error=error)
            return False
        return True

    async def _feed(self, batch: Sequence[StoredPacket]) -> bool:
        """Announce packets and mark them; False when none could be, and they stay pending."""
        try:
            fed = await self.feed_lane.run(self._announce, batch)
            await self.lane.run(self.persister.archive.mark_fed, fed)
        except UnavailableError as error:
            if str(error) != self._feed_trouble:
                self._log.warn("feed: {error}; packets stay pending", error=error)
            self._feed_trouble = str(error)
            return False
        self._feed_trouble = ""
        self.fed += len(fed)
        return bool(fed)

    def _announce(self, batch: Sequence[StoredPacket]) -> list[str]:
        """Publish the events of a batch; return the ids of its packets but those that this version cannot read."""
        announced: list[FeedEvent] = []
        ids: list[str] = []
        for one in batch:
            if len(announced) + one.readings > _MAX_EVENTS:
                self.feed.publish(announced)
                announced = []
            try:
                announced += list(events(one))
            except BadInputError as error:
                if one.id not in self._unreadable:
                    self._log.error("{id} is stored and cannot be fed: {error}", id=one.id, error=error)
                self._unreadable.add(one.id)
            else:
                ids.append(one.id)
        self.feed.publish(announced)
        return ids

    def _start(self, work: Any, words: str) -> None:  # noqa: ANN401 - a coroutine
        ensureDeferred(work).addErrback(lambda failure: self._log.failure(words, failure))

    def _settle(self) -> None:
        if not self._draining and not self._feeding:
            waiting, self._quiet = self._quiet, []
            for quiet in waiting:
                quiet.callback(None)
