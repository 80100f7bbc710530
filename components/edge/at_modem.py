"""Who the modem and its SIM are: IMEI and ICCID by AT commands, their check digits verified. Rim; blocks.

What it is not: it neither looks for a modem (only a port that was given is opened) nor dials, registers or configures.
Source: 3GPP TS 27.007 (AT+CGSN), ITU-T V.250 (result codes), E.118 (ICCID); +CCID, +ICCID and ^ICCID? are the makers'.
"""

import re
from collections.abc import Callable
from typing import Final

from components.edge.ports import Sim
from components.edge.serial_line import Clock, Line, LineGoneError, SerialLine

_BAUD: Final = 115_200
_COMMAND_MS: Final = 1_000
_MAX_ANSWER_BYTES: Final = 4_096
_ICCID_COMMANDS: Final = ("AT+CCID", "AT+ICCID", "AT^ICCID?")
_IMEI_COMMANDS: Final = ("AT+CGSN", "AT+GSN")
_END: Final = re.compile(rb"(?:^|[\r\n])(OK|ERROR|\+CM[ES] ERROR:[^\r\n]*)[\r\n]")


def read_sim(port: str, deadline_ms: int, *, clock: Clock, open_line: Callable[[str, int], Line] | None = None) -> Sim:
    """Ask the modem at `port` for the numbers that name it and its SIM.

    Args:
        port: Device path or `socket://host:port` of the modem's AT port.
        deadline_ms: Elapsed ms by which it returns.
        clock: Elapsed ms.
        open_line: Opens the port; for tests.

    Returns:
        Each number, or None with `timeout` (silent), `adapter_error` (no port, or it errs), `unsupported` (it knows
        none of the commands), `out_of_range` (what it says fails its check digit). Never raises.
    """
    try:
        line = open_line(port, deadline_ms) if open_line else SerialLine(port, _BAUD, clock, deadline_ms)
    except LineGoneError:
        return Sim(iccid_why="adapter_error", imei_why="adapter_error")
    try:
        # With the echo off an answer cannot be mistaken for what was asked; "AT" first ends what is half typed.
        for command in ("AT", "ATE0"):
            _ask(line, command, deadline_ms, clock)
        imei, imei_why = _first(line, _IMEI_COMMANDS, _imei, deadline_ms, clock)
        iccid, iccid_why = _first(line, _ICCID_COMMANDS, _iccid, deadline_ms, clock)
    except LineGoneError:
        return Sim(iccid_why="adapter_error", imei_why="adapter_error")
    finally:
        line.close()
    return Sim(iccid, imei, iccid_why, imei_why)


def is_luhn(digits: str) -> bool:
    """Return whether the last digit completes the others (ISO/IEC 7812-1, annex B).

    >>> is_luhn("79927398713"), is_luhn("79927398710")
    (True, False)
    """
    places = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(value // 10 + value % 10 for value in places) % 10 == 0


def _first(
    line: Line, commands: tuple[str, ...], read: Callable[[str], str | None], deadline_ms: int, clock: Clock
) -> tuple[str | None, str]:
    """Return the number that the first of `commands` to be understood brings, or None and the reason."""
    why = "unsupported"
    for command in commands:
        text = _ask(line, command, deadline_ms, clock)
        if text is None:
            return None, "timeout"
        number = read(text)
        if number is not None:
            return (number, "") if is_luhn(number) else (None, "out_of_range")
        if "ERROR:" in text:
            why = "adapter_error"  # it knows the command but has no SIM, or none that is ready
    return None, why


def _iccid(text: str) -> str | None:
    """Find 18 to 20 digits that begin with 89 (telecommunication); some modems pad them with F."""
    found = re.search(r"(?<![0-9A-F])(89[0-9]{16,18})F?(?![0-9A-F])", text)
    return found[1] if found else None


def _imei(text: str) -> str | None:
    found = re.search(r"(?<![0-9])([0-9]{15})(?![0-9])", text)
    return found[1] if found else None


def _ask(line: Line, command: str, deadline_ms: int, clock: Clock) -> str | None:
    """Send a command; return all that came up to its result code, or None when that did not come."""
    until_ms = min(deadline_ms, clock() + _COMMAND_MS)
    for _ in range(8):
        if not line.read(0):
            break
    line.write(command.encode() + b"\r", until_ms)
    heard = b""
    while not _END.search(heard):
        data = line.read(until_ms) if clock() < until_ms and len(heard) < _MAX_ANSWER_BYTES else b""
        if not data:
            return None
        heard += data
    return heard.decode("ascii", "replace").replace(command, "")
