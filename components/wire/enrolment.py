"""A device's one-time enrolment code, and what is made of it at either end. Pure.

    car_one.<52 of a-z and 2-7>    the device; then in base32 a secret of 128 bits, and 128 bits of the bundle's SHA-256

Of the secret come two things, by HMAC-SHA256: the ticket with which the device joins, which the router sees, and the
seed of an Ed25519 key, which it does not. Only who has that key can bind a device's new public key to the code, and the
registry holds but its public half: neither the router, nor who reads the registry, can enrol a key of their own. The
bundle's fingerprint came with the code, not by the router: the device believes no other bundle.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from components.wire.errors import ConfigError
from components.wire.topics import ID_PATTERN

SECRET_BYTES: Final = 16
_FINGERPRINT_BYTES: Final = 16
_FORM: Final = re.compile(rf"({ID_PATTERN})\.([a-z2-7]{{52}})")
_SIGNATURE: Final = re.compile("[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class Code:
    """An enrolment code; its secrets are not in its repr.

    Attributes:
        secret: 16 random bytes.
        fingerprint: `fingerprint` of the server's bundle.
    """

    device: str
    secret: bytes = field(repr=False)
    fingerprint: bytes

    def text(self) -> str:
        """Return the code as people pass it on."""
        return f"{self.device}.{base64.b32encode(self.secret + self.fingerprint).decode().rstrip('=').lower()}"

    def ticket(self) -> str:
        """Return the ticket with which the device joins to enrol: 64 hex digits."""
        return self._derived(b"odograph-enrol-ticket-v1").hex()

    def proof_key(self) -> Ed25519PrivateKey:
        """Return the key that binds a device's key to this code."""
        return Ed25519PrivateKey.from_private_bytes(self._derived(b"odograph-enrol-proof-v1"))

    def _derived(self, purpose: bytes) -> bytes:
        return hmac.digest(self.secret, purpose + b"\0" + self.device.encode(), "sha256")


def parse(text: str) -> Code:
    """Return the code that `Code.text` made; ConfigError when it is none. The message does not have it."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ConfigError("this is no enrolment code", "copy the whole of what `odograph device invite` printed")
    raw = base64.b32decode(match[2].upper() + "====")
    return Code(match[1], raw[:SECRET_BYTES], raw[SECRET_BYTES:])


def fingerprint(bundle: str) -> bytes:
    """Return what a code carries of a bundle: the first 16 bytes of SHA-256 of its text."""
    return hashlib.sha256(bundle.encode()).digest()[:_FINGERPRINT_BYTES]


def ticket_sha256(ticket: str) -> str:
    """Return what the registry holds of a ticket; it has 128 bits of chance, so a plain hash is enough."""
    return hashlib.sha256(ticket.encode()).hexdigest()


def enrolment(device: str, pubkey: str, fingerprint_hex: str) -> bytes:
    """Return what a device signs to enrol `pubkey`, by the code's key and by the new one."""
    return _joined(b"odograph-enrol-v1", device, pubkey, fingerprint_hex)


def rekeying(device: str, old: str, new: str) -> bytes:
    """Return what a device signs to replace the public key `old` by `new`, by both keys."""
    return _joined(b"odograph-rekey-v1", device, old, new)


def is_signed(message: bytes, pubkey: str, signature: object) -> bool:
    """Tell whether a signature is good: Ed25519, both in hex; whatever else it is given is not."""
    if not isinstance(signature, str) or not _SIGNATURE.fullmatch(signature):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(pubkey)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _joined(purpose: bytes, *parts: str) -> bytes:
    return b"\0".join((purpose, *(part.encode() for part in parts)))
