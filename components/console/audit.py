"""The `odograph audit` commands: what was changed and refused, by whom; and whether the record is whole."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from heapq import merge
from pathlib import Path
from typing import Any, Final

import click

from components.cloud.sqlite_audit import AuditLog, Head, form
from components.cloud.sqlite_registry import Registry
from components.console import show
from components.console.home import Home, home_option
from components.wire.errors import ConfigError, RefusedError

_HEAD: Final = re.compile(r"(registry|router):(\d{1,15}):([0-9a-f]{64})")


@click.group()
def audit() -> None:
    """What was changed and refused, by whom: show, verify."""


@audit.command("show")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object a line.")
@home_option
def show_audit(as_json: bool, home: Path) -> None:
    """Print both logs, the registry's and the router's, in the order of time."""
    logs = [[(entry, name) for entry in log.entries()] for name, log in _logs(Home(home))]
    found = list(merge(*logs, key=lambda one: one[0].at_ms))
    if as_json:
        for entry, name in found:
            click.echo(json.dumps({"log": name, **form(entry)}))
        return
    show.rows(
        "audit",
        ("when (UTC)", "what", "of", "by", "more"),
        [(_when(entry.at_ms), entry.action, entry.subject, entry.by, _more(entry.detail)) for entry, _ in found],
    )


@audit.command("verify")
@click.option("--expect", multiple=True, metavar="HEAD", help="A line that an earlier verify printed; may be repeated.")
@home_option
def verify_audit(expect: tuple[str, ...], home: Path) -> None:
    """Walk both chains and print their heads; exit code 1 and the entry where one breaks.

    Note the heads where nobody who may write here can write, and give them to a later verify: a log that was made anew
    from some entry on shows in no other way.
    """
    expected = dict(map(_head, expect))
    heads = {}
    for name, log in _logs(Home(home)):
        try:
            heads[name] = log.verify(expected.pop(name, None))
        except RefusedError as error:
            raise RefusedError(error.reason, f"the {name}'s audit log is broken at {error.message}") from error
    for name in expected:
        raise RefusedError("audit_broken", f"the {name}'s audit log is broken at entry 1: the whole log is missing")
    for name, head in heads.items():
        click.echo(f"{name}:{head}")


def commands() -> list[Any]:
    """Return this module's commands for the `odograph` group."""
    return [audit]


def _logs(home: Home) -> Iterator[tuple[str, AuditLog]]:
    """Yield the logs of a home by name; the router's where a router has run."""
    with Registry.open(home.registry) as registry:
        yield "registry", registry.audit
    if home.router_audit.exists():
        with closing(AuditLog.open(home.router_audit)) as log:
            yield "router", log


def _head(text: str) -> tuple[str, Head]:
    match = _HEAD.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is no head", "give a line that `odograph audit verify` printed")
    return match[1], Head(int(match[2]), match[3])


def _more(detail: Mapping[str, object]) -> str:
    return " ".join(f"{key}={json.dumps(value)}" for key, value in detail.items())


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
