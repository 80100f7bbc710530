"""A parked car with one stored code: a technician clears it, and the archive shows both."""

from collections.abc import Iterator

import pytest

from components.console.fleet import Fleet
from tests.commands import odograph
from tests.journey_fleet import access, balanced, lines, more_receipts, one_line, operator, running_fleet, told
from tests.waiting import until


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("parked") / "home", parked=True) as running:
        more_receipts(running.cars[0], count=2)
        yield running


def test_a_technician_clears_the_stored_code_and_the_archive_shows_before_and_after(fleet: Fleet) -> None:
    as_theo = access(fleet, operator(fleet, "theo", "technician"))
    before = told("dtcs", "car_01", "--refresh", *as_theo)["dtcs"]
    assert [one["status"] for one in before] == ["stored"]
    archive = f"sqlite:{fleet.home.path}/archive.db"

    def archived() -> list[list[str]]:
        return [[one["code"] for one in minute["dtcs"]] for minute in lines("minutes", "car_01", "--archive", archive)]

    until(lambda: any(archived()))
    assert one_line(odograph("clear-dtcs", "car_01", *access(fleet, operator(fleet, "vera", "viewer"))), 1)
    cleared = odograph("clear-dtcs", "car_01", *as_theo)
    assert (cleared.returncode, cleared.stdout, cleared.stderr) == (0, "car_01: cleared\n", "")
    assert told("dtcs", "car_01", "--refresh", *as_theo)["dtcs"] == []
    until(lambda: archived()[-1] == [], "a packet without the code")
    codes = archived()
    assert [before[0]["code"]] in codes
    assert codes.index([]) >= 0
    balanced(fleet, 3)
