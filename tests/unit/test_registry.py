"""registry.db and the key files: what they refuse, and that a reader sees what was just written."""

import sqlite3
import stat
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from components.cloud.sqlite_registry import Registry
from components.cloud.who import Device, Principal, State
from components.keyfile import make_key, read_key_file, write_key_file
from components.wire import bundle
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
        assert writer.set_state("car_one", "revoked", 9) == replace(added, state="revoked", changed_ms=9)
        assert reader.devices() == [replace(added, state="revoked", changed_ms=9)]


def test_revoking_again_changes_nothing(path: Path) -> None:
    with Registry.open(path, write=True) as registry:
        registry.add_device("car_one", KEY, 5)
        assert registry.set_state("car_one", "revoked", 9) == registry.set_state("car_one", "revoked", 10)


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


@pytest.mark.parametrize("pubkey", ["", "ab", "zz" * 32, KEY + "00", KEY + "\n", "0x" + KEY[2:], "00" * 32])
def test_a_public_key_that_is_none_is_refused(path: Path, pubkey: str) -> None:
    with Registry.open(path, write=True) as registry, pytest.raises(ConfigError, match="64 hex"):
        registry.add_device("car_one", pubkey, 1)


def test_an_unknown_device_cannot_be_revoked(path: Path) -> None:
    with Registry.open(path, write=True) as registry, pytest.raises(ConfigError, match="no device 'car_one'"):
        registry.set_state("car_one", "revoked", 1)


def test_a_reader_cannot_write(path: Path) -> None:
    with Registry.open(path) as registry, pytest.raises(UnavailableError, match="readonly"):
        registry.add_device("car_one", KEY, 1)


def test_a_writer_that_is_held_up_gives_up_and_changes_nothing(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Registry.open(path, write=True, busy_s=0.01) as registry:
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
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="version 99, this odograph reads version 2"):
        Registry.open(path)


def test_it_holds_a_rollback_journal_and_no_private_key(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        names = [
            row[1]
            for table in ("device", "principal", "invitation", "old_key")
            for row in connection.execute(f"PRAGMA table_info({table})")
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


OLD_1 = """
CREATE TABLE devices (
    id TEXT PRIMARY KEY, pubkey TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN ('active', 'revoked')),
    account TEXT NOT NULL, vehicle TEXT NOT NULL, driver TEXT NOT NULL,
    added_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE principals (
    id TEXT PRIMARY KEY, pubkey TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'technician', 'admin', 'persister')),
    state TEXT NOT NULL CHECK (state IN ('active', 'revoked')),
    added_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL
) STRICT;
PRAGMA user_version = 1;
"""
"""What odograph 0.1.0 made."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "registry.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(OLD_1)
        db.execute("INSERT INTO devices VALUES ('car_one', ?, 'active', 'acme', 'van', 'dora', 5, 6)", (KEY,))
        db.execute("INSERT INTO devices VALUES ('car_two', ?, 'revoked', '', '', '', 7, 8)", (KEY,))
        db.execute("INSERT INTO principals VALUES ('vera', ?, 'viewer', 'active', 9, 9)", (KEY,))
    return path


def test_a_registry_of_version_1_is_brought_to_this_one_with_everybody_in_it(old: Path) -> None:
    with pytest.raises(ConfigError, match=r"version 1, .*: run, as its owner: odograph device list --home"):
        Registry.open(old)
    with Registry.open(old, write=True) as registry:
        assert registry.devices() == [
            Device("car_one", KEY, "active", "acme", "van", "dora", "", 5, 6),
            Device("car_two", KEY, "revoked", "", "", "", "", 7, 8),
        ]
        assert registry.principals() == [Principal("vera", KEY, "viewer", "active", "", (), None, 9, 9)]
        assert [one.action for one in registry.audit.entries()] == ["registry.migrated"]
    with Registry.open(old, write=True) as again:
        assert again.audit.verify().seq == 1


def test_a_migration_that_fails_leaves_the_old_registry_whole(old: Path) -> None:
    with closing(sqlite3.connect(old)) as db:
        db.execute("CREATE TABLE old_key (stands INTEGER, in_the_way INTEGER)")
    before = old.read_bytes()
    with pytest.raises(UnavailableError, match="old_key already exists"):
        Registry.open(old, write=True)
    assert old.read_bytes() == before


def test_a_reader_of_version_1_that_is_still_open_finds_no_table_instead_of_rows_that_it_misreads(old: Path) -> None:
    with closing(sqlite3.connect(old)) as reader:
        reader.execute("SELECT * FROM devices").fetchall()
        Registry.open(old, write=True).close()
        with pytest.raises(sqlite3.OperationalError, match="no such table: devices"):
            reader.execute("SELECT * FROM devices")


@pytest.mark.parametrize(
    ("steps", "refused"),
    [
        (["suspended", "active", "suspended", "revoked"], ["suspended", "active"]),
        (["revoked"], ["suspended", "active"]),
        (["active"], ["invited"]),
    ],
)
def test_a_device_goes_from_state_to_state_and_never_back_from_revoked(
    path: Path, steps: list[State], refused: list[State]
) -> None:
    with Registry.open(path, write=True) as registry:
        registry.add_device("car_one", KEY, 1)
        for step in steps:
            assert registry.set_state("car_one", step, 2).state == step
        for state in refused:
            with pytest.raises(ConfigError, match="it cannot be"):
                registry.set_state("car_one", state, 3)
        assert registry.set_state("car_one", steps[-1], 3).state == steps[-1]


def test_every_change_is_in_the_audit_log_and_what_changes_nothing_is_not(path: Path) -> None:
    with Registry.open(path, write=True, by="tester") as registry:
        registry.add_device("car_one", KEY, 1, account="acme")
        for _ in range(2):
            registry.set_device("car_one", 2, driver="dora")
            registry.rekey_device("car_one", "cd" * 32, 3)
        for _ in range(2):
            registry.set_state("car_one", "suspended", 4)
        registry.set_state("car_one", "active", 5)
        registry.add_principal("vera", KEY, "viewer", 6, devices=("car_one",), expires_ms=99)
        for _ in range(2):
            registry.set_operator("vera", 7, role="technician", account="acme", devices=())
            registry.set_operator("vera", 8, pubkey="ef" * 32)
            registry.set_operator("vera", 9, state="revoked")
        with pytest.raises(ConfigError, match="vera is revoked"):
            registry.set_operator("vera", 10, role="admin")
        found = [(one.at_ms, one.action, one.by, one.subject) for one in registry.audit.entries()][1:]
        details = {one.action: one.detail for one in registry.audit.entries()}
    assert found == [
        (1, "device.added", "tester", "car_one"),
        (2, "device.changed", "tester", "car_one"),
        (3, "device.rekeyed", "tester", "car_one"),
        (4, "device.suspended", "tester", "car_one"),
        (5, "device.resumed", "tester", "car_one"),
        (6, "operator.added", "tester", "vera"),
        (7, "operator.changed", "tester", "vera"),
        (8, "operator.rekeyed", "tester", "vera"),
        (9, "operator.revoked", "tester", "vera"),
    ]
    assert details["device.changed"] == {"driver": ["", "dora"]}
    assert details["operator.added"] == {"pubkey": KEY, "role": "viewer", "devices": ["car_one"], "expires_ms": 99}
    assert details["operator.changed"] == {
        "role": ["viewer", "technician"], "account": ["", "acme"], "devices": [["car_one"], []],
    }  # fmt: skip


def test_packets_of_the_key_before_are_known_for_45_days_and_by_that_device_only(path: Path) -> None:
    new, kid = "cd" * 32, bundle.key_id(bytes.fromhex(KEY))
    with Registry.open(path, write=True) as registry:
        registry.add_device("car_one", KEY, 1)
        registry.add_device("car_two", "ee" * 32, 1)
        assert registry.device_key("car_one", kid, 2) is None
        registry.rekey_device("car_one", new, 1000)
        end = 1000 + 45 * 86_400_000
        assert registry.device_key("car_one", kid, end - 1) == KEY
        assert registry.device_key("car_one", kid, end) is None
        assert registry.device_key("car_two", kid, 2000) is None
        assert registry.device_key("car_one", "00" * 8, 2000) is None
        with pytest.raises(ConfigError, match="had this key before"):
            registry.rekey_device("car_one", KEY, 3000)
        registry.set_state("car_one", "suspended", 4000)
        with pytest.raises(ConfigError, match="car_one is suspended"):
            registry.rekey_device("car_one", "ff" * 32, 5000)


def test_a_device_that_changes_its_key_on_and_on_is_slowed_down(path: Path) -> None:
    with Registry.open(path, write=True) as registry:
        registry.add_device("car_one", KEY, 1)
        registry.add_device("car_two", "ee" * 32, 1)
        for n in range(10, 20):
            registry.rekey_device("car_one", f"{n}" * 32, 990 + n)
        last = "20" * 32
        with pytest.raises(ConfigError, match="changed its key 10 times in a day: try again tomorrow"):
            registry.rekey_device("car_one", last, 1000 + 86_399_999)
        registry.rekey_device("car_two", "ab" * 31 + "00", 1000)
        registry.rekey_device("car_one", last, 1000 + 86_400_000)


def test_a_sender_is_known_by_the_key_that_its_packet_names_now_and_before_and_no_longer(path: Path) -> None:
    kids = [bundle.key_id(bytes.fromhex(key)) for key in (KEY, "cd" * 32, "ef" * 32)]
    now_ms = time.time_ns() // 1_000_000
    with Registry.open(path, write=True) as registry:
        registry.add_device("car_one", KEY, 1)
        registry.rekey_device("car_one", "cd" * 32, 2)  # in 1970: its time is over
        registry.rekey_device("car_one", "ef" * 32, now_ms)
        found = [registry.sender("car_one", kid) for kid in (*kids, "00" * 8)]
        assert [one.pubkey for one in found if one] == ["ef" * 32, "cd" * 32, "ef" * 32, "ef" * 32]
        assert registry.sender("car_two", kids[0]) is None
