"""readings.db and outbox.db: durable, checked, set aside when broken, forgotten in the right order."""

import json
import sqlite3
import tracemalloc
from pathlib import Path

import pytest

from components.edge import sqlite_readings, sqlite_spool
from components.edge.sqlite_outbox import SqliteOutbox, Waiting
from components.edge.sqlite_readings import ReadingsReader, ReadingsWriter
from components.edge.sqlite_spool import SpoolFaultError
from components.wire.errors import OperatorError
from components.wire.packet import Lost
from components.wire.times import minute_id
from tests.edge_parts import ONE, T0, TWO, drive, reading_row, session_row

FILE = 7


def add(outbox: SqliteOutbox, n: int, rows: tuple[int, int] | None = None, file_id: int = FILE) -> bool:
    start_ms = T0 + 60_000 * n
    packet_id, span = f"car_one/{ONE}/{minute_id(start_ms)}", rows or (10 * n, 10 * n + 9)
    return outbox.add(packet_id, b"sealed %d" % n, f"{n:064x}", file_id, span, end_ms=start_ms + 60_000)


def test_rows_that_were_written_are_there_after_the_writer_is_gone(tmp_path: Path) -> None:
    writer = ReadingsWriter(tmp_path / "r.db")
    drive(writer, ONE, T0, 3)
    # Not closed: what a power cut leaves.
    again = ReadingsReader(tmp_path / "r.db")
    assert [row.at_ms for row in again.readings_after(0, 10)] == [T0, T0 + 1000, T0 + 2000]
    assert again.fact(ONE, "session", 99) is not None
    assert ReadingsWriter(tmp_path / "r2.db").last("reading") is None


def test_rows_come_all_or_none(tmp_path: Path) -> None:
    writer = ReadingsWriter(tmp_path / "r.db")
    with pytest.raises(sqlite3.IntegrityError):
        writer.append(ONE, [reading_row(T0), (None, T0, {})])  # type: ignore[list-item]
    assert writer.last("reading") is None
    drive(writer, ONE, T0, 1)
    assert [row.kind for row in ReadingsReader(tmp_path / "r.db").readings_after(0, 10)] == ["lost", "reading"]


@pytest.mark.parametrize("change", ["body = replace(body, '1', '2')", "at_ms = at_ms + 1", f"session = '{TWO}'"])
def test_a_row_in_which_a_bit_flipped_has_no_body(tmp_path: Path, change: str) -> None:
    writer = ReadingsWriter(tmp_path / "r.db")
    drive(writer, ONE, T0, 3)
    writer._connection.execute(f"UPDATE rows SET {change} WHERE seq = 3")  # noqa: S608 - constants
    rows = ReadingsReader(tmp_path / "r.db").readings_after(0, 10)
    assert [row.body is None for row in rows] == [False, True, False]


def test_the_last_sound_row_is_the_one_that_counts(tmp_path: Path) -> None:
    writer = ReadingsWriter(tmp_path / "r.db")
    drive(writer, ONE, T0, 3)
    writer._connection.execute("UPDATE rows SET crc = crc + 1 WHERE seq = 4")
    last = writer.last("reading")
    assert last is not None
    assert last.at_ms == T0 + 1000


@pytest.mark.parametrize("kind", [ReadingsWriter, SqliteOutbox])
def test_a_file_that_is_garbage_is_set_aside_and_a_new_one_begins(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "some.db"
    for n in (1, 2):
        path.write_bytes(b"garbage" * 1000)
        opened = kind(path)
        opened.close()
        assert opened.quarantined == tmp_path / f"some.db.corrupt-{n}"
        assert opened.quarantined.read_bytes() == b"garbage" * 1000
    assert kind(path).quarantined is None


def test_a_torn_page_is_found_beside_the_writer_and_the_file_is_set_aside_with_its_log(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    writer = ReadingsWriter(path)
    drive(writer, ONE, T0, 500)
    assert sqlite_spool.is_sound(path)
    writer.close()
    with path.open("r+b") as file:
        file.seek(4096 * 5)
        file.write(b"\xff" * 4096)
    torn = ReadingsWriter(path)
    drive(torn, ONE, T0 + 500_000, 1, opening=False)
    assert not sqlite_spool.is_sound(path)
    torn.renew("torn")
    assert torn.quarantined == tmp_path / "r.db.corrupt-1"
    assert torn.last("reading") is None
    assert sqlite_spool.is_sound(path)


def test_a_new_file_in_the_place_of_another_has_another_name(tmp_path: Path) -> None:
    names = set()
    for n in range(3):
        ReadingsWriter(tmp_path / f"{n}.db").close()
        names.add(ReadingsReader(tmp_path / f"{n}.db").file_id)
    assert len(names) == 3


def test_a_file_of_a_later_version_is_set_aside_unharmed_and_the_car_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    ReadingsWriter(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    writer = ReadingsWriter(path)
    assert (writer.is_new, writer.trouble) == (True, "it has version 99, this odograph writes 2")
    assert writer.quarantined is not None
    assert writer.quarantined.read_bytes() == before


def test_a_directory_that_cannot_be_used_is_one_line_for_the_operator(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match="cannot be"):
        ReadingsWriter(tmp_path / "file" / "r.db")


def test_nothing_can_be_written_through_a_reader(tmp_path: Path) -> None:
    drive(ReadingsWriter(tmp_path / "r.db"), ONE, T0, 1)
    reader = ReadingsReader(tmp_path / "r.db")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("DELETE FROM rows")


def test_a_spool_is_for_one_agent_at_a_time(tmp_path: Path) -> None:
    held = sqlite_spool.lock(tmp_path / "spool")
    with pytest.raises(
        OperatorError,
        match=r"another process \(\d+\): stop the agent that runs there",
    ):
        sqlite_spool.lock(tmp_path / "spool")
    held.release()
    sqlite_spool.lock(tmp_path / "spool").release()


def test_forgetting_is_all_at_once_for_readers_however_few_rows_are_deleted(tmp_path: Path) -> None:
    writer = ReadingsWriter(tmp_path / "r.db")
    drive(writer, ONE, T0, 100)
    reader = ReadingsReader(tmp_path / "r.db")
    assert writer.forget(61, 10) == 10
    assert reader.readings_after(0, 1)[0].seq == 61
    assert writer.forget(0, 1000) == 49
    assert reader.readings_after(0, 1)[0].seq == 61


def test_what_a_session_said_of_itself_goes_with_its_last_reading_and_the_audit_trail_stays(tmp_path: Path) -> None:
    writer = ReadingsWriter(tmp_path / "r.db")
    writer.append(ONE, [session_row(T0), ("audit", T0, {"step": "x"}), reading_row(T0), reading_row(T0 + 1)])  # 1..4
    writer.append(TWO, [session_row(T0), ("identity", T0, {}), reading_row(T0), reading_row(T0 + 1)])  # 5..8
    reader = ReadingsReader(tmp_path / "r.db")
    writer.forget(4, 100)
    assert reader.fact(ONE, "session", 99) is not None
    writer.forget(8, 100)
    assert reader.fact(ONE, "session", 99) is None
    assert reader.fact(ONE, "audit", 99) is not None
    assert reader.fact(TWO, "session", 99) is not None
    assert reader.fact(TWO, "identity", 99) is not None


def test_the_session_that_is_being_written_keeps_its_row_when_all_its_readings_are_forgotten(tmp_path: Path) -> None:
    writer = ReadingsWriter(tmp_path / "r.db")
    drive(writer, ONE, T0, 3)
    writer.forget(5, 100)
    assert ReadingsReader(tmp_path / "r.db").fact(ONE, "session", 99) is not None


def test_no_row_gets_the_number_of_one_that_was_forgotten(tmp_path: Path) -> None:
    writer = ReadingsWriter(tmp_path / "r.db")
    drive(writer, ONE, T0, 3)  # 2..4
    writer.forget(5, 100)
    writer.close()
    ReadingsWriter(tmp_path / "r.db").append(TWO, [reading_row(T0 + 9000)])
    assert [row.seq for row in ReadingsReader(tmp_path / "r.db").readings_after(0, 10)] == [5]


def test_a_packet_is_added_once_and_the_second_time_only_the_cursor_moves(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "o.db")
    assert add(outbox, 1, (1, 5))
    assert not add(outbox, 1, (1, 9))
    assert outbox.cursor(FILE) == 9
    assert [one.seq for one in outbox.waiting()] == [1]
    assert outbox.envelope(1) == b"sealed 1"


def test_the_next_number_is_the_one_that_is_given_whatever_happened_before(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "o.db")
    for n in range(1, 5):
        add(outbox, n)
        add(outbox, n)
        told = outbox.next_seq()
        add(outbox, 100 + n)
        assert outbox.waiting()[-1].seq == told
    outbox.settle([(one.sha256, "receipted", None) for one in outbox.waiting()], 0)
    outbox.forget(1, 1, 100)
    told = outbox.next_seq()
    outbox.close()
    again = SqliteOutbox(tmp_path / "o.db")
    assert again.next_seq() == told
    add(again, 50)
    assert [one.seq for one in again.waiting()] == [told]


def test_packet_and_cursor_are_kept_both_or_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = SqliteOutbox(tmp_path / "o.db")

    def power_cut(*_: object) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(SqliteOutbox, "_move", power_cut)
        with pytest.raises(OSError, match="power cut"):
            add(outbox, 1)
    assert (outbox.waiting(), outbox.cursor(FILE), outbox.next_seq()) == ([], 0, 1)
    assert add(outbox, 1)


def test_each_readings_file_has_a_cursor_of_its_own(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "o.db")
    add(outbox, 1, (1, 9), file_id=1)
    outbox.skip(2, 4, [])
    assert [outbox.cursor(file_id) for file_id in (1, 2, 3)] == [9, 4, 0]


def test_packets_epoch_and_cursor_survive_and_the_epoch_is_of_this_file(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "o.db")
    add(outbox, 1)
    epoch = outbox.epoch
    again = SqliteOutbox(tmp_path / "o.db")
    assert (again.epoch, again.cursor(FILE), again.waiting()) == (epoch, 19, [Waiting(1, f"{1:064x}")])
    assert SqliteOutbox(tmp_path / "other.db").epoch != epoch


def test_a_receipt_settles_once_and_for_ever(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "o.db")
    add(outbox, 1)
    add(outbox, 2)
    assert outbox.settle([(f"{1:064x}", "receipted", None), (f"{9:064x}", "receipted", None)], 5) == [1]
    assert outbox.settle([(f"{1:064x}", "rejected", "schema"), (f"{2:064x}", "rejected", "schema")], 6) == [2]
    counts = outbox.counts()
    assert (counts.waiting, counts.receipted, counts.rejected, counts.waiting_bytes) == (0, 1, 1, 0)


def test_retention_takes_what_was_settled_long_ago_and_never_what_waits(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "o.db")
    for n in (1, 2, 3):
        add(outbox, n)
    outbox.settle([(f"{2:064x}", "receipted", None)], 100)
    outbox.settle([(f"{3:064x}", "receipted", None)], 200)
    assert outbox.forget(200, 1000, 100) == 1
    assert [outbox.envelope(seq) is not None for seq in (1, 2, 3)] == [True, False, True]
    assert SqliteOutbox(tmp_path / "o.db").ran_ms == 1000


def test_rows_are_kept_from_the_oldest_packet_that_is_here_on_whatever_its_state(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "o.db")
    assert outbox.first_row_kept(FILE) == 1
    for n in (1, 2, 3):
        add(outbox, n)
    outbox.settle([(f"{n:064x}", "receipted", None) for n in (1, 3)], 0)
    assert outbox.first_row_kept(FILE) == 10
    outbox.forget(1, 1, 100)
    assert outbox.first_row_kept(FILE) == 20
    outbox.settle([(f"{2:064x}", "receipted", None)], 0)
    outbox.forget(1, 1, 100)
    assert outbox.first_row_kept(FILE) == 40


def test_a_file_that_was_set_aside_meanwhile_is_followed_as_far_as_its_packets_go(tmp_path: Path) -> None:
    writer, outbox = ReadingsWriter(tmp_path / "r.db"), SqliteOutbox(tmp_path / "o.db")
    aside = writer.file_id
    outbox.follow(aside, 0, ONE, T0, None)
    add(outbox, 1, file_id=aside)
    writer.renew("torn")
    outbox.follow(aside, writer.last_row(aside), ONE, T0, None)
    assert outbox.cursor(aside) == 19


def test_a_bit_that_flips_out_of_utf8_is_told_by_the_checksum_too(tmp_path: Path) -> None:
    writer = ReadingsWriter(tmp_path / "r.db")
    drive(writer, ONE, T0, 2)
    writer._connection.execute(
        "UPDATE rows SET body = CAST(x'FF' || CAST(body AS BLOB) AS TEXT) WHERE kind = 'reading' AND at_ms = ?", (T0,)
    )
    assert [row.body is None for row in ReadingsReader(tmp_path / "r.db").readings_after(0, 9)] == [True, False]


def test_an_outbox_whose_numbers_become_words_is_set_aside_at_the_next_packet(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "o.db")
    add(outbox, 1)
    outbox._connection.execute("UPDATE sqlite_sequence SET seq = 'x'")
    with pytest.raises(SpoolFaultError, match="not numbered"):
        outbox.next_seq()
    assert (outbox.next_seq(), outbox.quarantined) == (1, tmp_path / "o.db.corrupt-1")


def test_the_time_that_agents_ran_is_kept_with_every_receipt(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "o.db")
    add(outbox, 1)
    outbox.settle([(outbox.waiting()[0].sha256, "receipted", None)], 290_000)
    outbox.close()
    assert SqliteOutbox(tmp_path / "o.db").ran_ms == 290_000


def test_losses_that_no_packet_tells_for_years_are_told_together(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "o.db")
    losses = [Lost(f"{n:016x}", T0 + n, T0 + n + 1, "readings", 2, "corrupt") for n in range(2500)]
    outbox.skip(7, 1, losses[:2100])
    outbox.skip(7, 2, losses[2100:])
    db = sqlite3.connect(outbox.path)
    kept = [Lost(*json.loads(what)) for (what,) in db.execute("SELECT what FROM lost")]
    db.close()
    assert len(kept) == 1401
    assert sum(one.count or 0 for one in kept) == 5000
    assert {one.session for one in kept if (one.count or 0) > 2} == {None}
    assert min(one.from_ms for one in kept) == T0
    assert max(one.to_ms for one in kept) == T0 + 2500


def test_a_row_is_inflated_in_the_memory_of_the_largest_one() -> None:
    bomb = sqlite_readings._deflated(" " * 50_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than"):
            sqlite_readings.body_of(bomb)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
