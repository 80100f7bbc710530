"""`odograph edge enrol` and `edge rekey`: a device's own part in who it is. Process wiring.

The private keys are made here and go nowhere. Files are written so that whatever is interrupted can be run again.
"""

import os
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from components.console.ask import Call, Identity, Router, blocking, by_key, join_and_ask
from components.durable_file import replace_file, sync_directory
from components.keyfile import KeyFile, make_key, read_key_file, write_key_file
from components.wamp_transport import read_ca, transport
from components.wire import bundle, enrolment
from components.wire.enrolment import Code
from components.wire.errors import ConfigError, RefusedError
from components.wire.topics import ENROL, REKEY

_NEW_CODE: Final = "ask for a new code: odograph device invite ID, on the server"
_REASONS: Final = {
    "authentication": "there is no open code for {device}: it was mistyped, is older than 24 hours, or was replaced",
    "code_used": "this code was used already, for another key",
    "key_had_before": "the key in this --home was {device}'s before and is shut out",
    "code_expired": "this code is older than 24 hours",
    "code_locked": "this code was tried too often",
    "wrong_proof": "this code is not the one of {device}",
    "bundle_changed": "the server's keys have changed since this code was made",
}


def enrol(router: Router, code: Code, home: Path, edge_toml: str) -> KeyFile:
    """Make a device of the code's: its key, its bundle and its edge.toml in `home`; return the key.

    A `home` with a key and no edge.toml is one where this was interrupted: that key is used.

    Raises:
        ConfigError: `home` has another device in it, or is a server's.
        RefusedError: The server refused the code, or sent another bundle than the code's.
        UnavailableError: The router or the server is away; the code is still good.
    """
    transport(router.url, router.ca)  # before anything is made
    ca = None if router.ca is None else read_ca(router.ca)
    # A bundle without a key beside it is none that this has left here.
    others = ("edge.toml",) if (home / "device.key").exists() else ("edge.toml", "server.pub.json")
    for name in others:
        if (home / name).exists():
            raise ConfigError(f"{home / name} is there already", "choose another --home; nothing was changed")
    home.mkdir(parents=True, exist_ok=True)
    key = _kept_or_made(home / "device.key", code.device)
    fingerprint = code.fingerprint.hex()
    message = enrolment.enrolment(code.device, key.public_key, fingerprint)
    arguments = (key.public_key, fingerprint, code.proof_key().sign(message).hex(), _signed(key, message))

    async def question(call: Call) -> str:
        return str((await call(ENROL, *arguments))["bundle"])

    who = Identity(code.device, {"ticket": {"authid": code.device, "ticket": code.ticket()}})
    try:
        text = blocking(lambda reactor: join_and_ask(reactor, router, who, question))
    except RefusedError as error:
        words = _REASONS.get(error.reason, error.message).format(device=code.device)
        hint = "choose another --home" if error.reason == "key_had_before" else _NEW_CODE
        raise RefusedError(error.reason, words, hint) from error
    if enrolment.fingerprint(text) != code.fingerprint:
        raise RefusedError(
            "bundle", "what came is not the server's bundle: somebody on the way has changed it", _NEW_CODE
        )
    bundle.parse(text)
    replace_file(home / "server.pub.json", text.encode())
    if ca is not None:
        replace_file(home / "ca.pem", ca)
    # The last: with it, all is there.
    replace_file(home / "edge.toml", edge_toml.encode())
    return key


def rekey(router: Router, key_path: Path) -> KeyFile:
    """Give a device another key, at the server and in its file; return it.

    The new one waits beside the old one, as `<name>.new`, until the server has it. Where an earlier run, or
    the session, ended between the two, joining with the new one tells that the server has it already.

    Raises:
        RefusedError: The server does not know the device by either key, or refused.
        UnavailableError: The router or the server is away; run it again.
    """
    old = read_key_file(key_path)
    new_path = key_path.with_name(f"{key_path.name}.new")
    interrupted = new_path.exists()
    new = _kept_or_made(new_path, old.authid)
    message = enrolment.rekeying(old.authid, old.public_key, new.public_key)

    async def replace(call: Call) -> bool:
        await call(REKEY, new.public_key, _signed(old, message), _signed(new, message))
        return True

    async def nothing(_call: Call) -> bool:
        return True

    async def whole(reactor: Any) -> bool:  # noqa: ANN401 - a reactor is many interfaces
        try:
            return await join_and_ask(reactor, router, by_key(old), replace)
        except RefusedError as error:
            # The router ends the session that was joined with the old key, and may do so before the answer has come.
            if error.reason != "session_ended" and not (interrupted and error.reason == "authentication"):
                raise
            return await join_and_ask(reactor, router, by_key(new), nothing)

    blocking(whole)
    owner = key_path.stat()
    if owner.st_uid != os.geteuid():
        # Root runs this for the agent's user, who must be able to read it.
        os.chown(new_path, owner.st_uid, owner.st_gid)
    new_path.replace(key_path)
    sync_directory(key_path.parent)
    return new


def _kept_or_made(path: Path, device: str) -> KeyFile:
    """Return the key that an interrupted run has left at `path`, or a new one, written there."""
    if path.exists():
        key = read_key_file(path)
        if key.authid != device:
            raise ConfigError(f"{path} is the key of {key.authid}, not of {device}", "choose another --home")
        return key
    key = make_key(device, "device")
    write_key_file(path, key)
    return key


def _signed(key: KeyFile, message: bytes) -> str:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key.private_key)).sign(message).hex()
