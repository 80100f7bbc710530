"""The command line's table of who has which command."""

import importlib
import subprocess
import sys

from components.console import __main__ as console


def test_each_module_has_the_commands_that_the_table_says_and_no_others() -> None:
    for module, names in console.COMMANDS.items():
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
