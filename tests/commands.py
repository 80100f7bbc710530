"""The `odograph` command for tests, without the second that a process of its own needs to load it.

Each command is a process all the same: a fork of one that has loaded the program and done nothing with it.
"""

import os
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from components.console.__main__ import COMMANDS, run
from tests.waiting import PATIENCE_S

_LOADED: Final = get_context("forkserver")
_LOADED.set_forkserver_preload(
    [*(f"components.console.{module}" for module in COMMANDS), "autobahn.twisted.component", "tests.commands"]
)


def odograph(*arguments: object, timeout_s: float = PATIENCE_S, said: str = "") -> "subprocess.CompletedProcess[str]":
    """Run a command of this very code to its end; `said` is its standard input.

    Raises:
        subprocess.TimeoutExpired: It did not end in time, and was killed.
    """
    command = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as name:
        streams = [Path(name) / stream for stream in ("in", "out", "err")]
        streams[0].write_text(said)
        process = _LOADED.Process(target=_run, args=(command, streams))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout_s)
        return subprocess.CompletedProcess(command, process.exitcode, streams[1].read_text(), streams[2].read_text())


def _run(command: list[str], streams: list[Path]) -> None:
    for descriptor, path in enumerate(streams):
        flags = os.O_WRONLY | os.O_CREAT if descriptor else os.O_RDONLY
        os.dup2(os.open(path, flags, 0o600), descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - multiprocessing has closed the other
    sys.exit(run(command))
