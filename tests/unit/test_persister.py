"""What becomes of an envelope: every check in its order, every outcome with what is kept and what is said."""

import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Never, cast

import pytest
from twisted.logger import Logger

from components.cloud import persister
from components.cloud.judge import Arrival, Judge
from components.cloud.persister import RETRY_AFTER_S, Persister
from components.cloud.sqlite_registry import Registry
from components.wire import bundle, envelope, strict_cbor, topics
from components.wire.errors import ConfigError, NotYetError, RejectedError, UnavailableError
from components.wire.receipt import Receipt, digest
from tests.fake_stores import MemoryArchive
from tests.sealed import KID, PUBKEY, Known, changed, forged, parts, plain, sealed, server

TOPIC = topics.packet("car_one")


@dataclass
class Server:
    """A persister over a store in memory; `devices` is its registry."""

    devices: dict[str, Any] = field(default_factory=lambda: {"car_one": Known()})
    archive: MemoryArchive = field(default_factory=MemoryArchive)

    def __post_init__(self) -> None:
        self.persister = Persister(Judge(lambda: {KID: server()}, self._known), self.archive)

    def _known(self, device: str, _kid: str) -> Any:  # noqa: ANN401 - a Known, or what it takes to fail
        found = self.devices.get(device)
        if isinstance(found, Exception):
            raise found
        return found

    def take(self, *envelopes: bytes, topic: str = TOPIC, publisher: str | None = "car_one") -> list[Receipt]:
        batch = [Arrival(topic, one, publisher, 7) for one in envelopes]
        return [receipt for _, receipt in self.persister.persist(batch).receipts]

    def one(self, data: bytes, **how: Any) -> Receipt:  # noqa: ANN401 - as `take`
        (found,) = self.take(data, **how)
        assert found.envelope_sha256 == digest(data)
        return found


def test_a_packet_is_stored_as_it_came_with_what_the_registry_says_of_its_car() -> None:
    cloud, data = Server(), sealed()
    assert cloud.one(data) == Receipt(digest(data), plain().id, "stored")
    (stored,) = cloud.archive.packets.values()
    assert (stored.id, stored.device, stored.envelope, stored.received_ms) == (plain().id, "car_one", data, 7)
    assert (stored.account, stored.vehicle, stored.driver) == ("acme", "van 7", "nina")
    assert cloud.archive.to_feed == {stored.id}


def test_what_is_heard_again_is_a_duplicate_also_within_one_batch_and_under_other_keys() -> None:
    cloud, data = Server(), sealed()
    again = sealed(seq=9)
    assert again != data
    assert [one.status for one in cloud.take(data, data, again)] == ["stored", "duplicate", "duplicate"]
    assert cloud.one(data).status == "duplicate"
    assert len(cloud.archive.packets) == 1
    assert cloud.archive.packets[plain().id].envelope == data


def test_two_persisters_that_hold_the_same_packet_store_it_once_and_both_receipt_it() -> None:
    one, other, data = Server(), Server(), sealed()
    other.archive = other.persister.archive = one.archive
    assert {one.one(data).status, other.one(data).status} == {"stored", "duplicate"}
    assert list(one.archive.packets) == [plain().id]


def test_another_content_under_the_same_id_is_kept_aside_and_the_first_stays() -> None:
    cloud = Server()
    cloud.take(sealed())
    other = sealed(rpm=950.0)
    assert cloud.one(other) == Receipt(digest(other), plain().id, "rejected", "conflict")
    assert cloud.archive.packets[plain().id].envelope == sealed()
    assert [one.envelope for one in cloud.archive.conflicts.values()] == [other]


def bad_bit(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


PERMANENT: dict[str, Callable[[], bytes]] = {
    "size": lambda: bytes(envelope.MAX_ENVELOPE + 1),
    "grammar": lambda: b"\xff",
    "signature": lambda: bad_bit(sealed()),
    "suite": lambda: forged("suite"),
    "unwrap": lambda: forged("wrapped"),
    "decrypt": lambda: forged("ciphertext"),
    "inflate": lambda: forged("inflate"),
    "parse": lambda: sealed(b'{"a":NaN}'),
    "schema": lambda: changed(period_s=7),
}


@pytest.mark.parametrize("code", PERMANENT)
def test_what_can_never_be_right_is_a_dead_letter_and_the_next_goes_through(code: str) -> None:
    cloud, data, good = Server(), PERMANENT[code](), sealed(n=1)
    found = {one.envelope_sha256: one for one in cloud.take(data, good)}
    assert found[digest(data)] == Receipt(digest(data), None, "rejected", code)
    assert found[digest(good)].status == "stored"
    (letter,) = cloud.archive.dead_letters.values()
    assert (letter.envelope_sha256, letter.topic, letter.code, letter.envelope) == (digest(data), TOPIC, code, data)
    assert cloud.one(data).status == "rejected"
    assert len(cloud.archive.dead_letters) == 1


def test_the_readings_are_judged_although_they_stay_columns() -> None:
    cloud = Server()
    assert cloud.one(changed(readings={"at": [0], "columns": {}, "measured": [], "why": {}})).code == "schema"


def test_a_packet_under_another_id_than_its_header_is_rejected() -> None:
    assert Server().one(sealed(minute="20261121T100600Z")).code == "schema"
    assert Server().one(sealed(session="f" * 16)).code == "schema"


@pytest.mark.parametrize(
    ("topic", "publisher"),
    [(topics.packet("car_two"), "car_two"), (topics.packet("car_two"), "car_one"), (TOPIC, "car_two"), (TOPIC, None)],
)
def test_topic_publisher_and_header_must_name_one_device(topic: str, publisher: str | None) -> None:
    cloud = Server()
    assert cloud.one(sealed(), topic=topic, publisher=publisher).code == "device_mismatch"
    assert cloud.archive.packets == {}
    assert len(cloud.archive.dead_letters) == 1


def test_the_receipt_goes_to_the_topics_device_and_to_nobody_where_there_is_none() -> None:
    cloud = Server()
    for topic, who in ((topics.packet("car_two"), ["car_two"]), ("odograph.packet.00.car_two", [])):
        found = cloud.persister.persist([Arrival(topic, sealed(), "car_two", 7)])
        assert [to for to, _ in found.receipts] == [(one, KID) for one in who]


CIRCUMSTANCES: list[tuple[str, dict[str, Any]]] = [
    ("unknown_device", {}),
    ("revoked_device", {"car_one": Known(state="revoked")}),
    ("invited_device", {"car_one": Known(pubkey="", state="invited")}),
    ("suspended_device", {"car_one": Known(state="suspended")}),
    ("unusable_device_key", {"car_one": ConfigError("a row that no registry writes")}),
    ("unusable_device_key", {"car_one": Known(pubkey="no hex")}),
    ("unusable_device_key", {"car_one": Known(pubkey=None)}),
    ("registry_away", {"car_one": UnavailableError("registry.db cannot be read")}),
]


@pytest.mark.parametrize(("code", "devices"), CIRCUMSTANCES)
def test_what_may_be_right_later_is_to_be_sent_again_and_nothing_is_kept(code: str, devices: dict[str, Any]) -> None:
    cloud, data = Server(dict(devices)), sealed()
    for _ in range(5):
        assert cloud.one(data) == Receipt(digest(data), None, "retry", code, RETRY_AFTER_S)
    assert (cloud.archive.packets, cloud.archive.dead_letters) == ({}, {})
    cloud.devices["car_one"] = Known()
    assert cloud.one(data).status == "stored"


def test_a_registry_that_is_locked_is_waited_for_once_a_batch() -> None:
    cloud, asked = Server(), []

    def locked(device: str, _kid: str) -> Known:
        asked.append(device)
        if len(asked) == 2:
            raise UnavailableError("registry.db cannot be read: database is locked")
        return Known()

    cloud.persister.judge = Judge(lambda: {KID: server()}, locked)
    batch = [sealed(n=n) for n in range(5)]
    assert [one.code for one in cloud.take(*batch)] == [*["registry_away"] * 4, None]
    assert len(asked) == 2
    assert {one.status for one in cloud.take(*batch)} == {"stored", "duplicate"}


def test_a_server_key_that_is_not_here_may_come_back() -> None:
    cloud, data = Server(), sealed(server_kid="9" * 16)
    assert (cloud.one(data).status, cloud.one(data).code) == ("retry", "unknown_server_key")
    assert cloud.archive.dead_letters == {}


def test_while_the_archive_is_away_everything_is_to_be_sent_again() -> None:
    cloud = Server()
    cloud.archive.away = True
    for found in (cloud.take(sealed(), b"\xff"), cloud.take(b"\xff"), cloud.take(sealed())):
        assert {(one.status, one.code) for one in found} == {("retry", "archive_away")}
    assert cloud.persister.persist([Arrival(TOPIC, sealed(), "car_one", 7)]).unavailable
    cloud.archive.away = False
    assert sorted(one.status for one in cloud.take(sealed(), b"\xff")) == ["rejected", "stored"]


def test_an_archive_that_is_away_is_tried_once_for_a_batch_however_many_parts_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(persister, "MAX_WEIGHT", 0)
    cloud, tried = Server(), list[int]()

    def away(packets: Sequence[object]) -> Never:
        tried.append(len(packets))
        raise UnavailableError("away")

    cloud.archive.insert = away  # type: ignore[method-assign]
    found = cloud.take(*(sealed(n=n) for n in range(4)))
    assert tried == [1]
    assert [(one.status, one.code) for one in found] == [("retry", "archive_away")] * 4


def test_no_rejected_receipt_without_a_dead_letter() -> None:
    cloud = Server()

    def away(_letters: object) -> None:
        raise UnavailableError("no dead letters now")

    cloud.archive.put_dead_letters = away  # type: ignore[assignment,method-assign]
    assert {one.status for one in cloud.take(b"\xff", sealed())} == {"retry"}


@pytest.mark.parametrize("error", [RejectedError("schema", "x"), NotYetError("later", "x"), ZeroDivisionError()])
def test_nothing_that_was_opened_of_a_refused_packet_is_kept_while_its_batch_goes_on(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Opened:
        pass

    opened, kept = list[weakref.ref[Opened]](), list[bool]()

    def judge(_: Arrival) -> Never:
        kept.extend(one() is not None for one in opened)
        form = Opened()
        opened.append(weakref.ref(form))
        raise copy(error)

    monkeypatch.setattr(Persister, "_log", Logger(observer=cast("Any", lambda _: None)))
    cloud = Server()
    cloud.persister.judge = SimpleNamespace(judge=judge)  # type: ignore[assignment]
    for _ in range(persister._POISON_ATTEMPTS):
        cloud.take(b"one", b"two")
    assert (len(opened), any(kept)) == (2 * persister._POISON_ATTEMPTS, False)


def test_a_packet_that_crashes_the_judge_is_a_dead_letter_at_the_third_time() -> None:
    cloud = Server({"car_one": RecursionError("deep")})
    data, other = sealed(), sealed(n=1)
    for data_now in (data, other, data):
        assert (cloud.one(data_now).status, cloud.persister.counts["retry.crashed"] > 0) == ("retry", True)
    assert cloud.archive.dead_letters == {}
    assert cloud.one(data) == Receipt(digest(data), None, "rejected", "poison")
    assert [one.code for one in cloud.archive.dead_letters.values()] == ["poison"]


def test_crashes_are_remembered_of_so_many_packets_and_of_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persister, "_POISON_REMEMBERED", 2)
    cloud = Server({"car_one": RecursionError("deep")})
    for n in (0, 1, 2, 0, 1, 2, 2):
        assert cloud.one(sealed(n=n)).code == "crashed"
    assert cloud.one(sealed(n=2)).code == "poison"
    assert cloud.one(sealed(n=1)).code == "crashed"


def test_only_what_is_new_is_handed_on_to_be_fed_and_no_more_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persister, "MAX_WEIGHT", 2)
    cloud = Server()
    cloud.take(sealed(n=3))
    batch = [Arrival(TOPIC, sealed(n=n), "car_one", 7) for n in (3, 0, 1, 2)]
    result = cloud.persister.persist(batch)
    # Three of them in one part, as the third is what fills it; then one more, for which there is no room.
    assert [one.id for one in result.stored] == [plain(0).id, plain(1).id]
    assert cloud.archive.to_feed == {plain(n).id for n in range(4)}
    batch = [Arrival(TOPIC, sealed(n=n), "car_one", 7) for n in (3, 0, 1, 4)]
    assert [one.id for one in cloud.persister.persist(batch).stored] == [plain(4).id]


def test_a_packet_is_no_poison_for_want_of_memory() -> None:
    cloud = Server({"car_one": MemoryError()})
    for _ in range(5):
        assert cloud.one(sealed()) == Receipt(digest(sealed()), None, "retry", "out_of_memory", RETRY_AFTER_S)
    cloud.devices["car_one"] = Known()
    assert cloud.one(sealed()).status == "stored"


def test_the_checks_come_in_the_contracts_order() -> None:
    """An envelope with every fault at once tells the first; mended one by one, it tells the next."""
    cloud = Server({})
    worse = bad_bit(sealed(b"not json", server_kid="9" * 16))
    assert cloud.one(worse + bytes(envelope.MAX_ENVELOPE)).code == "size"
    assert cloud.one(worse + b"\0").code == "grammar"
    assert cloud.one(worse, publisher="car_two").code == "device_mismatch"
    assert cloud.one(worse).code == "unknown_device"
    cloud.devices["car_one"] = Known(state="revoked")
    assert cloud.one(worse).code == "revoked_device"
    cloud.devices["car_one"] = Known()
    assert cloud.one(worse).code == "signature"
    assert cloud.one(sealed(b"not json", server_kid="9" * 16)).code == "unknown_server_key"
    assert cloud.one(sealed(b"not json")).code == "parse"


def test_a_stranger_cannot_make_the_server_unwrap() -> None:
    """The dear step comes after the signature: without the device's key nobody gets there."""
    header, wrapped, nonce, ciphertext, _ = parts(sealed())
    unsigned = strict_cbor.dumps([header, bytes(len(wrapped)), nonce, ciphertext, bytes(64)])
    assert Server().one(unsigned).code == "signature"


def test_outcomes_are_counted() -> None:
    cloud = Server()
    cloud.take(sealed(), sealed(), b"\xff", sealed(rpm=950.0))
    counts = cloud.persister.counts
    assert [counts[name] for name in ("stored", "duplicate", "conflict", "rejected", "rejected.grammar")] == [1] * 5


def test_a_car_that_changes_hands_is_stored_with_who_has_it_then() -> None:
    cloud = Server()
    cloud.take(sealed())
    cloud.devices["car_one"] = replace(Known(), driver="olaf")
    cloud.take(sealed(n=1))
    assert [one.driver for one in cloud.archive.packets.values()] == ["nina", "olaf"]


def test_a_packet_sealed_before_its_device_changed_its_key_is_stored_and_one_of_another_key_is_not(
    tmp_path: Path,
) -> None:
    """The order of a real rotation: the packet waits in the outbox while the key changes."""
    kid = bundle.key_id(bytes.fromhex(PUBKEY))
    archive = MemoryArchive()
    with closing(Registry.create(tmp_path / "registry.db")) as registry:
        persister = Persister(Judge(lambda: {KID: server()}, registry.sender), archive)
        registry.add_device("car_one", PUBKEY, 1)
        registry.rekey_device("car_one", "cd" * 32, time.time_ns() // 1_000_000)
        packets = [sealed(n=0, device_kid=kid), sealed(n=1, device_kid="1" * 16)]
        batch = [Arrival(TOPIC, one, "car_one", 7) for one in packets]
        found = {one.envelope_sha256: (one.status, one.code) for _, one in persister.persist(batch).receipts}
    assert [found[digest(one)] for one in packets] == [("stored", None), ("rejected", "signature")]
