"""A serial line that shows what passes over it. Rim: it writes to standard error."""

from dataclasses import dataclass, field
from typing import Final

import click

from components.edge.serial_line import Clock, Line

_PROMPT: Final = b">"


@dataclass
class Overheard:
    """Implements edge.serial_line.Line over another one.

    Each command, and each answer up to its prompt, is a line with the ms since the port was opened; bytes that are no
    text are shown as escapes.
    """

    line: Line
    clock: Clock
    _heard: bytes = b""
    _began_ms: int = field(init=False)

    def __post_init__(self) -> None:
        self._began_ms = self.clock()

    def write(self, data: bytes, until_ms: int) -> None:
        """See Line."""
        self._show_heard()
        self._show("to  ", data)
        self.line.write(data, until_ms)

    def read(self, until_ms: int) -> bytes:
        """See Line."""
        data = self.line.read(until_ms)
        self._heard += data
        if self._heard.endswith(_PROMPT):
            self._show_heard()
        return data

    def close(self) -> None:
        """See Line."""
        self._show_heard()
        self.line.close()

    def _show_heard(self) -> None:
        if self._heard:
            self._show("from", self._heard)
            self._heard = b""

    def _show(self, which: str, data: bytes) -> None:
        click.echo(f"{self.clock() - self._began_ms:8d} ms {which} {repr(data)[2:-1]}", err=True)
