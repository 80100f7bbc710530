"""The operators' commands: status, dtcs, clear-dtcs, devices, latest, minutes."""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import click
from autobahn.wamp.exception import ApplicationError, TransportLost
from twisted.internet.defer import TimeoutError  # noqa: A004 - Twisted's own

from components.cloud.config import DEVICE_URL
from components.cloud.stores import open_archive_reader
from components.cloud.wamp_fleet import stored_form
from components.console import show
from components.console.ask import Call, Router, ask
from components.wire import packet as packets
from components.wire.errors import BadInputError, RefusedError, UnavailableError
from components.wire.times import parse_iso
from components.wire.topics import check_id, device_procedure, fleet_procedure

Json = Mapping[str, Any]
_json = click.option("--json", "as_json", is_flag=True, help="For programs: JSON on standard output.")
_device = click.argument("device", metavar="ID")


def _router(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say how to reach the router; it gets them as `router` and `key`."""
    url = click.option("--router", "url", default=DEVICE_URL, show_default=True, help="Where the router listens.")
    ca = click.option("--ca", type=click.Path(path_type=Path), help="With wss://: the CA to trust, and no other.")
    key = click.option(
        "--key",
        type=click.Path(path_type=Path),
        default=Path("var/operators/admin.key"),
        show_default=True,
        help="Your KEYFILE.",
    )

    @wraps(command)
    def reaching(*, url: str, ca: Path | None, **options: Any) -> Any:  # noqa: ANN401 - as the command's
        return command(router=Router(url, ca), **options)

    return url(ca(key(reaching)))


class _Time(click.ParamType[int]):
    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        """Return ms UTC of an ISO 8601 time; one without a zone is UTC."""
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time like 2026-11-21T10:05:00Z", param, ctx)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


@click.command()
@_device
@_json
@_router
def status(device: str, as_json: bool, router: Router, key: Path) -> None:
    """Ask a car how it is."""
    _print(_ask_device(router, key, device, "status"), show.status, as_json=as_json)


@click.command()
@_device
@click.option("--refresh", is_flag=True, help="Ask the car's ECUs now.")
@_json
@_router
def dtcs(device: str, refresh: bool, as_json: bool, router: Router, key: Path) -> None:
    """Ask a car for its trouble codes."""
    _print(_ask_device(router, key, device, "dtcs", refresh), show.codes, as_json=as_json)


@click.command("clear-dtcs")
@_device
@_json
@_router
def clear_dtcs(device: str, as_json: bool, router: Router, key: Path) -> None:
    """Clear a car's trouble codes, if it stands with its engine off; exit code 1 when it was not done."""
    check_id(device, "device")

    async def clear(call: Call) -> Json:
        prepared = await call(device_procedure(device, "prepare_clear"))
        try:
            outcome: Json = await call(device_procedure(device, "clear_dtcs"), prepared["token"])
        except (TimeoutError, TransportLost, ApplicationError) as error:
            # What answered has not done it; whatever else came, it may have been done.
            if isinstance(error, ApplicationError) and error.error != ApplicationError.CANCELED:
                raise
            return {"outcome": "unknown"}
        return outcome

    found = ask(router, key, clear)
    if as_json:
        click.echo(json.dumps(found))
    if found["outcome"] == "refused":
        raise RefusedError(found["reason"], f"{device} was not cleared: {found['reason']}")
    if found["outcome"] != "cleared":
        raise UnavailableError(f"{device}: no clear answer came; ask for its codes before you try again")
    if not as_json:
        click.echo(f"{device}: cleared")


@click.command()
@_json
@_router
def devices(as_json: bool, router: Router, key: Path) -> None:
    """List the fleet's devices."""
    _print(ask(router, key, _every_device), show.devices, as_json=as_json)


@click.command()
@_device
@_json
@_router
def latest(device: str, as_json: bool, router: Router, key: Path) -> None:
    """Show a device's latest packet."""
    found = ask(router, key, _calling(fleet_procedure("latest"), check_id(device, "device")))
    if found is None:
        raise UnavailableError(f"{device} has no packet yet")
    with _well_formed():
        form = _minute(found, readings=True)
    _print(form, lambda one: show.minutes([one]), as_json=as_json)


@click.command()
@_device
@click.option("--since", type=_Time(), help="Packets that start then or later (ISO 8601).")
@click.option("--until", type=_Time(), help="Packets that start before.")
@click.option("--readings", is_flag=True, help="With every reading (JSON only).")
@click.option("--archive", help="Read this store directly (sqlite:PATH, mongodb://HOST/DATABASE): no router needed.")
@_json
@_router
def minutes(
    device: str,
    since: int | None,
    until: int | None,
    readings: bool,
    archive: str | None,
    as_json: bool,
    router: Router,
    key: Path,
) -> None:
    """List a device's packets, oldest first; --json prints one object a line."""
    check_id(device, "device")
    lines: list[Json] = []

    def take(one: Json) -> None:
        form = _minute(one, readings=readings)
        if as_json:
            click.echo(json.dumps(form, separators=(",", ":")))
        else:
            lines.append(form)

    if archive:
        with _well_formed():
            for one in _from_archive(archive, device, since, until):
                take(one)
    else:
        ask(router, key, _paging(device, since, until, take))
    if not as_json:
        with _well_formed("; --json shows it as it came"):
            show.minutes(lines)


def commands() -> list[Any]:
    """Return this module's commands for the `odograph` group."""
    return [status, dtcs, clear_dtcs, devices, latest, minutes]


def _ask_device(router: Router, key: Path, device: str, name: str, *arguments: object) -> Json:
    procedure = device_procedure(check_id(device, "device"), name)
    try:
        found: Json = ask(router, key, _calling(procedure, *arguments))
    except UnavailableError as error:
        raise UnavailableError(f"{device} does not answer: {error}") from error
    return found


def _calling(procedure: str, *arguments: object) -> Callable[[Call], Awaitable[Any]]:
    return lambda call: call(procedure, *arguments)


async def _every_device(call: Call) -> list[Json]:
    found: list[Json] = []
    last = ""
    while page := await call(fleet_procedure("devices"), last):
        with _well_formed():
            if page[-1]["id"] <= last:
                raise ValueError("the same page again")
            found, last = found + page, page[-1]["id"]
    return found


def _paging(
    device: str, since: int | None, until: int | None, take: Callable[[Json], None]
) -> Callable[[Call], Awaitable[None]]:
    """Return what gives every packet to `take`, page by page, and keeps none: a year of readings would not fit."""

    async def pages(call: Call) -> None:
        from_ms, after, more = since, "", True
        while more:
            page = await call(fleet_procedure("minutes"), device, from_ms, until, after)
            with _well_formed():
                found, more = page["minutes"], page["more"]
                if more and found[-1]["id"] == after:
                    raise ValueError("the same page again")
                for one in found:
                    take(one)
                    after, from_ms = one["id"], parse_iso(one["start"])

    return pages


def _from_archive(uri: str, device: str, since: int | None, until: int | None) -> Iterator[Json]:
    archive = open_archive_reader(uri, Path.cwd())
    try:
        yield from map(stored_form, archive.minutes(device, since, until))
    finally:
        archive.close()


def _minute(stored: Json, *, readings: bool) -> dict[str, object]:
    """Return a stored packet as `minutes --json` prints it.

    `left_out` names what was too long for an answer; `packet` where the archive cannot read it any more.
    """
    form = stored["packet"]
    minute: dict[str, object] = {key: stored[key] for key in ("id", "device", "account", "vehicle", "driver")}
    if form == {}:
        return minute | {"start": stored["start"], "left_out": ["packet"]}
    minute |= {key: form[key] for key in ("session", "start", "period_s", "clock", "identity")}
    minute |= {key: stored[key] for key in ("left_out",) if key in stored}
    if readings and "readings" not in stored.get("left_out", ()):
        opened = packets.read(form)
        minute["readings"] = [one.as_row() for one in opened.readings or ()]
    minute |= {key: form[key] for key in ("summary", "dtcs", "dtcs_at", "gaps", "config_hash")}
    return minute | {key: form[key] for key in ("clock_fix", "freeze_frame", "lost") if key in form}


def _print(found: Any, for_people: Callable[[Any], None], *, as_json: bool) -> None:  # noqa: ANN401 - JSON
    if as_json:
        click.echo(json.dumps(found))
        return
    with _well_formed("; --json shows it as it came"):
        for_people(found)


@contextmanager
def _well_formed(hint: str = "") -> Iterator[None]:
    try:
        yield
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise BadInputError("answer", f"this is not how an answer looks{hint}") from error
