"""How this device learns of the server's newer keys: it asks for the bundle that follows, step by step. Rim.

It asks once a session, for a server may have gone several steps while the device was away, and when a receipt announces
another key than the one that is believed; for the same one once a minute. Who answers need not be trusted: a bundle
follows or it does not.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from autobahn.twisted.wamp import ApplicationSession
from autobahn.wamp.exception import ApplicationError, SerializationError, TransportLost
from Crypto.PublicKey import ECC
from twisted.internet.defer import Deferred, TimeoutError, ensureDeferred  # noqa: A004 - Twisted's own
from twisted.logger import Logger

from components.edge.trust import Trust
from components.lane import Lane
from components.timers import Timers
from components.wire import topics
from components.wire.errors import ConfigError, RejectedError

_ASK_EVERY_S: Final = 60.0
_ANSWER_S: Final = 30.0
"""A persister that was cut off may never answer, and its router need not tell: another is asked then."""
_MOST_STEPS: Final = 1000


@dataclass(slots=True)
class WampTrust:
    """Keeps a Trust up to date over one session with the router after the other.

    Args:
        reactor: Its `seconds` is elapsed time.
        keep: Keeps the text of a bundle for the next run; blocking, OSError when it cannot.
    """

    reactor: Timers
    trust: Trust
    keep: Callable[[str], None]
    lane: Lane
    _asking: bool = False
    _announced: str = ""
    _not_before: float = float("-inf")
    _refused: set[str] = field(default_factory=set)
    _log = Logger()

    @property
    def receipt_keys(self) -> tuple[ECC.EccKey, ...]:
        """The keys by which receipts may be signed."""
        return self.trust.receipt_keys

    def joined(self, session: ApplicationSession) -> None:
        """A session is there: ask what followed while there was none."""
        self._begin(session)

    def announced(self, session: ApplicationSession | None, kid: str) -> None:
        """A receipt that counts names the server's newest bundle."""
        now = self.reactor.seconds()
        if session is not None and kid != self.trust.kid and (kid != self._announced or now >= self._not_before):
            self._announced, self._not_before = kid, now + _ASK_EVERY_S
            self._begin(session)

    def _begin(self, session: ApplicationSession) -> None:
        if not self._asking:
            self._asking = True
            ensureDeferred(self._climb(session)).addErrback(lambda f: self._log.failure("no newer keys", f))

    async def _climb(self, session: ApplicationSession) -> None:
        try:
            for _ in range(_MOST_STEPS):
                text = await self._within(_ANSWER_S, session.call(topics.fleet_procedure("bundle"), self.trust.kid))
                if type(text) is not str:
                    break
                self.trust.follow(text)
                self._log.info("the server's key is {kid} from now on", kid=self.trust.kid)
                await self._keep(text)
        except (TransportLost, ApplicationError, SerializationError, TimeoutError) as error:
            self._log.debug("nobody tells of newer keys now: {error}", error=error)
        except (RejectedError, ConfigError) as error:
            if str(error) not in self._refused:
                self._log.error("a bundle of server keys that is not believed: {error}", error=error)
            self._refused = {*self._refused, str(error)} if len(self._refused) < _MOST_STEPS else set()
        finally:
            self._asking = False

    def _within(self, within_s: float, asked: Deferred[object]) -> Deferred[object]:
        """Return what gives the answer, or TimeoutError; the question itself is let be.

        When its session is lost, Autobahn leaves it without an answer, and fails where it is told to cancel it.
        """
        waiting = Deferred[object]()
        asked.addCallbacks(waiting.callback, waiting.errback)
        return waiting.addTimeout(within_s, cast("Any", self.reactor))

    async def _keep(self, text: str) -> None:
        try:
            await self.lane.run(self.keep, text)
        except OSError as error:
            # It is asked for again after the next start.
            self._log.error("the server's new keys cannot be kept on the card: {error}", error=error)
