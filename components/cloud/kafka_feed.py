"""Events in Apache Kafka, by kafka-python: for any number of persisters and consumers. Rim.

Not tied to that driver beyond this file: another producer is another class behind `Feed` (facts.md has the price of a
packet with each), with the same topics, keys and headers.

Source of the headers: CloudEvents 1.0, Kafka protocol binding, binary content mode,
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, MessageSizeTooLargeError, TopicAlreadyExistsError
from kafka.net.compat import KafkaNetClient

from components.cloud.ports import FeedEvent
from components.wire.errors import OperatorError, RejectedError, UnavailableError

TOPICS = ("car_readings", "car_summaries", "car_dtcs")

PARTITIONS = 6
"""Of each topic, where it is made here; so many consumers of a group can share it."""

BOOTSTRAP_MS = 5_000
"""How long a call looks for a broker."""

REQUEST_MS = 5_000
"""How long a broker may take to answer before it is asked again."""

DELIVERY_MS = 10_000
"""After this an event is given up, for good: none arrives after publish() has said that it did not."""

PUBLISH_S = 15.0
"""How long publish() waits in all; more than the above, so that the driver's own verdict comes first."""

CLOSE_S = 5.0

LINGER_MS = 50
"""Only keeps the driver from sending the first event alone: publish() flushes, so no event waits for so long."""

BATCH_BYTES = 262_144
"""A packet's events (60 of 0.4 KB), and those of several packets, travel as one."""

STALL_S = 30.0
"""A reader that does not follow gives up when Kafka says nothing for so long."""

POLL_MS = 200

# The driver's view of an outage is in the UnavailableError; its own lines would come a hundred times over.
logging.getLogger("kafka").addHandler(logging.NullHandler())

T = TypeVar("T")


class KafkaFeed:
    """A Feed into three topics, with one producer for as long as this object lives.

    It can be made while Kafka is away: each publish says so, until it is back. The first publish that reaches Kafka
    (one of nothing will do) makes the topics where they are missing; those that exist stay as they are.

    Args:
        bootstrap: `host:port[,host:port…]`.
        partitions: Of a topic that is made, at least 1.
        prefix: Before the topics' names, where several odographs share one Kafka.
    """

    def __init__(self, bootstrap: str, partitions: int = PARTITIONS, prefix: str = "") -> None:
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._prefix = prefix
        self._producer: Any = None

    def publish(self, events: Sequence[FeedEvent]) -> None:
        """See Feed; within PUBLISH_S, or BOOTSTRAP_MS more where Kafka has to be found first."""
        with _unavailable(self._bootstrap):
            if self._producer is None:
                self._make_topics()
                self._producer = self._connect()
            try:
                self._send(events)
            except BaseException:
                # It may be in a state that it cannot leave (its sequence numbers, after a broker lost its disk).
                self.close()
                raise

    def _send(self, events: Sequence[FeedEvent]) -> None:
        deadline = time.monotonic() + PUBLISH_S
        send, prefix = self._producer.send, self._prefix
        futures = [send(prefix + x.topic, key=x.key.encode(), value=x.data, headers=_headers(x)) for x in events]
        if futures:
            # Where it split a batch that the broker found too large, the driver's flush fails although all has arrived.
            with suppress(KafkaError):
                self._producer.flush(PUBLISH_S)
        for future in futures:
            future.get(max(0.0, deadline - time.monotonic()))

    def _connect(self) -> Any:  # noqa: ANN401 (kafka-python has no types)
        return _open(
            KafkaProducer,
            bootstrap_servers=self._bootstrap.split(","),
            client_id="odograph",
            acks="all",
            enable_idempotence=True,
            linger_ms=LINGER_MS,
            batch_size=BATCH_BYTES,
            bootstrap_timeout_ms=BOOTSTRAP_MS,
            max_block_ms=BOOTSTRAP_MS,
            request_timeout_ms=REQUEST_MS,
            delivery_timeout_ms=DELIVERY_MS,
            reconnect_backoff_max_ms=1_000,
            allow_auto_create_topics=False,
        )

    def _make_topics(self) -> None:
        admin = _open(
            KafkaAdminClient,
            bootstrap_servers=self._bootstrap.split(","),
            client_id="odograph",
            bootstrap_timeout_ms=BOOTSTRAP_MS,
            request_timeout_ms=REQUEST_MS,
        )
        try:
            wanted = {self._prefix + topic for topic in TOPICS} - set(admin.list_topics())
            if wanted:
                with suppress(TopicAlreadyExistsError):  # by another persister, at the same time
                    admin.create_topics({topic: {"num_partitions": self._partitions} for topic in sorted(wanted)})
                admin.wait_for_topics(sorted(wanted), timeout_ms=REQUEST_MS)
        finally:
            admin.close()

    def close(self) -> None:
        """See Feed."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError):  # Kafka is away: nothing is waiting to be sent, so nothing is lost
                producer.close(timeout=CLOSE_S)


class KafkaFeedReader:
    """A FeedReader on the three topics, one read at a time; it belongs to no consumer group and takes nothing away.

    Args:
        bootstrap: `host:port[,host:port…]`.
        prefix: As the feed's.

    Raises:
        UnavailableError: No broker answers.
    """

    def __init__(self, bootstrap: str, prefix: str = "") -> None:
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._guard = threading.Lock()  # close() may come from another thread than read(); the driver bears only one
        self._closed = threading.Event()
        with _unavailable(bootstrap):
            self._consumer = _open(
                KafkaConsumer,
                bootstrap_servers=bootstrap.split(","),
                client_id="odograph-reader",
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                bootstrap_timeout_ms=BOOTSTRAP_MS,
                reconnect_backoff_max_ms=1_000,
                allow_auto_create_topics=False,
            )

    def read(self, *, from_start: bool, follow: bool) -> Iterator[FeedEvent]:
        """See FeedReader; events of one key keep their order, and one topic's know nothing of another's.

        Raises:
            OperatorError: There are no such topics.
            UnavailableError: Kafka went away (a follower waits for it instead).
        """
        with self._guard, _unavailable(self._bootstrap):
            parts = [
                TopicPartition(self._prefix + topic, number)
                for topic in TOPICS
                for number in self._consumer.partitions_for_topic(self._prefix + topic)
            ]
            if not parts:
                missing = self._prefix + TOPICS[0]
                raise OperatorError(
                    f"there is no topic {missing} at kafka://{self._bootstrap}", "a persister makes it when it starts"
                )
            self._consumer.assign(parts)
            ends = self._consumer.end_offsets(parts)
            starts = self._consumer.beginning_offsets(parts) if from_start else ends
            for part in parts:
                self._consumer.seek(part, starts[part])
        return self._events(dict(starts), None if follow else dict(ends))

    def _events(self, places: dict[Any, int], ends: Mapping[Any, int] | None) -> Iterator[FeedEvent]:
        heard = time.monotonic()
        while ends is None or any(places[part] < end for part, end in ends.items()):
            with self._guard, _unavailable(self._bootstrap):
                if self._closed.is_set():
                    return
                batches = self._consumer.poll(timeout_ms=POLL_MS)
                for part in batches:
                    # A position counts past records that no reader is shown, such as a transaction's marks.
                    places[part] = self._consumer.position(part)
            if batches:
                heard = time.monotonic()
            elif ends is not None and time.monotonic() - heard > STALL_S:
                raise UnavailableError(f"Kafka at {self._bootstrap} has said nothing for {STALL_S:.0f} s")
            for part, records in batches.items():
                for record in records:
                    if ends is None or record.offset < ends[part]:
                        yield self._event(record)

    def _event(self, record: Any) -> FeedEvent:  # noqa: ANN401 (kafka-python has no types)
        headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
        return FeedEvent(
            topic=record.topic.removeprefix(self._prefix),
            key=(record.key or b"").decode("utf-8", "replace"),
            id=headers.get("ce_id", ""),
            type=headers.get("ce_type", ""),
            source=headers.get("ce_source", ""),
            time=headers.get("ce_time", ""),
            data=record.value or b"",
        )

    def close(self) -> None:
        """See FeedReader; a follower's iteration ends."""
        self._closed.set()
        with self._guard, suppress(KafkaError):
            self._consumer.close()


def _headers(event: FeedEvent) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", event.id.encode()),
        ("ce_source", event.source.encode()),
        ("ce_type", event.type.encode()),
        ("ce_time", event.time.encode()),
        ("content-type", b"application/json"),
    ]


def _open(make: Callable[..., T], **options: object) -> T:
    """Make one of the driver's clients; when that fails, close what it leaves behind: a thread and five descriptors.

    An outage of a night is ten thousand attempts.
    """
    made: list[Any] = []

    def network(**config: object) -> object:
        made.append(KafkaNetClient(**config))
        return made[-1]

    try:
        return make(kafka_client=network, **options)
    except BaseException:
        for client in made:
            client.close()
        raise


@contextmanager
def _unavailable(bootstrap: str) -> Iterator[None]:
    """Turn what kafka-python raises in the block into UnavailableError; a name that does not resolve is an OSError."""
    try:
        yield
    except MessageSizeTooLargeError as error:
        raise RejectedError("too_large", f"an event is larger than Kafka at {bootstrap} takes") from error
    except (KafkaError, OSError) as error:
        raise UnavailableError(f"Kafka at {bootstrap}: {error}") from error
