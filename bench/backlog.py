"""A backlog of 30 hours, 1,800 full minutes, through the real link: agent, router, persister, SQLite stores.

The car drives on meanwhile, with packets of 5 s: how long each of those waits for its receipt says whether the backlog
starves what is live. The disks are a temporary folder's.
"""

import secrets
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from Crypto.PublicKey import ECC

from bench._minute import minute
from components.cloud.config import ARCHIVE_URI, FEED_URI
from components.console.fleet import Car, Fleet, Plan
from components.console.tally import count
from components.edge.spool_view import SpoolView
from components.edge.sqlite_outbox import SqliteOutbox
from components.keyfile import read_key_file
from components.wire import bundle, envelope, packet, receipt
from components.wire.times import minute_id

PACKETS: Final = int(sys.argv[1]) if len(sys.argv) > 1 else 1800
_FILE: Final = 1
"""Of readings that are no more: their packets are here, and nothing needs to be made again."""
_LIMIT_S: Final = 600
_LOOK_S: Final = 0.2


def fill(fleet: Fleet, car: Car) -> int:
    """Put the backlog into the outbox of an agent that does not run; return its bytes."""
    _, one = minute()
    seed: Any = bytes.fromhex(read_key_file(car.directory / "device.key").private_key)
    key = ECC.construct(curve="Ed25519", seed=seed)
    kid = bundle.key_id(key.public_key().export_key(format="raw"))
    server = bundle.parse(fleet.home.bundle.read_text("utf-8")).recipients[0]
    outbox, size = SqliteOutbox(car.spool / "outbox.db"), 0
    for turn in range(PACKETS):
        later = turn * 60_000
        readings = tuple(replace(each, at_ms=each.at_ms + later) for each in one.readings or ())
        made = replace(one, device=car.device, start_ms=one.start_ms + later, readings=readings)
        start, seq = minute_id(made.start_ms), outbox.next_seq()
        header = envelope.Header(car.device, made.session, start, outbox.epoch, seq, server.kid, kid, alg=server.alg)
        sealed = envelope.seal(packet.pack(made), header, server.key(), key, secrets.token_bytes)
        rows, end_ms = (turn + 1, turn + 1), made.start_ms + 60_000
        outbox.add(made.id, sealed, receipt.digest(sealed), _FILE, rows, end_ms=end_ms)
        size += len(sealed)
    outbox.close()
    return size


def drained(car: Car) -> tuple[float, list[float]]:
    """Return the seconds from the first receipt of the backlog to the last, and those that each live packet waited."""
    began = time.monotonic()
    first, seen, waits = 0.0, dict[str, float](), list[float]()
    session = minute()[1].session
    while time.monotonic() - began < _LIMIT_S:
        now = time.monotonic()
        backlog = 0
        for one in SpoolView(car.spool).packets():
            if one.id.split("/")[1] == session:
                backlog += one.state != "receipted"
            elif one.state == "waiting":
                seen.setdefault(one.id, now)
            elif one.id in seen:
                waits.append(now - seen.pop(one.id))
        if backlog < PACKETS and not first:
            first = now
        if not backlog:
            return now - first, waits
        time.sleep(_LOOK_S)
    raise SystemExit(f"{backlog} of {PACKETS} packets have no receipt after {_LIMIT_S} s")


def main() -> None:
    """Print how long it took."""
    with tempfile.TemporaryDirectory(prefix="odograph-bench-") as folder:
        plan = Plan(Path(folder) / "var", 1, 5, parked=False, replay=None, archive=ARCHIVE_URI, feed=FEED_URI)
        with Fleet.made(plan, time.time_ns() // 1_000_000) as fleet:
            fleet.start()
            (car,) = fleet.cars
            while not any(one.state == "receipted" for one in SpoolView(car.spool).packets()):
                fleet.check()
                time.sleep(_LOOK_S)
            fleet.end_agents()
            size = fill(fleet, car)
            fleet.start_agent(car)
            took_s, waits = drained(car)
            print(f"{PACKETS} packets of {size / PACKETS:.0f} bytes: from the first receipt to the last {took_s:.1f} s")
            print(f"  {PACKETS / took_s:.0f} packets a second")
            if waits:
                print(f"  live packets meanwhile: {len(waits)}; from made to receipted, the random wait of up to 2.5 s")
                print(f"  included: median {median(waits):.1f} s, longest {max(waits):.1f} s")
            # What is receipted is stored; the feed comes after.
            end = time.monotonic() + _LIMIT_S
            while not count({car.device: car.spool}, plan.archive, plan.feed, fleet.home.path).balanced:
                if time.monotonic() > end:
                    raise SystemExit("not fed in time")
                time.sleep(1)
            print("  every packet made is stored once, fed whole and receipted")


if __name__ == "__main__":
    main()
