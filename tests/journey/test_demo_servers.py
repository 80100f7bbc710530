"""The demo with MongoDB and Kafka in the place of its files."""

from pathlib import Path

from tests.demos import begin, readings_of
from tests.journey_fleet import lines
from tests.services.servers import Service


def test_a_demo_with_mongodb_and_kafka_is_balanced_too(mongodb: Service, kafka: Service, tmp_path: Path) -> None:
    archive = f"mongodb://{mongodb.address}/journey"
    feed = f"kafka://{kafka.address}?prefix=journey."
    run = begin(tmp_path / "home", "--for", 8, "--archive", archive, "--feed", feed)
    assert "\nbalanced\n" in run.ended()
    minutes = lines("minutes", "car_01", "--archive", archive, "--readings")
    assert len(minutes) == run.report["stored"] == run.report["fed"] >= 2
    ids = {event["id"] for event in lines("feed", "tail", "--from-start", "--feed", feed)}
    assert ids >= {f"{minute['id']}/{tail}" for minute in minutes for tail in ("summary", *readings_of(minute))}
