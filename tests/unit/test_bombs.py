"""Bombs: what is small on the road and large in memory is refused, or read, within a bound."""

import json
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any, cast

import pytest

from components.cloud.judge import Arrival, Judge
from components.cloud.persister import Persister
from components.cloud.ports import FeedEvent, StoredPacket
from components.cloud.wamp_intake import Intake
from components.edge.at_modem import read_sim
from components.edge.gpsd_gps import GpsdGps
from components.edge.obd_car import ObdCar
from components.wire import bundle, envelope, packet, receipt, strict_json, topics
from components.wire.errors import BadInputError, ConfigError
from components.wire.signals import BY_KEY, Linear
from components.wire.times import iso_s
from tests.fakes import FakeClock
from tests.sealed import KID, PUBKEY, sealed, server
from tests.wamp_peer import reactor
from tests.wire_made import START_MS, minute

MB = 1_000_000
NOTHING = cast("Any", None)


def peak_mb(call: Callable[[], object]) -> float:
    """Return the memory that Python took at most while `call` ran, beyond what it had before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / MB
    finally:
        tracemalloc.stop()


def refused(call: Callable[[], object]) -> Callable[[], None]:
    def calling() -> None:
        with pytest.raises((BadInputError, ConfigError)):
            call()

    return calling


def opened(data: bytes) -> bytes:
    return envelope.parse(data).open({KID: server()})


def deflated(plaintext: bytes) -> bytes:
    """An envelope of a plaintext that no honest device could seal."""
    limit, envelope.MAX_PLAINTEXT = envelope.MAX_PLAINTEXT, 2**40  # type: ignore[misc]
    try:
        return sealed(plaintext)
    finally:
        envelope.MAX_PLAINTEXT = limit  # type: ignore[misc]


def fullest() -> bytes:
    """The plaintext of a packet that the schema allows, with as many and as dear readings as it holds."""
    form: Any = packet.parse(packet.pack(minute(())))
    swing = [200, -200] * 3000
    form["readings"] = {
        "at": [0] * 6000,
        "columns": {
            key: {"d": swing} if isinstance(one.codec, Linear) and one.codec.total else "no_data"
            for key, one in BY_KEY.items()
        },
        "measured": [],
        "why": {},
    }
    return strict_json.dumps(form)


def test_a_hundred_mebibytes_in_a_few_kilobytes_are_not_inflated() -> None:
    bomb = deflated(b" " * 100 * 1024 * 1024)
    assert len(bomb) < 128 * 1024
    assert peak_mb(refused(lambda: opened(bomb))) < 5


@pytest.mark.parametrize(
    "part",
    [b"{},", b'"ab",', b"1.1,", b'"\\u0041",'],
    ids=["tables", "texts", "fractions", "escapes"],
)
def test_a_mebibyte_of_small_things_takes_tens_of_megabytes_and_no_more(part: bytes) -> None:
    data = b'{"a":[' + part * ((envelope.MAX_PLAINTEXT - 20) // len(part)) + b"1]}"
    assert peak_mb(refused(lambda: packet.read(packet.parse(data)))) < 64


def test_a_mebibyte_of_keys_takes_tens_of_megabytes_and_no_more() -> None:
    data = json.dumps({f"{n:x}": 0 for n in range(90_000)}).encode()
    assert len(data) <= envelope.MAX_PLAINTEXT
    assert peak_mb(refused(lambda: packet.read(packet.parse(data)))) < 64


def test_the_fullest_packet_that_is_right_takes_megabytes() -> None:
    data = fullest()
    assert len(zlib.compress(data, 9)) < 16_384
    assert peak_mb(lambda: packet.read(packet.parse(data), with_readings=False)) < 32


@pytest.mark.parametrize("data", [b"\x80" * 262_140, b"\x9b" + b"\x00" * 7 + b"\xff"])
@pytest.mark.parametrize("read", [envelope.parse, lambda data: receipt.verify(data, ())], ids=["envelope", "receipts"])
def test_a_quarter_mebibyte_of_cbor_takes_tens_of_megabytes_and_no_more(
    read: Callable[..., object], data: bytes
) -> None:
    whole = b"\x9a" + len(data).to_bytes(4, "big") + data[: 256 * 1024 - 5]
    for one in (data, whole):
        assert peak_mb(refused(lambda one=one: read(one))) < 32  # type: ignore[misc]


def test_a_bundle_of_keys_without_end_is_not_read() -> None:
    text = '{"v":2,"recipients":[' + "{}," * 10_000_000 + "{}]}"
    assert peak_mb(refused(lambda: bundle.parse(text))) < 2 * len(text) / MB
    many = '{"v":2,"recipients":[' + "{}," * 20_000 + "{}]}"
    assert peak_mb(refused(lambda: bundle.parse(many))) < 16


def test_a_gpsd_with_ten_thousand_receivers_is_listened_to_as_if_it_had_a_few() -> None:
    clock = FakeClock(10_000)
    gps = GpsdGps(reactor, "127.0.0.1:2947", clock)
    form = '{"class":"TPV","device":"%s","mode":3,"lat":48,"lon":11}'
    for n in range(2_000):
        gps._heard((form % f"/dev/{n}").encode())
    assert len(gps._fixes) == 16
    assert gps.sample(10_000).values["gps_fix"] == 3
    clock.at_ms = 14_000
    gps._heard((form % "/dev/late").encode())
    assert list(gps._fixes) == ["/dev/late"]


def test_the_name_of_a_receiver_is_a_short_text_or_none() -> None:
    gps = GpsdGps(reactor, "127.0.0.1:2947", FakeClock(10_000))
    names: list[object] = [["x"] * 3, {"a": {}}, 5, None, "n" * 10_000, "\ud800"]
    for name in names:
        gps._heard(json.dumps({"class": "TPV", "device": name, "mode": 3, "lat": 48, "lon": 11}).encode())
    assert sorted(len(name) for name in gps._fixes) == [0, 1, 256]


def full_envelopes(count: int) -> list[bytes]:
    """As many minutes with as many readings as a packet holds, each sealed by the device."""
    form = json.loads(fullest())
    form["readings"]["columns"] = dict.fromkeys(BY_KEY, "no_data") | {"rpm": {"d": [200, -200] * 3000}}
    found = []
    for n in range(count):
        one = minute((), start_ms=START_MS + n * 60_000)
        told = {"id": one.id, "start": iso_s(one.start_ms)}
        found.append(sealed(strict_json.dumps(form | told), n=n))
    return found


def test_a_batch_of_the_fullest_packets_is_stored_in_parts_and_fed_in_parts() -> None:
    envelopes = full_envelopes(12)
    archive, published = Forgetful(), []
    known: Any = type("Known", (), {"pubkey": PUBKEY, "state": "active", "account": "", "vehicle": "", "driver": ""})()
    persister = Persister(Judge(lambda: {KID: server()}, lambda _device, _kid: known), cast("Any", archive))
    batch = [Arrival(topics.packet("car_one"), one, "car_one", 7) for one in envelopes]
    result = persister.persist(batch)
    assert [one.status for _, one in result.receipts] == ["stored"] * 12
    assert [len(part) for part in archive.parts] == [9, 3]
    assert len(result.stored) == 9

    class Feed:
        def publish(self, given: list[FeedEvent]) -> None:
            published.append(len(given))

    intake = Intake(persister, cast("Any", Feed()), NOTHING, NOTHING, [], NOTHING)
    assert intake._announce(result.stored[:2]) == [one.id for one in result.stored[:2]]
    assert published == [6001] * 2


class Forgetful:
    """An archive that keeps nothing but how many packets came at once."""

    def __init__(self) -> None:
        self.parts: list[list[str]] = []

    def insert(self, packets: list[StoredPacket]) -> list[str]:
        self.parts.append([one.id for one in packets])
        return ["stored"] * len(packets)


class Torrent:
    """A line at whose other end somebody sends as fast as it is read, and never what ends an answer."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.taken = 0

    def write(self, data: bytes, until_ms: int) -> None:
        """Take a command."""

    def read(self, until_ms: int) -> bytes:
        self.clock.at_ms += 1 if until_ms else 0
        self.taken += 4096 if until_ms else 0
        return b"x" * 4096 if until_ms else b""

    def close(self) -> None:
        """Let go of it."""


def test_of_an_adapter_that_sends_without_end_one_answer_is_taken_and_the_line_is_given_up() -> None:
    clock = FakeClock()
    torrent = Torrent(clock)
    car = ObdCar("/dev/x", clock=clock, open_line=lambda _port, _until: torrent)
    car.sample(clock.at_ms + 900)
    assert car.state().connected is False
    assert torrent.taken < 64 * 1024


def test_of_a_modem_that_sends_without_end_little_is_taken() -> None:
    clock = FakeClock()
    torrent = Torrent(clock)
    read_sim("/dev/modem", clock.at_ms + 5_000, clock=clock, open_line=lambda _port, _until: torrent)
    assert torrent.taken < 64 * 1024
