"""Who the modem and its SIM are: IMEI and ICCID by AT commands, their check digits verified. Rim; blocks.

What it is not: it neither looks for a modem (only a port that was given is opened) nor dials, registers or configures.
Source: 3GPP TS 27.007 (AT+CGSN, AT+CPIN?, +CME ERROR: 10), ITU-T V.250 (result codes); +CCID, +ICCID and ^ICCID? are
the makers'.
"""

import re
from collections.abc import Callable
from typing import Final

from components.edge import sim_identity
from components.edge.ports import Sim
from components.edge.serial_line import Clock, Line, LineGoneError, SerialLine

_BAUD: Final = 115_200
_COMMAND_MS: Final = 1_000
_MAX_ANSWER_BYTES: Final = 4_096
_ICCID_COMMANDS: Final = ("AT+CCID", "AT+ICCID", "AT^ICCID?")
_IMEI_COMMANDS: Final = ("AT+CGSN", "AT+CGSN=1", "AT+GSN")
"""The second is for modems that say the IMEISV unless asked for the IMEI."""
_END: Final = re.compile(
    rb"(?:^|[\r\n])\0*(OK|ERROR|COMMAND NOT SUPPORT(?:ED)?|\+CM[ES] ERROR:[^\r\n]*)[\r\n]", re.IGNORECASE
)
_ICCID_LINE: Final = re.compile(r'(?:[+^]?I?CCID ?: ?)?"?([0-9]{18,20}F{0,2})"?', re.ASCII | re.IGNORECASE)
_IMEI_LINE: Final = re.compile(r'(?:(?:\+C?GSN|\+?IMEI) ?: ?)?"?([0-9]{14,16})"?', re.ASCII | re.IGNORECASE)
"""A line that is nothing but the number, or names it: a caller's number (+CLIP) has as many digits."""
_ERROR: Final = re.compile(r"\+CM[ES] ERROR:|\+CPIN:(?! ?READY)", re.IGNORECASE)
_NO_SIM: Final = re.compile(
    r"\+CME ERROR: ?(?:10|SIM not inserted)|\+CPIN: ?(?:NOT INSERTED|SIM REMOVED|SIM NOT INSERTED)", re.IGNORECASE
)


def read_sim(port: str, deadline_ms: int, *, clock: Clock, open_line: Callable[[str, int], Line] | None = None) -> Sim:
    """Ask the modem at `port` for the numbers that name it and its SIM.

    Args:
        port: Device path or `socket://host:port` of the modem's AT port.
        deadline_ms: Elapsed ms by which it returns.
        clock: Elapsed ms.
        open_line: Opens the port; for tests.

    Returns:
        Each number, or None with `no_data` (it says that there is no SIM), `timeout` (silent), `adapter_error` (no
        port, or a SIM that is not ready), `unsupported` (it knows none of the commands), `out_of_range` (what it says
        fails its check digit). Never raises.
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
        # First whether there is a card: some modems go on telling the number of the one that was taken out.
        iccid, iccid_why = _first(line, ("AT+CPIN?", *_ICCID_COMMANDS), _iccid, deadline_ms, clock)
    except LineGoneError:
        return Sim(iccid_why="adapter_error", imei_why="adapter_error")
    finally:
        line.close()
    return Sim(iccid, imei, iccid_why, imei_why)


def _first(
    line: Line,
    commands: tuple[str, ...],
    read: Callable[[str], tuple[str | None, str] | None],
    deadline_ms: int,
    clock: Clock,
) -> tuple[str | None, str]:
    """Return the number that the first of `commands` to bring one brings, or None and the reason.

    Args:
        read: Makes of one line the number, or None and the reason why it is none; None for a line of something else.
    """
    why = "unsupported"
    for command in commands:
        lines = _ask(line, command, deadline_ms, clock)
        if lines is None:
            return None, "timeout"
        for number, reason in filter(None, map(read, lines)):
            if number or reason == "no_data":
                return number, reason
            why = reason
    return None, why


def _iccid(line: str) -> tuple[str | None, str] | None:
    if _NO_SIM.fullmatch(line):
        return None, "no_data"
    if match := _ICCID_LINE.fullmatch(line):
        number = sim_identity.iccid(match[1])
        return number, "" if number else "out_of_range"
    # It knows the command but its SIM is not ready, or not there.
    return (None, "adapter_error") if _ERROR.match(line) else None


def _imei(line: str) -> tuple[str | None, str] | None:
    if match := _IMEI_LINE.fullmatch(line):
        number = sim_identity.imei(match[1])
        return number, "" if number else "out_of_range"
    return (None, "adapter_error") if _ERROR.match(line) else None


def _ask(line: Line, command: str, deadline_ms: int, clock: Clock) -> list[str] | None:
    """Send a command; return the lines that came up to its result code, or None when that did not come."""
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
    lines = re.split(r"[\r\n]+", heard.decode("ascii", "replace").replace("\0", ""))
    return [line.strip() for line in lines if line.strip() not in {"", command}]
