"""What the fuzzers feed: one function a boundary, which takes bytes and lets no error out but the documented one."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from Crypto.Signature import eddsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from components.edge.gpsd_gps import parse_tpv
from components.wire import bundle, envelope, packet, receipt, strict_cbor
from components.wire.errors import BadInputError, ConfigError, RejectedError

_KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_X25519: Final = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
_RECEIPT_KEY: Final = eddsa.import_public_key(_KEY.public_key().public_bytes_raw())


def eat_envelope(data: bytes) -> None:
    """Parse; then verify and open as if the signature were right, which no fuzzer finds."""
    with suppress(BadInputError):
        found = envelope.parse(data)
        with suppress(RejectedError):
            found.verify(_KEY.public_key())
        found.open({found.header.server_kid: _X25519})


def eat_inflated(data: bytes) -> None:
    """Take `data` for what was decrypted: its first byte chooses the coding."""
    coding = sorted(envelope.CODINGS)[data[0] % len(envelope.CODINGS)] if data else envelope.DEFAULT_CODING
    with suppress(RejectedError):
        eat_packet(envelope._inflate(data[1:], coding))


def eat_packet(data: bytes) -> None:
    """Read a plaintext; what is read packs to a packet that reads the same."""
    with suppress(RejectedError):
        form = packet.parse(data)
        found = packet.read(form)
        packet.read(form, with_readings=False)
        again = packet.read(packet.parse(packet.pack(found)))
        if again.readings != found.readings or again.id != found.id:
            raise AssertionError("a packet that was read does not come back")


def eat_receipt(data: bytes) -> None:
    """Verify bytes, and then the same bytes as a payload that the server signed."""
    signed = strict_cbor.dumps([data, _KEY.sign(b"odograph-receipt-v1" + data)])
    for one in (data, signed):
        with suppress(RejectedError):
            receipt.verify(one, [_RECEIPT_KEY])


def eat_bundle(data: bytes) -> None:
    """Parse a bundle."""
    with suppress(ConfigError):
        bundle.parse(data.decode("utf-8", "replace"))


def eat_gpsd(data: bytes) -> None:
    """Read a line of gpsd."""
    parse_tpv(data)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "envelope": eat_envelope,
    "inflated": eat_inflated,
    "packet": eat_packet,
    "receipt": eat_receipt,
    "bundle": eat_bundle,
    "gpsd": eat_gpsd,
}
