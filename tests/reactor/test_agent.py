"""The agent as a whole, without car and router: it records, ends in order, and shares its spool with none."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred

from components.edge import agent as agent_module
from components.edge import sqlite_spool
from components.edge.agent import Agent, EdgeComponent
from components.edge.config import EdgeConfig
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.sqlite_readings import ReadingsReader
from components.wire.errors import OperatorError
from tests.wamp_peer import reactor, run


def lived(config: EdgeConfig) -> None:
    """Start an agent and end it at once."""

    async def live() -> None:
        agent = Agent(reactor, config)
        agent.start()
        await agent.finish()

    run(live)


def test_an_agent_without_car_and_router_records_packs_and_ends_soon(
    config: EdgeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "_AWAY_S", 0.05)
    began = time.monotonic()
    lived(config)
    assert time.monotonic() - began < 10
    spool = config.spool.dir
    readings = ReadingsReader(spool / "readings.db").readings_after(0, 100)
    outbox = SqliteOutbox(spool / "outbox.db")
    assert len(readings) >= 1
    assert outbox.counts().waiting >= 1
    assert outbox.cursor(ReadingsReader(spool / "readings.db").file_id) == readings[-1].seq


def test_an_agent_that_has_ended_lets_go_of_its_spool_and_the_next_goes_on_where_it_ended(
    config: EdgeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "_AWAY_S", 0.05)
    lived(config)
    first = SqliteOutbox(config.spool.dir / "outbox.db").counts().waiting
    lived(config)
    assert SqliteOutbox(config.spool.dir / "outbox.db").counts().waiting >= first + 1


def test_the_spool_of_a_running_agent_is_refused_in_one_clear_line(home: Path, config: EdgeConfig) -> None:
    held = sqlite_spool.lock(config.spool.dir)
    with pytest.raises(OperatorError, match="in use by another process"):
        Agent(reactor, config)
    command = [sys.executable, "-m", "components.console", "edge", "--config", str(home / "edge.toml")]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    held.release()
    spool = config.spool.dir
    assert refused.stderr == (
        f"odograph: {spool / 'spool'} is in use by another process ({os.getpid()}): "
        "stop the agent that runs there, or give [spool] dir another\n"
    )
    assert refused.returncode == 1


class OneAgent:
    """An agent whose end the test holds."""

    def __init__(self) -> None:
        self.ends: list[Deferred[None]] = []

    async def finish(self) -> None:
        self.ends.append(Deferred())
        await self.ends[-1]


def test_to_end_twice_is_to_wait_twice_for_the_same_end(config: EdgeConfig) -> None:
    component, agent = EdgeComponent(config), OneAgent()
    component._agent = cast("Any", agent)
    waiting = [component.finish(), component.finish()]
    assert [bool(one.called) for one in waiting] == [False, False]
    agent.ends[0].callback(None)
    assert [bool(one.called) for one in [*waiting, component.finish()]] == [True, True, True]
    assert len(agent.ends) == 1


def test_what_is_ended_before_it_began_does_not_begin(config: EdgeConfig) -> None:
    component = EdgeComponent(config)
    assert component.finish().called
    started = component.start(cast("Any", object()))
    failures: list[object] = []
    started.addErrback(failures.append)
    assert (bool(started.called), failures) == (True, [])
    assert not config.spool.dir.exists()
