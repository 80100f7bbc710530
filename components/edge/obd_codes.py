"""Trouble codes and the freeze frame, read whole or not at all; clearing them once. Rim: it asks through `obd_link`.

What it is not: it neither decides to clear nor keeps what was read. Source: SAE J1979 modes 02, 03, 04, 07, 0A.
"""

from collections.abc import Callable, Mapping
from typing import Final, Literal

from components.edge.obd_link import ObdLink, Reply
from components.edge.obd_parser import Message, decode, parse_pids
from components.edge.ports import CarAwayError, Dtc, DtcReport
from components.wire.signals import BY_KEY, TroubleCode, Value

_MODES: Final[Mapping[int, Literal["stored", "pending", "permanent"]]] = {
    0x03: "stored",
    0x07: "pending",
    0x0A: "permanent",
}
_GONE_AFTER: Final = 3
"""So often in succession an ECU that answered before must be missing, all else being whole, until that is believed."""
_FREEZE_KEYS: Final = ("load", "temp", "rpm", "speed")


def read_codes(link: ObdLink, deadline_ms: int, missed: dict[tuple[int, str], int]) -> DtcReport:
    """Ask every ECU for its codes, and the engine for its freeze frame.

    Args:
        link: In state `ready`.
        deadline_ms: Elapsed ms by which it returns.
        missed: How often in succession each (mode, ECU) of this car that answered before has been missing; is kept
            here. One that is missing is a missing part: if it had codes, they would count as cleared.

    Returns:
        The report.

    Raises:
        CarAwayError: Any part is missing or not whole; nothing was concluded.
    """
    codes: list[Dtc] = []
    for mode, status in _MODES.items():
        reply = _ask(link, f"{mode:02X}", mode, deadline_ms)
        lists = _code_lists(link, mode, reply, deadline_ms)
        is_can = link.known.bus is not None and link.known.bus.is_can
        # On the older buses an ECU without a code may be silent; where all are, `_code_lists` has confirmed mode 03.
        must = {ecu for asked, ecu in missed if asked == mode} if is_can or lists or mode != 0x03 else set()
        short = _counting_more(link, lists, deadline_ms) if mode == 0x03 and lists else set()
        missed.update({(mode, ecu): 0 for ecu in lists.keys() - short})
        if missing := (must - lists.keys()) | short:
            _miss(missed, mode, missing)
        codes += [Dtc(code, status, ecu) for ecu, found in lists.items() for code in found]
    frame = _freeze_frame(link, deadline_ms)
    return DtcReport(tuple(sorted(set(codes))), frame, reply.at_ms)


def _miss(missed: dict[tuple[int, str], int], mode: int, missing: set[str]) -> None:
    """CarAwayError, unless these ECUs have been missing so often that it must be the car's own way."""
    for ecu in missing:
        missed[mode, ecu] = missed.get((mode, ecu), 0) + 1
    if any(missed[mode, ecu] < _GONE_AFTER for ecu in missing):
        raise CarAwayError(f"mode {mode:02X}: not all of {', '.join(sorted(missing))}")
    for ecu in missing:
        del missed[mode, ecu]


def clear(link: ObdLink, deadline_ms: int) -> Literal["cleared", "refused", "unknown"]:
    """Send mode 04 once; see ports.Car."""
    if link.state != "ready":
        return "unknown"
    reply = link.ask("04", deadline_ms, _answers(0x04))
    if any(message.refuses(0x04) for message in reply.heard.messages):
        return "refused"
    if any(message.data[0] == 0x44 for message in reply.heard.messages):
        return "cleared"
    return "unknown"


def _answers(mode: int) -> Callable[[Message], bool]:
    def concerns(message: Message) -> bool:
        return message.data[0] == mode + 0x40 or message.data[:2] == bytes((0x7F, mode))

    return concerns


def _ask(link: ObdLink, command: str, mode: int, deadline_ms: int) -> Reply:
    """Ask; CarAwayError unless the answer is whole, or is NO DATA and nothing else."""
    reply = link.ask(command, deadline_ms, _answers(mode))
    answer, heard = reply.answer, reply.heard
    if (
        not answer.prompted
        or not heard.is_whole
        or answer.reason not in {"", "no_data"}
        or (answer.reason and heard.messages)
    ):
        said = answer.words or answer.reason or ("cut" if answer.hex_lines else "timeout")
        raise CarAwayError(f"{command}: {said}")
    return reply


def _code_lists(link: ObdLink, mode: int, reply: Reply, deadline_ms: int) -> dict[str, list[str]]:
    """Return the codes by ECU; an ECU without a code has an empty list."""
    lists: dict[str, list[str]] = {}
    waiting: set[str] = set()
    is_can = link.known.bus is not None and link.known.bus.is_can
    for message in reply.heard.messages:
        if message.data[0] == mode + 0x40:
            lists.setdefault(message.ecu, []).extend(_codes(message, is_can=is_can))
        elif message.is_pending(mode):
            waiting.add(message.ecu)
        elif message.refuses(mode) and mode == 0x03:
            raise CarAwayError(f"mode 03: {message.ecu} refuses ({message.data.hex()})")
    if late := waiting - lists.keys():
        raise CarAwayError(f"mode {mode:02X}: {', '.join(sorted(late))} is still busy")
    if not lists and mode == 0x03:
        _confirm_no_codes(link, deadline_ms)
    return lists


def _codes(message: Message, *, is_can: bool) -> list[str]:
    """Return the codes of one message: on CAN a count stands first, on the older buses 0000 fills up."""
    data = message.data[1:]
    if is_can:
        count, data = (data[0], data[1:]) if data else (-1, b"")
        if count < 0 or len(data) < 2 * count or any(data[2 * count :]):
            raise CarAwayError(f"{message.ecu} counts {count} codes in {message.data.hex()}")
        data = data[: 2 * count]
    if len(data) % 2:
        raise CarAwayError(f"{message.ecu} sent half a code: {message.data.hex()}")
    raws = (int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    return [TroubleCode().decode(raw) for raw in raws if raw]


def _confirm_no_codes(link: ObdLink, deadline_ms: int) -> None:
    """Silence to mode 03 may mean that there is no code, or that the car is away: the count of PID 01 tells."""
    counts = _counts(link, deadline_ms)
    if not counts or any(counts.values()):
        raise CarAwayError(f"mode 03: no answer, where {sum(counts.values())} codes are announced")


def _counting_more(link: ObdLink, lists: Mapping[str, list[str]], deadline_ms: int) -> set[str]:
    """Return the ECUs that announce more codes than came: an older bus counts no list, and any may lose a whole one."""
    counts = _counts(link, deadline_ms)
    return {ecu for ecu, count in counts.items() if count > len(lists.get(ecu, ()))}


def _counts(link: ObdLink, deadline_ms: int) -> dict[str, int]:
    """Return how many stored codes each ECU announces in PID 01."""
    found, _ = parse_pids(_ask(link, "0101", 0x01, deadline_ms).heard, 1, {0x01: 4})
    return {ecu: data[0] & 0x7F for ecu, data in found.get(0x01, {}).items()}


def _freeze_frame(link: ObdLink, deadline_ms: int) -> dict[str, Value]:
    """Return frame 0's values by key, `dtc_ff` first; {} when there is none."""
    frame: dict[str, Value] = {}
    for key in ("dtc_ff", *_FREEZE_KEYS):
        signal = BY_KEY[key]
        reply = _ask(link, f"02{signal.pid:02X}00", 0x02, deadline_ms)
        found = [
            message.data[3:]
            for message in reply.heard.messages
            if message.data[:3] == bytes((0x42, signal.pid or 0, 0)) and len(message.data) == 3 + signal.size
        ]
        if key == "dtc_ff" and (not found or not any(found[0])):
            return {}
        if found:
            frame[key] = decode(signal, found[0])
    return frame
