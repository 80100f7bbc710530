"""A minute of one car: raw readings, their summary, codes and gaps. Plaintext of the envelope. Pure.

`pack` and `unpack` are the only way between a Packet and its bytes; schemas/edge_to_cloud/packet.v1.json says the same
for other programs. The period is 60 s by default, so people call it a minute whatever its length.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from components.wire import columns, strict_json
from components.wire.errors import RejectedError
from components.wire.reading import Reading, check_value
from components.wire.signals import BY_KEY, DTC_PATTERN, LARGEST, REASONS
from components.wire.summary import STATISTICS, Statistics, check_statistics
from components.wire.times import iso_ms, iso_s, minute_id, parse_iso
from components.wire.topics import ID_PATTERN

SCHEMA: Final = "odograph.packet.v1"
MAX_READINGS: Final = 6000
CLOCKS: Final = ("gps", "ntp", "rtc", "saved", "none")
GAP_REASONS: Final = ("late", "lost_range", "corrupt")
LOST_WHAT: Final = ("readings", "packets")
LOST_REASONS: Final = ("bound", "card_full", "card_error", "corrupt", "rejected")
DTC_STATES: Final = ("stored", "pending", "permanent")
_MAX_DEPTH: Final = 6
MAX_LIST: Final = 1000
_HEX: Final = re.compile("[0-9a-f]{16}")
_DEVICE: Final = re.compile(ID_PATTERN)
_CODE: Final = re.compile(DTC_PATTERN)
_ECU: Final = re.compile("[0-9A-F]{2,8}")
# No moment before 1970: strftime would not give back four digits for the first centuries.
_DATE: Final = r"(19[7-9]|[2-9][0-9]{2})[0-9]-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}"
_SECOND: Final = re.compile(_DATE + "Z")
_MILLISECOND: Final = re.compile(_DATE + r"\.[0-9]{3}Z")
_MAX_MESSAGE: Final = 300
IDENTITIES: Final = {"vin": "[A-HJ-NPR-Z0-9]{17}", "iccid": "[0-9]{18,22}", "imei": "[0-9]{15}"}


@dataclass(frozen=True, slots=True)
class ClockFix:
    """How far the session before was off: its times + `offset_ms` are this session's timeline."""

    previous_session: str
    offset_ms: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the car, its SIM and its modem are; `why` has the reason of exactly those that are None."""

    vin: str | None
    iccid: str | None
    imei: str | None
    why: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TroubleCode:
    """A code that one ECU held when the car was last asked; times in ms UTC."""

    code: str
    status: str
    ecu: str
    first_seen_ms: int
    last_seen_ms: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A time of which there is no reading although the recorder should have made some; ms UTC, half-open."""

    from_ms: int
    to_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """What the device recorded, or should have, and no packet will bring; ms UTC, half-open, on the session's clock.

    Attributes:
        session: None where it is not known.
        what: `readings`: no packet was made of them. `packets`: they were made, and forgotten before a receipt said
            that they are stored; a server may have stored one whose receipt did not arrive.
        count: How many; None where it is not known.
        reason: `bound` the spool was over its bound, `card_full`, `card_error` the card took no rows, `corrupt` a file
            or row was, `rejected` the server had refused them for ever.
    """

    session: str | None
    from_ms: int
    to_ms: int
    what: str
    count: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Packet:
    """One period of one session.

    Attributes:
        start_ms: Start of the period, ms UTC, a multiple of `period_s`.
        clock: Source of the session's clock base, one of CLOCKS.
        clock_fix: In the first packet of a session that follows a clock correction.
        readings: Oldest first; None where the device sends summaries only.
        dtcs: The codes at `dtcs_at_ms`.
        dtcs_at_ms: When the car last answered for its codes, in this session; None: never, and `dtcs` says nothing.
        freeze_frame: Signal values that the car froze with its code; {} where there are none.
        config_hash: First 16 hex digits of the SHA-256 of the device's configuration.
        lost: What is lost of this device's record and was declared with this packet, of any session and time.
        summary: Rounded to 12 significant digits when packed; beyond that it is the arithmetic's noise.
    """

    device: str
    session: str
    start_ms: int
    period_s: int
    clock: str
    identity: Identity
    readings: tuple[Reading, ...] | None
    summary: Mapping[str, Statistics]
    config_hash: str
    dtcs: tuple[TroubleCode, ...] = ()
    dtcs_at_ms: int | None = None
    freeze_frame: Mapping[str, object] | None = None
    gaps: tuple[Gap, ...] = ()
    clock_fix: ClockFix | None = None
    lost: tuple[Lost, ...] = ()

    @property
    def id(self) -> str:
        """`<device>/<session>/<minute>`: the natural key."""
        return f"{self.device}/{self.session}/{minute_id(self.start_ms)}"


def pack(packet: Packet) -> bytes:
    """Return the packet as canonical compact JSON: the same packet gives the same bytes."""
    form: dict[str, object] = {
        "schema": SCHEMA,
        "id": packet.id,
        "device": packet.device,
        "session": packet.session,
        "start": iso_s(packet.start_ms),
        "period_s": packet.period_s,
        "clock": packet.clock,
        "identity": {
            "vin": packet.identity.vin,
            "iccid": packet.identity.iccid,
            "imei": packet.identity.imei,
            "why": dict(packet.identity.why),
        },
        "summary": {
            key: {name: float(f"{figure:.12g}") if name != "count" else figure for name, figure in figures.items()}
            for key, figures in packet.summary.items()
        },
        "dtcs": [
            {
                "code": one.code,
                "status": one.status,
                "ecu": one.ecu,
                "first_seen": iso_ms(one.first_seen_ms),
                "last_seen": iso_ms(one.last_seen_ms),
            }
            for one in packet.dtcs
        ],
        "dtcs_at": None if packet.dtcs_at_ms is None else iso_ms(packet.dtcs_at_ms),
        "gaps": [{"from": iso_ms(g.from_ms), "to": iso_ms(g.to_ms), "reason": g.reason} for g in packet.gaps],
        "config_hash": packet.config_hash,
    }
    if packet.readings is not None:
        form["readings"] = columns.encode(packet.readings, packet.start_ms)
    if packet.freeze_frame:
        form["freeze_frame"] = packet.freeze_frame
    if packet.clock_fix is not None:
        fix = packet.clock_fix
        form["clock_fix"] = {"previous_session": fix.previous_session, "offset_ms": fix.offset_ms}
    if packet.lost:
        form["lost"] = [lost_form(one) for one in packet.lost]
    return strict_json.dumps(form)


def lost_form(one: Lost) -> dict[str, object]:
    """Return a lost range as it stands in packets and events."""
    return {
        "session": one.session,
        "from": iso_ms(one.from_ms),
        "to": iso_ms(one.to_ms),
        "what": one.what,
        "count": one.count,
        "reason": one.reason,
    }


def parse(plaintext: bytes) -> dict[str, object]:
    """Return the packet's JSON object, not yet checked against the schema.

    Raises:
        RejectedError: `parse`: not strict JSON, too deep, or no object.
    """
    try:
        form = strict_json.loads(plaintext, _MAX_DEPTH)
    except (ValueError, RecursionError) as error:
        raise RejectedError("parse", str(error)) from error
    if not isinstance(form, dict):
        raise RejectedError("parse", "a packet is an object")
    return form


def read(form: Mapping[str, object], *, with_readings: bool = True) -> Packet:
    """Return the packet that a JSON object tells of.

    Args:
        form: What `parse` returned.
        with_readings: False makes the same checks, but leaves `readings` None: for who keeps columns as they are.

    Raises:
        RejectedError: `schema`: a key, type, range or time is not what the schema says; the message names it.
    """
    try:
        return _read(form, with_readings)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise RejectedError("schema", str(error)[:_MAX_MESSAGE]) from error


_REQUIRED: Final = frozenset((
    "schema", "id", "device", "session", "start", "period_s", "clock", "identity", "summary", "dtcs", "dtcs_at",
    "gaps", "config_hash",
))  # fmt: skip
_OPTIONAL: Final = frozenset(("readings", "freeze_frame", "clock_fix", "lost"))


def _read(form: Mapping[str, object], with_readings: bool) -> Packet:
    _keys("packet", form, _REQUIRED, _OPTIONAL)
    if form["schema"] != SCHEMA:
        raise ValueError(f"schema: {form['schema']!r} is not {SCHEMA}")
    start_ms, period_s = parse_iso(_text("start", form["start"], _SECOND)), _whole("period_s", form["period_s"], 5, 60)
    if 60 % period_s or start_ms % (period_s * 1000):
        raise ValueError("start: not the start of a period that divides a minute")
    readings, most = None, MAX_READINGS
    if "readings" in form:
        table = columns.check(form["readings"], MAX_READINGS)
        if table.at != sorted(table.at) or (table.at and not 0 <= table.at[0] <= table.at[-1] < period_s * 1000):
            raise ValueError("readings: times are not in order inside the period")
        readings, most = table.readings(start_ms) if with_readings else None, len(table.at)
    packet = Packet(
        device=_text("device", form["device"], _DEVICE),
        session=_text("session", form["session"], _HEX),
        start_ms=start_ms,
        period_s=period_s,
        clock=_word("clock", form["clock"], CLOCKS),
        identity=_identity(form["identity"]),
        readings=readings,
        summary=_summary(form["summary"], most),
        config_hash=_text("config_hash", form["config_hash"], _HEX),
        dtcs=tuple(_dtc(one) for one in _list("dtcs", form["dtcs"])),
        dtcs_at_ms=None if form["dtcs_at"] is None else _moment("dtcs_at", form["dtcs_at"]),
        freeze_frame=_freeze_frame(form["freeze_frame"]) if "freeze_frame" in form else None,
        gaps=tuple(_gap(one) for one in _list("gaps", form["gaps"])),
        clock_fix=_clock_fix(form["clock_fix"]) if "clock_fix" in form else None,
        lost=tuple(_lost(one) for one in _list("lost", form["lost"], 1)) if "lost" in form else (),
    )
    if form["id"] != packet.id:
        raise ValueError(f"id: must be {packet.id}")
    _check_parts(packet)
    return packet


def _check_parts(packet: Packet) -> None:
    """Check what parts say of each other; ValueError where they contradict."""
    end_ms = packet.start_ms + packet.period_s * 1000
    if not all(packet.start_ms <= one.from_ms <= one.to_ms <= end_ms for one in packet.gaps):
        raise ValueError("gaps: not from an earlier to a later time of the period")
    if packet.dtcs and packet.dtcs_at_ms is None:
        raise ValueError("dtcs_at: codes without the time of the answer")
    if packet.clock_fix is not None and packet.clock_fix.previous_session == packet.session:
        raise ValueError("clock_fix.previous_session: is the packet's own")


def _identity(form: object) -> Identity:
    table = _keys("identity", form, {*IDENTITIES, "why"})
    why = _keys("identity.why", table["why"], set(), IDENTITIES)
    found: dict[str, str | None] = {}
    for key, pattern in IDENTITIES.items():
        if (table[key] is None) != (key in why):
            raise ValueError(f"identity.{key}: has either a value or a reason")
        found[key] = None if table[key] is None else _text(f"identity.{key}", table[key], re.compile(pattern))
    reasons = {key: _word(f"identity.why.{key}", reason, REASONS) for key, reason in why.items()}
    return Identity(found["vin"], found["iccid"], found["imei"], reasons)


def _summary(form: object, most: int) -> dict[str, Statistics]:
    summarised = {key for key, signal in BY_KEY.items() if signal.summarised}
    table = _keys("summary", form, summarised)
    for key in summarised:
        where = f"summary.{key}"
        figures = _keys(where, table[key], {"count"}, STATISTICS)
        allowed = [{"count"}, set(STATISTICS)] if key != "heading" else [{"count"}, {"count", "mean"}]
        if figures.keys() not in allowed:
            raise ValueError(f"{where}: has all statistics, or a count only")
        count = _whole(f"{where}.count", figures["count"], 0, most)
        # Headings may cancel out: then they have a count, but no mean.
        if (count == 0) != (len(figures) == 1) and not (key == "heading" and count and len(figures) == 1):
            raise ValueError(f"{where}: has all statistics, or a count of 0 only")
        if not all(
            type(figure) in {int, float} and math.isfinite(cast("float", figure)) for figure in figures.values()
        ):
            raise ValueError(f"{where}: statistics are finite numbers")
        if len(figures) > 1:
            check_statistics(key, cast("Statistics", figures))
    return cast("dict[str, Statistics]", table)


def _dtc(form: object) -> TroubleCode:
    table = _keys("dtcs", form, {"code", "status", "ecu", "first_seen", "last_seen"})
    return TroubleCode(
        _text("dtcs.code", table["code"], _CODE),
        _word("dtcs.status", table["status"], DTC_STATES),
        _text("dtcs.ecu", table["ecu"], _ECU),
        _moment("dtcs.first_seen", table["first_seen"]),
        _moment("dtcs.last_seen", table["last_seen"]),
    )


def _freeze_frame(form: object) -> Mapping[str, object]:
    table = _keys("freeze_frame", form, set(), BY_KEY)
    for key, value in table.items():
        check_value(key, value)
    return table


def _gap(form: object) -> Gap:
    table = _keys("gaps", form, {"from", "to", "reason"})
    reason = _word("gaps.reason", table["reason"], GAP_REASONS)
    return Gap(_moment("gaps.from", table["from"]), _moment("gaps.to", table["to"]), reason)


def _lost(form: object) -> Lost:
    table = _keys("lost", form, {"session", "from", "to", "what", "count", "reason"})
    return Lost(
        None if table["session"] is None else _text("lost.session", table["session"], _HEX),
        _moment("lost.from", table["from"]),
        _moment("lost.to", table["to"]),
        _word("lost.what", table["what"], LOST_WHAT),
        None if table["count"] is None else _whole("lost.count", table["count"], 1, LARGEST),
        _word("lost.reason", table["reason"], LOST_REASONS),
    )


def _clock_fix(form: object) -> ClockFix:
    table = _keys("clock_fix", form, {"previous_session", "offset_ms"})
    session = _text("clock_fix.previous_session", table["previous_session"], _HEX)
    return ClockFix(session, _whole("clock_fix.offset_ms", table["offset_ms"], -LARGEST, LARGEST))


def _keys(where: str, form: object, required: object, optional: object = frozenset()) -> dict[str, object]:
    need, may = frozenset(cast("Mapping[str, object]", required)), frozenset(cast("Mapping[str, object]", optional))
    if not isinstance(form, dict):
        raise TypeError(f"{where}: must be an object")
    if form.keys() - need - may or need - form.keys():
        odd = sorted((form.keys() - need - may) | (need - form.keys()))
        raise ValueError(f"{where}: keys missing or unknown: {odd!r}")
    return form


def _list(where: str, form: object, least: int = 0) -> list[object]:
    if not isinstance(form, list) or not least <= len(form) <= MAX_LIST:
        raise ValueError(f"{where}: must be a list of {least} to {MAX_LIST}")
    return form


def _text(where: str, form: object, pattern: re.Pattern[str]) -> str:
    if not isinstance(form, str) or not pattern.fullmatch(form):
        raise ValueError(f"{where}: must match {pattern.pattern}")
    return form


def _moment(where: str, form: object) -> int:
    return parse_iso(_text(where, form, _MILLISECOND))


def _word(where: str, form: object, words: tuple[str, ...]) -> str:
    if form not in words:
        raise ValueError(f"{where}: must be one of {' '.join(words)}")
    return form


def _whole(where: str, form: object, least: int, most: int) -> int:
    if type(form) is not int or not least <= form <= most:
        raise ValueError(f"{where}: must be a whole number from {least} to {most}")
    return form
