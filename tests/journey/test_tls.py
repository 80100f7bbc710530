"""A router that speaks TLS, and everybody there: the commands, over the real node."""

import re
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from components.cloud.certificates import Tls, certify
from components.cloud.config import HOST, server_toml
from components.console.fleet import Fleet
from components.console.home import Home
from components.console.node import CONFIG, Node, free_port, write_node
from components.edge.spool_view import SpoolView
from tests.commands import odograph
from tests.journey_fleet import ENVIRONMENT, one_line
from tests.waiting import PATIENCE_S, until
from tests.wamp_site import Site

_TROUBLE = "no session with the router: "


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node with the certificate that `init --tls` made; its persister joins by TLS, too."""
    base = tmp_path_factory.mktemp("tls")
    ended = odograph("init", "--tls", "--home", base / "var")
    assert ended.returncode == 0, ended.stderr
    home, ws_port = Home(base / "var"), free_port()
    urls = write_node(base / "node", home.path, ws_port, free_port())
    assert urls.devices == f"wss://{HOST}:{ws_port}/ws"
    config = server_toml(router_url=urls.devices).replace("[intake]", f'ca = "{home.tls.ca}"\n[intake]')
    home.config.write_text(config)
    with running("persist", home.config, base / "persister.log"), Node(base / "node", urls) as node:
        yield Site(home, node)


@contextmanager
def running(command: str, config: Path, log: Path) -> Iterator[None]:
    with log.open("wb") as words:
        line = Fleet.odograph(command, "--config", str(config))
        process = subprocess.Popen(line, env=ENVIRONMENT, stderr=words)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def troubles(log: Path) -> list[str]:
    """Return why the agent says that it has no session."""
    return re.findall(rf"{_TROUBLE}(.*); recording goes on", log.read_text())


def test_a_device_delivers_to_the_router_of_its_ca_and_says_once_why_it_stays_away_from_any_other(
    site: Site, tmp_path: Path
) -> None:
    tls, url = site.home.tls, site.node.urls.devices
    other = Tls(tmp_path / "other")
    certify(other, [], datetime.now(UTC))
    silent = [socket.create_connection((HOST, port(url))) for _ in range(2)]
    silent[1].sendall(b"\x16\x03\x01")  # the beginning of a TLS handshake

    home = tmp_path / "pi"
    access = ["--router", url, "--ca", tls.ca]
    until(lambda: asked(site, "devices", *access).returncode == 0, "a persister")
    code = odograph("device", "invite", "car_one", "--home", site.home.path).stdout.strip()
    line = one_line(odograph("edge", "enrol", "--router", url, "--code", code, "--ca", other.ca, "--home", home), 1)
    assert line.endswith(f"is not of {other.ca}, or is over")
    ended = odograph("edge", "enrol", *access, "--code", code, "--home", home)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (home / "ca.pem").read_bytes() == tls.ca.read_bytes()

    config = (home / "edge.toml").read_text() + "\n[packet]\nperiod_s = 5\n"
    assert tomllib.loads(config)["router"] == {"url": url, "ca": "ca.pem"}
    different = {
        "right": config,
        "ca": config.replace('"ca.pem"', f'"{other.ca}"'),
        "host": config.replace(HOST, "127.1"),  # the same address by another name
        "plain": re.sub("\nca = .*", "", config).replace("wss://", "ws://"),
    }
    logs = {name: tmp_path / f"{name}.log" for name in different}
    with ExitStack() as stack:
        for name, text in different.items():
            path = home / f"{name}.toml"
            path.write_text(text.replace('dir = "spool"', f'dir = "spool_{name}"'))
            stack.enter_context(running("edge", path, logs[name]))
        spool = home / "spool_right"
        until(lambda: spool.exists() and receipted(spool), "a receipt")
        until(lambda: all(troubles(log) for name, log in logs.items() if name != "right"), "words")
    certificate = f"the certificate that came from {url}"
    assert {name: troubles(log) for name, log in logs.items()} == {
        "right": [],
        "ca": [f"{certificate} is not of {other.ca}, or is over"],
        "host": [f"{certificate} is for another host".replace(HOST, "127.1")],
        "plain": [
            f"the router ended the connection at once: {url} is plain, and it may speak TLS only".replace("wss", "ws")
        ],
    }
    assert not [log for log in logs.values() if "SSL error" in log.read_text()], "said at every attempt"
    for peer in silent:
        assert dropped(peer), "who says nothing is still there"


def test_plain_text_is_answered_with_nothing_that_is_plain(site: Site) -> None:
    with socket.create_connection((HOST, port(site.node.urls.devices)), timeout=PATIENCE_S) as plain:
        plain.sendall(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        assert b"HTTP" not in plain.recv(1000)
        assert dropped(plain)


def test_the_line_that_the_shipped_configuration_offers_is_the_one_that_is_tested() -> None:
    text = CONFIG.read_text()
    offered = yaml.safe_load(text.replace("# tls: {", "tls: {"))["workers"][0]["transports"][0]["endpoint"]
    plain = yaml.safe_load(text)["workers"][0]["transports"][0]["endpoint"]
    home = (CONFIG.parent / "../../var").resolve()
    router = Home(home).tls.router
    tls = {key: (CONFIG.parent / path).resolve() for key, path in offered.pop("tls").items()}
    assert tls == {"certificate": router, "key": router}
    assert offered == plain


def asked(site: Site, *command: object) -> "subprocess.CompletedProcess[str]":
    return odograph(*command, "--key", site.home.admin_key)


def receipted(spool: Path) -> bool:
    return any(packet.state == "receipted" for packet in SpoolView(spool).packets())


def dropped(peer: socket.socket) -> bool:
    """Whether the other end closes, within a deadline far beyond its own."""
    peer.settimeout(PATIENCE_S)
    try:
        while peer.recv(1000):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def port(url: str) -> int:
    return int(url.rpartition(":")[2].removesuffix("/ws"))
