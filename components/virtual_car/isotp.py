"""ISO 15765-2: how a message travels in CAN frames of eight bytes. Pure.

Only the sending half of an ECU: flow control is the adapter's business and is taken as granted.
"""

MAX_MESSAGE_BYTES = 4095
_FRAME_BYTES = 8


def frames(message: bytes, padding: int = 0x00) -> list[bytes]:
    """Cut a message into CAN frames.

    Args:
        message: 1 to 4095 bytes: service byte and data.
        padding: Fills the last frame; ISO 15765-4 demands eight bytes always.

    Returns:
        One single frame, or a first frame and its consecutive ones; eight bytes each.

    Raises:
        ValueError: The message is empty or too long for a first frame's 12-bit length.

    >>> [frame.hex() for frame in frames(bytes.fromhex("410c1af8"))]
    ['04410c1af8000000']
    >>> [frame.hex() for frame in frames(bytes.fromhex("410c1af80d320563"))]
    ['1008410c1af80d32', '2105630000000000']
    """
    if not 1 <= len(message) <= MAX_MESSAGE_BYTES:
        raise ValueError(f"an ISO-TP message has 1 to {MAX_MESSAGE_BYTES} bytes, got {len(message)}")
    if len(message) < _FRAME_BYTES:
        cut = [bytes([len(message)]) + message]
    else:
        cut = [(0x1000 | len(message)).to_bytes(2, "big") + message[:6]]
        rest = [message[at : at + 7] for at in range(6, len(message), 7)]
        cut += [bytes([0x20 | number % 16]) + part for number, part in enumerate(rest, start=1)]
    return [frame.ljust(_FRAME_BYTES, bytes([padding])) for frame in cut]
