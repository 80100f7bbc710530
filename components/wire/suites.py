"""How bytes are sealed for one key of the server: the suites by their names, one table. Pure, but for HPKE's own draw.

Sealing uses pycryptodome, opening pyca (several times as fast where one server opens for many cars); both read the
same standards. A suite turns plaintext and header into three byte strings of the envelope:

| suite                        | wrapped_key         | nonce  | header is bound as        |
| ---------------------------- | ------------------- | ------ | ------------------------- |
| `RSA-OAEP-256+A256GCM`       | the AES key, sealed | 96 bit | AAD = header, wrapped_key |
| `HPKE-X25519-SHA256-A256GCM` | `enc`, 32 bytes     | empty  | info = header             |

RSA-OAEP has SHA-256 for hash and MGF1. HPKE is RFC 9180, base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
AES-256-GCM, empty AAD, one message a context; the nonce follows from the key schedule and does not travel. The
ephemeral key comes from the library's own random source: pycryptodome takes no other.
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from Crypto.Cipher import AES, PKCS1_OAEP
from Crypto.Hash import SHA256
from Crypto.Protocol import DH, HPKE
from Crypto.PublicKey import RSA
from Crypto.PublicKey.ECC import EccKey
from Crypto.Signature import pss
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256 as PYCA_SHA256

from components.wire.errors import RejectedError

RSA_SUITE: Final = "RSA-OAEP-256+A256GCM"
HPKE_SUITE: Final = "HPKE-X25519-SHA256-A256GCM"
TAG_BYTES: Final = 16
_AES_KEY_BYTES: Final = 32
_ENC_BYTES: Final = 32
_RSA_BITS: Final = (1024, 8192)
"""A server makes 3072. A shorter one than these is a toy, a longer one costs whoever seals for it seconds."""
_OAEP: Final = padding.OAEP(padding.MGF1(PYCA_SHA256()), PYCA_SHA256(), None)
_HPKE: Final = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
_PEM: Final = re.compile(r"-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=\n]+)\n-----END PUBLIC KEY-----\n?")

Public = TypeVar("Public", RSA.RsaKey, EccKey)
Private = TypeVar("Private", RSAPrivateKey, X25519PrivateKey)
PublicKey = RSA.RsaKey | EccKey
PrivateKey = RSAPrivateKey | X25519PrivateKey
Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a suite makes of a plaintext."""

    wrapped_key: bytes
    nonce: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class Suite(Generic[Public, Private]):
    """One way to seal and open.

    Attributes:
        private_key: The kind of private key that opens; another kind is never tried.
        nonce_bytes: Length of the nonce that travels.
        read_key: Text of a public key -> the bytes that its id is made of, and the key; ValueError when it is none.
        seal: (plaintext, header, key, random) -> what travels.
        open: (what travels, header, key) -> plaintext; RejectedError `unwrap` or `decrypt`.
    """

    private_key: type[Private]
    nonce_bytes: int
    read_key: Callable[[str], tuple[bytes, Public]]
    seal: Callable[[bytes, bytes, Public, Random], Sealed]
    open: Callable[[Sealed, bytes, Private], bytes]


def _read_rsa(text: str) -> tuple[bytes, RSA.RsaKey]:
    match = _PEM.fullmatch(text)
    if match is None:
        raise ValueError("no PEM of a public key")
    try:
        der = base64.b64decode(match[1].replace("\n", ""), validate=True)
        key = RSA.import_key(der)
    except IndexError as error:
        # pycryptodome counts on bytes that a broken structure does not have.
        raise ValueError(str(error)) from error
    # What is sealed with an even exponent nobody can open.
    if key.has_private() or not _RSA_BITS[0] <= key.size_in_bits() <= _RSA_BITS[1] or key.e % 2 == 0:
        raise ValueError(f"no public key of {_RSA_BITS[0]} to {_RSA_BITS[1]} bits")
    return der, key


def _seal_rsa(plaintext: bytes, header: bytes, key: RSA.RsaKey, random: Random) -> Sealed:
    aes_key, nonce = random(_AES_KEY_BYTES), random(12)
    # pycryptodome's stub names PSS's MGF1; OAEP takes the same function. Its default hash would be SHA-1.
    oaep = PKCS1_OAEP.new(key, SHA256, lambda seed, n: pss.MGF1(seed, n, SHA256), randfunc=random)  # type: ignore[arg-type]
    wrapped_key = oaep.encrypt(aes_key)
    gcm = AES.new(aes_key, AES.MODE_GCM, nonce=nonce, mac_len=TAG_BYTES)
    gcm.update(header + wrapped_key)
    return Sealed(wrapped_key, nonce, b"".join(gcm.encrypt_and_digest(plaintext)))


def _open_rsa(sealed: Sealed, header: bytes, key: RSAPrivateKey) -> bytes:
    try:
        aes_key = key.decrypt(sealed.wrapped_key, _OAEP)
    except ValueError as error:
        raise RejectedError("unwrap", "the key does not unwrap") from error
    # AESGCM would take 16 bytes as well; the suite says 256 bits.
    if len(aes_key) != _AES_KEY_BYTES:
        raise RejectedError("unwrap", f"the wrapped key has {len(aes_key)} bytes")
    try:
        return AESGCM(aes_key).decrypt(sealed.nonce, sealed.ciphertext, header + sealed.wrapped_key)
    except InvalidTag as error:
        raise RejectedError("decrypt", "the ciphertext is not authentic") from error


def _read_x25519(text: str) -> tuple[bytes, EccKey]:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("not 64 hex digits")
    raw = bytes.fromhex(text)
    return raw, DH.import_x25519_public_key(raw)


def _seal_hpke(plaintext: bytes, header: bytes, key: EccKey, _random: Random) -> Sealed:
    context = HPKE.new(receiver_key=key, aead_id=HPKE.AEAD.AES256_GCM, info=header)
    return Sealed(context.enc, b"", context.seal(plaintext))


def _open_hpke(sealed: Sealed, header: bytes, key: X25519PrivateKey) -> bytes:
    # pyca takes both as one string and would not mind where one ends and the other begins.
    if len(sealed.wrapped_key) != _ENC_BYTES:
        raise RejectedError("unwrap", f"enc has {len(sealed.wrapped_key)} bytes")
    try:
        return _HPKE.decrypt(sealed.wrapped_key + sealed.ciphertext, key, header)
    except InvalidTag as error:
        raise RejectedError("decrypt", "the ciphertext is not authentic") from error


SUITES: Final[Mapping[str, Suite[Any, Any]]] = {
    HPKE_SUITE: Suite(X25519PrivateKey, 0, _read_x25519, _seal_hpke, _open_hpke),
    RSA_SUITE: Suite(RSAPrivateKey, 12, _read_rsa, _seal_rsa, _open_rsa),
}
"""By name, as `alg` of the header says it; the one that a new server prefers first."""
