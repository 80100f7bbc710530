"""The gate before every procedure: arguments that fit its signature, and errors that callers may see. Rim.

What a procedure's arguments mean is checked by the procedure itself.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

from autobahn.wamp.exception import ApplicationError
from twisted.logger import Logger

INVALID: Final = "odograph.error.invalid_argument"
INTERNAL: Final = "odograph.error.internal"
UNAVAILABLE: Final = "odograph.error.unavailable"
_MAX_WORDS: Final = 200
_log: Final = Logger()


def guarded(procedure: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    """Return what is registered in place of `procedure`.

    It raises ApplicationError `odograph.error.invalid_argument` where there are too many, too few or unknown arguments,
    and `odograph.error.internal`, which tells the caller nothing more, for what the procedure did not foresee.
    """
    signature, name = inspect.signature(procedure), procedure.__name__

    async def call(*args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - whatever a caller sends
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ApplicationError(INVALID, f"{name}: {error}"[:_MAX_WORDS]) from error
        try:
            return await procedure(*args, **kwargs)
        except ApplicationError:
            raise
        except Exception as error:
            _log.failure("procedure {name} failed", name=name)
            raise ApplicationError(INTERNAL, f"{name} failed; the log of who answers says why") from error

    return call
