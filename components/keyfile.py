"""A principal's private key as a file: KEYFILE, TOML, mode 0600. Devices, operators and persisters all have this one.

    authid = "admin"
    role = "admin"
    private_key = "…64 hex digits, as `wamp --private-key` takes them…"

Reads and writes files; knows neither end. `refuse_open_file` is for every file that holds a secret.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from components import settings
from components.durable_file import sync_directory
from components.wire.errors import ConfigError
from components.wire.topics import ID_RULE, is_id

KEYFILE_ROLES: Final = ("device", "persister", "viewer", "technician", "admin")
_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class KeyFile:
    """Who someone is, and the secret that proves it; the secret is not in its repr.

    Attributes:
        private_key: Ed25519 seed, 64 hex digits in lower case.
    """

    authid: str = settings.checked(f"be {ID_RULE}", is_id)
    role: str = settings.checked(f"be one of {' '.join(KEYFILE_ROLES)}", lambda role: role in KEYFILE_ROLES)
    private_key: str = field(default="", repr=False)

    @property
    def public_key(self) -> str:
        """The Ed25519 public key, 64 hex digits: what the registry holds."""
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(self.private_key))
        return key.public_key().public_bytes_raw().hex()


def make_key(authid: str, role: str) -> KeyFile:
    """Return a new random key for `authid`; nothing is written."""
    return KeyFile(authid, role, Ed25519PrivateKey.generate().private_bytes_raw().hex())


def write_key_file(path: Path, key: KeyFile) -> None:
    """Write `key` to a new file of mode 0600; ConfigError when the file is there already or cannot be written."""
    text = f'authid = "{key.authid}"\nrole = "{key.role}"\nprivate_key = "{key.private_key}"\n'
    write_secret(path, text.encode())


def read_key_file(path: Path) -> KeyFile:
    """Return the key in `path`.

    Raises:
        ConfigError: It is missing, others than its owner may read it, or it is not as it should be. The message never
            holds the private key.
    """
    refuse_open_file(path)
    key = settings.read(path, KeyFile)
    if not _HEX.fullmatch(key.private_key):
        raise ConfigError(f"{path} has 1 fault", faults=["private_key: must be 64 hex digits in lower case"])
    return key


def refuse_open_file(path: Path) -> None:
    """ConfigError when `path` is missing or anybody but its owner may read or write it."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", error.strerror or "") from error
    if mode & 0o077:
        raise ConfigError(f"{path} can be read or written by others", f"run: chmod 600 {path}")


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read, never wider even for a moment; whole and durable, or not there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, this replaces nothing.
        os.link(draft, path)
    except FileExistsError:
        raise ConfigError(f"{path} is there already", "choose another name, or remove it") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written", error.strerror or "") from error
    finally:
        with suppress(OSError):
            draft.unlink()
    sync_directory(path.parent)
