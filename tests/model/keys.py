"""Keys of the model's world: the server's, generation after generation, and the car's. Quick to use, and no secret."""

import secrets
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

from Crypto.PublicKey import ECC
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from components.cloud.keys import ServerKeys
from components.edge.compactor import Sealer, SigningKey
from components.edge.trust import SealingKey
from components.wire import bundle, envelope, receipt
from components.wire.bundle import Bundle, Recipient, key_id
from components.wire.receipt import Receipt
from components.wire.suites import HPKE_SUITE
from components.wire.topics import REALM
from tests.edge_parts import ed25519

THIEF: Final = Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32)


class Server:
    """What every persister holds: `keys` of now. Those of before open and sign for ever here."""

    def __init__(self) -> None:
        self.keys = ServerKeys((), {}, {})
        self.rotate()

    def rotate(self) -> None:
        """Make the next generation, signed by the one before."""
        chain, seed = self.keys.chain, bytes([50 + len(self.keys.chain)]) * 32
        opens, signs = X25519PrivateKey.from_private_bytes(seed), Ed25519PrivateKey.from_private_bytes(seed)
        raw = opens.public_key().public_bytes_raw()
        made = Bundle(
            REALM,
            (Recipient(HPKE_SUITE, key_id(raw), raw.hex()),),
            signs.public_key().public_bytes_raw().hex(),
            tuple(one.receipt_public_key for one in reversed(chain)),
            "2026-05-17T06:40:00Z",
            chain[-1].kid if chain else "",
        )
        if chain:
            made = bundle.signed(made, self.keys.signer(chain[-1].kid))
        unwrap, receipt_keys = {**self.keys.unwrap, made.kid: opens}, {**self.keys.receipt_keys, made.kid: signs}
        self.keys = ServerKeys((*chain, made), unwrap, receipt_keys)

    def sign(self, kid: str, receipts: Sequence[Receipt]) -> bytes:
        """Sign receipts of what was sealed for that key, as a persister does."""
        return receipt.sign(receipts, self.keys.newest.kid, self.keys.signer(kid))

    def opened(self, sealed: bytes) -> bytes:
        """Return the plaintext of an envelope."""
        return envelope.parse(sealed).open(self.keys.unwrap)


def forged(one: Receipt) -> bytes:
    """Return a receipt as a thief with a key of his own would send it."""
    return receipt.sign([one], "a" * 16, THIEF.sign)


def is_by(key: ECC.EccKey, payload: bytes, signature: bytes) -> bool:
    """Do what `receipt._is_by` does, by another library and fifteen times as fast: half of a model's time."""
    try:
        Ed25519PublicKey.from_public_bytes(key.export_key(format="raw")).verify(
            signature, b"odograph-receipt-v1" + payload
        )
    except (InvalidSignature, ValueError):
        return False
    return True


@cache
def car_pubkey(number: int) -> str:
    """Return the public key that a car has after so many changes of its key, hex."""
    return ed25519(100 + number).public_key().export_key(format="raw").hex()


def car_sealer(number: int, server: Callable[[], SealingKey]) -> Sealer:
    """Return what seals with that key."""
    kid = key_id(bytes.fromhex(car_pubkey(number)))
    return Sealer(server, lambda: SigningKey(kid, ed25519(100 + number)), secrets.token_bytes)
