"""The server's own keys as files of one directory, and how they are rotated. Rim.

    keys/<kid>.x25519      opens packets; 64 hex digits      keys/<kid>.ed25519    signs receipts and the next bundle
    keys/<kid>.rsa.pem     opens packets; PKCS#8             keys/<kid>.pub.json   the public bundles, a chain
    keys/current.toml      which bundle is the newest: file times do not survive a copy

All of mode 0600. A generation is a bundle and its private keys. Rotating makes a new one, signed by the one before; the
private keys of the old one open packets and sign their receipts for 45 days more, and the first rotation after that
removes them. Bundles stay for ever, so that a device can climb the chain however long it was away.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from twisted.logger import Logger

from components import settings
from components.bounded_file import read_bytes, read_text
from components.durable_file import replace_file, sync_directory
from components.keyfile import refuse_open_file, write_secret
from components.wire import bundle as bundles
from components.wire.bundle import Bundle, Recipient, key_id
from components.wire.errors import ConfigError
from components.wire.suites import HPKE_SUITE, RSA_SUITE, PrivateKey
from components.wire.times import iso_s, parse_iso
from components.wire.topics import REALM

RSA_BITS: Final = 3072
KEPT_MS: Final = 45 * 86_400_000
"""How long private keys stay after their generation has been followed by another."""
_CURRENT: Final = "current.toml"
_MAX_KEY_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """What a persister holds.

    Attributes:
        chain: Every public bundle, the oldest first; at least one.
        unwrap: By kid, every private key that is there; loading an RSA key checks its primes (22 ms), so load once.
        receipt_keys: By the kid for which a packet was sealed: what signs its receipt.
    """

    chain: tuple[Bundle, ...]
    unwrap: Mapping[str, PrivateKey]
    receipt_keys: Mapping[str, Ed25519PrivateKey]

    @property
    def newest(self) -> Bundle:
        """The bundle that devices should use."""
        return self.chain[-1]

    def signer(self, kid: str) -> Callable[[bytes], bytes]:
        """Return what signs the receipt of a packet that was sealed for `kid`: by a key that its device believes.

        What was sealed for no key that is here gets the newest one's signature.
        """
        return self.receipt_keys.get(kid, self.receipt_keys[self.newest.kid]).sign

    def following(self, kid: str) -> Bundle | None:
        """Return the bundle that follows the one of that name in the chain; None when there is none."""
        return next((one for one in self.chain if one.before == kid), None)

    def retired_ms(self, number: int) -> int | None:
        """Return when the bundle at that place of the chain was followed by another, ms UTC; None for the newest."""
        return parse_iso(self.chain[number + 1].made) if number + 1 < len(self.chain) else None


@dataclass(frozen=True, slots=True)
class _Current:
    kid: str = settings.checked("be 16 hex digits", bundles.is_kid)
    receipt_kid: str = settings.checked("be 16 hex digits", bundles.is_kid)


def make_server_keys(directory: Path, now_ms: int) -> ServerKeys:
    """Make the first generation in `directory`, which has mode 0700 then; ConfigError when it has keys."""
    directory.mkdir(parents=True, exist_ok=True)
    if (directory / _CURRENT).exists():
        raise ConfigError(f"{directory} has server keys already")
    directory.chmod(0o700)
    made = _Generation(now_ms)
    made.write(directory, made.bundle)
    return load_server_keys(directory)


def rotate(directory: Path, now_ms: int) -> tuple[Bundle, list[str]]:
    """Make a new generation, which is the newest as soon as this returns, and remove what is past its time.

    Args:
        now_ms: ms UTC; later than the newest bundle was made.

    Returns:
        The new bundle, and the kids of the bundles whose private keys were removed.

    Raises:
        ConfigError: There are no keys, or they are not as they should be, or another rotation is under way, or the
            clock is behind the last rotation; nothing was changed.
    """
    with _alone(directory):
        keys = load_server_keys(directory)
        before = keys.newest
        if before.made and now_ms <= parse_iso(before.made):
            raise ConfigError(f"the newest keys were made at {before.made}, later than now", "set the clock")
        past = [one for number, one in enumerate(keys.chain) if _is_past(keys.retired_ms(number), now_ms)]
        removed = [one.kid for one in past if _remove(directory, one)]
        # Of a home that was made before bundles were kept beside their keys.
        _keep_bundle(directory, before)
        made = _Generation(now_ms, before=before.kid, former=_receipt_keys(keys.chain[len(past) :]))
        newest = bundles.signed(made.bundle, keys.signer(before.kid))
        made.write(directory, newest)
        return newest, removed


def load_server_keys(directory: Path) -> ServerKeys:
    """Return the keys in `directory`.

    Raises:
        ConfigError: There are none, one can be read by others than its owner, or one is not what its name says.
    """
    if not (directory / _CURRENT).exists():
        raise ConfigError(f"{directory} has no server keys", "run: odograph init")
    current = settings.read(directory / _CURRENT, _Current)
    unwrap: dict[str, PrivateKey] = {}
    for suffix, load in _UNWRAPPING.items():
        for path in sorted(directory.glob(f"*{suffix}")):
            key = load(path)
            unwrap[_named(path, suffix, _kid(key))] = key
    signing: dict[str, Ed25519PrivateKey] = {}
    for path in sorted(directory.glob("*.ed25519")):
        signs = Ed25519PrivateKey.from_private_bytes(_hex_key(path))
        signing[_named(path, ".ed25519", key_id(signs.public_key().public_bytes_raw()))] = signs
    if current.receipt_kid not in signing:
        raise ConfigError(f"{directory}/{current.receipt_kid}.ed25519 does not exist", f"{_CURRENT} names it")
    if current.kid not in unwrap:
        raise ConfigError(f"the private key {directory}/{current.kid} does not exist", f"{_CURRENT} names it")
    chain = _chain(directory, current.kid) or (_bundle_of_old_home(unwrap[current.kid], signing[current.receipt_kid]),)
    receipt_keys = {
        recipient.kid: signing[one.receipt_kid]
        for one in chain
        if one.receipt_kid in signing
        for recipient in one.recipients
    }
    return ServerKeys(chain, unwrap, receipt_keys)


@dataclass(slots=True)
class KeyRing:
    """The keys of a directory, as they are now: what a rotation changes is there without a restart.

    A look costs one `stat` of the directory and of one file. May be used from any thread: two that find a change both
    load it. While what changed cannot be read, the keys are those of before, and that is said once.
    """

    directory: Path
    _keys: ServerKeys = field(init=False)
    _seen: tuple[int, ...] = field(init=False)
    _log = Logger()

    def __post_init__(self) -> None:
        self._seen = self._stamp()
        self._keys = load_server_keys(self.directory)

    def keys(self) -> ServerKeys:
        """Return the keys that are in the directory now."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._keys = load_server_keys(self.directory)
                self._log.info("the newest server key is {kid}", kid=self._keys.newest.kid)
            except (ConfigError, OSError) as error:
                self._log.error("the server's keys changed and cannot be read: {error}", error=error)
        return self._keys

    def _stamp(self) -> tuple[int, ...]:
        try:
            directory, current = self.directory.stat(), (self.directory / _CURRENT).stat()
        except OSError:
            return ()
        return directory.st_mtime_ns, current.st_ino, current.st_mtime_ns


class _Generation:
    """New keys of every kind, not yet on disk."""

    def __init__(self, now_ms: int, before: str = "", former: tuple[str, ...] = ()) -> None:
        self._receipt = Ed25519PrivateKey.generate()
        x25519, rsa = X25519PrivateKey.generate(), generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        self.bundle = Bundle(
            REALM,
            # The cheaper one for the server first; RSA for whoever has its reasons.
            (
                Recipient(HPKE_SUITE, _kid(x25519), x25519.public_key().public_bytes_raw().hex()),
                Recipient(RSA_SUITE, _kid(rsa), _pem(rsa)),
            ),
            self._receipt.public_key().public_bytes_raw().hex(),
            former,
            iso_s(now_ms // 1000 * 1000),
            before,
        )
        self._secrets = {
            f"{_kid(x25519)}.x25519": x25519.private_bytes_raw().hex().encode() + b"\n",
            f"{_kid(rsa)}.rsa.pem": rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            f"{self.bundle.receipt_kid}.ed25519": self._receipt.private_bytes_raw().hex().encode() + b"\n",
        }

    def write(self, directory: Path, bundle: Bundle) -> None:
        """Write keys and bundle, and last, at once, that they are the newest."""
        for name, secret in self._secrets.items():
            write_secret(directory / name, secret)
        _keep_bundle(directory, bundle)
        sync_directory(directory)
        current = f'kid = "{bundle.kid}"\nreceipt_kid = "{bundle.receipt_kid}"\n'
        replace_file(directory / _CURRENT, current.encode(), 0o600)


def _is_past(retired_ms: int | None, now_ms: int) -> bool:
    return retired_ms is not None and retired_ms + KEPT_MS <= now_ms


def _receipt_keys(chain: tuple[Bundle, ...]) -> tuple[str, ...]:
    return tuple(one.receipt_public_key for one in reversed(chain))


def _remove(directory: Path, bundle: Bundle) -> bool:
    """Remove a generation's private keys; False when they were gone."""
    names = [f"{one.kid}{suffix}" for one in bundle.recipients for suffix in _UNWRAPPING]
    found = [path for name in (*names, f"{bundle.receipt_kid}.ed25519") if (path := directory / name).exists()]
    for path in found:
        path.unlink()
    return bool(found)


def _keep_bundle(directory: Path, bundle: Bundle) -> None:
    replace_file(directory / f"{bundle.kid}.pub.json", bundles.dump(bundle).encode(), 0o600)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"{directory} has no server keys", "run: odograph init") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ConfigError(f"another rotation is under way in {directory}") from error
    finally:
        os.close(handle)


def _chain(directory: Path, kid: str) -> tuple[Bundle, ...]:
    """Return the bundles up to the one of that name, the oldest first; none when there is no such file."""
    found: list[Bundle] = []
    while kid and kid not in {one.kid for one in found} and (path := directory / f"{kid}.pub.json").exists():
        one = bundles.parse(read_text(path, bundles.MAX_BYTES, "restore it from a copy"))
        if one.kid != kid:
            raise ConfigError(f"{path} holds another bundle than its name says", f"it is {one.kid}")
        found.append(one)
        kid = one.before
    return tuple(reversed(found))


def _bundle_of_old_home(key: PrivateKey, receipt: Ed25519PrivateKey) -> Bundle:
    """Return the bundle of a home whose keys were made before bundles were kept beside them."""
    if not isinstance(key, RSAPrivateKey):
        raise ConfigError("the newest key has no bundle beside it", "restore <kid>.pub.json from a copy")
    return Bundle(REALM, (Recipient(RSA_SUITE, _kid(key), _pem(key)),), receipt.public_key().public_bytes_raw().hex())


def _kid(key: PrivateKey) -> str:
    if isinstance(key, X25519PrivateKey):
        return key_id(key.public_key().public_bytes_raw())
    return key_id(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _pem(key: RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _named(path: Path, suffix: str, kid: str) -> str:
    if path.name != f"{kid}{suffix}":
        raise ConfigError(f"{path} holds another key than its name says", f"it is {kid}")
    return kid


def _load_rsa(path: Path) -> RSAPrivateKey:
    refuse_open_file(path)
    key: Any
    try:
        key = load_pem_private_key(read_bytes(path, _MAX_KEY_BYTES), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey) or key.key_size < RSA_BITS:
        raise ConfigError(f"{path} is not an RSA private key of at least {RSA_BITS} bits", "restore it from a copy")
    return key


def _load_x25519(path: Path) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(_hex_key(path))


def _hex_key(path: Path) -> bytes:
    refuse_open_file(path)
    text = read_bytes(path, _MAX_KEY_BYTES).decode("utf-8", "replace").strip()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ConfigError(f"{path} is not 64 hex digits", "restore it from a copy")
    return bytes.fromhex(text)


_UNWRAPPING: Final[Mapping[str, Callable[[Path], PrivateKey]]] = {".rsa.pem": _load_rsa, ".x25519": _load_x25519}
"""How private keys that open packets are called and read."""
