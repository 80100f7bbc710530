"""A device that sends summaries only, without its place; and a readings file that breaks while it drives."""

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from components.cloud.sqlite_archive import SqliteArchiveReader
from components.cloud.sqlite_feed import SqliteFeedReader
from components.console.fleet import Car, Fleet
from components.wire.packet import read
from tests.commands import odograph
from tests.journey_fleet import access, balanced, lines, more_receipts, running_fleet
from tests.waiting import until

_CHOICE = """
[signals]
never = ["location"]
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    start_agent = Fleet.start_agent

    def start_with_choice(fleet: Fleet, car: Car) -> None:
        text = car.config.read_text()
        car.config.write_text(text.replace("[packet]\n", '[packet]\ncontent = "summary"\n') + _CHOICE)
        start_agent(fleet, car)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Fleet, "start_agent", start_with_choice)
        with running_fleet(tmp_path_factory.mktemp("chosen") / "home") as running:
            more_receipts(running.cars[0], count=2)
            yield running


def test_a_summary_is_all_that_is_stored_and_fed_and_a_place_is_nowhere(fleet: Fleet) -> None:
    balanced(fleet, 2)
    with closing(SqliteArchiveReader(fleet.home.path / "archive.db")) as archive:
        packets = [one.packet for one in archive.minutes("car_01")]
    assert len(packets) >= 2
    assert all("readings" not in one for one in packets)
    assert sum(read(one).summary["speed"]["count"] for one in packets) > 0
    with closing(SqliteFeedReader(fleet.home.path / "feed.db")) as feed:
        events = list(feed.read(from_start=True, follow=False))
    assert {one.topic for one in events} <= {"car_summaries", "car_dtcs"}
    assert not any(b"coordinates" in one.data for one in events)
    spool = fleet.cars[0].spool
    assert not any(b"coordinates" in path.read_bytes() for path in spool.glob("*.db*"))
    found = lines("minutes", "car_01", "--readings", *access(fleet))
    assert all(one["readings"] == [] for one in found)
    assert odograph("minutes", "car_01", *access(fleet)).returncode == 0


@pytest.mark.slow
def test_a_readings_file_that_breaks_while_it_drives_is_told_of_in_the_archive(fleet: Fleet) -> None:
    spool = fleet.cars[0].spool
    with (spool / "readings.db").open("r+b") as file:
        file.write(os.urandom((spool / "readings.db").stat().st_size))
    until((spool / "readings.db.corrupt-1").exists)

    def losses() -> list[dict[str, object]]:
        return [loss for one in lines("minutes", "car_01", *access(fleet)) for loss in one.get("lost", ())]

    (loss,) = until(losses)
    assert (loss["what"], loss["reason"]) == ("readings", "corrupt")
    assert "lost" in odograph("minutes", "car_01", *access(fleet)).stdout
    more_receipts(fleet.cars[0])
    balanced(fleet, 3)
