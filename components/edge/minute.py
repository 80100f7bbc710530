"""Rows of readings.db -> a packet, and a reading <-> its row. Pure.

The same rows give the same packet, whenever it is made: its id is the natural key, and a second making must be a
duplicate, never a conflict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Final, Protocol, cast

from components.wire.packet import ClockFix, Gap, Identity, Lost, Packet, TroubleCode
from components.wire.reading import Reading
from components.wire.signals import BY_KEY, Value
from components.wire.summary import summarise

Body = Mapping[str, object]
_DEFAULT_REASON: Final = "unsupported"
_LATE: Final = 2.5
"""A reading that comes later than so many intervals after the one before leaves a gap."""


class SomeRow(Protocol):
    """What is needed of a row of readings.db."""

    @property
    def session(self) -> str: ...  # noqa: D102
    @property
    def at_ms(self) -> int: ...  # noqa: D102
    @property
    def body(self) -> Body | None: ...  # noqa: D102


def reading_body(reading: Reading) -> Body:
    """Return the body of a reading's row; a signal that is in none of its parts is `unsupported`."""
    why = {key: reason for key, reason in reading.why.items() if reason != _DEFAULT_REASON}
    return {"values": reading.values, "why": why, "age_ms": reading.age_ms}


def read_reading(at_ms: int, body: Body) -> Reading:
    """Return the reading that a row holds."""
    values = cast("Mapping[str, Value]", body["values"])
    why = cast("Mapping[str, str]", body["why"])
    reasons = {key: why.get(key, _DEFAULT_REASON) for key in BY_KEY if key not in values}
    return Reading(at_ms, values, reasons, cast("Mapping[str, int]", body["age_ms"]))


def dtcs_body(codes: Sequence[TroubleCode], freeze_frame: Mapping[str, Value]) -> Body:
    """Return the body of a row of trouble codes."""
    rows = [[one.code, one.status, one.ecu, one.first_seen_ms, one.last_seen_ms] for one in codes]
    return {"codes": rows, "freeze_frame": freeze_frame}


def read_codes(body: Body) -> tuple[TroubleCode, ...]:
    """Return the codes that a row of trouble codes holds."""
    return tuple(TroubleCode(*row) for row in cast("list[tuple[str, str, str, int, int]]", body["codes"]))


def lost_body(key: str, lost: Lost) -> Body:
    """Return the body of a row that declares a loss; `key` is the outbox's, "" where it was not known there."""
    return {"key": key, "lost": astuple(lost)}


def read_lost(body: Body) -> tuple[str, Lost]:
    """Return key and loss of a row that declares one."""
    return cast("str", body["key"]), Lost(*cast("tuple[str | None, int, int, str, int | None, str]", body["lost"]))


def session_body(clock: str, fix: ClockFix | None, interval_ms: int, period_s: int, content: str, config: str) -> Body:
    """Return the body of the row that opens a session."""
    return {
        "clock": clock,
        "clock_fix": None if fix is None else [fix.previous_session, fix.offset_ms],
        "interval_ms": interval_ms,
        "period_s": period_s,
        "content": content,
        "config_hash": config,
    }


def period_of(at_ms: int, period_s: int) -> int:
    """Return the start of the period that a time is in, ms UTC."""
    return at_ms - at_ms % (period_s * 1000)


def build(
    device: str,
    rows: Sequence[SomeRow],
    session: SomeRow,
    identity: SomeRow | None,
    dtcs: SomeRow | None,
    *,
    next_ms: int | None,
    lost: Sequence[Lost] = (),
    lost_after: Sequence[Lost] = (),
) -> Packet:
    """Make the packet of one period.

    Args:
        rows: The period's reading rows, oldest first, at least one of them sound; a corrupt one (no body) becomes a
            gap, and nothing that it says is used.
        session: The row that opened the session, as old as its first reading.
        identity, dtcs: The newest of their kind that the session had when the period ended; None where there is none.
        next_ms: When the session's next reading is, in a later period; None where the session ends in this one.
        lost: What this packet declares as lost.
        lost_after: What the next one does; it may tell why this one ends early.
    """
    opened = session.body or {}
    period_s, interval_ms = cast("int", opened["period_s"]), cast("int", opened["interval_ms"])
    sound = next(row for row in rows if row.body is not None)
    start_ms = period_of(sound.at_ms, period_s)
    end_ms = start_ms + period_s * 1000
    readings = tuple(read_reading(row.at_ms, row.body) for row in rows if row.body is not None)
    first = session.at_ms >= start_ms
    fix = cast("tuple[str, int] | None", opened["clock_fix"])
    codes = dtcs.body if dtcs is not None else None
    unwritten = [one for one in (*lost, *lost_after) if (one.session, one.what) == (sound.session, "readings")]
    return Packet(
        device=device,
        session=sound.session,
        start_ms=start_ms,
        period_s=period_s,
        clock=cast("str", opened["clock"]),
        identity=_identity(identity),
        readings=readings if opened["content"] == "full" else None,
        summary=summarise(readings),
        config_hash=cast("str", opened["config_hash"]),
        dtcs=read_codes(codes) if codes is not None else (),
        dtcs_at_ms=dtcs.at_ms if dtcs is not None and codes is not None else None,
        freeze_frame=cast("Mapping[str, object]", codes["freeze_frame"]) if codes is not None else None,
        gaps=_gaps(rows, interval_ms, max(session.at_ms, start_ms), end_ms, next_ms, unwritten),
        clock_fix=ClockFix(*fix) if first and fix is not None else None,
        lost=tuple(lost),
    )


def _identity(row: SomeRow | None) -> Identity:
    if row is None or row.body is None:
        return Identity(None, None, None, dict.fromkeys(("vin", "iccid", "imei"), "no_data"))
    body = cast("Mapping[str, str | None]", row.body)
    return Identity(body["vin"], body["iccid"], body["imei"], cast("Mapping[str, str]", row.body["why"]))


def _gaps(
    rows: Sequence[SomeRow],
    interval_ms: int,
    from_ms: int,
    end_ms: int,
    next_ms: int | None,
    unwritten: Sequence[Lost],
) -> tuple[Gap, ...]:
    """Find the holes between sound readings, from `from_ms` on.

    One that goes on after the period, until `next_ms`, is declared where it begins, as far as this period goes. What is
    left of it in the period after is judged by itself there: what went before may be gone when that is packed again.
    """
    gaps: list[Gap] = []

    def hole(begin_ms: int, until_ms: int, corrupt: int) -> None:
        if corrupt or until_ms - begin_ms > _LATE * interval_ms:
            inside_ms = min(until_ms, end_ms)
            declared = any(one.from_ms < inside_ms and begin_ms < one.to_ms for one in unwritten)
            gaps.append(Gap(begin_ms, inside_ms, "corrupt" if corrupt else "lost_range" if declared else "late"))

    last_ms, corrupt = from_ms, 0
    for row in rows:
        if row.body is None:
            corrupt += 1
            continue
        hole(last_ms, row.at_ms, corrupt)
        last_ms, corrupt = row.at_ms, 0
    # Where the session ends its last rows are all there is; how long they took is known by their number only.
    hole(last_ms, last_ms + corrupt * interval_ms if next_ms is None else next_ms, corrupt)
    return tuple(gaps)
