"""A MongoDB that steps down, loses the connection or its answer: no receipt that the store does not bear out."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from components.cloud import mongo_archive
from components.cloud.judge import Arrival, Judge
from components.cloud.mongo_archive import MongoArchive
from components.cloud.persister import Persister
from components.wire import topics
from components.wire.errors import UnavailableError
from components.wire.receipt import digest
from tests.sealed import KID, Known, plain, sealed, server
from tests.services.mongo_wire import Fault, MongoWire
from tests.services.servers import Server
from tests.waiting import until

WHENEVER = 1_000


def refusal(code: int, name: str, **more: object) -> dict[str, object]:
    return {"ok": 0.0, "code": code, "codeName": name, "errmsg": name, **more}


def unsure(code: int, name: str, **more: object) -> dict[str, object]:
    return {
        "ok": 1.0,
        "n": 3,
        "nModified": 3,
        "writeConcernError": {"code": code, "codeName": name, "errmsg": name},
        **more,
    }


AGAIN = {"errorLabels": ["RetryableWriteError"]}
FAULTS = {
    "NotWritablePrimary": Fault("answer", refusal(10107, "NotWritablePrimary", **AGAIN)),
    "NotWritablePrimary of a server of old": Fault("answer", refusal(10107, "NotWritablePrimary")),
    "PrimarySteppedDown, taken": Fault("answer", refusal(189, "PrimarySteppedDown", **AGAIN), taken=True),
    "the majority did not answer": Fault("answer", unsure(64, "WriteConcernTimeout"), taken=True),
    "the majority did not answer, rolled back": Fault("answer", unsure(64, "WriteConcernTimeout")),
    "the primary went, taken": Fault("answer", unsure(91, "ShutdownInProgress", **AGAIN), taken=True),
    "Unauthorized": Fault("answer", refusal(13, "Unauthorized")),
    "disk full": Fault("answer", refusal(14031, "OutOfDiskSpace")),
    "reset": Fault("reset"),
    "reset, taken": Fault("reset", taken=True),
    "half an answer": Fault("half", taken=True),
    "no answer, taken": Fault("silence", taken=True),
}
OF_READS = ("PrimarySteppedDown, taken", "Unauthorized", "reset", "half an answer", "no answer, taken")


@pytest.fixture
def wire(own_mongodb: Server) -> Iterator[MongoWire]:
    with MongoWire(own_mongodb.port) as wire:
        yield wire


@pytest.fixture
def name() -> str:
    return f"odograph_test_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def archive(wire: MongoWire, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[MongoArchive]:
    """What meets the faults. It waits for no answer longer than it must: a busy machine may be slower than that."""
    with monkeypatch.context() as hurried:
        hurried.setattr(mongo_archive, "SELECT_MS", 500)
        hurried.setattr(mongo_archive, "SOCKET_MS", 400)
        archive = MongoArchive(f"mongodb://127.0.0.1:{wire.port}/{name}")
    yield archive
    archive.close()


@pytest.fixture
def truth(own_mongodb: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[MongoArchive]:
    """The same database without faults, and with all the time that a server may need."""
    with monkeypatch.context() as patient:
        patient.setattr(mongo_archive, "SELECT_MS", 60_000)
        patient.setattr(mongo_archive, "SOCKET_MS", 60_000)
        archive = MongoArchive(f"mongodb://127.0.0.1:{own_mongodb.port}/{name}")
    yield archive
    archive._client.drop_database(name)
    archive.close()


def meet(wire: MongoWire, command: str, fault: Fault, times: int, collection: str = "") -> None:
    """Let that command meet the fault, so many times."""
    left = [times]

    def met(name: str, document: dict[str, Any]) -> Fault | None:
        if name != command or collection not in {"", document[command]} or not left[0]:
            return None
        left[0] -= 1
        return fault

    wire.fault = met


@pytest.mark.parametrize(
    ("command", "fault", "times"),
    [
        *(("insert", one, 1) for one in FAULTS),
        *(("insert", one, WHENEVER) for one in ("NotWritablePrimary", "PrimarySteppedDown, taken", "no answer, taken")),
        *(("find", one, 1) for one in OF_READS),
        ("find", "reset, taken", WHENEVER),
        ("createIndexes", "NotWritablePrimary", 1),
    ],
)
def test_whatever_goes_wrong_between_driver_and_server_a_receipt_is_true_and_a_retry_is_no_conflict(
    wire: MongoWire, archive: MongoArchive, truth: MongoArchive, command: str, fault: str, times: int
) -> None:
    persister = Persister(Judge(lambda: {KID: server()}, lambda *_: Known()), archive)
    batch = [Arrival(topics.packet("car_one"), one, "car_one", 7) for one in (*map(nth, range(3)), b"junk")]
    if command == "find":
        truth.insert([persister.judge.judge(batch[1])])
    meet(wire, command, FAULTS[fault], times)
    for _ in range(2):
        stored = set()
        for _, receipt in persister.persist(batch).receipts:
            assert receipt.code in {None, "archive_away", "grammar"}
            if receipt.status in {"stored", "duplicate"}:
                stored.add(receipt.packet_id)
            elif receipt.status == "rejected":
                assert truth.counts()["dead_letters"] == 1
        assert stored <= {one.id for one in truth.minutes("car_one")}
    wire.fault = lambda _name, _document: None
    after = settled(persister, batch)
    assert {after[digest(one.envelope)] for one in batch[:3]} <= {"stored", "duplicate"}
    assert after[digest(b"junk")] == "rejected"
    assert truth.counts() == {"packets": 3, "pending": 3, "conflicts": 0, "dead_letters": 1}


def nth(n: int) -> bytes:
    return sealed(n=n)


def settled(persister: Persister, batch: list[Arrival]) -> dict[str, str]:
    """Send again what is to be sent again; return each envelope's status. A busy machine may be slow for the driver."""

    def found() -> dict[str, str]:
        every: dict[str, str] = {one.envelope_sha256: one.status for _, one in persister.persist(batch).receipts}
        return {} if "retry" in every.values() else every

    return until(found, "all is settled")


@pytest.mark.parametrize("fault", ["the majority did not answer", "reset, taken", "NotWritablePrimary"])
def test_what_is_not_surely_marked_as_fed_is_told_as_away_and_marked_when_it_is_back(
    wire: MongoWire, archive: MongoArchive, truth: MongoArchive, fault: str
) -> None:
    judge = Judge(lambda: {KID: server()}, lambda *_: Known())
    truth.insert([judge.judge(Arrival(topics.packet("car_one"), nth(n), "car_one", 7)) for n in range(2)])
    meet(wire, "update", FAULTS[fault], WHENEVER)
    with pytest.raises(UnavailableError):
        archive.mark_fed([plain(0).id])
    assert {plain(1).id} <= {one.id for one in truth.pending(8, 9)} <= {plain(0).id, plain(1).id}
    truth.mark_fed([plain(0).id])
    assert [one.id for one in truth.pending(8, 9)] == [plain(1).id]


def test_a_search_ends_at_the_server_before_its_asker_gives_up(own_mongodb: Server, name: str) -> None:
    judge = Judge(lambda: {KID: server()}, lambda *_: Known())
    packet = judge.judge(Arrival(topics.packet("car_one"), nth(0), "car_one", 7))
    found: dict[str, list[int]] = {}

    def note(command: str, document: dict[str, Any]) -> None:
        if command in {"find", "aggregate"}:
            found.setdefault(command, []).append(document.get("maxTimeMS", 0))

    with MongoWire(own_mongodb.port) as wire:
        wire.fault = note
        archive = MongoArchive(f"mongodb://127.0.0.1:{wire.port}/{name}")
        assert archive.insert([packet]) + archive.insert([packet]) == ["stored", "duplicate"]
        assert [one.id for one in archive.pending(8, 9)] == [packet.id]
        assert archive.latest("car_one") == packet
        assert archive.counts()["pending"] == 1
        archive._client.drop_database(name)
        archive.close()
    assert {command: len(bounds) for command, bounds in found.items()} == {"find": 3, "aggregate": 1}
    assert all(0 < bound < mongo_archive.SOCKET_MS for bounds in found.values() for bound in bounds)


def test_a_login_that_is_refused_is_away_and_no_word_of_the_password_is_told(wire: MongoWire, name: str) -> None:
    meet(wire, "saslStart", Fault("answer", refusal(18, "AuthenticationFailed")), WHENEVER)
    archive = MongoArchive(f"mongodb://someone:quite-secret@127.0.0.1:{wire.port}/{name}?authSource=admin")

    def refused() -> bool:
        with pytest.raises(UnavailableError) as away:
            archive.pending(8, 9)
        assert "secret" not in str(away.value)
        return "AuthenticationFailed" in str(away.value)

    until(refused)
    archive.close()


def test_a_document_that_another_hand_has_changed_hides_no_other(truth: MongoArchive) -> None:
    judge = Judge(lambda: {KID: server()}, lambda *_: Known())
    packets = [judge.judge(Arrival(topics.packet("car_one"), nth(n), "car_one", 7)) for n in range(7)]
    truth.insert(packets)
    changes: list[dict[str, Any]] = [
        {"$set": {"packet": "{"}},
        {"$set": {"packet": "[" * 100_000}},
        {"$set": {"packet": [1]}},
        {"$unset": {"packet": 1}},
        {"$unset": {"session": 1, "plaintext_sha256": 1, "envelope": 1}},
    ]
    for packet, change in zip(packets, changes, strict=False):
        truth._packets.update_one({"_id": packet.id}, change)
    found = {one.id: one for one in truth.pending(8, 9)}
    assert [found[one.id].packet for one in packets[:4]] == [{}] * 4
    assert [found[one.id] for one in packets[5:]] == packets[5:]
    assert len(list(truth.minutes("car_one"))) == 7
