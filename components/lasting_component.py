"""An Autobahn component that wants its session for ever, and ends in order. Rim; both ends are one.

Component reconnects after a failure, but ends when a router says goodbye or when its `main` returns; this one goes on,
and joins with the key that its file has by then.
"""

import contextlib
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from autobahn.twisted.component import Component
from autobahn.twisted.wamp import ApplicationSession
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from components.keyfile import KeyFile, read_key_file
from components.metrics import Pulse, View
from components.wamp_transport import in_words
from components.wire.errors import ConfigError

_PAUSE_S: Final = 0.5
_JITTER: Final = 0.1
"""Autobahn draws the delay from a normal distribution of this relative width, does not clamp it at 0, and never tries
again after a negative draw: 10 sigma keeps that away, where the 3.3 of 0.3 would strand half a fleet in a day."""


class LastingComponent(Component):
    """What is served is a subclass's: `begin`, `attend` for each session, `end`.

    Args:
        key: The key file of who joins.
        transport: Autobahn's transport, without its number of retries, which is unbounded.
        meanwhile: What goes on without a session, in words, for the log.
        listen: Address at which it is seen from outside (`http_view`); "" for none.
        ca: The file of CAs in `transport`, for the log.

    Attributes:
        key: With which it joins.
        pulse: Of its working loop.

    Raises:
        ConfigError: The key file is missing or wrong.
    """

    def __init__(
        self,
        realm: str,
        key: Path,
        transport: Mapping[str, object],
        meanwhile: str,
        listen: str = "",
        ca: Path | None = None,
    ) -> None:
        self.key, self._key_path = read_key_file(key), key
        super().__init__(  # type: ignore[no-untyped-call]
            main=self._serve,
            realm=realm,
            transports=[{**transport, "max_retries": -1, "retry_delay_jitter": _JITTER}],
            authentication=_by_key(self.key),
        )
        self.pulse = Pulse()
        self._meanwhile = meanwhile
        self._listen = listen
        self._url = str(transport["url"])
        self._ca = ca
        self._joined = False
        self._port: Any = None
        self._trouble = self._key_trouble = ""
        self._finishing: Deferred[None] | None = None
        self._log = Logger(namespace=type(self).__module__)
        self.on("connectfailure", self._not_joined)  # type: ignore[no-untyped-call]

    async def begin(self, reactor: Any) -> None:  # noqa: ANN401 - a reactor is many interfaces
        """Start what does not need a session."""
        raise NotImplementedError

    def view(self) -> View:
        """Return how it is seen from outside; it has begun."""
        raise NotImplementedError

    def rekeyed(self, key: KeyFile) -> None:
        """Take up another key of the same peer; it joins with it from now on."""

    async def attend(self, session: ApplicationSession) -> None:
        """Serve a session that has just been joined; return when all is registered and subscribed."""
        raise NotImplementedError

    async def end(self) -> None:
        """Finish what is in hand, while the session is still there; let go of everything."""
        raise NotImplementedError

    def start(self, reactor: Any = None) -> Deferred[None]:  # noqa: ANN401 - as Component's
        """Begin, and keep the session; fires when `finish` is through."""
        return ensureDeferred(self._run(reactor))

    def finish(self) -> Deferred[None]:
        """End in order, then leave; called again, it waits for the same end."""
        if self._finishing is None:
            self._finishing = ensureDeferred(self._finish())
        waiting = Deferred[None]()

        def through(result: object) -> object:
            waiting.callback(None)
            return result

        self._finishing.addBoth(through)
        return waiting

    async def _run(self, reactor: Any) -> None:  # noqa: ANN401
        if self._is_ending():
            return
        await self.begin(reactor)
        self._show(reactor)
        reactor.addSystemEventTrigger("before", "shutdown", self.finish)
        while not self._is_ending():
            self._take_key()
            with contextlib.suppress(Exception):
                # `_not_joined` has told it.
                await super().start(reactor)  # type: ignore[no-untyped-call]
            if not self._is_ending():
                await deferLater(reactor, _PAUSE_S + random.random())  # noqa: S311 - jitter
        await self.finish()

    def _show(self, reactor: Any) -> None:  # noqa: ANN401
        if not self._listen:
            return
        # A web server, which most agents do without.
        from components import http_view  # noqa: PLC0415

        try:
            self._port = http_view.listen(reactor, self._listen, self.view(), self.pulse)
        except CannotListenError as error:
            # A car without a recorder is worse than one without metrics.
            self._log.error("metrics are not served at {address}: {error}", address=self._listen, error=error)

    def _is_ending(self) -> bool:
        return self._finishing is not None

    async def _serve(self, _reactor: Any, session: ApplicationSession) -> None:  # noqa: ANN401
        """Serve a session; never returns, as Component leaves the session when this does."""
        self._trouble, self._joined = "", True
        await self.attend(session)
        await Deferred[None]()

    def _not_joined(self, _component: Component, error: Exception) -> None:
        """Say once why there is no session, not at every attempt."""
        trouble = in_words(error, self._url, self._ca, joined=self._joined)
        if trouble != self._trouble:
            self._log.warn("no session with the router: {error}; {meanwhile}", error=trouble, meanwhile=self._meanwhile)
        self._trouble, self._joined = trouble, False
        self._take_key()

    def _take_key(self) -> None:
        """Look whether the file has another key: it is replaced while this runs, and the one before joins no more."""
        trouble, found = "", self.key
        try:
            found = read_key_file(self._key_path)
        except ConfigError as error:
            trouble = str(error)
        if (found.authid, found.role) != (self.key.authid, self.key.role):
            trouble = f"{self._key_path} is the key of {found.authid}, {found.role}"
        if trouble and trouble != self._key_trouble:
            self._log.warn("{trouble}; the key of before is tried", trouble=trouble)
        self._key_trouble = trouble
        if not trouble and found != self.key:
            self.key = found
            # Autobahn reads it for each session.
            self._authentication = _by_key(found)
            self.rekeyed(found)

    async def _finish(self) -> None:
        await self.end()
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        with contextlib.suppress(Exception):
            await super().stop()  # type: ignore[no-untyped-call]


def _by_key(key: KeyFile) -> dict[str, dict[str, str]]:
    return {"cryptosign": {"authid": key.authid, "privkey": key.private_key}}
