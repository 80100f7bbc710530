"""The server-side commands that only touch the home's files: init, device, operator."""

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from components.cloud.sqlite_registry import Registry, Role
from components.console.home import Home, make_home
from components.console.node import CHECKOUT
from components.keyfile import make_key, write_key_file
from components.wire.topics import check_id

_home = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var"),
    show_default=True,
    help="The server's home.",
)
_json = click.option("--json", "as_json", is_flag=True, help="For programs: JSON on standard output.")


@click.command()
@_home
def init(home: Path) -> None:
    """Make a server's home: registry, keys, server.toml, the public bundle and the first operator's key."""
    made = make_home(home, _now_ms())
    click.echo(f"made {home}: keep {home / made.keys.name} and {home / 'operators'} to yourself")
    click.echo(f"give {home / made.bundle.name} to every device")
    if made.path == CHECKOUT / "var":
        click.echo("next: cd router && crossbar start")
    else:
        click.echo(f"next: set `registry` in router/.crossbar/config.yaml to {made.registry}, and crossbar start there")


@click.group()
def device() -> None:
    """Devices that may join: add, list, revoke."""


@device.command("add")
@click.argument("device_id", metavar="ID")
@click.option("--pubkey", required=True, help="The device's public key, as `odograph edge init` prints it.")
@click.option("--account", default="", help="Whose car it is.")
@click.option("--vehicle", default="", help="Which car it is.")
@click.option("--driver", default="", help="Who drives it.")
@_home
def add_device(device_id: str, pubkey: str, account: str, vehicle: str, driver: str, home: Path) -> None:
    """Let a device in; it joins within a minute."""
    with Registry.open(Home(home).registry, write=True) as registry:
        registry.add_device(device_id, pubkey, _now_ms(), account=account, vehicle=vehicle, driver=driver)
    click.echo(f"added {device_id}")


@device.command("list")
@_json
@_home
def list_devices(as_json: bool, home: Path) -> None:
    """Show every device and its state."""
    with Registry.open(Home(home).registry) as registry:
        devices = registry.devices()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in devices], indent=2))
        return
    table = Table("device", "state", "account", "vehicle", "driver", "added (UTC)", "public key")
    for one in devices:
        added = datetime.fromtimestamp(one.added_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        table.add_row(one.id, one.state, one.account, one.vehicle, one.driver, added, f"{one.pubkey[:12]}…")
    Console().print(table if devices else "no devices yet: odograph device add ID --pubkey HEX")


@device.command("revoke")
@click.argument("device_id", metavar="ID")
@_home
def revoke_device(device_id: str, home: Path) -> None:
    """Shut a device out, from its next join and its next packet on."""
    with Registry.open(Home(home).registry, write=True) as registry:
        registry.revoke_device(device_id, _now_ms())
    click.echo(f"revoked {device_id}")


@click.group()
def operator() -> None:
    """People who may ask the cars: add."""


@operator.command("add")
@click.argument("operator_id", metavar="ID")
@click.option("--role", type=click.Choice(["viewer", "technician", "admin"]), required=True, help="What they may do.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file for the private key.")
@_home
def add_operator(operator_id: str, role: Role, out: Path, home: Path) -> None:
    """Make a key for an operator and let them in with it."""
    key = make_key(check_id(operator_id, "operator"), role)
    with Registry.open(Home(home).registry, write=True) as registry:
        write_key_file(out, key)
        try:
            registry.add_principal(operator_id, key.public_key, role, _now_ms())
        except Exception:
            out.unlink()
            raise
    click.echo(f"added {operator_id} as {role}; their key is in {out}")


def commands() -> list[Any]:
    """Return this module's commands for the `odograph` group."""
    return [init, device, operator]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
