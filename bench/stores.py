"""What a packet costs in each store on this machine: time to be durable, as a ratio to the plain way.

The plain way is one insert a packet, and a producer made for each packet. FerretDB and Kafka take part where
`make services` has put them.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from components.cloud.kafka_feed import KafkaFeed
from components.cloud.mongo_archive import MongoArchive
from components.cloud.ports import Archive, Feed, FeedEvent, StoredPacket
from components.cloud.sqlite_archive import SqliteArchive
from components.cloud.sqlite_feed import SqliteFeed
from tests.services import servers

BATCH = 64
ROUNDS = 8


def packet(number: int) -> StoredPacket:
    """Return a packet as large as a real minute of 58 readings in 36 columns."""
    columns: dict[str, object] = {f"signal_{n}": [number * n % 251 + k / 4 for k in range(58)] for n in range(36)}
    id_ = f"car{number % 7}/00000000000000aa/{number}"
    content = {"id": id_, "readings": columns}
    return StoredPacket(
        id_, f"car{number % 7}", "00000000000000aa", number, "", "", "", content, bytes(2600), f"{number:064x}", number
    )


def events(number: int) -> list[FeedEvent]:
    """Return the 59 events of such a packet: its readings and its summary."""
    id_, at = f"car1/00000000000000aa/{number}", "2026-11-22T02:00:00.000Z"
    readings = [
        FeedEvent("car_readings", "car1", f"{id_}/r{n}", "odograph.reading.v1", "odograph/device/car1", at, bytes(400))
        for n in range(58)
    ]
    summary = FeedEvent("car_summaries", "car1", f"{id_}/summary", "odograph.summary.v1", "", at, bytes(3000))
    return [*readings, summary]


def per_packet(run: Callable[[int], object], packets: int) -> tuple[float, float]:
    """Return wall and CPU milliseconds a packet of ROUNDS runs (after one that does not count)."""
    run(0)
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(1, ROUNDS + 1):
        run(number)
    n = ROUNDS * packets / 1000
    return (time.perf_counter() - wall) / n, (time.process_time() - cpu) / n


def archive_ways(name: str, archive: Archive) -> Iterator[tuple[str, float, float]]:
    """Yield what storing costs one by one, then in a batch."""
    turns = [[packet(turn * BATCH + n) for n in range(BATCH)] for turn in range(2 * ROUNDS + 2)]
    yield f"{name}, one by one", *per_packet(lambda turn: [archive.insert([x]) for x in turns[turn]], BATCH)
    yield f"{name}, {BATCH} at once", *per_packet(lambda turn: archive.insert(turns[-1 - turn]), BATCH)
    archive.close()


def feed_ways(name: str, make: Callable[[], Feed]) -> Iterator[tuple[str, float, float]]:
    """Yield what feeding costs with a feed made for each packet, with one that stays, and for eight packets at once."""

    def anew(turn: int) -> None:
        feed = make()
        feed.publish(events(turn))
        feed.close()

    yield f"{name}, a new one each packet", *per_packet(anew, 1)
    feed = make()
    yield f"{name}, one packet", *per_packet(lambda turn: feed.publish(events(turn)), 1)
    many = per_packet(lambda turn: feed.publish([x for n in range(8) for x in events(turn * 8 + n)]), 8)
    yield f"{name}, 8 packets at once", *many
    feed.close()


def table(title: str, rows: list[tuple[str, float, float]]) -> None:
    """Print the rows, each with its ratio to the first."""
    print(f"\n{title:44} wall ms   own CPU ms   times cheaper")
    for name, wall, cpu in rows:
        print(f"{name:44} {wall:7.2f}   {cpu:10.2f}   {rows[0][1] / wall:13.1f}")


@contextmanager
def running(make: Callable[[Path], servers.Server], folder: Path) -> Iterator[servers.Server]:
    """Run a server for as long as the block."""
    folder.mkdir()
    server = make(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def main() -> None:
    """Print two tables: archives, then feeds."""
    folder = Path(tempfile.mkdtemp(prefix="odograph-bench-"))
    try:
        title = "to store a packet of 58 readings"
        table(title, list(archive_ways("SQLite archive", SqliteArchive(folder / "archive.db"))))
        if servers.FERRETDB.exists():
            with running(servers.ferretdb, folder / "ferretdb") as server:
                archive = MongoArchive(f"mongodb://127.0.0.1:{server.port}/bench")
                table(title, list(archive_ways("FerretDB archive", archive)))
        table("to feed its 59 events", list(feed_ways("SQLite feed", lambda: SqliteFeed(folder / "feed.db"))))
        if servers.KAFKA_LIBS.exists():
            with running(servers.kafka, folder / "kafka") as server:
                table(
                    "to feed its 59 events",
                    list(feed_ways("Kafka feed", lambda: KafkaFeed(f"127.0.0.1:{server.port}"))),
                )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
