"""What can be wrong with an adapter and its bus: one table, name -> fault. Pure: no clock, no state.

A fault does not imitate a symptom at the end of the line: it changes what the chip does at the place where the real
thing goes wrong, between its bus and its line. So faults compose: those that are on are applied in their order, each
to what the one before has left. `elm327` applies them; which are on is `vehicle`'s affair.

Source: ELM327 data sheet, "Error Messages and Alerts"; SAE J1979 and ISO 15765-2 for what units do; what clones do
beside it was seen on captures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Final, TypeAlias, TypedDict

Units: TypeAlias = Sequence[tuple[int, bytes]]
"""(address, message or frame) of each unit, in the order of arrival."""
Ask: TypeAlias = Callable[[bytes], Units]
"""Put a request on the bus now."""
Lines: TypeAlias = Sequence[str]

_NEGATIVE, _SERVICE_NOT_SUPPORTED_NOW, _PENDING = 0x7F, 0x12, 0x78


def _as_asked(ask: Ask, request: bytes) -> Units:
    return ask(request)


def _all(frames: Units) -> Units:
    return frames


def _as_heard(lines: Lines, _before: Lines) -> Lines:
    return lines


def _as_written(text: bytes) -> bytes:
    return text


class Forced(TypedDict, total=False):
    """Settings of the chip that are so, whatever was commanded."""

    echo: bool
    linefeeds: bool
    spaces: bool


@dataclass(frozen=True)
class Fault:
    """One way to go wrong; what is not given goes well.

    Args:
        meaning: What it is, for people.
        units: How the request (mode byte first) is answered on the bus.
        frames: What reaches the adapter of the frames.
        lines: What the adapter makes of a request's lines; it is told the lines of the request before, too.
        text: What leaves of each piece of text that the chip sends; an echo is no such piece.
        forced: Settings that commands do not change.
        unknown: Commands, without AT, that are answered by `?`; the beginning is enough.
        count_unknown: A request with a response count is answered by `?`.
        count_ignored: The response count is read and has no effect.
        loses_settings: After the request the chip has the settings of a reset.
        greets: It ends the request with its banner, as if it had just been switched on.
        deaf: Nothing goes in, nothing comes out.
        slow_s: The units answer later by this; the adapter gives up when ATST is over.
        stall_s: The adapter begins each command later by this.
    """

    meaning: str
    units: Callable[[Ask, bytes], Units] = _as_asked
    frames: Callable[[Units], Units] = _all
    lines: Callable[[Lines, Lines], Lines] = _as_heard
    text: Callable[[bytes], bytes] = _as_written
    forced: Forced = field(default_factory=Forced)
    unknown: tuple[str, ...] = ()
    count_unknown: bool = False
    count_ignored: bool = False
    loses_settings: bool = False
    greets: bool = False
    deaf: bool = False
    slow_s: float = 0.0
    stall_s: float = 0.0


# ---- the adapter's words


def _instead(*words: str) -> Callable[[Lines, Lines], Lines]:
    return lambda _lines, _before: words


def _misread(mark: str) -> Callable[[Lines, Lines], Lines]:
    """The first line with a wrong digit at its end, and the adapter's mark behind it."""

    def lines(heard: Lines, _before: Lines) -> Lines:
        return [_one_bit_off(heard[0]) + mark, *heard[1:]] if heard else heard

    return lines


def _one_bit_off(line: str) -> str:
    digits = line.rstrip()
    if digits[-1:] not in set("0123456789ABCDEF"):
        return line
    return f"{digits[:-1]}{int(digits[-1], 16) ^ 1:X}{line[len(digits) :]}"


def _half(lines: Lines, _before: Lines) -> Lines:
    return [*lines[:-1], lines[-1][: len(lines[-1]) // 2]] if lines else lines


# ---- bytes on the line


def _with(garbage: bytes) -> Callable[[bytes], bytes]:
    """The garbage in the middle of every piece."""
    return lambda text: text[: len(text) // 2] + garbage + text[len(text) // 2 :] if text else text


# ---- frames on the bus (ISO 15765-2: the high half of the first byte tells what a frame is)


def _is_first(frame: bytes) -> bool:
    return frame[0] >> 4 == 1


def _is_second(frame: bytes) -> bool:
    """ISO-TP's first consecutive frame; before CAN, where mode 09 numbers its lines, number 2."""
    return frame[0] == 0x21 or (frame[0] == 0x49 and frame[2:3] == b"\x02")


def _hole(frames: Units) -> Units:
    return [(source, frame) for source, frame in frames if not _is_second(frame)]


def _repeat(frames: Units) -> Units:
    return [one for one in frames for _ in range(2 if _is_second(one[1]) else 1)]


def _lying_length(frames: Units) -> Units:
    """Single frames and first frames promise one byte more than there is, full single frames one less."""

    def lie(frame: bytes) -> bytes:
        if frame[0] >> 4 > 3:  # before CAN no frame tells its length
            return frame
        if frame[0] >> 4 == 0:
            return bytes([frame[0] + 1 if frame[0] < 7 else 6]) + frame[1:]
        return bytes([frame[0], (frame[1] + 1) % 256]) + frame[2:] if _is_first(frame) else frame

    return [(source, lie(frame)) for source, frame in frames]


def _interleaved(frames: Units) -> Units:
    """One frame of each unit in turn."""
    by_source: dict[int, list[tuple[int, bytes]]] = {}
    for one in frames:
        by_source.setdefault(one[0], []).append(one)
    return [one for turn in zip_longest(*by_source.values()) for one in turn if one is not None]


# ---- units on the bus


def _is_group(request: bytes) -> bool:
    return request[0] == 0x01 and len(request) > 2


def _another_pid(ask: Ask, request: bytes) -> Units:
    """Mode 01: what the neighbour says; a true answer, to a question that nobody asked."""
    if request[0] != 0x01 or len(request) < 2:
        return ask(request)
    neighbours = [bytes([0x01, request[1] ^ bit]) for bit in (1, 2, 4)]
    return next((answers for answers in map(ask, neighbours) if answers), [])


def _refusal(source: int, request: bytes, reason: int) -> tuple[int, bytes]:
    return source, bytes([_NEGATIVE, request[0], reason])


FAULTS: Final[Mapping[str, Fault]] = {
    "no_data": Fault("NO DATA", lines=_instead("NO DATA")),
    "searching": Fault("SEARCHING... before every answer", lines=lambda heard, _: ["SEARCHING...", *heard]),
    "unable_to_connect": Fault("UNABLE TO CONNECT", lines=_instead("UNABLE TO CONNECT")),
    "bus_init_error": Fault("BUS INIT: ...ERROR", lines=_instead("BUS INIT: ...ERROR")),
    "can_error": Fault("CAN ERROR", lines=_instead("CAN ERROR")),
    "buffer_full": Fault("BUFFER FULL behind the first line", lines=lambda heard, _: [*heard[:1], "BUFFER FULL"]),
    "stopped": Fault("STOPPED", lines=_instead("STOPPED")),
    "rx_error": Fault("<RX ERROR behind a misread line", lines=_misread("<RX ERROR")),
    "marked_data_error": Fault("<DATA ERROR behind a misread line", lines=_misread("<DATA ERROR")),
    "data_error": Fault("DATA ERROR", lines=_instead("DATA ERROR")),
    "fb_error": Fault("FB ERROR", lines=_instead("FB ERROR")),
    "lv_reset": Fault("LV RESET: settings are lost", lines=_instead("LV RESET"), loses_settings=True),
    "act_alert": Fault("ACT ALERT: it will sleep", lines=lambda heard, _: [*heard, "ACT ALERT"]),
    "question": Fault("? to every request", lines=_instead("?")),
    "err94": Fault("ERR94: settings are lost", lines=_instead("ERR94"), loses_settings=True),
    "banner": Fault("starts afresh in the middle of an answer", lines=_half, loses_settings=True, greets=True),
    "echo_on": Fault("ATE0 has no effect", forced={"echo": True}),
    "spaces_on": Fault("ATS0 has no effect", forced={"spaces": True}),
    "crlf": Fault("ATL0 has no effect", forced={"linefeeds": True}),
    "no_prompt": Fault("the prompt is missing", text=lambda text: text.replace(b">", b"")),
    "two_prompts": Fault("the prompt comes twice", text=lambda text: text.replace(b">", b">\r\r>")),
    "half_line": Fault("the last line breaks off in the middle", lines=_half),
    "nul": Fault("a stray NUL in every piece", text=_with(b"\x00")),
    "high_bytes": Fault("bytes above 7F in every piece", text=_with(b"\xff\xc3\x80")),
    "another_pid": Fault("the neighbouring PID's answer", units=_another_pid),
    "late_answer": Fault("each request gets the answer of the one before", lines=lambda _, before: before),
    "interleaved": Fault("frames of two units in turn", frames=_interleaved),
    "hole": Fault("the second frame of every sequence is lost", frames=_hole),
    "repeat": Fault("the second frame of every sequence comes twice", frames=_repeat),
    "lying_length": Fault("a length that is not the data's", frames=_lying_length),
    "negative": Fault(
        "7F, sub-function not supported, from every unit that would answer",
        units=lambda ask, asked: [_refusal(source, asked, _SERVICE_NOT_SUPPORTED_NOW) for source, _ in ask(asked)],
    ),
    "pending": Fault(
        "7F, answer pending, then the answer",
        units=lambda ask, asked: [
            one for answer in ask(asked) for one in (_refusal(answer[0], asked, _PENDING), answer)
        ],
    ),
    "silent_car": Fault("no unit answers", units=lambda _ask, _asked: []),
    "silent": Fault("the adapter hears nothing and says nothing", deaf=True),
    "refuse_groups": Fault(
        "no answer to several PIDs at once", units=lambda ask, asked: [] if _is_group(asked) else ask(asked)
    ),
    "partial_groups": Fault(
        "only the first half of several PIDs at once",
        units=lambda ask, asked: ask(asked[: 1 + len(asked) // 2] if _is_group(asked) else asked),
    ),
    "count_unknown": Fault("? to a response count", count_unknown=True),
    "count_ignored": Fault("the response count has no effect", count_ignored=True),
    "no_atat": Fault("? to ATAT", unknown=("AT",)),
    "no_atst": Fault("? to ATST", unknown=("ST",)),
    "no_atal": Fault("? to ATAL", unknown=("AL",)),
}
"""Name, as it is ordered -> what goes wrong."""
