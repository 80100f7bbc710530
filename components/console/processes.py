"""The commands that run until they are told to end: the agent and the persister; and what sets an agent up."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.failure import Failure

from components.bounded_file import read_text
from components.cloud.config import DEVICE_URL, read_server
from components.console import logs
from components.console.secrecy import keep_memory_private
from components.console.supervisor import Supervisor
from components.keyfile import make_key, write_key_file
from components.wamp_transport import check_url, read_ca, transport
from components.wire import bundle
from components.wire.errors import ConfigError, OdographError
from components.wire.topics import check_id

_LONGEST_LINE = 1000
_EDGE_TOML = """\
# odograph, one car. Relative paths stand beside this file. Every key with its default: ARCHITECTURE.md.

[device]
id = "{device}"
key = "device.key"

[router]
{router}

[server]
bundle = "server.pub.json"

[obd]
port = "auto"                       # or a device, socket://HOST:PORT, bluetooth://AA:BB:CC:DD:EE:FF
baud = 38400

[gps]
gpsd = "127.0.0.1:2947"             # "" for a car without one

[modem]
port = "auto"                       # "" for a car without one

[spool]
dir = "spool"
keep_days = 15
"""


_ca = click.option(
    "--ca", type=click.Path(path_type=Path), help="With wss://: the CA to trust, and no other; it is copied."
)


@click.group(invoke_without_command=True)
@click.option("--config", type=click.Path(path_type=Path), help="The agent's edge.toml.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warn", "error"]), default="info", show_default=True)
@click.pass_context
def edge(context: click.Context, config: Path | None, log_level: str) -> None:
    """Run the agent of one car; `edge enrol` sets one up with a code, `edge init` without."""
    if context.invoked_subcommand is not None:
        return
    if config is None:
        raise click.UsageError("--config is missing", context)
    # With the edge's extra installed only: a server needs neither serial line nor python-OBD.
    from components.edge import config as edge_config  # noqa: PLC0415
    from components.edge.agent import edge_component  # noqa: PLC0415

    component = edge_component(edge_config.load(config))
    logs.begin(log_level)
    _run(lambda _reactor: component)


@edge.command("init")
@click.option("--device", "device_id", required=True, help="The device's id.")
@click.option("--server", type=click.Path(path_type=Path), required=True, help="The server's server.pub.json.")
@click.option("--router", default=DEVICE_URL, show_default=True, help="Where the router listens.")
@_ca
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), required=True, help="Directory to make.")
def init_edge(device_id: str, server: Path, router: str, ca: Path | None, home: Path) -> None:
    """Make a device's key and edge.toml; print the public key for `odograph device add`."""
    check_id(device_id, "device")
    text = read_text(server, bundle.MAX_BYTES, "copy server.pub.json from the server's home")
    bundle.parse(text)
    check_url(router)
    transport(router, ca)
    for name in ("edge.toml", "device.key"):
        if (home / name).exists():
            raise ConfigError(f"{home / name} is there already", "choose another --home; nothing was changed")
    home.mkdir(parents=True, exist_ok=True)
    key = make_key(device_id, "device")
    write_key_file(home / "device.key", key)
    (home / "server.pub.json").write_text(text, "utf-8")
    if ca is not None:
        (home / "ca.pem").write_bytes(read_ca(ca))
    (home / "edge.toml").write_text(_edge_toml(device_id, router, ca), "utf-8")
    click.echo(key.public_key)


@edge.command("enrol")
@click.option("--router", required=True, help="Where the router listens.")
@click.option("--code", help="What `odograph device invite` printed; asked for, or read, when it is not given.")
@_ca
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), required=True, help="Directory to make.")
def enrol_edge(router: str, code: str | None, ca: Path | None, home: Path) -> None:
    """Make a device's key, have the server take it, fetch the server's bundle, write edge.toml."""
    from components.console.ask import Router  # noqa: PLC0415 - the agent needs none of it
    from components.console.enrol import enrol  # noqa: PLC0415 - likewise
    from components.wire import enrolment  # noqa: PLC0415 - likewise

    if code is None:
        code = click.prompt("code", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline(_LONGEST_LINE)
    found = enrolment.parse(code)
    enrol(Router(router, ca), found, home, _edge_toml(found.device, router, ca))
    click.echo(f"{found.device} is enrolled; next: odograph edge --config {home / 'edge.toml'}")


@edge.command("rekey")
@click.option("--config", type=click.Path(path_type=Path), required=True, help="The agent's edge.toml.")
def rekey_edge(config: Path) -> None:
    """Give the device another key, which a running agent takes up by itself.

    Packets that were signed with the old one are taken for 45 days more.
    """
    from components.console.ask import Router  # noqa: PLC0415 - the agent needs none of it
    from components.console.enrol import rekey  # noqa: PLC0415 - likewise
    from components.edge import config as edge_config  # noqa: PLC0415 - likewise

    settings = edge_config.load(config)
    rekey(Router(settings.router.url, settings.router.ca), settings.device.key)
    click.echo(f"{settings.device.id} has another key; an agent that runs takes it up within a minute")


@click.command()
@click.option("--config", type=click.Path(path_type=Path), default=Path("var/server.toml"), show_default=True)
@click.option("--log-level", type=click.Choice(["debug", "info", "warn", "error"]), default="info", show_default=True)
def persist(config: Path, log_level: str) -> None:
    """Run a persister: packets in, stored, receipted and fed."""
    from components.cloud.service import PersistComponent  # noqa: PLC0415 - as in `edge`

    server = read_server(config)
    logs.begin(log_level)
    _run(lambda reactor: PersistComponent(reactor, server))


def commands() -> list[Any]:
    """Return this module's commands for the `odograph` group."""
    return [edge, persist]


def _edge_toml(device: str, router: str, ca: Path | None) -> str:
    pinned = '\nca = "ca.pem"                       # the only CA whose certificate the router may show'
    return _EDGE_TOML.format(device=device, router=f'url = "{router}"{pinned if ca else ""}')


def _run(make: Callable[[Any], Any]) -> None:
    """Run a component until SIGTERM or SIGINT, then let it end in order; exit code 0.

    It holds a private key, and has a supervisor where one started it.
    """
    keep_memory_private()
    supervisor = Supervisor.of(os.environ, time.monotonic)
    refused: list[OdographError] = []

    def main(reactor: Any) -> Deferred[None]:  # noqa: ANN401 - a reactor is many interfaces
        component = make(reactor)
        component.pulse.heard_by.append(supervisor.turned)

        def end(*_: object) -> None:
            supervisor.stopping()
            reactor.callFromThread(component.finish)

        def listen() -> None:
            # Twisted's own handlers would stop the reactor, and end the process by the signal.
            signal.signal(signal.SIGTERM, end)
            signal.signal(signal.SIGINT, end)

        reactor.callWhenRunning(listen)
        ended: Deferred[None] = component.start(reactor)

        def note(failure: Failure) -> None:
            # What a person must mend ends as one line, not as react's traceback.
            failure.trap(OdographError)  # type: ignore[no-untyped-call]
            refused.append(cast("OdographError", failure.value))

        return ended.addErrback(note)

    try:
        react(main)
    finally:
        if refused:
            raise refused[0]
