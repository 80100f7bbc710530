"""Parts of the edge for tests: lanes without threads, keys made once, rows of a drive."""

import secrets
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ParamSpec, TypeVar, cast

from Crypto.PublicKey import ECC, RSA
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from components.edge import minute
from components.edge.compactor import Compactor, Sealer, SigningKey
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.sqlite_readings import Kind, ReadingsReader, ReadingsWriter
from components.edge.trust import SealingKey, Trust
from components.edge.wamp_trust import WampTrust
from components.lane import Lane
from components.wire import envelope
from components.wire.bundle import Bundle, Recipient, key_id
from components.wire.packet import Packet, parse, read
from components.wire.reading import Reading
from components.wire.signals import BY_KEY
from components.wire.suites import RSA_SUITE

P = ParamSpec("P")
T = TypeVar("T")
Rows = list[tuple[Kind, int, Mapping[str, object]]]
T0 = 1_779_000_000_000
"""2026-05-17T06:40:00Z: a whole minute."""
ONE, TWO = "1" * 16, "2" * 16


class Journal:
    """Keeps rows in memory, as (session, kind, ms, body); refuses while `full`."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, int, Mapping[str, Any]]] = []
        self.full: Exception | None = None

    def append(self, session: str, rows: list[tuple[Kind, int, Mapping[str, object]]], /) -> None:
        if self.full is not None:
            raise self.full
        self.rows += [(session, *row) for row in rows]

    def of(self, kind: str) -> list[tuple[str, str, int, Mapping[str, Any]]]:
        return [row for row in self.rows if row[1] == kind]


class InlineLane:
    """A lane that calls at once, in the caller's thread; it tells when two calls would have run at once."""

    def __init__(self) -> None:
        self.calls = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.calls += 1
        return function(*args, **kwargs)


class HeldLane:
    """A lane of width 1 whose calls end when the test says so: `release()` runs the oldest that was given."""

    def __init__(self) -> None:
        self.queue: list[tuple[Deferred[Any], Callable[[], object]]] = []
        self.is_holding = True

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if not self.is_holding:
            return function(*args, **kwargs)
        done = Deferred[T]()
        self.queue.append((done, lambda: function(*args, **kwargs)))
        return await done

    def release(self) -> None:
        done, call = self.queue.pop(0)
        try:
            done.callback(call())
        except Exception:  # noqa: BLE001 - the answer of the call, as in a real lane
            done.errback()


def as_lane(lane: InlineLane | HeldLane) -> Lane:
    return cast("Lane", lane)


@cache
def server_rsa() -> RSA.RsaKey:
    made = generate_private_key(65537, 2048)  # in a tenth of the time that Crypto takes
    return RSA.import_key(made.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


@cache
def ed25519(seed: int) -> ECC.EccKey:
    of: Any = bytes([seed]) * 32
    return ECC.construct(curve="Ed25519", seed=of)


def sealer() -> Sealer:
    key = SealingKey(RSA_SUITE, "a" * 16, server_rsa().public_key())
    return Sealer(lambda: key, lambda: SigningKey("b" * 16, ed25519(1)), secrets.token_bytes)


def server_bundle(receipt_seed: int = 2) -> Bundle:
    """What a device is given of a server; its receipts are signed by `ed25519(receipt_seed)`."""
    public = server_rsa().public_key()
    rsa = Recipient(RSA_SUITE, key_id(public.export_key("DER")), public.export_key().decode() + "\n")
    return Bundle("odograph", (rsa,), ed25519(receipt_seed).public_key().export_key(format="raw").hex())


def wamp_trust(clock: Clock, receipt_seed: int = 2) -> WampTrust:
    """The trust in that server; what it keeps is kept nowhere."""
    return WampTrust(clock, Trust(server_bundle(receipt_seed), "auto"), lambda _: None, as_lane(InlineLane()))


@cache
def server_private_key() -> Any:  # noqa: ANN401 - one of many kinds of key, as pyca types it
    return load_pem_private_key(server_rsa().export_key(), None)


def opened(sealed: bytes) -> bytes:
    """The plaintext of an envelope that `sealer` made."""
    return envelope.parse(sealed).open({"a" * 16: server_private_key()})


def packet_of(sealed: bytes) -> Packet:
    return read(parse(opened(sealed)))


def reading(at_ms: int, **values: Any) -> Reading:  # noqa: ANN401 - any signal's value
    return Reading(at_ms, values, {key: "unsupported" for key in BY_KEY if key not in values})


def session_row(at_ms: int, *, period_s: int = 60, **changes: object) -> tuple[Kind, int, Mapping[str, object]]:
    body = minute.session_body("ntp", None, 1000, period_s, "full", "c" * 16)
    return "session", at_ms, {**body, **changes}


def reading_row(at_ms: int, speed: int = 50) -> tuple[Kind, int, Mapping[str, object]]:
    return "reading", at_ms, minute.reading_body(reading(at_ms, speed=speed))


def drive(writer: ReadingsWriter, session: str, from_ms: int, count: int, *, opening: bool = True) -> None:
    """Write one reading a second, with the row that opens the session before them."""
    rows: Rows = [session_row(from_ms)] if opening else []
    writer.append(session, rows + [reading_row(from_ms + 1000 * n, n % 200) for n in range(count)])


def compactor(reader: ReadingsReader, outbox: SqliteOutbox) -> Compactor:
    return Compactor("car_one", reader, outbox, sealer())


def packets(outbox: SqliteOutbox) -> dict[str, bytes]:
    """The plaintexts that wait in the outbox, by packet id."""
    sealed = [outbox.envelope(one.seq) or b"" for one in outbox.waiting()]
    return {envelope.parse(one).header.packet_id: opened(one) for one in sealed}
