"""What only the Kafka feed promises: the form of a record, the topics, and a Kafka that goes away."""

import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.admin import ConfigResource

from components.cloud import kafka_feed
from components.cloud.kafka_feed import TOPICS, KafkaFeed, KafkaFeedReader
from components.cloud.ports import FeedEvent
from components.console.node import free_port
from components.wire.errors import OperatorError, RejectedError, UnavailableError
from tests.services.servers import Server, Service
from tests.waiting import PATIENCE_S, when_there


def event(number: int, topic: str = "car_readings", key: str = "car1") -> FeedEvent:
    source, at = f"odograph/device/{key}", "2026-11-22T02:00:00.000Z"
    return FeedEvent(topic, key, f"{key}/00000000000000aa/1/r{number}", "odograph.reading.v1", source, at, b'{"n":1}')


@pytest.fixture
def prefix() -> str:
    return f"odograph_test_{uuid.uuid4().hex[:12]}."


@pytest.fixture
def feed(kafka: Service, prefix: str) -> Iterator[KafkaFeed]:
    feed = KafkaFeed(kafka.address, 4, prefix)
    yield feed
    feed.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BOOTSTRAP_MS": 1_000, "REQUEST_MS": 1_000, "DELIVERY_MS": 2_000, "PUBLISH_S": 4.0}.items():
        monkeypatch.setattr(kafka_feed, name, value)


def everything(address: str, prefix: str) -> list[FeedEvent]:
    reader = KafkaFeedReader(address, prefix)
    events = list(reader.read(from_start=True, follow=False))
    reader.close()
    return events


def test_a_record_is_a_cloudevent_in_binary_mode_keyed_by_the_device(
    feed: KafkaFeed, kafka: Service, prefix: str
) -> None:
    feed.publish([event(7)])
    consumer = KafkaConsumer(prefix + "car_readings", bootstrap_servers=kafka.address, auto_offset_reset="earliest")
    record = next(consumer)
    consumer.close()
    assert (record.key, record.value) == (b"car1", b'{"n":1}')
    assert record.headers == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"car1/00000000000000aa/1/r7"),
        ("ce_source", b"odograph/device/car1"),
        ("ce_type", b"odograph.reading.v1"),
        ("ce_time", b"2026-11-22T02:00:00.000Z"),
        ("content-type", b"application/json"),
    ]


def test_the_topics_are_made_by_a_publish_of_nothing_with_their_partitions_and_stay_as_they_are(
    feed: KafkaFeed, kafka: Service, prefix: str
) -> None:
    feed.publish([])
    other = KafkaFeed(kafka.address, 9, prefix)
    other.publish([event(1)])
    other.close()
    consumer = KafkaConsumer(bootstrap_servers=kafka.address)
    assert {topic: len(consumer.partitions_for_topic(prefix + topic)) for topic in TOPICS} == dict.fromkeys(TOPICS, 4)
    consumer.close()


def test_persisters_that_start_at_the_same_moment_all_get_their_topics(kafka: Service, prefix: str) -> None:
    together = threading.Barrier(4)
    faults: list[Exception] = []

    def persister(number: int) -> None:
        feed = KafkaFeed(kafka.address, 2, prefix)
        together.wait(PATIENCE_S)
        try:
            feed.publish([event(number)])
        except UnavailableError as fault:
            faults.append(fault)
        feed.close()

    threads = [threading.Thread(target=persister, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert sorted(x.id for x in everything(kafka.address, prefix)) == sorted(event(n).id for n in range(4))


def test_the_events_of_one_device_are_in_one_partition_and_those_of_many_in_several(
    feed: KafkaFeed, kafka: Service, prefix: str
) -> None:
    cars = [f"car{n}" for n in range(20)]
    feed.publish([event(n, key=car) for n in range(3) for car in cars])
    consumer = KafkaConsumer(prefix + "car_readings", bootstrap_servers=kafka.address, auto_offset_reset="earliest")
    records = [next(consumer) for _ in range(60)]
    consumer.close()
    places = {(record.key, record.partition) for record in records}
    assert len(places) == 20
    assert len({partition for _, partition in places}) > 1


@pytest.mark.usefixtures("impatient")
def test_kafka_away_is_unavailable_and_the_same_feed_goes_on_when_it_is_back_with_nothing_lost(
    own_kafka: Server, prefix: str
) -> None:
    address = f"127.0.0.1:{own_kafka.port}"
    feed = KafkaFeed(address, 2, prefix)
    # A broker that listens is not yet one that leads its partitions.
    when_there(lambda: feed.publish([event(1)]))
    own_kafka.kill()
    for _ in range(3):
        with pytest.raises(UnavailableError, match=f"Kafka at {address}: "):
            feed.publish([event(2), event(3)])
    own_kafka.start()
    when_there(lambda: feed.publish([event(2), event(3)]))
    feed.close()
    ids = [x.id for x in everything(address, prefix)]
    assert list(dict.fromkeys(ids)) == [event(n).id for n in (1, 2, 3)]


def limit(kafka: Service, topic: str, size: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka.address)
    admin.alter_configs([ConfigResource("TOPIC", topic, {"max.message.bytes": str(size)})])
    admin.close()


def test_a_topic_of_small_messages_takes_many_events_and_of_one_too_large_the_feed_says_so(
    feed: KafkaFeed, kafka: Service, prefix: str
) -> None:
    feed.publish([])
    limit(kafka, prefix + "car_readings", 4_000)
    feed.publish([event(n) for n in range(100)])
    large = replace(event(100), data=bytes(10_000))
    for batch in ([event(101), large, event(102)], [replace(large, data=bytes(2_000_000))]):
        with pytest.raises(RejectedError, match="too_large: an event is larger than Kafka at"):
            feed.publish(batch)
    feed.publish([event(101), event(102)])
    assert {x.id for x in everything(kafka.address, prefix)} == {event(n).id for n in (*range(100), 101, 102)}


@pytest.mark.usefixtures("impatient")
def test_topics_that_someone_deletes_are_made_again(feed: KafkaFeed, kafka: Service, prefix: str) -> None:
    when_there(lambda: feed.publish([event(1)]))
    admin = KafkaAdminClient(bootstrap_servers=kafka.address)
    admin.delete_topics([prefix + topic for topic in TOPICS])
    admin.close()
    when_there(lambda: feed.publish([event(2)]))
    assert event(2).id in {x.id for x in everything(kafka.address, prefix)}


@pytest.mark.usefixtures("impatient")
def test_a_feed_can_be_made_while_kafka_is_away(own_kafka: Server, prefix: str) -> None:
    own_kafka.stop()
    feed = KafkaFeed(f"127.0.0.1:{own_kafka.port}", 2, prefix)
    with pytest.raises(UnavailableError):
        feed.publish([event(1)])
    own_kafka.start()
    when_there(lambda: feed.publish([event(1)]))
    feed.close()


ATTEMPTS = """
import gc, os, sys, threading
from components.cloud import kafka_feed
from components.wire.errors import UnavailableError
kafka_feed.BOOTSTRAP_MS = 300
feed = kafka_feed.KafkaFeed(sys.argv[1])
for attempt in (lambda: feed.publish([]), lambda: kafka_feed.KafkaFeedReader(sys.argv[1])) * 3:
    try:
        attempt()
    except UnavailableError:
        gc.collect()
        print(threading.active_count(), len(os.listdir("/proc/self/fd")))
"""


def test_attempts_in_vain_leave_no_thread_and_no_descriptor() -> None:
    # In a process of its own: pytest keeps log records and warnings, and with them the driver's sockets.
    command = [sys.executable, "-W", "ignore", "-c", ATTEMPTS, f"127.0.0.1:{free_port()}"]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout.splitlines()
    assert len(out) == 6
    assert out[1:] == out[:-1]


def test_a_reader_where_no_feed_was_says_so_in_one_line(kafka: Service, prefix: str) -> None:
    reader = KafkaFeedReader(kafka.address, prefix)
    with pytest.raises(OperatorError, match=rf"no topic {prefix}car_readings at kafka://.*: a persister makes it"):
        reader.read(from_start=True, follow=False)
    reader.close()


def test_every_event_waits_for_all_replicas_and_is_written_once_by_a_retry(feed: KafkaFeed) -> None:
    feed.publish([])
    config = feed._producer.config
    assert (config["acks"], config["enable_idempotence"]) == (-1, True)
    first = feed._producer
    feed.publish([event(1)])
    assert feed._producer is first


def test_the_driver_gives_an_event_up_before_publish_does() -> None:
    assert kafka_feed.REQUEST_MS + kafka_feed.LINGER_MS < kafka_feed.DELIVERY_MS < kafka_feed.PUBLISH_S * 1000
