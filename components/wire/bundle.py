"""The server's public half as a file: what a device needs to seal packets and to believe receipts. Pure.

Version 1 has one RSA key and one receipt key, without signature. Version 2 has a key for each suite, in the order in
which the server prefers them, and is a link of a chain: it names the bundle `before` it and is signed, Ed25519 over
`"odograph-bundle-v2" || the file's JSON without the signature, keys sorted, no spaces`, by the receipt key of that one.
A device that has one bundle can so climb to the newest, step by step, and to no other: an older one, a leap or a
stranger's does not follow. The first bundle comes by hand, and is believed because of that.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import Any, Final

from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

from components.wire import strict_json
from components.wire.errors import ConfigError, RejectedError
from components.wire.suites import RSA_SUITE, SUITES, PublicKey
from components.wire.times import parse_iso

VERSION: Final = 2
MAX_BYTES: Final = 64 * 1024
_CONTEXT: Final = b"odograph-bundle-v2"
_KID: Final = "[0-9a-f]{16}"
_ED25519: Final = "[0-9a-f]{64}"
_HINT: Final = "copy the server's server.pub.json again"
_V1_KEYS: Final = ("realm", "kid", "rsa_public_key", "receipt_kid", "receipt_public_key")


def key_id(public_key: bytes) -> str:
    """First 16 hex digits of SHA-256 of a public key's bytes (RSA: DER SubjectPublicKeyInfo; others: the raw 32).

    >>> key_id(bytes(32))
    '66687aadf862bd77'
    """
    return sha256(public_key).hexdigest()[:16]


def is_kid(text: str) -> bool:
    """Tell whether this can be the name of a key."""
    return re.fullmatch(_KID, text) is not None


@dataclass(frozen=True, slots=True)
class Recipient:
    """A key of the server for which packets are sealed.

    Attributes:
        alg: The suite, one of suites.SUITES, or one that only later versions know.
        kid: `key_id` of the key's bytes.
        public_key: RSA: PEM text; X25519: 64 hex digits.
    """

    alg: str
    kid: str
    public_key: str

    def key(self) -> PublicKey:
        """Return the key; the suite must be a known one."""
        key: PublicKey = SUITES[self.alg].read_key(self.public_key)[1]
        return key


@dataclass(frozen=True, slots=True)
class Bundle:
    """The public keys of a server.

    Attributes:
        realm: WAMP realm that devices join.
        recipients: At least one; what the server prefers first. In a bundle of version 1, the RSA key.
        receipt_public_key: Ed25519, 64 hex digits; it signs receipts for what was sealed with this bundle, and the
            bundle that follows.
        former_receipt_keys: Likewise, the newest first: of the bundles before, as long as the server keeps their keys.
        made: RFC 3339, UTC, seconds; "" in version 1.
        before: `kid` of the bundle before; "" for the first.
        signature: 128 hex digits, by the receipt key of the bundle before; "" for the first.
    """

    realm: str
    recipients: tuple[Recipient, ...]
    receipt_public_key: str
    former_receipt_keys: tuple[str, ...] = ()
    made: str = ""
    before: str = ""
    signature: str = ""

    @property
    def kid(self) -> str:
        """The bundle's name: the kid of its first recipient. `newest_kid` of receipts is that of the newest."""
        return self.recipients[0].kid

    @property
    def receipt_kid(self) -> str:
        """`key_id` of the receipt key."""
        return key_id(bytes.fromhex(self.receipt_public_key))

    def receipt_keys(self) -> tuple[ECC.EccKey, ...]:
        """Return the keys by which receipts may be signed, this bundle's own first."""
        keys = (self.receipt_public_key, *self.former_receipt_keys)
        return tuple(eddsa.import_public_key(bytes.fromhex(key)) for key in keys)


def signed(bundle: Bundle, signer: Callable[[bytes], bytes]) -> Bundle:
    """Return the bundle with its signature.

    Args:
        signer: Gives the Ed25519 signature of a message, by the receipt key of the bundle before.
    """
    return replace(bundle, signature=signer(_signed_bytes(bundle)).hex())


def dump(bundle: Bundle) -> str:
    """Return the file's text; of version 1 when it was of version 1."""
    if bundle.made:
        form = _form(bundle)
    else:
        (rsa,) = bundle.recipients
        values = (bundle.realm, rsa.kid, rsa.public_key, bundle.receipt_kid, bundle.receipt_public_key)
        form = {"v": 1, **dict(zip(_V1_KEYS, values, strict=True))}
    return json.dumps(form, indent=2) + "\n"


def parse(text: str) -> Bundle:
    """Return the bundle that `dump` wrote; its signature is not looked at.

    Raises:
        ConfigError: It is no bundle, or of another version, or its ids are not those of its keys; every fault named.
    """
    document = _document(text)
    version = document.pop("v", None)
    reader = _READERS.get(version) if type(version) is int else None
    if reader is None:
        raise ConfigError(f"server bundle has version {version!r}, this odograph reads 1 and {VERSION}", _HINT)
    bundle = reader(document)
    faults = [fault for number, one in enumerate(bundle.recipients) for fault in _key_faults(number, one)]
    try:
        bundle.receipt_keys()
    except ValueError:
        faults.append("receipt_public_key or former_receipt_keys: not a public key")
    if faults:
        raise ConfigError("server bundle is wrong", _HINT, faults)
    return bundle


def follow(trusted: Bundle, text: str) -> Bundle:
    """Return the bundle that follows the trusted one in the server's chain.

    Raises:
        RejectedError: `grammar`: it is no bundle; `order`: it names another one before it (it is older, newer by more
            than one, or the trusted one itself); `signature`: it is not signed by the trusted one's receipt key.
    """
    try:
        bundle = parse(text)
    except ConfigError as error:
        raise RejectedError("grammar", str(error)) from error
    if bundle.before != trusted.kid:
        raise RejectedError("order", f"bundle {bundle.kid} does not follow {trusted.kid}")
    key = trusted.receipt_keys()[0]
    try:
        eddsa.new(key, "rfc8032").verify(_signed_bytes(bundle), bytes.fromhex(bundle.signature))
    except ValueError as error:
        raise RejectedError("signature", f"bundle {bundle.kid} is not signed by the key before") from error
    return bundle


def _form(bundle: Bundle) -> dict[str, object]:
    recipients = [{"alg": one.alg, "kid": one.kid, "public_key": one.public_key} for one in bundle.recipients]
    form = {one.name: getattr(bundle, one.name) for one in fields(bundle)}
    form |= {"recipients": recipients, "former_receipt_keys": list(bundle.former_receipt_keys)}
    return {"v": VERSION, **form}


def _signed_bytes(bundle: Bundle) -> bytes:
    form = _form(bundle)
    del form["signature"]
    return _CONTEXT + strict_json.dumps(dict(sorted(form.items())))


def _document(text: str) -> dict[str, Any]:
    data = text.encode("utf-8", "replace")
    if len(data) > MAX_BYTES:
        raise ConfigError(f"server bundle has more than {MAX_BYTES} bytes", _HINT)
    try:
        document = strict_json.loads(data, 4)
    except ValueError:
        raise ConfigError("server bundle is not JSON", _HINT) from None
    if not isinstance(document, dict):
        raise ConfigError("server bundle is not a JSON object", _HINT)
    return document


def _read_v1(document: Mapping[str, Any]) -> Bundle:
    faults = _strangers("", document, _V1_KEYS)
    faults += [f"{name}: missing or not text" for name in _V1_KEYS if not isinstance(document.get(name), str)]
    if not faults:
        faults += _text_faults(document, {"receipt_public_key": _ED25519})
    if faults:
        raise ConfigError("server bundle is wrong", _HINT, faults)
    rsa = Recipient(RSA_SUITE, document["kid"], document["rsa_public_key"])
    bundle = Bundle(document["realm"], (rsa,), document["receipt_public_key"])
    if document["receipt_kid"] != bundle.receipt_kid:
        raise ConfigError("server bundle is wrong", _HINT, ["receipt_kid: not the id of receipt_public_key"])
    return bundle


def _read_v2(document: Mapping[str, Any]) -> Bundle:
    names = [one.name for one in fields(Bundle)]
    faults = _strangers("", document, names) + [f"{name}: missing" for name in names if name not in document]
    if faults:
        raise ConfigError("server bundle is wrong", _HINT, faults)
    recipients, former = document["recipients"], document["former_receipt_keys"]
    texts = {"realm": r"\S{1,64}", "receipt_public_key": _ED25519, "before": f"({_KID})?"}
    faults = _text_faults(document, texts | {"signature": r"([0-9a-f]{128})?"})
    try:
        parse_iso(document["made"])
    except ValueError as error:
        faults.append(f"made: {error}")
    if not isinstance(former, list) or not all(isinstance(one, str) and re.fullmatch(_ED25519, one) for one in former):
        faults.append("former_receipt_keys: must be a list of keys of 64 hex digits")
    if not isinstance(recipients, list) or not recipients:
        faults.append("recipients: must be a list of at least one key")
        recipients = []
    for number, one in enumerate(recipients):
        if not isinstance(one, dict) or one.keys() != {"alg", "kid", "public_key"}:
            faults.append(f"recipients[{number}]: must have alg, kid and public_key")
        else:
            forms = {"alg": r"[A-Za-z0-9+.-]{1,40}", "kid": _KID, "public_key": r"(?s).{1,4096}"}
            faults += [f"recipients[{number}].{fault}" for fault in _text_faults(one, forms)]
    if faults:
        raise ConfigError("server bundle is wrong", _HINT, faults)
    found = {name: document[name] for name in names}
    found["recipients"] = tuple(Recipient(**one) for one in recipients)
    found["former_receipt_keys"] = tuple(former)
    return Bundle(**found)


_READERS: Final[Mapping[int, Callable[[Mapping[str, Any]], Bundle]]] = {1: _read_v1, 2: _read_v2}


def _strangers(at: str, document: Mapping[str, Any], names: list[str] | tuple[str, ...]) -> list[str]:
    return [f"{at}{name}: unknown key" for name in sorted(document.keys() - set(names))]


def _text_faults(document: Mapping[str, Any], forms: Mapping[str, str]) -> list[str]:
    return [
        f"{name}: must match {form}"
        for name, form in forms.items()
        if not isinstance(document[name], str) or not re.fullmatch(form, document[name])
    ]


def _key_faults(number: int, one: Recipient) -> list[str]:
    if one.alg not in SUITES:
        return []
    try:
        found = SUITES[one.alg].read_key(one.public_key)[0]
    except ValueError:
        return [f"recipients[{number}].public_key: not a public key"]
    return [] if key_id(found) == one.kid else [f"recipients[{number}].kid: not the id of public_key"]
