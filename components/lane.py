"""A lane: a few threads for a driver that blocks, so that the reactor never does. Not a queue of retries. Rim.

One lane for each thing that must not be used by two threads at once (the serial line, a SQLite writer): width 1.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from components.wire.errors import UnavailableError

P = ParamSpec("P")
T = TypeVar("T")


class Lane:
    """Runs calls in threads of its own, in the order in which they came, `width` at a time.

    Args:
        reactor: Where the answers arrive. Used from its thread, which is the thread that makes this object.
        name: Of the threads, for people who look at a stack.
        width: How many calls run at once, at least 1.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, width: int = 1) -> None:
        self._reactor = reactor
        self._name = name
        self._pool = ThreadPool(minthreads=0, maxthreads=width, name=name)
        self._state = "new"

    def start(self) -> None:
        """Begin to run what was and is given. Threads are made when they are needed.

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

        To cancel the awaiting changes nothing for the call: a thread cannot be interrupted, so what blocks needs a
        time-out of its own.

        Raises:
            UnavailableError: The lane is not running; nothing was called.
            Exception: Whatever the function raises.
        """
        if self._state != "running":
            raise UnavailableError(f"the lane {self._name} is not running")
        answer: Deferred[Any] = deferToThreadPool(self._reactor, self._pool, function, *args, **kwargs)
        result: T = await answer
        return result

    async def close(self) -> None:
        """Refuse new calls from now on, and return when those that were given have run; again does nothing."""
        if self._state != "running":
            self._state = "stopped"
            return
        self._state = "stopped"
        # ThreadPool.stop() waits for its threads, whose answers come through the reactor: it needs one more thread.
        waiter = ThreadPool(minthreads=1, maxthreads=1, name=f"{self._name}-close")
        waiter.start()
        await deferToThreadPool(self._reactor, waiter, self._pool.stop)
        waiter.stop()
