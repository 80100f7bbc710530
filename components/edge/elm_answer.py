"""What an ELM327 wrote up to its prompt, sorted: lines of the car, and the adapter's own words. Pure.

What it is not: it does not look into the car's lines (`obd_parser` does) and decides nothing about the connection.

Source: ELM327 data sheet, "Error Messages and Alerts"; what clones do beside it was seen on captures.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_HEX: Final = re.compile(r"[0-9A-Fa-f]+")

_WORDS: Final = (
    # (regular expression, reason, the adapter has lost its settings)
    ("NO DATA", "no_data", False),
    ("UNABLE TO CONNECT", "bus_error", False),
    ("BUS INIT", "bus_error", False),
    ("BUS BUSY", "bus_error", False),
    ("BUS ERROR", "bus_error", False),
    ("CAN ERROR", "bus_error", False),
    ("FB ERROR", "bus_error", False),
    ("DATA ERROR", "bus_error", False),
    ("RX ERROR", "bus_error", False),
    ("FC RX TIMEOUT", "bus_error", False),  # STN chips: the ECU's flow control did not come
    ("BUFFER FULL", "adapter_error", False),
    ("OUT OF MEMORY", "adapter_error", False),
    ("STOPPED", "adapter_error", False),
    ("LV RESET", "adapter_error", True),
    ("ACT ALERT", "adapter_error", True),
    ("LP ALERT", "adapter_error", True),
    (r"\bERR\d\d", "adapter_error", True),
    ("ELM327", "adapter_error", True),
)
"""The reason for which a request has no value, by the adapter's words. ACT and LP ALERT: it is about to sleep."""

_PROGRESS: Final = re.compile(r"^(SEARCHING\.*|BUS INIT: ?(\.\.\. ?)?(OK)?(?!.*ERROR)\.*)")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        hex_lines: Lines that are hexadecimal digits only, without spaces, in order.
        text_lines: The other lines, echo, blank lines and progress left out.
        prompted: Whether the prompt came; without it only lines that were ended count.
        reason: Of wire.signals.REASONS, what the adapter's words say; "" where it said nothing of its own.
        lost_settings: The adapter was reset or is about to sleep: echo, headers and protocol are no longer ours.
    """

    hex_lines: tuple[str, ...] = ()
    text_lines: tuple[str, ...] = ()
    prompted: bool = False
    reason: str = ""
    lost_settings: bool = False

    @property
    def words(self) -> str:
        """The adapter's own words, for people, each once, without what the car said beside them."""
        return "; ".join(dict.fromkeys(map(_own_words, self.text_lines)))


def parse_answer(raw: bytes, command: str) -> Answer:
    r"""Sort what came after `command`.

    Args:
        raw: Bytes from the adapter up to the prompt; without one, up to when the waiting ended.
        command: What was sent, without its CR; its echo is dropped.

    Returns:
        The answer; never raises, whatever the bytes.

    >>> parse_answer(b"010D\r7E8 03 41 0D 32 \r\r>", "010D")
    Answer(hex_lines=('7E803410D32',), text_lines=(), prompted=True, reason='', lost_settings=False)
    >>> parse_answer(b"SEARCHING...\rUNABLE TO CONNECT\r\r>", "0100").reason
    'bus_error'
    """
    text, prompt, _ = raw.partition(b">")
    # NULs are to be ignored, says the data sheet. Other bytes that are no ASCII spoil their line.
    lines = re.split(r"[\r\n]", text.replace(b"\0", b"").decode("ascii", "replace"))
    if not prompt:
        lines = lines[:-1]  # the last one may be cut anywhere
    echo = command.replace(" ", "").upper()
    hex_lines, text_lines = [], []
    for line in lines:
        said = _PROGRESS.sub("", line.strip()).strip()
        joined = said.replace(" ", "")
        if not joined or joined.upper() == echo:
            continue
        if _HEX.fullmatch(joined):
            hex_lines.append(joined.upper())
            continue
        text_lines.append(said)
        if said.startswith("<") and hex_lines:
            hex_lines.pop()  # the mark of the line before
    reason, lost = _judge(text_lines)
    return Answer(tuple(hex_lines), tuple(text_lines), bool(prompt), reason, lost)


def _judge(text_lines: Sequence[str]) -> tuple[str, bool]:
    """Return the first reason that the words give, and whether any tells of a reset. Unknown words: adapter_error."""
    reason, lost = "", False
    for line in text_lines:
        said = line.upper()
        matches = ((why, reset) for word, why, reset in _WORDS if re.search(word, said))
        found, reset = next(matches, ("adapter_error", False))
        reason, lost = reason or found, lost or reset
    return reason, lost


def _own_words(line: str) -> str:
    found = next((match for word, _, _ in _WORDS if (match := re.search(f"[<!]?{word}", line.upper()))), None)
    if found is not None:
        return line[found.start() :]
    return "bytes that are no text" if "\ufffd" in line else line
