"""The persister as a process, wired: registry, keys, stores, lanes, intake, fleet procedures. Wiring, nothing else."""

from collections.abc import Sequence
from typing import Any, Final

from autobahn.twisted.wamp import ApplicationSession
from twisted.internet.task import LoopingCall

from components import wamp_transport
from components.cloud.config import Server
from components.cloud.judge import Judge
from components.cloud.keys import KeyRing
from components.cloud.outside import Outside
from components.cloud.persister import Persister
from components.cloud.sqlite_registry import Registry
from components.cloud.stores import open_archive, open_archive_reader, open_feed
from components.cloud.wamp_enrol import Enrolment
from components.cloud.wamp_fleet import Fleet
from components.cloud.wamp_intake import SWEEP_AFTER_MS, Intake
from components.lane import Lane
from components.lasting_component import LastingComponent
from components.wire import bundle, receipt
from components.wire.errors import OdographError
from components.wire.receipt import Receipt
from components.wire.topics import REALM

_RECONNECT: Final = {"initial_retry_delay": 0.5, "max_retry_delay": 3.0}


class PersistComponent(LastingComponent):
    """A persister as an Autobahn component.

    Raises:
        OperatorError: The registry, the keys or a store cannot be opened; the text says what to do.
    """

    def __init__(self, reactor: Any, server: Server) -> None:  # noqa: ANN401 - a reactor is many interfaces
        # RawSocket has no pings; this process sits beside its router, where half-open links are rare.
        transport = wamp_transport.transport(server.router.url, server.router.ca) | _RECONNECT
        key, words = server.keys.persister, "the attempts go on"
        super().__init__(REALM, key, transport, words, server.metrics.listen, server.router.ca)
        base = server.keys.dir.parent
        ring = KeyRing(server.keys.dir)
        self._registry = Registry.open(server.registry.path)
        self._archive, self._reader = (
            open_archive(server.archive.uri, base),
            open_archive_reader(server.archive.uri, base),
        )
        self._feed = open_feed(server.feed.uri, base)
        self._lane, self._feed_lane, self._read_lane = (Lane(reactor, name) for name in ("archive", "feed", "fleet"))
        self.intake = Intake(
            Persister(Judge(lambda: ring.keys().unwrap, self._registry.sender), self._archive),
            self._feed,
            self._lane,
            self._feed_lane,
            server.intake.shard_ids(),
            lambda kid, receipts: _signed(ring, kid, receipts),
            lambda: self.pulse.beat(reactor.seconds()),
        )
        self._fleet_registry = Registry.open(server.registry.path)
        self._fleet = Fleet(self._reader, self._fleet_registry, self._read_lane, ring.keys)
        self._enrolment = Enrolment(server.registry.path, self._read_lane, lambda: bundle.dump(ring.keys().newest))
        self._sweep = LoopingCall(self.intake.sweep)
        self._minute = LoopingCall(self._note_refusals)

    async def begin(self, reactor: Any) -> None:  # noqa: ANN401 - a reactor is many interfaces
        """Open the lanes, prepare the stores."""
        for lane in (self._lane, self._feed_lane, self._read_lane):
            lane.start()
        self.intake.start()
        self._sweep.clock = reactor
        self._sweep.start(SWEEP_AFTER_MS / 1000)
        self._minute.clock = reactor
        self._minute.start(60, now=False)

    async def _note_refusals(self) -> None:
        try:
            await self._enrolment.minute()
        except OdographError as error:
            self._log.warn("refusals wait for the audit log: {error}", error=error)
        except Exception:  # noqa: BLE001 - a LoopingCall would end, and stopping it would keep `end` from its work
            self._log.failure("refusals are not noted")

    def view(self) -> Outside:
        """Return the persister, seen from outside."""
        return Outside(self.intake)

    async def attend(self, session: ApplicationSession) -> None:
        """Take packets, answer operators, enrol devices."""
        await self._fleet.attend(session)
        await self._enrolment.attend(session)
        await self.intake.attend(session)

    async def end(self) -> None:
        """Store, receipt and feed what is in hand."""
        for call in (self._sweep, self._minute):
            if call.running:
                call.stop()
        await self.intake.stop()
        await self._note_refusals()
        for lane in (self._lane, self._feed_lane, self._read_lane):
            await lane.close()
        # The reader first: SQLite puts its log away when the writer is the last to go.
        for store in (self._reader, self._archive, self._feed, self._registry, self._fleet_registry):
            store.close()


def _signed(ring: KeyRing, kid: str, receipts: Sequence[Receipt]) -> bytes:
    keys = ring.keys()
    return receipt.sign(receipts, keys.newest.kid, keys.signer(kid))
