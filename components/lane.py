"""A lane: a few threads for a driver that blocks, so that the reactor never does. Rim.

Not a place for retries or time-outs: what runs here has its own. One lane for each thing that two threads must not
use at once (the serial line, a SQLite writer), with width 1.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.threadpool import ThreadPool

from components.wire.errors import UnavailableError

P = ParamSpec("P")
T = TypeVar("T")


class Lane:
    """Runs calls in threads of its own, begun in the order in which they came, `width` at a time.

    All its methods belong to the reactor's thread.

    Args:
        reactor: Where the answers arrive.
        name: Of the threads, for people who look at a stack.
        width: How many calls run at once, at least 1.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, width: int = 1) -> None:
        self._reactor = reactor
        self._name = name
        self._pool = ThreadPool(minthreads=0, maxthreads=width, name=name)
        self._state = "new"
        self._unanswered = 0
        self._waiting: list[Deferred[None]] = []

    def start(self) -> None:
        """Begin to take calls; threads are made when they are needed.

        Raises:
            UnavailableError: It was stopped; make another one.
        """
        if self._state == "stopped":
            raise UnavailableError(f"the lane {self._name} is stopped")
        if self._state == "new":
            self._state = "running"
            self._pool.start()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function in a thread and return what it returns.

        Cancelling ends the waiting, not the call: a thread cannot be interrupted.

        Raises:
            UnavailableError: The lane does not run (not yet, or no more); nothing was called.
            Exception: Whatever the function raises.
        """
        if self._state != "running":
            raise UnavailableError(f"the lane {self._name} does not run")
        answer: Deferred[T] = Deferred()
        self._unanswered += 1

        def answered(good: bool, result: Any) -> None:  # noqa: ANN401 (a T, or a Failure)
            self._reactor.callFromThread(self._deliver, answer, good, result)

        self._pool.callInThreadWithCallback(answered, function, *args, **kwargs)
        return await answer

    def _deliver(self, answer: Deferred[T], good: bool, result: Any) -> None:  # noqa: ANN401 (as above)
        self._unanswered -= 1
        if good:
            answer.callback(result)
        else:
            answer.errback(result)
        if not self._unanswered:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(None)

    async def close(self) -> None:
        """Take no more calls, and return when every call that was taken is answered; again does nothing."""
        was_running, self._state = self._state == "running", "stopped"
        if self._unanswered:
            self._waiting.append(waiter := Deferred[None]())
            await waiter
        if was_running:
            self._pool.stop()

    def stop(self) -> None:
        """Do as close() for one that cannot await, such as the end of the reactor: block until the calls have run.

        Their answers arrive only if the reactor still runs afterwards.
        """
        was_running, self._state = self._state == "running", "stopped"
        if was_running:
            self._pool.stop()
