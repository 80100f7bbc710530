"""The two ends as processes that may die: each made of the product's own parts, with a session that the model holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock

from components.cloud.judge import Judge
from components.cloud.persister import Persister
from components.cloud.sqlite_archive import SqliteArchive
from components.cloud.wamp_intake import Intake
from components.edge.compactor import Compactor
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.sqlite_readings import ReadingsReader, ReadingsWriter
from components.edge.trust import Trust
from components.edge.uplink import Uplink
from components.edge.wamp_link import WampLink
from components.edge.wamp_trust import WampTrust
from components.wire import bundle, topics
from components.wire.errors import UnavailableError
from components.wire.receipt import Receipt
from tests.edge_parts import HeldLane, InlineLane, as_lane
from tests.fake_stores import MemoryFeed
from tests.model.keys import Server, car_sealer
from tests.model.ledger import Ledger
from tests.model.mortal import Mortal, Seam

DEVICE: Final = "car_one"
PERIOD_S: Final = 5
QUEUE: Final = 3
"""Packets that a persister lets wait here; more get `retry`."""
WINDOW: Final = 4


@dataclass
class Known:
    """The car in the registry; its key is the one that a packet names, of those that it ever had."""

    state: str = "active"
    account: str = ""
    vehicle: str = ""
    driver: str = ""
    pubkey: str = ""


@dataclass
class Road:
    """What is on the way, in the router's hands, and the ledger of what passed.

    Attributes:
        published, receipts: Taken and not brought yet; they may be brought more than once.
        answers: The router's answers to publications.
        said: What the server signed, by its bytes.
    """

    ledger: Ledger
    server: Server
    published: list[bytes] = field(default_factory=list)
    receipts: list[bytes] = field(default_factory=list)
    answers: list[Deferred[object]] = field(default_factory=list)
    said: dict[bytes, Sequence[Receipt]] = field(default_factory=dict)

    def sign(self, kid: str, receipts: Sequence[Receipt]) -> bytes:
        """Sign as the server, and remember it."""
        data = self.server.sign(kid, receipts)
        self.said[data] = receipts
        return data


class EdgeSession:
    """The edge's side of the router."""

    def __init__(self, road: Road) -> None:
        self._road = road
        self.attached = True
        self.hear: Callable[..., None]
        self.handlers: dict[str, Callable[..., None]] = {}

    def on(self, event: str, handler: Callable[..., None]) -> None:
        self.handlers[event] = handler

    def subscribe(self, handler: Callable[..., None], topic: str) -> Deferred[object]:
        assert topic == topics.receipt(DEVICE)
        self.hear = handler
        return succeed(None)

    def call(self, procedure: str, after: str) -> Deferred[object]:
        assert procedure == topics.fleet_procedure("bundle")
        found = self._road.server.keys.following(after)
        return succeed(None if found is None else bundle.dump(found))

    def is_attached(self) -> bool:
        return self.attached

    def publish(self, topic: str, payload: object, options: object = None) -> Deferred[object]:
        del options
        answer = Deferred[object]()
        if topic == topics.packet(DEVICE):
            assert isinstance(payload, bytes)
            self._road.published.append(payload)
            self._road.answers.append(answer)
        return answer


class PersisterSession:
    """A persister's side of the router: what it says of packets must be true when it says it."""

    def __init__(self, road: Road) -> None:
        self._road = road
        self.attached = True
        self.hear: Callable[..., None]

    def is_attached(self) -> bool:
        return self.attached

    async def subscribe(self, handler: Callable[..., None], topic: str, options: object) -> None:
        del topic, options
        self.hear = handler

    def publish(self, topic: str, data: bytes) -> None:
        assert topic == topics.receipt(DEVICE)
        for one in self._road.said[data]:
            self._road.ledger.receipt_left(one)
        self._road.receipts.append(data)


@dataclass(frozen=True)
class Details:
    topic: str = topics.packet(DEVICE)
    publisher_authid: str = DEVICE


class NoProcedures:
    """No operator is in this world."""

    def procedures(self) -> dict[str, Any]:
        return {}


class EdgeProcess(Mortal):
    """One run of the agent."""

    def __init__(self, spool: Path, random: Callable[[], float], key: int) -> None:
        super().__init__()
        self.clock = Clock()
        card = spool / "server.pub.json"
        self.trust = Trust(bundle.parse(card.read_text()), "auto")
        self.writer = ReadingsWriter(spool / "readings.db")
        self.reader = ReadingsReader(spool / "readings.db")
        self.outbox = SqliteOutbox(spool / "outbox.db")
        moving: Any = self.outbox
        moving._move = self.guard("move", self.outbox._move, ("inside", "after"))
        seen: Any = Seam(self, self.outbox, ("add", "replace", "settle", "lose", "forget", "forget_unsent"))
        self.seen_outbox = seen
        self.seen_writer: Any = Seam(self, self.writer, ("declare",))
        self.began_ms = self.outbox.ran_ms
        self.compactor = Compactor(DEVICE, self.reader, seen, car_sealer(key, lambda: self.trust.sealing))
        self.link = WampLink(
            self.clock,
            DEVICE,
            Uplink(PERIOD_S / 2, random, WINDOW),
            seen,
            as_lane(InlineLane()),
            WampTrust(self.clock, self.trust, self.guard("keep", card.write_text), as_lane(InlineLane())),
            self.ran_ms,
            self.compactor.remake,
        )
        self.session: EdgeSession | None = None

    def ran_ms(self) -> int:
        return self.began_ms + int(self.clock.seconds() * 1000)

    def die(self) -> None:
        """Leave nothing but the files."""
        self.is_alive = False
        if self.session is not None:
            self.session.attached = False
        for file in (self.reader, self.writer, self.outbox):
            file.close()


class SharedArchive:
    """The one archive, as one persister reaches it. `away`: not at all, or its answers are lost."""

    def __init__(self, archive: SqliteArchive) -> None:
        self._archive = archive
        self.away: Literal["", "before", "after"] = ""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a method of the archive
        call = getattr(self._archive, name)

        def ask(*args: object) -> object:
            if self.away == "before":
                raise UnavailableError("the archive is away")
            answer = call(*args)
            if self.away == "after":
                raise UnavailableError("the answer was lost")
            return answer

        return ask


class PersisterProcess(Mortal):
    """One run of a persister."""

    def __init__(
        self, road: Road, archive: SqliteArchive, feed: MemoryFeed, known: Callable[[str, str], Known | None]
    ) -> None:
        super().__init__()
        self._road = road
        self.lane = HeldLane()
        self.lane.is_holding = False
        self.archive = SharedArchive(archive)
        seen: Any = Seam(self, self.archive, ("insert", "put_dead_letters", "pending", "mark_fed"))
        fed: Any = Seam(self, feed, ("publish",))
        judge = Judge(lambda: road.server.keys.unwrap, known)
        self.intake = Intake(Persister(judge, seen), fed, as_lane(self.lane), as_lane(InlineLane()), ["00"], road.sign)
        self.join()

    def join(self) -> None:
        self.session = PersisterSession(self._road)
        session: Any = self.session
        ensureDeferred(self.intake.attend(session))

    def die(self) -> None:
        self.is_alive = False
        self.session.attached = False
