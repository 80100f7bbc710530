"""The persister's intake with nothing real around it: lanes that run at once or wait, a session, stores in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred

from components.cloud.judge import Judge
from components.cloud.persister import Persister
from components.cloud.ports import Outcome, StoredPacket
from components.cloud.wamp_intake import Intake
from components.wire import topics
from components.wire.receipt import Receipt
from tests.fake_stores import MemoryArchive, MemoryFeed
from tests.sealed import KID, Known, server

T = TypeVar("T")
TOPIC = topics.packet("car_one")


@dataclass
class InlineLane:
    """A lane whose calls run at once, or when `release` is called while it is `held`."""

    held: bool = False
    waiting: list[Deferred[None]] = field(default_factory=list)

    async def run(self, call: Callable[..., T], *args: object) -> T:
        if self.held:
            self.waiting.append(gate := Deferred[None]())
            await gate
        return call(*args)

    def release(self) -> None:
        self.held = False
        while self.waiting:
            self.waiting.pop(0).callback(None)


@dataclass
class FakeSession:
    """A session with the router: what was subscribed and published."""

    attached: bool = True
    subscribed: dict[str, Callable[..., None]] = field(default_factory=dict)
    receipts: list[tuple[str, list[Receipt]]] = field(default_factory=list)

    def is_attached(self) -> bool:
        return self.attached

    async def subscribe(self, hear: Callable[..., None], topic: str, options: Any) -> None:  # noqa: ANN401
        assert options.match == "prefix"
        self.subscribed[topic] = hear

    def publish(self, topic: str, receipts: list[Receipt]) -> None:
        self.receipts.append((topic, receipts))


@dataclass(frozen=True)
class Details:
    """Of an event, what the intake looks at."""

    topic: str
    publisher_authid: str | None


class CountingArchive(MemoryArchive):
    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def insert(self, packets: Sequence[StoredPacket]) -> list[Outcome]:
        self.batches.append(len(packets))
        return super().insert(packets)


class Cloud:
    """An intake with stores in memory; receipts stay what they are instead of being signed."""

    def __init__(self, archive: CountingArchive | None = None) -> None:
        self.archive, self.feed = archive or CountingArchive(), MemoryFeed()
        self.lane, self.feed_lane = InlineLane(), InlineLane()
        persister = Persister(Judge(lambda: {KID: server()}, lambda *_: Known()), self.archive)
        lane: Any = self.lane
        feed_lane: Any = self.feed_lane
        self.signed_for: list[str] = []

        def sign(kid: str, receipts: Sequence[Receipt]) -> Any:  # noqa: ANN401 - not bytes here
            self.signed_for.append(kid)
            return list(receipts)

        self.intake = Intake(persister, self.feed, lane, feed_lane, ["00", topics.shard("car_one")], sign)
        self.session = self.join()

    def join(self) -> FakeSession:
        session = FakeSession()
        joining: Any = session
        ensureDeferred(self.intake.attend(joining))
        return session

    def hear(self, *envelopes: object, topic: str = TOPIC, publisher: str = "car_one") -> None:
        details = Details(topic, publisher)
        hear = self.session.subscribed[topics.packet_prefix(topics.shard("car_one"))]
        for one in envelopes:
            hear(one, details=details)

    def statuses(self) -> list[str]:
        return [one.status for _, receipts in self.session.receipts for one in receipts]

    def codes(self) -> list[str | None]:
        return [one.code for _, receipts in self.session.receipts for one in receipts]

    def fed(self) -> set[str]:
        return {event.id for event in self.feed.events}
