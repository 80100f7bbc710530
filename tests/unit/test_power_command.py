"""The command of a sleeping car: run beside the agent, heard out, and never an exception."""

import json
import subprocess
import sys

import pytest

from tests.waiting import PATIENCE_S

_PROGRAM = """
import json, sys
from twisted.internet.task import deferLater, react
from twisted.logger import globalLogPublisher, formatEvent
from components.edge import power_command

words = []

async def main(reactor):
    globalLogPublisher.addObserver(lambda event: words.append((event["log_level"].name, formatEvent(event))))
    for command in json.loads(sys.argv[1]):
        power_command.run(reactor, command)
    while sum(level != "warn" or "ended" in text for level, text in words) < int(sys.argv[2]):
        await deferLater(reactor, 0.01)
    print(json.dumps(words))

react(lambda reactor: __import__("twisted.internet.defer").internet.defer.ensureDeferred(main(reactor)))
"""


def logged(*commands: list[str]) -> list[list[str]]:
    """Run commands under a reactor; return level and text of what was logged until as many had ended or failed."""
    program = [sys.executable, "-c", _PROGRAM, json.dumps(commands), str(len(commands))]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    found: list[list[str]] = json.loads(ended.stdout)
    return found


def test_what_a_command_says_and_how_it_ends_is_logged() -> None:
    command = ["sh", "-c", "echo err >&2; read line || exit 7"]
    assert logged(command) == [
        ["warn", f"running {command}"],
        ["warn", f"{command} ended with exit code 7: err"],
    ]


def test_a_command_may_end_by_a_signal_and_say_nothing_or_too_much() -> None:
    killed, loud = ["sh", "-c", "kill -9 $$"], ["sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x"]
    found = logged(killed, loud)
    assert ["warn", f"{killed} ended with signal 9: it said nothing"] in found
    assert ["warn", f"{loud} ended with exit code 0: {'x' * 4000}"] in found


@pytest.mark.parametrize("program", ["no-such-program-here", "/no/such/program", "/etc/passwd"])
def test_a_program_that_is_not_there_is_an_error_in_the_log_and_nothing_more(program: str) -> None:
    assert logged([program, "now"]) == [["error", f"power.command: no program {program} is there to be run"]]


def test_words_are_handed_over_as_they_are_no_shell_reads_them() -> None:
    command = ["echo", "$HOME; *"]
    assert logged(command)[-1] == ["warn", f"{command} ended with exit code 0: $HOME; *"]
