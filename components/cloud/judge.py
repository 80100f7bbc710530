"""One envelope as it came -> a packet to store, or why not. Pure.

The order of the checks is the contract's: size, grammar, topic = header = publisher, device known and
active, signature, unwrap, decrypt, inflate, parse, schema. What can never be right is a RejectedError, what may be
right later a NotYetError.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from components.cloud.ports import StoredPacket
from components.wire import envelope, packet, topics
from components.wire.errors import ConfigError, NotYetError, RejectedError
from components.wire.suites import PrivateKey


class KnownDevice(Protocol):
    """What the registry tells of a device."""

    @property
    def pubkey(self) -> str: ...  # noqa: D102
    @property
    def state(self) -> str: ...  # noqa: D102
    @property
    def account(self) -> str: ...  # noqa: D102
    @property
    def vehicle(self) -> str: ...  # noqa: D102
    @property
    def driver(self) -> str: ...  # noqa: D102


class Addressee(NamedTuple):
    """Who gets a receipt, and the key of the server for which the envelope was sealed ("" when it names none)."""

    device: str
    server_kid: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """An envelope as the router brought it.

    Attributes:
        publisher: The authid that the router disclosed; None when it disclosed none.
        received_ms: ms UTC.
    """

    topic: str
    envelope: bytes
    publisher: str | None
    received_ms: int

    @property
    def addressee(self) -> Addressee | None:
        """Who gets the receipt; None when the topic names no device."""
        device = topics.device_of(self.topic)
        return None if device is None else Addressee(device, envelope.server_kid(self.envelope))


@dataclass(frozen=True, slots=True)
class Judge:
    """Opens and judges envelopes for one server.

    Attributes:
        server_keys: Gives the server's private keys by kid, as they are now.
        known: Looks a device up in the registry, with its key of that kid if it had such a one not long ago; None when
            it is not there.
    """

    server_keys: Callable[[], Mapping[str, PrivateKey]]
    known: Callable[[str, str], KnownDevice | None]

    def judge(self, arrival: Arrival) -> StoredPacket:
        """Return the packet that an envelope holds.

        Raises:
            RejectedError: A permanent fault; `code` names the check.
            NotYetError: `unknown_device`, `revoked_device`, `unusable_device_key` or `unknown_server_key`.
        """
        sealed = envelope.parse(arrival.envelope)
        header = sealed.header
        if not header.device == topics.device_of(arrival.topic) == arrival.publisher:
            raise RejectedError("device_mismatch", f"{header.device} in {arrival.topic} by {arrival.publisher}")
        device = self._device(header.device, header.device_kid)
        if device is None:
            raise NotYetError("unknown_device", header.device)
        if device.state != "active":
            raise NotYetError(f"{device.state}_device", header.device)
        sealed.verify(_public_key(header.device, device.pubkey))
        plaintext = sealed.open(self.server_keys())
        form = packet.parse(plaintext)
        opened = packet.read(form, with_readings=False)
        if opened.id != header.packet_id:
            raise RejectedError("schema", f"id: the header says {header.packet_id}")
        return StoredPacket(
            id=opened.id,
            device=opened.device,
            session=opened.session,
            start_ms=opened.start_ms,
            account=device.account,
            vehicle=device.vehicle,
            driver=device.driver,
            packet=form,
            envelope=arrival.envelope,
            plaintext_sha256=sha256(plaintext).hexdigest(),
            received_ms=arrival.received_ms,
        )

    def _device(self, device: str, kid: str) -> KnownDevice | None:
        try:
            return self.known(device, kid)
        except ConfigError as error:
            # What is wrong with the registry is no fault of the packet.
            raise NotYetError("unusable_device_key", f"the registry's row of {device}: {error}") from error


def _public_key(device: str, pubkey: str) -> Ed25519PublicKey:
    """Return the key that the registry has; what is wrong with the registry is no fault of the packet."""
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(pubkey))
    except (TypeError, ValueError) as error:
        raise NotYetError("unusable_device_key", f"the registry's key of {device}: {error}") from error
