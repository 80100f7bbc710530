"""An ELM327 as its client meets it: bytes in, bytes and waits out. Pure: no line, no clock; it is woken.

It plays versions 1.5 and 2.1, the ones most adapters claim to be, on any of the buses that OBD-II cars have (`buses`).
Written from the command descriptions of the ELM327 data sheet. The times, which a client can measure:

* A request is answered `latency_s`, and what the bus is slower than CAN, after its carriage return; the car is asked
  at that instant, not earlier.
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

from components.virtual_car.buses import BUSES, NAMES, Bus, Look, silence
from components.virtual_car.chip import Turn
from components.virtual_car.faults import Fault, Units

Ask: TypeAlias = Callable[[int, bytes], Units]
"""Put a request on the car's bus now: (address, request) -> (unit, message) of each that answers; as on 11-bit CAN."""

BANNERS = {"v1.5": "ELM327 v1.5", "v2.1": "ELM327 v2.1"}
"""Model -> what ATI and a reset say."""

RESET_S = 0.1
CAN_11_500 = 6
_TICK_S = 0.004096
_ANYBODY = b"\x01\x00"
_HEX = frozenset("0123456789ABCDEF")
# Commands that came with version 2: 1.5 was never Elm's own, its makers have what 1.4 had.
_NEWER = frozenset({"CTM1", "CTM5"})
# Commands that have nothing to change in this double.
_ACCEPTED = (
    frozenset({"AL", "NL", "M0", "M1", "CFC0", "CFC1", "R1", "V0", "V1", "BI", "SS", "KW0", "KW1", "FE"}) | _NEWER
)


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
    header: str | None = None
    receive: str | None = None


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
        bus: The digit of the bus that the car has, 1 to 9.
        faults: Those that are on now.
    """

    def __init__(
        self,
        ask: Ask,
        voltage: Callable[[], float],
        *,
        latency_s: float = 0.010,
        model: str = "v2.1",
        bus: int = CAN_11_500,
        faults: Callable[[], Sequence[Fault]] = tuple,
    ) -> None:
        self._ask = ask
        self._voltage = voltage
        self._latency_s = latency_s
        self._banner = BANNERS[model]
        self._unknown = frozenset() if model == "v2.1" else _NEWER
        self._bus_of_the_car = bus
        self._faults = faults
        self._line = ""
        self._last_line = ""
        # The protocol is kept in the chip's own memory: a reset does not change it.
        self._protocol, self._automatic, self._is_open = CAN_11_500, True, False
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
        settings = self._commanded
        for fault in self._faults():
            if fault.forced:
                settings = replace(settings, **fault.forced)
        return settings

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

    # ---- AT commands

    def _reset(self) -> Turn:
        self._commanded, self._is_open, self._deaf = _Settings(), False, True
        self._when_woken = lambda: Turn(self._greeting() + self._prompt())
        return Turn(wake_s=RESET_S)

    def _greeting(self) -> bytes:
        return self._end_of_line() * 2 + self._lines(self._banner)

    def _command(self, command: str) -> str | None:
        """Obey an AT command; the answer, None: not known."""
        if command in self._unknown or any(command.startswith(fault.unknown) for fault in self._faults()):
            return None
        said = self._told(command)
        if said is not None:
            return said
        return "OK" if command in _ACCEPTED or self._set_flag(command) or self._set_value(command) else None

    def _told(self, command: str) -> str | None:
        """The commands that ask for something."""
        if command == "RV":
            return f"{self._voltage():.1f}V"
        number = self._protocol if self._is_open or not self._automatic else 0
        auto, auto_number = ("AUTO, ", "A") if self._automatic else ("", "")
        known = {
            "I": self._banner,
            "@1": "OBDII to RS232 Interpreter",
            "IGN": "ON",
            "DP": auto + NAMES[number] if number else "AUTO",
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
            self._is_open = False
        elif command in {"AT0", "AT1", "AT2"}:
            self._commanded.adaptive = int(command[2])
        elif command in {"CRA", "AR"}:
            self._commanded.receive = None
        else:
            return self._set_number(command)
        return True

    def _set_number(self, command: str) -> bool:
        for name, lengths, obey in (
            ("ST", {2}, self._set_timeout),
            ("SH", {3, 6, 8}, self._set_header),
            ("CRA", {3, 8}, self._set_receive),
            ("CP", {2}, self._set_priority),
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
        # One that belongs to another bus is taken, and then nobody on this one hears it.
        self._commanded.header = digits
        return True

    def _set_receive(self, digits: str) -> bool:
        self._commanded.receive = digits
        return True

    def _set_priority(self, _digits: str) -> bool:
        # The bits of a 29-bit header before those of ATSH; units do not look at them.
        return True

    def _set_protocol(self, digits: str) -> bool:
        number = int(digits[-1], 16)
        if number >= len(NAMES) or (len(digits) == 2 and digits[0] not in "0A"):
            return False
        self._automatic = number == 0 or len(digits) == 2
        self._protocol, self._is_open = number or CAN_11_500, False
        return True

    # ---- requests

    def _request(self, line: str) -> _Request | None:
        """Read a request of hexadecimal digits; an odd last one is the response count."""
        if not _HEX.issuperset(line) or len(line) < 2:
            return None
        message, count = bytes.fromhex(line[: len(line) // 2 * 2]), line[len(line) // 2 * 2 :]
        if not self._settings.can_formatting and self._bus.is_can:
            # The client writes the ISO-TP length byte itself.
            message = message[1 : 1 + message[0]]
        if not 1 <= len(message) <= 7:
            return None
        return _Request(message, int(count, 16) or None if count else None)

    @property
    def _bus(self) -> Bus:
        # The ones beside OBD-II's are CAN too.
        return BUSES.get(self._protocol, BUSES[CAN_11_500])

    def _begun(self, request: _Request) -> Turn:
        out, wait_s = b"", self._answer_s()
        if not self._is_open:
            if self._automatic:
                self._protocol = self._bus_of_the_car
            out = b"SEARCHING..." if self._automatic else self._bus.init_words.encode()
            wait_s += self._bus.init_s
        slow_s = sum(fault.slow_s for fault in self._faults())
        if slow_s > self._timeout_s():
            # Nobody has answered in time; what comes later finds nobody listening.
            self._when_woken = lambda: self._ended(self._nothing(), self._progress())
            return Turn(out, wait_s + self._timeout_s())
        self._when_woken = lambda: self._arrived(request)
        return Turn(out, wait_s + slow_s)

    def _progress(self) -> bytes:
        """What ends the line on which the opening of a bus is told, that was not open when the request began."""
        if self._automatic:
            return self._end_of_line()
        return self._lines("OK" if self._is_open else "ERROR") if self._bus.init_words else b""

    def _nothing(self) -> list[str]:
        """What the adapter says when nobody answers."""
        if not self._is_open and self._automatic:
            return ["UNABLE TO CONNECT"]
        if not self._is_open and self._bus.init_words:
            return []
        return [silence(self._protocol, self._bus_of_the_car)]

    def _arrived(self, request: _Request) -> Turn:
        """The instant at which the units answer."""
        was_open, settings = self._is_open, self._settings
        look = Look(settings.spaces, settings.headers, settings.can_formatting)
        lines = [line for unit, frame in self._heard_frames(request) for line in self._bus.shown(unit, frame, look)]
        # A bus is open when anybody is there, whether or not this request has an answer.
        self._is_open = was_open or bool(lines) or bool(self._asked(_ANYBODY))
        progress = b"" if was_open else self._progress()
        if not lines:
            nothing = self._nothing()
            self._when_woken = lambda: self._ended(nothing, progress)
            return Turn(wake_s=self._timeout_s())
        limit = None if any(fault.count_ignored for fault in self._faults()) else request.max_lines
        if limit is not None and len(lines) >= limit:
            return self._ended(lines[:limit], progress)
        said = self._said(lines)
        self._when_woken = lambda: self._ended([])
        return Turn(progress + said, self._wait_for_more_s())

    def _asked(self, message: bytes, header: str | None = None) -> Units:
        """What the units of the car answer, on the bus that the chip is at."""
        if self._protocol != self._bus_of_the_car or not self._bus.understands(message):
            return []
        ask: Callable[[bytes], Units] = partial(self._ask, self._bus.address(header))
        for fault in self._faults():
            ask = partial(fault.units, ask)
        return ask(message)

    def _heard_frames(self, request: _Request) -> Units:
        """The frames that reach the adapter."""
        settings = self._settings
        frames: Units = [
            (unit, frame)
            for unit, message in self._asked(request.message, settings.header)
            if self._bus.passes(settings.receive, unit)
            for frame in self._bus.frames(message)
        ]
        for fault in self._faults():
            frames = fault.frames(frames)
        return frames

    def _answer_s(self) -> float:
        return self._latency_s + self._bus.slow_s

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
            self._commanded, self._is_open = _Settings(), False
        if any(fault.greets for fault in faults):
            out += self._greeting()
        return Turn(out + self._prompt())

    def _timeout_s(self) -> float:
        return self._settings.st * _TICK_S

    def _wait_for_more_s(self) -> float:
        whole = self._timeout_s()
        adapted = {0: whole, 1: 2 * self._answer_s() + 0.020, 2: self._answer_s() + 0.010}
        return min(whole, adapted[self._settings.adaptive])
