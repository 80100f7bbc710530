"""The memory of a persister at its worst: full packets that wait, an hour without archive, an hour without feed.

Each is a process of its own, whose greatest resident size the kernel knows. Intake, persister, judge and SQLite archive
are the real ones; packets come at once instead of through a router, and the feed only counts what it gets.
"""

import random
import resource
import secrets
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from Crypto.PublicKey import ECC
from twisted.internet.defer import Deferred, ensureDeferred

from bench._minute import minute
from components.cloud import wamp_intake
from components.cloud.config import ARCHIVE_URI
from components.cloud.judge import Arrival, Judge
from components.cloud.keys import ServerKeys, load_server_keys
from components.cloud.persister import Persister
from components.cloud.ports import FeedEvent
from components.cloud.sqlite_registry import Registry
from components.cloud.stores import open_archive
from components.cloud.wamp_intake import MAX_WAITING, MAX_WAITING_BYTES, Intake
from components.console.home import make_home
from components.wire import bundle, envelope, packet, receipt, strict_json, topics
from components.wire.receipt import Receipt
from components.wire.times import iso_s, minute_id

DEVICES: Final = 200
MINUTES: Final = 60
FULL: Final = 256


@dataclass
class HereLane:
    """A lane without threads; what is called while it is held waits."""

    held: bool = False
    _waiting: list[Deferred[None]] = field(default_factory=list)

    async def run(self, call: Callable[..., object], *args: object) -> object:
        """Call, now or after `let_go`."""
        if self.held:
            self._waiting.append(gate := Deferred[None]())
            await gate
        return call(*args)

    def let_go(self) -> None:
        """Call what waits, and all that comes."""
        self.held = False
        while self._waiting:
            self._waiting.pop(0).callback(None)


@dataclass
class CountingFeed:
    """A feed that keeps nothing."""

    events: int = 0

    def publish(self, events: Sequence[FeedEvent]) -> None:
        """Count them."""
        self.events += len(events)

    def close(self) -> None:
        """Nothing to let go of."""


class Session:
    """A session with the router that takes receipts, and hands on what a device publishes."""

    hear: Any = None

    def is_attached(self) -> bool:
        """Be there."""
        return True

    async def subscribe(self, hear: object, _topic: str, options: object) -> None:  # noqa: ARG002 - autobahn's name
        """Keep who hears."""
        self.hear = hear

    def publish(self, _topic: str, _receipts: bytes) -> None:
        """Take receipts."""


class Bench:
    """A persister and the devices that send to it."""

    def __init__(self, folder: Path) -> None:
        home = make_home(folder / "var", 1)
        self.keys: ServerKeys = load_server_keys(home.keys)
        self.key = ECC.generate(curve="Ed25519")
        public = self.key.public_key().export_key(format="raw")
        self.kid = bundle.key_id(public)
        with Registry.open(home.registry, write=True) as registry:
            for number in range(DEVICES):
                registry.add_device(name(number), public.hex(), 1)
        self.archive, self.feed = open_archive(ARCHIVE_URI, home.path), CountingFeed()
        self.judge = Judge(lambda: self.keys.unwrap, Registry.open(home.registry).sender)
        self.lane, self.statuses = HereLane(), Counter[str]()
        lane, feed_lane, session = self.lane, HereLane(), Session()
        self.intake = Intake(
            Persister(self.judge, self.archive), self.feed, _any(lane), _any(feed_lane), ["00"], self.sign
        )
        ensureDeferred(self.intake.attend(_any(session)))
        self.session = session
        _, one = minute()
        self.minute, self.form = one, packet.parse(packet.pack(one))

    def sign(self, kid: str, receipts: Sequence[Receipt]) -> bytes:
        """Sign as the service does, and count."""
        self.statuses.update(one.status for one in receipts)
        return receipt.sign(receipts, self.keys.newest.kid, self.keys.signer(kid))

    def hear(self, device: str, sealed: bytes) -> None:
        """Bring an envelope as the router would."""
        details: Any = type("Details", (), {"topic": topics.packet(device), "publisher_authid": device})
        self.session.hear(sealed, details=details)

    def seal(self, device: str, turn: int) -> bytes:
        """Seal the minute again as its device would: of another car, of another time."""
        one = replace(self.minute, device=device, start_ms=self.minute.start_ms + turn * 60_000)
        told = {"id": one.id, "device": device, "start": iso_s(one.start_ms)}
        server = self.keys.newest.recipients[0]
        start = minute_id(one.start_ms)
        header = envelope.Header(device, one.session, start, "0" * 16, 1, server.kid, self.kid, alg=server.alg)
        return envelope.seal(strict_json.dumps(self.form | told), header, server.key(), self.key, secrets.token_bytes)

    def make_full(self) -> None:
        """Let the minute be nearly as large as an envelope may be, from now on."""
        noise = random.Random(1)  # noqa: S311 - figures
        table: Any = self.form["readings"]
        at = [0] + [9] * (packet.MAX_READINGS - 1)
        columns: dict[str, object] = dict.fromkeys(table["columns"], "no_data")
        for key in ("altitude", "climb", "gps_speed", "temp", "heading"):
            columns[key] = {"v": [noise.randrange(10**16) / 10**14 for _ in at]}
        self.form["readings"] = {"at": at, "columns": columns, "measured": [], "why": {}}


def name(number: int) -> str:
    """Return a device's id."""
    return f"car_{number:03d}"


def _any(double: object) -> Any:  # noqa: ANN401 - a double of what it is called with
    return double


def nothing(_: Bench) -> None:
    """Only be there."""


def full_packets(bench: Bench) -> None:
    """The queue is full of full packets; then they are stored, and the first of them fed."""
    bench.make_full()
    bench.lane.held = True
    for turn in range(FULL):
        bench.hear(name(0), bench.seal(name(0), turn))
    waiting = bench.intake.waiting
    print(f"    {waiting['intake']} wait, {waiting['bytes'] / 2**20:.0f} of {MAX_WAITING_BYTES / 2**20:.0f} MiB")
    bench.lane.let_go()
    print(f"    receipts {dict(bench.statuses)}, fed {bench.intake.fed}")


def archive_away(bench: Bench) -> None:
    """An hour of a fleet comes while the archive's driver waits for its server; then it is back."""
    sealed = {name(number): bench.seal(name(number), 0) for number in range(DEVICES)}
    bench.lane.held = True
    for _ in range(MINUTES):
        for device, data in sealed.items():
            bench.hear(device, data)
    print(f"    {bench.intake.waiting['intake']} of at most {MAX_WAITING} wait, {dict(bench.statuses)} meanwhile")
    bench.lane.let_go()
    sweep(bench)


def feed_away(bench: Bench) -> None:
    """A quarter of an hour of a fleet is stored and not fed; then a sweep feeds it all."""
    one = bench.judge.judge(Arrival(topics.packet(name(0)), bench.seal(name(0), 0), name(0), 1))
    for number in range(DEVICES):
        device = name(number)
        ids = (f"{device}/{one.session}/{turn}" for turn in range(MINUTES // 4))
        bench.archive.insert([replace(one, id=id_, device=device) for id_ in ids])
    sweep(bench)


def sweep(bench: Bench) -> None:
    """Feed what is pending, however new it is, and count."""
    before = dict(bench.archive.counts())
    wamp_intake.SWEEP_AFTER_MS = -(10**9)  # type: ignore[misc]
    bench.intake.sweep()
    print(f"    receipts {dict(bench.statuses)}, {before['pending']} pending, then fed {bench.intake.fed} in all")


SCENES: Final[dict[str, Callable[[Bench], None]]] = {
    "nothing": nothing,
    "full packets": full_packets,
    "archive away": archive_away,
    "feed away": feed_away,
}


def main(names: Sequence[str]) -> None:
    """Run one scene here, or each in a process."""
    if not names:
        for scene in SCENES:
            subprocess.run([sys.executable, __file__, scene], check=True)
        return
    with tempfile.TemporaryDirectory(prefix="odograph-bench-") as folder:
        run = SCENES[names[0]]
        print(f"  {names[0]}: {run.__doc__}", flush=True)
        run(Bench(Path(folder)))
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"    peak RSS {peak_kib / 1024:.0f} MiB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
