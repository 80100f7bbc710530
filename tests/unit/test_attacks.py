"""Who means harm, seen from the persister: each attack has its own code, its own count, and leaves nothing behind."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from components.cloud.events import events
from components.cloud.judge import Arrival, Judge
from components.cloud.persister import Persister
from components.cloud.sqlite_registry import Registry
from components.wire import packet, strict_cbor, topics
from components.wire.bundle import key_id
from components.wire.receipt import Receipt
from components.wire.suites import HPKE_SUITE
from components.wire.times import minute_id, parse_iso
from tests.fake_stores import MemoryArchive
from tests.sealed import DEVICE, KID, PUBKEY, Known, changed, parts, plain, sealed, server

ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493
THIEF = Ed25519PrivateKey.from_private_bytes(b"t" * 32)


@dataclass
class Cloud:
    """A persister that knows car_one, whom somebody attacks, and car_two, an enrolled device that a thief has."""

    devices: dict[str, Known] = field(
        default_factory=lambda: {
            "car_one": Known(),
            "car_two": Known(THIEF.public_key().public_bytes_raw().hex()),
        }
    )
    archive: MemoryArchive = field(default_factory=MemoryArchive)

    def __post_init__(self) -> None:
        self.persister = Persister(
            Judge(lambda: {KID: server()}, lambda device, _kid: self.devices.get(device)), self.archive
        )

    def take(self, data: bytes, device: str = "car_one", publisher: str | None = None) -> Receipt:
        arrival = Arrival(topics.packet(device), data, publisher or device, 7)
        ((_, found),) = self.persister.persist([arrival]).receipts
        return found


def signed(four: list[bytes], key: Ed25519PrivateKey = DEVICE) -> bytes:
    """An envelope of these parts."""
    return strict_cbor.dumps([*four, key.sign(b"odograph-packet-v1" + b"".join(four))])


def with_header(key: Ed25519PrivateKey = DEVICE, **fields: object) -> bytes:
    """The envelope of car_one with another header, signed again."""
    header, *others, _ = parts(sealed())
    form = strict_cbor.loads(header, 1)
    assert isinstance(form, dict)
    return signed([strict_cbor.dumps(form | fields), *others], key)


def changed_on_the_way(**fields: object) -> bytes:
    """The envelope of car_one with another header and the signature of before."""
    header, *others = parts(sealed())
    form = strict_cbor.loads(header, 1)
    assert isinstance(form, dict)
    return strict_cbor.dumps([strict_cbor.dumps(form | fields), *others])


def swapped(part: int) -> bytes:
    """The envelope of one minute with a part of the next one's, signed by the device that sealed both."""
    one, other = parts(sealed())[:4], parts(sealed(n=1))
    one[part] = other[part]
    return signed(one)


def resealed_as_car_two() -> bytes:
    """What car_one said, sealed by the thief for the server under the thief's own name."""
    return signed(parts(sealed(packet.pack(plain()), device="car_two"))[:4], THIEF)


def resigned(first: bytes | None, add: int) -> bytes:
    """The envelope of car_one with the first half of its signature exchanged, or with this added to the second."""
    *four, signature = parts(sealed())
    second = (int.from_bytes(signature[32:], "little") + add).to_bytes(32, "little")
    return strict_cbor.dumps([*four, signature[:32] + second if first is None else first + bytes(32)])


ATTACKS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "replayed under another device's name": ("device_mismatch", sealed, "car_two"),
    "signed again by another device": ("device_mismatch", lambda: signed(parts(sealed())[:4], THIEF), "car_two"),
    "forged in a device's name": ("signature", lambda: signed(parts(sealed())[:4], THIEF), "car_one"),
    "signed the same in another way": ("signature", lambda: resigned(None, ED25519_ORDER), "car_one"),
    "signed with zeros": ("signature", lambda: resigned(bytes(32), 0), "car_one"),
    "signed with the neutral point": ("signature", lambda: resigned(b"\x01" + bytes(31), 0), "car_one"),
    "taken over by another header": ("decrypt", lambda: with_header(THIEF, device="car_two"), "car_two"),
    "sealed anew by another device": ("schema", resealed_as_car_two, "car_two"),
    "alg downgraded on the way": ("signature", lambda: changed_on_the_way(alg="RSA1-5"), "car_one"),
    "alg exchanged on the way": ("signature", lambda: changed_on_the_way(alg=HPKE_SUITE), "car_one"),
    "alg downgraded and signed": ("suite", lambda: with_header(alg="none"), "car_one"),
    "alg of another kind of key": ("suite", lambda: with_header(alg=HPKE_SUITE), "car_one"),
    "coding downgraded on the way": ("signature", lambda: changed_on_the_way(coding="json"), "car_one"),
    "coding downgraded and signed": ("suite", lambda: with_header(coding="json"), "car_one"),
    "coding exchanged and signed": ("decrypt", lambda: with_header(coding="json+zlib"), "car_one"),
    "wrapped keys swapped": ("decrypt", lambda: swapped(1), "car_one"),
    "headers swapped": ("decrypt", lambda: swapped(0), "car_one"),
    "ciphertexts swapped": ("decrypt", lambda: swapped(3), "car_one"),
    "moved to another minute": ("decrypt", lambda: with_header(minute="20261121T100700Z"), "car_one"),
    "of the next version": ("grammar", lambda: with_header(v=2), "car_one"),
    "of version 0": ("grammar", lambda: with_header(v=0), "car_one"),
    "a packet of the next version": ("schema", lambda: changed(schema="odograph.packet.v2"), "car_one"),
    "a minute that is none": ("schema", lambda: sealed(minute="99999999T999999Z"), "car_one"),
    "a packet of another minute": ("schema", lambda: sealed(minute="20261121T100600Z"), "car_one"),
    "a packet that claims an account": ("schema", lambda: changed(account="rich"), "car_one"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_a_dead_letter_under_its_own_code_and_count(attack: str) -> None:
    cloud = Cloud()
    code, made, device = ATTACKS[attack]
    data = made()
    assert (cloud.take(data, device).status, cloud.take(data, device).code) == ("rejected", code)
    assert cloud.persister.counts == {"rejected": 2, f"rejected.{code}": 2}
    assert cloud.archive.packets == {}
    assert [(one.code, one.envelope) for one in cloud.archive.dead_letters.values()] == [(code, data)]
    assert cloud.take(sealed()).status == "stored"


def test_a_replay_is_a_duplicate_and_changes_nothing() -> None:
    cloud = Cloud()
    assert [cloud.take(sealed()).status for _ in range(3)] == ["stored", "duplicate", "duplicate"]
    assert cloud.persister.counts == {"stored": 1, "duplicate": 2}
    assert len(cloud.archive.packets) == 1


@pytest.mark.parametrize("pubkey", ["", "zz" * 32, "ab" * 31, "ab" * 33, "é" * 32, None, 5])
def test_a_registry_whose_key_is_none_costs_no_packet(pubkey: object) -> None:
    cloud = Cloud()
    cloud.devices["car_one"] = Known(pubkey)
    for _ in range(4):
        assert (cloud.take(sealed()).status, cloud.take(sealed()).code) == ("retry", "unusable_device_key")
    assert cloud.archive.dead_letters == {}
    cloud.devices["car_one"] = Known()
    assert cloud.take(sealed()).status == "stored"


def test_a_registry_file_whose_row_somebody_changed_costs_no_packet(tmp_path: Path) -> None:
    with Registry.create(tmp_path / "registry.db") as registry:
        registry.add_device("car_one", PUBKEY, 1)
    registry = Registry.open(tmp_path / "registry.db")
    cloud = Cloud()
    cloud.persister.judge = Judge(lambda: {KID: server()}, registry.sender)
    good = f"pubkey = '{PUBKEY}', account = '', added_ms = 1"
    for change, code in (
        ("pubkey = 'zz'", "unusable_device_key"),
        ("pubkey = ''", "unusable_device_key"),
        (f"{good}, account = printf('%.*c', 5000, 'x')", "unusable_device_key"),
        (f"{good}, account = printf('%.*c', 5000000, 'x')", "unusable_device_key"),
        (f"{good}, account = CAST(x'ff' AS TEXT)", "unusable_device_key"),
        (f"{good}, added_ms = -1", "unusable_device_key"),
        (good, None),
    ):
        with closing(sqlite3.connect(tmp_path / "registry.db", isolation_level=None)) as file:
            file.execute(f"UPDATE device SET {change}")  # noqa: S608 - ours
        for _ in range(4):
            found = cloud.take(sealed(device_kid=key_id(bytes.fromhex(PUBKEY))))
            assert found.status in {"retry", "stored", "duplicate"}, (change, found)
            assert found.code == code, change
    assert cloud.archive.dead_letters == {}
    registry.close()


def of_time(start: str) -> bytes:
    """The envelope of a minute that begins at any time."""
    one = replace(plain(), start_ms=parse_iso(start))
    moved = tuple(replace(reading, at_ms=one.start_ms + 59_999) for reading in one.readings or ())
    return sealed(packet.pack(replace(one, readings=moved)), minute=minute_id(one.start_ms))


@pytest.mark.parametrize(
    "start", ["1970-01-01T00:00:00Z", "2038-01-19T03:14:00Z", "2106-02-07T06:28:00Z", "9999-12-31T23:59:00Z"]
)
def test_whatever_the_clock_said_is_stored_and_announced_with_that_time(start: str) -> None:
    cloud = Cloud()
    assert cloud.take(of_time(start)).status == "stored"
    (stored,) = cloud.archive.packets.values()
    assert stored.id.endswith(start.replace("-", "").replace(":", ""))
    told = list(events(stored))
    assert [one.time for one in told] == [f"{start[:17]}59.999Z", f"{start[:-1]}.000Z"]
    assert json.loads(told[0].data)["at"] == told[0].time


@pytest.mark.parametrize(
    "start",
    ["1969-12-31T23:59:00Z", "0001-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "-001-01-01T00:00:00Z",
     "2026-02-30T00:00:00Z", "2026-11-21T10:05:60Z", "2026-11-21T10:05:01Z", "2026-11-21T25:05:00Z", 1_795_255_500],
)  # fmt: skip
def test_a_start_that_is_no_time_is_rejected(start: object) -> None:
    assert Cloud().take(changed(start=start)).code == "schema"
