"""What every Feed and its reader promise, asked of each: the fake, SQLite, and Kafka."""

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.cloud.kafka_feed import KafkaFeed, KafkaFeedReader
from components.cloud.ports import Feed, FeedEvent, FeedReader
from components.cloud.sqlite_feed import SqliteFeed, SqliteFeedReader
from tests.fake_stores import MemoryFeed, MemoryFeedReader
from tests.waiting import PATIENCE_S


@dataclass(frozen=True)
class Place:
    """One test's own feed, and readers of it."""

    feed: Feed
    reader: Callable[[], FeedReader]


def event(number: int, *, key: str = "car1", topic: str = "car_readings", data: bytes | None = None) -> FeedEvent:
    return FeedEvent(
        topic=topic,
        key=key,
        id=f"{key}/00000000000000aa/1/r{number}",
        type="odograph.reading.v1",
        source=f"odograph/device/{key}",
        time="2026-11-22T02:00:00.000Z",
        data=f'{{"n":{number}}}'.encode() if data is None else data,
    )


@pytest.fixture(params=["memory", "sqlite", "kafka"])
def place(request: pytest.FixtureRequest, tmp_path: Path, patient_drivers: None) -> Iterator[Place]:
    del patient_drivers
    opened: list[Feed | FeedReader] = []

    def kept(reader: FeedReader) -> FeedReader:
        opened.append(reader)
        return reader

    feed: Feed
    if request.param == "memory":
        memory = feed = MemoryFeed()
        place = Place(feed, lambda: kept(MemoryFeedReader(memory)))
    elif request.param == "sqlite":
        feed = SqliteFeed(tmp_path / "feed.db")
        place = Place(feed, lambda: kept(SqliteFeedReader(tmp_path / "feed.db")))
    else:
        address = request.getfixturevalue("kafka").address
        prefix = f"odograph_test_{uuid.uuid4().hex[:12]}."
        feed = KafkaFeed(address, 3, prefix)
        place = Place(feed, lambda: kept(KafkaFeedReader(address, prefix)))
    yield place
    for closed in [*opened, feed]:
        closed.close()


def all_of(place: Place) -> list[FeedEvent]:
    return list(place.reader().read(from_start=True, follow=False))


def test_what_was_published_is_read_as_it_was(place: Place) -> None:
    place.feed.publish([event(1)])
    assert all_of(place) == [event(1)]


def test_the_events_of_one_key_come_in_the_order_in_which_they_were_published(place: Place) -> None:
    for start in (0, 59, 118):
        place.feed.publish([event(n, key=f"car{n % 3}") for n in range(start, start + 59)])
    read = all_of(place)
    assert len(read) == 177
    for car in ("car0", "car1", "car2"):
        assert [x.id for x in read if x.key == car] == [
            event(n, key=car).id for n in range(177) if f"car{n % 3}" == car
        ]


def test_the_same_id_twice_is_kept_twice(place: Place) -> None:
    place.feed.publish([event(1)])
    place.feed.publish([event(1), event(2)])
    assert [x.id for x in all_of(place)] == [event(1).id, event(1).id, event(2).id]


def test_the_three_topics_carry_their_own_events(place: Place) -> None:
    events = [event(1), event(2, topic="car_summaries"), event(3, topic="car_dtcs")]
    place.feed.publish(events)
    assert sorted(all_of(place), key=lambda x: x.id) == events


def test_an_empty_feed_reads_as_nothing_and_nothing_can_be_published(place: Place) -> None:
    place.feed.publish([])
    assert all_of(place) == []


def test_bytes_and_names_in_any_script_come_back(place: Place) -> None:
    events = [
        event(1, key="车/1 ü"),
        event(2, data=bytes(range(256))),
        event(3, data=b"x" * 300_000),
        event(4, data=b""),
    ]
    place.feed.publish(events)
    assert sorted(all_of(place), key=lambda x: x.id[-2:]) == events


def test_a_reader_that_does_not_follow_ends_at_what_was_there_when_it_was_asked(place: Place) -> None:
    place.feed.publish([event(1), event(2)])
    reading = place.reader().read(from_start=True, follow=False)
    place.feed.publish([event(3)])
    assert list(reading) == [event(1), event(2)]


def test_a_reader_from_the_end_that_does_not_follow_has_nothing_to_say(place: Place) -> None:
    place.feed.publish([event(1)])
    assert list(place.reader().read(from_start=False, follow=False)) == []


def test_a_follower_from_the_end_gets_only_what_comes_after_it_asked(place: Place) -> None:
    place.feed.publish([event(1)])
    reading = place.reader().read(from_start=False, follow=True)
    place.feed.publish([event(2), event(3)])
    assert [next(reading), next(reading)] == [event(2), event(3)]


def test_a_follower_from_the_start_gets_what_is_there_and_then_what_comes(place: Place) -> None:
    place.feed.publish([event(1)])
    reading = place.reader().read(from_start=True, follow=True)
    assert next(reading) == event(1)
    place.feed.publish([event(2)])
    assert next(reading) == event(2)


def test_a_waiting_follower_ends_when_another_thread_closes_its_reader(place: Place) -> None:
    place.feed.publish([event(1)])
    reader = place.reader()
    reading = reader.read(from_start=True, follow=True)
    first, rest = threading.Event(), []

    def follow() -> None:
        for x in reading:
            rest.append(x)
            first.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert first.wait(PATIENCE_S)
    reader.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert rest == [event(1)]


def test_two_readers_do_not_take_from_each_other(place: Place) -> None:
    place.feed.publish([event(1), event(2)])
    assert all_of(place) == all_of(place) == [event(1), event(2)]


def test_more_events_than_one_page_come_once_each(place: Place) -> None:
    place.feed.publish([event(n) for n in range(2500)])
    assert [x.id for x in all_of(place)] == [event(n).id for n in range(2500)]


def test_a_follower_from_the_start_and_a_second_publish_of_many_keys_lose_nothing(place: Place) -> None:
    first = [event(n, key=f"car{n % 7}") for n in range(100)]
    place.feed.publish(first)
    reading = place.reader().read(from_start=True, follow=True)
    seen = [next(reading) for _ in first]
    place.feed.publish(first)
    seen += [next(reading) for _ in first]
    assert sorted(x.id for x in seen) == sorted(x.id for x in first * 2)


def test_closing_twice_is_harmless(place: Place) -> None:
    for closed in (place.reader(), place.feed):
        closed.close()
        closed.close()
