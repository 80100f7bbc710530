"""The JSON reports of gpsd 3.22, protocol 3.14, and how its requests are read. Pure.

Source: gpsd_json(5). Keys that the receiver does not know are absent, never null.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from components.virtual_car.moment import Place

DEVICE = "/dev/ttyACM0"
VERSION = {"class": "VERSION", "release": "3.22", "rev": "3.22", "proto_major": 3, "proto_minor": 14}
_SATELLITES = (
    (5, 62, 210, 44),
    (13, 41, 88, 41),
    (15, 33, 300, 38),
    (18, 24, 45, 35),
    (24, 71, 130, 46),
    (30, 15, 250, 29),
)


def line(report: dict[str, object]) -> bytes:
    """A report as it travels."""
    return json.dumps(report, separators=(",", ":")).encode() + b"\r\n"


def iso_time(time_ms: int) -> str:
    """A time in ms since 1970 as gpsd writes it.

    >>> iso_time(1_795_313_100_887)
    '2026-11-22T02:05:00.887Z'
    """
    whole, ms = divmod(time_ms, 1_000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"


def devices(activated_ms: int) -> dict[str, object]:
    """The answer to `?DEVICES;`: one receiver."""
    return {"class": "DEVICES", "devices": [device(activated_ms)]}


def device(activated_ms: int) -> dict[str, object]:
    """The receiver."""
    return {
        "class": "DEVICE",
        "path": DEVICE,
        "driver": "NMEA0183",
        "activated": iso_time(activated_ms),
        "flags": 1,
        "native": 0,
        "bps": 9600,
        "parity": "N",
        "stopbits": 1,
        "cycle": 1.00,
    }


def watch(enable: bool, as_json: bool) -> dict[str, object]:
    """The confirmation of `?WATCH=…`."""
    off = {"nmea": False, "raw": 0, "scaled": False, "timing": False, "split24": False, "pps": False}
    return {"class": "WATCH", "enable": enable, "json": as_json, **off}


def error(message: str) -> dict[str, object]:
    """What gpsd says to a request that it does not understand."""
    return {"class": "ERROR", "message": message}


def tpv(place: Place | None, time_ms: int) -> dict[str, object]:
    """Time, position, velocity.

    Args:
        place: None: the receiver has no fix (mode 1, no position).
        time_ms: Of the fix, ms since 1970, UTC.
    """
    report: dict[str, object] = {"class": "TPV", "device": DEVICE, "mode": 1, "time": iso_time(time_ms), "ept": 0.005}
    if place is None:
        return report
    report |= {"mode": 2, "lat": place.lat, "lon": place.lon, "epx": 3.1, "epy": 3.6}
    if place.altitude_m is not None:
        report |= {"mode": 3, "altMSL": place.altitude_m, "alt": place.altitude_m, "epv": 8.05}
    known = {"track": place.heading_deg, "speed": place.speed_m_s, "climb": place.climb_m_s}
    report |= {key: value for key, value in known.items() if value is not None}
    return report | {"eps": 0.62, "epc": 0.92}


def sky(time_ms: int) -> dict[str, object]:
    """The satellites in view."""
    satellites = [{"PRN": prn, "el": el, "az": az, "ss": ss, "used": True} for prn, el, az, ss in _SATELLITES]
    dops = {"hdop": 1.1, "vdop": 1.5, "pdop": 1.9}
    return {"class": "SKY", "device": DEVICE, "time": iso_time(time_ms), **dops, "satellites": satellites}


def poll(place: Place | None, fix_ms: int, now_ms: int) -> dict[str, object]:
    """The answer to `?POLL;`: the newest fix."""
    return {
        "class": "POLL",
        "time": iso_time(now_ms),
        "active": 1,
        "tpv": [tpv(place, fix_ms)],
        "gst": [],
        "sky": [sky(fix_ms)],
    }


@dataclass(frozen=True)
class Request:
    """One request of a client.

    Args:
        name: `WATCH`, `POLL`, … ; empty if it was none.
        parameters: The object behind `=`; empty without one.
        text: As the client wrote it.
    """

    name: str
    parameters: dict[str, object]
    text: str


def requests(buffer: str) -> tuple[list[Request], str]:
    """Cut what a client has written into requests.

    Args:
        buffer: Everything unread so far.

    Returns:
        The whole requests in it, and the rest that waits for its end.

    >>> requests('?WATCH={"enable":true};?PO')
    ([Request(name='WATCH', parameters={'enable': True}, text='?WATCH={"enable":true}')], '?PO')
    """
    *whole, rest = buffer.replace("\r", "\n").replace(";", ";\n").split("\n")
    texts = [text.strip().removesuffix(";") for text in whole]
    return [_request(text) for text in texts if text], rest


def _request(text: str) -> Request:
    name, _, parameters = text.removeprefix("?").partition("=")
    if not text.startswith("?"):
        return Request("", {}, text)
    try:
        parsed = json.loads(parameters) if parameters else {}
    except ValueError:
        return Request("", {}, text)
    return Request(name, parsed, text) if isinstance(parsed, dict) else Request("", {}, text)
