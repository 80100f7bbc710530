"""A spool that may not grow, a card without room, files that break: what goes, and that all of it is declared."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.edge import sqlite_spool
from components.edge.retention import Step, Tidying
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.sqlite_readings import ReadingsReader, ReadingsWriter
from components.edge.sqlite_spool import Ballast, SpoolFaultError
from components.wire.packet import Lost, Packet, parse, read
from components.wire.times import minute_id
from tests.edge_parts import ONE, T0, TWO, compactor, drive, packets, reading_row, session_row

MB = 1_000_000
MINUTE = 60_000


def add(outbox: SqliteOutbox, n: int, session: str = ONE, file_id: int = 7, size: int = 10) -> None:
    """Put the packet of the n-th minute into the outbox, made of ten rows."""
    start_ms = T0 + MINUTE * n
    packet_id = f"car_one/{session}/{minute_id(start_ms)}"
    rows = (10 * n, 10 * n + 9)
    outbox.add(packet_id, os.urandom(size), f"{session[0]}{n:063x}", file_id, rows, end_ms=start_ms + MINUTE)


def lost(outbox: SqliteOutbox) -> list[Lost]:
    return list(outbox.undeclared().values())


def made(outbox: SqliteOutbox) -> list[Packet]:
    return [read(parse(text)) for text in packets(outbox).values()]


# What to forget, and in which order


def tidied(holds: dict[Step, int], used: int, bound: int, *, is_full: bool = False, size: int = MB) -> list[Step]:
    """The steps that found something, each thing of `size`, in order."""
    holds, went = dict(holds), []
    tidying = Tidying(used, bound, is_full=is_full)
    step: Step | None = tidying.begun()
    while step is not None:
        count = min(1, holds.get(step, 0))
        if count:
            went.append(step)
            holds[step] -= 1
            used -= size
        step = tidying.went(count, used)
    return went


EVERYTHING = dict.fromkeys(Step, 2)


def test_without_need_only_what_is_old_goes_and_the_rows_of_no_packet() -> None:
    assert tidied(EVERYTHING, 50 * MB, 50 * MB) == [Step.EXPIRED] * 2 + [Step.SETTLED_ROWS] * 2


def test_what_has_a_receipt_goes_before_what_has_none_and_packets_without_one_go_last() -> None:
    order = tidied(EVERYTHING, 1000 * MB, 50 * MB)
    assert list(dict.fromkeys(order)) == [
        Step.EXPIRED, Step.SETTLED_ROWS, Step.SET_ASIDE, Step.SETTLED, Step.PACKED_ROWS, Step.UNSENT,
        Step.UNPACKED
    ]  # fmt: skip


def test_no_more_goes_than_is_needed_to_be_well_below_the_bound() -> None:
    assert tidied({Step.UNSENT: 100}, 101 * MB, 100 * MB) == [Step.UNSENT] * 6
    assert tidied({Step.UNSENT: 100}, 100 * MB, 100 * MB) == []


def test_a_full_card_is_a_reason_however_small_the_spool_is() -> None:
    assert tidied({Step.SETTLED: 100}, 100 * MB, 1000 * MB, is_full=True) == [Step.SETTLED] * 5
    assert tidied({Step.SETTLED: 100}, 3 * MB, 1000 * MB, is_full=True) == [Step.SETTLED]


@pytest.mark.parametrize("step", [Step.SETTLED, Step.UNSENT])
def test_on_a_full_card_a_spool_over_its_bound_goes_well_below_that(step: Step) -> None:
    assert tidied({step: 100}, 110 * MB, 100 * MB, is_full=True) == [step] * 15


@pytest.mark.parametrize("step", [Step.UNSENT, Step.UNPACKED])
def test_a_full_card_costs_a_young_spool_a_twentieth_of_what_is_unsent_and_only_if_nothing_else_goes(
    step: Step,
) -> None:
    young, size = 500_000, 10_000
    assert tidied({step: 50}, young, 1000 * MB, is_full=True, size=size) == [step] * 3
    some = {Step.SETTLED: 2, step: 48}
    assert tidied(some, young, 1000 * MB, is_full=True, size=size) == [Step.SETTLED] * 2 + [step]
    enough = {Step.SETTLED: 10, step: 40}
    assert tidied(enough, young, 1000 * MB, is_full=True, size=size) == [Step.SETTLED] * 10


# What goes unsent is declared


def test_forgotten_packets_are_declared_as_ranges_of_a_session_and_no_other_packet_is_in_a_range(
    tmp_path: Path,
) -> None:
    outbox = SqliteOutbox(tmp_path / "o.db")
    for n in range(6):
        add(outbox, n, ONE if n < 5 else TWO)
    outbox.settle([(f"1{2:063x}", "receipted", None)], 0)
    assert outbox.forget_unsent(5, "bound") == 5
    assert lost(outbox) == [
        Lost(ONE, T0, T0 + 2 * MINUTE, "packets", 2, "bound"),
        Lost(ONE, T0 + 3 * MINUTE, T0 + 5 * MINUTE, "packets", 2, "bound"),
        Lost(TWO, T0 + 5 * MINUTE, T0 + 6 * MINUTE, "packets", 1, "bound"),
    ]
    assert [outbox.counts().waiting, outbox.counts().receipted] == [0, 1]


def test_a_packet_that_the_server_refused_is_declared_when_it_goes_and_a_receipted_one_is_not(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "o.db")
    add(outbox, 0)
    add(outbox, 1)
    outbox.settle([(f"1{0:063x}", "receipted", None), (f"1{1:063x}", "rejected", "schema")], 5)
    assert lost(outbox) == []
    outbox.forget(6, 6, 10)
    assert lost(outbox) == [Lost(ONE, T0 + MINUTE, T0 + 2 * MINUTE, "packets", 1, "rejected")]


def test_forgetting_and_declaring_are_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = SqliteOutbox(tmp_path / "o.db")
    add(outbox, 0)

    def power_cut(*_: object) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(SqliteOutbox, "_declare", power_cut)
        with pytest.raises(OSError, match="power cut"):
            outbox.forget_unsent(1, "bound")
    assert (outbox.counts().waiting, lost(outbox)) == (1, [])


_FORGETFUL = """
import sys
from pathlib import Path
from components.edge.sqlite_outbox import SqliteOutbox
outbox = SqliteOutbox(Path(sys.argv[1]))
for _ in sys.stdin:
    outbox.forget_unsent(3, "bound")
    print("three less", flush=True)
"""


def test_whenever_it_is_killed_every_packet_is_there_or_declared(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    outbox = SqliteOutbox(path)
    for n in range(600):
        add(outbox, n)
    outbox.close()
    for steps in (1, 10, 3, 20):
        process = subprocess.Popen(
            [sys.executable, "-c", _FORGETFUL, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            # In the middle of the few that it may do after those: however late the signal comes, packets are left.
            process.stdin.write(b"\n" * (steps + 5))
            process.stdin.flush()
            for _ in range(steps):
                assert process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        db = sqlite3.connect(path)
        there = db.execute("SELECT count(*) FROM packets").fetchone()[0]
        declared = sum(json.loads(what)[4] for (what,) in db.execute("SELECT what FROM lost"))
        db.close()
        assert there + declared == 600
    assert 0 < there < 600


# A declaration travels in a packet, and stays until it does


class Road:
    """The two files, and what stands between them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.writer = ReadingsWriter(directory / "readings.db")
        self.reader = ReadingsReader(directory / "readings.db")
        self.outbox = SqliteOutbox(directory / "outbox.db")
        self.follow(T0)

    def follow(self, now_ms: int, session: str = ONE) -> None:
        file_id = self.reader.file_id
        self.outbox.follow(file_id, self.writer.last_row(file_id), session, now_ms, self.writer.bare())

    def declare(self) -> list[Lost]:
        return self.writer.declare(ONE, T0, self.outbox.undeclared())

    def compact(self, *, closing: bool = True) -> None:
        compactor(self.reader, self.outbox).compact(closing=closing)


@pytest.fixture
def road(tmp_path: Path) -> Road:
    return Road(tmp_path)


def test_a_loss_is_written_down_once_and_travels_in_the_next_packet(road: Road) -> None:
    drive(road.writer, ONE, T0, 60)
    road.compact()
    assert road.outbox.forget_unsent(1, "bound") == 1
    expected = [Lost(ONE, T0, T0 + MINUTE, "packets", 1, "bound")]
    assert road.declare() == expected
    assert road.declare() == []
    assert lost(road.outbox) == expected, "no packet tells of it yet"
    drive(road.writer, ONE, T0 + MINUTE, 60, opening=False)
    drive(road.writer, ONE, T0 + 2 * MINUTE, 60, opening=False)
    road.compact()
    assert [list(one.lost) for one in made(road.outbox)] == [expected, []]
    assert lost(road.outbox) == []
    assert road.declare() == []
    assert road.writer._connection.execute("SELECT count(*) FROM declared").fetchone() == (0,)


def test_a_loss_whose_packet_is_lost_in_turn_is_declared_again(road: Road) -> None:
    for n in range(3):
        drive(road.writer, ONE, T0 + n * MINUTE, 60, opening=n == 0)
        road.compact()
        road.outbox.forget_unsent(1, "bound")
        road.declare()
    drive(road.writer, ONE, T0 + 3 * MINUTE, 60, opening=False)
    road.compact()
    (last,) = made(road.outbox)
    assert sorted((one.from_ms - T0) // MINUTE for one in last.lost) == [0, 1, 2]


def test_packets_that_declare_are_the_same_when_they_are_made_again(road: Road) -> None:
    drive(road.writer, ONE, T0, 120)
    road.compact(closing=False)
    road.outbox.forget_unsent(1, "bound")
    road.declare()
    drive(road.writer, ONE, T0 + 120_000, 100, opening=False)
    road.compact()
    # What is left begins with the row that declares.
    road.outbox.settle([(road.outbox.waiting()[0].sha256, "receipted", None)], 0)
    road.outbox.forget(1, 1, 1)
    first = packets(road.outbox)
    assert sum(len(read(parse(text)).lost) for text in first.values()) == 1
    road.writer.forget(road.outbox.first_row_kept(road.writer.file_id), 1000)
    for path in road.directory.glob("outbox.db*"):
        path.unlink()
    again = SqliteOutbox(road.directory / "outbox.db")
    compactor(road.reader, again).compact(closing=True)
    assert packets(again) == first


def test_rows_of_which_no_packet_can_be_made_are_declared(road: Road) -> None:
    drive(road.writer, ONE, T0, 10, opening=False)
    drive(road.writer, TWO, T0 + 10_000, 10)
    road.compact()
    assert lost(road.outbox) == [Lost(ONE, T0, T0 + 9001, "readings", 10, "corrupt")]


# A card without room


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Path]:
    """A card of 3 MB."""
    place = tmp_path / "card"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(place)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("a small file system cannot be mounted here: that takes root's rights")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(writer: ReadingsWriter, at_ms: int) -> int:
    """Write a reading a second from then on until the card is full; return the time of the first that is not taken."""
    while True:
        try:
            writer.append(ONE, [reading_row(at_ms)])
        except SpoolFaultError:
            return at_ms
        at_ms += 1000


def test_readings_that_a_full_card_did_not_take_are_declared_with_the_first_that_it_takes(card: Path) -> None:
    writer, ballast = ReadingsWriter(card / "readings.db"), Ballast(card / "ballast", 500_000)
    met: list[str] = []
    writer.on_fault = met.append
    writer.append(ONE, [session_row(T0)])
    ballast.take()
    (card / "of another program").write_bytes(bytes(2_000_000))
    first_ms = fill(writer, T0)
    assert fill(writer, first_ms + 1000) == first_ms + 1000
    assert met == ["full", "full"]
    ballast.drop()
    for later_ms in (5000, 6000):
        writer.append(ONE, [reading_row(first_ms + later_ms)])
    reader = ReadingsReader(card / "readings.db")
    outbox = SqliteOutbox(card / "outbox.db")
    compactor(reader, outbox).compact(closing=True)
    found = made(outbox)
    assert [one for each in found for one in each.lost] == [
        Lost(ONE, first_ms, first_ms + 1001, "readings", 2, "card_full")
    ]
    assert {gap.reason for one in found for gap in one.gaps} == {"lost_range"}


def test_rows_can_be_deleted_on_a_full_card_and_the_next_are_written_in_their_place(card: Path) -> None:
    writer, ballast = ReadingsWriter(card / "readings.db"), Ballast(card / "ballast", 500_000)
    ballast.take()
    writer.append(ONE, [session_row(T0)])
    full_ms = fill(writer, T0)
    ballast.drop()
    assert writer.forget((full_ms - T0) // 2000, 200) == 200
    writer.give_back(1 << 18, 0)
    for n in range(100):
        writer.append(ONE, [reading_row(full_ms + 1000 * n)])


def test_what_is_forgotten_is_given_back_to_the_card_in_steps(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "o.db")
    for n in range(300):
        add(outbox, n, size=4000)
    assert sqlite_spool.used_bytes(tmp_path) > 1_200_000
    outbox.forget_unsent(300, "bound")
    steps = 1
    while outbox.give_back(1 << 18, 0):
        steps += 1
    outbox.give_back(1 << 18, 0)
    assert steps > 3
    assert (tmp_path / "o.db").stat().st_size < 100_000


# Files that break while they are used


@pytest.mark.parametrize("harm", ["overwritten", "cut", "gone"])
@pytest.mark.parametrize("kind", [ReadingsWriter, SqliteOutbox])
def test_a_file_that_breaks_under_its_writer_is_set_aside_and_the_next_call_has_a_new_one(
    tmp_path: Path, kind: type[ReadingsWriter] | type[SqliteOutbox], harm: str
) -> None:
    path = tmp_path / "some.db"
    file = kind(path)
    met: list[str] = []
    file.on_fault = met.append

    def use() -> None:
        if isinstance(file, ReadingsWriter):
            drive(file, ONE, T0, 1)
        else:
            add(file, 1)

    use()
    if harm == "gone":
        path.unlink()
    else:
        with path.open("r+b") as raw:
            raw.truncate() if harm == "cut" else raw.write(os.urandom(20_000))
    with pytest.raises(SpoolFaultError):
        use()
    use()
    assert met == ["corrupt"]
    assert sqlite_spool.is_sound(path)
    assert file.quarantined is not None
    assert file.quarantined.exists() == (harm != "gone")


def test_an_error_of_the_card_is_told_from_one_of_the_file_by_writing_another(tmp_path: Path) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
    assert sqlite_spool.fault(error, tmp_path) == "corrupt"
    assert sqlite_spool.fault(error, tmp_path / "no such card") is None
    assert list(tmp_path.iterdir()) == []


def test_what_a_broken_readings_file_still_held_is_declared_from_its_last_packet_to_the_end(road: Road) -> None:
    drive(road.writer, ONE, T0, 100)
    road.compact(closing=False)
    road.writer.renew("broken")
    road.reader.reopen()
    for _ in range(2):
        road.follow(T0 + 100_000)
        assert lost(road.outbox) == [Lost(ONE, T0 + MINUTE, T0 + 100_000, "readings", None, "corrupt")]
    road.declare()
    drive(road.writer, TWO, T0 + 101_000, 5)
    road.compact()
    assert [len(one.lost) for one in made(road.outbox)] == [0, 1]


def test_a_broken_file_whose_last_row_is_in_a_packet_has_lost_nothing(road: Road) -> None:
    drive(road.writer, ONE, T0, 70)
    road.compact()
    road.writer.renew("broken")
    road.reader.reopen()
    road.follow(T0 + 69_000)
    assert lost(road.outbox) == []


def test_what_was_written_by_a_clock_that_was_never_set_is_lost_from_its_last_packet_on(road: Road) -> None:
    drive(road.writer, ONE, T0, 100)
    road.compact(closing=False)
    road.writer.renew("broken")
    road.reader.reopen()
    road.follow(5_000)
    assert lost(road.outbox) == [Lost(ONE, T0 + MINUTE, T0 + MINUTE, "readings", None, "corrupt")]


def test_an_outbox_that_breaks_after_rows_of_its_packets_went_is_declared_as_far_as_they_are_gone(road: Road) -> None:
    drive(road.writer, ONE, T0, 180)
    road.compact()
    floor = road.outbox.row_after(road.writer.file_id, 0, 2)
    road.writer.forget(floor, 1000, road.outbox.bare_ms(road.writer.file_id, floor))
    road.outbox.renew("broken")
    for _ in range(2):
        road.follow(T0 + 200_000)
        assert lost(road.outbox) == [Lost(None, T0, T0 + MINUTE, "packets", None, "corrupt")]
    road.compact()
    assert len(made(road.outbox)) == 2


# Spools of the version before go on

_READINGS_1 = """
CREATE TABLE rows (seq INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL, kind TEXT NOT NULL,
    at_ms INTEGER NOT NULL, body TEXT NOT NULL, crc INTEGER NOT NULL) STRICT;
CREATE INDEX facts ON rows (session, kind, seq) WHERE kind <> 'reading';
CREATE TABLE floor (seq INTEGER NOT NULL) STRICT;
INSERT INTO floor VALUES (0);
PRAGMA user_version = 1
"""
_OUTBOX_1 = """
CREATE TABLE packets (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, envelope BLOB NOT NULL,
    sha256 TEXT NOT NULL UNIQUE, file_id INTEGER NOT NULL, first_row INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'receipted', 'rejected')),
    code TEXT, settled_ms INTEGER) STRICT;
CREATE INDEX rows_in_packets ON packets (file_id, first_row);
CREATE INDEX waiting ON packets (seq) WHERE state = 'waiting';
CREATE TABLE cursors (file_id INTEGER PRIMARY KEY, seq INTEGER NOT NULL) STRICT;
CREATE TABLE meta (epoch TEXT NOT NULL, ran_ms INTEGER NOT NULL) STRICT;
INSERT INTO meta VALUES ('eeeeeeeeeeeeeeee', 77);
PRAGMA user_version = 1
"""


def test_files_of_version_1_go_on_where_they_were(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "readings.db")
    db.executescript(f"PRAGMA application_id = 7; {_READINGS_1}")
    for kind, at_ms, body in [session_row(T0), *(reading_row(T0 + 1000 * n) for n in range(130))]:
        text = json.dumps(body, separators=(",", ":"))
        crc = zlib.crc32(f"{ONE}/{kind}/{at_ms}/{text}".encode())
        row = (ONE, kind, at_ms, text, crc)
        db.execute("INSERT INTO rows (session, kind, at_ms, body, crc) VALUES (?, ?, ?, ?, ?)", row)
    db.commit()
    db.close()
    db = sqlite3.connect(tmp_path / "outbox.db")
    db.executescript(_OUTBOX_1)
    db.execute(
        "INSERT INTO packets (id, envelope, sha256, file_id, first_row) VALUES (?, x'00', 'y', 7, 2)",
        (f"car_one/{ONE}/{minute_id(T0)}",),
    )
    db.execute("INSERT INTO cursors VALUES (7, 61)")
    db.commit()
    db.close()
    road = Road(tmp_path)
    assert (road.outbox.epoch, road.outbox.ran_ms, road.reader.file_id) == ("e" * 16, 77, 7)
    drive(road.writer, ONE, T0 + 130_000, 50, opening=False)
    road.compact(closing=True)
    assert [one.seq for one in road.outbox.waiting()] == [1, 2, 3]
    road.outbox.forget_unsent(1, "bound")
    assert lost(road.outbox) == [Lost(ONE, T0, T0 + MINUTE, "packets", 1, "bound")]
    assert road.outbox.first_row_kept(7) == 62
