"""An agent whose wall clock stands in 1970 and whose receiver finds satellites in mid-drive: all of it can be dated."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from components.cloud.stores import open_archive_reader
from components.console.fleet import Car, Fleet
from components.edge.spool_view import SpoolView
from components.edge.sqlite_readings import ReadingsReader
from components.wire import packet as packets
from components.wire.times import iso_ms
from tests.conftest import missing
from tests.journey_fleet import PERIOD_S, access, balanced, note, now_ms, running_fleet, told
from tests.waiting import until

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
ENOUGH = 6
"""Readings: more than a packet of five seconds has."""


class Gpsd:
    """A gpsd for one client whose receiver has a fix, and with it the time, from when the test says so."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.has_fix = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        # Until its client hangs up, or none comes.
        with contextlib.suppress(OSError), self._server.accept()[0] as client:
            while not self._over.wait(0.5):
                report: dict[str, object] = {"class": "TPV", "mode": 1}
                if self.has_fix:
                    report |= {"mode": 3, "time": iso_ms(now_ms()), "lat": 48.1, "lon": 11.5}
                client.sendall(json.dumps(report).encode() + b"\r\n")

    def close(self) -> None:
        self._over.set()
        # Wakes who waits for a client that never came.
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()


class Witness:
    """Sees readings come into the spool, and when by the test's own clock."""

    def __init__(self, spool: Path) -> None:
        until(lambda: SpoolView(spool).readings())
        self._reader = ReadingsReader(spool / "readings.db")
        self._seq, self._looked_ms = 0, now_ms()
        self.seen: dict[tuple[str, int], tuple[int, int]] = {}
        """By session and its time: between which two looks it came."""

    def count(self) -> dict[str, int]:
        """Look; return how many readings each session has."""
        rows, before_ms = self._reader.readings_after(self._seq, 1000), self._looked_ms
        self._looked_ms = now_ms()
        for row in rows:
            self.seen[row.session, row.at_ms] = (before_ms, self._looked_ms)
            self._seq = row.seq
        sessions = [session for session, _ in self.seen]
        return {session: sessions.count(session) for session in dict.fromkeys(sessions)}


@pytest.fixture
def gpsd() -> Iterator[Gpsd]:
    with closing(Gpsd()) as gpsd:
        yield gpsd


@pytest.fixture
def fleet(tmp_path: Path, gpsd: Gpsd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A fleet whose agent lives in 1970."""
    if FAKETIME is None:
        missing("libfaketime is not here: make services")
    start_agent = Fleet.start_agent

    def start_in_1970(fleet: Fleet, car: Car) -> None:
        car.config.write_text(car.config.read_text().replace(car.hello["gpsd"], gpsd.address))
        with monkeypatch.context() as environment:
            environment.setenv("LD_PRELOAD", str(FAKETIME))
            environment.setenv("FAKETIME", "@1970-01-01 00:00:10")
            environment.setenv("TZ", "UTC")
            # The wall clock is the only one that a car's computer loses.
            environment.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            start_agent(fleet, car)

    monkeypatch.setattr(Fleet, "start_agent", start_in_1970)
    with running_fleet(tmp_path / "home") as running:
        yield running


def test_a_drive_that_began_in_1970_is_dated_by_the_fix_that_came_in_its_middle(fleet: Fleet, gpsd: Gpsd) -> None:
    (car,) = fleet.cars
    witness = Witness(car.spool)
    until(lambda: sum(witness.count().values()) >= ENOUGH)
    assert told("status", car.device, *access(fleet))["clock"] == "none"
    gpsd.has_fix = True
    until(lambda: len(found := witness.count()) == 2 and min(found.values()) >= ENOUGH)
    fleet.end_agents()
    witness.count()
    balanced(fleet, 4)
    with closing(open_archive_reader(fleet.plan.archive, fleet.home.path)) as archive:
        stored = [packets.read(one.packet) for one in archive.minutes(car.device)]

    unset, right = dict.fromkeys(session for session, _ in witness.seen)
    assert {(one.session, one.clock) for one in stored} == {(unset, "none"), (right, "gps")}
    assert all(one.start_ms < 600_000 for one in stored if one.session == unset)
    # All that was recorded is there, once.
    by_time = sorted((one.session, reading.at_ms) for one in stored for reading in one.readings or ())
    assert by_time == sorted(witness.seen)
    (first, fix) = next((one, one.clock_fix) for one in stored if one.clock_fix is not None)
    assert (first.start_ms, sum(one.clock_fix is not None for one in stored)) == (
        min(one.start_ms for one in stored if one.session == right),
        1,
    )
    assert fix.previous_session == unset
    dated = {one: one[1] + (fix.offset_ms if one[0] == unset else 0) for one in witness.seen}
    errors = [max(early - dated[one], dated[one] - late, 0) for one, (early, late) in witness.seen.items()]
    note(f"offset {fix.offset_ms} ms; {len(dated)} readings dated, the worst by {max(errors)} ms")
    assert max(errors) <= 2000
    distances = [late - early for early, late in pairwise(sorted(dated.values()))]
    assert min(distances) > 0
    # No minute is missing between the two sessions, nor within one.
    assert max(distances) < PERIOD_S * 1000
