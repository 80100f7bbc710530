"""A peer made of bytes, for what a real client would never send: WAMP in CBOR over a websocket, blocking."""

import socket
import struct
import time
from typing import Any, Final, Self

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from components.keyfile import KeyFile
from components.wire.topics import REALM
from tests.waiting import PATIENCE_S

WELCOME: Final = 2
ABORT: Final = 3
CHALLENGE: Final = 4
GOODBYE: Final = 6
_MASK: Final = bytes(4)
_ROLES: Final[dict[str, dict[str, object]]] = {"publisher": {}, "subscriber": {}, "caller": {}, "callee": {}}


class RawPeer:
    """A connection to the router's websocket port; `with RawPeer(port) as peer`."""

    def __init__(self, port: int, source: str = "127.0.0.1", serialization: str = "cbor") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S, source_address=(source, 0))
        head = f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        self._socket.sendall(f"{head}{key}Sec-WebSocket-Protocol: wamp.2.{serialization}\r\n\r\n".encode())
        self._file = self._socket.makefile("rb")
        self.status = self._file.readline().decode()
        while self._file.readline().strip():
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, *messages: object) -> None:
        """Send WAMP messages, together."""
        self._socket.sendall(b"".join(_frame(cbor2.dumps(one)) for one in messages))

    def send_bytes(self, content: bytes) -> None:
        """Send what may be no message."""
        self._socket.sendall(_frame(content))

    def hear(self) -> Any:  # noqa: ANN401 - a WAMP message
        """Return the next message, answering pings; EOFError where the connection ended instead."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            try:
                first, size = self._read(2)
                if size > 125:
                    (size,) = struct.unpack(">H" if size == 126 else ">Q", self._read(2 if size == 126 else 8))
                payload = self._read(size)
            except ConnectionResetError:
                raise EOFError from None
            if first & 15 == 9:
                self._socket.sendall(_frame(payload, 10))
            elif first & 15 == 2:
                return cbor2.loads(payload)
        raise TimeoutError

    def join(self, key: KeyFile) -> list[Any]:
        """Join by key; return the proof, as it was sent, and the welcome."""
        self.send(hello(key.authid, key.public_key))
        challenge = self.hear()[2]["challenge"]
        signature = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key.private_key)).sign(bytes.fromhex(challenge))
        proof = [5, signature.hex() + challenge, {}]
        self.send(proof)
        return [proof, self.hear()]

    def hear_all(self) -> list[Any]:
        """Return all messages until the connection's end."""
        found = []
        try:
            while True:
                found.append(self.hear())
        except EOFError:
            return found

    def answer(self, *message: object) -> Any:  # noqa: ANN401 - an answer, or the URI of an error
        """Send a request and return what comes of it."""
        self.send(list(message))
        found = self.hear()
        return found[4] if found[0] == 8 else found

    def _read(self, count: int) -> bytes:
        found = self._file.read(count)
        if len(found) < count:
            raise EOFError
        return found


def hello(authid: str, pubkey: str = "", method: str = "cryptosign") -> list[Any]:
    """Return a HELLO."""
    details = {"roles": _ROLES, "authmethods": [method], "authid": authid, "authextra": {"pubkey": pubkey}}
    return [1, REALM, details]


def _frame(payload: bytes, opcode: int = 2) -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size < 65536:
        head = bytes([0x80 | opcode, 0xFE]) + struct.pack(">H", size)
    else:
        head = bytes([0x80 | opcode, 0xFF]) + struct.pack(">Q", size)
    return head + _MASK + payload
