"""An ELM327 as its client meets it: bytes in, bytes and waits out. Pure: no line, no clock; it is woken.

It plays versions 1.5 and 2.1, the ones most adapters claim to be, on ISO 15765-4 CAN (protocol 6). Written from the
command descriptions of the ELM327 data sheet. The times, which a client can measure:

* A request is answered `latency_s` after its carriage return; the car is asked at that instant, not earlier.
* The response-count digit ends a request with the n-th line.
* Without it the adapter waits for further answers: with ATAT0 the whole of ATST (32 hex = 205 ms by default); with
  ATAT1, the default, 2 x latency + 20 ms; with ATAT2 latency + 10 ms; never longer than ATST.
* A request that nobody answers ends with NO DATA when ATST is over, whatever ATAT says: no answer, nothing to adapt
  to. The latency, being half the adapter's own, comes on top and is never the reason for NO DATA; a fault's `slow_s`
  is the units' and may be.

Each fault that is on acts where it belongs: on the bus (`units`, `frames`), on the lines, on the text, on the settings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from components.virtual_car import isotp
from components.virtual_car.chip import Turn
from components.virtual_car.faults import Fault, Units

Ask: TypeAlias = Callable[[int, bytes], Units]
"""Put a request on the car's bus now: (address, request) -> (CAN identifier, message) of each unit that answers."""

BANNERS = {"v1.5": "ELM327 v1.5", "v2.1": "ELM327 v2.1"}
"""Model -> what ATI and a reset say."""

RESET_S = 0.1
CAN_11_500 = 6
_TICK_S = 0.004096
_HEX = frozenset("0123456789ABCDEF")
_PROTOCOLS = (
    "AUTO",
    "SAE J1850 PWM",
    "SAE J1850 VPW",
    "ISO 9141-2",
    "ISO 14230-4 (KWP 5BAUD)",
    "ISO 14230-4 (KWP FAST)",
    "ISO 15765-4 (CAN 11/500)",
    "ISO 15765-4 (CAN 29/500)",
    "ISO 15765-4 (CAN 11/250)",
    "ISO 15765-4 (CAN 29/250)",
    "SAE J1939 (CAN 29/250)",
    "USER1 (CAN 11/125)",
    "USER2 (CAN 11/50)",
)
# What the adapter says on a bus that is not there, by the protocol that the client insists on.
_WRONG_BUS = dict.fromkeys((3, 4, 5), "BUS INIT: ...ERROR") | dict.fromkeys((8, 9, 10, 11, 12), "CAN ERROR")
# Commands that have nothing to change in this double.
_ACCEPTED = frozenset({"AL", "NL", "M0", "M1", "CFC0", "CFC1", "R1", "V0", "V1", "BI", "SS", "KW0", "KW1", "FE"})


@dataclass
class _Settings:
    """Everything that ATD and a reset restore."""

    echo: bool = True
    linefeeds: bool = False
    spaces: bool = True
    headers: bool = False
    can_formatting: bool = True
    adaptive: int = 1
    st: int = 0x32
    header: int = 0x7DF
    only_from: int | None = None


@dataclass(frozen=True)
class _Request:
    """A request on its way: what, and after how many lines the client wants no more."""

    message: bytes
    max_lines: int | None


class Elm327:
    """The adapter chip.

    Args:
        ask: The car's bus.
        voltage: What ATRV measures at the plug, volts.
        latency_s: Time from a request to its answer, bus and adapter together; 0 or more.
        model: A key of `BANNERS`.
        faults: Those that are on now.
    """

    def __init__(
        self,
        ask: Ask,
        voltage: Callable[[], float],
        *,
        latency_s: float = 0.010,
        model: str = "v2.1",
        faults: Callable[[], Sequence[Fault]] = tuple,
    ) -> None:
        self._ask = ask
        self._voltage = voltage
        self._latency_s = latency_s
        self._banner = BANNERS[model]
        self._faults = faults
        self._line = ""
        self._last_line = ""
        # The protocol is kept in the chip's own memory: a reset does not change it.
        self._protocol, self._automatic, self._found = CAN_11_500, True, False
        self._commanded = _Settings()
        self._when_woken: Callable[[], Turn] | None = None
        self._deaf = False
        self._lines_before: Sequence[str] = ()

    @property
    def echo(self) -> bool:
        """Whether it repeats what it hears."""
        return self._settings.echo

    def received(self, data: bytes) -> Turn:
        """Hear bytes; while a request runs, the first of them stops it and is lost, as on the real chip."""
        whole = Turn(keeps_waiting=True)
        if self._is_dead:
            return whole
        for byte in data:
            turn = self._heard(byte)
            if not turn.keeps_waiting:
                whole = Turn(whole.out + turn.out, turn.wake_s)
        return whole

    def woke(self) -> Turn:
        """Go on with what the chip waited for."""
        step, self._when_woken, self._deaf = self._when_woken, None, False
        turn = step() if step else Turn()
        return replace(turn, out=self._sent(turn.out))

    @property
    def _settings(self) -> _Settings:
        """The settings as they work: what was commanded, except where a fault knows better."""
        forced = [item for fault in self._faults() for item in fault.forced.items()]
        return replace(self._commanded, **dict(forced)) if forced else self._commanded

    @property
    def _is_dead(self) -> bool:
        return any(fault.deaf for fault in self._faults())

    def _sent(self, text: bytes) -> bytes:
        """What leaves of a piece of text."""
        for fault in self._faults():
            text = b"" if fault.deaf else fault.text(text)
        return text

    def _heard(self, byte: int) -> Turn:
        if byte in b"\x00\n" or self._deaf:
            return Turn(keeps_waiting=True)
        if self._when_woken is not None:
            self._when_woken = None
            return Turn(self._sent(self._lines("STOPPED") + self._prompt()))
        echo = bytes([byte]) if self._settings.echo else b""
        if byte != ord("\r"):
            if byte > ord(" "):
                self._line += chr(byte).upper()
            return Turn(echo)
        if echo and self._settings.linefeeds:
            echo += b"\n"
        # An empty line repeats the one before.
        line, self._line = self._line or self._last_line, ""
        self._last_line = line
        stall_s = sum(fault.stall_s for fault in self._faults())
        if stall_s:
            self._when_woken = lambda: self._obeyed(line)
            return Turn(echo, stall_s)
        turn = self._obeyed(line)
        return Turn(echo + self._sent(turn.out), turn.wake_s)

    def _obeyed(self, line: str) -> Turn:
        """Do what a line says; spaces are gone and letters are capital."""
        if not line:
            return Turn(self._prompt())
        if line.startswith("AT"):
            if line in {"ATZ", "ATWS"}:
                return self._reset()
            answer = self._command(line[2:])
            return Turn(self._lines("?" if answer is None else answer) + self._prompt())
        request = self._request(line)
        if request is None or (request.max_lines and any(fault.count_unknown for fault in self._faults())):
            return Turn(self._lines("?") + self._prompt())
        return self._begun(request)

    # ---- talking to the client

    def _end_of_line(self) -> bytes:
        return b"\r\n" if self._settings.linefeeds else b"\r"

    def _lines(self, *lines: str) -> bytes:
        return b"".join(line.encode("latin-1", "replace") + self._end_of_line() for line in lines)

    def _prompt(self) -> bytes:
        return self._end_of_line() + b">"

    def _hex(self, data: bytes) -> str:
        # The chip puts a space behind every byte, the last one of a line included.
        return "".join(f"{byte:02X} " for byte in data) if self._settings.spaces else data.hex().upper()

    # ---- AT commands

    def _reset(self) -> Turn:
        self._commanded, self._found, self._deaf = _Settings(), False, True
        self._when_woken = lambda: Turn(self._greeting() + self._prompt())
        return Turn(wake_s=RESET_S)

    def _greeting(self) -> bytes:
        return self._end_of_line() * 2 + self._lines(self._banner)

    def _command(self, command: str) -> str | None:
        """Obey an AT command; the answer, None: not known."""
        if any(command.startswith(fault.unknown) for fault in self._faults()):
            return None
        said = self._told(command)
        if said is not None:
            return said
        return "OK" if command in _ACCEPTED or self._set_flag(command) or self._set_value(command) else None

    def _told(self, command: str) -> str | None:
        """The commands that ask for something."""
        if command == "RV":
            return f"{self._voltage():.1f}V"
        number = self._protocol if self._found or not self._automatic else 0
        auto, auto_number = ("AUTO, ", "A") if self._automatic else ("", "")
        known = {
            "I": self._banner,
            "@1": "OBDII to RS232 Interpreter",
            "IGN": "ON",
            "DP": auto + _PROTOCOLS[number] if number else "AUTO",
            "DPN": f"{auto_number}{number:X}",
        }
        return known.get(command)

    def _set_flag(self, command: str) -> bool:
        """The commands of a name and 0 or 1."""
        flags = {"E": "echo", "L": "linefeeds", "S": "spaces", "H": "headers", "CAF": "can_formatting"}
        name, digit = command[:-1], command[-1:]
        if name not in flags or digit not in {"0", "1"}:
            return False
        setattr(self._commanded, flags[name], digit == "1")
        return True

    def _set_value(self, command: str) -> bool:
        """The commands that carry a number, and the two that forget."""
        if command == "D":
            self._commanded = _Settings()
        elif command == "PC":
            self._found = False
        elif command in {"AT0", "AT1", "AT2"}:
            self._commanded.adaptive = int(command[2])
        elif command in {"CRA", "AR"}:
            self._commanded.only_from = None
        else:
            return self._set_number(command)
        return True

    def _set_number(self, command: str) -> bool:
        for name, lengths, obey in (
            ("ST", {2}, self._set_timeout),
            ("SH", {3, 6, 8}, self._set_header),
            ("CRA", {3}, self._set_filter),
            ("SP", {1, 2}, self._set_protocol),
            ("TP", {1, 2}, self._set_protocol),
        ):
            digits = command.removeprefix(name)
            if digits != command and len(digits) in lengths and _HEX.issuperset(digits):
                return obey(digits)
        return False

    def _set_timeout(self, digits: str) -> bool:
        # 00 stands for the default, by the data sheet.
        self._commanded.st = int(digits, 16) or 0x32
        return True

    def _set_header(self, digits: str) -> bool:
        # Longer headers belong to other protocols: taken, and then nobody on this bus hears them.
        self._commanded.header = int(digits, 16)
        return True

    def _set_filter(self, digits: str) -> bool:
        self._commanded.only_from = int(digits, 16)
        return True

    def _set_protocol(self, digits: str) -> bool:
        number = int(digits[-1], 16)
        if number >= len(_PROTOCOLS) or (len(digits) == 2 and digits[0] not in "0A"):
            return False
        self._automatic = number == 0 or len(digits) == 2
        self._protocol, self._found = number or CAN_11_500, False
        return True

    # ---- requests

    def _request(self, line: str) -> _Request | None:
        """Read a request of hexadecimal digits; an odd last one is the response count."""
        if not _HEX.issuperset(line) or len(line) < 2:
            return None
        message, count = bytes.fromhex(line[: len(line) // 2 * 2]), line[len(line) // 2 * 2 :]
        if not self._settings.can_formatting:
            # The client writes the ISO-TP length byte itself.
            message = message[1 : 1 + message[0]]
        if not 1 <= len(message) <= 7:
            return None
        return _Request(message, int(count, 16) or None if count else None)

    def _begun(self, request: _Request) -> Turn:
        out = b""
        if self._automatic and not self._found:
            out = b"SEARCHING..."
            self._protocol = CAN_11_500
        slow_s = sum(fault.slow_s for fault in self._faults())
        if slow_s > self._timeout_s():
            # Nobody has answered in time; what comes later finds nobody listening.
            self._when_woken = lambda: self._ended(self._nothing(), self._searched())
            return Turn(out, self._latency_s + self._timeout_s())
        self._when_woken = lambda: self._arrived(request)
        return Turn(out, self._latency_s + slow_s)

    def _searched(self) -> bytes:
        """What ends the line on which a search is told."""
        return self._end_of_line() if self._automatic and not self._found else b""

    def _nothing(self) -> list[str]:
        """What the adapter says when nobody answers."""
        nothing = "UNABLE TO CONNECT" if self._automatic and not self._found else "NO DATA"
        return [_WRONG_BUS.get(self._protocol, nothing)]

    def _arrived(self, request: _Request) -> Turn:
        """The instant at which the units answer."""
        lines = [line for source, frame in self._heard_frames(request) for line in self._shown(source, frame)]
        if not lines:
            self._when_woken = lambda: self._ended(self._nothing(), self._searched())
            return Turn(wake_s=self._timeout_s())
        searched = self._searched()
        self._found = True
        limit = None if any(fault.count_ignored for fault in self._faults()) else request.max_lines
        if limit is not None and len(lines) >= limit:
            return self._ended(lines[:limit], searched)
        said = self._said(lines)
        self._when_woken = lambda: self._ended([])
        return Turn(searched + said, self._wait_for_more_s())

    def _heard_frames(self, request: _Request) -> Units:
        """The frames that reach the adapter."""
        settings, faults = self._settings, self._faults()
        ask: Callable[[bytes], Units] = partial(self._ask, settings.header)
        for fault in faults:
            ask = partial(fault.units, ask)
        heard = ask(request.message) if self._protocol == CAN_11_500 else []
        frames: Units = [
            (source, frame)
            for source, message in heard
            if settings.only_from in (None, source)
            for frame in isotp.frames(message)
        ]
        for fault in faults:
            frames = fault.frames(frames)
        return frames

    def _said(self, lines: Sequence[str]) -> bytes:
        """The lines of a request's answer as the adapter tells them."""
        before, self._lines_before = self._lines_before, lines
        for fault in self._faults():
            lines = fault.lines(lines, before)
        return self._lines(*lines)

    def _ended(self, lines: Sequence[str], out: bytes = b"") -> Turn:
        """The end of a request, with its last lines."""
        out += self._said(lines) if lines else b""
        faults = self._faults()
        if any(fault.loses_settings for fault in faults):
            self._commanded, self._found = _Settings(), False
        if any(fault.greets for fault in faults):
            out += self._greeting()
        return Turn(out + self._prompt())

    def _timeout_s(self) -> float:
        return self._settings.st * _TICK_S

    def _wait_for_more_s(self) -> float:
        whole = self._timeout_s()
        adapted = {0: whole, 1: 2 * self._latency_s + 0.020, 2: self._latency_s + 0.010}
        return min(whole, adapted[self._settings.adaptive])

    def _shown(self, source: int, frame: bytes) -> list[str]:
        """The lines that a frame becomes."""
        settings = self._settings
        gap = " " if settings.spaces else ""
        is_single, is_first = frame[0] >> 4 == 0, frame[0] >> 4 == 1
        if not settings.can_formatting:
            whole = self._hex(frame)
            return [f"{source:03X}{gap}{whole}" if settings.headers else whole]
        # The chip hides the padding of a single frame, not that of a last consecutive one.
        cut = frame[: 1 + frame[0]] if is_single else frame
        if settings.headers:
            return [f"{source:03X}{gap}{self._hex(cut)}"]
        if is_single:
            return [self._hex(cut[1:])]
        if is_first:
            return [f"{int.from_bytes(frame[:2], 'big') & 0xFFF:03X}", f"0:{gap}{self._hex(frame[2:])}"]
        return [f"{frame[0] & 0xF:X}:{gap}{self._hex(frame[1:])}"]
