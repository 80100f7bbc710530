"""A device gets into the registry by its code, and changes its key: the commands, over the real node."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from components.console.fleet import Fleet
from components.edge.spool_view import SpoolView
from components.keyfile import KeyFile, read_key_file
from components.wire import bundle, enrolment, envelope, topics
from tests.commands import odograph
from tests.journey_fleet import ENVIRONMENT, one_line
from tests.raw_wamp import ABORT, CHALLENGE, WELCOME, RawPeer, hello
from tests.waiting import PATIENCE_S, until
from tests.wamp_peer import RefusedJoinError, refusal
from tests.wamp_site import Site, running_site


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("enrolment")) as site:
        yield site


@pytest.fixture
def site(alone: Site) -> Iterator[Site]:
    """The site with a persister."""
    with subprocess.Popen(Fleet.odograph("persist", "--config", str(alone.home.config)), env=ENVIRONMENT) as persister:
        with alone.peer(read_key_file(alone.home.admin_key)) as admin:
            until(lambda: refusal(admin.call, topics.fleet_procedure("devices")) == "", "a persister")
        yield alone
        persister.terminate()
        persister.wait(PATIENCE_S)


def invited(site: Site, device: str) -> str:
    ended = odograph("device", "invite", device, "--home", site.home.path)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def enrol(site: Site, code: str, home: Path) -> "subprocess.CompletedProcess[str]":
    return odograph("edge", "enrol", "--router", site.node.urls.devices, "--code", code, "--home", home)


def test_a_device_enrols_joins_changes_its_key_and_joins_again(site: Site, tmp_path: Path) -> None:
    home, code = tmp_path / "pi", invited(site, "car_one")
    # By a pipe: on the command line every user of the machine could read it.
    ended = odograph("edge", "enrol", "--router", site.node.urls.devices, "--home", home, said=f"{code}\n")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert {path.name: path.stat().st_mode & 0o777 for path in home.iterdir()}["device.key"] == 0o600
    assert (home / "server.pub.json").read_text() == site.home.bundle.read_text()
    old = read_key_file(home / "device.key")
    line = one_line(enrol(site, code, tmp_path / "thief"), 1)
    assert line.startswith("this code was used already, for another key: ask for a new code")
    assert not (tmp_path / "thief" / "edge.toml").exists()
    with site.peer(old) as car:
        assert car.publish(topics.packet("car_one"), b"envelope").id
        ended = odograph("edge", "rekey", "--config", home / "edge.toml")
        assert (ended.returncode, ended.stderr) == (0, "")
        until(lambda: not car.session.is_attached())
    new = read_key_file(home / "device.key")
    assert new.public_key != old.public_key
    assert sorted(path.name for path in home.iterdir()) == ["device.key", "edge.toml", "server.pub.json"]
    with pytest.raises(RefusedJoinError), site.peer(old):
        pass
    with site.peer(new) as car:
        assert car.publish(topics.packet("car_one"), b"envelope").id
    shown = odograph("audit", "show", "--json", "--home", site.home.path).stdout.splitlines()
    mine = [one for one in map(json.loads, shown) if one["subject"] == "car_one" and one["log"] == "registry"]
    assert [(one["action"], one["by"]) for one in mine if one["by"] == "persister"] == [
        ("device.enrolled", "persister"),
        ("enrolment.refused", "persister"),
        ("device.rekeyed", "persister"),
    ]


def test_a_change_of_key_whose_answer_was_lost_is_finished_by_running_it_again(site: Site, tmp_path: Path) -> None:
    home = tmp_path / "pi"
    assert enrol(site, invited(site, "car_cut"), home).returncode == 0
    old = (home / "device.key").read_bytes()
    assert odograph("edge", "rekey", "--config", home / "edge.toml").returncode == 0
    # As if the power had gone after the server took the new key.
    (home / "device.key").rename(home / "device.key.new")
    (home / "device.key").write_bytes(old)
    (home / "device.key").chmod(0o600)
    new = read_key_file(home / "device.key.new")
    assert odograph("edge", "rekey", "--config", home / "edge.toml").returncode == 0
    assert read_key_file(home / "device.key") == new
    with site.peer(new):
        pass


def answer_to(site: Site, ticket: str, source: str) -> int:
    """Join as car_two with a ticket, from an address; return which message the router answers with."""
    with RawPeer(site.port, source) as peer:
        peer.send(hello("car_two", method="ticket"))
        assert peer.hear()[0] == CHALLENGE
        peer.send([5, ticket, {}])
        return int(peer.hear()[0])


def test_a_code_that_was_replaced_is_refused_in_words_and_tries_lock_none_but_their_own_address(
    site: Site, tmp_path: Path
) -> None:
    first, code = invited(site, "car_two"), invited(site, "car_two")
    assert one_line(enrol(site, first, tmp_path / "pi"), 1).startswith("there is no open code for car_two")
    ticket = enrolment.parse(code).ticket()
    assert [answer_to(site, "00" * 32, "127.0.0.2") for _ in range(7)] == [ABORT] * 7
    assert answer_to(site, ticket, "127.0.0.2") == ABORT
    reasons = [more["reason"] for who, more in site.noted("join.refused") if who == "car_two"]
    # The same again is told with its count when the minute is over; on a slow machine one is, meanwhile.
    assert list(dict.fromkeys(reasons)) == ["wrong_ticket", "too_many_tries"]
    assert answer_to(site, ticket, "127.0.0.3") == WELCOME
    assert enrol(site, code, tmp_path / "pi").returncode == 0


def test_a_code_of_other_server_keys_is_refused_and_so_is_nonsense(site: Site, tmp_path: Path) -> None:
    code = invited(site, "car_three")
    other = code[:-26] + ("a" * 26 if code[-26:] != "a" * 26 else "b" * 26)
    assert "the server's keys have changed" in one_line(enrol(site, other, tmp_path / "pi"), 1)
    assert one_line(enrol(site, "nonsense", tmp_path / "pi"), 2).startswith("this is no enrolment code")
    assert enrol(site, code, tmp_path / "pi").returncode == 0
    assert "is there already" in one_line(enrol(site, code, tmp_path / "pi"), 2)


def test_a_bundle_that_somebody_on_the_way_has_changed_is_refused_by_the_device(alone: Site, tmp_path: Path) -> None:
    """Whoever runs the router can answer in the persister's place."""
    with alone.peer(read_key_file(alone.home.persister_key)) as forger:
        forger.register(topics.ENROL, lambda *_, **__: {"bundle": '{"v": 1}'})
        line = one_line(enrol(alone, invited(alone, "car_four"), tmp_path / "pi"), 1)
    assert line.startswith("what came is not the server's bundle: somebody on the way has changed it")
    assert [path.name for path in (tmp_path / "pi").iterdir()] == ["device.key"]


def test_where_no_persister_is_the_code_stays_good(alone: Site, tmp_path: Path) -> None:
    code = invited(alone, "car_five")
    assert "nobody answers" in one_line(enrol(alone, code, tmp_path / "pi"), 1)
    with alone.registry() as registry:
        invitation = registry.invitation("car_five")
    assert invitation is not None
    assert (invitation.refused, invitation.used_by) == (0, "")


@pytest.mark.slow
def test_an_agent_that_runs_takes_up_another_key_and_loses_no_packet(site: Site, tmp_path: Path) -> None:
    home = tmp_path / "pi"
    assert enrol(site, invited(site, "car_run"), home).returncode == 0
    config = home / "edge.toml"
    config.write_text(config.read_text() + "\n[packet]\nperiod_s = 5\n")
    old = read_key_file(home / "device.key")
    command = Fleet.odograph("edge", "--config", str(config))
    with (tmp_path / "edge.log").open("wb") as log, subprocess.Popen(command, env=ENVIRONMENT, stderr=log) as agent:
        try:
            until(lambda: [kid for kid, state in sent(home) if state == "receipted"], "a receipt")
            assert odograph("edge", "rekey", "--config", config).returncode == 0
            new = read_key_file(home / "device.key")
            until(lambda: (kid_of(new), "receipted") in sent(home), "a packet of the new key")
        finally:
            agent.terminate()
            assert agent.wait(PATIENCE_S) == 0
    assert {kid for kid, _ in sent(home)} == {kid_of(old), kid_of(new)}
    assert {state for _, state in sent(home)} == {"receipted"}


def kid_of(key: KeyFile) -> str:
    return bundle.key_id(bytes.fromhex(key.public_key))


def sent(home: Path) -> list[tuple[str, str]]:
    """Return by which key each packet in a device's outbox is signed, and its state."""
    rows = SpoolView(home / "spool")._select("outbox.db", "SELECT envelope, state, '' FROM packets")
    return [(envelope.parse(cast("bytes", sealed)).header.device_kid, str(state)) for sealed, state, _ in rows]
