"""Packets a second through the persister with the SQLite stores, step by step, beside one insert a packet.

Everything is the real thing but the router: sealed envelopes in, signed receipts, rows and events out. The disk is a
temporary folder's; what a transaction costs there is most of the difference between the two ways.
"""

import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from Crypto.PublicKey import ECC

from bench._minute import minute
from components.cloud.events import events
from components.cloud.judge import Addressee, Arrival, Judge
from components.cloud.keys import ServerKeys, load_server_keys
from components.cloud.persister import Persister, Result
from components.cloud.sqlite_archive import SqliteArchive
from components.cloud.sqlite_feed import SqliteFeed
from components.cloud.sqlite_registry import Registry
from components.console.home import make_home
from components.wire import bundle, envelope, packet, receipt, topics
from components.wire.times import minute_id

PACKETS: Final = 256
BATCH: Final = 64
DEVICES: Final = 8
ROUNDS: Final = 3


def envelopes(registry: Registry, keys: ServerKeys) -> list[Arrival]:
    """Seal the same minute again and again: other cars, other times."""
    _, one = minute()
    server = keys.newest.recipients[0]
    found = []
    for number in range(DEVICES):
        device = f"car_{number:02d}"
        key = ECC.generate(curve="Ed25519")
        public = key.public_key().export_key(format="raw")
        registry.add_device(device, public.hex(), 1)
        for turn in range(PACKETS // DEVICES):
            later = turn * 60_000
            readings = tuple(replace(each, at_ms=each.at_ms + later) for each in one.readings or ())
            made = replace(one, device=device, start_ms=one.start_ms + later, readings=readings)
            start, kid = minute_id(made.start_ms), bundle.key_id(public)
            header = envelope.Header(device, made.session, start, "0" * 16, turn + 1, server.kid, kid, alg=server.alg)
            sealed = envelope.seal(packet.pack(made), header, server.key(), key, secrets.token_bytes)
            found.append(Arrival(topics.packet(device), sealed, device, 1))
    return found


def persisted(
    keys: ServerKeys, registry: Registry, archive: SqliteArchive, arrivals: Sequence[Arrival], n: int
) -> None:
    """Take the arrivals n at a time: stored, and receipts signed."""
    persister = Persister(Judge(lambda: keys.unwrap, registry.sender), archive)
    for first in range(0, len(arrivals), n):
        sign(keys, persister.persist(arrivals[first : first + n]))


def sign(keys: ServerKeys, result: Result) -> None:
    """Sign a batch's receipts as the intake does, one message a device."""
    by_addressee: dict[Addressee, list[receipt.Receipt]] = {}
    for to, one in result.receipts:
        by_addressee.setdefault(to, []).append(one)
    for to, receipts in by_addressee.items():
        receipt.sign(receipts, keys.newest.kid, keys.signer(to.server_kid))


def took(run: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU milliseconds a packet."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return (time.perf_counter() - wall) / PACKETS * 1000, (time.process_time() - cpu) / PACKETS * 1000


def main() -> None:
    """Print the steps, then the two ways."""
    folder = Path(tempfile.mkdtemp(prefix="odograph-bench-"))
    try:
        home = make_home(folder / "var", 1)
        keys = load_server_keys(home.keys)
        with Registry.open(home.registry, write=True) as registry:
            arrivals = envelopes(registry, keys)
        registry = Registry.open(home.registry)
        judge = Judge(lambda: keys.unwrap, registry.sender)
        packets = [judge.judge(one) for one in arrivals]
        archive, feed = SqliteArchive(folder / "steps.db"), SqliteFeed(folder / "feed.db")
        batches = [packets[first : first + BATCH] for first in range(0, PACKETS, BATCH)]
        made = [[event for one in batch for event in events(one)] for batch in batches]
        to = Addressee("car_00", keys.newest.kid)
        receipts = [(to, receipt.Receipt(one.plaintext_sha256, one.id, "stored")) for one in packets]
        results = [Result(receipts[first : first + BATCH], []) for first in range(0, PACKETS, BATCH)]
        print(f"{PACKETS} packets, {len(made[0]) // BATCH} events each, {BATCH} at once: ms a packet")
        print(f"  {'':44}   wall    CPU")
        steps: tuple[tuple[str, Callable[[Any], object], Sequence[object]], ...] = (
            ("judge (signature, unwrap, inflate, checks)", judge.judge, arrivals),
            ("insert, in batches", archive.insert, batches),
            ("sign receipts, a message a device and batch", partial(sign, keys), results),
            ("events made", lambda one: list(events(one)), packets),
            ("events into the SQLite feed", feed.publish, made),
            ("mark as fed", archive.mark_fed, [[one.id for one in batch] for batch in batches]),
        )
        for name, step, over in steps:
            print("  {:44} {:6.3f} {:6.3f}".format(name, *took(lambda step=step, over=over: list(map(step, over)))))  # type: ignore[misc]
        best: dict[int, tuple[float, float]] = {}
        for turn in range(ROUNDS):
            for n in (BATCH, 1):
                with closing(SqliteArchive(folder / f"{n}-{turn}.db")) as fresh:
                    figures = took(partial(persisted, keys, registry, fresh, arrivals, n))
                best[n] = min(best.get(n, figures), figures)
        print(f"stored and receipted, packets a second, the best of {ROUNDS} rounds in turn:")
        for n, name in ((BATCH, f"{BATCH} at once"), (1, "one insert a packet (the peer)")):
            wall, cpu = best[n]
            print(f"  {name:44} {1000 / wall:6.0f}   CPU {cpu:.3f} ms each   {wall / best[BATCH][0]:.2f} x the time")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
