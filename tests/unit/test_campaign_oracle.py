"""The campaign's oracle: it can say no."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cbor2
import pytest
from pymongo.errors import PyMongoError

from tests.campaign.oracle import Oracle
from tests.campaign.spools import Sealed, Spool

SESSION = "00f1e2d3c4b5a697"
START_MS = 1_795_255_500_000
PACKET = f"car_01/{SESSION}/20261121T100500Z"


class Collections(dict[str, Any]):
    """A database of dictionaries; `away` answers nothing."""

    away = False

    def __missing__(self, name: str) -> Any:  # noqa: ANN401 - as the driver's
        database = self

        class Collection(dict[str, Any]):
            def find_one(self, wanted: dict[str, str], _fields: object = None) -> Any:  # noqa: ANN401
                if database.away:
                    raise PyMongoError
                return self.get(wanted["_id"])

            def find(self, _wanted: object, _fields: object = None) -> list[Any]:
                return list(self.values())

            def count_documents(self, _wanted: object) -> int:
                return len(self)

        self[name] = Collection()
        return self[name]


def receipt_frame(status: str = "stored") -> bytes:
    """Return what a persister writes: greeting, then one frame with a receipt."""
    receipts = {"receipts": [{"packet": PACKET, "envelope": "e" * 64, "status": status}]}
    signed = cbor2.dumps([json.dumps(receipts).encode(), bytes(64)])
    message = cbor2.dumps([16, 1, {}, "odograph.receipt.car_01", [signed]])
    return b"\x7f\xf0\0\0" + b"\0" + len(message).to_bytes(3, "big") + message


@pytest.fixture
def oracle() -> Oracle:
    found = Oracle()
    found._database = found._passing = Collections()
    return found


@pytest.mark.parametrize("status", ["stored", "duplicate", "rejected"])
def test_a_receipt_without_a_document_is_a_violation(oracle: Oracle, status: str) -> None:
    oracle.watch("persister_a")("up", receipt_frame(status))
    assert len(oracle.violations) == 1
    assert "without a durable document" in oracle.violations[0]


def test_a_receipt_with_its_document_is_none_and_nor_is_a_retry(oracle: Oracle) -> None:
    oracle._database["packets"][PACKET] = {"received_ms": 1}
    see = oracle.watch("persister_a")
    frame = receipt_frame()
    for place in range(len(frame)):
        see("up", frame[place : place + 1])
    oracle.watch("persister_b")("up", receipt_frame("retry"))
    assert oracle.violations == []
    assert oracle.counts["receipts checked as they passed"] == 1


@pytest.mark.parametrize(("received_ms", "violations"), [(1, 0), (2**60, 1)])
def test_what_could_not_be_asked_when_it_passed_is_asked_later(
    oracle: Oracle, received_ms: int, violations: int
) -> None:
    oracle._database.away = True
    oracle.watch("persister_a")("up", receipt_frame())
    assert oracle.violations == []
    oracle._database.away = False
    oracle._database["packets"][PACKET] = {"received_ms": received_ms}
    (seen,) = oracle._unsure
    oracle._check(seen, late=True)
    assert len(oracle.violations) == violations


def stored(**different: object) -> dict[str, Any]:
    packet = {"readings": {"at": [0, 1000, 1000]}, "gaps": [], "dtcs": []}
    return {"_id": PACKET, "envelope": b"sealed", "received_ms": 1, "packet": packet | different}


def verified(oracle: Oracle, document: dict[str, Any] | None, recorded_ms: list[int]) -> list[str]:
    spool = Spool("car_01", Path())
    spool.times[SESSION] += [START_MS + at for at in recorded_ms]
    one = Sealed(PACKET, "car_01", {hashlib.sha256(b"sealed").hexdigest()}, "receipted")
    if document is not None:
        oracle._database["packets"][PACKET] = document
    oracle._verify(spool, one)
    return oracle.violations


def test_a_packet_stored_as_it_was_sealed_and_recorded_is_right(oracle: Oracle) -> None:
    assert verified(oracle, stored(), [0, 1000, 2000]) == []


@pytest.mark.parametrize(
    ("document", "recorded_ms", "words"),
    [
        (None, [0, 1000, 2000], "lost"),
        (stored() | {"envelope": b"other"}, [0, 1000, 2000], "not what the edge sealed"),
        (stored(), [0, 1000, 2000, 3000], "recorded at"),
        (stored(readings={"at": [0, 3000]}), [0, 3000], "it declares only"),
        (stored(), [0, 1000, 2000, 6000], "it declares only"),
        # Neither of the two parts is a hole by itself.
        (stored(readings={"at": [0, 2000, 2000]}), [0, 2000, 4000, 6600], "it declares only"),
    ],
)
def test_a_packet_that_is_lost_changed_or_silent_about_a_hole_is_a_violation(
    oracle: Oracle, document: dict[str, Any] | None, recorded_ms: list[int], words: str
) -> None:
    (violation,) = verified(oracle, document, recorded_ms)
    assert words in violation


def test_a_declared_hole_is_none(oracle: Oracle) -> None:
    gap = {"from": "2026-11-21T10:05:00.000Z", "to": "2026-11-21T10:05:03.000Z", "reason": "late"}
    assert verified(oracle, stored(readings={"at": [0, 3000]}, gaps=[gap]), [0, 3000]) == []


def test_an_event_that_comes_again_with_another_content_is_a_violation(oracle: Oracle) -> None:
    oracle._hear("a/r0", "1")
    oracle._hear("a/r0", "1")
    assert (oracle.violations, oracle.counts["events fed again"]) == ([], 1)
    oracle._hear("a/r0", "2")
    assert len(oracle.violations) == 1


class Card:
    """A spool directory with the two files as an edge writes them, as far as the oracle reads them."""

    def __init__(self, directory: Path) -> None:
        self.spool = Spool("car_01", directory, was_full=True)
        self.outbox = sqlite3.connect(directory / "outbox.db", isolation_level=None)
        self.outbox.executescript(
            "PRAGMA synchronous = OFF;"
            "CREATE TABLE meta (epoch TEXT); INSERT INTO meta VALUES ('e');"
            "CREATE TABLE packets (id TEXT PRIMARY KEY, envelope BLOB, sha256 TEXT, state TEXT)"
        )
        self.readings = sqlite3.connect(directory / "readings.db", isolation_level=None)
        self.readings.executescript(
            "PRAGMA synchronous = OFF;"
            "CREATE TABLE rows (seq INTEGER PRIMARY KEY, session TEXT, kind TEXT, at_ms INTEGER);"
            "CREATE TABLE floor (seq INTEGER); INSERT INTO floor VALUES (0)"
        )

    def packet(self, state: str) -> None:
        """Keep PACKET."""
        row = (PACKET, b"sealed", "a", state)
        self.outbox.execute("INSERT INTO packets (id, envelope, sha256, state) VALUES (?, ?, ?, ?)", row)

    def record(self, kind: str, at_ms: int = START_MS) -> None:
        """Write a row."""
        self.readings.execute("INSERT INTO rows (session, kind, at_ms) VALUES (?, ?, ?)", (SESSION, kind, at_ms))

    def forget(self, rows: str, floor: int) -> None:
        """Let go of rows."""
        self.readings.execute("UPDATE floor SET seq = ?", (floor,))
        self.readings.execute(f"DELETE FROM rows WHERE {rows}")  # noqa: S608 - a test's own


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Card]:
    made = Card(tmp_path)
    with closing(made.outbox), closing(made.readings):
        yield made


LOST = {
    "session": SESSION,
    "from": "2026-11-21T10:05:00.000Z",
    "to": "2026-11-21T10:05:05.000Z",
    "what": "packets",
    "count": 1,
    "reason": "card_full",
}


def declaring(**different: object) -> dict[str, Any]:
    """Return a later packet of the same car, which says what is lost."""
    return {"_id": f"car_01/{SESSION}/20261121T101000Z", "packet": {"lost": [LOST | different]}}


def owed(oracle: Oracle, card: Card, state: str) -> bool:
    """Let the card forget PACKET, and return whether the oracle wants to hear more of it."""
    oracle.spools = {"car_01": card.spool}
    card.packet(state)
    card.spool.look()
    card.outbox.execute("DELETE FROM packets")
    return bool(oracle.owed())


@pytest.mark.parametrize(
    ("state", "different"),
    [
        ("waiting", None),
        ("waiting", {"what": "readings"}),
        ("waiting", {"session": "0" * 16}),
        ("waiting", {"session": None}),
        ("waiting", {"from": "2026-11-21T10:05:00.001Z"}),
        ("waiting", {"to": "2026-11-21T10:05:04.999Z"}),
        ("waiting", {"reason": "rejected"}),
        ("waiting", {"reason": "corrupt"}),
        ("rejected", None),
        ("rejected", {"reason": "card_full"}),
    ],
)
def test_a_packet_forgotten_without_a_receipt_is_owed_until_a_stored_packet_declares_it(
    oracle: Oracle, card: Card, state: str, different: dict[str, object] | None
) -> None:
    if different is not None:
        oracle._learn(declaring(**different))
    assert owed(oracle, card, state)
    oracle._learn(declaring(reason="rejected" if state == "rejected" else "card_full"))
    assert not oracle.owed()
    assert card.spool.sealed[PACKET].declared


def test_receipts_are_waited_for_as_long_as_they_come(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.campaign.oracle.LIVE_S", 0.0)
    owed = iter([{"a", "b", "c"}, {"a", "b"}, {"a", "x"}, {"x"}])
    monkeypatch.setattr(oracle, "owed", lambda: next(owed))
    oracle._until_receipted({"a", "b", "c"})
    assert oracle.violations == []


def test_a_receipt_that_does_not_come_is_a_violation(
    oracle: Oracle, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.campaign.oracle.LIVE_S", 0.0)
    oracle.spools = {"car_01": card.spool}
    card.packet("waiting")
    oracle._until_receipted({PACKET})
    (violation,) = oracle.violations
    assert "waits" in violation


def test_what_another_car_declares_explains_nothing(oracle: Oracle, card: Card) -> None:
    oracle._learn(declaring() | {"_id": "car_02/x"})
    assert owed(oracle, card, "waiting")


def test_a_packet_whose_receipt_passed_before_it_was_forgotten_must_be_in_the_archive(
    oracle: Oracle, card: Card
) -> None:
    oracle._promised.add(hashlib.sha256(b"sealed").hexdigest())
    assert not owed(oracle, card, "waiting")
    oracle._count_packets()
    (violation,) = oracle.violations
    assert "is not stored" in violation


def test_a_packet_whose_receipt_the_car_did_not_hear_may_be_declared_lost_all_the_same(
    oracle: Oracle, card: Card
) -> None:
    oracle._promised.add(RIGHT)
    oracle._database["packets"][PACKET] = stored(readings={"at": [0]})
    card.record("reading")
    assert not owed(oracle, card, "waiting")
    oracle._learn(declaring())
    assert not oracle.owed()
    oracle._count_stores()
    assert oracle.violations == []
    assert oracle.counts["declared lost, and stored all the same"] == 1


def test_a_receipted_packet_that_is_forgotten_and_then_gone_from_the_archive_is_a_violation(
    oracle: Oracle, card: Card
) -> None:
    oracle._database["packets"][PACKET] = stored(readings={"at": [0]})
    card.record("reading")
    assert not owed(oracle, card, "receipted")
    oracle._count_packets()
    oracle._count_stores()
    assert oracle.violations == []
    assert oracle.counts["forgotten after their receipt"] == 1
    del oracle._database["packets"][PACKET]
    oracle._count_stores()
    assert oracle.violations == [f"lost: {PACKET}"]


def test_a_packet_declared_lost_is_counted_and_what_is_declared_and_there_is_a_violation(
    oracle: Oracle, card: Card
) -> None:
    oracle._learn(declaring())
    oracle._learn(declaring())
    assert not owed(oracle, card, "waiting")
    oracle._weigh(card.spool)
    assert oracle.violations == []
    oracle._learn(declaring(count=2))
    oracle._weigh(card.spool)
    (violation,) = oracle.violations
    assert "1 of its packets are gone" in violation


def test_a_card_with_room_forgets_nothing(oracle: Oracle, card: Card) -> None:
    card.spool.was_full = False
    oracle._database["packets"][PACKET] = stored(readings={"at": [0]})
    card.record("reading")
    card.spool.look()
    card.forget("seq = 1", floor=2)
    assert not owed(oracle, card, "receipted")
    row, packet = oracle.violations
    assert "the card has room" in row
    assert "from a card with room" in packet


@pytest.mark.parametrize(
    ("kinds", "gone", "floor", "words"),
    [
        (["session", "reading", "reading"], "seq = 2", 3, None),
        (["session", "reading", "lost"], "true", 4, None),
        (["session", "reading", "reading"], "seq = 2", 2, "all from 2 on is there"),
        (["audit", "reading", "reading"], "seq <= 2", 3, "the audit trail stays"),
        (["session", "reading", "reading"], "seq <= 2", 3, "has readings still"),
    ],
)
def test_rows_of_a_full_card_go_in_order_and_what_tells_of_them_with_the_last(
    card: Card, kinds: list[str], gone: str, floor: int, words: str | None
) -> None:
    card.packet("waiting")
    for kind in kinds:
        card.record(kind)
    assert card.spool.look()
    card.forget(gone, floor)
    assert card.spool.look()
    assert [words in one for one in card.spool.vanished if words] == ([True] if words else [])
    assert len(card.spool.times[SESSION]) == kinds.count("reading")


def test_a_packet_that_is_sealed_again_in_its_place_may_be_stored_as_either(card: Card) -> None:
    card.packet("waiting")
    assert card.spool.look()
    card.outbox.execute("UPDATE packets SET envelope = x'00', sha256 = 'b'")
    assert card.spool.look()
    assert len(card.spool.sealed[PACKET].hashes) == 2


def test_a_reading_that_goes_before_its_packet_is_made_is_a_violation(card: Card) -> None:
    card.packet("waiting")
    card.record("reading", START_MS + 5_000)
    assert card.spool.look()
    card.forget("true", floor=2)
    assert card.spool.look()
    (violation,) = card.spool.vanished
    assert "of which no packet is made" in violation


def test_a_reading_that_is_gone_stays_noted_while_the_outbox_cannot_be_read(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    card.record("reading")
    assert card.spool.look()
    card.forget("true", floor=2)
    looks = iter([None, sqlite3.OperationalError("busy"), None, None])

    def look() -> None:
        if (error := next(looks)) is not None:
            raise error

    monkeypatch.setattr(card.spool, "_look_at_outbox", look)
    assert not card.spool.look()
    assert card.spool.vanished == []
    assert card.spool.look()
    assert len(card.spool.vanished) == 1


def test_readings_of_a_session_that_are_not_one_after_the_other_are_a_violation(card: Card) -> None:
    for at_ms in (START_MS, START_MS + 1000, START_MS + 1000):
        card.record("reading", at_ms)
    assert card.spool.look()
    assert len(card.spool.disorder) == 1


def test_what_is_taken_from_a_device_that_is_shut_out_is_a_violation(oracle: Oracle) -> None:
    oracle.spools = {"car_01": Spool("car_01", Path(), sealed={PACKET: Sealed(PACKET, "car_01", state="receipted")})}
    oracle._database["packets"][PACKET] = {"_id": PACKET, "received_ms": 1500}
    oracle.shut_out += [("car_01", 1600, 2000), ("car_02", 1000, 2000)]
    oracle._count_stores()
    assert oracle.violations == []
    oracle.shut_out.append(("car_01", 1000, 2000))
    oracle._count_stores()
    (violation,) = oracle.violations
    assert "shut out" in violation


BROKEN = hashlib.sha256(b"broken").hexdigest()
RIGHT = hashlib.sha256(b"sealed").hexdigest()


@pytest.mark.parametrize(
    ("state", "hashes", "letter", "is_stored", "violations"),
    [
        ("rejected", {BROKEN}, b"broken", False, 0),
        ("receipted", {BROKEN, RIGHT}, b"broken", True, 0),
        ("receipted", {BROKEN}, b"broken", True, 1),
        ("receipted", {BROKEN, RIGHT}, b"broken", False, 1),
        ("waiting", {BROKEN}, b"broken", False, 1),
        ("rejected", {BROKEN}, b"other", False, 1),
        ("rejected", {BROKEN}, None, False, 2),
        ("rejected", {RIGHT}, b"broken", False, 2),
    ],
)
def test_a_dead_letter_is_of_a_packet_that_was_refused_and_a_refused_one_has_its_letter(
    oracle: Oracle, state: str, hashes: set[str], letter: bytes | None, is_stored: bool, violations: int
) -> None:
    oracle.broken_seals = 1
    letters = {} if letter is None else {BROKEN: {"envelope": letter}}
    one = Sealed(PACKET, "car_01", hashes, state)
    oracle._count_dead_letters(letters, {PACKET: one}, {PACKET: 1} if is_stored else {})
    assert len(oracle.violations) == violations
