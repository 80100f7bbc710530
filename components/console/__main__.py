"""The `odograph` command: the groups of the modules beside this file, and the one place where errors become words.

A module is imported when its command is run: the agent, which lives in a car for years, then carries no tables, no
registry and nothing else of a server.

Exit codes: 0 done; 2 the command or a file is wrong (usage, ConfigError); 1 it failed for another reason.
"""

import importlib
import os
import sys
from typing import Any, Final

import click

from components.wire.errors import ConfigError, OdographError

COMMANDS: Final = {
    "admin": ("init", "device", "operator"),
    "audit": ("audit",),
    "car": ("car",),
    "demo": ("demo",),
    "feed": ("feed",),
    "operate": ("status", "dtcs", "clear-dtcs", "devices", "latest", "minutes"),
    "processes": ("edge", "persist"),
    "server_keys": ("keys",),
}
"""The commands of each module beside this file."""
_MAX_ARGUMENT: Final = 4096
_INSTALL: Final = "pip install 'odograph[edge]' for a car or a laptop, 'odograph[cloud,router]' for a server"
_MODULES: Final = {command: module for module, commands in COMMANDS.items() for command in commands}


class _Commands(click.Group):
    """Imports what it needs for the command that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click.Group."""
        del ctx
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click.Group."""
        del ctx
        if cmd_name not in _MODULES:
            return None
        module: Any = importlib.import_module(f"components.console.{_MODULES[cmd_name]}")
        commands: list[click.Command] = module.commands()
        return next(command for command in commands if command.name == cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="odograph")
def odograph() -> None:
    """Car telemetry that loses nothing: the car's minutes, sealed, to your archive and your stream."""


def main() -> None:
    """Run the command line; every error that odograph or click raises ends as one line on standard error."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        _check(arguments)
        result = odograph.main(arguments, prog_name="odograph", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except (click.ClickException, click.Abort, KeyboardInterrupt, OdographError) as error:
        message, code = _words(error)
        # A file or the router may have had a part in it, and a terminal obeys what it is shown.
        line = "".join(one if one.isprintable() else "\ufffd" for one in " ".join(message.split()))
        click.echo(f"odograph: {line}", err=True)
        return code
    except BrokenPipeError:
        # Whoever read our output has gone; Python must not say so again when it flushes at its end.
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - open until the end
        return 1
    except ModuleNotFoundError as error:
        click.echo(f"odograph: {error.name} is not installed: {_INSTALL}", err=True)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"odograph: {where}{error.strerror or error}: check the path and your rights to it", err=True)
        return 1
    return result if isinstance(result, int) else 0


def _check(arguments: list[str]) -> None:
    """Refuse what no file, store or router could take; UsageError."""
    for argument in arguments:
        if len(argument) > _MAX_ARGUMENT or not argument.isprintable():
            # Half a surrogate pair is how Python shows a byte that is no UTF-8.
            words = f"has control characters, is no UTF-8, or is longer than {_MAX_ARGUMENT}"
            raise click.UsageError(f"the argument {argument[:20]!a}… {words}")


def _words(error: BaseException) -> tuple[str, int]:
    """Return the line and the exit code for an error."""
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "odograph"
        return f"{error.format_message().rstrip('.')}: see {where} --help", 2
    if isinstance(error, click.ClickException):
        return error.format_message(), 1
    if isinstance(error, OdographError):
        return str(error), 2 if isinstance(error, ConfigError) else 1
    return "interrupted", 130


if __name__ == "__main__":
    main()
