"""The command line's table of who has which command."""

import asyncio
import importlib
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from components.console import __main__ as console
from components.console import enrol
from components.console.ask import Identity, Router
from components.keyfile import KeyFile, make_key, read_key_file, write_key_file
from components.wire.errors import RefusedError


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


def test_what_is_not_installed_is_named_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    monkeypatch.setattr(importlib, "import_module", lambda _name: __import__("serial"))
    assert console.run(["car"]) == 1
    line = "odograph: serial is not installed: pip install 'odograph[edge]' for a car or a laptop, "
    assert capsys.readouterr().err.startswith(line)


def rekeyed(path: Path, monkeypatch: pytest.MonkeyPatch, *, is_done: bool) -> KeyFile:
    """Change the key at `path`, where the router ends the old one's session before the server has answered."""
    old = read_key_file(path)

    async def join(_reactor: object, _router: Router, who: Identity, _question: object) -> bool:
        if who.authentication["cryptosign"]["privkey"] == old.private_key:
            raise RefusedError("session_ended", "what the registry says of you has changed")
        if not is_done:
            raise RefusedError("authentication", "the router does not know car_one by this key")
        return True

    def blocking(work: Callable[[object], Awaitable[bool]]) -> bool:
        async def run() -> bool:
            return await work(None)

        return asyncio.run(run())

    monkeypatch.setattr(enrol, "join_and_ask", join)
    monkeypatch.setattr(enrol, "blocking", blocking)
    return enrol.rekey(Router("ws://127.0.0.1:1/ws"), path)


def test_a_change_of_key_that_ended_its_own_session_before_the_answer_is_found_done_by_joining_with_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_key_file(path := tmp_path / "device.key", old := make_key("car_one", "device"))
    assert old != rekeyed(path, monkeypatch, is_done=True) == read_key_file(path)
    assert [one.name for one in tmp_path.iterdir()] == ["device.key"]


def test_a_device_that_was_shut_out_while_its_key_changed_keeps_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_key_file(path := tmp_path / "device.key", old := make_key("car_one", "device"))
    with pytest.raises(RefusedError, match="does not know car_one by this key"):
        rekeyed(path, monkeypatch, is_done=False)
    assert read_key_file(path) == old
    assert (tmp_path / "device.key.new").exists()


def test_a_command_shows_no_traceback_of_a_library() -> None:
    program = """
from components.console import logs
from twisted.logger import Logger
logs.silence()
Logger("autobahn.wamp.websocket").critical("a traceback")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")


def test_a_terminal_is_shown_no_order_in_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The router's words, or a file's."""

    def refused(*_: object, **__: object) -> None:
        raise RefusedError("no", "red \x1b[31m\u202e\0", "ask\n again")

    monkeypatch.setattr(console.odograph, "main", refused)
    assert console.run([]) == 1
    assert capsys.readouterr().err == "odograph: red \ufffd[31m\ufffd\ufffd: ask again\n"
