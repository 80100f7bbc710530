"""How a fleet comes back after the router was away: do its devices stampede?

python -m tests.campaign.stampede [--devices N] [--down SECONDS]

Every device is the edge's own component, link, uplink and outbox, all in one process; each has sealed packets while
the router is down. What is printed: in which tenth of a second, at most, how many of them join and publish.
"""

import argparse
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from autobahn.twisted.wamp import ApplicationSession
from Crypto.PublicKey import ECC
from twisted.internet import task, threads
from twisted.internet.defer import Deferred, ensureDeferred

from components import keyfile
from components.cloud.config import ARCHIVE_URI, FEED_URI
from components.cloud.sqlite_registry import Registry
from components.console.fleet import Fleet, Plan
from components.console.node import Node
from components.edge import config as edge_config
from components.edge.agent import EdgeComponent
from components.edge.compactor import Sealer
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.system_clock import elapsed_s
from components.edge.trust import Trust
from components.edge.uplink import Uplink
from components.edge.wamp_link import WampLink
from components.edge.wamp_trust import WampTrust
from components.lane import Lane
from components.wire import bundle, receipt
from components.wire.topics import DEVICE_PROCEDURES
from tests.wire_made import START_MS, minute

_PACKETS: Final = 3
_SPREAD_S: Final = 30.0
"""As a device of 60 s has."""
_WITHIN_S: Final = 120.0

_TOML: Final = """\
[device]
id = "{id}"
key = "device.key"
[router]
url = "{router}"
[server]
bundle = "{bundle}"
[spool]
dir = "spool"
"""


@dataclass
class Seen:
    """When what happened, in seconds of elapsed time."""

    joined: list[float] = field(default_factory=list)
    published: list[float] = field(default_factory=list)

    def forget(self) -> None:
        """Begin afresh."""
        self.joined.clear()
        self.published.clear()


class Offers:
    """Procedures that nobody calls."""

    def procedures(self) -> Mapping[str, Callable[..., Awaitable[object]]]:
        async def answer(**_: object) -> None: ...

        return dict.fromkeys(DEVICE_PROCEDURES, answer)


class WatchedLink(WampLink):
    """The link, telling when it joins and publishes."""

    seen: Seen

    async def attend(self, session: ApplicationSession, device: Any) -> None:  # noqa: ANN401
        self.seen.joined.append(elapsed_s())
        publish = session.publish

        def watched(topic: str, *args: Any, **named: Any) -> Any:  # noqa: ANN401
            if topic.startswith("odograph.packet."):
                self.seen.published.append(elapsed_s())
            return publish(topic, *args, **named)

        session.publish = watched
        await super().attend(session, device)


@dataclass
class Half:
    """What the component needs of an agent that records nothing."""

    link: WatchedLink
    device: Offers = field(default_factory=Offers)

    async def finish(self) -> None:
        self.link.end()
        await self.link.outbox_lane.close()


class Device(EdgeComponent):
    """The edge's component without a car: its packets are made when asked for."""

    def __init__(self, directory: Path, seen: Seen) -> None:
        config = edge_config.load(directory / "edge.toml")
        super().__init__(config)
        key = keyfile.read_key_file(config.device.key)
        server = bundle.parse(config.server.bundle.read_text())
        seed: Any = bytes.fromhex(key.private_key)
        signing = ECC.construct(curve="Ed25519", seed=seed)
        kid = bundle.key_id(signing.public_key().export_key(format="raw"))
        self._trust = Trust(server, config.server.suite)
        self._sealer = Sealer(lambda: self._trust.sealing, signing, kid, secrets.token_bytes)
        config.spool.dir.mkdir()
        self.outbox = SqliteOutbox(config.spool.dir / "outbox.db")
        self._edge, self._seen = config, seen
        self._run_name = secrets.token_hex(8)
        self._made = 0

    async def begin(self, reactor: Any) -> None:  # noqa: ANN401
        reactor.seconds = elapsed_s
        lane = Lane(reactor, "outbox")
        lane.start()
        uplink = Uplink(_SPREAD_S, random.random)
        half: Any = Half(
            WatchedLink(
                reactor,
                self._edge.device.id,
                uplink,
                self.outbox,
                lane,
                WampTrust(reactor, self._trust, lambda _: None, lane),
                lambda: 0,
                lambda _: None,
            )
        )
        half.link.seen = self._seen
        self._agent = half

    @property
    def link(self) -> WampLink:
        assert self._agent is not None
        return self._agent.link

    def make(self) -> None:
        """Seal a packet, long ago as it were: its turn to be published has come."""
        packet = minute(
            (), device=self._edge.device.id, session=self._run_name, start_ms=START_MS + self._made * 60_000
        )
        self._made += 1
        sealed = self._sealer.seal(packet, self.outbox.epoch, self.outbox.next_seq())
        before = self.outbox.next_seq()
        self.outbox.add(
            packet.id, sealed, receipt.digest(sealed), 1, (self._made, self._made), end_ms=packet.start_ms + 60_000
        )
        self.link.kept(self.outbox.waiting(before - 1), fresh=False)


def most(times: Sequence[float], width_s: float) -> int:
    """Return how many fall into one slice of that width, at most.

    >>> most([0.01, 0.02, 0.15], 0.1)
    2
    """
    return max(Counter(int(at / width_s) for at in times).values(), default=0)


async def _until(reactor: Any, done: Callable[[], bool], what: str) -> None:  # noqa: ANN401
    end = time.monotonic() + _WITHIN_S
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(what)
        await task.deferLater(reactor, 0.1)


async def _run(reactor: Any, fleet: Fleet, node: Node, devices: int, down_s: float) -> None:  # noqa: ANN401
    seen = Seen()
    ours = [Device(_written(fleet, f"car_{n:03d}"), seen) for n in range(devices)]
    for one in ours:
        one.start(reactor)
    await _until(reactor, lambda: all(one.link.connected for one in ours), "all joined")
    for one in ours:
        one.make()
    await _until(reactor, lambda: all(one.link.uplink.idle for one in ours), "all receipted")
    _say(f"{devices} devices, all joined; the router is away for {down_s:.0f} s")
    node.kill()
    await task.deferLater(reactor, down_s)
    for one in ours:
        for _ in range(_PACKETS):
            one.make()
    seen.forget()
    launched = elapsed_s()
    node.launch(log_level="warn")
    await threads.deferToThread(node.wait_until_ready)
    back = elapsed_s()
    _say(f"the router is back after {back - launched:.1f} s")
    await _until(reactor, lambda: all(one.link.uplink.idle for one in ours), "all receipted")
    for one in ours:
        await one.finish()
    counts = sum((Counter(one.link.counts) for one in ours), Counter[str]())
    for name, times in (("joins", seen.joined), ("publications", seen.published)):
        _say(
            f"{len(times)} {name} from {min(times) - back:.1f} to {max(times) - back:.1f} s after that; "
            f"at most {most(times, 0.1)} in a tenth of a second, {most(times, 1.0)} in a second"
        )
    _say(f"all receipted {elapsed_s() - back:.1f} s after that: {dict(counts)}")


def _written(fleet: Fleet, device: str) -> Path:
    directory = fleet.home.path / "cars" / device
    directory.mkdir(parents=True)
    key = keyfile.make_key(device, "device")
    keyfile.write_key_file(directory / "device.key", key)
    text = _TOML.format(id=device, router=fleet.urls.devices, bundle=fleet.home.bundle)
    (directory / "edge.toml").write_text(text)
    with Registry.open(fleet.home.registry, write=True) as registry:
        registry.add_device(device, key.public_key, START_MS)
    return directory


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--down", type=float, default=5.0, metavar="SECONDS")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="odograph-stampede-") as directory:
        plan = Plan(Path(directory) / "home", 0, 60, parked=True, replay=None, archive=ARCHIVE_URI, feed=FEED_URI)
        with Fleet.made(plan, START_MS) as fleet, Node(fleet.home.path / "router", fleet.urls) as node:
            fleet.start_persister()

            def measure(reactor: Any) -> Deferred[None]:  # noqa: ANN401
                return ensureDeferred(_run(reactor, fleet, node, asked.devices, asked.down))

            task.react(measure, [])


if __name__ == "__main__":
    main(sys.argv[1:])
