"""A packet sealed for one server and signed by one device. Pure, but for what suites.py says of HPKE.

An envelope is a CBOR array of five byte strings `[header, wrapped_key, nonce, ciphertext, signature]`; the header is a
deterministic CBOR map, in the clear. Compression comes before encryption. How it is encrypted is the suite's (`alg`,
suites.py): each binds the header, and the header names the suite and the recipient's key. Ed25519 by the device over
`"odograph-packet-v1" || header || wrapped_key || nonce || ciphertext`.

Room for more recipients, without code for it yet: version 2 of the header would have a list of kids as `server_kid`,
and `wrapped_key` would be a CBOR array with one wrapped content key for each, in that order; ciphertext, signature,
limits, receipts and outbox stay as they are. A device would seal so only for a server whose bundle lists the suite.
"""

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from typing import Final, cast

from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from components.wire import strict_cbor
from components.wire.errors import NotYetError, RejectedError
from components.wire.suites import RSA_SUITE, SUITES, TAG_BYTES, PrivateKey, PublicKey, Sealed
from components.wire.topics import ID_PATTERN

VERSION: Final = 1
MAX_ENVELOPE: Final = 256 * 1024
MAX_PLAINTEXT: Final = 1024 * 1024
_CONTEXT: Final = b"odograph-packet-v1"
_NONCE_BYTES: Final = {suite.nonce_bytes for suite in SUITES.values()}

_DICTIONARY: Final = files("components.wire").joinpath("packet.v1.dict").read_bytes()
"""What every packet says alike, for deflate to refer to. Frozen: packets sealed with it must open for ever."""

CODINGS: Final[Mapping[str, tuple[int, bytes]]] = {
    "json+zlib": (zlib.MAX_WBITS, b""),
    "json+deflate-d1": (-zlib.MAX_WBITS, _DICTIONARY),
}
"""By name: zlib's window bits (negative: no zlib header) and preset dictionary."""
DEFAULT_CODING: Final = "json+deflate-d1"

_FORMS: Final = {
    "alg": r"[A-Za-z0-9+.-]{1,40}",
    "device": ID_PATTERN,
    "session": r"[0-9a-f]{16}",
    "minute": r"[0-9]{8}T[0-9]{6}Z",
    "epoch": r"[0-9a-f]{16}",
    "server_kid": r"[0-9a-f]{16}",
    "device_kid": r"[0-9a-f]{16}",
    "coding": r"[a-z0-9+.-]{1,40}",
}


@dataclass(frozen=True, slots=True)
class Header:
    """What everyone may see of a packet.

    Attributes:
        epoch: 16 hex digits, random at the outbox's creation; with `seq` for gaps and windows, never for identity.
        server_kid, device_kid: Names of the keys (`kid`) that wrapped and signed.
        alg: How it was sealed, one of suites.SUITES.
        coding: How the plaintext was written and compressed, one of CODINGS.
    """

    device: str
    session: str
    minute: str
    epoch: str
    seq: int
    server_kid: str
    device_kid: str
    coding: str = DEFAULT_CODING
    alg: str = RSA_SUITE
    v: int = VERSION

    @property
    def packet_id(self) -> str:
        """`<device>/<session>/<minute>`."""
        return f"{self.device}/{self.session}/{self.minute}"


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope whose grammar is right; nothing of it is verified yet."""

    header: Header
    header_bytes: bytes
    wrapped_key: bytes
    nonce: bytes
    ciphertext: bytes
    signature: bytes

    def verify(self, device_key: Ed25519PublicKey) -> None:
        """Check the device's signature.

        Raises:
            RejectedError: `signature`.
        """
        signed = _CONTEXT + self.header_bytes + self.wrapped_key + self.nonce + self.ciphertext
        try:
            device_key.verify(self.signature, signed)
        except InvalidSignature as error:
            raise RejectedError("signature", f"not by the key of {self.header.device}") from error

    def open(self, server_keys: Mapping[str, PrivateKey]) -> bytes:
        """Return the plaintext. Call `verify` first.

        Args:
            server_keys: The server's private keys by kid.

        Raises:
            NotYetError: `unknown_server_key`: another server, or a key not loaded here.
            RejectedError: `suite`, `grammar`, `unwrap`, `decrypt` or `inflate`.
        """
        header = self.header
        suite = SUITES.get(header.alg)
        if suite is None:
            raise RejectedError("suite", f"{header.alg} is not known")
        if header.coding not in CODINGS:
            raise RejectedError("suite", f"coding {header.coding} is not known")
        if header.server_kid not in server_keys:
            raise NotYetError("unknown_server_key", header.server_kid)
        key = server_keys[header.server_kid]
        if not isinstance(key, suite.private_key):
            raise RejectedError("suite", f"{header.alg} is not what the key {header.server_kid} is for")
        if len(self.nonce) != suite.nonce_bytes:
            raise RejectedError("grammar", f"the nonce of {header.alg} has {suite.nonce_bytes} bytes")
        sealed = Sealed(self.wrapped_key, self.nonce, self.ciphertext)
        return _inflate(suite.open(sealed, self.header_bytes, key), header.coding)


def seal(
    plaintext: bytes, header: Header, server_key: PublicKey, device_key: ECC.EccKey, random: Callable[[int], bytes]
) -> bytes:
    """Return the envelope of a packet.

    Args:
        plaintext: What `packet.pack` made.
        server_key: The key that `header.server_kid` names, of the kind that `header.alg` is for.
        device_key: Ed25519 private key that `header.device_kid` names.
        random: Gives that many bytes from the system's random source.

    Raises:
        ValueError: The envelope would be larger than MAX_ENVELOPE, or the plaintext than MAX_PLAINTEXT.
    """
    if len(plaintext) > MAX_PLAINTEXT:
        raise ValueError(f"a packet has at most {MAX_PLAINTEXT} bytes, this one {len(plaintext)}")
    header_bytes = strict_cbor.dumps(asdict(header))
    sealed = SUITES[header.alg].seal(_deflate(plaintext, header.coding), header_bytes, server_key, random)
    parts = [header_bytes, sealed.wrapped_key, sealed.nonce, sealed.ciphertext]
    signature = eddsa.new(device_key, "rfc8032").sign(_CONTEXT + b"".join(parts))
    envelope = strict_cbor.dumps([*parts, signature])
    if len(envelope) > MAX_ENVELOPE:
        raise ValueError(f"an envelope has at most {MAX_ENVELOPE} bytes, this one {len(envelope)}")
    return envelope


def parse(data: bytes) -> Envelope:
    """Return the envelope that these bytes are.

    Raises:
        RejectedError: `size`; `grammar`: not the one canonical form, an unknown version, or a header field out of form.
    """
    if len(data) > MAX_ENVELOPE:
        raise RejectedError("size", f"{len(data)} bytes are more than {MAX_ENVELOPE}")
    parts = _cbor(data, depth=2)
    if not (isinstance(parts, list) and len(parts) == 5 and all(type(part) is bytes for part in parts)):
        raise RejectedError("grammar", "an envelope is an array of five byte strings")
    header_bytes, wrapped_key, nonce, ciphertext, signature = cast("list[bytes]", parts)
    if (
        len(nonce) not in _NONCE_BYTES
        or len(signature) != 64
        or len(ciphertext) < TAG_BYTES
        or len(header_bytes) > 1024
    ):
        raise RejectedError("grammar", "nonce, signature, ciphertext or header has a wrong length")
    return Envelope(_header(_cbor(header_bytes, depth=2)), header_bytes, wrapped_key, nonce, ciphertext, signature)


def packet_id(data: bytes) -> str | None:
    """Return the id that an envelope's header claims; None where it cannot be read."""
    try:
        return parse(data).header.packet_id
    except RejectedError:
        return None


def server_kid(data: bytes) -> str:
    """Return the kid of the server's key that an envelope names; "" when it is no envelope."""
    try:
        return parse(data).header.server_kid
    except RejectedError:
        return ""


def _header(form: object) -> Header:
    if not isinstance(form, dict) or form.keys() != {one.name for one in fields(Header)}:
        raise RejectedError("grammar", "the header has other keys")
    if form["v"] != VERSION or type(form["v"]) is not int:
        raise RejectedError("grammar", f"the version is not {VERSION}")
    if type(form["seq"]) is not int or not 0 < form["seq"] < 2**63:
        raise RejectedError("grammar", "seq is not a positive number")
    for name, pattern in _FORMS.items():
        if not isinstance(form[name], str) or not re.fullmatch(pattern, form[name]):
            raise RejectedError("grammar", f"{name} must match {pattern}")
    return Header(**form)


def _cbor(data: bytes, depth: int) -> object:
    try:
        return strict_cbor.loads(data, depth)
    except ValueError as error:
        raise RejectedError("grammar", str(error)) from error


def _deflate(plaintext: bytes, coding: str) -> bytes:
    bits, dictionary = CODINGS[coding]
    deflate = zlib.compressobj(9, zlib.DEFLATED, bits, zdict=dictionary)
    return deflate.compress(plaintext) + deflate.flush()


def _inflate(packed: bytes, coding: str) -> bytes:
    bits, dictionary = CODINGS[coding]
    inflate = zlib.decompressobj(bits, zdict=dictionary)
    try:
        plaintext = inflate.decompress(packed, MAX_PLAINTEXT + 1)
    except zlib.error as error:
        raise RejectedError("inflate", str(error)) from error
    if len(plaintext) > MAX_PLAINTEXT:
        raise RejectedError("inflate", f"more than {MAX_PLAINTEXT} bytes")
    if not inflate.eof or inflate.unused_data:
        raise RejectedError("inflate", "the compressed data ends too early or too late")
    return plaintext
