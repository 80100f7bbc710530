"""The server-side commands that only touch the home's files: init, device, operator."""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from components.bounded_file import read_text
from components.cloud.certificates import certify, hosts_of
from components.cloud.sqlite_registry import Registry
from components.cloud.who import Device, Invitation, Role, State, why_not
from components.console import show
from components.console.home import Home, home_option, make_home
from components.console.node import CHECKOUT
from components.keyfile import KeyFile, make_key, write_key_file
from components.wire import bundle, enrolment
from components.wire.errors import ConfigError
from components.wire.topics import check_id

CODE_LIFE_MS: Final = 24 * 3600 * 1000
_UNITS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000}

_json = click.option("--json", "as_json", is_flag=True, help="For programs: JSON on standard output.")
_device = click.argument("device_id", metavar="ID")
_operator = click.argument("operator_id", metavar="ID")
_out = click.option("--out", type=click.Path(path_type=Path), required=True, help="New file for the private key.")


class _Expiry(click.ParamType[Any]):
    name = "WHEN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Return ms UTC of a date, a time, or `30d`, `12h`, `90m` from now; () for `never`."""
        text = str(value)
        if text == "never":
            return ()
        if match := re.fullmatch(r"([1-9]\d{0,4})([dhm])", text):
            return _now_ms() + int(match[1]) * _UNITS[match[2]]
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is neither a time like 2027-01-01, nor like 30d, nor never", param, ctx)
        found = round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
        if found <= _now_ms():
            self.fail(f"{text} is past", param, ctx)
        return found


def _notes(command: Callable[..., Any]) -> Callable[..., Any]:
    for option, about in {
        "--notes": "What else is to be known of it.",
        "--driver": "Who drives it.",
        "--vehicle": "Which car it is.",
        "--account": "Whose car it is.",
    }.items():
        command = click.option(option, help=about)(command)
    return command


def _limits(command: Callable[..., Any]) -> Callable[..., Any]:
    expires = click.option("--expires", type=_Expiry(), help="2027-01-01, 30d, 12h or never; a date begins in UTC.")
    account = click.option("--account", help="Only the devices of this account.")
    devices = click.option("--devices", help="Only these devices: ids with commas between.")
    return devices(account(expires(command)))


@click.command()
@click.option("--tls", is_flag=True, help="Also a CA of your own, and the router's certificate; or renew that.")
@click.option("--host", "hosts", multiple=True, metavar="NAME", help="With --tls: name or address of the router.")
@home_option
def init(tls: bool, hosts: tuple[str, ...], home: Path) -> None:
    """Make a server's home: registry, keys, server.toml, the public bundle and the first operator's key.

    With --tls it may be there already, and then gets a certificate only; without --host for the same hosts as before.
    """
    if hosts and not tls:
        raise click.UsageError("--host goes with --tls")
    if not (tls and Home(home).registry.exists()):
        _make_home(home)
    if tls:
        _certify(Home(home), hosts)


def _certify(home: Home, hosts: tuple[str, ...]) -> None:
    had_ca = home.tls.ca.exists()
    certificate = certify(home.tls, hosts, datetime.now(UTC))
    if not had_ca:
        click.echo(f"made {home.tls.ca}: copy it to every device and operator; keep {home.tls.ca_key} to yourself")
    until = certificate.not_valid_after_utc.strftime("%Y-%m-%d")
    click.echo(f"made {home.tls.router} for {' '.join(hosts_of(certificate))} until {until}")
    click.echo("next: docs/tls.md has the line for router/.crossbar/config.yaml; start the router again")


def _make_home(home: Path) -> None:
    made = make_home(home, _now_ms())
    click.echo(f"made {home}: keep {home / made.keys.name} and {home / 'operators'} to yourself")
    click.echo(f"give {home / made.bundle.name} to every device")
    if made.path == CHECKOUT / "var":
        click.echo("next: cd router && crossbar start")
    else:
        click.echo(f"next: set `registry` in router/.crossbar/config.yaml to {made.registry}, and crossbar start there")


@click.group()
def device() -> None:
    """Devices that may join: invite, add, suspend, resume, revoke, set, list, show."""


@device.command("invite")
@_device
@_notes
@home_option
def invite_device(device_id: str, home: Path, **notes: str | None) -> None:
    """Print a code with which a device enrols itself, once, within 24 hours; another one voids it.

    Where the device is there already, in a Pi that broke or was stolen: the key that it had opens nothing any more when
    the code is used, and in a revoked one at once.
    """
    check_id(device_id, "device")
    text = read_text(Home(home).bundle, bundle.MAX_BYTES, "`odograph init` makes it")
    mark = enrolment.fingerprint(bundle.dump(bundle.parse(text)))
    code = enrolment.Code(device_id, secrets.token_bytes(enrolment.SECRET_BYTES), mark)
    now_ms = _now_ms()
    invitation = Invitation(
        device=device_id,
        ticket_sha256=enrolment.ticket_sha256(code.ticket()),
        proof_key=code.proof_key().public_key().public_bytes_raw().hex(),
        expires_ms=now_ms + CODE_LIFE_MS,
        refused=0,
        used_by="",
    )
    with _open(home) as registry:
        one = registry.invite_device(invitation, now_ms, **_given(notes))
    click.echo(code.text())
    if one.state == "active":
        click.echo(f"{device_id} is active: the key that it has now is shut out when the code is used", err=True)
    click.echo(
        "good once, for 24 hours; on the Pi: odograph edge enrol --router URL --home DIR (asks for it)", err=True
    )


@device.command("add")
@_device
@click.option("--pubkey", required=True, help="The device's public key, as `odograph edge init` prints it.")
@_notes
@home_option
def add_device(device_id: str, pubkey: str, home: Path, **notes: str | None) -> None:
    """Let a device in whose key is known; it joins within a minute."""
    with _open(home) as registry:
        registry.add_device(device_id, pubkey, _now_ms(), **_given(notes))
    click.echo(f"added {device_id}")


@device.command("suspend")
@_device
@home_option
def suspend_device(device_id: str, home: Path) -> None:
    """Shut a device out for a while: its session ends, its packets wait on its card."""
    _set_state(home, device_id, "suspended", "suspended")


@device.command("resume")
@_device
@home_option
def resume_device(device_id: str, home: Path) -> None:
    """Let a suspended device in again."""
    _set_state(home, device_id, "active", "resumed")


@device.command("revoke")
@_device
@home_option
def revoke_device(device_id: str, home: Path) -> None:
    """Shut a device out until it is invited again: its session ends at once, its packets wait in the car."""
    _set_state(home, device_id, "revoked", "revoked")


@device.command("set")
@_device
@_notes
@home_option
def set_device(device_id: str, home: Path, **notes: str | None) -> None:
    """Change what is noted of a device; what is stored already keeps what was noted then."""
    if not _given(notes):
        raise click.UsageError("nothing to change: give --account, --vehicle, --driver or --notes")
    with _open(home) as registry:
        registry.set_device(device_id, _now_ms(), **_given(notes))
    click.echo(f"changed {device_id}")


@device.command("list")
@_json
@home_option
def list_devices(as_json: bool, home: Path) -> None:
    """Show every device and its state."""
    with _open(home) as registry:
        devices, unsound = registry.devices(), registry.unsound_devices()
    _tell(unsound)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in devices], indent=2))
    elif not devices:
        click.echo("no devices yet: odograph device invite ID")
    else:
        show.rows(
            "devices",
            ("device", "state", "account", "vehicle", "driver", "added (UTC)", "public key"),
            [
                (one.id, one.state, one.account, one.vehicle, one.driver, _when(one.added_ms), f"{one.pubkey[:12]}…")
                for one in devices
            ],
        )


@device.command("show")
@_device
@_json
@home_option
def show_device(device_id: str, as_json: bool, home: Path) -> None:
    """Show all that is known of one device."""
    with _open(home) as registry:
        one, invitation = registry.device(device_id), registry.invitation(device_id)
    if one is None:
        raise ConfigError(f"there is no device {device_id!r}", "`odograph device list` shows them")
    known = asdict(one) | {"code": _code_state(one, invitation)}
    if as_json:
        click.echo(json.dumps(known, indent=2))
        return
    times = {name: _when(known[name]) for name in ("added_ms", "changed_ms")}
    show.rows(device_id, ("what", "is"), [(name.removesuffix("_ms"), times.get(name, known[name])) for name in known])


@click.group()
def operator() -> None:
    """People who may ask the cars: add, set, rekey, revoke, list."""


@operator.command("add")
@_operator
@click.option("--role", type=click.Choice(["viewer", "technician", "admin"]), required=True, help="What they may do.")
@_limits
@_out
@home_option
def add_operator(operator_id: str, role: Role, out: Path, home: Path, **limits: Any) -> None:  # noqa: ANN401 - options
    """Make a key for an operator and let them in with it."""
    key = make_key(check_id(operator_id, "operator"), role)
    with _open(home) as registry, _new_key(out, key):
        registry.add_principal(operator_id, key.public_key, role, _now_ms(), **_limits_of(limits))
    click.echo(f"added {operator_id} as {role}; their key is in {out}")


@operator.command("set")
@_operator
@click.option("--role", type=click.Choice(["viewer", "technician", "admin"]), help="What they may do.")
@_limits
@home_option
def set_operator(operator_id: str, role: Role | None, home: Path, **limits: Any) -> None:  # noqa: ANN401 - options
    """Change an operator's role or limits; --devices "" and --account "" lift them, --expires never too."""
    changes = _limits_of(limits) | ({"role": role} if role else {})
    if not changes:
        raise click.UsageError("nothing to change: give --role, --devices, --account or --expires")
    with _open(home) as registry:
        registry.set_operator(operator_id, _now_ms(), **changes)
    click.echo(f"changed {operator_id}")


@operator.command("rekey")
@_operator
@_out
@home_option
def rekey_operator(operator_id: str, out: Path, home: Path) -> None:
    """Make another key for an operator; the one before opens nothing any more."""
    with _open(home) as registry:
        one = registry.principal(operator_id)
        key = make_key(check_id(operator_id, "operator"), one.role if one else "viewer")
        with _new_key(out, key):
            registry.set_operator(operator_id, _now_ms(), pubkey=key.public_key)
    click.echo(f"{operator_id} has another key, in {out}")


@operator.command("revoke")
@_operator
@home_option
def revoke_operator(operator_id: str, home: Path) -> None:
    """Shut an operator out for ever."""
    with _open(home) as registry:
        registry.set_operator(operator_id, _now_ms(), state="revoked")
    click.echo(f"revoked {operator_id}")


@operator.command("list")
@_json
@home_option
def list_operators(as_json: bool, home: Path) -> None:
    """Show every operator and persister, with their limits."""
    with _open(home) as registry:
        found, unsound = registry.principals(), registry.unsound_principals()
    _tell(unsound)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    show.rows(
        "operators and persisters",
        ("id", "role", "state", "account", "devices", "expires (UTC)"),
        [(one.id, one.role, one.state, one.account, " ".join(one.devices), _when(one.expires_ms)) for one in found],
    )


def commands() -> list[Any]:
    """Return this module's commands for the `odograph` group."""
    return [init, device, operator]


def _set_state(home: Path, device_id: str, state: State, done: str) -> None:
    with _open(home) as registry:
        registry.set_state(device_id, state, _now_ms())
    click.echo(f"{done} {device_id}")


def _open(home: Path) -> Registry:
    """Open for writing, so that a registry of an earlier version is brought to this one by whatever comes first."""
    return Registry.open(Home(home).registry, write=True)


@contextmanager
def _new_key(out: Path, key: KeyFile) -> Iterator[None]:
    """Write a key file that stays only if the block, which makes the key known, ends well."""
    write_key_file(out, key)
    try:
        yield
    except BaseException:
        out.unlink()
        raise


def _tell(unsound: Sequence[str]) -> None:
    for row in unsound:
        click.echo(f"odograph: {row}", err=True)


def _given(notes: Mapping[str, str | None]) -> dict[str, str]:
    return {name: text for name, text in notes.items() if text is not None}


def _limits_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the limits that were given, as the registry takes them."""
    limits: dict[str, Any] = {}
    if options["account"] is not None:
        limits["account"] = options["account"]
    if options["devices"] is not None:
        limits["devices"] = tuple(one.strip() for one in options["devices"].split(",") if one.strip())
    if options["expires"] is not None:
        limits["expires_ms"] = options["expires"] or None
    return limits


def _code_state(device: Device, invitation: Invitation | None) -> str:
    """Say how it stands with a device's enrolment code."""
    if invitation is None:
        return "none"
    return why_not(invitation, device, _now_ms(), "other key") or f"open until {_when(invitation.expires_ms)} UTC"


def _when(at_ms: int | None) -> str:
    return "" if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
