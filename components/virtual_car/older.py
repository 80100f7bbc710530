"""How an answer travels on the buses before CAN: SAE J1850, ISO 9141-2, ISO 14230-4 (KWP). Pure.

No transport layer: a message has at most seven bytes, and what is longer is several messages, each with its mode. Units
are asked for one PID at a time. Source: SAE J1979 (tables for the protocols other than ISO 15765-4), J1850 for the CRC.
"""

_CODE_MODES = (0x43, 0x47, 0x4A)
_CODES_BYTES = 6
_ITEM_BYTES = 4


def messages(answer: bytes) -> list[bytes]:
    """Cut an answer as CAN carries it into the messages of an older bus.

    Args:
        answer: Mode + 0x40 first, with the count that CAN has in modes 03, 07, 09 and 0A.

    Returns:
        One or more: trouble codes three by three, padded with 0000, and 0000 alone where there is none; vehicle
        information in numbered lines of four bytes, padded in front.

    >>> [message.hex() for message in messages(bytes.fromhex("43010420"))]
    ['43042000000000']
    >>> [message.hex() for message in messages(bytes.fromhex("490401") + b"ODO1")]
    ['4904014f444f31']
    """
    mode = answer[0]
    if mode in _CODE_MODES:
        codes = answer[2:]
        cut = [codes[at : at + _CODES_BYTES] for at in range(0, len(codes), _CODES_BYTES)] or [b""]
        return [bytes([mode]) + part.ljust(_CODES_BYTES, b"\x00") for part in cut]
    if mode == 0x49:
        # The answer to info type 00 has no count on CAN, and is line 1 of 1 here.
        data = answer[2:] if answer[1] == 0 else answer[3:]
        data = data.rjust(-(-len(data) // _ITEM_BYTES) * _ITEM_BYTES, b"\x00")
        cut = [data[at : at + _ITEM_BYTES] for at in range(0, len(data), _ITEM_BYTES)]
        return [bytes([mode, answer[1], number]) + part for number, part in enumerate(cut, start=1)]
    return [answer]


def is_single(request: bytes) -> bool:
    """Whether units of an older bus understand this request: one PID, with its frame number in mode 02."""
    return len(request) <= (3 if request[0] == 0x02 else 2)


def sum_byte(data: bytes) -> int:
    """The checksum of ISO 9141-2 and KWP.

    >>> hex(sum_byte(bytes.fromhex("486b104100be3eb811")))
    '0xc9'
    """
    return sum(data) % 256


def crc_byte(data: bytes) -> int:
    """The checksum of SAE J1850: CRC-8, polynomial 1D, all ones before and inverted after.

    >>> hex(crc_byte(bytes.fromhex("486b104100be3eb811")))
    '0xfa'
    """
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x1D if crc & 0x80 else 0)) & 0xFF
    return crc ^ 0xFF
