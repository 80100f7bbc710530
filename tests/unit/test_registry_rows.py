"""A registry that somebody else wrote to: what is wrong is named with its remedy, and concerns nobody else."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from components.cloud.sqlite_registry import Registry
from components.wire.bundle import key_id
from components.wire.errors import ConfigError, UnavailableError

KEY = "ab" * 32
MEND = "write anew what is noted of it by `odograph device set`, or revoke it, or restore it from a copy"
REVOKE = "`odograph operator revoke`, or restore it from a copy"
UNREADABLE = "no UTF-8 text of at most 1 MiB"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Registry.create(tmp_path / "registry.db").close()
    return tmp_path / "registry.db"


STRANGE: dict[str, Callable[[Path], object]] = {
    "a directory": lambda path: path.rename(path.with_name("other.db")).with_name(path.name).mkdir(),
    "half of it": lambda path: path.write_bytes(path.read_bytes()[:20_000]),
    "no table": lambda path: done(path, "DROP TABLE invitation"),
    "a schema with a flipped bit": lambda path: path.write_bytes(
        path.read_bytes().replace(b"expires_ms INTEGER,", b"expires_ms \xb6NTEGER,")
    ),
    "tables of somebody else": lambda path: done(path, "DROP TABLE device", "CREATE TABLE device (id)"),
    "an unknown state": lambda path: done(
        path, "PRAGMA ignore_check_constraints = 1", "UPDATE device SET state = 'king'"
    ),
    "a time of no calendar": lambda path: done(path, "UPDATE device SET changed_ms = 9223372036854775807"),
    "an id that is none": lambda path: done(path, "UPDATE device SET id = '../../x'"),
    "a row without end": lambda path: done(path, "UPDATE device SET notes = printf('%.*c', 2000000, 'x')"),
    "a loose row": lambda path: done(
        path,
        "CREATE TABLE loose AS SELECT * FROM device",
        "DROP TABLE device",
        "ALTER TABLE loose RENAME TO device",
        "UPDATE device SET account = NULL",
    ),
}  # fmt: skip


def done(path: Path, *statements: str) -> None:
    """Do to a registry what odograph never would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


FOREIGN = {
    "a trigger": ("CREATE TRIGGER undone AFTER INSERT ON audit BEGIN UPDATE device SET state = 'active'; END", "audit"),
    "a view": ("DROP TABLE invitation; CREATE VIEW invitation AS SELECT * FROM device", "invitation"),
    "no key": ("DROP TABLE device; CREATE TABLE device AS SELECT * FROM principal", "device"),
    "another column": ("ALTER TABLE principal ADD COLUMN king TEXT", "principal"),
    "a column less": ("ALTER TABLE principal DROP COLUMN expires_ms", "principal"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_registry_that_somebody_altered_is_refused_with_the_tables_name_and_the_remedy(path: Path, what: str) -> None:
    """Without a primary key a change would be a second row; by a trigger it could be undone."""
    statements, table = FOREIGN[what]
    done(path, *statements.split("; ") if what != "a trigger" else (statements,))
    for write in (False, True):
        with pytest.raises(ConfigError, match=f"not as odograph makes it: {table}: restore it from a copy"):
            Registry.open(path, write=write)


def list_devices(path: Path) -> None:
    """List as `odograph device list` does; ConfigError for what is passed over."""
    with Registry.open(path) as registry:
        assert registry.devices() == []
        raise ConfigError(*registry.unsound_devices())


@pytest.mark.parametrize("what", STRANGE)
def test_a_registry_that_odograph_would_not_write_is_one_error_of_its_own_kind(path: Path, what: str) -> None:
    with Registry.open(path, write=True) as registry:
        registry.add_device("car_one", KEY, 1)
    STRANGE[what](path)
    with pytest.raises((ConfigError, UnavailableError), match=str(path)):
        list_devices(path)
    with pytest.raises((ConfigError, UnavailableError)), Registry.open(path, write=True) as registry:
        registry.set_state("car_one", "suspended", 5)


def test_a_row_that_is_unsound_shuts_out_its_owner_and_nobody_else(path: Path) -> None:
    with Registry.open(path, write=True) as registry:
        registry.add_device("car_one", KEY, 1)
        registry.add_device("car_two", KEY, 1)
        done(path, "UPDATE device SET account = char(10) WHERE id = 'car_one'")
        with pytest.raises(ConfigError, match=r"the row of 'car_one' is not as odograph writes it \(account\)"):
            registry.standing("car_one", 5)
        assert registry.standing("car_two", 5)


def test_a_row_that_is_unsound_hides_no_other_and_can_be_mended(path: Path) -> None:
    with Registry.open(path, write=True) as registry:
        for name in ("car_one", "car_two"):
            registry.add_device(name, KEY, 1, account="acme")
        registry.add_principal("vera", KEY, "viewer", 1, account="acme")
        done(path, "UPDATE device SET notes = char(10), driver = char(10) WHERE id = 'car_one'")
        assert [one.id for one in registry.devices()] == ["car_two"]
        assert [one.rpartition("the row of ")[2] for one in registry.unsound_devices()] == [
            f"'car_one' is not as odograph writes it (driver, notes): {MEND}"
        ]
        standing = registry.standing("vera", 5)
        assert standing is not None
        assert "car_two" in (standing.reach or ())
        with pytest.raises(ConfigError, match=r"cannot be written \(notes\)"):
            registry.set_device("car_one", 5, notes="\t")
        with pytest.raises(ConfigError, match="driver, notes"):
            registry.set_state("car_one", "suspended", 5)
        registry.set_device("car_one", 6, notes="mended")
        registry.set_device("car_one", 7, driver="")
        assert (len(registry.devices()), registry.unsound_devices()) == (2, [])


@pytest.mark.parametrize("text", ["CAST(x'6aff' AS TEXT)", "printf('%.*c', 2000000, 'x')"])
def test_a_row_that_cannot_be_read_hides_no_other_is_named_and_can_be_mended(path: Path, text: str) -> None:
    with Registry.open(path, write=True) as registry:
        for name in ("car_one", "car_two"):
            registry.add_device(name, KEY, 1, account="acme")
        for name in ("vera", "victor"):
            registry.add_principal(name, KEY, "viewer", 1, account="acme")
        done(path, f"UPDATE device SET account = {text} WHERE id = 'car_one'")  # noqa: S608 - ours
        done(path, f"UPDATE principal SET devices = {text} WHERE id = 'vera'")  # noqa: S608 - ours
        assert [one.id for one in registry.devices()] == ["car_two"]
        assert [one.id for one in registry.principals()] == ["victor"]
        assert [one.rpartition("the row of ")[2] for one in registry.unsound_principals()] == [
            f"'vera' is not as odograph writes it (devices is {UNREADABLE}): {REVOKE}"
        ]
        assert len(registry.unsound_devices()) == 1
        for name in ("car_one", "vera"):
            with pytest.raises(ConfigError, match=f"the row of '{name}' is not as odograph writes it"):
                registry.standing(name, 5)
        standing = registry.standing("victor", 5)
        assert standing is not None
        assert standing.reach == frozenset({"car_two"})
        with pytest.raises(ConfigError, match="the row of 'vera'"):
            registry.set_operator("vera", 5, role="admin")
        registry.set_operator("vera", 5, state="revoked")
        registry.set_device("car_one", 6, account="acme")
        assert (len(registry.devices()), registry.unsound_devices()) == (2, [])
        assert [one.state for one in registry.principals()] == ["revoked", "active"]
        assert registry.audit.verify().seq == 7


@pytest.mark.parametrize("text", ["CAST(x'6aff' AS TEXT)", "printf('%.*c', 2000000, 'x')", "'zz'"])
def test_a_key_of_before_that_is_none_shuts_out_what_was_signed_with_it_alone(path: Path, text: str) -> None:
    kid = key_id(bytes.fromhex(KEY))
    with Registry.open(path, write=True) as registry:
        registry.add_device("car_one", KEY, 1)
        registry.rekey_device("car_one", "cd" * 32, 2**41)
        done(path, f"UPDATE old_key SET pubkey = {text}")  # noqa: S608 - ours
        with pytest.raises(ConfigError):
            registry.sender("car_one", kid)
        assert registry.sender("car_one", "00" * 8)


def test_a_text_that_odograph_would_not_write_is_cut_in_the_log_so_that_its_row_can_be_mended(path: Path) -> None:
    with Registry.open(path, write=True) as registry:
        registry.add_device("car_one", KEY, 1)
        done(path, "UPDATE device SET notes = printf('%.*c', 1048000, 'x')")
        registry.set_device("car_one", 2, notes="mended")
        assert registry.audit.entries()[-1].detail == {"notes": ["x" * 4096, "mended"]}


WRITER = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN IMMEDIATE")
for n in range(500):
    db.execute("INSERT INTO old_key VALUES ('car_one', ?, ?, 5)", (str(n), "x" * 500))
os.kill(os.getpid(), 9)
"""


def test_what_a_writer_left_half_written_when_it_was_killed_is_put_back_by_the_next_reader(path: Path) -> None:
    with Registry.open(path, write=True) as registry:
        registry.add_device("car_one", KEY, 1)
    subprocess.run([sys.executable, "-c", WRITER, str(path)], check=False)
    assert path.with_name("registry.db-journal").exists()
    with Registry.open(path) as reader:
        assert [one.id for one in reader.devices()] == ["car_one"]


@pytest.mark.parametrize(
    "change", ["notes = char(10)", "state = 'king'", "added_ms = -1", "pubkey = 'zz'", "pubkey = printf('%064d', 0)"]
)
def test_whoever_has_an_unsound_row_can_be_revoked(path: Path, change: str) -> None:
    with Registry.open(path, write=True) as registry:
        registry.add_device("car_one", KEY, 1)
        done(path, "PRAGMA ignore_check_constraints = 1", f"UPDATE device SET {change}")  # noqa: S608 - ours
        assert registry.set_state("car_one", "revoked", 5).state == "revoked"


@pytest.mark.parametrize(
    "notes",
    [{"account": "x" * 4097}, {"vehicle": "\0"}, {"driver": "\x1b[31m"}, {"notes": "a\nb"}, {"account": "\ud800"}],
)
def test_what_could_not_be_read_again_is_not_written(path: Path, notes: dict[str, str]) -> None:
    with Registry.open(path, write=True) as registry:
        (name,) = notes
        with pytest.raises(ConfigError, match=rf"the row of 'car_one' cannot be written \({name}\)"):
            registry.add_device("car_one", KEY, 1, **notes)
        assert registry.devices() == []
        registry.add_device("car_one", KEY, 1, notes="é" * 4096)
        with pytest.raises(ConfigError, match="cannot be written"):
            registry.set_device("car_one", 2, **notes)
        with pytest.raises(ConfigError, match="expires_ms"):
            registry.add_principal("vera", KEY, "viewer", 1, expires_ms=2**62)
