"""A packet sealed for one server and signed by one device. Pure: randomness is an argument.

An envelope is a CBOR array of five byte strings `[header, wrapped_key, nonce, ciphertext, signature]`; the header is a
deterministic CBOR map, in the clear. Compression comes before encryption. Sealing uses pycryptodome, opening pyca
(three times as fast where one server opens for many cars); both read the same standards.

Suite `RSA-OAEP-256+A256GCM`: a fresh AES-256 key per envelope, wrapped with RSA-OAEP (SHA-256 for hash and MGF1);
AES-256-GCM with a random 96-bit nonce and AAD = header || wrapped_key; Ed25519 by the device over
`"odograph-packet-v1" || header || wrapped_key || nonce || ciphertext`.
"""

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from typing import Final, cast

from Crypto.Cipher import AES, PKCS1_OAEP
from Crypto.Hash import SHA256
from Crypto.PublicKey import ECC, RSA
from Crypto.Signature import eddsa, pss
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256 as PYCA_SHA256

from components.wire import strict_cbor
from components.wire.errors import NotYetError, RejectedError
from components.wire.topics import ID_PATTERN

RSA_SUITE: Final = "RSA-OAEP-256+A256GCM"
VERSION: Final = 1
MAX_ENVELOPE: Final = 256 * 1024
MAX_PLAINTEXT: Final = 1024 * 1024
_CONTEXT: Final = b"odograph-packet-v1"
_TAG: Final = 16
_KEY: Final = 32
_OAEP: Final = padding.OAEP(padding.MGF1(PYCA_SHA256()), PYCA_SHA256(), None)

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

    def open(self, server_keys: Mapping[str, RSAPrivateKey]) -> bytes:
        """Return the plaintext. Call `verify` first.

        Args:
            server_keys: The server's private keys by kid.

        Raises:
            NotYetError: `unknown_server_key`: another server, or a key not loaded here.
            RejectedError: `suite`, `unwrap`, `decrypt` or `inflate`.
        """
        header = self.header
        if header.alg != RSA_SUITE:
            raise RejectedError("suite", f"{header.alg} is not known")
        if header.coding not in CODINGS:
            raise RejectedError("suite", f"coding {header.coding} is not known")
        if header.server_kid not in server_keys:
            raise NotYetError("unknown_server_key", header.server_kid)
        try:
            key = server_keys[header.server_kid].decrypt(self.wrapped_key, _OAEP)
        except ValueError as error:
            raise RejectedError("unwrap", "the key does not unwrap") from error
        # AESGCM would take 16 bytes as well; the suite says 256 bits.
        if len(key) != _KEY:
            raise RejectedError("unwrap", f"the wrapped key has {len(key)} bytes")
        try:
            packed = AESGCM(key).decrypt(self.nonce, self.ciphertext, self.header_bytes + self.wrapped_key)
        except InvalidTag as error:
            raise RejectedError("decrypt", "the ciphertext is not authentic") from error
        return _inflate(packed, header.coding)


def seal(
    plaintext: bytes, header: Header, server_key: RSA.RsaKey, device_key: ECC.EccKey, random: Callable[[int], bytes]
) -> bytes:
    """Return the envelope of a packet.

    Args:
        plaintext: What `packet.pack` made.
        server_key: The key that `header.server_kid` names.
        device_key: Ed25519 private key that `header.device_kid` names.
        random: Gives that many bytes from the system's random source; used for key, nonce and padding.

    Raises:
        ValueError: The envelope would be larger than MAX_ENVELOPE, or the plaintext than MAX_PLAINTEXT.
    """
    if len(plaintext) > MAX_PLAINTEXT:
        raise ValueError(f"a packet has at most {MAX_PLAINTEXT} bytes, this one {len(plaintext)}")
    header_bytes = strict_cbor.dumps(asdict(header))
    key, nonce = random(_KEY), random(12)
    # pycryptodome's stub names PSS's MGF1; OAEP takes the same function. Its default hash would be SHA-1.
    oaep = PKCS1_OAEP.new(server_key, SHA256, lambda seed, n: pss.MGF1(seed, n, SHA256), randfunc=random)  # type: ignore[arg-type]
    wrapped_key = oaep.encrypt(key)
    gcm = AES.new(key, AES.MODE_GCM, nonce=nonce, mac_len=_TAG)
    gcm.update(header_bytes + wrapped_key)
    ciphertext = b"".join(gcm.encrypt_and_digest(_deflate(plaintext, header.coding)))
    signed = header_bytes + wrapped_key + nonce + ciphertext
    signature = eddsa.new(device_key, "rfc8032").sign(_CONTEXT + signed)
    envelope = strict_cbor.dumps([header_bytes, wrapped_key, nonce, ciphertext, signature])
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
    if len(nonce) != 12 or len(signature) != 64 or len(ciphertext) < _TAG or len(header_bytes) > 1024:
        raise RejectedError("grammar", "nonce, signature, ciphertext or header has a wrong length")
    return Envelope(_header(_cbor(header_bytes, depth=2)), header_bytes, wrapped_key, nonce, ciphertext, signature)


def packet_id(data: bytes) -> str | None:
    """Return the id that an envelope's header claims; None where it cannot be read."""
    try:
        return parse(data).header.packet_id
    except RejectedError:
        return None


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
