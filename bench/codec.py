"""What columns cost and save against plain JSON rows: bytes and CPU, both ways, in the same run."""

import json
import time
import zlib
from collections.abc import Callable

from bench._minute import minute
from components.wire import packet
from components.wire.reading import Reading
from components.wire.signals import BY_KEY
from components.wire.times import parse_iso

TURNS = 40


def cpu_ms(run: Callable[[], object]) -> float:
    """Return CPU milliseconds of one run, the least of three rounds."""
    run()
    found = []
    for _ in range(3):
        begin = time.process_time()
        for _ in range(TURNS):
            run()
        found.append(time.process_time() - begin)
    return min(found) / TURNS * 1000


def main() -> None:
    """Print one line a step: ours, the peer, the ratio."""
    words, one = minute()
    readings = one.readings or ()
    columns = packet.pack(one)
    rows = json.dumps({"readings": [each.as_row() for each in readings], "summary": dict(one.summary)}).encode()

    def from_rows() -> list[Reading]:
        # As much as a program in another language would do: parse, and tell values from reasons.
        found = json.loads(rows)["readings"]
        return [Reading(parse_iso(r["at"]), {k: r[k] for k in BY_KEY if r[k] is not None}, r["why"]) for r in found]

    print(f"{words}: {len(readings)} readings of 43 signals; a ratio above 1 is in favour of columns")
    print(f"{'':44} columns   JSON rows   ratio")
    deflated, rows_deflated = len(zlib.compress(columns, 9)), len(zlib.compress(rows, 9))
    for name, ours, theirs, unit in (
        ("size", len(columns), len(rows), "B "),
        ("size, deflated (zlib 9, no dictionary)", deflated, rows_deflated, "B "),
        ("write", cpu_ms(lambda: packet.pack(one)), cpu_ms(lambda: json.dumps([r.as_row() for r in readings])), "ms"),
        ("deflate", cpu_ms(lambda: zlib.compress(columns, 9)), cpu_ms(lambda: zlib.compress(rows, 9)), "ms"),
        (
            "read and check for storing (no readings made)",
            cpu_ms(lambda: packet.read(packet.parse(columns), with_readings=False)),
            cpu_ms(from_rows),
            "ms",
        ),
        ("read into readings", cpu_ms(lambda: packet.read(packet.parse(columns))), cpu_ms(from_rows), "ms"),
    ):
        form = "9.0f" if unit == "B " else "9.3f"
        print(f"  {name:42} {ours:{form}} {theirs:{form}} {unit} {theirs / ours:6.2f} x")


if __name__ == "__main__":
    main()
