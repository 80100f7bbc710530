"""Sealed packets as a device makes them, and one step beside: for tests of what opens them."""

import json
import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from Crypto.PublicKey import ECC, RSA
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

from components.wire import envelope, packet, strict_cbor
from components.wire.reading import Reading
from components.wire.signals import BY_KEY
from tests.wire_made import SESSION, START_MS, minute

KID: Final = "0" * 16
DEVICE: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBKEY: Final = DEVICE.public_key().public_bytes_raw().hex()
SEALING: Final = ECC.construct(curve="Ed25519", seed=bytes(range(32)))  # type: ignore[arg-type]  # the stub's error
OAEP: Final = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)


@dataclass
class Known:
    """What a registry tells of the device; `pubkey` may be made what no registry should tell."""

    pubkey: Any = PUBKEY
    state: str = "active"
    account: str = "acme"
    vehicle: str = "van 7"
    driver: str = "nina"


@cache
def server() -> rsa.RSAPrivateKey:
    """Return the server's RSA key."""
    return rsa.generate_private_key(65537, 3072)


@cache
def public() -> RSA.RsaKey:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return RSA.import_key(server().public_key().public_bytes(serialization.Encoding.DER, form))


def plain(n: int = 0, rpm: float = 900.0) -> packet.Packet:
    """Return the n-th minute of car_one, with one reading."""
    start_ms = START_MS + n * 60_000
    why = {key: "no_data" for key in BY_KEY if key != "rpm"}
    return minute((Reading.checked(start_ms, {"rpm": rpm}, why, {}),), start_ms=start_ms)


def sealed(plaintext: bytes | None = None, n: int = 0, rpm: float = 900.0, **header: Any) -> bytes:  # noqa: ANN401
    """Return the envelope of the n-th minute, or of any plaintext under its header."""
    one = plain(n, rpm)
    told = envelope.Header(one.device, SESSION, one.id.rsplit("/", 1)[1], "a" * 16, n + 1, KID, "1" * 16)
    found = packet.pack(one) if plaintext is None else plaintext
    return envelope.seal(found, replace(told, **header), public(), SEALING, random.Random(n).randbytes)  # noqa: S311


def changed(n: int = 0, **keys: object) -> bytes:
    """Return the envelope of the n-th minute with other values in its JSON."""
    return sealed(json.dumps(json.loads(packet.pack(plain(n))) | keys, separators=(",", ":")).encode(), n)


def forged(part: str) -> bytes:
    """Return an envelope whose signature is right and one of whose other parts is not."""
    header, wrapped, nonce, ciphertext, _ = parts(sealed())
    if part == "suite":
        form = strict_cbor.loads(header, 1)
        assert isinstance(form, dict)
        header = strict_cbor.dumps(form | {"alg": "ROT13"})
    elif part == "wrapped":
        wrapped = bytes(len(wrapped))
    elif part == "ciphertext":
        ciphertext = bytes(len(ciphertext))
    elif part == "inflate":
        key = bytes(32)
        wrapped = server().public_key().encrypt(key, OAEP)
        ciphertext = AESGCM(key).encrypt(nonce, b"not deflated", header + wrapped)
    signature = DEVICE.sign(b"odograph-packet-v1" + header + wrapped + nonce + ciphertext)
    return strict_cbor.dumps([header, wrapped, nonce, ciphertext, signature])


def parts(data: bytes) -> list[bytes]:
    """Return the five byte strings of an envelope."""
    found = strict_cbor.loads(data, 1)
    assert isinstance(found, list)
    return found
