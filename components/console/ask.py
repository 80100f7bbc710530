"""One question to the router as an operator, and its errors in words. Process wiring."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from autobahn.twisted.component import Component
from autobahn.twisted.wamp import ApplicationSession
from autobahn.wamp.exception import ApplicationError
from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - Twisted's own
from twisted.internet.error import ConnectError
from twisted.internet.task import react

from components.console import logs
from components.console.secrecy import keep_memory_private
from components.keyfile import KeyFile, read_key_file
from components.wamp_procedure import UNAVAILABLE
from components.wamp_transport import check_url, in_words, transport
from components.wire.errors import OdographError, RefusedError, UnavailableError
from components.wire.topics import REALM

T = TypeVar("T")
_ANSWER_S: Final = 30
_LEAVE_S: Final = 2
_START_ROUTER = "is it started? (cd router && crossbar start)"


class Call(Protocol):
    """Calls a procedure; each call has 30 s of its own."""

    async def __call__(self, procedure: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever it answers
        """Return what the procedure answers."""


@dataclass(frozen=True, slots=True)
class Router:
    """Where the router listens, and the file of the only CAs whose certificate it may show; None: the system's."""

    url: str
    ca: Path | None = None


def ask(router: Router, key_path: Path, question: Callable[[Call], Awaitable[T]]) -> T:
    """Join as the operator of a key file, ask, leave; blocks, and may be called once a process.

    Args:
        question: May call as often as it likes.

    Raises:
        ConfigError: The key file is missing or wrong, or `router` has no URL of a router.
        RefusedError: Router or device said no.
        UnavailableError: Router or device is away, or did not answer in 30 s.
    """
    check_url(router.url)
    key = read_key_file(key_path)
    return blocking(lambda reactor: join_and_ask(reactor, router, by_key(key), question))


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom to join.

    Attributes:
        name: The id, and the role where it is known, for messages.
        authentication: Autobahn's, by method; it has a secret, which is not in the repr.
    """

    name: str
    authentication: Mapping[str, Mapping[str, object]] = field(repr=False)


def by_key(key: KeyFile) -> Identity:
    """Return who joins with a key file's key."""
    return Identity(f"{key.authid} ({key.role})", {"cryptosign": {"authid": key.authid, "privkey": key.private_key}})


def blocking(work: Callable[[Any], Awaitable[T]]) -> T:
    """Run the reactor until `work`, which gets it, has ended; may be called once a process. Raises what it raises.

    It holds a private key, or a code.
    """
    keep_memory_private()
    logs.silence()
    answers: list[T] = []
    errors: list[BaseException] = []

    def main(reactor: Any) -> Deferred[None]:  # noqa: ANN401 - a reactor is many interfaces
        working: Deferred[T] = Deferred.fromCoroutine(work(reactor))  # type: ignore[arg-type]
        return working.addCallbacks(answers.append, lambda failure: errors.append(failure.value))

    # `react` always ends by SystemExit; what came of it is in the lists.
    with contextlib.suppress(SystemExit):
        react(main)
    if errors:
        raise errors[0]
    if not answers:
        raise UnavailableError("interrupted")
    return answers[0]


async def join_and_ask(
    reactor: Any,  # noqa: ANN401 - a reactor is many interfaces
    router: Router,
    who: Identity,
    question: Callable[[Call], Awaitable[T]],
) -> T:
    """Join, ask, leave; arguments and errors as for `ask`."""
    check_url(router.url)
    try:
        return await _ask(reactor, router, who, question)
    except Exception as error:
        raise _in_words(error, router, who) from error


async def _ask(
    reactor: Any,  # noqa: ANN401
    router: Router,
    who: Identity,
    question: Callable[[Call], Awaitable[T]],
) -> T:
    done = Deferred[T]()
    sessions: list[ApplicationSession] = []

    async def main(_reactor: Any, session: ApplicationSession) -> None:  # noqa: ANN401
        sessions.append(session)
        joining.cancel()

        async def call(procedure: str, *arguments: object) -> Any:  # noqa: ANN401
            return await session.call(procedure, *arguments).addTimeout(_ANSWER_S, reactor)

        try:
            done.callback(await question(call))
        except Exception as error:  # noqa: BLE001 - handed on whole
            done.errback(error)

    def failed(_component: Component, error: BaseException) -> None:
        if not done.called:
            done.errback(error)

    component = Component(
        main=main,
        realm=REALM,
        transports=[transport(router.url, router.ca) | {"max_retries": 0}],
        authentication=who.authentication,
        is_fatal=lambda _error: True,
    )
    component.on("connectfailure", failed)
    joining = reactor.callLater(_ANSWER_S, failed, component, TimeoutError())
    ended: Deferred[None] = component.start(reactor)
    try:
        return await done
    finally:
        if joining.active():
            joining.cancel()
        # Its errors came by `failed`. Where no answer came the session still waits for it, and the router may be mute.
        ended.addTimeout(_LEAVE_S, reactor)
        with contextlib.suppress(Exception):
            if sessions and sessions[0].is_attached():
                sessions[0].leave()
            await ended


def _in_words(error: BaseException, router: Router, who: Identity) -> BaseException:
    if isinstance(error, (OdographError, BrokenPipeError)):
        return error
    if isinstance(error, ApplicationError):
        return _answer_in_words(error, who)
    if isinstance(error, TimeoutError):
        return UnavailableError(f"no answer from {router.url} within {_ANSWER_S} s")
    if isinstance(error, (ConnectError, OSError)):
        return UnavailableError(f"the router at {router.url} cannot be reached: {_START_ROUTER}")
    return UnavailableError(f"no session with the router: {in_words(error, router.url, router.ca)}")


def _answer_in_words(error: ApplicationError, who: Identity) -> OdographError:
    code, words = str(error.error), " ".join(str(one) for one in error.args)
    if code == ApplicationError.NO_SUCH_PROCEDURE:
        return UnavailableError(f"nobody answers ({words}): is the device or the persister connected?")
    if code == UNAVAILABLE:
        return UnavailableError(words)
    if code == ApplicationError.NOT_AUTHORIZED:
        return RefusedError("not_authorized", f"{who.name} may not do this")
    if code in {ApplicationError.AUTHENTICATION_FAILED, ApplicationError.NO_SUCH_PRINCIPAL}:
        return RefusedError("authentication", f"the router does not know {who.name.split()[0]} by this key")
    return RefusedError(code.rsplit(".", 1)[-1], words or code)
