"""The server-side commands: what they make, print and refuse, and their exit codes."""

import json
import os
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from components.cloud.config import Server, read_server, server_toml
from components.cloud.keys import load_server_keys
from components.cloud.sqlite_registry import Registry
from components.cloud.who import Principal
from components.console.__main__ import run
from components.edge import config
from components.keyfile import read_key_file
from components.wire import bundle, enrolment
from components.wire.errors import ConfigError
from tests.quick_keys import share_rsa_keys

KEY = "ab" * 32


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    share_rsa_keys(monkeypatch)
    assert run(["init", "--home", str(tmp_path / "var")]) == 0
    capsys.readouterr()
    return tmp_path / "var"


def test_init_makes_a_home_whose_parts_fit_together(home: Path) -> None:
    server = read_server(home / "server.toml")
    keys = load_server_keys(server.keys.dir)
    assert bundle.parse((home / "server.pub.json").read_text("utf-8")) == keys.newest
    with Registry.open(server.registry.path) as registry:
        assert [(one.id, one.role) for one in registry.principals()] == [("admin", "admin"), ("persister", "persister")]
        for path in (home / "operators" / "admin.key", server.keys.persister):
            key = read_key_file(path)
            principal = registry.principal(key.authid)
            assert principal is not None
            assert (principal.pubkey, principal.role) == (key.public_key, key.role)
    secrets = [*(home / "keys").iterdir(), *(home / "operators").iterdir()]
    assert {stat.S_IMODE(one.stat().st_mode) for one in secrets} == {0o600}
    assert [one.name for one in home.parent.iterdir()] == ["var"]


def test_init_refuses_what_is_there_and_changes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert run(["init", "--home", str(home)]) == 2
    assert capsys.readouterr().err == f"odograph: {home} is there already: choose another --home; nothing was changed\n"
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("server.pub.json", "a pipe"),
        ("registry.db", "a directory"),
        ("tls/ca.key", "a key with a password"),
        ("tls/ca.pem", "a pipe"),
        ("tls/router.pem", "without end"),
    ],
)
def test_a_file_of_the_home_that_is_something_else_is_named_and_not_waited_for(
    home: Path, capsys: pytest.CaptureFixture[str], name: str, what: str
) -> None:
    assert run(["init", "--home", str(home), "--tls"]) == 0
    path = home / name
    path.unlink()
    if what == "a pipe":
        os.mkfifo(path, 0o600)
    elif what == "without end":
        path.symlink_to("/dev/zero")
    elif what == "a directory":
        path.mkdir(0o700)
    else:
        locked = serialization.BestAvailableEncryption(b"secret")
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        path.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, form, locked))
        path.chmod(0o600)
    capsys.readouterr()
    command = ["init", "--tls"] if name.startswith("tls") else ["device", "invite", "car_one"]
    assert run([*command, "--home", str(home)]) == 2
    assert capsys.readouterr().err.startswith(f"odograph: {path} ")


def test_init_tls_gives_a_certificate_to_a_home_that_is_there_and_renews_it(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert run(["init", "--tls", "--host", "router.example.org", "--home", str(home)]) == 0
    assert str(home / "tls" / "ca.pem") in capsys.readouterr().out
    ca, router = (home / "tls" / "ca.pem").read_bytes(), (home / "tls" / "router.pem").read_bytes()
    assert run(["init", "--tls", "--home", str(home)]) == 0
    said = capsys.readouterr().out
    assert f"{home}/tls/router.pem for localhost 127.0.0.1 router.example.org until " in said
    assert "ca.pem" not in said
    assert (home / "tls" / "ca.pem").read_bytes() == ca
    assert (home / "tls" / "router.pem").read_bytes() != router
    assert {path: path.read_bytes() for path in before} == before


def test_a_host_without_tls_and_a_ca_without_wss_are_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", "--host", "router.example.org", "--home", str(tmp_path / "other")]) == 2
    assert capsys.readouterr().err.startswith("odograph: --host goes with --tls")
    assert run(["init", "--tls", "--home", str(home)]) == 0
    ca, bundle_file, pi = home / "tls" / "ca.pem", home / "server.pub.json", tmp_path / "pi"
    device = ["edge", "init", "--device", "car_one", "--server", str(bundle_file), "--home", str(pi), "--ca", str(ca)]
    capsys.readouterr()
    assert run([*device, "--router", "ws://router.example.org/ws"]) == 2
    assert "is no URL of TLS" in capsys.readouterr().err
    assert not pi.exists()
    assert run([*device, "--router", "wss://router.example.org/ws"]) == 0
    assert config.load(pi / "edge.toml").router.ca == pi / "ca.pem"
    assert (pi / "ca.pem").read_bytes() == ca.read_bytes()


def test_init_where_nothing_can_be_made_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run(["init", "--home", str(tmp_path / "file" / "var")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_device_is_added_listed_and_revoked(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--account", "acme", "--vehicle", "van", "--driver", "dora"]
    assert run(["device", "add", "car_one", "--pubkey", KEY, *more, "--home", str(home)]) == 0
    assert run(["device", "revoke", "car_one", "--home", str(home)]) == 0
    capsys.readouterr()
    assert run(["device", "list", "--json", "--home", str(home)]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    kept = {name: listed[name] for name in ("id", "pubkey", "state", "account", "vehicle", "driver")}
    assert list(kept.values()) == ["car_one", KEY, "revoked", "acme", "van", "dora"]
    assert run(["device", "list", "--home", str(home)]) == 0
    assert "car_one" in capsys.readouterr().out


def test_a_device_whose_row_is_unsound_is_named_beside_the_others_until_it_is_mended(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--home", str(home)]
    for name in ("car_one", "car_two"):
        assert run(["device", "add", name, "--pubkey", KEY, *where]) == 0
    with closing(sqlite3.connect(home / "registry.db")) as db, db:
        db.execute("UPDATE device SET notes = char(10) WHERE id = 'car_one'")
    capsys.readouterr()
    assert run(["device", "list", "--json", *where]) == 0
    said = capsys.readouterr()
    assert [one["id"] for one in json.loads(said.out)] == ["car_two"]
    assert "'car_one' is not as odograph writes it (notes)" in said.err
    assert run(["device", "set", "car_one", "--notes", "", *where]) == 0
    assert run(["device", "list", *where]) == 0
    assert capsys.readouterr().err == ""


def test_an_operator_gets_a_key_that_the_registry_knows(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "vera.key"
    assert run(["operator", "add", "vera", "--role", "viewer", "--out", str(out), "--home", str(home)]) == 0
    key = read_key_file(out)
    with Registry.open(home / "registry.db") as registry:
        vera = registry.principal("vera")
    assert vera is not None
    assert (
        (key.authid, key.role, key.public_key) == (vera.id, vera.role, vera.pubkey) == ("vera", "viewer", vera.pubkey)
    )


def test_a_device_is_invited_suspended_resumed_changed_and_shown(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--home", str(home)]

    def shown() -> dict[str, str]:
        capsys.readouterr()
        assert run(["device", "show", "car_one", "--json", *where]) == 0
        found: dict[str, str] = json.loads(capsys.readouterr().out)
        return found

    assert run(["device", "invite", "car_one", "--account", "acme", *where]) == 0
    code = enrolment.parse(capsys.readouterr().out)
    assert code.fingerprint == enrolment.fingerprint((home / "server.pub.json").read_text())
    assert (shown()["state"], shown()["account"]) == ("invited", "acme")
    assert shown()["code"].startswith("open until")
    with Registry.open(home / "registry.db") as registry:
        invited, invitation = registry.device("car_one"), registry.invitation("car_one")
    assert invited is not None
    assert invitation is not None
    assert invitation.expires_ms - invited.changed_ms == 24 * 3600 * 1000
    assert code.text() not in str(list(home.rglob("*")))
    assert not [path for path in home.rglob("*") if path.is_file() and code.secret in path.read_bytes()]
    assert run(["device", "invite", "car_one", *where]) == 0
    assert enrolment.parse(capsys.readouterr().out) != code
    assert shown()["account"] == "acme"
    assert run(["device", "add", "car_two", "--pubkey", KEY, *where]) == 0
    assert run(["device", "invite", "car_two", *where]) == 0
    assert capsys.readouterr().err.startswith("car_two is active: the key that it has now is shut out when the code")
    assert run(["device", "suspend", "car_two", *where]) == 0
    assert run(["device", "invite", "car_two", *where]) == 2
    assert run(["device", "set", "car_one", "--notes", "blue", "--account", "", *where]) == 0
    assert (shown()["notes"], shown()["account"]) == ("blue", "")
    assert run(["device", "suspend", "car_two", *where]) == 0
    assert run(["device", "resume", "car_two", *where]) == 0
    assert run(["device", "resume", "car_one", *where]) == 2
    assert "car_one is invited: it cannot be resumed" in capsys.readouterr().err
    assert run(["device", "show", "car_one", *where]) == 0
    assert "blue" in capsys.readouterr().out


def test_an_operators_limits_and_key_can_be_changed(home: Path, tmp_path: Path) -> None:
    where = ["--home", str(home)]

    def vera() -> Principal:
        with Registry.open(home / "registry.db") as registry:
            found = registry.principal("vera")
        assert found is not None
        return found

    out = ["--out", str(tmp_path / "vera.key")]
    limits = ["--devices", "car_two, car_one", "--account", "acme", "--expires", "2126-01-01"]
    assert run(["operator", "add", "vera", "--role", "viewer", *limits, *out, *where]) == 0
    assert (vera().devices, vera().account, vera().expires_ms) == (("car_one", "car_two"), "acme", 4922899200000)
    before = time.time() * 1000
    assert run(["operator", "set", "vera", "--devices", "", "--account", "", "--expires", "2d", *where]) == 0
    expires_ms = vera().expires_ms
    assert (vera().devices, vera().account, vera().limited) == ((), "", False)
    assert expires_ms is not None
    assert before + 172_700_000 < expires_ms < time.time() * 1000 + 172_800_001
    assert run(["operator", "set", "vera", "--role", "technician", "--expires", "never", *where]) == 0
    assert (vera().role, vera().expires_ms) == ("technician", None)
    new = tmp_path / "new.key"
    assert run(["operator", "rekey", "vera", "--out", str(new), *where]) == 0
    key = read_key_file(new)
    assert (key.authid, key.role, key.public_key) == ("vera", "technician", vera().pubkey)
    assert run(["operator", "revoke", "vera", *where]) == 0
    assert vera().state == "revoked"
    assert run(["operator", "rekey", "vera", "--out", str(tmp_path / "late.key"), *where]) == 2
    assert not (tmp_path / "late.key").exists()


def test_an_operator_that_cannot_be_added_leaves_no_key_and_no_entry(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "admin.key"
    assert run(["operator", "add", "admin", "--role", "viewer", "--out", str(out), "--home", str(home)]) == 2
    assert not out.exists()
    out.write_text("mine", "utf-8")
    assert run(["operator", "add", "vera", "--role", "viewer", "--out", str(out), "--home", str(home)]) == 2
    assert out.read_text("utf-8") == "mine"
    with Registry.open(home / "registry.db") as registry:
        assert registry.principal("vera") is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["device", "add", "Car", "--pubkey", KEY], "device id 'Car' is not valid"),
        (["device", "add", "car_one", "--pubkey", "12"], "64 hex digits"),
        (["device", "add", "admin", "--pubkey", KEY], "there is an operator or persister 'admin' already"),
        (["device", "add", "car_one"], "Missing option '--pubkey'"),
        (["device", "revoke", "car_one"], "there is no device 'car_one': `odograph device list` shows them"),
        (["operator", "add", "vera", "--role", "king", "--out", "x"], "Invalid value for '--role'"),
        (["device", "set", "car_one"], "nothing to change"),
        (["device", "show", "car_one"], "there is no device 'car_one'"),
        (["operator", "set", "vera", "--role", "viewer"], "there is no operator 'vera'"),
        (["operator", "set", "persister", "--role", "viewer"], "there is no operator 'persister'"),
        (["operator", "set", "admin"], "nothing to change"),
        (["operator", "set", "admin", "--expires", "2001-01-01"], "2001-01-01 is past"),
        (["operator", "set", "admin", "--expires", "soon"], "neither a time like"),
        (["operator", "set", "admin", "--devices", "Car"], "device id 'Car' is not valid"),
        (["device", "remove", "car_one"], "No such command 'remove'"),
        (["fly"], "No such command 'fly'"),
        (["device", "list", "--home", "/nowhere"], "/nowhere/registry.db does not exist: run: odograph init"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    where = [] if "--home" in arguments or arguments == ["fly"] else ["--home", str(home)]
    assert run([*arguments, *where]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("odograph: ")
    assert said in printed.err
    assert (printed.err.count("\n"), printed.out) == (1, "")


def test_a_registry_that_is_away_is_exit_code_1(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory stands where its journal should be; root, who runs some tests, is stopped by nothing less."""
    (home / "registry.db-journal").mkdir()
    assert run(["device", "add", "car_one", "--pubkey", KEY, "--home", str(home)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_server_toml_says_every_fault_at_once(tmp_path: Path) -> None:
    text = server_toml(router_url="http://x", archive="mysql:x", feed="kafka://nowhere").replace("00-ff", "ff-00")
    (tmp_path / "server.toml").write_text(text + "\n[more]\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        read_server(tmp_path / "server.toml")
    assert {fault.split(":")[0] for fault in caught.value.faults} == {
        "router.url",
        "archive.uri",
        "feed.uri",
        "intake.shards",
        "more",
    }


def test_paths_in_server_toml_stand_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "server.toml").write_text(server_toml(feed="kafka://one:9092,two:9092"), "utf-8")
    monkeypatch.chdir(tmp_path)
    server: Server = read_server(Path("server.toml"))
    assert server.archive.uri == f"sqlite:{tmp_path}/archive.db"
    assert server.feed.uri == "kafka://one:9092,two:9092"
    assert (server.registry.path, server.keys.dir) == (tmp_path / "registry.db", tmp_path / "keys")
    assert server.intake.shard_ids()[0] == "00"
    assert len(server.intake.shard_ids()) == 256
