"""What only the embedded stores promise: one writer, readers beside it, durability, one-line faults."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from components.cloud.ports import DeadLetter, FeedEvent, StoredPacket
from components.cloud.sqlite_archive import SqliteArchive, SqliteArchiveReader
from components.cloud.sqlite_feed import SqliteFeed, SqliteFeedReader
from components.wire.errors import OperatorError, UnavailableError

EVENT = FeedEvent(
    "car_readings", "car1", "id", "odograph.reading.v1", "odograph/device/car1", "2026-11-22T00:00:00Z", b"{}"
)

ROW = StoredPacket("c/s/0", "c", "s", 0, "", "", "", {}, b"", "0", 0)

HOLDER = """
import sys
from pathlib import Path
from components.cloud.ports import FeedEvent
from components.cloud.sqlite_feed import SqliteFeed
feed = SqliteFeed(Path(sys.argv[1]))
for n in range(1_000_000):
    feed.publish([FeedEvent("car_readings", "car1", f"{n}/{part}", "t", "s", "", b"{}") for part in range(3)])
    print(n, flush=True)
"""


@pytest.mark.parametrize("store", [SqliteArchive, SqliteFeed])
def test_a_second_writer_is_refused_in_one_line_with_the_file_and_the_remedy(
    store: type[SqliteArchive | SqliteFeed], tmp_path: Path
) -> None:
    first = store(tmp_path / "x.db")
    with pytest.raises(
        OperatorError, match=rf"x\.db is in use by another process \({os.getpid()}\): stop it, or use (MongoDB|Kafka)"
    ) as refused:
        store(tmp_path / "x.db")
    assert "\n" not in str(refused.value)
    first.close()
    store(tmp_path / "x.db").close()


def test_a_killed_writer_loses_no_batch_that_was_acknowledged_and_leaves_no_half_one_and_no_lock(
    tmp_path: Path,
) -> None:
    path = tmp_path / "feed.db"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        while (line := holder.stdout.readline()) and int(line) < 20:
            pass
        with pytest.raises(OperatorError, match=rf"process \({holder.pid}\)"):
            SqliteFeed(path)
        holder.send_signal(signal.SIGKILL)
        acknowledged = [20, *map(int, holder.stdout)]
    SqliteFeed(path).close()
    ids = [x.id for x in SqliteFeedReader(path).read(from_start=True, follow=False)]
    batches = len(ids) // 3
    assert batches > max(acknowledged)
    assert ids == [f"{n}/{part}" for n in range(batches) for part in range(3)]


def test_a_reader_works_beside_the_writer_after_it_and_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    writer = SqliteArchive(path)
    beside = SqliteArchiveReader(path)
    writer.close()
    after = SqliteArchiveReader(path)
    assert beside.counts() == after.counts()
    after.close()
    beside.close()
    SqliteArchive(path).close()


@pytest.mark.parametrize(
    "broken", ["{", '{"a":\ufffd', "[1]", "3", "[" * 100_000, b"{\xff}", b""], ids=lambda one: repr(one)[:9]
)
def test_a_packet_whose_row_cannot_be_read_any_more_hides_no_other(tmp_path: Path, broken: str | bytes) -> None:
    archive = SqliteArchive(tmp_path / "archive.db")
    rows = [StoredPacket(f"c/s/{n}", "c", "s", n, "", "", "", {"n": n}, b"", f"{n}", n) for n in range(3)]
    archive.insert(rows)
    if isinstance(broken, bytes):
        archive._db.execute("UPDATE packets SET packet = CAST(? AS TEXT) WHERE id = 'c/s/1'", (broken,))
    else:
        archive._db.execute("UPDATE packets SET packet = ? WHERE id = 'c/s/1'", (broken,))
    hollow = replace(rows[1], packet={})
    assert archive.pending(9, 9) == list(archive.minutes("c")) == [rows[0], hollow, rows[2]]
    assert archive.pending(9, 9, {"c/s/1"}) == [rows[0], rows[2]]
    archive.close()


def test_minutes_of_an_account_cost_no_more_where_the_device_was_anothers_for_long(tmp_path: Path) -> None:
    archive = SqliteArchive(tmp_path / "archive.db")
    steps: list[int] = []
    archive._db.set_progress_handler(lambda: steps.append(1), 10)

    def cost() -> int:
        steps.clear()
        assert [one.start_ms for one in archive.minutes("c", account="mine")] == [9_999]
        assert archive.latest("c", "mine") == archive.latest("c")
        return len(steps)

    archive.insert([StoredPacket("c/s/9999", "c", "s", 9_999, "mine", "", "", {}, b"", "", 0)])
    alone = cost()
    archive.insert([StoredPacket(f"c/s/{n}", "c", "s", n, "before", "", "", {}, b"", "", 0) for n in range(500)])
    assert cost() < 2 * alone
    archive.close()


ARCHIVE_CALLS: dict[str, Callable[[SqliteArchive], object]] = {
    "insert": lambda archive: archive.insert([ROW]),
    "put_dead_letters": lambda archive: archive.put_dead_letters([DeadLetter("00", "t", "size", "m", b"", 1)]),
    "pending": lambda archive: archive.pending(9, 9),
    "mark_fed": lambda archive: archive.mark_fed(["c/s/0"]),
    "minutes": lambda archive: list(archive.minutes("c")),
    "latest": lambda archive: archive.latest("c"),
    "counts": lambda archive: archive.counts(),
}


@pytest.mark.parametrize("call", ARCHIVE_CALLS)
def test_an_archive_whose_tables_are_gone_is_unavailable_to_every_call(tmp_path: Path, call: str) -> None:
    archive = SqliteArchive(tmp_path / "archive.db")
    archive._db.executescript("DROP TABLE packets; DROP TABLE dead_letters")
    with pytest.raises(UnavailableError, match=r"archive\.db: no such table"):
        ARCHIVE_CALLS[call](archive)
    archive.close()


@pytest.mark.parametrize("call", ["insert", "put_dead_letters", "pending", "mark_fed"])
def test_who_stores_and_who_feeds_have_the_connection_one_at_a_time(tmp_path: Path, call: str) -> None:
    archive = SqliteArchive(tmp_path / "archive.db")
    archive._guard = guard = MagicMock()
    ARCHIVE_CALLS[call](archive)
    assert (guard.__enter__.call_count, guard.__exit__.call_count) == (1, 1)
    archive.close()


@pytest.mark.parametrize(("store", "version"), [(SqliteArchive, 0x0D0A01), (SqliteFeed, 0x0D0F01)])
def test_files_keep_the_form_that_every_earlier_odograph_has_given_them(
    store: type[SqliteArchive | SqliteFeed], version: int, tmp_path: Path
) -> None:
    made = store(tmp_path / "x.db")
    assert made._db.execute("PRAGMA user_version").fetchone() == (version,)
    made.close()


def test_a_reader_changes_nothing_and_leaves_nothing_for_the_next_one_to_trip_over(tmp_path: Path) -> None:
    path = tmp_path / "feed.db"
    feed = SqliteFeed(path)
    feed.publish([EVENT])
    feed.close()
    before = path.read_bytes()
    for _ in range(2):
        reader = SqliteFeedReader(path)
        assert list(reader.read(from_start=True, follow=False)) == [EVENT]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._db.execute("DELETE FROM log")
        reader.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("reader", [SqliteArchiveReader, SqliteFeedReader])
def test_a_missing_file_is_one_line_with_a_hint_and_is_not_made(
    reader: type[SqliteArchiveReader | SqliteFeedReader], tmp_path: Path
) -> None:
    with pytest.raises(OperatorError, match=r"there is no .*/none\.db: check the path"):
        reader(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("store", [SqliteArchive, SqliteFeed])
def test_a_missing_directory_is_one_line_with_a_hint(store: type[SqliteArchive | SqliteFeed], tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"none/x\.db cannot be written \(No such file or directory\): make its"):
        store(tmp_path / "none" / "x.db")


def test_a_file_of_something_else_is_refused_and_its_lock_given_back(tmp_path: Path) -> None:
    archive, text = tmp_path / "archive.db", tmp_path / "notes.txt"
    SqliteArchive(archive).close()
    text.write_text("not a database, whatever its name says\n" * 100)
    for _ in range(2):
        with pytest.raises(OperatorError, match="holds something else"):
            SqliteFeed(archive)
        with pytest.raises(OperatorError, match=r"notes\.txt is not usable"):
            SqliteArchive(text)
    with pytest.raises(OperatorError, match="holds something else"):
        SqliteFeedReader(archive)
    with pytest.raises(OperatorError, match=r"notes\.txt cannot be read"):
        SqliteArchiveReader(text)
    SqliteArchive(archive).close()


def test_only_its_owner_can_read_the_file(tmp_path: Path) -> None:
    SqliteArchive(tmp_path / "archive.db").close()
    assert (tmp_path / "archive.db").stat().st_mode & 0o777 == 0o600


def test_every_commit_reaches_the_disk_before_it_is_acknowledged(tmp_path: Path) -> None:
    archive = SqliteArchive(tmp_path / "archive.db")
    assert archive._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert archive._db.execute("PRAGMA synchronous").fetchone() == (2,)
    archive.close()


def test_a_full_disk_is_unavailable_and_nothing_of_the_batch_is_there_and_later_it_works(tmp_path: Path) -> None:
    feed = SqliteFeed(tmp_path / "feed.db")
    (pages,) = feed._db.execute("PRAGMA page_count").fetchone()
    feed._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(UnavailableError, match=r"feed\.db: database or disk is full"):
        feed.publish([EVENT] * 1000)
    feed._db.execute("PRAGMA max_page_count = 1000000")
    feed.publish([EVENT])
    feed.close()
    assert list(SqliteFeedReader(tmp_path / "feed.db").read(from_start=True, follow=False)) == [EVENT]
