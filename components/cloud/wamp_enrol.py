"""The procedures by which a device gets into the registry by itself: enrol, with a code; rekey, with its key. Rim.

A persister offers them, as it may write the registry and holds the server's keys, which the router does not. The router
is not trusted with either: what counts is signed by keys that it has never seen (components/wire/enrolment.py).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autobahn.twisted.wamp import ApplicationSession
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import CallDetails, RegisterOptions
from twisted.logger import Logger

from components.cloud.refusals import Note, Refusals, Waiting
from components.cloud.sqlite_registry import Registry
from components.cloud.who import is_pubkey
from components.lane import Lane
from components.wamp_procedure import UNAVAILABLE, guarded
from components.wire import enrolment
from components.wire.errors import ConfigError, OdographError, RefusedError, UnavailableError
from components.wire.topics import ENROL, REKEY


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Writes the registry at `path`, in `lane` (width 1); `bundle` gives the text of the server's newest."""

    path: Path
    lane: Lane
    bundle: Callable[[], str]
    _refusals: Refusals = field(default_factory=Refusals)
    _waiting: Waiting = field(default_factory=Waiting)
    _log = Logger()

    async def attend(self, session: ApplicationSession) -> None:
        """Register with one session; several persisters take turns."""
        options = RegisterOptions(invoke="roundrobin", details_arg="details")
        await session.register(guarded(self.enrol), ENROL, options=options)
        await session.register(guarded(self.rekey), REKEY, options=options)

    async def minute(self) -> None:
        """A minute is over: note what was refused again and again; UnavailableError when it cannot be."""
        await self.lane.run(self._note_minute)

    async def enrol(
        self, pubkey: str, fingerprint: str, by_code: str, by_key: str, *, details: CallDetails
    ) -> dict[str, object]:
        """Make the invited device that calls an active one, with this public key; once a code.

        Args:
            pubkey: Its Ed25519 public key, 64 hex digits.
            fingerprint: Of the bundle that came with the code, hex.
            by_code: Signature of enrolment.enrolment by the code's key, 128 hex digits.
            by_key: The same by the device's own key: that it has it.

        Returns:
            `bundle`: the text of server.pub.json.
        """
        found: dict[str, object] = await self._run(
            self._enrol, str(details.caller_authid), pubkey, fingerprint, by_code, by_key
        )
        return found

    async def rekey(self, pubkey: str, by_old: str, by_new: str, *, details: CallDetails) -> dict[str, object]:
        """Give the device that calls another key; the one before is good for packets for 45 days, and for no session.

        Args:
            pubkey: The new one, 64 hex digits.
            by_old: Signature of enrolment.rekeying by the key that it replaces, 128 hex digits.
            by_new: The same by the new key.

        Returns:
            `device`: its id.
        """
        found: dict[str, object] = await self._run(self._rekey, str(details.caller_authid), pubkey, by_old, by_new)
        return found

    async def _run(self, work: Callable[..., Any], device: str, *arguments: object) -> Any:  # noqa: ANN401 - as `work`
        try:
            return await self.lane.run(work, device, *arguments)
        except (UnavailableError, ConfigError) as error:
            raise ApplicationError(UNAVAILABLE, str(error)) from error
        except RefusedError as error:
            self._log.warn("refused {device}: {error}", device=device, error=error)
            raise ApplicationError(f"odograph.error.{error.reason}", str(error)) from error

    def _enrol(
        self, device: str, pubkey: object, fingerprint: object, by_code: object, by_key: object
    ) -> dict[str, object]:
        bundle = self.bundle()
        with Registry.open(self.path, write=True, by="persister") as registry:
            try:
                if fingerprint != enrolment.fingerprint(bundle).hex():
                    raise _refused("bundle_changed", "the server's keys are not those of the code")
                invitation, key = registry.invitation(device), _key(pubkey)
                message = enrolment.enrolment(device, key, str(fingerprint))
                if invitation is None or not enrolment.is_signed(message, invitation.proof_key, by_code):
                    raise _refused("wrong_proof", "this was not signed with the code")
                if not enrolment.is_signed(message, key, by_key):
                    raise _refused("wrong_proof", "this was not signed with the key that is to be enrolled")
                registry.enrol_device(device, key, _now_ms())
            except RefusedError as error:
                self._note("enrolment.refused", device, error)
                with self._or_later():
                    registry.count_refusal(device)
                    self._waiting.drain(registry.note_refusal)
                raise
        return {"bundle": bundle}

    def _rekey(self, device: str, pubkey: object, by_old: object, by_new: object) -> dict[str, object]:
        with Registry.open(self.path, write=True, by="persister") as registry:
            try:
                new, known = _key(pubkey), registry.device(device)
                old = known.pubkey if known is not None else ""
                message = enrolment.rekeying(device, old, new)
                if not enrolment.is_signed(message, old, by_old) or not enrolment.is_signed(message, new, by_new):
                    raise _refused("wrong_proof", "this was not signed with both keys")
                try:
                    registry.rekey_device(device, new, _now_ms())
                except ConfigError as error:
                    raise _refused("not_rekeyed", str(error)) from error
            except RefusedError as error:
                self._note("rekey.refused", device, error)
                with self._or_later():
                    self._waiting.drain(registry.note_refusal)
                raise
        return {"device": device}

    def _note(self, what: str, device: str, error: RefusedError) -> None:
        note = Note.of(what, "persister", device, device, reason=error.reason)
        self._waiting.add(_now_ms(), self._refusals.noted(note))

    @contextmanager
    def _or_later(self) -> Iterator[None]:
        """Whoever is refused hears why, whether that can be written now or not."""
        try:
            yield
        except OdographError as error:
            self._log.warn("refusals wait for the audit log: {error}", error=error)

    def _note_minute(self) -> None:
        self._waiting.add(_now_ms(), self._refusals.minute())
        if self._waiting:
            with Registry.open(self.path, write=True, by="persister") as registry:
                self._waiting.drain(registry.note_refusal)


def _key(pubkey: object) -> str:
    if not is_pubkey(pubkey):
        raise _refused("invalid_argument", "pubkey: must be a public key of 64 hex digits in lower case")
    return pubkey


def _refused(reason: str, message: str) -> RefusedError:
    return RefusedError(reason, message)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
