"""The server's signed word on packets: stored, duplicate, rejected or retry. Pure.

Bytes: a CBOR array of two byte strings `[payload, signature]`; the payload is JSON
(schemas/cloud_to_edge/receipt.v1.json), signed with Ed25519 over `"odograph-receipt-v1" || payload`. A receipt is about
an envelope, named by its SHA-256; the packet id beside it is for people.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal

import cbor2
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

from components.wire import strict_json
from components.wire.errors import RejectedError

Status = Literal["stored", "duplicate", "rejected", "retry"]
STATUSES: Final = ("stored", "duplicate", "rejected", "retry")
MAX_RECEIPTS: Final = 1024
_MAX_BYTES: Final = 256 * 1024
_CONTEXT: Final = b"odograph-receipt-v1"
_KEYS: Final = {"envelope", "packet", "status", "code", "retry_after_s"}


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one envelope.

    Attributes:
        envelope_sha256: Hex; what the receipt is about.
        packet_id: None when the envelope could not be read so far.
        code: The failed check, with `rejected` and `retry`.
        retry_after_s: Not before that many seconds, with `retry`.
    """

    envelope_sha256: str
    packet_id: str | None
    status: Status
    code: str | None = None
    retry_after_s: int | None = None


def digest(envelope: bytes) -> str:
    """Return the name under which receipts speak of an envelope: SHA-256, hex."""
    return sha256(envelope).hexdigest()


def sign(receipts: Sequence[Receipt], newest_kid: str, signer: Callable[[bytes], bytes]) -> bytes:
    """Return signed receipts.

    Args:
        receipts: At most MAX_RECEIPTS, all for one device.
        newest_kid: The server's newest wrapping key, so that devices learn of a rotation.
        signer: Gives the Ed25519 signature of a message, by the key that the server's bundle names.
    """
    entries = [
        {"envelope": one.envelope_sha256, "packet": one.packet_id, "status": one.status}
        | ({"code": one.code} if one.code else {})
        | ({"retry_after_s": one.retry_after_s} if one.retry_after_s is not None else {})
        for one in receipts
    ]
    payload = strict_json.dumps({"v": 1, "receipts": entries, "newest_kid": newest_kid})
    return cbor2.dumps([payload, signer(_CONTEXT + payload)])


def verify(data: bytes, server_key: ECC.EccKey) -> tuple[tuple[Receipt, ...], str]:
    """Return the receipts and the newest kid, if the server signed them.

    Raises:
        RejectedError: `size`, `grammar`, `signature` or `schema`; not one receipt of it counts then.
    """
    if len(data) > _MAX_BYTES:
        raise RejectedError("size", f"{len(data)} bytes are more than {_MAX_BYTES}")
    try:
        parts = cbor2.loads(data, max_depth=2, allow_indefinite=False)
    except (cbor2.CBORError, ValueError, TypeError, RecursionError) as error:
        raise RejectedError("grammar", f"not CBOR: {error}") from error
    if not (isinstance(parts, list) and len(parts) == 2 and all(type(part) is bytes for part in parts)):
        raise RejectedError("grammar", "receipts are an array of two byte strings")
    payload, signature = parts
    try:
        eddsa.new(server_key, "rfc8032").verify(_CONTEXT + payload, signature)
    except ValueError as error:
        raise RejectedError("signature", "not by the server's receipt key") from error
    try:
        return _read(strict_json.loads(payload, 3))
    except (ValueError, TypeError, KeyError) as error:
        raise RejectedError("schema", str(error)) from error


def _read(form: object) -> tuple[tuple[Receipt, ...], str]:
    if not isinstance(form, dict) or form.keys() != {"v", "receipts", "newest_kid"} or form["v"] != 1:
        raise ValueError("receipts have v = 1, receipts and newest_kid")
    entries, newest_kid = form["receipts"], form["newest_kid"]
    if not isinstance(entries, list) or len(entries) > MAX_RECEIPTS or not isinstance(newest_kid, str):
        raise ValueError(f"receipts: a list of at most {MAX_RECEIPTS}")
    return tuple(_receipt(entry) for entry in entries), newest_kid


def _receipt(form: object) -> Receipt:
    if not isinstance(form, dict) or not {"envelope", "packet", "status"} <= form.keys() <= _KEYS:
        raise ValueError("a receipt has other keys")
    digest_hex, packet_id, after = form["envelope"], form["packet"], form.get("retry_after_s")
    if not isinstance(digest_hex, str) or not re.fullmatch("[0-9a-f]{64}", digest_hex):
        raise ValueError("envelope: a SHA-256 in hex")
    if form["status"] not in STATUSES or not isinstance(packet_id, (str, type(None))):
        raise ValueError(f"status: one of {' '.join(STATUSES)}")
    if after is not None and (type(after) is not int or not 0 <= after <= 3600):
        raise ValueError("retry_after_s: 0 to 3600")
    code = form.get("code")
    if not isinstance(code, (str, type(None))):
        raise TypeError("code: a word")
    return Receipt(digest_hex, packet_id, form["status"], code, after)
