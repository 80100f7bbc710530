"""The persister as a process, wired: registry, keys, stores, lanes, intake, fleet procedures. Wiring, nothing else."""

import contextlib
import random
from typing import Any, Final

from autobahn.twisted.component import Component
from autobahn.twisted.wamp import ApplicationSession
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import LoopingCall, deferLater

from components import keyfile
from components.cloud.config import Server
from components.cloud.judge import Judge
from components.cloud.keys import load_server_keys, public_bundle
from components.cloud.persister import Persister
from components.cloud.sqlite_registry import Registry
from components.cloud.stores import open_archive, open_archive_reader, open_feed
from components.cloud.wamp_fleet import Fleet
from components.cloud.wamp_intake import SWEEP_AFTER_MS, Intake
from components.lane import Lane
from components.wire import bundle, receipt
from components.wire.topics import REALM


class PersistComponent(Component):
    """A persister as an Autobahn component; it reconnects for ever.

    Raises:
        OperatorError: The registry, the keys or a store cannot be opened; the text says what to do.
    """

    def __init__(self, reactor: Any, server: Server) -> None:  # noqa: ANN401 - a reactor is many interfaces
        key = keyfile.read_key_file(server.keys.persister)
        # RawSocket has no pings; this process sits beside its router, where half-open links are rare.
        websocket = server.router.url.startswith("ws")
        super().__init__(  # type: ignore[no-untyped-call]
            main=self._attend,
            realm=REALM,
            transports=[
                {
                    "type": "websocket" if websocket else "rawsocket",
                    "url": server.router.url,
                    ("serializers" if websocket else "serializer"): ["cbor"] if websocket else "cbor",
                    "max_retries": -1,
                    "initial_retry_delay": 0.5,
                    "max_retry_delay": 3.0,
                    "retry_delay_jitter": 0.3,
                }
            ],
            authentication={"cryptosign": {"authid": key.authid, "privkey": key.private_key}},
        )
        base = server.keys.dir.parent
        keys = load_server_keys(server.keys.dir)
        self._registry = Registry.open(server.registry.path)
        self._archive, self._reader = (
            open_archive(server.archive.uri, base),
            open_archive_reader(server.archive.uri, base),
        )
        self._feed = open_feed(server.feed.uri, base)
        self._lane, self._feed_lane, self._read_lane = (Lane(reactor, name) for name in ("archive", "feed", "fleet"))
        self.intake = Intake(
            Persister(Judge(keys.unwrap, self._registry.device), self._archive),
            self._feed,
            self._lane,
            self._feed_lane,
            server.intake.shard_ids(),
            lambda receipts: receipt.sign(receipts, keys.newest_kid, keys.receipt_key.sign),
        )
        self._fleet_registry = Registry.open(server.registry.path)
        self._fleet = Fleet(self._reader, self._fleet_registry, self._read_lane, bundle.dump(public_bundle(keys)))
        self._sweep = LoopingCall(self.intake.sweep)
        self._finishing: Deferred[None] | None = None

    def start(self, reactor: Any = None) -> Deferred[None]:  # noqa: ANN401 - as Component's
        """Keep the session; fires when `finish` is through."""
        return ensureDeferred(self._run(reactor))

    def finish(self) -> None:
        """End in order: store and receipt the batch in hand, then leave."""
        if self._finishing is None:
            self._finishing = ensureDeferred(self._finish())

    async def _run(self, reactor: Any) -> None:  # noqa: ANN401
        for lane in (self._lane, self._feed_lane, self._read_lane):
            lane.start()
        self.intake.start()
        self._sweep.clock = reactor
        self._sweep.start(SWEEP_AFTER_MS / 1000)
        while self._finishing is None:
            with contextlib.suppress(Exception):
                # Component has logged it; a router that says goodbye ends Component's own loop.
                await super().start(reactor)  # type: ignore[no-untyped-call]
            if self._finishing is None:
                await deferLater(reactor, _PAUSE_S + random.random())  # noqa: S311 - jitter
        await self._finishing

    async def _attend(self, _reactor: Any, session: ApplicationSession) -> None:  # noqa: ANN401
        """Serve a session; never returns, as Component leaves the session when this does."""
        await self._fleet.attend(session)
        await self.intake.attend(session)
        await Deferred[None]()

    async def _finish(self) -> None:
        self._sweep.stop()
        await self.intake.stop()
        with contextlib.suppress(Exception):
            await super().stop()  # type: ignore[no-untyped-call]
        for lane in (self._lane, self._feed_lane, self._read_lane):
            await lane.close()
        # The reader first: SQLite puts its log away when the writer is the last to go.
        for store in (self._reader, self._archive, self._feed, self._registry, self._fleet_registry):
            store.close()


_PAUSE_S: Final = 0.5
