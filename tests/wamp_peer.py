"""Peers for tests: the reactor in a thread of its own, and a session that a test can hold like a file."""
# ruff: noqa: ANN401 - what Autobahn hands out has no types

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, cast

from autobahn.twisted.component import Component
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import PublishOptions, RegisterOptions, SubscribeOptions
from twisted.internet import reactor as _reactor  # noqa: TID251 - tests are a __main__ of their own
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread

from components.keyfile import KeyFile
from components.wire.topics import REALM
from tests.waiting import PATIENCE_S

T = TypeVar("T")
reactor = cast("Any", _reactor)
_start = threading.Lock()


class RefusedJoinError(Exception):
    """The router did not let the peer in; the text is its answer."""


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` in the reactor's thread and return what it returns; TimeoutError when that does not come."""
    with _start:
        if not reactor.running:
            ready = threading.Event()
            reactor.callWhenRunning(ready.set)
            threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True).start()
            assert ready.wait(PATIENCE_S)

    async def whole() -> T:
        return await work()

    def begin() -> Any:
        return Deferred.fromCoroutine(whole()).addTimeout(PATIENCE_S, reactor)

    return cast("T", blockingCallFromThread(reactor, begin))


async def comes(holds: Callable[[], object]) -> None:
    """Wait for a condition beside all else that the reactor does; `run` has the deadline."""
    while not holds():
        await deferLater(reactor, 0.02)


@dataclass
class Peer:
    """A joined session; `with Peer(url, key) as peer`. Its calls block and raise what the router answers."""

    url: str
    key: KeyFile
    session: Any = None
    details: Any = None
    events: list[tuple[Any, ...]] = field(default_factory=list)
    _heard: threading.Condition = field(default_factory=threading.Condition)

    def __enter__(self) -> Self:
        run(self._join)
        return self

    def __exit__(self, *_: object) -> None:
        if self.session is not None and self.session.is_attached():
            run(self._leave)

    @staticmethod
    async def forever() -> None:
        """Return never: for a procedure that does not answer."""
        await Deferred()

    def publish(self, topic: str, *args: object, **options: object) -> Any:
        chosen = PublishOptions(acknowledge=True, **options)
        return run(lambda: self.session.publish(topic, *args, options=chosen))

    def publish_until_dropped(self, topic: str, *args: object) -> None:
        """Publish what ends the connection, and return when it has ended; TimeoutError when it does not."""

        async def publish() -> None:
            gone = self._gone()
            self.session.publish(topic, *args)
            await gone

        run(publish)

    def subscribe(self, topic: str, match: str = "exact") -> Any:
        options = SubscribeOptions(match=match, details=True)
        return run(lambda: self.session.subscribe(self._hear, topic, options=options))

    def register(self, procedure: str, answer: Callable[..., object], **options: object) -> Any:
        chosen = RegisterOptions(details=True, **options)
        return run(lambda: self.session.register(answer, procedure, options=chosen))

    def call(self, procedure: str, *args: object, **kwargs: object) -> Any:
        return run(lambda: self.session.call(procedure, *args, **kwargs))

    def hear(self, count: int = 1) -> list[tuple[Any, ...]]:
        """Wait until `count` events (topic, publisher's authid, publisher's role, arguments) came; return them all."""
        with self._heard:
            assert self._heard.wait_for(lambda: len(self.events) >= count, PATIENCE_S), self.events
            return list(self.events)

    def _hear(self, *args: object, details: Any = None) -> None:
        with self._heard:
            self.events.append((details.topic, details.publisher_authid, details.publisher_authrole, args))
            self._heard.notify_all()

    async def _join(self) -> None:
        component = Component(
            transports=[{"url": self.url, **_transport(self.url), "max_retries": 0}],
            realm=REALM,
            authentication={"cryptosign": {"authid": self.key.authid, "privkey": self.key.private_key}},
            is_fatal=lambda _: True,
        )
        joined: Deferred[None] = Deferred()

        @component.on_join  # type: ignore[untyped-decorator]
        def on_join(session: Any, details: Any) -> None:
            self.session, self.details = session, details
            joined.callback(None)

        @component.on_leave  # type: ignore[untyped-decorator]
        def on_leave(_: Any, details: Any) -> None:
            if not joined.called:
                joined.errback(RefusedJoinError(f"{details.reason}: {details.message}"))

        ended = component.start(reactor)
        ended.addErrback(lambda failure: None if joined.called else joined.errback(failure))
        await joined

    async def _leave(self) -> None:
        gone = self._gone()
        self.session.leave()
        await gone

    def _gone(self) -> Deferred[None]:
        gone: Deferred[None] = Deferred()
        self.session.on("disconnect", lambda *_, **__: gone.callback(None))
        return gone


def _transport(url: str) -> dict[str, object]:
    if url.startswith("rs"):
        return {"type": "rawsocket", "serializer": "cbor"}
    return {"type": "websocket", "serializers": ["cbor"]}


def refusal(of: Callable[..., object], *args: object, **options: object) -> str:
    """Return the error URI with which the router refuses this call of a Peer's method; "" when it does not."""
    try:
        of(*args, **options)
    except ApplicationError as error:
        return str(error.error)
    return ""
