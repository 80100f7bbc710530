"""What recording costs the card: bytes written and flushes for one hour of 36 signals at 1 Hz, against plainer ways.

Each way records the same hour, as fast as it can, in a process of its own under strace, which tells every write and
every flush below its folder; without strace the kernel's own count of bytes is all there is. "Pages" is what the
kernel will bring to the card for it: 4096 bytes for each page that was touched between two flushes (0 on a tmpfs).
"""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench import _minute
from components.edge import minute
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.sqlite_readings import Kind, ReadingsWriter
from components.wire.signals import BY_KEY
from components.wire.times import minute_id

MINUTES: Final = 60
KEPT_MINUTES: Final = 20
PACKET_BYTES: Final = 2900
SESSION: Final = "00f1e2d3c4b5a697"
Rows = list[tuple[Kind, int, dict[str, object]]]


def hour() -> list[tuple[int, dict[str, object]]]:
    """Return an hour of readings as rows: time and body, slow signals with their ages."""
    found = []
    for n in range(MINUTES):
        for reading in _minute.modelled():
            ages = {
                key: 1 + (reading.at_ms // 7 + len(key)) % 5000 for key in reading.values if BY_KEY[key].tier in "MS"
            }
            aged = replace(reading, at_ms=reading.at_ms + n * 60_000, age_ms=ages)
            found.append((aged.at_ms, dict(minute.reading_body(aged))))
    return found


def spool(folder: Path) -> None:
    """Record as the edge does: rows, a packet a minute, its receipt, and what is old forgotten every ten minutes."""
    writer, outbox = ReadingsWriter(folder / "readings.db"), SqliteOutbox(folder / "outbox.db")
    opening = minute.session_body("gps", None, 1000, 60, "full", "0" * 16)
    rows = hour()
    writer.append(SESSION, [("session", rows[0][0], opening)])
    for n, (at_ms, body) in enumerate(rows, 1):
        writer.append(SESSION, [("reading", at_ms, body)])
        if n % 60 == 0:
            name, sha256 = f"car_one/{SESSION}/{minute_id(at_ms - at_ms % 60_000)}", f"{n:064x}"
            outbox.add(name, os.urandom(PACKET_BYTES), sha256, writer.file_id, (n - 58, n + 1), end_ms=at_ms)
            outbox.settle([(sha256, "receipted", None)], n)
        if n % 600 == 0:
            outbox.forget(n - 60 * KEPT_MINUTES, n, 200)
            writer.forget(outbox.first_row_kept(writer.file_id), 2000)
            for file in (outbox, writer):
                while file.give_back(1 << 19, 1 << 20):
                    pass


def json_lines(folder: Path) -> None:
    """Append a line of JSON a reading, and flush it: no index, no checksum, nothing ever forgotten."""
    with (folder / "readings.jsonl").open("ab", buffering=0) as file:
        for at_ms, body in hour():
            file.write(json.dumps([at_ms, body], separators=(",", ":")).encode() + b"\n")
            os.fdatasync(file.fileno())


def plain_sqlite(journal: str, synchronous: str) -> Callable[[Path], None]:
    """Return what inserts a row a reading into a table with AUTOINCREMENT, as one would write it at first."""

    def record(folder: Path) -> None:
        db = sqlite3.connect(folder / "readings.db", isolation_level=None)
        db.execute(f"PRAGMA journal_mode = {journal}")
        db.execute(f"PRAGMA synchronous = {synchronous}")
        db.execute("CREATE TABLE rows (seq INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER, body TEXT)")
        for at_ms, body in hour():
            db.execute("INSERT INTO rows (at_ms, body) VALUES (?, ?)", (at_ms, json.dumps(body, separators=(",", ":"))))

    return record


WAYS: Final[dict[str, Callable[[Path], None]]] = {
    "a line of JSON, flushed": json_lines,
    "plain SQLite, rollback journal": plain_sqlite("DELETE", "FULL"),
    "plain SQLite, WAL, FULL": plain_sqlite("WAL", "FULL"),
    "plain SQLite, WAL, NORMAL (loses at a power cut)": plain_sqlite("WAL", "NORMAL"),
    "the spool": spool,
}


def measured(name: str, folder: Path) -> tuple[int, int | None, int]:
    """Return bytes written, flushes (None where strace is missing), and bytes of touched pages of one way."""
    place, log = folder / "place", folder / "trace"
    place.mkdir()
    command = [sys.executable, "-m", "bench.card", name, str(place)]
    if shutil.which("strace"):
        calls = "trace=write,pwrite64,writev,pwritev,fsync,fdatasync,sync_file_range"
        command = ["strace", "-f", "-y", "--seccomp-bpf", "-e", calls, "-e", "signal=none", "-o", str(log), *command]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout
    counted, pages = map(int, told.split())
    if not log.exists():
        return counted, None, pages
    lines = [line for line in log.read_text().splitlines() if f"<{place}/" in line]
    written = sum(int(found[1]) for line in lines if "write" in line and (found := re.search(r"= (\d+)$", line)))
    return written, sum("sync(" in line for line in lines), pages


def child(name: str, place: Path) -> None:
    """Record one hour in one way, and print the kernel's count: bytes written, and bytes of touched pages."""

    def counts() -> dict[str, int]:
        lines = Path("/proc/self/io").read_text("ascii").splitlines()
        return {key: int(value) for key, value in (line.split(": ") for line in lines)}

    before = counts()
    WAYS[name](place)
    after = counts()
    print(after["wchar"] - before["wchar"], after["write_bytes"] - before["write_bytes"])


def main() -> None:
    """Print the table."""
    body = len(json.dumps(hour()[0][1], separators=(",", ":")))
    print(f"an hour of readings of {len(hour()[0][1]['values'])} signals, {body} bytes each as JSON")  # type: ignore[arg-type]
    print(f"\n{'':50} MB written   flushes   MB in pages   written, to a line of JSON")
    first = 0
    for name in WAYS:
        with tempfile.TemporaryDirectory(prefix="odograph-bench-") as folder:
            written, flushes, pages = measured(name, Path(folder))
        first = first or written
        told = "no strace" if flushes is None else str(flushes)
        print(f"{name:50} {written / 1e6:10.1f} {told:>9} {pages / 1e6:13.1f} {written / first:12.2f}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
