"""The one place that imports python-OBD: lines of the car -> messages, data bytes -> values, behind guards. Pure.

python-OBD assembles frames (CAN and the older buses) and decodes what it has a decoder for. It also invents: it pads
what is too short, reads a negative response as data, drops half of what one ECU said twice. So here every message is
held to its header, its length and what was asked before a decoder sees it, and every number is snapped to the raw that
the car sent, so that equal raws give equal floats.

Cost, measured here (CPython 3.11, one core): python-OBD's pint decoders 0.30 ms for all 36 signals, snapping 0.02 ms,
a single frame 3 us, three ISO-TP frames 8 us: a whole pass is far below 2 ms, so its decoders are used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import obd.protocols as obd_protocols
from obd.codes import DTC as OBD_CODE_TEXTS
from obd.commands import commands as obd_commands
from obd.protocols.protocol import Frame as ObdFrame
from obd.protocols.protocol import Message as ObdMessage

from components.wire.signals import BY_PID, Linear, Signal, Value

_CAN_11_BIT: Final = {"6": obd_protocols.ISO_15765_4_11bit_500k, "8": obd_protocols.ISO_15765_4_11bit_250k}
_CAN_29_BIT: Final = {"7": obd_protocols.ISO_15765_4_29bit_500k, "9": obd_protocols.ISO_15765_4_29bit_250k}
_OLDER: Final = {
    "1": obd_protocols.SAE_J1850_PWM,
    "2": obd_protocols.SAE_J1850_VPW,
    "3": obd_protocols.ISO_9141_2,
    "4": obd_protocols.ISO_14230_4_5baud,
    "5": obd_protocols.ISO_14230_4_fast,
}
_J1850: Final = frozenset("12")
_KWP: Final = frozenset("45")
_ISO_TP_SINGLE: Final = "0"
_NEGATIVE: Final = 0x7F
_PENDING: Final = 0x78
_CALIBRATION: Final = 16
"""Characters of a calibration id."""


@dataclass(frozen=True, slots=True)
class Message:
    """What one ECU answered: `data` begins with the mode + 40 (or 7F); `ecu` is its address in hex (7E8)."""

    ecu: str
    data: bytes

    def refuses(self, mode: int) -> bool:
        """Return whether it is a final negative response to `mode` ("wait, I am busy", code 78, is not final)."""
        return len(self.data) >= 3 and self.data[:2] == bytes((_NEGATIVE, mode)) and self.data[2] != _PENDING

    def is_pending(self, mode: int) -> bool:
        """Return whether the ECU says that its answer to `mode` comes later."""
        return self.data[:3] == bytes((_NEGATIVE, mode, _PENDING))


@dataclass(frozen=True, slots=True)
class Heard:
    """What one answer's lines were.

    Attributes:
        messages: Of ECUs, lowest address first.
        broken: How many lines or sequences were not whole.
        foreign: How many lines were whole and no answer of an ECU to a tester.
    """

    messages: tuple[Message, ...]
    broken: int = 0
    foreign: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether all that came was messages of ECUs."""
        return not self.broken and not self.foreign


class _Assembler(Protocol):
    """A protocol object of python-OBD."""

    def __call__(self, lines: Sequence[str]) -> list[ObdMessage]: ...


class Bus:
    """The car's bus by its number as ATDPN says it.

    Args:
        number: `1`..`9`, as in the ELM327 data sheet.

    Raises:
        ValueError: A number that is not one of OBD-II's buses.
    """

    def __init__(self, number: str) -> None:
        makers = _CAN_11_BIT | _CAN_29_BIT | _OLDER
        if number not in makers:
            raise ValueError(f"protocol {number} is none of OBD-II's")
        self._assemble: _Assembler = makers[number]([])
        self._number = number
        self.name: str = makers[number].ELM_NAME
        self.is_can = number not in _OLDER
        self._header_digits = 3 if number in _CAN_11_BIT else 8 if number in _CAN_29_BIT else 6

    def messages(self, hex_lines: Sequence[str]) -> Heard:
        """Assemble the lines of one answer.

        Args:
            hex_lines: As in elm_answer.Answer; in the order of arrival.

        Returns:
            The whole messages of ECUs, and how many lines gave none.
        """
        whole: list[Message] = []
        broken = foreign = 0
        sequences: dict[str, list[str]] = {}
        for line in hex_lines:
            ecu = self._ecu(line)
            if len(line) <= self._header_digits or (len(line) - self._header_digits) % 2 or not self._is_sound(line):
                broken += 1
            elif ecu is None:
                foreign += 1
            elif self._is_alone(line):
                message = self._one(ecu, [line])
                whole += [message] if message else []
                broken += message is None
            else:
                sequences.setdefault(ecu, []).append(line)
        for ecu, lines in sequences.items():
            message = self._one(ecu, lines)
            whole += [message] if message else []
            broken += message is None
        whole.sort(key=lambda message: message.ecu)
        return Heard(tuple(whole), broken, foreign)

    def lines(self, size: int) -> int:
        """Return how many lines an ECU's answer of `size` bytes to mode 01 takes."""
        return 1 if size <= 7 or not self.is_can else 1 + -(-(size - 6) // 7)

    def _ecu(self, line: str) -> str | None:
        """Return the ECU that sent this line to a tester; None when that is not what the header says."""
        header = line[: self._header_digits]
        if self._header_digits == 3:
            return header if len(header) == 3 and header[:2] == "7E" and header[2] in "89ABCDEF" else None
        if self.is_can:
            return header if len(header) == 8 and header[:6] == "18DAF1" else None
        # ISO 9141, J1850: target 6B; KWP: the tester F1. The third byte is the sender.
        return header[4:6] if len(header) == 6 and header[2:4] in {"6B", "F1"} else None

    def _is_sound(self, line: str) -> bool:
        """Return whether an older bus's line has the checksum, and on KWP the length, that it says it has.

        CAN's own checksum stays in the adapter; what its lines can be held to is in `_joined`.
        """
        if self.is_can:
            return True
        if len(line) % 2 or len(line) < 10:
            return False
        *frame, checksum = bytes.fromhex(line)
        declared = frame[0] & 0x3F if self._number in _KWP else 0
        return declared in {0, len(frame) - 3} and checksum == (
            _crc(frame) if self._number in _J1850 else sum(frame) % 256
        )

    def _is_alone(self, line: str) -> bool:
        """Return whether this line is a message of its own: python-OBD drops two of them from one ECU."""
        if self.is_can:
            return line[self._header_digits : self._header_digits + 1] == _ISO_TP_SINGLE
        # On the older buses only mode 09 numbers its lines.
        return line[6:8] != "49"

    def _one(self, ecu: str, lines: list[str]) -> Message | None:
        """Have python-OBD assemble the lines of one message; None unless it is whole."""
        if not self.is_can and len(lines) == 1 and len(lines[0]) == 10:
            # Header, one byte, checksum: the bare `44` of mode 04, which python-OBD finds too short.
            return Message(ecu, bytes.fromhex(lines[0][6:8]))
        try:
            found = self._assemble(lines)
        except (IndexError, ValueError):  # it counts on bytes that a cut line does not have
            return None
        if len(found) != 1 or not found[0].data:
            return None
        if not self.is_can:
            data = bytes(found[0].data)
            return Message(ecu, data[:1] + data[2:] if data[0] == 0x43 else data)  # it forges a count into mode 03
        data = _joined(found[0].frames)
        return Message(ecu, data) if data else None


def _joined(frames: Sequence[ObdFrame]) -> bytes:
    """Return the data of a message's CAN frames; b"" unless each follows the one before with the bytes it must have.

    A frame is as long as its data, or padded to 8 bytes; only the last one of a sequence may be shorter than 8, and
    the length that the first one declares ends in it. ISO 15765-4 pads always, but adapters hide padding; so a byte
    lost in a last frame that has one byte of padding left is the one loss that this cannot see.

    python-OBD's own joining sorts the frames, so that one of another answer may fill the place of a lost one: no ECU
    sends them out of order. It ignores what is too much, and cuts mode 03 by the count in it.
    """
    declared = max(frame.data_len or 0 for frame in frames)
    if len(frames) == 1:
        data = bytes(frames[0].data)
        return data[1 : 1 + declared] if declared < 8 and len(data) in {1 + declared, 8} else b""
    first, *middle, last = (bytes(frame.data) for frame in frames)
    rest = declared - 6 - 7 * len(middle)
    if (
        [frame.seq_index for frame in frames] != [*range(len(frames))]  # the first frame's index is 0
        or not 1 <= rest <= 7
        or len(last) not in {1 + rest, 8}
        or any(len(data) != 8 for data in (first, *middle))
    ):
        return b""
    return first[2:] + b"".join(data[1:] for data in middle) + last[1 : 1 + rest]


def _crc(frame: Sequence[int]) -> int:
    """Return the checksum of a J1850 frame: CRC-8, polynomial 1D, begun with FF and inverted. Source: SAE J1850."""
    crc = 0xFF
    for byte in frame:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x11D) if crc & 0x80 else crc << 1
    return crc ^ 0xFF


_DECODERS: Final[Mapping[int, Callable[[list[ObdMessage]], object]]] = {
    pid: obd_commands[1][pid].decode
    for pid, signal in BY_PID.items()
    if pid is not None and isinstance(signal.codec, Linear) and pid < len(obd_commands[1])
}
"""python-OBD's decoder by PID, where it has one whose value is a number as the catalogue has it.

It has none for 61..63; words, bits and objects are shaped otherwise; and it reads 0000 as a code P0000.
"""


def decode(signal: Signal, data: bytes) -> Value:
    """Make a value of the data bytes that the car sent.

    Args:
        signal: Of mode 01.
        data: Exactly `signal.size` bytes.

    Returns:
        The value, at the catalogue's resolution.

    Raises:
        ValueError: The bytes have no meaning in the standard.
    """
    if signal.codec is None or signal.pid is None:
        raise ValueError(f"{signal.key} does not come from the car's bus")
    decoder = _DECODERS.get(signal.pid)
    if decoder is None:
        return signal.codec.decode(int.from_bytes(data, "big"))
    message = ObdMessage([])
    message.data = bytearray((0x41, signal.pid)) + data
    said = float(decoder([message]).magnitude)  # type: ignore[attr-defined]
    return signal.codec.decode(signal.codec.encode(said))


def code_text(code: str) -> str:
    """Return the words of SAE J2012 for a trouble code; "" where python-OBD has none.

    >>> code_text("P0420"), code_text("P3FFF")
    ('Catalyst System Efficiency Below Threshold', '')
    """
    return str(OBD_CODE_TEXTS.get(code, ""))


def parse_pids(heard: Heard, mode: int, sizes: Mapping[int, int]) -> tuple[dict[int, dict[str, bytes]], str]:
    """Take the data of each PID out of the answers to one request.

    A message counts as a whole or not at all: mode, then PIDs that were asked, each once and with its own length, up
    to the last byte.

    Args:
        heard: The messages.
        mode: As asked (1).
        sizes: Data bytes by PID that was asked.

    Returns:
        Data bytes by PID and ECU, and the reason why a PID that is not there is not there.
    """
    found: dict[int, dict[str, bytes]] = {}
    why = "truncated" if heard.broken else "no_data"
    for message in heard.messages:
        if message.data[0] == _NEGATIVE:
            why = "negative_response" if message.data[1:2] == bytes((mode,)) else why
        elif message.data[0] == mode + 0x40:
            parts = _cut(message.data[1:], sizes)
            if parts is None:
                why = "truncated"
            else:
                for pid, data in parts.items():
                    found.setdefault(pid, {})[message.ecu] = data
    return found, why


def _cut(data: bytes, sizes: Mapping[int, int]) -> dict[int, bytes] | None:
    """Cut `PID data PID data …`; None when a PID was not asked, comes twice, or the lengths do not come out."""
    parts: dict[int, bytes] = {}
    while data:
        pid, size = data[0], sizes.get(data[0])
        if size is None or pid in parts or len(data) < 1 + size:
            return None
        parts[pid], data = data[1 : 1 + size], data[1 + size :]
    return parts or None


def parse_calibrations(heard: Heard, *, is_can: bool) -> tuple[str, ...]:
    """Take the calibration ids out of the answers to mode 09, item 04.

    Each has 16 characters, filled up with NUL behind; an ECU may have several. On CAN their number stands first, on
    the older buses they come in lines of four bytes. An ECU's answer that is not whole gives none of them.

    Args:
        heard: The messages.
        is_can: Whether the bus is CAN.

    Returns:
        The ids, lowest ECU address first, each once; may be empty.

    Source: SAE J1979, mode 09, infotype 04.
    """
    found: dict[str, None] = {}
    for message in heard.messages:
        if message.data[:2] != b"\x49\x04":
            continue
        count, ids = message.data[2:3], message.data[3 if is_can else 2 :]
        if len(ids) % _CALIBRATION or (is_can and count != bytes((len(ids) // _CALIBRATION,))):
            continue
        texts = [ids[at : at + _CALIBRATION].rstrip(b"\0 ") for at in range(0, len(ids), _CALIBRATION)]
        if all(text.isascii() and text.decode("ascii").isprintable() for text in texts):
            found |= dict.fromkeys(text.decode("ascii") for text in texts if text)
    return tuple(found)
