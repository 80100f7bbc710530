"""`odograph demo`: the whole road on this machine, live, and counted in the stores at its end."""

import json
import math
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from components.cloud.config import (
    ARCHIVE_FORMS,
    ARCHIVE_URI,
    FEED_FORMS,
    FEED_URI,
    is_archive_uri,
    is_feed_uri,
    read_server,
)
from components.cloud.stores import open_archive_reader
from components.console import tally
from components.console.fleet import Fleet, Plan
from components.console.tally import Tally
from components.edge.spool_view import SpoolView
from components.virtual_car.recording import UnreadableRecordingError, load_recording
from components.wire.errors import ConfigError, OdographError, OperatorError, UnavailableError

_LOOK_EVERY_S: Final = 0.5
_FIRST_READING_S: Final = 60.0
_SETTLE_S: Final = 60.0


class _Seconds(click.FloatRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        """Return a time that ends: nan is in every range."""
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is no time", param, ctx)
        return seconds


_PERIODS: Final = [str(n) for n in range(5, 61) if 60 % n == 0]


@click.command()
@click.option("--for", "seconds", type=_Seconds(min=1), help="End by itself, so long after the first reading.")
@click.option("--cars", type=click.IntRange(1, 50), default=1, show_default=True)
@click.option("--period", type=click.Choice(_PERIODS), default="10", show_default=True, help="Seconds a packet.")
@click.option("--parked", is_flag=True, help="Ignition on, engine off, one stored trouble code.")
@click.option("--replay", type=click.Path(path_type=Path), help="Drive after this recorded minute.")
@click.option("--archive", default=ARCHIVE_URI, show_default=True, help="sqlite:PATH or mongodb://HOST/DATABASE.")
@click.option("--feed", default=FEED_URI, show_default=True, help="sqlite:PATH or kafka://HOST:PORT.")
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help="Directory to make; default: temporary.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there, as JSON.")
def demo(
    seconds: float | None,
    cars: int,
    period: str,
    parked: bool,
    replay: Path | None,
    archive: str,
    feed: str,
    home: Path | None,
    report: Path | None,
) -> int:
    """Watch virtual cars, a router and a cloud at work on this machine; Ctrl-C ends it."""
    if parked and replay:
        raise click.UsageError("--parked and --replay exclude each other")
    if not is_archive_uri(archive):
        raise ConfigError(f"--archive: must be {ARCHIVE_FORMS}, got {archive!r}")
    if not is_feed_uri(feed):
        raise ConfigError(f"--feed: must be {FEED_FORMS}, got {feed!r}")
    if replay is not None:
        replay = replay.absolute()
        try:
            load_recording(replay)
        except UnreadableRecordingError as error:
            raise ConfigError(str(error)) from error
    if report is not None and not report.absolute().parent.is_dir():
        raise ConfigError(f"--report: {report.absolute().parent} is no directory", "make it, or name another")
    where = home or Path(tempfile.mkdtemp(prefix="odograph-demo-"))
    plan = Plan(where.absolute(), cars, int(period), parked, replay, archive, feed)
    console = Console()
    with _interruptible() as stopped, Fleet.made(plan, time.time_ns() // 1_000_000) as fleet:
        with console.status("starting router, persister and cars"):
            fleet.start()
        _say_how_to_ask(console, fleet)
        _watch(console, fleet, seconds, stopped)
        with console.status("the cars close their packets and deliver"):
            fleet.end_agents()
            figures = _settled(fleet)
    t0 = {car.device: int(car.hello["t0_ms"]) for car in fleet.cars} if replay else None
    if report is not None:
        report.write_text(json.dumps(figures.as_report(t0), indent=1) + "\n", "utf-8")
    _say_what_happened(console, fleet, figures)
    return 0 if figures.balanced else 1


def commands() -> list[Any]:
    """Return this module's commands for the `odograph` group."""
    return [demo]


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Let SIGINT, SIGTERM and SIGHUP end the watching, not the program; a second one ends the program as usual."""
    stopped: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(console: Console, fleet: Fleet, seconds: float | None, stopped: list[int]) -> None:
    """Show the road until the time is over or somebody stops it."""
    started = time.monotonic()
    first: float | None = None
    with Live(console=console, refresh_per_second=2, transient=not console.is_terminal) as live:
        while not stopped:
            fleet.check()
            if first is None and all(SpoolView(car.spool).readings() for car in fleet.cars):
                first = time.monotonic()
            now = time.monotonic()
            if first is None and now - started > _FIRST_READING_S:
                raise UnavailableError(f"no reading within {_FIRST_READING_S:.0f} s; the logs: {fleet.home.path}/logs")
            if first is not None and seconds is not None and now - first >= seconds:
                return
            if console.is_terminal:
                live.update(_picture(fleet))
            time.sleep(_LOOK_EVERY_S)


def _picture(fleet: Fleet) -> Table:
    counts = _archive_counts(fleet)
    stored = counts.get("packets", 0)
    table = Table("car", "speed", "engine", "place", "packets made", "sealed", "receipted", caption_justify="left")
    table.caption = f"archive: {stored} packets stored, {stored - counts.get('pending', 0)} fed to the stream"
    for car in fleet.cars:
        spool = SpoolView(car.spool)
        values, packets = spool.latest() or {}, spool.packets()
        table.add_row(
            car.device,
            _number(values, "speed", "km/h"),
            _number(values, "rpm", "rpm"),
            _place(values),
            str(len(packets)),
            f"{sum(one.size for one in packets) / max(1, len(packets)):.0f} B each",
            str(sum(one.state == "receipted" for one in packets)),
        )
    return table


def _archive_counts(fleet: Fleet) -> Mapping[str, int]:
    try:
        archive = open_archive_reader(fleet.plan.archive, fleet.home.path)
    except OdographError:
        # The persister has not made it yet.
        return {}
    try:
        return archive.counts()
    except OdographError:
        return {}
    finally:
        archive.close()


def _number(values: Mapping[str, Any], key: str, unit: str) -> str:
    return f"{values[key]:.0f} {unit}" if key in values else "-"


def _place(values: Mapping[str, Any]) -> str:
    if "location" not in values:
        return "-"
    lon, lat = values["location"]["coordinates"]
    return f"{lat:.5f} {lon:.5f}"


def _settled(fleet: Fleet) -> Tally:
    """Count until everything made has arrived everywhere, or 60 s are over."""
    spools = {car.device: car.spool for car in fleet.cars}
    server = read_server(fleet.home.config)
    end = time.monotonic() + _SETTLE_S
    while True:
        try:
            figures = tally.count(spools, server.archive.uri, server.feed.uri, fleet.home.path)
        except (UnavailableError, OperatorError):
            # A store that hiccups now may be there at the next look.
            if time.monotonic() > end:
                raise
        else:
            if figures.balanced or time.monotonic() > end:
                return figures
        time.sleep(_LOOK_EVERY_S)


def _odograph() -> str:
    """Return what to type for this very `odograph`: its name where the shell finds it, else its path."""
    ours = Path(sys.executable).parent / "odograph"
    return "odograph" if shutil.which("odograph") == str(ours) else str(ours)


def _access(fleet: Fleet) -> str:
    return f"--router {fleet.urls.devices} --key {fleet.home.admin_key}"


def _say_how_to_ask(console: Console, fleet: Fleet) -> None:
    device = fleet.cars[0].device
    console.print(f"running in {fleet.home.path}; ask it from another terminal:", soft_wrap=True)
    for question in (f"status {device}", f"dtcs {device}", "devices"):
        console.print(f"  {_odograph()} {question} {_access(fleet)}", soft_wrap=True)


def _say_what_happened(console: Console, fleet: Fleet, figures: Tally) -> None:
    size = figures.packet_bytes
    console.print(
        f"packets: {figures.made} made, {figures.stored} stored, {figures.fed} fed, {figures.receipted} receipted, "
        f"{figures.duplicates} twice, {figures.rejected} rejected; "
        f"readings: {figures.readings_recorded} recorded, {figures.readings_stored} stored; "
        f"sealed: {size['min']:.0f} to {size['max']:.0f} bytes a packet",
        soft_wrap=True,
    )
    console.print("balanced" if figures.balanced else "NOT balanced: something is missing", style="bold")
    home, device = fleet.home, fleet.cars[0].device
    console.print("read what was stored:", soft_wrap=True)
    console.print(f"  {_odograph()} minutes {device} --archive {figures.archive}", soft_wrap=True)
    console.print(f"  {_odograph()} feed tail --from-start --home {home.path}", soft_wrap=True)
    console.print("serve this home again, each in a terminal of its own:", soft_wrap=True)
    console.print(f"  {Path(sys.executable).parent / 'crossbar'} start --cbdir {home.path / 'router'}", soft_wrap=True)
    console.print(f"  {_odograph()} persist --config {home.config}", soft_wrap=True)
    console.print(f"  {_odograph()} devices {_access(fleet)}", soft_wrap=True)
