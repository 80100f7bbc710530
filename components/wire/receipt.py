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

from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

from components.wire import strict_cbor, strict_json
from components.wire.errors import RejectedError
from components.wire.topics import ID_PATTERN

Status = Literal["stored", "duplicate", "rejected", "retry"]
STATUSES: Final = ("stored", "duplicate", "rejected", "retry")
MAX_RECEIPTS: Final = 1024
_MAX_BYTES: Final = 256 * 1024
_CONTEXT: Final = b"odograph-receipt-v1"
MAX_RETRY_AFTER_S: Final = 3600
_SHA256: Final = "[0-9a-f]{64}"
_KID: Final = "[0-9a-f]{16}"
_CODE: Final = "[a-z][a-z_]{0,39}"
PACKET_ID: Final = f"{ID_PATTERN}/[0-9a-f]{{16}}/[0-9]{{8}}T[0-9]{{6}}Z"
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
        newest_kid: Name of the server's newest bundle, so that devices learn of a rotation.
        signer: Gives the Ed25519 signature of a message, by the receipt key of the bundle for which the envelopes were
            sealed: the device believes that one, however often the keys were rotated since.
    """
    entries = [
        {"envelope": one.envelope_sha256, "packet": one.packet_id, "status": one.status}
        | ({"code": one.code} if one.code else {})
        | ({"retry_after_s": one.retry_after_s} if one.retry_after_s is not None else {})
        for one in receipts
    ]
    payload = strict_json.dumps({"v": 1, "receipts": entries, "newest_kid": newest_kid})
    return strict_cbor.dumps([payload, signer(_CONTEXT + payload)])


def verify(data: bytes, server_keys: Sequence[ECC.EccKey]) -> tuple[tuple[Receipt, ...], str]:
    """Return the receipts and the newest kid, if the server signed them.

    Args:
        server_keys: Each by which it may be signed, the likeliest first.

    Raises:
        RejectedError: `size`, `grammar`, `signature` or `schema`; not one receipt of it counts then.
    """
    if len(data) > _MAX_BYTES:
        raise RejectedError("size", f"{len(data)} bytes are more than {_MAX_BYTES}")
    try:
        parts = strict_cbor.loads(data, 2)
    except ValueError as error:
        raise RejectedError("grammar", str(error)) from error
    if not (isinstance(parts, list) and len(parts) == 2 and all(type(part) is bytes for part in parts)):
        raise RejectedError("grammar", "receipts are an array of two byte strings")
    payload, signature = parts
    if not any(_is_by(key, payload, signature) for key in server_keys):
        raise RejectedError("signature", "not by a receipt key of the server")
    try:
        return _read(strict_json.loads(payload, 3))
    except ValueError as error:
        raise RejectedError("schema", str(error)) from error


def _is_by(key: ECC.EccKey, payload: bytes, signature: bytes) -> bool:
    try:
        eddsa.new(key, "rfc8032").verify(_CONTEXT + payload, signature)
    except ValueError:
        return False
    return True


def _read(form: object) -> tuple[tuple[Receipt, ...], str]:
    if not isinstance(form, dict) or form.keys() != {"v", "receipts", "newest_kid"}:
        raise ValueError("receipts have v, receipts and newest_kid")
    if type(form["v"]) is not int or form["v"] != 1:
        raise ValueError("v: must be 1")
    entries = form["receipts"]
    if not isinstance(entries, list) or len(entries) > MAX_RECEIPTS:
        raise ValueError(f"receipts: a list of at most {MAX_RECEIPTS}")
    return tuple(_receipt(entry) for entry in entries), _text("newest_kid", form["newest_kid"], _KID)


def _receipt(form: object) -> Receipt:
    if not isinstance(form, dict) or not {"envelope", "packet", "status"} <= form.keys() <= _KEYS:
        raise ValueError("a receipt has other keys")
    status = form["status"]
    if status not in STATUSES:
        raise ValueError(f"status: one of {' '.join(STATUSES)}")
    if "code" in form and status not in {"rejected", "retry"}:
        raise ValueError("code: only with rejected and retry")
    after = form.get("retry_after_s")
    if "retry_after_s" in form and (status != "retry" or type(after) is not int or not 0 <= after <= MAX_RETRY_AFTER_S):
        raise ValueError(f"retry_after_s: 0 to {MAX_RETRY_AFTER_S}, and only with retry")
    return Receipt(
        _text("envelope", form["envelope"], _SHA256),
        None if form["packet"] is None else _text("packet", form["packet"], PACKET_ID),
        status,
        _text("code", form["code"], _CODE) if "code" in form else None,
        after,
    )


def _text(where: str, form: object, pattern: str) -> str:
    if not isinstance(form, str) or not re.fullmatch(pattern, form):
        raise ValueError(f"{where}: must match {pattern}")
    return form
