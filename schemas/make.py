"""Writes the two schemas that contain the catalogue, from the catalogue: `python -m schemas.make`. Rim.

Everything that is not the catalogue's stands here, once, as data; tests/contract/test_wire_contract.py fails while the
files differ from what this makes.
"""

import json
from pathlib import Path
from typing import Final

from components.wire import packet
from components.wire.signals import (
    BY_KEY,
    DTC_PATTERN,
    LARGEST,
    REASONS,
    Bits,
    Enum,
    Flag,
    Linear,
    MonitorStatus,
    OxygenSensor,
    Signal,
    TroubleCode,
    most_raw,
    span,
)
from components.wire.summary import STATISTICS
from components.wire.topics import ID_PATTERN

Json = dict[str, object]
HERE: Final = Path(__file__).resolve().parent
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_TIERS: Final = {"F": "every pass", "M": "about every 5 s", "S": "every 30 s", "O": "once a session and on change"}
_DAY: Final = "(19[7-9]|[2-9][0-9]{2})[0-9]-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_TIME: Final = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_HEX: Final = "[0-9a-f]{16}"


def closed(properties: Json, description: str = "", optional: tuple[str, ...] = ()) -> Json:
    """Return the schema of an object that has these properties, all but the optional ones required, and no other."""
    required = [key for key in properties if key not in optional]
    about = {"description": description} if description else {}
    return {
        "type": "object", **about, "properties": properties, "required": required, "additionalProperties": False
    }  # fmt: skip


def text(pattern: str, description: str = "") -> Json:
    """Return the schema of a string that matches the whole pattern."""
    return {"type": "string", "pattern": f"^{pattern}$", **({"description": description} if description else {})}


def value(signal: Signal) -> Json:  # noqa: PLR0911 - one return a kind of codec
    """Return the schema of the values that a signal can have."""
    if signal.key == "location":
        sides = [{"type": "number", "minimum": -most, "maximum": most} for most in (180, 90)]
        place: Json = {"type": "array", "prefixItems": sides, "items": False, "minItems": 2}
        place["description"] = "[longitude, latitude], WGS 84 degrees, 7 decimals"
        return closed({"type": {"const": "Point"}, "coordinates": place})
    match signal.codec:
        case Enum(words=words):
            return {"enum": list(dict.fromkeys(words.values()))}
        case Bits(names=names):
            return {"type": "array", "items": {"enum": list(names)}, "uniqueItems": True}
        case Flag():
            return {"type": "boolean"}
        case TroubleCode():
            return {**text(DTC_PATTERN), "not": {"const": "P0000"}}
        case OxygenSensor() as codec:
            # FE: the greatest trim, as FF means none.
            none, full = codec.decode(0), codec.decode(0xFFFE)
            most = codec.decode(most_raw(signal))["voltage_v"]
            volts = {"type": "number", "minimum": none["voltage_v"], "maximum": most}
            bounds = {"minimum": none["trim_percent"], "maximum": full["trim_percent"]}
            return closed({"voltage_v": volts, "trim_percent": {"type": ["number", "null"], **bounds}})
        case MonitorStatus():
            # Every monitor of either kind of engine, as the codec itself names them when all are there.
            every = [signal.codec.decode(0x0007FF00 | kind << 16) for kind in (0, 8)]
            monitors: Json = {name: {"type": "boolean"} for one in every for name in _names(one)}
            return closed({
                "mil": {"type": "boolean"},
                "dtc_count": {"type": "integer", "minimum": 0, "maximum": 127},
                "compression_ignition": {"type": "boolean"},
                "monitors_ready": closed(monitors, "Only monitors that the car has.", tuple(monitors)),
            })  # fmt: skip
        case _:
            least, most = span(signal)
            return {"type": "number", "minimum": least, "maximum": most}


def _names(status: dict[str, object]) -> list[str]:
    ready = status["monitors_ready"]
    return list(ready) if isinstance(ready, dict) else []


def about(signal: Signal) -> str:
    """Return what people should know of a signal: unit, PID, VSS path, how often."""
    parts = [f"Unit: {signal.unit}." if signal.unit else "No unit."]
    if signal.pid is not None:
        parts.append(f"OBD-II mode 01 PID {signal.pid:02X}, {signal.size} byte(s).")
    parts.append(f"VSS: Vehicle.{signal.vss}." if signal.vss else "No VSS path.")
    parts.append(f"Asked {_TIERS[signal.tier]}.")
    return " ".join(parts)


def column(signal: Signal) -> Json:
    """Return the schema of a signal's column."""
    steps = {"$ref": "#/$defs/differences"}
    forms: list[Json] = [{"$ref": "#/$defs/reason"}]
    if signal.key == "location":
        forms.append(closed({"lon": steps, "lat": steps}))
    elif signal.codec is not None:
        forms.append(closed({"d": steps}))
    else:
        forms.append(closed({"e": {"type": "integer", "minimum": 0, "maximum": 7}, "d": steps}))
    if signal.key != "location" and (signal.codec is None or isinstance(signal.codec, Linear)):
        least, most = span(signal)
        number = {"type": ["number", "null"], "minimum": least, "maximum": most}
        forms.append(closed({"v": {"type": "array", "items": number, "maxItems": packet.MAX_READINGS}}))
    return {"description": about(signal), "oneOf": forms}


def reading() -> Json:
    """Return the schema of one reading, as `odograph minutes --readings --json` prints it."""
    keys = {"enum": list(BY_KEY)}
    signals: Json = {
        key: {"description": about(signal), "oneOf": [{"type": "null"}, value(signal)]}
        for key, signal in BY_KEY.items()
    }
    age = {"type": "integer", "minimum": 1, "maximum": LARGEST}
    form = closed({
        "at": text(rf"{_DAY}T{_TIME}\.[0-9]{{3}}Z", "RFC 3339, UTC, ms"),
        **signals,
        "age_ms": {
            "description": "How long before `at` a value was measured, ms; left out where it was just then.",
            "type": "object", "propertyNames": keys, "additionalProperties": age,
        },
        "why": {
            "description": "The reason of each signal that is null, and of no other.",
            "type": "object", "propertyNames": keys, "additionalProperties": {"enum": list(REASONS)},
        },
    })  # fmt: skip
    return (
        _head("reading.v1", "What the car and its receivers said at one moment; null: nothing, `why` says why.") | form
    )


def packet_v1() -> Json:
    """Return the schema of a packet, the plaintext of an envelope."""
    moment = {"$ref": "#/$defs/moment"}
    reason = {"$ref": "#/$defs/reason"}
    hex16 = text(_HEX)
    identities: Json = {key: {"oneOf": [{"type": "null"}, text(pattern)]} for key, pattern in packet.IDENTITIES.items()}
    code = closed({
        "code": text(DTC_PATTERN, "SAE J2012"),
        "status": {"enum": list(packet.DTC_STATES)},
        "ecu": text("[0-9A-F]{2,8}", "The answering ECU's address, hex."),
        "first_seen": moment,
        "last_seen": moment,
    })  # fmt: skip
    gap = closed({"from": moment, "to": moment, "reason": {"enum": list(packet.GAP_REASONS)}})
    lost = closed({
        "session": {"oneOf": [{"type": "null"}, hex16], "description": "null: not known."},
        "from": moment,
        "to": moment,
        "what": {"enum": list(packet.LOST_WHAT)},
        "count": {"type": ["integer", "null"], "minimum": 1, "maximum": LARGEST, "description": "null: not known."},
        "reason": {"enum": list(packet.LOST_REASONS)},
    })  # fmt: skip
    form = closed({
        "schema": {"const": packet.SCHEMA},
        "id": text(f"{ID_PATTERN}/{_HEX}/[0-9]{{8}}T[0-9]{{6}}Z", "<device>/<session>/<minute>"),
        "device": text(ID_PATTERN),
        "session": hex16,
        "start": text(f"{_DAY}T{_TIME}Z", "Start of the period, UTC; a multiple of period_s."),
        "period_s": {"enum": [n for n in range(5, 61) if 60 % n == 0], "description": "Length of the period, s."},
        "clock": {"enum": list(packet.CLOCKS), "description": "Source of the session's clock base."},
        "clock_fix": closed({
            "previous_session": hex16,
            "offset_ms": {"type": "integer", "minimum": -LARGEST, "maximum": LARGEST},
        }, "How far the session before was off: its times + offset_ms are this session's."),
        "identity": closed({
            **identities,
            "why": closed(dict.fromkeys(packet.IDENTITIES, reason), "Of each null.", tuple(packet.IDENTITIES)),
        }),
        "readings": readings(),
        "summary": closed({
            key: {"description": f"Unit: {signal.unit or 'none'} (variance: its square).", **_statistics(key)}
            for key, signal in BY_KEY.items() if signal.summarised
        }, "Of this period's readings; population variance, ties in mode to the smallest."),
        "dtcs": {"type": "array", "items": code, "maxItems": packet.MAX_LIST, "description": "The codes at dtcs_at."},
        "dtcs_at": {"oneOf": [{"type": "null"}, moment], "description": "null: the car never answered for them."},
        "freeze_frame": closed({key: value(signal) for key, signal in BY_KEY.items()},
                               "What the car froze with its code.", tuple(BY_KEY)),
        "gaps": {"type": "array", "items": gap, "maxItems": packet.MAX_LIST,
                 "description": "Times, half-open, of which readings are missing. One that reaches the end of the "
                                "period may go on until the session's next reading."},
        "lost": {"type": "array", "items": lost, "minItems": 1, "maxItems": packet.MAX_LIST,
                 "description": "What the device recorded, or should have, and no packet will bring; half-open."},
        "config_hash": text(_HEX, "Of the device's configuration: SHA-256, first 16 digits."),
    }, optional=("clock_fix", "readings", "freeze_frame", "lost"))  # fmt: skip
    definitions = {
        "moment": text(rf"{_DAY}T{_TIME}\.[0-9]{{3}}Z", "RFC 3339, UTC, ms"),
        "reason": {"enum": list(REASONS), "description": "Why there is no value."},
        "differences": {
            "description": "The first number as it is, each later one as the difference to the one before; null: none.",
            "type": "array", "items": {"type": ["integer", "null"]}, "maxItems": packet.MAX_READINGS,
        },
    }  # fmt: skip
    return _head("packet.v1", "One period of one car: readings as columns, their summary, codes and gaps.") | form | {
        "$defs": definitions
    }  # fmt: skip


def readings() -> Json:
    """Return the schema of the columns; components/wire/columns.py tells how they are meant."""
    runs = {
        "type": "array",
        "items": {
            "type": "object", "minProperties": 1, "maxProperties": 1, "propertyNames": {"$ref": "#/$defs/reason"},
            "additionalProperties": {"type": "integer", "minimum": 1},
        },
    }  # fmt: skip
    signals = {"type": "array", "items": {"enum": list(BY_KEY)}, "uniqueItems": True}
    group = closed({"of": signals, "at": {"$ref": "#/$defs/differences"}})
    whole = {"type": "integer"}
    return closed({
        "at": {"type": "array", "items": whole, "maxItems": packet.MAX_READINGS,
               "description": "Offset of the first reading from start, then differences, ms."},
        "columns": closed({key: column(signal) for key, signal in BY_KEY.items()}),
        "measured": {"type": "array", "items": group, "maxItems": len(BY_KEY),
                     "description": "Signals answered together and when, in the form of `at`; left out: just then."},
        "why": {"type": "object", "propertyNames": {"enum": list(BY_KEY)}, "additionalProperties": runs,
                "description": "Runs {reason: length} over the nulls of each column that has values too."},
    })  # fmt: skip


def _statistics(key: str) -> Json:
    none = closed({"count": {"const": 0}})
    some = {"type": "integer", "minimum": 1, "maximum": packet.MAX_READINGS}
    if key == "heading":
        # An angle: no figure but its circular mean, and not that one where directions cancel out.
        return {"oneOf": [none, closed({"count": some, "mean": {"type": "number"}}, optional=("mean",))]}
    return {"oneOf": [none, closed({"count": some, **{name: {"type": "number"} for name in STATISTICS[1:]}})]}


def _head(name: str, description: str) -> Json:
    return {"$schema": _DIALECT, "$id": f"odograph:schemas/edge_to_cloud/{name}.json", "title": name,
            "description": description}  # fmt: skip


MADE: Final = {"edge_to_cloud/packet.v1.json": packet_v1, "edge_to_cloud/reading.v1.json": reading}


def dumps(schema: Json) -> str:
    """Return a schema as it stands in its file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, make in MADE.items():
        (HERE / path).write_text(dumps(make()))
