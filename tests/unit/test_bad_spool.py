"""Spools that no odograph left like that: what stands there is set aside or passed over, and told; the rest goes on."""

import json
import os
import socket
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Final

import pytest

from components.edge import compactor as compactor_module
from components.edge import sqlite_spool
from components.edge.compactor import Compactor
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.sqlite_readings import ReadingsReader, ReadingsWriter
from components.edge.sqlite_spool import SpoolFaultError
from components.edge.trust import SealingKey
from components.wire import envelope
from components.wire.packet import Lost, parse, read
from components.wire.suites import RSA_SUITE
from tests.edge_parts import (
    ONE,
    T0,
    TWO,
    compactor,
    drive,
    packets,
    reading_row,
    sealer,
    server_private_key,
    server_rsa,
    session_row,
)

MINUTE: Final = 60_000
Harm = Callable[[Path], object]


class Road:
    """A spool in which there is a drive of two minutes and a half, or will be; two minutes of it are packed."""

    def __init__(self, directory: Path, now_ms: int = T0 + 150_000) -> None:
        self.directory = directory
        self.writer = ReadingsWriter(directory / "readings.db")
        self.reader = ReadingsReader(directory / "readings.db")
        self.outbox = SqliteOutbox(directory / "outbox.db")
        self.follow(now_ms)

    def follow(self, now_ms: int = T0 + 150_000) -> None:
        file_id = self.reader.file_id
        last_row, bare, floor = self.writer.last_row(file_id), self.writer.bare(), self.writer.floor()
        self.outbox.follow(file_id, last_row, ONE, now_ms, bare, floor)

    def close(self) -> None:
        for file in (self.reader, self.writer, self.outbox):
            file.close()

    @property
    def compactor(self) -> Compactor:
        return compactor(self.reader, self.outbox)

    def lost(self) -> list[Lost]:
        return list(self.outbox.undeclared().values())

    def readings(self) -> dict[str, int]:
        """How many readings are in each packet, by the start of its minute."""
        found = [read(parse(text)) for text in packets(self.outbox).values()]
        return {f"{one.session[0]}+{(one.start_ms - T0) // MINUTE}": len(one.readings or ()) for one in found}


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("driven")
    road = Road(directory, T0)
    drive(road.writer, ONE, T0, 150)
    road.compactor.compact()
    road.close()
    return directory


@pytest.fixture
def spool(driven: Path, tmp_path: Path) -> Path:
    return copytree(driven, tmp_path / "spool")


@pytest.fixture
def road(spool: Path) -> Road:
    return Road(spool)


def sql(*statements: str) -> Harm:
    def harm(path: Path) -> None:
        db = sqlite3.connect(path, isolation_level=None)
        for statement in statements:
            db.execute(statement)
        db.close()

    return harm


def instead(make: Harm) -> Harm:
    def harm(path: Path) -> None:
        for beside in path.parent.glob(f"{path.name}*"):
            beside.unlink()
        make(path)

    return harm


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(path.parent)  # its name may have 100 bytes only
        one.bind(path.name)
        os.chdir(here)


STRANGERS: Final[dict[str, Harm]] = {
    "a directory": instead(Path.mkdir),
    "a pipe": instead(os.mkfifo),
    "a socket": instead(socket_at),
    "a link to nothing": instead(lambda path: path.symlink_to("/nowhere/at/all")),
    "a link to itself": instead(lambda path: path.symlink_to(path)),
    "a link to zeros": instead(lambda path: path.symlink_to("/dev/zero")),
    "a link to a full disk": instead(lambda path: path.symlink_to("/dev/full")),
    "a text": instead(lambda path: path.write_text("hello\n" * 1000)),
    "half a page": lambda path: os.truncate(path, 1000),
    "another program's": instead(sql("CREATE TABLE moz_places (id, url)")),
    "another program's of our version": instead(sql("CREATE TABLE moz_places (id, url)", "PRAGMA user_version = 2")),
    "another program's of version 1": instead(sql("CREATE TABLE moz_places (id, url)", "PRAGMA user_version = 1")),
    "nothing, of our version": instead(sql("PRAGMA user_version = 2")),
    "a later version": sql("PRAGMA user_version = 3"),
    "a version below zero": sql("PRAGMA user_version = -1"),
    "no version": sql("PRAGMA user_version = 0"),
    "a version that it is not": sql("PRAGMA user_version = 1"),
    "a view": sql("CREATE VIEW mine AS SELECT 1"),
    "a log that is a directory": lambda path: path.with_name(f"{path.name}-wal").mkdir(),
    "a log that is a link to nothing": lambda path: path.with_name(f"{path.name}-wal").symlink_to("/nowhere/at/all"),
}  # fmt: skip
READINGS: Final[dict[str, Harm]] = {
    "a trigger": sql("CREATE TRIGGER mine BEFORE INSERT ON rows BEGIN SELECT raise(IGNORE); END"),
    "no rows": sql("DROP TABLE rows"),
    "no floor": sql("DROP TABLE floor"),
    "a column less": sql("ALTER TABLE rows DROP COLUMN crc"),
    "a column more": sql("ALTER TABLE rows ADD COLUMN more TEXT"),
    "a floor that is a word": sql(
        "DROP TABLE floor", "CREATE TABLE floor (seq TEXT, bare_ms INTEGER) STRICT", "INSERT INTO floor VALUES ('x', 1)"
    ),
    "a floor that is anything": sql(
        "DROP TABLE floor", "CREATE TABLE floor (seq INTEGER, bare_ms INTEGER)", "INSERT INTO floor VALUES ('x', 1)"
    ),
    "an empty floor": sql("DELETE FROM floor"),
    "a floor at the end of all numbers": sql("UPDATE floor SET seq = 9223372036854775807"),
    "a row at the end of all numbers": sql("UPDATE rows SET seq = 9223372036854775807 WHERE seq = 50"),
}
OUTBOX: Final[dict[str, Harm]] = {
    "a trigger": sql("CREATE TRIGGER mine BEFORE INSERT ON packets BEGIN SELECT raise(IGNORE); END"),
    "no cursors": sql("DROP TABLE cursors"),
    "no column of losses": sql("ALTER TABLE packets DROP COLUMN lost"),
    "two epochs": sql("INSERT INTO meta VALUES ('1111111111111111', 5)"),
    "an epoch that is none": sql("UPDATE meta SET epoch = 'none'"),
    "an epoch of a megabyte": sql("UPDATE meta SET epoch = hex(zeroblob(500000))"),
    "a time that no agent ran": sql("UPDATE meta SET ran_ms = -1"),
    "a packet at the end of all numbers": sql("UPDATE packets SET seq = 9223372036854775807 WHERE seq = 2"),
    "numbers that are used up": sql("UPDATE sqlite_sequence SET seq = 9223372036854775807"),
    "numbers that are words": sql("UPDATE sqlite_sequence SET seq = 'x'"),
    "a time that is anything": sql(
        "DROP TABLE meta", "CREATE TABLE meta (epoch, ran_ms)", "INSERT INTO meta VALUES ('1111111111111111', 'x')"
    ),
    "a cursor below zero": sql("UPDATE cursors SET seq = -1"),
    "another file that never was": sql("INSERT INTO cursors VALUES (99, 5, NULL, 9223372036854775807)"),
    "another session that is none": sql("INSERT INTO cursors VALUES (99, 5, 'none', 5)"),
    "a loss that is no JSON": sql("INSERT INTO lost (what) VALUES ('none')"),
    "a loss that is empty": sql("INSERT INTO lost (what) VALUES ('')"),
    "a loss that is none": sql("""INSERT INTO lost (what) VALUES ('["x", "y", 5, "all", "z", null]')"""),
    "a loss after all years": sql("""INSERT INTO lost (what) VALUES ('[null, 1, 9e18, "packets", 1, "bound"]')"""),
    "a loss as deep as the sea": sql("INSERT INTO lost (what) VALUES (replace(hex(zeroblob(50000)), '0', '['))"),
    "losses at the end of all numbers": sql("INSERT INTO lost VALUES (9223372036854775807, '[]')"),
}  # fmt: skip


@pytest.mark.parametrize("what", [*STRANGERS, *READINGS])
def test_what_is_no_readings_file_is_set_aside_and_declared_from_its_last_packet_on(spool: Path, what: str) -> None:
    (STRANGERS | READINGS)[what](spool / "readings.db")
    road = Road(spool)
    assert road.writer.quarantined is not None
    assert os.path.lexists(road.writer.quarantined)
    assert road.writer.trouble
    assert road.lost() == [Lost(ONE, T0 + 2 * MINUTE, T0 + 150_000, "readings", None, "corrupt")]
    drive(road.writer, TWO, T0 + 5 * MINUTE, 10)
    road.compactor.compact(closing=True)
    assert road.readings() == {"1+0": 60, "1+1": 60, "2+5": 10}


@pytest.mark.parametrize("what", [*OUTBOX, "a directory", "another program's", "a later version"])
def test_what_is_no_outbox_is_set_aside_and_its_packets_are_made_again(spool: Path, what: str) -> None:
    (STRANGERS | OUTBOX)[what](spool / "outbox.db")
    for _ in range(2):
        # Some of it is not looked at before it is used.
        with suppress(SpoolFaultError):
            road = Road(spool)
            road.lost()
    assert os.path.lexists(spool / "outbox.db.corrupt-1")
    road.compactor.compact(closing=True)
    assert road.readings() == {"1+0": 60, "1+1": 60, "1+2": 30}
    assert road.lost() == []


def test_a_cursor_past_the_last_row_costs_no_packet_and_every_reading_is_packed(spool: Path) -> None:
    sql("UPDATE cursors SET seq = 1000")(spool / "outbox.db")
    road = Road(spool)
    road.compactor.compact(closing=True)
    assert road.readings() == {"1+0": 60, "1+1": 60, "1+2": 30}
    assert (road.outbox.quarantined, road.lost()) == (None, [])


@pytest.mark.parametrize("last_row", [1, 30, 61, 90, 120])
def test_rows_that_vanished_cost_no_unsent_packet_and_those_that_come_in_their_place_are_packed(
    spool: Path, last_row: int
) -> None:
    """As of a card that takes commits back."""
    sql(f"DELETE FROM rows WHERE seq > {last_row}")(spool / "readings.db")  # noqa: S608 - a test's
    road = Road(spool)
    drive(road.writer, TWO, T0 + 5 * MINUTE, 100)
    file_id = road.reader.file_id
    # Retention, before they are packed.
    road.writer.forget(road.outbox.first_row_kept(file_id), 1000)
    road.writer.forget(road.outbox.row_after(file_id, 2, 1), 1000)
    before = dict(packets(road.outbox))
    road.compactor.compact(closing=True)
    assert road.readings() == {"1+0": 60, "1+1": 60, "2+5": 60, "2+6": 40}
    assert before.items() <= packets(road.outbox).items()
    assert (road.outbox.quarantined, road.lost()) == (None, [])


@pytest.mark.parametrize("packet_id", ["", "//", f"car_one/{ONE}/noon", "car_one/none/20260517T064000Z"])
def test_a_packet_that_cannot_be_named_when_it_is_forgotten_costs_the_outbox_and_no_reading(
    road: Road, packet_id: str
) -> None:
    sql(f"UPDATE packets SET id = '{packet_id}' WHERE seq = 1")(road.directory / "outbox.db")  # noqa: S608 - a test's
    with pytest.raises(SpoolFaultError):
        road.outbox.forget_unsent(1, "bound")
    road.follow()
    road.compactor.compact(closing=True)
    assert road.readings() == {"1+0": 60, "1+1": 60, "1+2": 30}


@pytest.mark.parametrize("what", ["a trigger that says no", "no rows", "a column less"])
def test_tables_that_are_changed_under_the_recorder_cost_one_commit(road: Road, what: str) -> None:
    no = sql("CREATE TRIGGER mine BEFORE INSERT ON rows BEGIN SELECT raise(ABORT, 'no'); END")
    READINGS.get(what, no)(road.writer.path)
    with pytest.raises(SpoolFaultError):
        drive(road.writer, TWO, T0 + 5 * MINUTE, 1)
    drive(road.writer, TWO, T0 + 5 * MINUTE, 1)
    assert sqlite_spool.is_sound(road.writer.path)


def test_a_floor_that_vanishes_under_the_recorder_costs_the_file_and_no_reading(road: Road) -> None:
    sql("DELETE FROM floor")(road.writer.path)
    with pytest.raises(SpoolFaultError, match="does not tell what was forgotten"):
        road.writer.bare()
    assert road.writer.quarantined is not None
    road.compactor.compact(closing=True)
    assert road.readings() == {"1+0": 60, "1+1": 60, "1+2": 30}


@pytest.mark.parametrize(("floor", "packed"), [(123, 29), (131, 21), (152, 0), (10**6, 0)])
def test_a_floor_past_what_was_packed_is_declared_once_and_what_comes_after_is_packed(
    spool: Path, floor: int, packed: int
) -> None:
    sql(f"UPDATE floor SET seq = {floor}")(spool / "readings.db")  # noqa: S608 - a test's
    for _ in range(2):
        road = Road(spool)
        assert road.lost() == [Lost(None, T0 + 2 * MINUTE, T0 + 150_000, "readings", None, "corrupt")]
        road.close()
    road = Road(spool)
    drive(road.writer, TWO, T0 + 5 * MINUTE, 10)
    road.compactor.compact(closing=True)
    rest = {"1+2": packed} if packed else {}
    assert road.readings() == {"1+0": 60, "1+1": 60, **rest, "2+5": 10}


def test_a_floor_that_is_raised_under_the_recorder_costs_the_file_and_is_declared(road: Road) -> None:
    sql("UPDATE floor SET seq = 1000")(road.writer.path)
    with pytest.raises(SpoolFaultError, match="not written yet"):
        road.writer.floor()
    road.reader.reopen()
    road.follow()
    assert road.lost() == [Lost(ONE, T0 + 2 * MINUTE, T0 + 150_000, "readings", None, "corrupt")]


def test_tables_that_are_changed_under_a_reader_are_the_files_fault(road: Road) -> None:
    READINGS["no floor"](road.writer.path)
    with pytest.raises(SpoolFaultError):
        road.reader.readings_after(0, 1)


def test_a_file_that_is_locked_is_not_taken_for_another_ones(tmp_path: Path) -> None:
    schema = "CREATE TABLE one (a)"
    sql(schema)(tmp_path / "a.db")
    held, asking = (sqlite3.connect(tmp_path / "a.db", isolation_level=None, timeout=0) for _ in range(2))
    held.execute("BEGIN EXCLUSIVE")
    assert sqlite_spool.has_form(asking, schema)
    assert not sqlite_spool.has_form(held, "CREATE TABLE one (a, b)")
    held.close()
    asking.close()


def test_a_row_of_another_hand_costs_one_commit_and_not_all_that_follow(road: Road) -> None:
    sql("INSERT INTO rows SELECT max(seq) + 1, 'x', 'audit', 0, '{}', 0 FROM rows")(road.writer.path)
    with pytest.raises(sqlite3.IntegrityError):
        road.writer.append(ONE, [reading_row(T0 + 150_000)])
    road.writer.append(ONE, [reading_row(T0 + 151_000)])
    assert road.writer.quarantined is None
    road.compactor.compact(closing=True)
    (last,) = [one for one in (read(parse(text)) for text in packets(road.outbox).values()) if one.lost]
    assert last.lost == (Lost(ONE, T0 + 150_000, T0 + 150_001, "readings", 1, "card_error"),)


def test_readings_that_a_locked_file_does_not_take_are_declared_with_the_next_that_it_takes(road: Road) -> None:
    road.writer._connection.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(road.writer.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for n in (150, 151):
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            road.writer.append(ONE, [reading_row(T0 + 1000 * n)])
    other.close()
    road.writer.append(ONE, [reading_row(T0 + 152_000)])
    road.compactor.compact(closing=True)
    (last,) = [one for one in (read(parse(text)) for text in packets(road.outbox).values()) if one.lost]
    assert last.lost == (Lost(ONE, T0 + 150_000, T0 + 151_001, "readings", 2, "card_error"),)


@pytest.mark.parametrize("body", ["5", "5.5", "zeroblob(2000000)", "''"])
def test_a_body_of_another_kind_is_a_corrupt_row(road: Road, body: str) -> None:
    sql(f"UPDATE rows SET body = {body} WHERE seq = 140")(road.writer.path)  # noqa: S608 - a test's
    road.compactor.compact(closing=True)
    assert road.readings() == {"1+0": 60, "1+1": 60, "1+2": 29}


def test_a_reading_whose_kind_has_a_flipped_bit_is_a_corrupt_row_and_is_forgotten_in_its_turn(road: Road) -> None:
    sql("UPDATE rows SET kind = 'readinf' WHERE seq IN (20, 140)")(road.writer.path)
    road.compactor.compact(closing=True)
    (last,) = [
        one for one in (read(parse(text)) for text in packets(road.outbox).values()) if one.start_ms > T0 + MINUTE
    ]
    assert (len(last.readings or ()), [gap.reason for gap in last.gaps]) == (29, ["corrupt"])
    assert road.writer.forget(62, 1000) == 60


def test_rows_of_which_none_is_sound_are_not_taken_for_the_next_sessions(road: Road) -> None:
    sql("UPDATE rows SET crc = 0 WHERE seq > 121")(road.writer.path)
    drive(road.writer, TWO, T0 + 60 * MINUTE, 3)
    road.compactor.compact(closing=True)
    (last,) = [one for one in (read(parse(text)) for text in packets(road.outbox).values()) if one.session == TWO]
    assert (last.gaps, len(last.readings or ())) == ((), 3)
    assert road.lost() == [Lost(None, T0 + 2 * MINUTE, T0 + 60 * MINUTE, "readings", 30, "corrupt")]


# An envelope that is sealed again


def newer(road: Road) -> Compactor:
    """A compactor that seals for another key of the server."""
    key = SealingKey(RSA_SUITE, "f" * 16, server_rsa().public_key())
    return replace(road.compactor, sealer=replace(sealer(), server=lambda: key))


def test_a_damaged_envelope_is_sealed_again_of_the_same_rows(road: Road) -> None:
    first, (one, two) = packets(road.outbox), road.outbox.waiting()
    sql("UPDATE packets SET envelope = randomblob(900) WHERE seq = 1")(road.outbox.path)
    assert road.compactor.remake(1) not in {None, one.sha256}
    assert road.compactor.remake(2) == two.sha256
    assert packets(road.outbox) == first
    assert [waiting.seq for waiting in road.outbox.waiting()] == [1, 2]


def test_an_envelope_for_a_key_that_the_server_has_no_more_is_sealed_for_the_newest(road: Road) -> None:
    before = [read(parse(text)) for text in packets(road.outbox).values()]
    for seq in (1, 2):
        assert newer(road).remake(seq) is not None
    sealed = [envelope.parse(road.outbox.envelope(one.seq) or b"") for one in road.outbox.waiting()]
    assert [one.header.server_kid for one in sealed] == ["f" * 16] * 2
    assert [read(parse(one.open({"f" * 16: server_private_key()}))) for one in sealed] == before


def test_a_packet_of_which_a_row_is_gone_is_not_made_again_of_the_rest(road: Road) -> None:
    sql("DELETE FROM rows WHERE seq = 2")(road.writer.path)
    one, two = road.outbox.waiting()
    assert newer(road).remake(1) == one.sha256
    assert newer(road).remake(2) not in {None, two.sha256}


def test_of_what_cannot_be_sealed_again_the_damaged_is_declared_and_the_whole_waits(road: Road) -> None:
    """For another persister may have the key, and a server may be given its key again."""
    road.writer.forget(road.outbox.first_row_kept(road.reader.file_id) + 120, 1000)
    sql("UPDATE packets SET envelope = randomblob(900) WHERE seq = 1")(road.outbox.path)
    _, two = road.outbox.waiting()
    assert [newer(road).remake(seq) for seq in (1, 2, 3)] == [None, two.sha256, None]
    assert road.lost() == [Lost(ONE, T0, T0 + MINUTE, "packets", 1, "corrupt")]
    counts = road.outbox.counts()
    assert (counts.waiting, counts.rejected) == (1, 0)


# What would grow without bound


def test_rows_of_which_packets_can_never_be_made_are_given_up_but_for_a_packets_worth(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compactor_module, "MAX_READINGS", 5)
    assert [road.compactor.give_up(20, "bound") for _ in range(3)] == [20, 5, 0]
    assert [(one.from_ms, one.to_ms, one.count, one.reason) for one in road.lost()] == [
        (T0 + 120_000, T0 + 139_001, 20, "bound"),
        (T0 + 140_000, T0 + 144_001, 5, "bound"),
    ]


def test_losses_that_are_given_up_with_rows_are_told_again_once_and_keep_no_later_one_waiting(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as are given at a time must not stand before all others for ever."""
    file_id = road.reader.file_id
    losses = [Lost(ONE, T0 + n, T0 + n + 1, "packets", 1, "bound") for n in range(100)]
    road.outbox.skip(file_id, road.outbox.cursor(file_id), losses)
    road.writer.declare(ONE, T0 + 150_000, road.outbox.undeclared())
    drive(road.writer, ONE, T0 + 150_000, 10, opening=False)
    with monkeypatch.context() as patched:
        patched.setattr(compactor_module, "MAX_READINGS", 5)
        assert road.compactor.give_up(200, "bound") == 135
    late = Lost(TWO, T0 + 5, T0 + 6, "packets", 7, "card_full")
    road.outbox.skip(file_id, road.outbox.cursor(file_id), [late])
    told: list[Lost] = []
    for n in (3, 4):
        told += road.writer.declare(TWO, T0 + n * MINUTE, road.outbox.undeclared())
        drive(road.writer, TWO, T0 + n * MINUTE, 3, opening=n == 3)
        road.compactor.compact(closing=True)
    assert [one for one in told if one.what == "packets"] == [*losses, late]
    assert road.lost() == []


def test_losses_of_a_period_that_cannot_be_packed_are_told_again_once(road: Road) -> None:
    one = Lost(ONE, T0, T0 + 1, "packets", 1, "bound")
    road.writer.declare(TWO, T0 + 200_000, {f"{road.outbox.epoch}/1": one})
    road.outbox.skip(road.reader.file_id, road.outbox.cursor(road.reader.file_id), [one])
    drive(road.writer, TWO, T0 + 3 * MINUTE, 3, opening=False)
    road.compactor.compact(closing=True)
    assert [each.what for each in road.lost()] == ["packets", "readings"]


# Every form that the two files ever had

_FORMS: Final = {
    "version 1, the first": (" AUTOINCREMENT", ""),
    "version 1": (
        " AUTOINCREMENT",
        "CREATE TABLE floor (seq INTEGER NOT NULL) STRICT; INSERT INTO floor VALUES (0);",
    ),
    "version 2, the first": (
        "",
        """CREATE TABLE floor (seq INTEGER NOT NULL, bare_ms INTEGER) STRICT; INSERT INTO floor VALUES (0, NULL);
        CREATE TABLE declared (key TEXT PRIMARY KEY) STRICT;""",
    ),
}


@pytest.mark.parametrize("form", _FORMS)
def test_a_readings_file_of_an_earlier_form_goes_on(tmp_path: Path, form: str) -> None:
    path = tmp_path / "readings.db"
    db = sqlite3.connect(path)
    numbered, more = _FORMS[form]
    db.executescript(
        f"""PRAGMA application_id = 7; PRAGMA user_version = {form.split()[1].strip(",")};
        CREATE TABLE rows (seq INTEGER PRIMARY KEY{numbered}, session TEXT NOT NULL, kind TEXT NOT NULL,
            at_ms INTEGER NOT NULL, body TEXT NOT NULL, crc INTEGER NOT NULL) STRICT;
        CREATE INDEX facts ON rows (session, kind, seq) WHERE kind <> 'reading'; {more}"""
    )
    rows = [session_row(T0), *(reading_row(T0 + 1000 * n) for n in range(70))]
    for seq, (kind, at_ms, body) in enumerate(rows, 1):
        text = json.dumps(body, separators=(",", ":"))
        crc = zlib.crc32(f"{ONE}/{kind}/{at_ms}/{text}".encode())
        db.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", (seq, ONE, kind, at_ms, text, crc))
    db.commit()
    db.close()
    for _ in range(2):
        writer = ReadingsWriter(path)
        assert (writer.quarantined, writer.file_id) == (None, 7)
        writer.close()
    road = Road(tmp_path)
    drive(road.writer, ONE, T0 + 70_000, 20, opening=False)
    road.writer.declare(ONE, T0 + 90_000, {"a/1": Lost(None, T0, T0, "packets", 1, "bound")})
    road.compactor.compact(closing=True)
    assert road.readings() == {"1+0": 60, "1+1": 30}
    assert road.writer.forget(62, 1000) == 60
