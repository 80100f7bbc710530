"""registry.db and the key files: what they refuse, and that a reader sees what was just written."""

import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from components.cloud.sqlite_registry import Registry
from components.keyfile import make_key, read_key_file, write_key_file
from components.wire.errors import ConfigError, UnavailableError

KEY = "ab" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Registry.create(tmp_path / "registry.db").close()
    return tmp_path / "registry.db"


def test_a_reader_sees_a_device_as_soon_as_it_is_added_and_revoked(path: Path) -> None:
    with Registry.open(path) as reader, Registry.open(path, write=True) as writer:
        assert reader.device("car_one") is None
        added = writer.add_device("car_one", KEY.upper(), 5, account="acme", vehicle="van", driver="dora")
        assert reader.device("car_one") == added
        assert (added.pubkey, added.state, added.added_ms) == (KEY, "active", 5)
        assert writer.revoke_device("car_one", 9) == replace(added, state="revoked", changed_ms=9)
        assert reader.devices() == [replace(added, state="revoked", changed_ms=9)]


def test_revoking_again_changes_nothing(path: Path) -> None:
    with Registry.open(path, write=True) as registry:
        registry.add_device("car_one", KEY, 5)
        assert registry.revoke_device("car_one", 9) == registry.revoke_device("car_one", 10)


def test_an_id_is_taken_once_by_whoever_it_is(path: Path) -> None:
    with Registry.open(path, write=True) as registry:
        registry.add_device("car_one", KEY, 1)
        registry.add_principal("vera", KEY, "viewer", 1)
        for name in ("car_one", "vera"):
            with pytest.raises(ConfigError, match=f"'{name}' already"):
                registry.add_device(name, KEY, 2)
            with pytest.raises(ConfigError, match=f"'{name}' already"):
                registry.add_principal(name, KEY, "admin", 2)
        assert [one.id for one in registry.devices()] == ["car_one"]
        assert [(one.id, one.role) for one in registry.principals()] == [("vera", "viewer")]


@pytest.mark.parametrize("name", ["", "ab", "Car", "1car", "car-one", "a" * 33, "car.one", "car_one\n", "cár"])
def test_an_id_that_is_no_uri_component_is_refused(path: Path, name: str) -> None:
    with Registry.open(path, write=True) as registry, pytest.raises(ConfigError, match="is not valid"):
        registry.add_device(name, KEY, 1)


@pytest.mark.parametrize("pubkey", ["", "ab", "zz" * 32, KEY + "00", KEY + "\n", "0x" + KEY[2:]])
def test_a_public_key_that_is_not_64_hex_digits_is_refused(path: Path, pubkey: str) -> None:
    with Registry.open(path, write=True) as registry, pytest.raises(ConfigError, match="64 hex"):
        registry.add_device("car_one", pubkey, 1)


def test_an_unknown_device_cannot_be_revoked(path: Path) -> None:
    with Registry.open(path, write=True) as registry, pytest.raises(ConfigError, match="no device 'car_one'"):
        registry.revoke_device("car_one", 1)


def test_a_reader_cannot_write(path: Path) -> None:
    with Registry.open(path) as registry, pytest.raises(UnavailableError, match="readonly"):
        registry.add_device("car_one", KEY, 1)


def test_a_writer_that_is_held_up_gives_up_and_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.cloud.sqlite_registry._BUSY_TIMEOUT_S", 0.01)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Registry.open(path, write=True) as registry:
        with pytest.raises(UnavailableError, match="locked"):
            registry.add_device("car_one", KEY, 1)
        other.execute("ROLLBACK")
        other.close()
        assert registry.add_device("car_one", KEY, 1)


def test_a_registry_that_is_missing_foreign_or_of_another_version_names_its_remedy(path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist: run: odograph init"):
        Registry.open(path.with_name("none.db"))
    noise = path.with_name("noise.db")
    noise.write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigError, match="is not a registry"):
        Registry.open(noise)
    empty = path.with_name("empty.db")
    empty.touch()
    with pytest.raises(ConfigError, match=r"version 0.*run: odograph init"):
        Registry.open(empty)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(ConfigError, match="version 2, this odograph reads version 1"):
        Registry.open(path)


def test_it_holds_a_rollback_journal_and_no_private_key(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        names = [
            row[1] for table in ("devices", "principals") for row in connection.execute(f"PRAGMA table_info({table})")
        ]
    connection.close()
    assert not [name for name in names if "private" in name or "secret" in name]


def test_a_key_file_comes_back_as_it_was_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    key = make_key("vera", "viewer")
    write_key_file(tmp_path / "vera.key", key)
    assert read_key_file(tmp_path / "vera.key") == key
    assert stat.S_IMODE((tmp_path / "vera.key").stat().st_mode) == 0o600
    assert key.private_key not in repr(key)
    with pytest.raises(ConfigError, match="is there already"):
        write_key_file(tmp_path / "vera.key", make_key("vera", "viewer"))
    assert read_key_file(tmp_path / "vera.key") == key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_key_file_that_others_may_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "vera.key"
    write_key_file(path, make_key("vera", "viewer"))
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"run: chmod 600 {path}"):
        read_key_file(path)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("viewer", "king", "role: must be one of"),
        ("vera", "Vera", "authid: must be 3 to 32"),
        ("private_key", "privatekey", "privatekey: unknown key"),
        ('private_key = "', 'private_key = "00', "private_key: must be 64 hex"),
        ("authid =", "authid", "cannot be read"),
    ],
)
def test_a_faulty_key_file_is_refused_without_showing_the_key(tmp_path: Path, old: str, new: str, fault: str) -> None:
    path, key = tmp_path / "vera.key", make_key("vera", "viewer")
    write_key_file(path, key)
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")
    with pytest.raises(ConfigError, match=fault) as caught:
        read_key_file(path)
    assert key.private_key not in str(caught.value)
