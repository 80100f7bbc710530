"""`odograph feed tail`: the stream, whichever feed is configured, one CloudEvent a line."""

import json
from pathlib import Path
from typing import Any

import click

from components.cloud.config import read_server
from components.cloud.ports import FeedEvent
from components.cloud.stores import open_feed_reader


@click.group()
def feed() -> None:
    """The stream of readings, summaries and trouble codes."""


@feed.command()
@click.option("--feed", "uri", help="sqlite:PATH or kafka://HOST:PORT; default: what server.toml says.")
@click.option("--from-start", is_flag=True, help="From the first event that is kept, not from now.")
@click.option("--follow", is_flag=True, help="Go on for ever.")
@click.option("--json", "as_json", is_flag=True, help="For programs: CloudEvents in JSON, one a line.")
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=Path("var"), show_default=True)
def tail(uri: str | None, from_start: bool, follow: bool, as_json: bool, home: Path) -> None:
    """Print events as they come, or those that are there."""
    reader = open_feed_reader(uri or read_server(home / "server.toml").feed.uri, Path.cwd())
    try:
        for event in reader.read(from_start=from_start, follow=follow):
            click.echo(json.dumps(cloud_event(event), separators=(",", ":")) if as_json else _line(event))
    finally:
        reader.close()


def cloud_event(event: FeedEvent) -> dict[str, object]:
    """Return an event in CloudEvents 1.0's JSON format; the device is the extension `partitionkey`."""
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "time": event.time,
        "partitionkey": event.key,
        "datacontenttype": "application/json",
        "data": json.loads(event.data),
    }


def commands() -> list[Any]:
    """Return this module's commands for the `odograph` group."""
    return [feed]


def _line(event: FeedEvent) -> str:
    data = json.loads(event.data)
    tail = {
        "odograph.reading.v1": lambda: f"{data['speed']} km/h  {data['rpm']} rpm",
        "odograph.summary.v1": lambda: f"{data['period_s']} s summary",
        "odograph.dtc.v1": lambda: f"{data['code']} {data['status']}",
    }
    return f"{event.time}  {event.key}  {tail.get(event.type, lambda: event.type)()}"
