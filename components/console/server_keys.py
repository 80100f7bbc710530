"""The server's keys: `keys list`, `keys rotate`."""

import json
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from components.cloud.keys import KEPT_MS, load_server_keys, rotate
from components.cloud.sqlite_registry import Registry
from components.console.home import Home, home_option
from components.durable_file import replace_file
from components.wire import bundle
from components.wire.errors import ConfigError
from components.wire.times import iso_s

_DAYS = KEPT_MS // 86_400_000


@click.group()
def keys() -> None:
    """The server's own keys: list, rotate."""


@keys.command("rotate")
@home_option
def rotate_keys(home: Path) -> None:
    """Make new keys; running persisters and devices take them up by themselves."""
    here = Home(home)
    now_ms = time.time_ns() // 1_000_000
    load_server_keys(here.keys)  # says what is wrong with them, or that there are none
    with Registry.open(here.registry, write=True) as registry:
        made, removed = rotate(here.keys, now_ms)
        registry.note_keys(made.kid, made.before, removed, now_ms)
    try:
        replace_file(here.bundle, bundle.dump(made).encode())
    except OSError as error:
        copy = here.keys / f"{made.kid}.pub.json"
        raise ConfigError(
            f"the keys are rotated, but {here.bundle} cannot be written ({error.strerror})", f"copy {copy} there"
        ) from error
    click.echo(f"the newest key is {made.kid}; {made.before} opens packets for {_DAYS} days more")
    for kid in removed:
        click.echo(f"removed the private keys of {kid}")
    click.echo(f"give {here.bundle} to devices that are yet to be set up; the others fetch it")


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs: JSON on standard output.")
@home_option
def list_keys(as_json: bool, home: Path) -> None:
    """Show every generation of keys: when it was made, when it was followed by another, how long it is kept."""
    found = load_server_keys(Home(home).keys)
    rows: list[dict[str, Any]] = []
    for number, one in enumerate(found.chain):
        retired_ms = found.retired_ms(number)
        rows.append(
            {
                "kid": one.kid,
                "suites": [each.alg for each in one.recipients],
                "made": one.made or None,
                "retired": None if retired_ms is None else iso_s(retired_ms),
                "kept_until": None if retired_ms is None else iso_s(retired_ms + KEPT_MS),
                "opens": any(each.kid in found.unwrap for each in one.recipients),
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("kid", "made", "retired", "kept until", "private keys")
    for row in rows:
        days = [(row[name] or "")[:10] for name in ("made", "retired", "kept_until")]
        table.add_row(row["kid"], *days, "here" if row["opens"] else "removed")
    Console().print(table)


def commands() -> list[Any]:
    """Return this module's commands for the `odograph` group."""
    return [keys]
