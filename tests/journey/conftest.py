"""One driving car for all tests that only look at it, with a tap between persister and router."""

from collections.abc import Iterator

import pytest

from tests.journey_fleet import more_receipts, running_fleet
from tests.journey_tap import Tap, Tapped


@pytest.fixture(scope="session")
def tapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tapped]:
    """A fleet with at least three packets receipted; its persister's frames are in the tap."""
    home = tmp_path_factory.mktemp("drive") / "home"
    with running_fleet(home, start=False) as fleet, Tap(int(fleet.urls.persisters.rpartition(":")[2])) as tap:
        text = fleet.home.config.read_text()
        fleet.home.config.write_text(text.replace(fleet.urls.persisters, f"rs://127.0.0.1:{tap.port}"))
        fleet.start()
        more_receipts(fleet.cars[0], count=3)
        yield Tapped(fleet, tap)
        fleet.end_agents()  # while there is a wire to their last receipts: without one they wait for half a minute
