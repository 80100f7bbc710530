"""The adapter's whole zoo as a table: what can go wrong between a car and its reader, and what may be said of it.

`SPOILT` is about one answer: a name and what becomes of the true answer. `TROUBLES` is about a time: what begins, and
what ends it. Nothing here makes of hexadecimal digits others that are as well formed: on a bus whose checksum stays in
the adapter nobody could tell those from the truth.
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from components.virtual_car.faults import FAULTS
from tests.simulated import BusMessages, SimulatedAdapter

Spoil = Callable[[bytes], bytes]
"""Makes of an answer, with its prompt, what is sent instead."""


def _said(words: bytes) -> Spoil:
    return lambda _: words + b"\r\r>"


def _before_prompt(words: bytes) -> Spoil:
    return lambda answer: answer.removesuffix(b"\r>") + words + b"\r\r>"


def _lines(change: Callable[[list[bytes]], list[bytes]]) -> Spoil:
    """Change the lines of an answer, the blank one and the prompt left out."""

    def spoil(answer: bytes) -> bytes:
        lines = [line for line in answer.removesuffix(b">").split(b"\r") if line]
        return b"".join(line + b"\r" for line in (change(lines) if lines else [])) + b"\r>"

    return spoil


def _each(change: Callable[[bytes], bytes]) -> Spoil:
    return _lines(lambda lines: [change(line) for line in lines])


WORDS: Final[Mapping[str, str]] = {
    "NO DATA": "no_data",
    "SEARCHING...\rUNABLE TO CONNECT": "bus_error",
    "UNABLE TO CONNECT": "bus_error",
    "BUS INIT: ...ERROR": "bus_error",
    "BUS INIT: ERROR": "bus_error",
    "BUS BUSY": "bus_error",
    "BUS ERROR": "bus_error",
    "CAN ERROR": "bus_error",
    "FB ERROR": "bus_error",
    "DATA ERROR": "bus_error",
    "<DATA ERROR": "bus_error",
    "<RX ERROR": "bus_error",
    "FC RX TIMEOUT": "bus_error",
    "BUFFER FULL": "adapter_error",
    "STOPPED": "adapter_error",
    "OUT OF MEMORY": "adapter_error",
    "ERR94": "adapter_error",
    "ERR71": "adapter_error",
    "LV RESET": "adapter_error",
    "ACT ALERT": "adapter_error",
    "!ACT ALERT": "adapter_error",
    "LP ALERT": "adapter_error",
    "!LP ALERT": "adapter_error",
    "ELM327 v1.5": "adapter_error",
    "?": "adapter_error",
    "!": "adapter_error",
    "UNKNOWN WORDS": "adapter_error",
}
"""What an adapter says instead of an answer, and the reason that it is."""

HARMLESS: Final[Mapping[str, Spoil]] = {
    "CR LF": lambda answer: answer.replace(b"\r", b"\r\n"),
    "LF only": lambda answer: answer.replace(b"\r", b"\n"),
    "lower case": bytes.lower,
    "a space between bytes": _each(lambda line: b" ".join(line[at : at + 2] for at in range(0, len(line), 2))),
    "spaces in odd places": _each(lambda line: b" " + line[:4] + b"  " + line[4:] + b" "),
    "NULs": lambda answer: b"\0" + b"\0".join(bytes([byte]) for byte in answer) + b"\0",
    "SEARCHING on a line": lambda answer: b"SEARCHING...\r" + answer,
    "SEARCHING on the same line": lambda answer: b"SEARCHING..." + answer,
    "BUS INIT on a line": lambda answer: b"BUS INIT: OK\r" + answer,
    "BUS INIT, dots": lambda answer: b"BUS INIT: ...OK\r" + answer,
    "a prompt before": lambda answer: b">" + answer,
    "two prompts": lambda answer: answer + b"\r\r>",
    "three prompts": lambda answer: answer + b">>",
    "no blank line": lambda answer: answer.replace(b"\r\r>", b"\r>"),
    "blank lines": lambda answer: b"\r\r\r" + answer.replace(b"\r", b"\r\r"),
    "no prompt": lambda answer: answer.removesuffix(b">"),
}
"""What changes nothing about what the car said, though it may cost a while (no prompt)."""

ENDLESS: Final = "garbage without end"
SPOILT: Final[Mapping[str, Spoil]] = {
    **{f"only {words!r}": _said(words.encode()) for words in WORDS},
    **{f"{words!r} behind the data": _before_prompt(words.encode()) for words in WORDS},
    **HARMLESS,
    "nothing": lambda _: b"",
    "a prompt only": lambda _: b"\r\r>",
    "half a line": lambda answer: answer[: len(answer) // 2],
    "half a line and a prompt": _lines(lambda lines: [*lines[:-1], lines[-1][: len(lines[-1]) // 2]]),
    "an odd number of digits": _each(lambda line: line[:-1]),
    "a byte short": _each(lambda line: line[:-2]),
    "a byte of another line": _each(lambda line: line + line[-2:]),
    "no headers": _each(lambda line: line[5:]),
    "bytes above 7F": _each(lambda line: line[:6] + b"\xb3\xff" + line[6:]),
    "a marked line": _each(lambda line: line + b"<RX ERROR"),
    "a line marked behind a space": _each(lambda line: line + b" <DATA ERROR"),
    "marked on the next line": _lines(lambda lines: [part for line in lines for part in (line, b"<RX ERROR")]),
    "a reset in the middle": _lines(lambda lines: [lines[0], b"", b"ELM327 v1.5", *lines[1:]]),
    "STOPPED in the middle": _lines(lambda lines: [*lines[:-1], lines[-1][:7] + b"STOPPED"]),
    "an unknown sender": _each(lambda line: b"5A" + line[2:]),
    "a tester's header": _each(lambda line: b"7E0" + line[3:]),
    "another unit": _each(lambda line: b"7EB" + line[3:]),
    "a 29-bit header": _each(lambda line: b"18DAF110" + line[3:]),
    "no first line": _lines(lambda lines: lines[1:]),
    "no last line": _lines(lambda lines: lines[:-1]),
    "each line twice": _lines(lambda lines: [line for line in lines for _ in range(2)]),
    "all of it twice": _lines(lambda lines: lines * 2),
    "backwards": _lines(lambda lines: lines[::-1]),
    "the prompt in the middle": _lines(lambda lines: [*lines[:1], b">", *lines[1:]]),
    ENDLESS: lambda _: b"\xaaZ" * 8_500,
    "garbage around it": lambda answer: b"Q!7\xf3\r" + answer.removesuffix(b"\r>") + b"\x11\x13 7E\r\r>",
}
"""What becomes of one answer."""

Change = Callable[[bytes, BusMessages], BusMessages]


def _every(change: Callable[[bytes], bytes]) -> Change:
    return lambda _, messages: [(ecu, change(message)) for ecu, message in messages]


ON_BUS: Final[Mapping[str, Change]] = {
    "it is refused": lambda request, messages: [(ecu, bytes((0x7F, request[0], 0x12))) for ecu, _ in messages],
    "it is pending": lambda request, messages: [(ecu, bytes((0x7F, request[0], 0x78))) for ecu, _ in messages],
    "it is pending, then answered": lambda request, messages: [
        part for ecu, message in messages for part in ((ecu, bytes((0x7F, request[0], 0x78))), (ecu, message))
    ],
    "another item": _every(lambda message: message[:1] + bytes([message[1] ^ 0x80]) + message[2:]),
    "another mode": _every(lambda message: bytes([0x49 if message[0] == 0x41 else message[0]]) + message[1:]),
    "a length too short": _every(lambda message: message[:-1]),
    "a length too long": _every(lambda message: message + b"\x55"),
    "another unit answers": lambda _, messages: [(0x7EC, message) for _, message in messages],
    "a stranger answers": lambda _, messages: [(0x5F1, message) for _, message in messages],
    "only the gearbox answers": lambda _, messages: [(ecu, message) for ecu, message in messages if ecu != 0x7E8],
    "nobody answers": lambda _, messages: messages[:0],
}
"""What the units answer instead."""

Trouble = Callable[[SimulatedAdapter, Random], Callable[[], None]]
"""Begins something and returns what ends it."""


def _spoiling(name: str, *, at_too: bool) -> Trouble:
    def begin(adapter: SimulatedAdapter, random: Random) -> Callable[[], None]:
        often = random.choice((1.0, 1.0, 0.3))

        def instead(command: str, answer: bytes) -> bytes:
            is_spoilt = (at_too or not command.startswith("AT")) and random.random() < often
            return SPOILT[name](answer) if is_spoilt else answer

        adapter.instead = instead
        return lambda: setattr(adapter, "instead", None)

    return begin


def _on_bus(name: str) -> Trouble:
    def begin(adapter: SimulatedAdapter, _: Random) -> Callable[[], None]:
        # On the older buses there is no room for a stranger's address.
        adapter.on_bus = ON_BUS[name if adapter.is_can else name.replace("a stranger", "another unit")]
        return lambda: setattr(adapter, "on_bus", None)

    return begin


def _fault(name: str) -> Trouble:
    def begin(adapter: SimulatedAdapter, _: Random) -> Callable[[], None]:
        adapter.faults.append(FAULTS[name])
        return adapter.faults.clear

    return begin


def _flag(name: str) -> Trouble:
    def begin(adapter: SimulatedAdapter, _: Random) -> Callable[[], None]:
        setattr(adapter, name, True)
        return lambda: setattr(adapter, name, False)

    return begin


def _unplugged(port: str) -> Trouble:
    def begin(adapter: SimulatedAdapter, _: Random) -> Callable[[], None]:
        adapter.unplug()
        return lambda: adapter.plug_in(port)

    return begin


def _once(what: Callable[[SimulatedAdapter], None]) -> Trouble:
    def begin(adapter: SimulatedAdapter, _: Random) -> Callable[[], None]:
        what(adapter)
        return lambda: None

    return begin


def _slow(adapter: SimulatedAdapter, random: Random) -> Callable[[], None]:
    """Each answer comes late, perhaps after its client has given up."""
    adapter.lag_ms = random.choice((200, 700, 1_300, 2_500))
    return lambda: setattr(adapter, "lag_ms", 0)


TROUBLES: Final[Mapping[str, Trouble]] = {
    **{f"answers: {name}": _spoiling(name, at_too=False) for name in SPOILT if name != ENDLESS},
    **{f"everything: {name}": _spoiling(name, at_too=True) for name in SPOILT if name != ENDLESS},
    **{f"bus: {name}": _on_bus(name) for name in ON_BUS},
    **{f"fault: {name}": _fault(name) for name in FAULTS},
    "the adapter is silent": _flag("is_silent"),
    "the car sleeps": _flag("is_asleep"),
    "unplugged": _unplugged("/dev/ttyUSB0"),
    "unplugged, and back under another name": _unplugged("/dev/ttyUSB1"),
    "every answer late": _slow,
    "LV RESET": _once(SimulatedAdapter.reset),
    "a reset with its banner": _once(lambda adapter: adapter.reset(b"\r\rELM327 v1.5\r\r>")),
    "a reset without a word": _once(lambda adapter: adapter.reset(b"")),
    "a prompt that nobody asked for": _once(lambda adapter: adapter.interject(b"\r>")),
    ENDLESS: _once(lambda adapter: adapter.interject(SPOILT[ENDLESS](b""))),
    "noise that nobody asked for": _once(lambda adapter: adapter.interject(b"\xff\x00UU7E8\r")),
}
"""Everything, by name."""
