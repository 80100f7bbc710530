"""What every Archive promises, asked of each: the fake, SQLite, and MongoDB's protocol."""

import dataclasses
import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pymongo
import pytest

from components.cloud import ports
from components.cloud.events import events
from components.cloud.mongo_archive import MongoArchive
from components.cloud.ports import Archive, DeadLetter, StoredPacket
from components.cloud.sqlite_archive import SqliteArchive
from tests.fake_stores import MemoryArchive

MINUTE_MS = 60_000
T0_MS = 1_790_000_000_000

Open = Callable[[], Archive]


def packet(minute: int, *, device: str = "car1", session: str = "00000000000000aa", **fields: object) -> StoredPacket:
    content = {"id": f"{device}/{session}/{minute}", "readings": {"speed": [minute, None, 3.5]}, **fields}
    plaintext = json.dumps(content).encode()
    return StoredPacket(
        id=f"{device}/{session}/{minute}",
        device=device,
        session=session,
        start_ms=T0_MS + minute * MINUTE_MS,
        account="acme",
        vehicle="van 7",
        driver="",
        packet=content,
        envelope=b"\x00sealed\xff" + plaintext,
        plaintext_sha256=hashlib.sha256(plaintext).hexdigest(),
        received_ms=T0_MS + minute * MINUTE_MS + 500,
    )


def letter(number: int, message: str = "bad tag") -> DeadLetter:
    return DeadLetter(f"{number:064x}", "odograph.packet.00.car1", "gcm", message, b"\x00\xff", T0_MS + number)


@pytest.fixture(params=["memory", "sqlite", "mongodb"])
def open_archive(request: pytest.FixtureRequest, tmp_path: Path, patient_drivers: None) -> Iterator[Open]:
    """Open the test's own archive; opening it again, after a close, finds what it holds."""
    del patient_drivers
    opened: list[Archive] = []
    make: Open
    if request.param == "memory":
        memory = MemoryArchive()
        make = lambda: memory  # noqa: E731 (three of a kind)
    elif request.param == "sqlite":
        make = lambda: SqliteArchive(tmp_path / "archive.db")  # noqa: E731
    else:
        uri = f"mongodb://{request.getfixturevalue('mongodb').address}/odograph_test_{uuid.uuid4().hex[:12]}"
        make = lambda: MongoArchive(uri)  # noqa: E731

    def open_() -> Archive:
        opened.append(make())
        return opened[-1]

    yield open_
    for archive in opened:
        archive.close()
    if request.param == "mongodb":
        with pymongo.MongoClient[dict[str, object]](uri) as client:
            client.drop_database(client.get_default_database().name)


@pytest.fixture
def archive(open_archive: Open) -> Archive:
    return open_archive()


def test_a_new_packet_is_stored_and_comes_back_as_it_was(archive: Archive) -> None:
    assert archive.insert([packet(1)]) == ["stored"]
    assert list(archive.minutes("car1")) == [packet(1)]


def test_the_same_packet_again_is_a_duplicate_and_kept_once(archive: Archive) -> None:
    archive.insert([packet(1)])
    resealed = dataclasses.replace(packet(1), envelope=b"sealed again", received_ms=T0_MS * 2)
    assert archive.insert([resealed]) == ["duplicate"]
    assert list(archive.minutes("car1")) == [packet(1)]


def test_another_packet_of_the_same_id_is_a_conflict_and_the_first_stays(archive: Archive) -> None:
    archive.insert([packet(1)])
    assert archive.insert([packet(1, forged=True)]) == ["conflict"]
    assert list(archive.minutes("car1")) == [packet(1)]
    assert archive.counts()["conflicts"] == 1


def test_the_same_conflict_again_is_kept_once_and_another_one_beside_it(archive: Archive) -> None:
    archive.insert([packet(1)])
    archive.insert([packet(1, forged=1)])
    assert archive.insert([packet(1, forged=1), packet(1, forged=2), packet(1)]) == [
        "conflict",
        "conflict",
        "duplicate",
    ]
    assert archive.counts() == {"packets": 1, "pending": 1, "conflicts": 2, "dead_letters": 0}


def test_a_mixed_batch_has_one_outcome_a_packet_in_order(archive: Archive) -> None:
    archive.insert([packet(1), packet(2)])
    batch = [packet(3), packet(1), packet(2, forged=True), packet(4), packet(2)]
    assert archive.insert(batch) == ["stored", "duplicate", "conflict", "stored", "duplicate"]
    assert [x.id for x in archive.minutes("car1")] == [packet(n).id for n in (1, 2, 3, 4)]


def test_an_id_that_comes_twice_in_one_batch_is_judged_as_if_in_two(archive: Archive) -> None:
    batch = [packet(1), packet(1), packet(1, forged=True), packet(2), packet(1)]
    assert archive.insert(batch) == ["stored", "duplicate", "conflict", "stored", "duplicate"]
    assert list(archive.minutes("car1")) == [packet(1), packet(2)]
    assert archive.counts()["conflicts"] == 1


def test_an_empty_batch_is_nothing(archive: Archive) -> None:
    assert archive.insert([]) == []
    archive.put_dead_letters([])
    archive.mark_fed([])
    assert archive.counts() == {"packets": 0, "pending": 0, "conflicts": 0, "dead_letters": 0}


def test_everything_is_there_after_closing_and_opening_again(open_archive: Open) -> None:
    archive = open_archive()
    archive.insert([packet(1), packet(2), packet(1, forged=True)])
    archive.put_dead_letters([letter(1)])
    archive.mark_fed([packet(1).id])
    archive.close()
    archive = open_archive()
    assert archive.counts() == {"packets": 2, "pending": 1, "conflicts": 1, "dead_letters": 1}
    assert archive.insert([packet(1), packet(3)]) == ["duplicate", "stored"]
    assert list(archive.minutes("car1")) == [packet(1), packet(2), packet(3)]


def test_pending_is_what_was_received_before_then_and_not_fed_oldest_first(archive: Archive) -> None:
    archive.insert([packet(3), packet(1), packet(2), packet(4)])
    archive.mark_fed([packet(2).id])
    assert archive.pending(packet(4).received_ms, 10) == [packet(1), packet(3)]
    assert archive.pending(packet(4).received_ms + 1, 2) == [packet(1), packet(3)]
    assert archive.counts()["pending"] == 3


def test_of_what_is_pending_what_the_asker_passes_over_takes_no_room(archive: Archive) -> None:
    archive.insert([packet(n) for n in range(5)])
    assert archive.pending(2 * T0_MS, 2, {packet(0).id, packet(2).id, "nobody/0/0"}) == [packet(1), packet(3)]
    strangers = {packet(n).id for n in range(100, 2_000)}
    assert archive.pending(2 * T0_MS, 9, strangers | {packet(0).id}) == [packet(n) for n in range(1, 5)]


def test_what_is_pending_comes_in_pieces_that_fit_into_memory(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "MAX_WEIGHT", 50)
    many = [packet(n, dtcs=[{}] * 10, gaps=[{}] * 10) for n in range(4)]
    archive.insert(many)
    assert archive.pending(2 * T0_MS, 10) == many[:2]
    assert archive.pending(2 * T0_MS, 10, [one.id for one in many[:2]]) == many[2:]
    huge = packet(9, dtcs=[{}] * 60)
    archive.insert([huge])
    assert archive.pending(2 * T0_MS, 10, [one.id for one in many]) == [huge]


def test_one_stores_while_another_feeds(archive: Archive) -> None:
    batches = [[packet(10 * n + each) for each in range(10)] for n in range(20)]
    faults: list[Exception] = []

    def store() -> None:
        try:
            for batch in batches:
                assert archive.insert(batch) == ["stored"] * 10
                archive.put_dead_letters([letter(batch[0].start_ms)])
        except Exception as error:  # noqa: BLE001 - told by the test's own thread
            faults.append(error)

    storing = threading.Thread(target=store)
    storing.start()
    fed = 0
    while fed < 200 and not faults:
        found = archive.pending(2 * T0_MS, 64)
        archive.mark_fed([one.id for one in found])
        fed += len(found)
    storing.join()
    assert faults == []
    assert archive.counts() == {"packets": 200, "pending": 0, "conflicts": 0, "dead_letters": 20}


def test_what_is_read_back_can_be_announced_to_the_last_number(archive: Archive) -> None:
    # With the MIL on, `dtc_status` is beyond 2^31; a store may hand such numbers back in a type of its own.
    golden = json.loads((Path(__file__).parents[2] / "schemas/examples/packet.v1.json").read_bytes())
    # FerretDB gives -0.0 back as 0.0; its `climb` has one too.
    golden["readings"]["columns"]["temp"] = {"v": [5.0, -0.0, 1e-300]}
    golden["summary"]["speed"]["min"] = -0.0
    stored = dataclasses.replace(packet(0), packet=golden)
    archive.insert([stored])
    (found,) = archive.pending(2**53, 10)
    assert list(events(found)) == list(events(stored))
    assert not any(b"-0.0" in one.data for one in events(stored))


def test_marking_as_fed_is_idempotent_and_ignores_strangers(archive: Archive) -> None:
    archive.insert([packet(1), packet(2)])
    for _ in range(2):
        archive.mark_fed([packet(1).id, "nobody/0/0"])
    assert archive.pending(2 * T0_MS, 10) == [packet(2)]
    assert list(archive.minutes("car1")) == [packet(1), packet(2)]


def test_a_duplicate_of_a_packet_that_was_fed_is_not_fed_again(archive: Archive) -> None:
    archive.insert([packet(1)])
    archive.mark_fed([packet(1).id])
    archive.insert([packet(1)])
    assert archive.pending(2 * T0_MS, 10) == []


def test_minutes_come_by_start_then_session_with_since_in_and_until_out(archive: Archive) -> None:
    early, late = packet(5, session="00000000000000aa"), packet(5, session="00000000000000bb")
    archive.insert([packet(9), late, packet(1), early, packet(6, device="car2"), packet(7)])
    assert list(archive.minutes("car1")) == [packet(1), early, late, packet(7), packet(9)]
    assert list(archive.minutes("car1", early.start_ms, packet(9).start_ms)) == [early, late, packet(7)]
    assert list(archive.minutes("car1", since_ms=packet(7).start_ms + 1)) == [packet(9)]
    assert list(archive.minutes("car1", until_ms=packet(1).start_ms)) == []
    assert list(archive.minutes("nobody")) == []


def test_of_an_account_come_what_was_stored_while_the_device_was_of_it_and_nothing_else(archive: Archive) -> None:
    mine = [dataclasses.replace(packet(n), account="acme") for n in (2, 5, 6)]
    others = [dataclasses.replace(packet(n), account="other") for n in (1, 4, 9)]
    archive.insert([*others, *mine, dataclasses.replace(packet(3, device="car2"), account="acme")])
    assert list(archive.minutes("car1", account="acme")) == mine
    assert list(archive.minutes("car1", mine[1].start_ms, mine[2].start_ms, "acme")) == [mine[1]]
    assert archive.latest("car1", "acme") == mine[2]
    assert list(archive.minutes("car1", account="")) == []
    assert archive.latest("car1", "") is None
    assert len(list(archive.minutes("car1"))) == 6


def test_more_minutes_than_one_page_come_once_each_in_order(archive: Archive) -> None:
    many = [packet(n // 2, session=f"{n % 2:016x}") for n in range(900)]
    assert archive.insert(many[::-1]) == ["stored"] * 900
    assert [x.id for x in archive.minutes("car1")] == [x.id for x in many]


def test_the_latest_packet_of_a_device_is_the_one_with_the_greatest_start(archive: Archive) -> None:
    archive.insert([packet(2), packet(7), packet(3), packet(9, device="car2")])
    assert archive.latest("car1") == packet(7)
    assert archive.latest("nobody") is None


def test_a_dead_letter_is_kept_once_and_as_it_first_came(archive: Archive) -> None:
    archive.put_dead_letters([letter(1), letter(2)])
    archive.put_dead_letters([letter(1, "said otherwise"), letter(3), letter(3)])
    assert archive.counts() == {"packets": 0, "pending": 0, "conflicts": 0, "dead_letters": 3}


def test_a_packet_of_the_greatest_size_and_in_any_script_comes_back(archive: Archive) -> None:
    big = packet(
        1, driver_note="Zoë \u0416 \U0001f697 \u2028 $set a.b", blob="x" * 1_000_000, numbers=[1e-7, -0.5, 2**53]
    )
    big = dataclasses.replace(big, envelope=bytes(range(256)) * 1024, account="Ærø", driver="李")
    assert archive.insert([big]) == ["stored"]
    assert archive.latest("car1") == big
    assert archive.pending(2 * T0_MS, 1) == [big]


def test_a_packet_of_what_only_json_can_hold_comes_back_and_does_not_hold_up_its_batch(archive: Archive) -> None:
    odd = [packet(2, half="\ud83d"), packet(3, huge=10**30), packet(4, names={"a\0b": 1, "": {}})]
    assert archive.insert([packet(1), *odd, packet(5)]) == ["stored"] * 5
    assert archive.insert(odd) == ["duplicate"] * 3
    assert list(archive.minutes("car1")) == [packet(1), *odd, packet(5)]


def test_ids_are_never_patterns(archive: Archive) -> None:
    archive.insert([packet(1, device="car%"), packet(1, device="car_"), packet(1, device="car.*")])
    assert [x.device for x in archive.minutes("car%")] == ["car%"]
    assert archive.latest("car") is None


def test_closing_twice_is_harmless(archive: Archive) -> None:
    archive.close()
    archive.close()
