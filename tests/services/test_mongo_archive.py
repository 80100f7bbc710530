"""What only the MongoDB archive promises: several persisters, and a server that goes away."""

import threading
import uuid
from collections.abc import Iterator
from typing import Never

import pytest
from pymongo.errors import BulkWriteError

from components.cloud import mongo_archive
from components.cloud.mongo_archive import MongoArchive, MongoArchiveReader
from components.cloud.ports import DeadLetter, StoredPacket
from components.wire.errors import ConfigError, UnavailableError
from tests.services.servers import Server, Service
from tests.waiting import PATIENCE_S, when_there


def packet(number: int, content: str = "") -> StoredPacket:
    id_ = f"car1/00000000000000aa/{number}"
    return StoredPacket(
        id_, "car1", "00000000000000aa", number, "", "", "", {"n": content}, b"\xff", f"{content}{number:x}", number
    )


@pytest.fixture
def uri(mongodb: Service) -> str:
    return f"mongodb://{mongodb.address}/odograph_test_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def archive(uri: str, patient_drivers: None) -> Iterator[MongoArchive]:
    del patient_drivers
    archive = MongoArchive(uri)
    yield archive
    archive._client.drop_database(archive._packets.database.name)
    archive.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo_archive, "SELECT_MS", 500)


@pytest.mark.usefixtures("impatient")
def test_a_killed_server_is_unavailable_and_the_same_archive_goes_on_when_it_is_back(
    own_mongodb: Server, uri: str
) -> None:
    archive = MongoArchive(uri)
    assert when_there(lambda: archive.insert([packet(1)])) == ["stored"]
    own_mongodb.kill()
    for call in (
        lambda: archive.insert([packet(2)]),
        lambda: archive.pending(10, 10),
        lambda: archive.mark_fed([packet(1).id]),
        lambda: archive.put_dead_letters([DeadLetter("00", "t", "gcm", "m", b"", 1)]),
        archive.counts,
        lambda: list(archive.minutes("car1")),
        lambda: archive.latest("car1"),
    ):
        with pytest.raises(UnavailableError, match="MongoDB: "):
            call()
    own_mongodb.start()
    assert when_there(lambda: archive.insert([packet(1), packet(2)])) == ["duplicate", "stored"]
    assert list(archive.minutes("car1")) == [packet(1), packet(2)]
    archive.close()


@pytest.mark.usefixtures("impatient")
def test_an_archive_can_be_made_while_the_server_is_away(own_mongodb: Server, uri: str) -> None:
    own_mongodb.stop()
    archive = MongoArchive(uri)
    with pytest.raises(UnavailableError):
        archive.insert([packet(1)])
    own_mongodb.start()
    assert when_there(lambda: archive.insert([packet(1)])) == ["stored"]
    archive.close()


@pytest.mark.usefixtures("impatient")
def test_a_server_that_hangs_is_unavailable_and_not_waited_for(
    own_mongodb: Server, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_archive, "SOCKET_MS", 1000)
    archive = MongoArchive(uri)
    when_there(lambda: archive.insert([packet(1)]))
    own_mongodb.hang()
    try:
        with pytest.raises(UnavailableError):
            archive.insert([packet(2)])
    finally:
        own_mongodb.go_on()
    assert set(when_there(lambda: archive.insert([packet(2)]))) <= {"stored", "duplicate"}
    archive.close()


def test_of_two_persisters_with_the_same_packets_each_is_stored_by_exactly_one(archive: MongoArchive, uri: str) -> None:
    batch = [packet(n) for n in range(60)]
    both = threading.Barrier(2)
    outcomes: list[list[str]] = []

    def persister() -> None:
        mine = MongoArchive(uri)
        both.wait(PATIENCE_S)
        outcomes.append([x for n in range(0, 60, 5) for x in mine.insert(batch[n : n + 5])])
        mine.close()

    threads = [threading.Thread(target=persister) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sorted(pair) for pair in zip(*outcomes, strict=True)] == [["duplicate", "stored"]] * 60
    assert list(archive.minutes("car1")) == batch


@pytest.mark.parametrize(
    "details",
    [
        {"writeErrors": [], "writeConcernErrors": [{"code": 64, "errmsg": "waiting for replication timed out"}]},
        {"writeErrors": [{"index": 0, "code": 11000}], "writeConcernErrors": [{"code": 64, "errmsg": "timed out"}]},
        {"writeErrors": [{"index": 0, "code": 11000}, {"index": 1, "code": 50}], "writeConcernErrors": []},
    ],
)
def test_a_batch_that_not_every_disk_has_is_concluded_nothing_of(
    archive: MongoArchive, monkeypatch: pytest.MonkeyPatch, details: dict[str, object]
) -> None:
    archive.insert([packet(1)])

    def fail(*_: object, **__: object) -> Never:
        raise BulkWriteError(details)

    monkeypatch.setattr(type(archive._packets), "insert_many", fail)
    with pytest.raises(UnavailableError):
        archive.insert([packet(1), packet(2)])


def test_a_double_that_is_not_on_the_majoritys_disks_yet_is_no_duplicate(
    archive: MongoArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Never:
        raise BulkWriteError({"writeErrors": [{"index": 0, "code": 11000}], "writeConcernErrors": []})

    archive.insert([packet(2)])
    monkeypatch.setattr(type(archive._packets), "insert_many", fail)
    with pytest.raises(UnavailableError, match="not on the majority's disks yet"):
        archive.insert([packet(1)])


def test_writes_wait_for_the_majoritys_journal_and_reads_see_nothing_less_whatever_the_uri_says(
    mongodb: Service,
) -> None:
    archive = MongoArchive(f"mongodb://{mongodb.address}/x?w=0&readConcernLevel=local&readPreference=nearest")
    for collection in (archive._packets, archive._conflicts, archive._dead_letters):
        assert collection.write_concern.document == {"w": "majority", "j": True, "wtimeout": 8000}
        assert collection.read_concern.level == "majority"
        assert collection.read_preference.mongos_mode == "primary"
    archive.close()


def test_the_indexes_are_those_that_the_queries_need(archive: MongoArchive) -> None:
    archive.insert([packet(1)])
    keys = [tuple(index["key"]) for index in archive._packets.list_indexes()]
    by_start = ("start_ms", "session")
    by_device = [("device", "account", *by_start), ("device", *by_start)]
    assert sorted(keys) == [("_id",), *by_device, ("feed", "received_ms")]


def test_a_document_says_its_start_to_people_too(archive: MongoArchive) -> None:
    archive.insert([packet(1_790_000_000_000)])
    (found,) = archive._packets.find({})
    assert found["start"].as_datetime().isoformat() == "2026-09-21T14:13:20"
    assert list(found) == [
        *("_id", "device", "session", "start", "start_ms", "account", "vehicle", "driver"),
        *("packet", "envelope", "plaintext_sha256", "received_ms", "feed"),
    ]


def test_a_reader_makes_nothing(mongodb: Service) -> None:
    reader = MongoArchiveReader(f"mongodb://{mongodb.address}/odograph_test_{uuid.uuid4().hex[:12]}")
    assert reader.latest("car1") is None
    assert reader._packets.database.name not in reader._client.list_database_names()
    assert not hasattr(reader, "insert")
    reader.close()


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("mongodb://127.0.0.1:1", "No default database"),
        ("mongodb://127.0.0.1:1/", "No default database"),
        ("mongodb://127.0.0.1:port/x", "Port"),
        ("mongodb:///x", "Empty host"),
    ],
)
def test_a_wrong_uri_is_one_line_with_the_form(uri: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=rf"not a MongoDB URI \(.*{fault}.*write mongodb://host:port/database"):
        MongoArchive(uri)


def test_of_a_wrong_uri_with_a_password_nothing_is_quoted() -> None:
    with pytest.raises(ConfigError, match=r"^not a MongoDB URI: write mongodb://host:port/database") as wrong:
        MongoArchive("mongodb://user:p@ss@h/x")
    assert "p@ss" not in str(wrong.value)
