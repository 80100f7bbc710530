"""One car, two persisters on one archive, and a router that may do anything: the real ends, joined by a model.

Real: recorder's file, compactor, outbox, uplink, link, trust, intake, persister, judge, archive. Model: router, feed,
clocks, and the moments at which something dies. What is on the way stands in lists: whoever drives this world chooses
what arrives, where, how often, in which order, or never.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, Literal
from unittest.mock import patch

from autobahn.wamp.exception import ApplicationError, TransportLost
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock

from components.cloud import wamp_intake
from components.cloud.judge import Judge
from components.cloud.persister import Persister
from components.cloud.sqlite_archive import SqliteArchive
from components.cloud.wamp_intake import Intake
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.sqlite_readings import ReadingsReader, ReadingsWriter
from components.edge.uplink import Uplink
from components.edge.wamp_link import WampLink
from components.wire import receipt, topics
from components.wire.errors import UnavailableError
from components.wire.receipt import Receipt
from tests.edge_parts import (
    T0,
    HeldLane,
    InlineLane,
    as_lane,
    compactor,
    ed25519,
    reading_row,
    server_private_key,
    session_row,
    wamp_trust,
)
from tests.fake_stores import MemoryFeed
from tests.model.ledger import Ledger
from tests.model.mortal import Mortal, PowerCutError, Seam

DEVICE: Final = "car_one"
PERIOD_S: Final = 5
SERVER, THIEF = 2, 3
"""Seeds of the key that signs receipts, and of one that may not."""
QUEUE: Final = 3
"""Packets that a persister lets wait here; more get `retry`."""
WINDOW: Final = 4
_RAM: Final = "/dev/shm"  # noqa: S108 - a disk that forgets costs a fifteenth; what is committed is seen all the same
_ALARMS: Final = 60
"""Rounds within which all is quiet once the faults are over, and a dozen more for each packet."""


def signed(one: Receipt, seed: int = SERVER) -> bytes:
    """Return a receipt as the server would send it, or as a thief with a key of his own."""
    return _sign([one], seed)


def _sign(receipts: Sequence[Receipt], seed: int) -> bytes:
    return receipt.sign(receipts, "a" * 16, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32).sign)


@dataclass
class Known:
    """The car in the registry."""

    state: str = "active"
    account: str = ""
    vehicle: str = ""
    driver: str = ""
    pubkey: str = field(default_factory=lambda: ed25519(1).public_key().export_key(format="raw").hex())


class EdgeSession:
    """The edge's side of the router."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.attached = True
        self.hear: Callable[..., None]
        self.handlers: dict[str, Callable[..., None]] = {}

    def on(self, event: str, handler: Callable[..., None]) -> None:
        self.handlers[event] = handler

    def subscribe(self, handler: Callable[..., None], topic: str) -> Deferred[object]:
        assert topic == topics.receipt(DEVICE)
        self.hear = handler
        return succeed(None)

    def call(self, *_: object) -> Deferred[object]:
        return succeed(None)

    def is_attached(self) -> bool:
        return self.attached

    def publish(self, topic: str, payload: object, options: object = None) -> Deferred[object]:
        del options
        answer = Deferred[object]()
        if topic == topics.packet(DEVICE):
            assert isinstance(payload, bytes)
            self._world.published.append(payload)
            self._world.answers.append(answer)
        return answer


class PersisterSession:
    """A persister's side of the router: what it says of packets must be true when it says it."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.attached = True
        self.hear: Callable[..., None]

    def is_attached(self) -> bool:
        return self.attached

    async def subscribe(self, handler: Callable[..., None], topic: str, options: object) -> None:
        del topic, options
        self.hear = handler

    def publish(self, topic: str, data: bytes) -> None:
        assert topic == topics.receipt(DEVICE)
        for one in self._world.said[data]:
            self._world.ledger.receipt_left(one)
        self._world.receipts.append(data)


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

    def __init__(self, world: "World") -> None:
        super().__init__()
        self.clock = Clock()
        self.writer = ReadingsWriter(world.spool / "readings.db")
        self.reader = ReadingsReader(world.spool / "readings.db")
        self.outbox = SqliteOutbox(world.spool / "outbox.db")
        moving: Any = self.outbox
        moving._move = self.guard("move", self.outbox._move, ("inside", "after"))
        seen: Any = Seam(self, self.outbox, ("add", "settle", "forget"))
        self.seen_outbox = seen
        self.began_ms = self.outbox.ran_ms
        self.compactor = compactor(self.reader, seen)
        self.link = WampLink(
            self.clock,
            DEVICE,
            Uplink(PERIOD_S / 2, world.random, WINDOW),
            seen,
            as_lane(InlineLane()),
            wamp_trust(self.clock, SERVER),
            self.ran_ms,
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

    def __init__(self, world: "World") -> None:
        super().__init__()
        self._world = world
        self.lane = HeldLane()
        self.lane.is_holding = False
        self.archive = SharedArchive(world.archive)
        archive: Any = Seam(self, self.archive, ("insert", "put_dead_letters", "pending", "mark_fed"))
        feed: Any = Seam(self, world.feed, ("publish",))
        judge = Judge(lambda: {"a" * 16: server_private_key()}, lambda _: world.known)
        self.intake = Intake(
            Persister(judge, archive), feed, as_lane(self.lane), as_lane(InlineLane()), ["00"], world.sign
        )
        self.join()

    def join(self) -> None:
        self.session = PersisterSession(self._world)
        session: Any = self.session
        ensureDeferred(self.intake.attend(session))

    def die(self) -> None:
        self.is_alive = False
        self.session.attached = False


class World:
    """Everything, with what may happen to it as methods. `close()` it.

    Attributes:
        published, receipts: What the router has taken and not brought yet; it may bring it more than once.
        answers: The router's answers to publications.
        said: What the server signed, by its bytes.
    """

    def __init__(self, seed: int = 0) -> None:
        self.directory = Path(tempfile.mkdtemp(dir=_RAM if Path(_RAM).is_dir() else None, prefix="odograph-model-"))
        self.spool = self.directory / "spool"
        self.spool.mkdir()
        self.random = Random(seed).random  # noqa: S311 - jitter
        self.known: Known | None = Known()
        self.feed = MemoryFeed()
        self.archive = SqliteArchive(self.directory / "archive.db")
        self.ledger = Ledger(self.spool / "outbox.db", self.directory / "archive.db")
        self.published: list[bytes] = []
        self.receipts: list[bytes] = []
        self.answers: list[Deferred[object]] = []
        self.said: dict[bytes, Sequence[Receipt]] = {}
        self.now_ms = T0
        self.base_ms = 0
        self._sessions = 0
        self._speed = 0
        self._patches = ExitStack()
        self._patches.enter_context(patch.object(wamp_intake, "_now_ms", lambda: self.now_ms))
        self._patches.enter_context(patch.object(wamp_intake, "MAX_WAITING", QUEUE))
        self.persisters = [PersisterProcess(self) for _ in range(2)]
        self.edge = EdgeProcess(self)
        self.session_is_new = True
        self.begin_session(0)

    def sign(self, _kid: str, receipts: Sequence[Receipt]) -> bytes:
        data = _sign(receipts, SERVER)
        self.said[data] = receipts
        return data

    # The car.

    def begin_session(self, offset_ms: int) -> str:
        """Record on another clock base from now on; return the session before."""
        before = f"{self._sessions:016x}"
        self._sessions += 1
        self.base_ms += offset_ms
        self.session_is_new = True
        return before

    def record(self, count: int = 1) -> None:
        """Readings come, one in 2 s."""
        for _ in range(count):
            self.advance(2)
            at_ms = self.now_ms + self.base_ms
            rows = [session_row(at_ms, period_s=PERIOD_S)] if self.session_is_new else []
            session = f"{self._sessions:016x}"
            self._speed = (self._speed + 1) % 200
            self.edge.writer.append(session, [*rows, reading_row(at_ms, self._speed)])
            self.session_is_new = False
            self.ledger.rows.append((session, at_ms, self._speed))

    def compact(self, *, closing: bool = False, ended: str = "") -> None:
        """Packets are made, as agent.py has it."""
        edge = self.edge
        before = edge.outbox.next_seq()
        with suppress(PowerCutError):
            edge.compactor.compact(closing=closing, ended=ended)
        self.ledger.look_at_outbox()
        if edge.is_alive:
            edge.link.kept(edge.outbox.waiting(before - 1), fresh=not ended)

    def clock_corrected(self, offset_ms: int) -> None:
        before = self.begin_session(offset_ms)
        self.compact(ended=before)

    def forget(self, keep_ms: int) -> None:
        """Retention, as agent.py has it; over the disk bound `keep_ms` is less than nothing."""
        edge = self.edge
        with suppress(PowerCutError):
            ran_ms = edge.ran_ms()
            edge.seen_outbox.forget(ran_ms - keep_ms, ran_ms, 3)
            edge.writer.forget(edge.outbox.first_row_kept(edge.reader.file_id), 4)

    def boot_edge(self, *, lose_outbox: bool = False) -> None:
        """The agent ends as by a power cut, and runs again."""
        self.leave()
        self.edge.die()
        if lose_outbox:
            for path in self.spool.glob("outbox.db*"):
                path.unlink()
            self.ledger.outbox_was_lost()
        self.edge = EdgeProcess(self)
        self.begin_session(0)
        self.edge.link.kept(self.edge.outbox.waiting(), fresh=False)
        self.compact()

    def advance(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)
        with suppress(PowerCutError):
            self.edge.clock.advance(seconds)

    # The router.

    def join(self) -> None:
        if self.edge.session is None:
            session: Any = EdgeSession(self)
            self.edge.session = session
            ensureDeferred(self.edge.link.attend(session, NoProcedures()))

    def leave(self) -> None:
        """The edge's session is lost; answers that were due never come."""
        session, self.edge.session = self.edge.session, None
        if session is not None:
            session.attached = False
            session.handlers["leave"](session)
        answers, self.answers = self.answers, []
        for answer in answers:
            answer.errback(TransportLost())

    def router_dies(self) -> None:
        """All sessions are lost, and what it had taken."""
        self.leave()
        self.published, self.receipts = [], []
        for one in self.persisters:
            one.session.attached = False
            one.join()

    def answered(self, index: int, *, taken: bool) -> None:
        """The router says of a publication that it took it, or that it did not."""
        answer = self.answers.pop(index)
        if taken:
            answer.callback(object())
        else:
            answer.errback(ApplicationError("wamp.error.not_authorized"))

    def bring(self, index: int, persister: int, *, again: bool = False) -> None:
        """A persister is handed a packet; `again`: not for the last time."""
        envelope = self.published[index] if again else self.published.pop(index)
        self.hand(envelope, persister)

    def hand(self, envelope: bytes, persister: int) -> None:
        one = self.persisters[persister]
        with suppress(PowerCutError):
            one.session.hear(envelope, details=Details())
        self._bury()

    def hand_garbage(self, envelope: bytes, persister: int) -> None:
        """A persister is handed what nobody sealed."""
        self.ledger.garbage.add(receipt.digest(envelope))
        self.hand(envelope, persister)

    def return_receipt(self, index: int, *, again: bool = False) -> None:
        """The edge is handed receipts, if it has a session."""
        data = self.receipts[index] if again else self.receipts.pop(index)
        self.hand_receipt(data)

    def hand_receipt(self, data: bytes) -> None:
        if self.edge.session is None:
            return
        for one in self.said.get(data, ()):
            self.ledger.receipt_heard(one)
        with suppress(PowerCutError):
            self.edge.session.hear(data)

    def deliver(self) -> None:
        """Hand over all that is on the way: packets to both persisters, so that each has two receipts."""
        while self.answers:
            self.answered(0, taken=True)
        while self.published:
            self.bring(0, 0, again=True)
            self.bring(0, 1)
        while self.receipts:
            self.return_receipt(0)

    # The server.

    def sweep(self, persister: int) -> None:
        one = self.persisters[persister]
        with suppress(PowerCutError):
            one.intake.sweep()
        self._bury()

    def hold(self, persister: int) -> None:
        """The archive is slow from now on: packets wait."""
        self.persisters[persister].lane.is_holding = True

    def let_go(self, persister: int) -> None:
        """It is as quick as ever."""
        one = self.persisters[persister]
        one.lane.is_holding = False
        with suppress(PowerCutError):
            while one.lane.queue:
                one.lane.release()
        self._bury()

    def kill_persister(self, persister: int) -> None:
        self.persisters[persister].die()
        self._bury()

    # What is true at the end.

    def look(self) -> None:
        """Hold what is there against what may be there."""
        self._bury()
        self.ledger.look(self.feed.events)
        flights = self.edge.link.uplink._flights
        if len(flights) > WINDOW:
            self.ledger.wrong.append(f"{len(flights)} packets without a receipt are on their way")
        assert not self.ledger.wrong, self.ledger.wrong

    def heal(self) -> None:
        """The faults are over."""
        self.known = Known()
        self.feed.away, self.feed.fails_after = False, None
        self.edge.doom = None
        for number, one in enumerate(self.persisters):
            one.doom, one.archive.away = None, ""
            self.let_go(number)
        self.join()

    def quieten(self) -> None:
        """With nothing in the way, all is delivered and fed in bounded time."""
        self._bury()
        self.heal()
        self.compact(closing=True)
        self.look()
        most = _ALARMS + 12 * len(self.ledger.minutes)
        for _ in range(most):
            self.deliver()
            for number in range(2):
                self.sweep(number)
            if self.edge.link.uplink.idle and not self.archive.pending(2**62, 1):
                break
            calls: list[Any] = self.edge.clock.getDelayedCalls()
            alarms = [call.getTime() - self.edge.clock.seconds() for call in calls]
            self.advance(max(0.0, min(alarms, default=11.0)) + 0.001)
        else:
            self.ledger.wrong.append(f"not quiet after {most} rounds: {self.edge.outbox.counts()}")
        self.ledger.ended(self.feed.events)
        if self.edge.outbox.counts().waiting:
            self.ledger.wrong.append("idle, with packets that wait")
        assert not self.ledger.wrong, self.ledger.wrong

    def close(self) -> None:
        self._patches.close()
        self.edge.die()
        self.archive.close()
        shutil.rmtree(self.directory)

    def _bury(self) -> None:
        """What has died is there again."""
        for number, one in enumerate(self.persisters):
            if not one.is_alive:
                one.die()
                self.persisters[number] = PersisterProcess(self)
        if not self.edge.is_alive:
            self.boot_edge()
