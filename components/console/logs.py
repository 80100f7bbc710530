"""What a running process prints: one line an event on standard error. Process wiring."""

import sys
from typing import TextIO

import txaio
from twisted.logger import (
    FilteringLogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEventAsClassicLogText,
    globalLogBeginner,
)


def begin(level: str = "info", to: TextIO = sys.stderr) -> None:
    """Print this project's events from `level` on, and those of the libraries from `warn` on."""
    txaio.use_twisted()
    predicate = LogLevelFilterPredicate(LogLevel.warn)
    predicate.setLogLevelForNamespace("components", LogLevel.levelWithName(level))
    predicate.setLogLevelForNamespace("odograph", LogLevel.levelWithName(level))
    observer = FilteringLogObserver(_Lines(to), [predicate])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


class _Lines:
    def __init__(self, to: TextIO) -> None:
        self._to = to

    def __call__(self, event: LogEvent) -> None:
        if text := formatEventAsClassicLogText(event):
            self._to.write(text)
            self._to.flush()
