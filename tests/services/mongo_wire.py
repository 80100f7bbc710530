"""Faults at the driver's socket: a proxy before a server of MongoDB's protocol that understands what it hands on.

Each command may meet a fault, before the server had it or after. As replica sets do, the server behind it is said to
be a primary, so that the driver tries again what it tries again there (FerretDB alone is none).

Source of the messages' form: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
"""

import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

import bson

from tests.proxy import Proxy

Document = dict[str, Any]
_OP_REPLY: Final = 1
_OP_MSG: Final = 2013
_MORE_TO_COME: Final = 2


@dataclass(frozen=True)
class Fault:
    """What happens to one command.

    Attributes:
        then: `answer` with `answer`, `reset` the connection, `half` of the answer and reset, or `silence`.
        taken: Whether the server gets it first, and does it.
    """

    then: Literal["answer", "reset", "half", "silence"]
    answer: Mapping[str, Any] | None = None
    taken: bool = False


Faults = Callable[[str, Document], Fault | None]
"""Of a command's name and document: what happens to it."""


class MongoWire(Proxy):
    """Listens on a port of its own; a context manager.

    Args:
        target: Port of the server on loopback.

    Attributes:
        fault: Asked for every command but those of the driver's own housekeeping.
    """

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.fault: Faults = lambda _name, _document: None

    def carry(self, near: socket.socket, far: socket.socket) -> None:
        """Hand on one message and its answer after the other."""
        with suppress(OSError, EOFError):
            while True:
                message = _message(near)
                name, document = _command(message)
                is_of_the_driver = name in {"hello", "ismaster", "isMaster", "endSessions", "ping"}
                fault = None if is_of_the_driver else self.fault(name, document)
                answer = b""
                if fault is None or fault.taken:
                    far.sendall(message)
                    if struct.unpack_from("<i", message, 12)[0] == _OP_MSG and message[16] & _MORE_TO_COME:
                        continue
                    answer = self._as_primary(_message(far))
                if fault is not None:
                    answer = _spoilt(fault, message, answer)
                near.sendall(answer)
                if fault is not None and fault.then in {"reset", "half"}:
                    break
        # Closed like that, it is reset.
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _as_primary(self, message: bytes) -> bytes:
        code = struct.unpack_from("<i", message, 12)[0]
        start = 36 if code == _OP_REPLY else 21
        document = bson.decode(message[start:])
        if "maxWireVersion" not in document:
            return message
        here = f"127.0.0.1:{self.port}"
        said = {"setName": "rs", "setVersion": 1, "hosts": [here], "primary": here, "me": here}
        body = bson.encode(document | said | {"secondary": False, "logicalSessionTimeoutMinutes": 30})
        return struct.pack("<i", start + len(body)) + message[4:start] + body


def _message(source: socket.socket) -> bytes:
    length = _exactly(source, 4)
    return length + _exactly(source, struct.unpack("<i", length)[0] - 4)


def _exactly(source: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = source.recv(size - len(found))
        if not piece:
            raise EOFError
        found += piece
    return found


def _command(message: bytes) -> tuple[str, Document]:
    start = 21
    if struct.unpack_from("<i", message, 12)[0] != _OP_MSG:
        # The first hello is a query of old: flags, "admin.$cmd", two numbers, the document.
        start = message.index(b"\0", 20) + 9
    size = struct.unpack_from("<i", message, start)[0]
    document = bson.decode(message[start : start + size])
    return next(iter(document)), document


def _spoilt(fault: Fault, request: bytes, answer: bytes) -> bytes:
    if fault.then == "answer":
        assert fault.answer is not None
        body = bson.encode(fault.answer)
        return struct.pack("<iiiiib", 21 + len(body), 1, *struct.unpack_from("<i", request, 4), _OP_MSG, 0, 0) + body
    return answer[: len(answer) // 2] if fault.then == "half" else b""
