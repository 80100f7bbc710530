"""What became of every packet, counted in the stores themselves: spools, archive and feed. Blocking; reads only."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from components.cloud.events import event_ids
from components.cloud.stores import open_archive_reader, open_feed_reader
from components.edge.spool_view import SpooledPacket, SpoolView
from components.wire import packet as packets
from components.wire.times import parse_minute


@dataclass(frozen=True, slots=True)
class Tally:
    """The figures of a run; see `odograph demo --report`.

    Attributes:
        fed: Packets all of whose event ids were read back from the feed.
        duplicates: Packets that stand in the archive more than once.
        rejected: Packets that the server will never take.
    """

    made: int
    stored: int
    fed: int
    receipted: int
    duplicates: int
    rejected: int
    readings_recorded: int
    readings_stored: int
    packet_bytes: Mapping[str, float]
    devices: Sequence[str]
    archive: str
    feed: str

    @property
    def balanced(self) -> bool:
        """Whether every packet made is stored once, fed and receipted."""
        return self.made == self.stored == self.fed == self.receipted and not self.duplicates

    def as_report(self, replay_t0_ms: Mapping[str, int] | None) -> dict[str, object]:
        """Return the report's JSON object."""
        report = asdict(self)
        return report if replay_t0_ms is None else report | {"replay_t0_ms": replay_t0_ms}


def count(spools: Mapping[str, Path], archive_uri: str, feed_uri: str, base: Path) -> Tally:
    """Count the packets of these spools in all stores.

    Args:
        spools: Spool directory by device id.
        base: Where relative paths of the URIs begin.
    """
    made = {device: SpoolView(path).packets() for device, path in spools.items()}
    ids = {one.id for spooled in made.values() for one in spooled}
    stored: Counter[str] = Counter()
    expected: dict[str, list[str]] = {}
    sizes: list[int] = []
    readings = 0
    # Before anything is made there may be no archive yet.
    with closing(open_archive_reader(archive_uri, base)) if ids else nullcontext() as archive:
        for device, spooled in made.items():
            if archive is None:
                break
            for found in archive.minutes(device, _first_ms(spooled)):
                if found.id in ids:
                    opened = packets.read(found.packet)
                    stored[found.id] += 1
                    expected[found.id] = event_ids(opened)
                    sizes.append(len(found.envelope))
                    readings += len(opened.readings or ())
    fed = _fed_ids(feed_uri, base) if expected else set()
    states = Counter(one.state for spooled in made.values() for one in spooled)
    return Tally(
        made=len(ids),
        stored=len(stored),
        fed=sum(fed.issuperset(events) for events in expected.values()),
        receipted=states["receipted"],
        duplicates=sum(times - 1 for times in stored.values()),
        rejected=states["rejected"],
        readings_recorded=sum(SpoolView(path).readings() for path in spools.values()),
        readings_stored=readings,
        packet_bytes={
            "min": min(sizes, default=0),
            "median": median(sizes) if sizes else 0,
            "max": max(sizes, default=0),
        },
        devices=sorted(spools),
        archive=archive_uri,
        feed=feed_uri,
    )


def _first_ms(spooled: Sequence[SpooledPacket]) -> int | None:
    starts = [parse_minute(one.id.rsplit("/", 1)[1]) for one in spooled]
    return min(starts, default=None)


def _fed_ids(uri: str, base: Path) -> set[str]:
    with closing(open_feed_reader(uri, base)) as reader:
        return {event.id for event in reader.read(from_start=True, follow=False)}
