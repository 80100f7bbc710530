"""Work whose failure ends nothing: the next time, or the next run, can make it good. Rim: it logs."""

import sqlite3
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from components.wire.errors import OdographError


async def attempt(log: Logger, work: Callable[[], Awaitable[None]], words: str) -> None:
    """Do it; where it fails, log that.

    Args:
        log: Of whose work it is.
        work: What to do.
        words: What its failure means.
    """
    try:
        await work()
    except (OdographError, sqlite3.Error) as error:
        # The card or its files, which the log has told of: nobody needs to know where in the code.
        log.error("{words}: {error}", words=words, error=error)  # noqa: TRY400 - Twisted's logger, and no traceback
    except Exception:  # noqa: BLE001 - recording and delivery go on
        log.failure(words)


def detach(log: Logger, work: Callable[[], Awaitable[None]], words: str) -> Deferred[None]:
    """Begin it, and wait for nothing; the arguments are those of `attempt`."""
    return ensureDeferred(attempt(log, work, words))
