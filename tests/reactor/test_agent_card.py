"""An agent whose files break, or whose card fills, while it records: it goes on, and says what is lost."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.edge import agent as agent_module
from components.edge.agent import Agent
from components.edge.config import EdgeConfig
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.sqlite_readings import ReadingsWriter
from components.wire import bundle, envelope
from components.wire.packet import Packet, parse, read
from components.wire.times import minute_id
from tests.edge_parts import ONE, T0, server_private_key
from tests.wamp_peer import comes, reactor, run

MINUTE = 60_000
Told = list[dict[str, object]]


@pytest.fixture(autouse=True)
def not_long_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "_AWAY_S", 0.05)


def recorded(config: EdgeConfig, harm: Callable[[Path], object], reason: str) -> tuple[Told, list[Packet], int]:
    """Let an agent record, do harm to its spool, let it record again; return what it told, its packets, and `lost`."""
    told: Told = []
    lost = 0

    async def live() -> None:
        nonlocal lost
        agent = Agent(reactor, config)
        agent.tell = lambda name, what: told.append({"event": name, **what})  # type: ignore[method-assign]
        agent.start()
        recorder = agent.device.recorder
        await comes(lambda: recorder.recorded >= 5 and (config.spool.dir / "ballast").exists())
        harm(config.spool.dir)
        await comes(lambda: any(one["reason"] == reason for one in told))
        goal = recorder.recorded + 5
        await comes(lambda: recorder.recorded >= goal)
        lost = recorder.lost
        await agent.finish()

    run(live)
    outbox = SqliteOutbox(config.spool.dir / "outbox.db")
    sealed = [outbox.envelope(one.seq) or b"" for one in outbox.waiting()]
    outbox.close()
    kid = bundle.parse(config.server.bundle.read_text()).kid
    return (
        told,
        [read(parse(envelope.parse(one).open({kid: server_private_key()}))) for one in sealed if len(one) > 700],
        lost,
    )


def overwrite(name: str) -> Callable[[Path], None]:
    """What makes garbage of a file from its first byte to its last."""

    def harm(spool: Path) -> None:
        with (spool / name).open("r+b") as file:
            file.write(os.urandom((spool / name).stat().st_size))

    return harm


def test_a_readings_file_that_breaks_costs_seconds_and_they_are_declared(config: EdgeConfig) -> None:
    told, packets, lost = recorded(config, overwrite("readings.db"), "corrupt")
    assert (config.spool.dir / "readings.db.corrupt-1").exists()
    assert lost <= 1
    (loss,) = packets[0].lost
    assert (loss.what, loss.reason) == ("readings", "corrupt")
    assert loss.session not in {None, packets[0].session}
    assert loss.from_ms < loss.to_ms <= (packets[0].readings or ())[0].at_ms
    assert [(one["event"], one["reason"]) for one in told] == [("lost_range", "corrupt")]


def test_an_outbox_that_breaks_is_made_again_from_the_readings(config: EdgeConfig) -> None:
    spool = config.spool.dir
    told: Told = []

    async def live() -> None:
        agent = Agent(reactor, config)
        agent.start()
        recorder = agent.device.recorder
        await comes(lambda: recorder.recorded >= 5)
        overwrite("outbox.db")(spool)
        await agent._spool.tidy()
        assert (spool / "outbox.db.corrupt-1").exists()
        await agent.finish()

    run(live)
    outbox = SqliteOutbox(spool / "outbox.db")
    assert outbox.counts().waiting >= 1
    assert told == []


@pytest.fixture
def small_card(config: EdgeConfig) -> Iterator[Path]:
    """The spool on a card of 12 MB."""
    spool = config.spool.dir
    spool.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(spool)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here: that takes root's rights")
    yield spool
    subprocess.run(["umount", "-l", str(spool)], check=True)


def fill(spool: Path) -> None:
    """Be another program that takes all the room there is."""
    with (spool / "log of another program").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_on_a_full_card_recording_goes_on_and_the_oldest_unsent_packets_go_and_are_declared(
    config: EdgeConfig, small_card: Path
) -> None:
    readings, before = ReadingsWriter(small_card / "readings.db"), SqliteOutbox(small_card / "outbox.db")
    readings.close()
    for n in range(5000):
        start_ms = T0 + MINUTE * n
        before.add(
            f"car_one/{ONE}/{minute_id(start_ms)}",
            bytes(500),
            f"{n:064x}",
            readings.file_id,
            (0, 0),
            end_ms=start_ms + MINUTE,
        )
    before.close()
    told, packets, _ = recorded(config, fill, "card_full")
    losses = [one for each in packets for one in each.lost if one.what == "packets"]
    assert losses[0].from_ms == T0
    assert {one.reason for one in losses} == {"card_full"}
    after = SqliteOutbox(small_card / "outbox.db")
    assert sum(one.count or 0 for one in losses) == 5000 - (after.counts().waiting - len(packets))
    assert "lost_range" in {one["event"] for one in told}


@pytest.mark.parametrize(("names", "content"), [(("readings.db", "outbox.db"), b"garbage"), (("ballast",), b"")])
def test_when_both_files_were_broken_or_gone_at_the_start_that_is_declared_too(
    config: EdgeConfig, names: tuple[str, ...], content: bytes
) -> None:
    config.spool.dir.mkdir()
    for name in names:
        (config.spool.dir / name).write_bytes(content * 1000)
    _, packets, _ = recorded(config, lambda _: None, "corrupt")
    ((loss,),) = [one.lost for one in packets if one.lost]
    assert (loss.session, loss.count, loss.reason, loss.from_ms) == (None, None, "corrupt", loss.to_ms)
