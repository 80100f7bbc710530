"""How tests wait for what other processes and threads do: for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from components.wire.errors import UnavailableError

T = TypeVar("T")
PATIENCE_S: Final = 240
"""Beyond whatever a busy machine takes: who waits as long as this waits for what will never be."""


def until(found: Callable[[], T], what: str = "") -> T:
    """Return the first true answer of `found`; AssertionError when none comes."""
    end = time.monotonic() + PATIENCE_S
    while not (answer := found()):
        assert time.monotonic() < end, f"not within {PATIENCE_S} s: {what or found}; last answer: {answer}"
        time.sleep(0.05)
    return answer


def when_there(call: Callable[[], T]) -> T:
    """Return what a call returns, however often it says before that what it needs is away, as it does to its users."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except UnavailableError:
            if time.monotonic() > end:
                raise
