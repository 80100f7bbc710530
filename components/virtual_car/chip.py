"""What a serial line needs to know of the chip at its end. Pure.

A chip is a pure machine: something happens to it, and it says what to send and when it wants to be woken. The clock and
the line belong to `line`.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Turn:
    """What a chip wants after something happened to it.

    Args:
        out: Bytes to send now.
        wake_s: Wake it after this time, counted from now; None: it waits for bytes.
        keeps_waiting: What came in was nothing to the chip: its earlier wish to be woken stands, `wake_s` has no say.
    """

    out: bytes = b""
    wake_s: float | None = None
    keeps_waiting: bool = False


class Chip(Protocol):
    """An adapter or a modem, without its line."""

    @property
    def echo(self) -> bool:
        """Whether it repeats what it hears (which costs no line time: both directions run at once)."""
        ...

    def received(self, data: bytes) -> Turn:
        """Bytes came in, in order, one or more; what the turn wants replaces an earlier wish to be woken."""
        ...

    def woke(self) -> Turn:
        """The time of the last turn's `wake_s` is over and nothing came in."""
        ...
