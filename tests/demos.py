"""`odograph demo` as a user runs it: a process whose report, stores and end are looked at from outside."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.console.fleet import Fleet
from tests.journey_fleet import ENVIRONMENT, PERIOD_S, ROOT, descendants_of
from tests.waiting import PATIENCE_S


@dataclass(frozen=True)
class Run:
    """A demo that runs or has run."""

    home: Path
    process: "subprocess.Popen[str]"

    @property
    def report(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.home.with_suffix(".json").read_text())

    @property
    def archive(self) -> str:
        return f"sqlite:{self.home}/archive.db"

    def ended(self) -> str:
        out, errors = self.process.communicate(timeout=PATIENCE_S)
        assert (self.process.returncode, errors) == (0, ""), out
        assert descendants_of(str(self.home)) == {}
        return out


def begin(home: Path, *arguments: object) -> Run:
    command = Fleet.odograph("demo", "--period", str(PERIOD_S), "--home", str(home))
    command += ["--report", str(home.with_suffix(".json")), *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT
    )
    return Run(home, process)


def readings_of(minute: Mapping[str, Any]) -> list[str]:
    return [f"r{n}" for n in range(len(minute["readings"]))]
