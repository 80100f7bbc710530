"""Moments as text: RFC 3339 in UTC, and the names of minutes. Pure."""

import re
from datetime import UTC, datetime
from typing import Final

LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999: later times have no name in RFC 3339."""
_MOMENT: Final = "%Y-%m-%dT%H:%M:%S"


def iso_ms(at_ms: int) -> str:
    """Return RFC 3339 UTC with milliseconds.

    >>> iso_ms(1779000000123)
    '2026-05-17T06:40:00.123Z'
    """
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):{_MOMENT}}.{at_ms % 1000:03d}Z"


def iso_s(at_ms: int) -> str:
    """Return RFC 3339 UTC of a whole second; `at_ms` is a multiple of 1000."""
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):{_MOMENT}}Z"


def parse_iso(text: object) -> int:
    """Return ms since the epoch of what `iso_ms` or `iso_s` wrote; ValueError for anything else."""
    if not isinstance(text, str) or not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", text, re.ASCII):
        raise ValueError(f"{text!r} is no UTC time like 2026-11-21T10:05:00Z")
    return int(datetime.fromisoformat(text[:19] + "Z").timestamp()) * 1000 + int(text[20:-1] or 0)


def minute_id(start_ms: int) -> str:
    """Return the name of the period that starts then.

    >>> minute_id(1779000000000)
    '20260517T064000Z'
    """
    return f"{datetime.fromtimestamp(start_ms // 1000, UTC):%Y%m%dT%H%M%SZ}"


def parse_minute(name: str) -> int:
    """Return the start, in ms UTC, of the period that `minute_id` named.

    >>> parse_minute("20260517T064000Z")
    1779000000000
    """
    return int(datetime.strptime(name, "%Y%m%dT%H%M%S%z").timestamp()) * 1000
