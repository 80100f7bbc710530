"""What a running process prints: one line an event on standard error; a command nothing. Process wiring."""

import sys
from typing import Any, TextIO, cast

import txaio
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)


def silence() -> None:
    """Print nothing: a command that asks and ends says by itself what came of it.

    Autobahn would print a traceback for an answer that comes after the router ended the session.
    """
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)


def begin(level: str = "info", to: TextIO = sys.stderr) -> None:
    """Print this project's events from `level` on, and those of the libraries from `warn` on."""
    txaio.use_twisted()  # type: ignore[no-untyped-call]
    predicate: Any = LogLevelFilterPredicate(LogLevel.warn)
    for name in ("components", "odograph"):
        predicate.setLogLevelForNamespace(name, LogLevel.levelWithName(level))
    # They say the same at every attempt to connect; ours say it once (on "connectfailure").
    for name in ("autobahn.twisted.component", "autobahn.twisted.websocket"):
        predicate.setLogLevelForNamespace(name, LogLevel.critical)
    # The classes say what they implement to zope.interface, which mypy does not read.
    observer: Any = FilteringLogObserver(cast("Any", textFileLogObserver(to)), [predicate])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
