"""The command line's table of who has which command."""

import importlib
import subprocess
import sys

import pytest

from components.console import __main__ as console
from components.wire.errors import RefusedError


def test_each_module_has_the_commands_that_the_table_says_and_no_others() -> None:
    for module, names in console._COMMANDS.items():
        commands = importlib.import_module(f"components.console.{module}").commands()
        assert sorted(command.name for command in commands) == sorted(names)


def test_the_agent_carries_nothing_of_a_server() -> None:
    script = (
        "import sys\n"
        "from components.console.__main__ import odograph\n"
        "odograph.get_command(None, 'edge')\n"
        "import components.edge.agent\n"
        "print(*(set(sys.modules) & {'rich', 'pymongo', 'kafka', 'components.cloud.sqlite_registry'}))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_a_terminal_is_shown_no_order_in_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The router's words, or a file's."""

    def refused(*_: object, **__: object) -> None:
        raise RefusedError("no", "red \x1b[31m\u202e\0", "ask\n again")

    monkeypatch.setattr(console.odograph, "main", refused)
    assert console.run([]) == 1
    assert capsys.readouterr().err == "odograph: red \ufffd[31m\ufffd\ufffd: ask again\n"
