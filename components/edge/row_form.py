"""What a row of readings.db may hold: whatever else stands there was not written by a recorder of this version. Pure.

The checksum of a row tells a flipped bit; this tells a row that is whole and wrong: of another program, of a later
version, of somebody with a screwdriver. Nobody makes a packet of it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from components.wire.packet import CLOCKS, DTC_STATES, IDENTITIES, LOST_REASONS, LOST_WHAT, MAX_LIST, Lost
from components.wire.reading import check_value
from components.wire.signals import BY_KEY, DTC_PATTERN, REASONS

_HEX: Final = re.compile("[0-9a-f]{16}")
MAX_MS: Final = 253_402_300_740_000
"""The last minute of the year 9999."""
_MAX_AGE_MS: Final = 2**53


def is_sound(session: str, kind: str, at_ms: int, body: Mapping[str, object]) -> bool:
    """Tell whether a recorder may have written this row; never raises, whatever it holds."""
    try:
        return is_hex16(session) and 0 <= at_ms < MAX_MS and _FORMS[kind](body)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _is_reading(body: Mapping[str, Any]) -> bool:
    values, why, ages = body["values"], body["why"], body["age_ms"]
    for key, value in values.items():
        check_value(key, value)
    return (
        len(body) == 3
        and why.keys() <= BY_KEY.keys() - values.keys()
        and all(reason in REASONS for reason in why.values())
        and ages.keys() <= values.keys()
        and all(_is_whole(age, 1, _MAX_AGE_MS) for age in ages.values())
    )


def _is_session(body: Mapping[str, Any]) -> bool:
    fix = body["clock_fix"]
    return (
        len(body) == 6
        and body["clock"] in CLOCKS
        and (fix is None or (len(fix) == 2 and is_hex16(fix[0]) and _is_whole(fix[1], -(2**53), 2**53)))
        and _is_whole(body["interval_ms"], 1, 60_000)
        and _is_whole(body["period_s"], 5, 60)
        and 60 % body["period_s"] == 0
        and body["content"] in {"full", "summary"}
        and is_hex16(body["config_hash"])
    )


def _is_identity(body: Mapping[str, Any]) -> bool:
    why = body["why"]
    return body.keys() == {*IDENTITIES, "why"} and all(
        (body[key] is None and why[key] in REASONS) or (key not in why and _matches(re.compile(pattern), body[key]))
        for key, pattern in IDENTITIES.items()
    )


def _is_dtcs(body: Mapping[str, Any]) -> bool:
    for key, value in body["freeze_frame"].items():
        check_value(key, value)
    return len(body) == 2 and len(body["codes"]) <= MAX_LIST and all(map(_is_code, body["codes"]))


def _is_code(row: Any) -> bool:  # noqa: ANN401 - whatever a row holds
    code, status, ecu, first_ms, last_ms = row
    return (
        _matches(re.compile(DTC_PATTERN), code)
        and status in DTC_STATES
        and _matches(re.compile("[0-9A-F]{2,8}"), ecu)
        and _is_whole(first_ms, 0, MAX_MS)
        and _is_whole(last_ms, 0, MAX_MS)
    )


def read_loss(form: Any) -> Lost:  # noqa: ANN401 - whatever a file holds
    """Return the loss of which both files keep this list; ValueError where no odograph wrote it."""
    try:
        if _is_loss(form):
            return Lost(*form)
    except (TypeError, ValueError):
        pass
    raise ValueError("it tells of a loss that is none")


def is_hex16(text: object) -> bool:
    """Tell whether it is sixteen hex digits: a session, an epoch, a hash of a configuration."""
    return _matches(_HEX, text)


def _is_lost(body: Mapping[str, Any]) -> bool:
    return len(body) == 2 and isinstance(body["key"], str) and _is_loss(body["lost"])


def _is_loss(form: Any) -> bool:  # noqa: ANN401 - as above
    session, from_ms, to_ms, what, count, reason = form
    return (
        isinstance(form, list)
        and (session is None or is_hex16(session))
        and _is_whole(from_ms, 0, MAX_MS)
        and _is_whole(to_ms, 0, MAX_MS)
        and what in LOST_WHAT
        and (count is None or _is_whole(count, 1, 2**53))
        and reason in LOST_REASONS
    )


_FORMS: Final[Mapping[str, Callable[[Mapping[str, Any]], bool]]] = {
    "reading": _is_reading,
    "session": _is_session,
    "identity": _is_identity,
    "dtcs": _is_dtcs,
    "lost": _is_lost,
}


def _is_whole(given: object, least: int, most: int) -> bool:
    return type(given) is int and least <= given <= most


def _matches(pattern: re.Pattern[str], given: object) -> bool:
    return isinstance(given, str) and pattern.fullmatch(given) is not None
