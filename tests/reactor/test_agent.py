"""The agent as a whole, without car and router: it records, ends in order, and shares its spool with none."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred

from components.edge import agent as agent_module
from components.edge import at_modem, sqlite_spool
from components.edge import config as edge_config
from components.edge.agent import Agent, EdgeComponent
from components.edge.config import EdgeConfig
from components.edge.ports import Sim
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.sqlite_readings import ReadingsReader
from components.edge.system_clock import elapsed_ms
from components.edge.timeline import Told
from components.keyfile import KeyFile, make_key, write_key_file
from components.wire import bundle
from components.wire.errors import ConfigError, OperatorError
from tests.wamp_peer import reactor, run

NOW = 1_795_312_800_000
"""2026-11-22T02:00:00Z."""


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
    monkeypatch.setattr(agent_module, "_DRAIN_S", 3_600)
    lived(config)
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


def test_a_run_without_any_clock_begins_where_the_run_before_it_ended_and_the_first_of_all_knows_no_time(
    config: EdgeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "_AWAY_S", 0.05)
    unset = Told("saved", 10_000, elapsed_ms())
    monkeypatch.setattr(agent_module, "network_time", lambda: None)
    begun: list[tuple[object, int]] = []
    for system in (unset, Told("ntp", NOW, elapsed_ms()), unset):
        monkeypatch.setattr(agent_module, "system_time", lambda system=system: system)
        lived(config)
        reader = ReadingsReader(config.spool.dir / "readings.db")
        last = reader.readings_after(0, 100)[-1]
        session = reader.fact(last.session, "session", last.seq)
        assert session is not None
        assert session.body is not None
        begun.append((session.body["clock"], session.at_ms))
    assert [clock for clock, _ in begun] == ["none", "ntp", "saved"]
    assert 10_000 <= begun[0][1] < 600_000
    assert NOW <= begun[1][1] <= begun[2][1] < NOW + 600_000


def test_a_sim_that_is_changed_or_taken_out_is_seen_and_a_poll_that_fails_wipes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "edge.toml").write_text(
        (home / "edge.toml").read_text().replace('[modem]\nport = ""', '[modem]\nport = "/dev/modem"')
    )
    imei, first, second = "490154203237518", "8949200000123456780", "8949200000123456798"
    failed, taken_out = Sim(None, None, "timeout", "timeout"), Sim(None, imei, "no_data", "")
    answers = [Sim(first, imei, "", ""), failed, Sim(second, imei, "", ""), taken_out]
    monkeypatch.setattr(at_modem, "read_sim", lambda *_, **__: answers.pop(0))
    seen: list[Sim] = []

    async def live() -> None:
        agent = Agent(reactor, edge_config.load(home / "edge.toml"))
        agent._modem_lane.start()
        while answers:
            await agent._ask_sim()
            seen.append(agent._recorder.sim)
        await agent._modem_lane.close()
        agent.close()

    run(live)
    assert seen == [Sim(first, imei, "", ""), Sim(first, imei, "", ""), Sim(second, imei, "", ""), taken_out]


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


def test_a_suite_for_which_the_server_has_no_key_is_refused_in_one_clear_line(home: Path) -> None:
    text = (home / "edge.toml").read_text()
    (home / "edge.toml").write_text(text.replace("[server]\n", '[server]\nsuite = "hpke"\n'))
    with pytest.raises(ConfigError, match=r'no key for the suite hpke: set \[server\] suite = "auto"'):
        Agent(reactor, edge_config.load(home / "edge.toml"))
    (home / "edge.toml").write_text(text.replace("[server]\n", '[server]\nsuite = "rot13"\n'))
    with pytest.raises(ConfigError, match=r'server\.suite: must be "auto" or "hpke" or "rsa-oaep"'):
        edge_config.load(home / "edge.toml")


def test_a_key_that_is_replaced_while_the_agent_runs_is_joined_and_sealed_with_and_nobody_elses_is(
    config: EdgeConfig,
) -> None:
    component = EdgeComponent(config)
    component._agent = agent = Agent(reactor, config)
    path, old = config.device.key, agent.signing.kid

    def replace_key(key: KeyFile, mode: int) -> tuple[str, str]:
        path.unlink()
        write_key_file(path, key)
        path.chmod(mode)
        component._not_joined(component, RuntimeError("refused"))
        authentication = cast("Any", component)._authentication["cryptosign"]
        return authentication["privkey"], agent.signing.kid

    before = component.key.private_key, old
    new = make_key(config.device.id, "device")
    said: list[str] = []
    cast("Any", component)._log.warn = lambda words, **facts: said.append(words.format(**facts))
    for other in (make_key("car_other", "device"), make_key(config.device.id, "technician")):
        assert replace_key(other, 0o600) == replace_key(other, 0o600) == before
    told = [words for words in said if "the key of before" in words]
    assert [words.partition(" is the key of ")[2].partition(";")[0] for words in told] == [
        "car_other, device", f"{config.device.id}, technician"
    ]  # fmt: skip
    assert replace_key(new, 0o644) == replace_key(new, 0o644) == before
    assert len([words for words in said if "the key of before" in words]) == 3
    assert replace_key(new, 0o600) == (new.private_key, bundle.key_id(bytes.fromhex(new.public_key)))
    agent.close()
