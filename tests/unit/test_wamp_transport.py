import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from autobahn.wamp.exception import ApplicationError
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.error import ConnectionLost

from components.cloud.certificates import Tls, certify
from components.cloud.config import read_server, server_toml
from components.edge import config
from components.wamp_transport import in_words, transport
from components.wire.errors import ConfigError

_EDGE = """\
[device]
id = "car_one"
key = "device.key"
[server]
bundle = "server.pub.json"
[spool]
dir = "spool"
[router]
url = "wss://router.example.org/ws"
"""


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    tls = Tls(tmp_path / "tls")
    certify(tls, [], datetime(2026, 11, 22, tzinfo=UTC))
    return tls.ca


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("ws://127.0.0.1:8080/ws", "127.0.0.1", 8080, False),
        ("wss://router.example.org/ws", "router.example.org", 443, True),
        ("rs://127.0.0.1:8081", "127.0.0.1", 8081, False),
        ("rss://127.0.0.1:8081", "127.0.0.1", 8081, True),
    ],
)
def test_a_url_of_tls_is_spoken_to_in_tls(url: str, host: str, port: int, tls: bool) -> None:
    endpoint = transport(url)["endpoint"]
    assert (endpoint["host"], endpoint["port"], "tls" in endpoint) == (host, port, tls)


def test_a_ca_is_refused_where_it_proves_nothing_or_is_none(ca: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no URL of TLS"):
        transport("ws://127.0.0.1:8080/ws", ca)
    with pytest.raises(ConfigError, match="has no certificate in PEM"):
        transport("wss://127.0.0.1:8080/ws", ca.with_name("ca.key"))
    with pytest.raises(ConfigError, match="does not exist"):
        transport("wss://127.0.0.1:8080/ws", tmp_path / "nothing")
    with pytest.raises(ConfigError, match="is no router URL"):
        transport("wss://:x/ws")


def test_a_ca_that_is_no_file_is_neither_waited_for_nor_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for endless in (Path("/dev/zero"), tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="is not a file"):
            transport("wss://127.0.0.1:8080/ws", endless)


def test_both_ends_find_the_ca_beside_their_file_and_refuse_it_with_a_plain_url(tmp_path: Path) -> None:
    edge, server = tmp_path / "edge.toml", tmp_path / "server.toml"
    edge.write_text(f'{_EDGE}ca = "ca.pem"\n')
    assert config.load(edge).router.ca == tmp_path / "ca.pem"
    edge.write_text(edge.read_text().replace("wss://", "ws://"))
    with pytest.raises(ConfigError, match=r"router\.ca: must be left out where url does not begin with wss://"):
        config.load(edge)
    text = server_toml(router_url="wss://router.example.org/ws").replace("[intake]", 'ca = "tls/ca.pem"\n[intake]')
    server.write_text(text)
    assert read_server(server).router.ca == tmp_path / "tls" / "ca.pem"
    server.write_text(text.replace("wss://", "ws://"))
    with pytest.raises(ConfigError, match=r"router\.ca: must be left out"):
        read_server(server)


def test_a_ca_is_a_path_like_others_and_does_not_change_what_a_packet_says_of_its_configuration(tmp_path: Path) -> None:
    plain, pinned = tmp_path / "plain.toml", tmp_path / "pinned.toml"
    plain.write_text(_EDGE)
    pinned.write_text(f'{_EDGE}ca = "ca.pem"\n')
    assert config.load(plain).hash == config.load(pinned).hash


def test_each_reason_is_said_in_words(ca: Path) -> None:
    url = "wss://router.example.org/ws"
    untrusted = SSL.Error([("SSL routines", "", "certificate verify failed")])
    assert f"not of {ca}" in in_words(untrusted, url, ca)
    assert "not of a CA that this system trusts" in in_words(untrusted, url, None)
    assert in_words(SSL.Error([("SSL routines", "", "wrong version number")]), url, ca).endswith("wrong version number")
    assert in_words(SSL.Error([]), url, ca).startswith("no TLS with")
    assert in_words(VerificationError(errors=[]), url, ca).endswith("is for another host")
    assert "may speak TLS only" in in_words(ConnectionLost(), "ws://router.example.org/ws", None)
    lost = ConnectionLost()
    assert in_words(lost, "ws://router.example.org/ws", None, joined=True) == str(lost)
    assert in_words(lost, url, ca) == str(lost)


def test_what_the_router_says_is_told_in_its_words() -> None:
    error = ApplicationError("odograph.error.session_ended", "your time is over")
    assert in_words(error, "ws://127.0.0.1:8080/ws", None) == "the router says: your time is over"
    error = ApplicationError("wamp.close.system_shutdown")
    assert in_words(error, "ws://127.0.0.1:8080/ws", None) == "the router says: wamp.close.system_shutdown"
