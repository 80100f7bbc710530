"""Kafka is away for a while in mid-drive: receipts go on, packets stay pending, and are fed with unchanged ids."""

from collections import Counter
from contextlib import closing
from pathlib import Path

from components.cloud.events import event_ids
from components.cloud.stores import open_archive_reader, open_feed_reader
from components.console.fleet import Fleet
from components.wire import packet as packets
from tests.journey_fleet import balanced, counted, more_receipts, running_fleet
from tests.services.servers import Server
from tests.waiting import until


def pending(fleet: Fleet) -> int:
    with closing(open_archive_reader(fleet.plan.archive, fleet.home.path)) as archive:
        return archive.counts()["pending"]


def test_kafka_away_delays_no_receipt_and_loses_no_event(own_kafka: Server, tmp_path: Path) -> None:
    feed = f"kafka://127.0.0.1:{own_kafka.port}?prefix=away."
    with running_fleet(tmp_path / "home", feed=feed) as fleet:
        car = fleet.cars[0]
        more_receipts(car)
        until(lambda: pending(fleet) == 0)
        own_kafka.stop()
        for _ in range(2):
            more_receipts(car)
        assert pending(fleet) >= 2
        own_kafka.start()
        fleet.end_agents()
        made = counted(fleet).made
        until(lambda: pending(fleet) == 0)
        balanced(fleet, made)
        with closing(open_feed_reader(feed, fleet.home.path)) as reader:
            fed = Counter(event.id for event in reader.read(from_start=True, follow=False))
        with closing(open_archive_reader(fleet.plan.archive, fleet.home.path)) as archive:
            ids = {id_ for one in archive.minutes("car_01") for id_ in event_ids(packets.read(one.packet))}
        assert fed.keys() == ids
