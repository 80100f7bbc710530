"""What pieces need of a reactor's timers, as mypy can read it; any Twisted reactor or task.Clock has it. Pure."""

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that is to come."""

    def active(self) -> bool:
        """Whether it is still to come."""

    def cancel(self) -> None:
        """Let it not come."""


class Timers(Protocol):
    """A clock that can call back."""

    def seconds(self) -> float:
        """Return its time in seconds."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> Timer:  # noqa: A002, N802
        """Call after `delay` seconds."""
