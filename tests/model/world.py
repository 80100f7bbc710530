"""One car, two persisters on one archive, and a router that may do anything: the real ends, joined by a model.

Real: recorder's file, compactor, outbox, uplink, link, trust, intake, persister, judge, archive, and the chain of the
server's keys. Model: router, feed, registry, clocks, the order of retention's steps (`spool.py` has it, with tests of
its own), and the moments at which something dies. What is on the way stands in lists: whoever drives this world chooses
what arrives, where, how often, in which order, or never.

What is claimed, of every run that these tests make (the ledger holds it after each step, and at the end):

* At the instant a receipt leaves, what it says is true: `stored` and `duplicate` have their document, `rejected` its
  dead letter, `conflict` the second content kept aside. No other receipt changes anything at the edge.
* A packet is made once: made again it has the same plaintext, whatever died. What is stored stays, byte for byte.
* The edge forgets a packet after a receipt for that very envelope, or declares it in the same commit.
* When all faults are over, in bounded time: each reading that was on the card is in exactly one packet; each packet is
  stored once, or was given up (a spool over its bound, an outbox that was lost after its rows had gone) and is declared
  by a packet that is stored; each event of what is stored is fed, and always with the same content. Nothing else is.
* Never more packets are on their way than the window has room for.

Faults: both ends and the router die at any call or moment; packets, receipts and answers are lost, doubled, exchanged,
broken, forged; archive and feed are away, slow, or lose their answers; the registry forgets, suspends, revokes; the
clock is corrected; the outbox is lost; the server's keys rotate and the car's key changes; another content comes under
a stored packet's id.

Not claimed: more than one car, a readings file that breaks (tests/unit/test_edge_card), a card that takes no bytes,
keys that are past their 45 days, real time, and how far a loss reaches whose session nobody knows any more.
"""

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest.mock import patch

from autobahn.wamp.exception import ApplicationError, TransportLost
from twisted.internet.defer import ensureDeferred

from components.cloud import wamp_intake
from components.cloud.sqlite_archive import SqliteArchive
from components.wire import bundle, receipt
from components.wire.bundle import key_id
from tests.edge_parts import T0, reading_row, session_row
from tests.fake_stores import MemoryFeed
from tests.model.ends import (
    PERIOD_S,
    QUEUE,
    WINDOW,
    Details,
    EdgeProcess,
    EdgeSession,
    Known,
    NoProcedures,
    PersisterProcess,
    Road,
)
from tests.model.keys import Server, car_pubkey, is_by
from tests.model.ledger import Ledger
from tests.model.mortal import PowerCutError

_RAM: Final = "/dev/shm"  # noqa: S108 - a disk that forgets costs a fifteenth; what is committed is seen all the same
_ALARMS: Final = 60
"""Rounds within which all is quiet once the faults are over, and a dozen more for each packet."""


class World(Road):
    """Everything, with what may happen to it as methods. `close()` it."""

    def __init__(self, seed: int = 0) -> None:
        self.directory = Path(tempfile.mkdtemp(dir=_RAM if Path(_RAM).is_dir() else None, prefix="odograph-model-"))
        self.spool = self.directory / "spool"
        self.spool.mkdir()
        self.random = Random(seed).random  # noqa: S311 - jitter
        self.known: Known | None = Known()
        self.feed = MemoryFeed()
        self.archive = SqliteArchive(self.directory / "archive.db")
        server = Server()
        (self.spool / "server.pub.json").write_text(bundle.dump(server.keys.newest))
        ledger = Ledger(self.spool / "outbox.db", self.directory / "archive.db", server.opened)
        super().__init__(ledger, server)
        self.now_ms = T0
        self.base_ms = 0
        self.car_key = 0
        self._sessions = 0
        self._speed = 0
        self._patches = ExitStack()
        self._patches.enter_context(patch.object(wamp_intake, "_now_ms", lambda: self.now_ms))
        self._patches.enter_context(patch.object(wamp_intake, "MAX_WAITING", QUEUE))
        self._patches.enter_context(patch.object(receipt, "_is_by", is_by))
        self.persisters = [self._persister() for _ in range(2)]
        self._begin_run()

    # The car.

    @property
    def session_name(self) -> str:
        return f"{self._sessions:016x}"

    def begin_session(self, offset_ms: int) -> str:
        """Record on another clock base from now on; return the session before."""
        before = self.session_name
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
            session = self.session_name
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
        self._declare()
        if edge.is_alive:
            edge.link.kept(edge.outbox.waiting(before - 1), fresh=not ended)

    def clock_corrected(self, offset_ms: int) -> None:
        before = self.begin_session(offset_ms)
        self.compact(ended=before)

    def forget(self, keep_ms: int) -> None:
        """Forget what has a receipt since `keep_ms` and the rows of no packet, as spool.py has it."""
        edge = self.edge
        with suppress(PowerCutError):
            ran_ms = edge.ran_ms()
            edge.seen_outbox.forget(ran_ms - keep_ms, ran_ms, 3)
            self._forget_rows(edge.outbox.first_row_kept(edge.reader.file_id))

    def make_room(self, packets: int) -> None:
        """Forget all that a spool over its bound forgets, as spool.py has it, and so many unsent packets."""
        self.forget(-1)
        edge = self.edge
        with suppress(PowerCutError):
            self._forget_rows(edge.outbox.row_after(edge.reader.file_id, edge.writer.floor(), 20))
            edge.seen_outbox.forget_unsent(packets, "bound")
        self.ledger.look_at_outbox()
        self._declare()

    def _forget_rows(self, kept: int) -> None:
        edge = self.edge
        kept = max(edge.writer.floor(), kept)
        edge.writer.forget(kept, 4, edge.outbox.bare_ms(edge.reader.file_id, kept))

    def _declare(self) -> None:
        """Losses are written down, so that packets tell of them, as spool.py has it."""
        edge = self.edge
        with suppress(PowerCutError):
            losses = edge.outbox.undeclared()
            edge.seen_writer.declare(self.session_name, self.now_ms + self.base_ms, losses)

    def boot_edge(self, *, lose_outbox: bool = False) -> None:
        """The agent ends as by a power cut, and runs again."""
        self.leave()
        self.edge.die()
        self.ledger.look_at_outbox()
        if lose_outbox:
            for path in self.spool.glob("outbox.db*"):
                path.unlink()
            self.ledger.outbox_was_lost()
        self._begin_run()

    def _begin_run(self) -> None:
        """The agent runs, and takes up what an earlier run left behind, as spool.py has it."""
        edge = self.edge = EdgeProcess(self.spool, self.random, self.car_key)
        self.begin_session(0)
        file_id = edge.reader.file_id
        last_row, bare, at_ms = edge.writer.last_row(file_id), edge.writer.bare(), self.now_ms + self.base_ms
        edge.outbox.follow(file_id, last_row, self.session_name, at_ms, bare)
        self._declare()
        edge.link.kept(edge.outbox.waiting(), fresh=False)
        self.compact()
        edge.passed.clear()

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

    def contradict(self, name: str, persister: int) -> None:
        """A persister is handed another content of a stored packet, by the car's own key: of a card that was cloned."""
        other = replace(self.ledger.minutes[name].packet, config_hash="d" * 16)
        self.ledger.contradicted.add(name)
        self.hand(self.edge.compactor.sealer.seal(other, "e" * 16, 1), persister)

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

    def deliver(self, persisters: Sequence[int] = (0, 1)) -> None:
        """Hand over all that is on the way: packets to each of these persisters, so that each has as many receipts."""
        while self.answers:
            self.answered(0, taken=True)
        while self.published:
            for one in persisters[:-1]:
                self.bring(0, one, again=True)
            self.bring(0, persisters[-1])
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
        # A loss travels with the readings that follow it.
        self.record()
        self.compact(closing=True)
        self.look()
        most = _ALARMS + 12 * len(self.ledger.minutes)
        for turn in range(most):
            self.deliver([turn % 2])
            for number in range(2):
                self.sweep(number)
            if self.edge.link.uplink.idle and not self.archive.pending(2**62, 1):
                break
            calls: Any = self.edge.clock.getDelayedCalls()
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

    def _persister(self) -> PersisterProcess:
        return PersisterProcess(self, self.archive, self.feed, self._sender)

    def _sender(self, _device: str, kid: str) -> Known | None:
        """Answer as the registry does: with the key that the packet names, if the car ever had it, or that of now."""
        pubkeys = [car_pubkey(number) for number in range(self.car_key + 1)]
        named = {key_id(bytes.fromhex(one)): one for one in pubkeys}
        return self.known and replace(self.known, pubkey=named.get(kid, pubkeys[-1]))

    def _bury(self) -> None:
        """What has died is there again."""
        for number, one in enumerate(self.persisters):
            if not one.is_alive:
                one.die()
                self.persisters[number] = self._persister()
        if not self.edge.is_alive:
            self.boot_edge()
