"""Answers as people read them: tables and lines, made with rich. Otherwise pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

Json = Mapping[str, Any]
_WIDEST: Final = 36


def rows(title: str, columns: Sequence[str], lines: Sequence[Sequence[object]]) -> None:
    """Print a table; "nothing yet" where there are no lines."""
    Console().print(table(title, columns, lines) if lines else f"{title}: nothing yet")


def table(title: str, columns: Sequence[str], lines: Sequence[Sequence[object]]) -> Table:
    """Return a table; None is an empty cell."""
    made = Table(title=_plain(title), title_justify="left")
    for n, column in enumerate(columns):
        # What a line is about must stay whole where the terminal is narrow.
        made.add_column(column, no_wrap=n == 0)
    for line in lines:
        made.add_row(*(_plain("" if one is None else str(one)) for one in line))
    return made


def _plain(said: str) -> Text:
    """Return what a car or a server said as it is: no markup, and nothing that commands a terminal."""
    return Text("".join(one if one.isprintable() else "�" for one in said))


def status(found: Json) -> None:
    """Print a device's answer to `status`."""
    recorder, car, outbox = found["recorder"], found["car"], found["outbox"]
    sim, power = found["sim"], found["power"]
    rows(
        str(found["device"]),
        ("what", "how it is"),
        [
            ("session", f"{found['session']}, clock from {found['clock']}, up {found['uptime_s']} s"),
            ("readings", f"{recorder['readings']}, latest {recorder['latest_at'] or 'none'}"),
            ("car", car["trouble"] or ("connected" if car["connected"] else "away")),
            ("power", f"{power['state']} since {power['since']}"),
            ("adapter", f"{car['adapter'] or '?'} at {car['port'] or '?'}, {car['protocol'] or 'no protocol'}"),
            (
                "asked",
                f"{car['group']} items a request, {'with' if car['counted'] else 'without'} count, {car['timing']}",
            ),
            ("rejected", ", ".join(f"{reason} {n}" for reason, n in car["rejected"].items()) or "nothing"),
            ("voltage", f"{car['voltage_v']} V" if car["voltage_v"] is not None else "?"),
            ("VIN", car["vin"] or car["vin_why"]),
            ("signals", f"{len(car['supported'])} of 36"),
            ("GPS", f"{found['gps']['fix']}D" if found["gps"]["fix"] else found["gps"]["why"]),
            ("SIM", f"ICCID {sim['iccid'] or sim['iccid_why']}, IMEI {sim['imei'] or sim['imei_why']}"),
            (
                "packets",
                f"{outbox['waiting']} waiting, {outbox['receipted']} receipted, {outbox['rejected']} rejected",
            ),
        ],
    )


def codes(found: Json) -> None:
    """Print a device's answer to `dtcs`."""
    rows(
        f"{found['device']}: codes as of {found['at'] or 'never'}",
        ("code", "status", "ECU", "first seen", "last seen"),
        [(one["code"], one["status"], one["ecu"], one["first_seen"], one["last_seen"]) for one in found["dtcs"]],
    )


def devices(found: Sequence[Json]) -> None:
    """Print the fleet."""
    rows(
        "devices",
        ("id", "state", "account", "vehicle", "driver", "latest packet"),
        [[one[key] for key in ("id", "state", "account", "vehicle", "driver", "latest")] for one in found],
    )


def minutes(found: Sequence[Json]) -> None:
    """Print one line a packet; `lost` beside the gaps where it declares that something never comes.

    What is in `left_out` is "?": it is there, and not here.
    """
    rows(
        "packets",
        ("start", "period", "session", "readings", "speed mean", "rpm mean", "codes", "gaps"),
        [_minute(one, one.get("left_out", ())) for one in found],
    )


def _minute(one: Json, left_out: Sequence[str]) -> Sequence[object]:
    if "packet" in left_out:
        return (one["start"], "?", one["id"].split("/")[1], *["?"] * 5)
    lost = " lost" if "lost" in one or "lost" in left_out else ""
    return (
        one["start"],
        f"{one['period_s']} s",
        one["session"],
        max(figures["count"] for figures in one["summary"].values()),
        _mean(one, "speed"),
        _mean(one, "rpm"),
        "?" if "dtcs" in left_out else " ".join(code["code"] for code in one["dtcs"]),
        f"{'?' if 'gaps' in left_out else len(one['gaps'])}{lost}",
    )


def _mean(minute: Json, key: str) -> str | None:
    mean = minute["summary"][key].get("mean")
    return None if mean is None else f"{mean:.1f}"


def car(found: Json, texts: Mapping[str, str]) -> Group:
    """Return what `odograph car` shows; `texts` has the words of the codes that are known by some."""
    dtcs = found["dtcs"]
    who = [
        ("adapter", found["adapter"] or "?"),
        ("protocol", found["protocol"] or "the car does not answer"),
        ("voltage", f"{found['voltage']} V" if found["voltage"] is not None else "?"),
        ("VIN", found["vin"] or "?"),
        ("supported", f"{len(found['supported'])} of {len(found['signals'])} items"),
        ("codes", "the car did not tell" if dtcs is None else f"{len(dtcs)}"),
        *((one["code"], f"{one['status']} in {one['ecu']}  {texts.get(one['code'], '')}") for one in dtcs or ()),
    ]
    signals = [
        (key, _shown(one["value"]), one["unit"], one["age_ms"], one["reason"])
        for key, one in found["signals"].items()
        if one["reason"] != "unsupported"
    ]
    return Group(
        table("car", ("what", "is"), who), table("signals", ("signal", "value", "unit", "age ms", "why not"), signals)
    )


def _shown(value: object) -> str:
    """Return a value as one cell: no JSON, no more digits and letters than a glance takes in."""
    if isinstance(value, dict):
        text = ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    elif isinstance(value, list):
        text = " ".join(value) or "none"
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    else:
        text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
