"""An archive and a feed in memory, held to the same contract suites as the real ones.

For tests of what uses a store. `away = True` makes every call fail as a store does that cannot be reached; a feed's
`fails_after` makes the next publish fail half way, with the first events already there.
"""

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence

from components.cloud.ports import DeadLetter, FeedEvent, Outcome, StoredPacket, page
from components.wire.errors import UnavailableError


class MemoryArchive:
    """An Archive for a test; its three dicts may be looked into."""

    def __init__(self) -> None:
        self.away = False
        self.packets: dict[str, StoredPacket] = {}
        self.to_feed: set[str] = set()
        self.conflicts: dict[tuple[str, str], StoredPacket] = {}
        self.dead_letters: dict[str, DeadLetter] = {}

    def _answer(self) -> None:
        if self.away:
            raise UnavailableError("the archive is away")

    def insert(self, packets: Sequence[StoredPacket]) -> list[Outcome]:
        self._answer()
        return [self._insert(packet) for packet in packets]

    def _insert(self, packet: StoredPacket) -> Outcome:
        first = self.packets.get(packet.id)
        if first is None:
            self.packets[packet.id] = packet
            self.to_feed.add(packet.id)
            return "stored"
        if first.plaintext_sha256 == packet.plaintext_sha256:
            return "duplicate"
        self.conflicts.setdefault((packet.id, packet.plaintext_sha256), packet)
        return "conflict"

    def put_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        self._answer()
        for letter in letters:
            self.dead_letters.setdefault(letter.envelope_sha256, letter)

    def pending(self, before_ms: int, limit: int, but: Collection[str] = ()) -> list[StoredPacket]:
        self._answer()
        waiting = (self.packets[id_] for id_ in self.to_feed if id_ not in but)
        old = (packet for packet in waiting if packet.received_ms < before_ms)
        return page(sorted(old, key=lambda packet: packet.received_ms), limit)

    def mark_fed(self, ids: Sequence[str]) -> None:
        self._answer()
        self.to_feed.difference_update(ids)

    def minutes(
        self, device: str, since_ms: int | None = None, until_ms: int | None = None, account: str | None = None
    ) -> Iterator[StoredPacket]:
        self._answer()
        found = [
            packet
            for packet in self.packets.values()
            if packet.device == device
            and (account is None or packet.account == account)
            and (since_ms is None or packet.start_ms >= since_ms)
            and (until_ms is None or packet.start_ms < until_ms)
        ]
        yield from sorted(found, key=lambda packet: (packet.start_ms, packet.session))

    def latest(self, device: str, account: str | None = None) -> StoredPacket | None:
        *_, last = (None, *self.minutes(device, account=account))
        return last

    def counts(self) -> Mapping[str, int]:
        self._answer()
        stores = {"packets": self.packets, "pending": self.to_feed}
        return {
            **{name: len(store) for name, store in stores.items()},
            "conflicts": len(self.conflicts),
            "dead_letters": len(self.dead_letters),
        }

    def close(self) -> None:
        pass


class MemoryFeed:
    """A Feed for a test; what was published is in `events`."""

    def __init__(self) -> None:
        self.away = False
        self.fails_after: int | None = None
        self.events: list[FeedEvent] = []
        self.changed = threading.Condition()

    def publish(self, events: Sequence[FeedEvent]) -> None:
        if self.away:
            raise UnavailableError("the feed is away")
        taken, self.fails_after = events[: self.fails_after], None
        with self.changed:
            self.events.extend(taken)
            self.changed.notify_all()
        if len(taken) < len(events):
            raise UnavailableError("the feed went away half way")

    def close(self) -> None:
        pass


class MemoryFeedReader:
    """A FeedReader on a MemoryFeed."""

    def __init__(self, feed: MemoryFeed) -> None:
        self._feed = feed
        self._closed = False

    def read(self, *, from_start: bool, follow: bool) -> Iterator[FeedEvent]:
        end = len(self._feed.events)
        return (
            self._follow(0 if from_start else end)
            if follow
            else iter(self._feed.events[0 if from_start else end : end])
        )

    def _follow(self, place: int) -> Iterator[FeedEvent]:
        while True:
            with self._feed.changed:
                while not self._closed and len(self._feed.events) <= place:
                    self._feed.changed.wait()
                if self._closed:
                    return
                event = self._feed.events[place]
            place += 1
            yield event

    def close(self) -> None:
        with self._feed.changed:
            self._closed = True
            self._feed.changed.notify_all()
