"""The buses that an ELM327 knows, by its digit: addresses, frames, and how the adapter shows them. Pure.

Units are known everywhere in the virtual car by the identifier of their answers on 11-bit CAN (7E8: engine); only here
that becomes what another bus has instead. Source: ISO 15765-4, ISO 14230-4, ISO 9141-2, SAE J1850, J2178 for headers;
ELM327 data sheet for what is shown.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from components.virtual_car import isotp, older
from components.virtual_car.vehicle_bus import ENGINE, FUNCTIONAL

_TESTER = 0xF1
NOBODY: Final = 0
"""An address at which no unit listens."""

NAMES: Final = (
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
"""What ATDP calls them."""


@dataclass(frozen=True)
class Look:
    """How lines are to look.

    Args:
        spaces: A space behind every byte, the last one of a line included.
        headers: With header and, on the older buses, checksum.
        formatted: CAN only: lengths and frame numbers are read instead of shown.
    """

    spaces: bool
    headers: bool
    formatted: bool

    def hex(self, data: bytes) -> str:
        """Bytes as the chip writes them."""
        return "".join(f"{byte:02X} " for byte in data) if self.spaces else data.hex().upper()


def _node(unit: int) -> int:
    """A unit's address of one byte: 10 for the engine, 18 for the transmission."""
    return 0x10 + (unit - ENGINE) * 8


def _listener(node: int) -> int:
    """Where the unit of this node listens, on 11-bit CAN."""
    number, rest = divmod(node - 0x10, 8)
    return ENGINE - 8 + number if not rest and 0 <= number < 8 else NOBODY


@dataclass(frozen=True)
class Can:
    """ISO 15765-4, with identifiers of 11 or 29 bits.

    Attributes:
        is_can: Frames are ISO-TP, groups of PIDs are understood.
        slow_s: How much slower than CAN the bus is, request and answer together.
        init_s: What opening it takes.
        init_words: What the chip says meanwhile when it does not search; empty: nothing.
    """

    is_wide: bool
    is_can = True
    slow_s = 0.0
    init_s = 0.0
    init_words = ""

    def address(self, header: str | None) -> int:
        """Who is asked: an address of 11-bit CAN. `header`: hexadecimal digits of ATSH; None: the bus's own."""
        if not self.is_wide:
            return FUNCTIONAL if header is None else int(header, 16) & 0x7FF
        kind, target, source = bytes.fromhex((header or "DB33F1").rjust(6, "0")[-6:])
        if source != _TESTER:
            return NOBODY
        return FUNCTIONAL if (kind, target) == (0xDB, 0x33) else _listener(target) if kind == 0xDA else NOBODY

    def understands(self, request: bytes) -> bool:
        """Whether units of such a bus answer requests of this form."""
        return bool(request)

    def frames(self, answer: bytes) -> list[bytes]:
        """What an answer becomes on the bus, headers left out."""
        return isotp.frames(answer)

    def passes(self, receive: str | None, unit: int) -> bool:
        """Whether the filter of ATCRA (hexadecimal digits) lets a unit through."""
        return receive is None or int(receive, 16) == int(self._identifier(unit), 16)

    def shown(self, unit: int, frame: bytes, look: Look) -> list[str]:
        """The lines that a frame becomes."""
        identifier = self._identifier(unit)
        head = look.hex(bytes.fromhex(identifier)) if self.is_wide else identifier + " " * look.spaces
        if not look.formatted:
            return [head + look.hex(frame) if look.headers else look.hex(frame)]
        is_single, is_first = frame[0] >> 4 == 0, frame[0] >> 4 == 1
        # The chip hides the padding of a single frame, not that of a last consecutive one.
        cut = frame[: 1 + frame[0]] if is_single else frame
        if look.headers:
            return [head + look.hex(cut)]
        if is_single:
            return [look.hex(cut[1:])]
        gap = " " * look.spaces
        if is_first:
            return [f"{int.from_bytes(frame[:2], 'big') & 0xFFF:03X}", f"0:{gap}{look.hex(frame[2:])}"]
        return [f"{frame[0] & 0xF:X}:{gap}{look.hex(frame[1:])}"]

    def _identifier(self, unit: int) -> str:
        return f"18DAF1{_node(unit):02X}" if self.is_wide else f"{unit:03X}"


@dataclass(frozen=True)
class Older:
    """A bus of three header bytes and a checksum. What has no word here is as in Can.

    Args:
        request: The header's first two bytes when all are asked.
        answer: The first two of an answer; KWP adds the length to the first.
        checksum: Over header and data.
    """

    request: bytes
    answer: bytes
    checksum: Callable[[bytes], int]
    slow_s: float
    init_s: float = 0.0
    init_words: str = ""
    is_can = False

    def address(self, header: str | None) -> int:
        """See Can."""
        if header is None:
            return FUNCTIONAL
        _, target, source = bytes.fromhex(header.rjust(6, "0")[-6:])
        if source != _TESTER:
            return NOBODY
        return FUNCTIONAL if target == self.request[1] else _listener(target)

    def understands(self, request: bytes) -> bool:
        """See Can."""
        return older.is_single(request)

    def frames(self, answer: bytes) -> list[bytes]:
        """See Can."""
        return older.messages(answer)

    def passes(self, receive: str | None, unit: int) -> bool:
        """See Can: ATCRA is its own, all pass here."""
        del receive, unit
        return True

    def shown(self, unit: int, frame: bytes, look: Look) -> list[str]:
        """See Can."""
        if not look.headers:
            return [look.hex(frame)]
        length = len(frame) if self.answer[0] == _KWP_FORMAT else 0
        whole = bytes([self.answer[0] + length, self.answer[1], _node(unit)]) + frame
        return [look.hex(whole + bytes([self.checksum(whole)]))]


Bus: TypeAlias = Can | Older

_KWP_FORMAT = 0x80
_SLOW_INIT, _FAST_INIT = (2.0, "BUS INIT: ..."), (0.3, "BUS INIT: ")
_KWP = (b"\xc2\x33", bytes([_KWP_FORMAT, _TESTER]), older.sum_byte, 0.040)

BUSES: Final[Mapping[int, Bus]] = {
    1: Older(b"\x61\x6a", b"\x41\x6b", older.crc_byte, 0.020),
    2: Older(b"\x68\x6a", b"\x48\x6b", older.crc_byte, 0.030),
    3: Older(b"\x68\x6a", b"\x48\x6b", older.sum_byte, 0.050, *_SLOW_INIT),
    4: Older(*_KWP, *_SLOW_INIT),
    5: Older(*_KWP, *_FAST_INIT),
    6: Can(is_wide=False),
    7: Can(is_wide=True),
    8: Can(is_wide=False),
    9: Can(is_wide=True),
}
"""By the digit of ATSP: the buses that OBD-II cars have."""

_BAUD_GROUPS = ({6, 7}, {8, 9, 10}, {11}, {12})


def silence(tried: int, of_the_car: int) -> str:
    """What the chip says when nobody answers on a bus that needs no opening.

    Args:
        tried: The digit that the client insists on, 1 to C.
        of_the_car: The digit of the bus that the car has.

    >>> silence(6, 6), silence(7, 6), silence(8, 6), silence(1, 6), silence(6, 5)
    ('NO DATA', 'NO DATA', 'CAN ERROR', 'NO DATA', 'CAN ERROR')
    """
    is_can_tried = tried >= min(_BAUD_GROUPS[0])
    share_a_rate = any({tried, of_the_car} <= group for group in _BAUD_GROUPS)
    return "CAN ERROR" if is_can_tried and not share_a_rate else "NO DATA"
