"""What is said to an ELM327 before it is asked for values, as scripts. Pure.

`set_up` and `meet` come before the first value, `agree_again` after an answer that did not come, `rest` while the car
is left in peace, `look_again` now and then.

A script is a generator: it yields what to ask (`Ask`), or None to go on listening, and is sent the answer. So it has
no clock and no port, may be left in the middle of a slow search and taken up at the next call, and reads from top to
bottom. `obd_link` plays it on the line.

Source: ELM327 data sheet for the AT commands; SAE J1979 for modes 01 and 09.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from components.edge.elm_answer import Answer
from components.edge.obd_parser import Bus, Heard, parse_calibrations, parse_pids
from components.edge.timing import Timing

COMMAND_MS: Final = 1_000
WARM_START_MS: Final = 1_000
RESET_MS: Final = 2_000
SEARCH_MS: Final = 15_000
"""A search over all buses, with the slow initialisation of the oldest of them."""
QUIET_MS: Final = 4_000
"""How long an adapter may be at its first request to the car without a word that it searches."""

_VIN_CHARACTERS: Final = frozenset("0123456789ABCDEFGHJKLMNPRSTUVWXYZ")


@dataclass(frozen=True, slots=True)
class Ask:
    """A command without its CR, how long its answer may take, and how long where no search is announced."""

    command: str
    limit_ms: int = COMMAND_MS
    quiet_ms: int = SEARCH_MS


Script = Generator[Ask | None, Answer, None]


class AwayError(Exception):
    """The adapter or the car behind it does not answer as it must.

    Attributes:
        reason: Of wire.signals.REASONS.
        words: What it said instead.
        is_bus: The adapter is well; it is the car's bus that is away.
    """

    def __init__(self, reason: str, words: str, *, is_bus: bool = False) -> None:
        super().__init__(f"{reason}: {words}")
        self.reason = reason
        self.words = words
        self.is_bus = is_bus


@dataclass(slots=True)
class Acquaintance:
    """What the scripts learn; each fills in its part.

    Attributes:
        adapter: Its version text.
        bus: The car's bus.
        pids: What each ECU has, by its address; lowest address first. Of two that have a PID the lower one's value
            counts: the engine's.
        vin: 17 characters, or None with `vin_why`.
        calibration: What the ECUs call their software; None while they were not asked.
    """

    adapter: str = ""
    bus: Bus | None = None
    pids: Mapping[str, frozenset[int]] = field(default_factory=dict)
    vin: str | None = None
    vin_why: str = "no_data"
    calibration: tuple[str, ...] | None = None


def set_up(known: Acquaintance, reset: Ask, protocol: str) -> Script:
    """Reset the adapter and make it speak as `elm_answer` reads.

    Args:
        known: Gets `adapter`.
        reset: `ATWS` or `ATZ`.
        protocol: "auto", or the number of a bus.

    Raises:
        AwayError: It is silent, or does not understand what it must.
    """
    answer = yield reset
    said: list[str] = []
    # Answers to what was asked before the reset may still come; the banner, which has its version's digits, is what
    # ends them. Of a clone whose banner has none it is what was said last.
    while not (banner := [line for line in answer.text_lines if any(map(str.isdigit, line))]):
        if "?" in answer.text_lines:
            raise AwayError("adapter_error", f"{reset.command}: ?")
        said += [line for line in answer.text_lines if line != "OK"]
        if not answer.prompted:
            if not said:
                raise AwayError("timeout", f"no answer to {reset.command}")
            banner = said
            break
        answer = yield None
    known.adapter = banner[-1]
    for command in ("ATE0", "ATL0", "ATS0", "ATH1", f"ATSP{'0' if protocol == 'auto' else protocol}"):
        answer = yield Ask(command)
        if not answer.prompted or ("OK" not in answer.text_lines and command not in _OPTIONAL):
            raise AwayError(_why(answer), f"{command}: {answer.words or 'no answer'}")
    answer = yield Ask("ATI")
    if answer.text_lines and "?" not in answer.text_lines:
        known.adapter = answer.text_lines[-1]


_OPTIONAL: Final = frozenset({"ATL0", "ATS0"})
"""Clones lack them, and the reading does without."""


def meet(known: Acquaintance) -> Script:
    """Find the car's bus and learn what the car has: PIDs, their ECUs, VIN.

    Args:
        known: Gets everything that `set_up` did not fill in.

    Raises:
        AwayError: No ECU answered whole. With `is_bus` the adapter is well and may be asked again.
    """
    yield Ask("ATRV")  # first: it needs no car, and tells how the battery is where no car answers
    for command in Timing().commands:  # a clone that lacks them waits as long as it likes
        yield Ask(command)
    first = yield Ask("0100", SEARCH_MS, QUIET_MS)
    if not first.hex_lines or first.reason:  # of ECUs that were not understood nothing may be concluded
        raise AwayError(
            _why(first), first.words or "no answer to 0100", is_bus=first.prompted and not first.lost_settings
        )
    bus = yield from _ask_bus(first.hex_lines)
    maps, why = parse_pids(heard := bus.messages(first.hex_lines), 1, {0x00: 4})
    if not maps or heard.broken:
        # Bytes came but none of them whole: are headers off, after a reset that nobody saw?
        raise AwayError(why, "; ".join(first.hex_lines), is_bus=heard.is_whole)
    known.bus = bus
    known.calibration = None
    known.pids = yield from _ask_what_it_has(bus, maps)
    yield from _ask_vin(known, bus)


def _ask_bus(heard: Sequence[str]) -> Generator[Ask | None, Answer, Bus]:
    """Ask on which bus the car was found.

    Args:
        heard: The car's lines so far. A clone that knows neither command shows there what CAN it is, but not how fast.

    Raises:
        AwayError: It is none of OBD-II's.
    """
    answer = yield Ask("ATDPN")
    _check_settings(answer, "ATDPN")
    # "A6": found by itself to be 6.
    number = answer.text_lines[-1] if answer.text_lines else (answer.hex_lines or ("",))[-1]
    if number == "?":
        answer = yield Ask("ATDP")
        _check_settings(answer, "ATDP")
        names = {bus.name: number for number in "123456789" if (bus := Bus(number))}
        by_name = [number for name, number in names.items() if name in answer.words]
        by_header = [number for header, number in _CAN_BY_HEADER.items() if heard[0].startswith(header)]
        number = next(iter(by_name + by_header), number)
    try:
        return Bus(number[-1:])
    except ValueError as error:
        raise AwayError("bus_error", str(error), is_bus=True) from error


_CAN_BY_HEADER: Final = {"7E": "6", "18DAF1": "7"}
"""A bus of this form; the other one of it (8, 9) differs in its speed only, which is the adapter's business."""


def _ask_vin(known: Acquaintance, bus: Bus) -> Script:
    """Ask for the VIN; one that hangs the adapter costs its time and not the car.

    Raises:
        AwayError: The adapter does not listen any more.
    """
    answer = yield Ask("0902", 2 * COMMAND_MS)
    known.vin, known.vin_why = parse_vin(bus.messages(answer.hex_lines), is_can=bus.is_can)
    if known.vin is None and not (answer.prompted and answer.hex_lines):
        known.vin_why = _why(answer)
    if answer.prompted:
        _check_settings(answer, "0902")
    else:
        yield from agree_again(known.adapter)


def _ask_what_it_has(
    bus: Bus, maps: dict[int, dict[str, bytes]]
) -> Generator[Ask | None, Answer, dict[str, frozenset[int]]]:
    """Go on from the first bit map (`maps`, by PID and ECU) as far as each says that there is a next."""
    pids: dict[str, set[int]] = {ecu: set() for ecu in sorted(maps[0])}
    for base in (0x00, 0x20, 0x40, 0x60):
        announced = {ecu for ecu, has in pids.items() if base in has}
        if base and not announced:
            break
        if base:
            maps = yield from _ask_map(bus, base, announced)
        for ecu, bits in maps.get(base, {}).items():
            pids.setdefault(ecu, set()).update(supported_pids(base, bits))
    return {ecu: frozenset(has) for ecu, has in sorted(pids.items())}


def _ask_map(bus: Bus, base: int, announced: set[str]) -> Generator[Ask | None, Answer, dict[int, dict[str, bytes]]]:
    """Ask for a bit map, again where one that was announced did not come: what it names would count as not there.

    Raises:
        AwayError: It was not silence that kept it away.
    """
    for again in (True, False):
        answer = yield Ask(f"01{base:02X}")
        _check_settings(answer, f"01{base:02X}")
        maps, why = parse_pids(heard := bus.messages(answer.hex_lines), 1, {base: 4})
        if announced <= maps.get(base, {}).keys() or (not again and heard.is_whole and answer.reason in _SILENCE):
            break
    else:
        raise AwayError(answer.reason or why, answer.words or "; ".join(answer.hex_lines), is_bus=True)
    return maps


_SILENCE: Final = frozenset({"", "no_data"})


def _check_settings(answer: Answer, command: str) -> None:
    """AwayError when the adapter did not answer, or is no longer set up."""
    if not answer.prompted or answer.lost_settings:
        raise AwayError(_why(answer), answer.words or f"no answer to {command}")


def agree_again(adapter: str) -> Script:
    """After an answer that did not come: find out that the adapter listens, and that nothing old is on its way.

    Not by a bare CR: that repeats the last command, and the last command may have been the one that clears codes.

    Args:
        adapter: What ATI answers; it comes only after everything that was asked before.

    Raises:
        AwayError: It is silent or says something else.
    """
    for _ in range(2):
        answer = yield Ask("ATI", COMMAND_MS // 2)
        while answer.prompted and adapter not in answer.text_lines and "?" not in answer.text_lines:
            answer = yield None
        if adapter in answer.text_lines:
            return
    raise AwayError("timeout", answer.words or "the adapter is silent")


def rest(adapter: str) -> Script:
    """Ask for the voltage at the plug, which no control unit of the car notices; a search that still runs ends.

    Args:
        adapter: What ATI answers.

    Raises:
        AwayError: The adapter is silent or says something else.
    """
    yield from agree_again(adapter)
    answer = yield Ask("ATRV")
    if not answer.prompted:
        raise AwayError("timeout", "no answer to ATRV")


def look_again(known: Acquaintance, bus: Bus) -> Script:
    """Ask once more what the car has: an ECU may have slept through the first time. The first time also: what it is.

    Args:
        known: Gets what is new in `pids`, and `calibration`, and the VIN where its first answer did not come; nothing
            that was known is forgotten.
        bus: The car's.

    Raises:
        AwayError: The adapter is silent.
    """
    answer = yield Ask("0100")
    if not answer.prompted:
        raise AwayError("timeout", "no answer to 0100")
    maps, _ = parse_pids(bus.messages(answer.hex_lines), 1, {0x00: 4})
    found = (yield from _ask_what_it_has(bus, maps)) if maps else {}
    ecus = sorted({*known.pids, *found})
    known.pids = {ecu: known.pids.get(ecu, frozenset()) | found.get(ecu, frozenset()) for ecu in ecus}
    if known.vin_why == "timeout":
        yield from _ask_vin(known, bus)
    if known.calibration is None:
        answer = yield Ask("0904", 2 * COMMAND_MS)
        if not answer.prompted:
            raise AwayError("timeout", "no answer to 0904")
        known.calibration = parse_calibrations(bus.messages(answer.hex_lines), is_can=bus.is_can)


def supported_pids(base: int, bits: bytes) -> list[int]:
    """Return the PIDs that a bit map names, lowest first; the highest bit is `base` + 1.

    >>> supported_pids(0x20, bytes.fromhex("80000001"))
    [33, 64]
    """
    number = int.from_bytes(bits, "big")
    width = 8 * len(bits)
    return [base + place for place in range(1, width + 1) if number >> width - place & 1]


def parse_voltage(answer: Answer) -> float | None:
    """Return what ATRV says (`12.6V`); None when that is no voltage of a car.

    A clone that does not measure says `0.0V`; a starter leaves a battery more than 6 V.
    """
    for line in (*answer.text_lines, *answer.hex_lines):
        number = line.upper().removesuffix("V")
        if number.replace(".", "", 1).isdecimal() and number.isascii() and 6 <= float(number) < 50:
            return float(number)
    return None


def parse_vin(heard: Heard, *, is_can: bool) -> tuple[str | None, str]:
    """Return (VIN, "") or (None, the reason).

    On CAN one item of 17 bytes follows its count; on the older buses five lines of four bytes, padded in front.
    """
    why = "no_data" if heard.is_whole else "truncated"
    for message in heard.messages:
        if message.refuses(9):
            why = "negative_response"
        elif message.data[:2] == b"\x49\x02":
            text = message.data[3 if is_can else 2 :].strip(b"\0").decode("ascii", "replace")
            if len(text) != 17:
                why = "truncated"
            elif not _VIN_CHARACTERS.issuperset(text):
                why = "out_of_range"
            else:
                return text, ""
    return None, why


def _why(answer: Answer) -> str:
    if answer.reason:
        return answer.reason
    return "adapter_error" if answer.prompted else "timeout"
