"""Moments as text: the machine's own time zone has no say."""

import time
from collections.abc import Iterator

import pytest

from components.wire import times


@pytest.fixture
def kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock is 5:45 h ahead."""
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("kathmandu")
def test_a_moment_is_the_same_on_a_machine_of_another_time_zone() -> None:
    at_ms, text, minute = 1_779_000_000_123, "2026-05-17T06:40:00.123Z", "20260517T064000Z"
    assert (times.iso_ms(at_ms), times.iso_s(at_ms - 123), times.minute_id(at_ms)) == (text, text[:19] + "Z", minute)
    assert (times.parse_iso(text), times.parse_minute(minute)) == (at_ms, at_ms - 123)
