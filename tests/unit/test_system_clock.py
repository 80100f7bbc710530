"""Who set the machine's clock, as far as the kernel and the hardware clocks tell."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest

from components.edge import system_clock
from components.edge.timeline import TOLERANCE_MS


def kernel(monkeypatch: pytest.MonkeyPatch, answer: int, max_error_us: int) -> None:
    """Let adjtimex say so; as the real one does, it reads what it may change, and must find that nothing is."""

    class Libc:
        @staticmethod
        def adjtimex(words: "ctypes.Array[ctypes.c_long]") -> int:
            assert set(words) == {0}
            words[3] = max_error_us
            return answer

    def libc(name: object) -> object:
        assert name is None
        return Libc

    monkeypatch.setattr(ctypes, "CDLL", libc)


@pytest.mark.parametrize(
    ("answer", "max_error_us", "synchronised"),
    [
        (0, 500, True),
        # A leap second is near, or in force.
        (1, 20_000, True),
        (3, 20_000, True),
        # chrony without rtcsync: STA_UNSYNC is set, which makes the answer 5.
        (5, 20_000, True),
        (5, 16_000_000, False),
        (0, 16_000_000, False),
    ],
)
def test_the_clock_is_synchronised_while_its_largest_error_is_known(
    monkeypatch: pytest.MonkeyPatch, answer: int, max_error_us: int, synchronised: bool
) -> None:
    kernel(monkeypatch, answer, max_error_us)
    assert system_clock.is_synchronised() is synchronised
    assert (system_clock.network_time() is not None) is synchronised


def no_libc(name: object) -> object:
    raise OSError(name)


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("libc", [None, no_libc, lambda _name: object()], ids=["forbidden", "no libc", "no adjtimex"])
def test_where_the_kernel_may_not_be_asked_the_mark_of_timesyncd_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, libc: Callable[[object], object] | None, marked: bool
) -> None:
    if libc is None:
        kernel(monkeypatch, -1, 0)
    else:
        monkeypatch.setattr(ctypes, "CDLL", libc)
    mark = tmp_path / "synchronized"
    monkeypatch.setattr(system_clock, "_SYNCHRONISED", mark)
    if marked:
        mark.touch()
    assert system_clock.is_synchronised() is marked


def test_this_machine_s_kernel_is_asked_without_changing_anything_and_without_a_fault() -> None:
    assert system_clock.is_synchronised() in {True, False}


def rtcs(directory: Path, *texts: str) -> Path:
    for number, text in enumerate(texts):
        (directory / f"rtc{number}").mkdir()
        (directory / f"rtc{number}" / "since_epoch").write_text(text)
    return directory


def test_hardware_clocks_are_read_and_those_that_cannot_be_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "rtc9" / "since_epoch").mkdir(parents=True)
    assert system_clock.battery_clocks_ms(rtcs(tmp_path, "1795312800\n", "", "1795312801")) == [
        1_795_312_800_000,
        1_795_312_801_000,
    ]
    assert system_clock.battery_clocks_ms(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("max_error_us", "rtc_is_ahead_ms", "source"),
    [
        (1000, [], "ntp"),
        (1000, [3_600_000], "ntp"),
        (16_000_000, [], "saved"),
        (16_000_000, [-1000], "rtc"),
        (16_000_000, [TOLERANCE_MS + 60_000], "saved"),
        (16_000_000, [-60_000, 0], "rtc"),
    ],
)
def test_the_system_s_time_is_the_network_s_or_a_battery_clock_s_or_only_what_was_saved(
    monkeypatch: pytest.MonkeyPatch, max_error_us: int, rtc_is_ahead_ms: list[int], source: str
) -> None:
    now_ms = 1_795_312_800_000
    kernel(monkeypatch, 0, max_error_us)
    monkeypatch.setattr(system_clock, "_utc_ms", lambda: now_ms)
    monkeypatch.setattr(system_clock, "battery_clocks_ms", lambda: [now_ms + ahead for ahead in rtc_is_ahead_ms])
    told = system_clock.system_time()
    assert (told.source, told.utc_ms) == (source, now_ms)
    assert abs(told.elapsed_ms - system_clock.elapsed_ms()) < 60_000
