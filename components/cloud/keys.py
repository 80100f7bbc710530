"""The server's own keys: RSA-3072 to unwrap packets' keys, Ed25519 to sign receipts, as files of one directory. Rim.

    keys/<kid>.rsa.pem      PKCS#8, mode 0600       keys/<kid>.ed25519   seed as 64 hex digits, mode 0600
    keys/current.toml       which of them is the newest: file times do not survive a copy

A retired RSA key stays in the directory, and goes on unwrapping, until someone removes its file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from components import settings
from components.keyfile import refuse_open_file, write_secret
from components.wire.bundle import Bundle, key_id
from components.wire.errors import ConfigError
from components.wire.topics import REALM

RSA_BITS: Final = 3072
_CURRENT: Final = "current.toml"


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """What a persister holds.

    Attributes:
        unwrap: By key id, every RSA key that is there; loading one checks its primes (22 ms), so load once.
        newest_kid: Key id of the one that devices should use.
        receipt_kid: Key id of `receipt_key`.
    """

    unwrap: Mapping[str, RSAPrivateKey]
    newest_kid: str
    receipt_kid: str
    receipt_key: Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class _Current:
    kid: str
    receipt_kid: str


def make_server_keys(directory: Path) -> ServerKeys:
    """Make both keys and write them into `directory`, which is made with mode 0700; ConfigError when it has keys."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (directory / _CURRENT).exists():
        raise ConfigError(f"{directory} has server keys already")
    directory.chmod(0o700)
    rsa = generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    receipt = Ed25519PrivateKey.generate()
    kid, receipt_kid = rsa_kid(rsa), key_id(receipt.public_key().public_bytes_raw())
    pem = rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_secret(directory / f"{kid}.rsa.pem", pem)
    write_secret(directory / f"{receipt_kid}.ed25519", receipt.private_bytes_raw().hex().encode() + b"\n")
    write_secret(directory / _CURRENT, f'kid = "{kid}"\nreceipt_kid = "{receipt_kid}"\n'.encode())
    return ServerKeys({kid: rsa}, kid, receipt_kid, receipt)


def load_server_keys(directory: Path) -> ServerKeys:
    """Return the keys in `directory`.

    Raises:
        ConfigError: There are none, one can be read by others than its owner, or one is not what its name says.
    """
    if not (directory / _CURRENT).exists():
        raise ConfigError(f"{directory} has no server keys", "run: odograph init")
    current = settings.read(directory / _CURRENT, _Current)
    unwrap = {}
    for path in sorted(directory.glob("*.rsa.pem")):
        key = _load_rsa(path)
        unwrap[rsa_kid(key)] = key
        if path.name != f"{rsa_kid(key)}.rsa.pem":
            raise ConfigError(f"{path} holds another key than its name says", f"it is {rsa_kid(key)}")
    receipt_path = directory / f"{current.receipt_kid}.ed25519"
    receipt = _load_ed25519(receipt_path)
    if key_id(receipt.public_key().public_bytes_raw()) != current.receipt_kid:
        raise ConfigError(f"{receipt_path} holds another key than its name says")
    if current.kid not in unwrap:
        raise ConfigError(f"{directory}/{current.kid}.rsa.pem does not exist", f"{_CURRENT} names it as the newest")
    return ServerKeys(unwrap, current.kid, current.receipt_kid, receipt)


def rsa_kid(key: RSAPrivateKey) -> str:
    """Key id of an RSA key."""
    return key_id(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def public_bundle(keys: ServerKeys) -> Bundle:
    """Return what devices need of these keys: the newest, public halves only."""
    public = keys.unwrap[keys.newest_kid].public_key()
    return Bundle(
        realm=REALM,
        kid=keys.newest_kid,
        rsa_public_key=public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        receipt_kid=keys.receipt_kid,
        receipt_public_key=keys.receipt_key.public_key().public_bytes_raw().hex(),
    )


def _load_rsa(path: Path) -> RSAPrivateKey:
    refuse_open_file(path)
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey) or key.key_size < RSA_BITS:
        raise ConfigError(f"{path} is not an RSA private key of at least {RSA_BITS} bits", "restore it from a copy")
    return key


def _load_ed25519(path: Path) -> Ed25519PrivateKey:
    refuse_open_file(path)
    text = path.read_text("utf-8", "replace").strip()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ConfigError(f"{path} is not 64 hex digits", "restore it from a copy")
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text))
