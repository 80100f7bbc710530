"""The server's public half as a file: what a device needs to seal packets and to believe receipts. Pure."""

import base64
import binascii
import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Final

from components.wire.errors import ConfigError

VERSION: Final = 1
_PEM: Final = re.compile(r"-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=\n]+)\n-----END PUBLIC KEY-----\n?")
_HINT: Final = "copy the server's server.pub.json again"


@dataclass(frozen=True, slots=True)
class Bundle:
    """The public keys of a server.

    Attributes:
        realm: WAMP realm that devices join.
        kid: `key_id` of the RSA key's DER SubjectPublicKeyInfo.
        rsa_public_key: PEM text of that key; packets' keys are wrapped for it.
        receipt_kid: `key_id` of the raw receipt key.
        receipt_public_key: Ed25519, 64 hex digits; receipts are signed by it.
    """

    realm: str
    kid: str
    rsa_public_key: str
    receipt_kid: str
    receipt_public_key: str


def key_id(public_key: bytes) -> str:
    """First 16 hex digits of SHA-256 of a public key's bytes (RSA: DER SubjectPublicKeyInfo; Ed25519: the raw 32).

    >>> key_id(bytes(32))
    '66687aadf862bd77'
    """
    return hashlib.sha256(public_key).hexdigest()[:16]


def dump(bundle: Bundle) -> str:
    """Return the file's text."""
    return json.dumps({"v": VERSION, **asdict(bundle)}, indent=2) + "\n"


def parse(text: str) -> Bundle:
    """Return the bundle that `dump` wrote.

    Raises:
        ConfigError: It is no bundle, or of another version, or its ids are not those of its keys; every fault named.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError("server bundle is not JSON", _HINT) from None
    if not isinstance(document, dict):
        raise ConfigError("server bundle is not a JSON object", _HINT)
    version = document.pop("v", None)
    if type(version) is not int or version != VERSION:
        raise ConfigError(f"server bundle has version {version!r}, this odograph reads {VERSION}", _HINT)
    names = [one.name for one in fields(Bundle)]
    faults = [f"{name}: unknown key" for name in sorted(document.keys() - set(names))]
    faults += [f"{name}: missing or not text" for name in names if not isinstance(document.get(name), str)]
    if faults:
        raise ConfigError("server bundle is wrong", _HINT, faults)
    bundle = Bundle(**document)
    faults = [*_key_faults("kid", bundle.kid, _rsa_bytes(bundle.rsa_public_key), "rsa_public_key")]
    faults += _key_faults("receipt_kid", bundle.receipt_kid, _ed25519_bytes(bundle), "receipt_public_key")
    if faults:
        raise ConfigError("server bundle is wrong", _HINT, faults)
    return bundle


def _key_faults(kid_name: str, kid: str, key: bytes | None, key_name: str) -> list[str]:
    if key is None:
        return [f"{key_name}: not a public key"]
    return [] if kid == key_id(key) else [f"{kid_name}: not the id of {key_name}"]


def _rsa_bytes(pem: str) -> bytes | None:
    match = _PEM.fullmatch(pem)
    try:
        return base64.b64decode(match[1].replace("\n", ""), validate=True) if match else None
    except binascii.Error:
        return None


def _ed25519_bytes(bundle: Bundle) -> bytes | None:
    text = bundle.receipt_public_key
    return bytes.fromhex(text) if re.fullmatch(r"[0-9a-f]{64}", text) else None
