"""The recorder and ObdCar on a virtual drive with a random fault every 20 s: nothing stops, and nothing lies."""

import gc
import secrets
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.faulty_drive import FAST, Drive

_HOUR_S = 3_600


@pytest.mark.parametrize(("seed", "bus"), [(1, 6), (2, 7), (3, 5), (4, 3), (5, 1)])
def test_five_minutes_with_a_fault_every_20_s_have_every_reading_and_only_what_the_car_said(
    seed: int, bus: int
) -> None:
    drive = Drive(seed, 300, bus).run()
    assert drive.complaints == []
    assert drive.readings >= 300
    assert drive.values > 300 * len(FAST)
    assert drive.codes_read >= 4
    assert len(drive.faults) == 15


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_hour_with_a_fault_every_20_s(pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]) -> None:
    given = pytestconfig.getoption("--seed")
    seed = secrets.randbelow(1_000_000) if given is None else given
    began_s, held, resident = time.monotonic(), [0], [0]

    def note(second: int) -> None:
        if second + 1 in {_HOUR_S // 2, _HOUR_S}:
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
            resident.append(rss_bytes())

    tracemalloc.start()
    drive = Drive(seed, _HOUR_S).run(note)
    tracemalloc.stop()
    more_kib = [(late - early) / 1024 for early, late in (held[1:], resident[1:])]
    with capsys.disabled():
        print(  # noqa: T201 - the seed must be known, and the rest is what `make hour` is for
            f"\nseed {seed}: {drive.seconds} s in {time.monotonic() - began_s:.0f} s; {drive.readings} readings,"
            f" {drive.values} values of the car; {len(drive.faults)} faults, healed within"
            f" {max(drive.healed_s.values()):.1f} s; in the second half {more_kib[0]:+.0f} KiB held,"
            f" {more_kib[1]:+.0f} KiB RSS"
        )
    assert drive.complaints == []
    assert drive.readings >= _HOUR_S
    assert more_kib[0] < 64
    assert more_kib[1] < 4096
