"""A lane: its own bounded threads for one blocking driver, so that nothing else waits for it. Rim."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")


class Lane:
    """Threads for one driver; with `width` 1 (a serial line, a SQLite writer) calls run one at a time, in order.

    Args:
        reactor: Where results are delivered.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, width: int = 1) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=width, name=name)

    def start(self) -> None:
        """Take calls from now on."""
        self._pool.start()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call in the lane; its result or its exception comes back on the reactor's thread."""
        result: T = await deferToThreadPool(self._reactor, self._pool, call, *args, **kwargs)
        return result

    def stop(self) -> None:
        """Take no more calls; blocks until those in hand are done."""
        self._pool.stop()
