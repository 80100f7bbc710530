"""The real gpsd, fed with a receiver's log by gpsfake: every fix and lack of one, and a gpsd that comes and goes."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.console.node import free_port
from components.edge.ports import Sample
from tests.conftest import missing
from tests.gps_parts import epoch, lost, wait_for, watching
from tests.services.servers import Server

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
"""Where Debian puts gpsd."""
HERE, THERE = 48.1233333, 49.0


@contextmanager
def gpsfake(folder: Path, *logs: str, port: int | None = None) -> Iterator[Server]:
    """Gpsd with one receiver for each log, which is played over and over at some 20 epochs a second."""
    if shutil.which("gpsd", path=_PATH) is None or shutil.which("gpsfake") is None:
        missing("gpsd and gpsfake are not here: make services")
    paths = [folder / f"{number}.nmea" for number in range(len(logs))]
    for path, log in zip(paths, logs, strict=True):
        path.write_text(log)
    port = port or free_port()
    # -n: gpsd reads the receiver before anybody asks. Loopback only, as gpsfake starts it without -G.
    command = ["gpsfake", "-q", "-n", "-c", "0.01", "-P", str(port), *map(str, paths)]
    server = Server("gpsfake", command, port, folder)
    server.start()
    try:
        yield server
    finally:
        server.go_on()
        server.stop()


def log(*modes: int, north: str = "4807.4000", moves: bool = True) -> str:
    return "".join(epoch(second, mode, north=north, moves=moves) for second, mode in enumerate(modes))


def fix(sample: Sample) -> object:
    return sample.values.get("gps_fix")


def lat(sample: Sample) -> float:
    location = sample.values["location"]
    assert isinstance(location, dict)
    coordinates = location["coordinates"]
    assert isinstance(coordinates, list)
    return float(coordinates[1])


def test_a_fix_is_the_place_the_height_above_the_sea_and_the_way(tmp_path: Path) -> None:
    with gpsfake(tmp_path, log(*[3] * 50)) as gpsd, watching(f"127.0.0.1:{gpsd.port}") as gps:
        sample = wait_for(gps, lambda sample: fix(sample) == 3 and "climb" in sample.values)
        assert sample.values["location"] == {"type": "Point", "coordinates": [11.9866667, HERE]}
        assert sample.values["altitude"] == pytest.approx(519.3)  # not 566.2, which is above the ellipsoid
        assert sample.values["heading"] == pytest.approx(90.0)
        assert sample.values["gps_speed"] == pytest.approx(9.98, abs=0.02)
        assert sample.why == {}
        told = gps.utc_ms()
        assert told is not None
        assert 0 <= told[0] - 1_795_348_800_000 < 50_000  # noon, and the seconds of the log


def test_2d_has_a_place_without_height_and_a_lost_fix_has_nothing_of_the_last_one(tmp_path: Path) -> None:
    modes = log(*[2] * 10, *[1] * 10, *[3] * 10)
    with gpsfake(tmp_path, modes) as gpsd, watching(f"127.0.0.1:{gpsd.port}") as gps:
        flat = wait_for(gps, lambda sample: fix(sample) == 2 and "altitude" not in sample.values)
        assert lat(flat) == HERE
        assert flat.why["altitude"] == flat.why["climb"] == "no_data"
        assert wait_for(gps, lost).measured_ms == {}
        wait_for(gps, lambda sample: fix(sample) == 3)


def test_a_receiver_that_never_had_a_fix_is_nowhere(tmp_path: Path) -> None:
    with gpsfake(tmp_path, log(*[1] * 20)) as gpsd, watching(f"127.0.0.1:{gpsd.port}") as gps:
        wait_for(gps, lambda _: bool(gps._fixes))  # it has been heard
        sample = gps.sample(gps._clock())
        assert (sample.values, set(sample.why.values())) == ({}, {"no_fix"})
        assert gps.utc_ms() is None


def test_a_place_without_way_or_speed_has_its_reasons(tmp_path: Path) -> None:
    with gpsfake(tmp_path, log(*[2] * 50, moves=False)) as gpsd, watching(f"127.0.0.1:{gpsd.port}") as gps:
        sample = wait_for(gps, lambda sample: fix(sample) == 2)
        assert lat(sample) == HERE
        assert sample.why["heading"] == "no_data"
        assert sample.values.keys() | sample.why.keys() >= {"heading", "gps_speed", "climb", "altitude"}


def test_a_receiver_that_falls_silent_is_stale_after_three_seconds(tmp_path: Path) -> None:
    with gpsfake(tmp_path, log(*[3] * 50)) as gpsd, watching(f"127.0.0.1:{gpsd.port}") as gps:
        before = wait_for(gps, lambda sample: fix(sample) == 3)
        gpsd.hang()  # gpsfake, and so the receiver; gpsd goes on
        wait_for(gps, lambda sample: lost(sample, "stale"))
        assert gps._clock() - before.measured_ms["location"] > 3_000
        gpsd.go_on()
        wait_for(gps, lambda sample: fix(sample) == 3)


def test_a_gpsd_that_is_killed_takes_its_place_along_and_one_that_comes_back_is_found(tmp_path: Path) -> None:
    port = free_port()
    with watching(f"127.0.0.1:{port}") as gps:
        for _ in range(2):
            with gpsfake(tmp_path, log(*[3] * 50), port=port) as gpsd:
                wait_for(gps, lambda sample: fix(sample) == 3)
                os.kill(_child(gpsd), signal.SIGKILL)
                wait_for(gps, lost)
                assert gps.utc_ms() is None


def _child(server: Server) -> int:
    """The gpsd that gpsfake has started."""
    (child,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return int(child)


def test_of_two_receivers_one_counts_until_the_other_is_better(tmp_path: Path) -> None:
    better = log(*[3] * 10, *[1] * 10)
    worse = log(*[2] * 20, north="4900.0000")
    with gpsfake(tmp_path, better, worse) as gpsd, watching(f"127.0.0.1:{gpsd.port}") as gps:
        wait_for(gps, lambda sample: fix(sample) == 3 and lat(sample) == HERE)
        heard = [HERE]

        def heard_again(sample: Sample) -> bool:
            if sample.values and lat(sample) != heard[-1]:
                heard.append(lat(sample))
            return len(heard) == 3

        wait_for(gps, heard_again)
        assert heard == [HERE, THERE, HERE]
        assert len(gps._fixes) == 2
