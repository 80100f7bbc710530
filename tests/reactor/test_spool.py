"""A spool over its bound, with real files of a few MB: what goes, in which order, until it is below."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from components.edge import spool as spool_module
from components.edge import sqlite_spool
from components.edge.compactor import Compactor
from components.edge.spool import Spool
from components.edge.sqlite_outbox import SqliteOutbox, Waiting
from components.edge.sqlite_readings import ReadingsReader, ReadingsWriter
from components.edge.sqlite_spool import SpoolFaultError
from components.wire.times import minute_id
from tests.edge_parts import ONE, T0, TWO, drive, sealer
from tests.wamp_peer import comes, reactor, run

KB = 1000
MINUTE = 60_000
PACKETS, ROWS = 1000, 6000


class Owner:
    """What a spool needs of its agent."""

    def __init__(self) -> None:
        self.told: list[dict[str, object]] = []
        self.lost: dict[str, int] = {}

    def moment(self) -> tuple[str, int]:
        return ONE, T0 + 10_000 * MINUTE

    def ran_ms(self) -> int:
        return 1000

    def begin_session(self) -> None:
        raise AssertionError

    def begin_outbox(self) -> None:
        raise AssertionError

    def kept(self, packets: list[Waiting], *, fresh: bool) -> None:
        """It sends nothing."""

    def tell(self, name: str, what: dict[str, object]) -> None:
        self.told.append({"event": name, **what})


@pytest.fixture(autouse=True)
def small_ballast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_BALLAST_BYTES", 10 * KB)


def filled(directory: Path, receipted: int) -> int:
    """Write rows and packets of 1 KB made of them, the first so many with a receipt; return what the spool takes."""
    writer, outbox = ReadingsWriter(directory / "readings.db"), SqliteOutbox(directory / "outbox.db")
    outbox._connection.execute("PRAGMA synchronous = OFF")
    drive(writer, ONE, T0, ROWS)
    for n in range(PACKETS):
        start_ms, rows = T0 + n * MINUTE, (2 + 6 * n, 7 + 6 * n)
        name = f"car_one/{ONE}/{minute_id(start_ms)}"
        outbox.add(name, bytes(KB), f"{n:064x}", writer.file_id, rows, end_ms=start_ms + MINUTE)
    outbox.settle([(f"{n:064x}", "receipted", None) for n in range(receipted)], 0)
    for file in (writer, outbox):
        file.give_back(0, 0)
        file.close()
    return sqlite_spool.used_bytes(directory)


def tidied(directory: Path, max_bytes: int) -> Owner:
    owner = Owner()

    async def live() -> None:
        spool = Spool(reactor, directory, 10**9, max_bytes, "car_one", sealer())
        spool.start(owner)
        owner.lost = spool.lost
        # The first tidying takes the ballast when it is done.
        await comes((directory / "ballast").exists)
        await spool.end()
        spool.close()

    run(live)
    return owner


def left(directory: Path) -> tuple[int, int, int]:
    """Packets with and without a receipt, and rows."""
    outbox, reader = SqliteOutbox(directory / "outbox.db"), ReadingsReader(directory / "readings.db")
    counts = outbox.counts()
    outbox.close()
    return counts.receipted, counts.waiting, sum(row.kind == "reading" for row in reader.readings_after(0, 10_000))


def test_below_its_bound_a_spool_keeps_all(tmp_path: Path) -> None:
    used = filled(tmp_path, 400)
    tidied(tmp_path, 2 * used)
    assert left(tmp_path) == (400, PACKETS - 400, ROWS)


def test_packets_with_a_receipt_are_enough_where_they_are_enough(tmp_path: Path) -> None:
    used = filled(tmp_path, 800)
    owner = tidied(tmp_path, used - 300 * KB)
    receipted, waiting, rows = left(tmp_path)
    assert 0 < receipted < 800
    assert (waiting, rows) == (200, ROWS)
    assert owner.told == []


def test_rows_whose_packets_wait_go_before_any_packet_that_waits(tmp_path: Path) -> None:
    used = filled(tmp_path, 0)
    owner = tidied(tmp_path, used - 100 * KB)
    receipted, waiting, rows = left(tmp_path)
    assert (receipted, waiting) == (0, PACKETS)
    assert 0 < rows < ROWS
    assert owner.told == []


def test_the_oldest_packets_without_a_receipt_go_last_and_each_is_declared(tmp_path: Path) -> None:
    filled(tmp_path, 100)
    owner = tidied(tmp_path, 800 * KB)
    receipted, waiting, rows = left(tmp_path)
    assert (receipted, rows) == (0, 0)
    assert 0 < waiting < PACKETS - 100
    assert sum(one["count"] for one in owner.told if isinstance(one["count"], int)) == PACKETS - 100 - waiting
    assert {(one["event"], one["what"], one["reason"]) for one in owner.told} == {("lost_range", "packets", "bound")}
    assert owner.lost == {"bound": len(owner.told)}
    assert sqlite_spool.used_bytes(tmp_path) <= 800 * KB


def broken(path: Path) -> SpoolFaultError:
    return SpoolFaultError(path, "corrupt", sqlite3.DatabaseError("malformed"))


def test_a_readings_file_that_breaks_while_a_packet_is_sealed_again_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 0)
    owner, begun = Owner(), list[str]()
    monkeypatch.setattr(owner, "begin_session", lambda: begun.append("session"))

    def remake(_compactor: object, _seq: int) -> None:
        raise broken(tmp_path / "readings.db")

    monkeypatch.setattr(Compactor, "remake", remake)

    async def live() -> None:
        spool = Spool(reactor, tmp_path, 10**9, 10**9, "car_one", sealer())
        spool.start(owner)
        await comes((tmp_path / "ballast").exists)
        with pytest.raises(SpoolFaultError):
            await spool.outbox_lane.run(spool.remake, 1)
        await comes(lambda: spool.writer.quarantined is not None and spool._is_settled)
        await spool.end()
        spool.close()

    run(live)
    assert begun == ["session"]


def test_a_readings_file_that_breaks_at_the_start_keeps_no_packet_of_the_last_run_from_being_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, outbox = ReadingsWriter(tmp_path / "readings.db"), SqliteOutbox(tmp_path / "outbox.db")
    outbox.add(f"car_one/{ONE}/{minute_id(T0)}", b"sealed", "0" * 64, writer.file_id, (2, 61), end_ms=T0 + MINUTE)
    for file in (writer, outbox):
        file.close()
    owner, begun, sent = Owner(), list[str](), list[Waiting]()
    monkeypatch.setattr(owner, "begin_session", lambda: begun.append("session"))
    monkeypatch.setattr(owner, "kept", lambda packets, **_: sent.extend(packets))

    async def live() -> None:
        spool = Spool(reactor, tmp_path, 10**9, 10**9, "car_one", sealer())
        with closing(sqlite3.connect(tmp_path / "readings.db", isolation_level=None)) as other:
            other.execute("DELETE FROM floor")
        spool.start(owner)
        await comes(lambda: begun and spool._is_settled)
        await spool.end()
        spool.close()

    run(live)
    assert sent == [Waiting(1, "0" * 64)]


def test_nothing_is_forgotten_before_the_outbox_that_took_the_place_of_another_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(reactor, tmp_path, 10**9, 10**9, "car_one", sealer())

    async def follow(*_: object) -> None:
        spool.outbox.renew("a test's")
        raise broken(tmp_path / "outbox.db")

    monkeypatch.setattr(spool, "_follow", follow)
    monkeypatch.setattr(spool, "_owner", Owner(), raising=False)

    async def live() -> None:
        spool.outbox_lane.start()
        with pytest.raises(SpoolFaultError):
            await spool._take_up(ONE, T0, None)
        await spool.outbox_lane.close()

    run(live)
    spool.close()
    assert not spool._is_settled


def test_room_is_made_again_after_a_full_card_kept_a_readings_file_from_being_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = Owner()
    monkeypatch.setattr(owner, "begin_session", lambda: None)
    spool = Spool(reactor, tmp_path, 10**9, 10**9, "car_one", sealer())

    def full(*_: object) -> None:
        raise SpoolFaultError(tmp_path / "outbox.db", "full", sqlite3.OperationalError("database or disk is full"))

    async def live() -> None:
        spool.start(owner)
        await comes(lambda: spool._is_settled)
        monkeypatch.setattr(spool.outbox, "follow", full)
        spool._met(spool.writer, "corrupt")
        assert not spool._is_settled
        await comes(lambda: spool._is_settled)
        await spool.end()
        spool.close()

    run(live)


def test_what_is_recorded_after_a_file_broke_and_no_other_could_be_made_at_once_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a card that is full just then."""
    owner, kept = Owner(), set[int]()
    monkeypatch.setattr(owner, "begin_session", lambda: None)
    monkeypatch.setattr(owner, "kept", lambda packets, **_: kept.update(one.seq for one in packets))
    spool = Spool(reactor, tmp_path, 10**9, 10**9, "car_one", sealer())

    def full() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def live() -> None:
        spool.start(owner)
        await comes(lambda: spool._is_settled)
        await spool.file_lane.run(drive, spool.writer, ONE, T0, 90)
        with monkeypatch.context() as card:
            card.setattr(spool.writer, "_open", full)
            with pytest.raises(sqlite3.OperationalError):
                await spool._replace_readings()
            await comes(lambda: spool._is_settled)
        await spool.file_lane.run(drive, spool.writer, TWO, T0 + 5 * MINUTE, 61)
        await spool.compact()
        await spool.end()
        spool.close()

    run(live)
    assert len(kept) == 3
