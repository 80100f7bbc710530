"""What the persister needs from the world, as Protocols, and the shapes that cross them. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

Outcome = Literal["stored", "duplicate", "conflict"]

MAX_WEIGHT: Final = 50_000
"""Opened at once: 800 minutes of one reading a second, or eight packets as full as the schema allows."""


@dataclass(frozen=True, slots=True)
class StoredPacket:
    """One packet as the archive keeps it: one document, nothing beside it.

    Attributes:
        id: `<device>/<session>/<minute>`; the archive's `_id`.
        device: Device id.
        session: 16 hex digits.
        start_ms: Start of the period, ms UTC.
        account, vehicle, driver: From the registry when it was stored; "" where the registry has none.
        packet: The plaintext's JSON object, columns as they travelled; {} where the archive cannot read it any more.
        envelope: The sealed bytes as they came.
        plaintext_sha256: Hex; two packets of one id are the same exactly when these are equal.
        received_ms: When the persister took it, ms UTC.
    """

    id: str
    device: str
    session: str
    start_ms: int
    account: str
    vehicle: str
    driver: str
    packet: Mapping[str, object]
    envelope: bytes
    plaintext_sha256: str
    received_ms: int

    @property
    def weight(self) -> int:
        """How many readings, codes, gaps and losses it has: what it takes in memory, and more than it gives events."""
        table = self.packet.get("readings")
        lists = [table.get("at") if isinstance(table, dict) else (), *map(self.packet.get, ("dtcs", "gaps", "lost"))]
        return sum(len(one) for one in lists if isinstance(one, list))


def page(packets: Iterable[StoredPacket], limit: int) -> list[StoredPacket]:
    """Return the first packets: at most `limit`, and of those after the first no more than weigh MAX_WEIGHT."""
    found: list[StoredPacket] = []
    weight = 0
    for one in packets:
        weight += one.weight
        if found and weight > MAX_WEIGHT:
            break
        found.append(one)
        if len(found) == limit:
            break
    return found


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An envelope that will never be right, kept for a person to look at.

    Attributes:
        envelope_sha256: Hex; the `_id`. Writing the same one again changes nothing.
        topic: Where it was published.
        code: The check that it failed.
        message: What was found.
        envelope: The bytes as they came.
        received_ms: ms UTC.
    """

    envelope_sha256: str
    topic: str
    code: str
    message: str
    envelope: bytes
    received_ms: int


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One CloudEvent 1.0: `topic` is car_readings, car_summaries or car_dtcs; `key` the device; `data` compact JSON.

    Attributes:
        id: `<packet id>/r<n>`, `/summary` or `/d<n>`; the same for the same content, for ever.
        type: `odograph.reading.v1`, `odograph.summary.v1`, `odograph.dtc.v1`.
        source: `odograph/device/<device>`.
        time: RFC 3339 UTC of what the event tells.
    """

    topic: str
    key: str
    id: str
    type: str
    source: str
    time: str
    data: bytes


class ArchiveReader(Protocol):
    """What can be asked of an archive beside a running persister. Blocks with a time-out, then UnavailableError."""

    def minutes(
        self, device: str, since_ms: int | None = None, until_ms: int | None = None, account: str | None = None
    ) -> Iterator[StoredPacket]:
        """Yield a device's packets with `since_ms <= start_ms < until_ms`, by start, then session.

        With an account those alone that were stored while the device was of that account, and no others are read.
        """

    def latest(self, device: str, account: str | None = None) -> StoredPacket | None:
        """Return the packet with the greatest start, of those of an account where one is given; None for none."""

    def counts(self) -> Mapping[str, int]:
        """Return how many `packets`, `pending`, `conflicts` and `dead_letters` there are."""

    def close(self) -> None:
        """Let go of the store; again does nothing."""


class Archive(ArchiveReader, Protocol):
    """Where packets are kept for ever. Every method blocks with a time-out; UnavailableError when the store is away.

    Two threads at a time: one stores, one feeds (`pending`, `mark_fed`), and where the store can, neither waits for the
    other.
    """

    def insert(self, packets: Sequence[StoredPacket]) -> list[Outcome]:
        """Store a batch in one round trip, each with `feed: pending`; one outcome a packet, in order.

        `duplicate`: that id is there with the same plaintext. `conflict`: with another one; the first stays, and this
        one is kept in `conflicts` (by id and plaintext hash, so once). An id that comes twice in one batch is judged
        as if it came in two. When it returns, all of that is durable.

        Raises:
            UnavailableError: Any of it may or may not be stored; inserting again is safe.
        """

    def put_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Keep them; durable when it returns."""

    def pending(self, before_ms: int, limit: int, but: Collection[str] = ()) -> list[StoredPacket]:
        """Return packets received before `before_ms` that are not marked fed, oldest first.

        At most `limit`, and no more than are in memory at once (see `page`); those with an id in `but` are passed over.
        """

    def mark_fed(self, ids: Sequence[str]) -> None:
        """Mark `feed: done`; marking again changes nothing."""


class Feed(Protocol):
    """Where events are announced to whoever listens."""

    def publish(self, events: Sequence[FeedEvent]) -> None:
        """Return when every event is acknowledged.

        Raises:
            UnavailableError: Some may be there; again is safe.
            RejectedError: `too_large`: one of them will never be taken; others may be there.
        """

    def close(self) -> None:
        """Flush nothing, let go of everything; again does nothing."""


class FeedReader(Protocol):
    """The other side of a feed, for `odograph feed tail` and for counting."""

    def read(self, *, from_start: bool, follow: bool) -> Iterator[FeedEvent]:
        """Yield events in the feed's order (per key, where the feed has partitions).

        Where to begin and where to end is settled by the call itself, not by the first event that is taken.

        Args:
            from_start: Begin at the oldest event that the feed still has; otherwise after the newest.
            follow: Wait for more until `close()`, which another thread may call; otherwise end at what was there.
        """

    def close(self) -> None:
        """Let go of everything; again does nothing."""
