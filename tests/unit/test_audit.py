"""The audit log: what it takes, what it refuses, and which tampering shows."""

import json
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Never

import pytest

from components.cloud import sqlite_audit
from components.cloud.sqlite_audit import AuditLog, BrokenChainError, Head
from components.cloud.sqlite_registry import Registry
from components.console.__main__ import run
from components.wire import bundle
from components.wire.errors import ConfigError, OperatorError, UnavailableError
from tests.quick_keys import share_rsa_keys

KEY = "ab" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "log.db"
    with AuditLog.open(path, write=True) as log:
        for n in range(5):
            log.append(n, "test.done", "tester", f"car_{n}", {"n": n, "text": "ä"})
    return path


def tampered(path: Path, *statements: str) -> None:
    """Do what somebody who may write the file can do."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TRIGGER audit_is_not_changed")
        db.execute("DROP TRIGGER audit_is_not_cut")
        for statement in statements:
            db.execute(statement)


def verified(path: Path, expected: Head | None = None) -> Head:
    with AuditLog.open(path) as log:
        return log.verify(expected)


def test_a_log_comes_back_as_it_was_written_and_its_chain_holds(path: Path) -> None:
    with AuditLog.open(path) as log:
        assert [(one.seq, one.at_ms, one.subject, one.detail) for one in log.entries()] == [
            (n + 1, n, f"car_{n}", {"n": n, "text": "ä"}) for n in range(5)
        ]
        assert log.verify() == log.head()
        assert log.head().seq == 5


def test_an_open_log_cannot_be_changed_or_cut(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        for statement in ("UPDATE audit SET by = 'nobody'", "DELETE FROM audit WHERE seq = 5"):
            with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                db.execute(statement)


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        ("UPDATE audit SET by = 'nobody' WHERE seq = 3", 3),
        ("UPDATE audit SET at_ms = 9 WHERE seq = 1", 1),
        ("UPDATE audit SET action = 'x' WHERE seq = 2", 2),
        ("UPDATE audit SET subject = 'x' WHERE seq = 5", 5),
        ("UPDATE audit SET detail = '{}' WHERE seq = 4", 4),
        ("UPDATE audit SET hash = '00' WHERE seq = 2", 2),
        ("DELETE FROM audit WHERE seq = 1", 1),
        ("DELETE FROM audit WHERE seq = 3", 3),
        ("DELETE FROM audit WHERE seq > 3", 4),
        ("DELETE FROM audit", 1),
        ("INSERT INTO audit SELECT 6, at_ms, action, by, subject, detail, hash FROM audit WHERE seq = 5", 6),
    ],
)
def test_whatever_was_done_to_it_shows_at_the_very_entry(path: Path, statement: str, seq: int) -> None:
    tampered(path, statement)
    with pytest.raises(BrokenChainError) as caught:
        verified(path)
    assert caught.value.seq == seq


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET detail = '[1]' WHERE seq = 3",
        "UPDATE audit SET detail = replace(hex(zeroblob(50000)), '0', '[') WHERE seq = 3",
        "UPDATE audit SET at_ms = 9223372036854775807 WHERE seq = 3",
        "UPDATE audit SET at_ms = -1 WHERE seq = 3",
        "UPDATE audit SET subject = printf('%.*c', 2000000, 'x') WHERE seq = 3",
        "UPDATE audit SET subject = CAST(x'ff' AS TEXT) WHERE seq = 3",
    ],
)
def test_an_entry_that_is_none_is_named_and_not_shown(path: Path, statement: str) -> None:
    tampered(path, statement)
    with pytest.raises(BrokenChainError, match="entry 3: "), AuditLog.open(path) as log:
        log.entries()
    with pytest.raises(BrokenChainError, match="entry 3: "):
        verified(path)


def test_rows_of_another_kind_are_no_entries(path: Path) -> None:
    tampered(path, "ALTER TABLE audit RENAME TO old", "CREATE TABLE audit AS SELECT * FROM old",
             "UPDATE audit SET subject = x'00' WHERE seq = 2")  # fmt: skip
    for look in (AuditLog.verify, AuditLog.entries):
        with pytest.raises(BrokenChainError, match="entry 2: is not as odograph writes it"), AuditLog.open(path) as log:
            look(log)


def test_a_log_in_which_no_number_is_left_takes_no_more(path: Path) -> None:
    tampered(path, "INSERT INTO audit VALUES (9223372036854775807, 1, 'a', 'b', 'c', '{}', 'x')")
    with pytest.raises(BrokenChainError, match="somebody else wrote"), AuditLog.open(path, write=True) as log:
        log.append(9, "test.done", "tester", "car_9", {})


@pytest.mark.parametrize("counted", ["'x'", "x'ff'", "9223372036854775807", "1e300"])
def test_a_log_whose_count_somebody_changed_takes_no_more_and_does_not_verify(path: Path, counted: str) -> None:
    tampered(path, f"UPDATE sqlite_sequence SET seq = {counted}")  # noqa: S608 - ours
    with AuditLog.open(path, write=True) as log:
        with pytest.raises(BrokenChainError, match="entry 6: is missing"):
            log.verify()
        with pytest.raises(BrokenChainError, match="somebody else wrote"):
            log.append(9, "test.done", "tester", "car_9", {})


def test_a_log_with_a_number_that_no_entry_has_is_shown_up_to_it(path: Path) -> None:
    tampered(path, "INSERT INTO audit VALUES (9223372036854775807, 1, 'a', 'b', 'c', '{}', 'x')")
    with AuditLog.open(path) as log:
        for look in (log.verify, log.entries, lambda: log.since(0)):
            with pytest.raises(BrokenChainError, match="entry 6: "):
                look()


def test_a_removed_log_that_cannot_be_begun_anew_at_once_is_begun_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> Never:
        raise sqlite3.OperationalError("database or disk is full")

    with AuditLog.open(path, write=True) as log:
        path.unlink()
        with monkeypatch.context() as patch:
            patch.setattr(sqlite_audit, "_prepare", full)
            for _ in range(2):
                with pytest.raises(OperatorError, match="disk is full"):
                    log.append(9, "test.done", "tester", "car_9", {})
        log.append(9, "test.done", "tester", "car_9", {})
    assert verified(path).seq == 1


def test_a_log_that_is_removed_while_it_is_open_is_begun_anew_and_misses_its_old_head(path: Path) -> None:
    with AuditLog.open(path, write=True) as log:
        noted = log.head()
        path.unlink()
        log.append(9, "test.done", "tester", "car_9", {})
    with pytest.raises(BrokenChainError, match="entry 2: is missing"):
        verified(path, noted)
    assert verified(path).seq == 1


def test_a_log_that_is_emptied_or_overwritten_while_it_is_open_takes_nothing_and_says_so(path: Path) -> None:
    for content in (b"", b"garbage" * 500):
        path.unlink()
        with AuditLog.open(path, write=True) as log:
            path.write_bytes(content)
            with pytest.raises(UnavailableError, match=str(path)):
                log.append(9, "test.done", "tester", "car_9", {})


def test_a_cut_still_shows_when_the_log_has_grown_again(path: Path) -> None:
    tampered(path, "DELETE FROM audit WHERE seq > 3")
    with AuditLog.open(path, write=True) as log:
        log.append(9, "test.done", "tester", "car_9", {})
    with pytest.raises(BrokenChainError, match="entry 4: is missing"):
        verified(path)


def test_an_entry_that_was_given_its_own_new_hash_shows_at_the_next(path: Path) -> None:
    with AuditLog.open(path) as log:
        first, second, *_ = log.entries()
    detail = sqlite_audit._json(second.detail)
    new = sqlite_audit._hash(first.hash, 2, second.at_ms, second.action, "nobody", second.subject, detail)
    tampered(path, f"UPDATE audit SET by = 'nobody', hash = '{new}' WHERE seq = 2")  # noqa: S608 - hex digits
    with pytest.raises(BrokenChainError, match="entry 3: was changed, or one before it was"):
        verified(path)


def test_a_log_made_anew_shows_against_a_head_that_was_noted(path: Path, tmp_path: Path) -> None:
    noted = verified(path)
    assert verified(path, noted) == noted
    forged = tmp_path / "forged.db"
    with AuditLog.open(forged, write=True) as log:
        for n in range(4):
            log.append(n, "test.done", "tester", f"car_{n}", {"n": n})
    assert verified(forged).seq == 4
    with pytest.raises(BrokenChainError, match="entry 5: is missing: the log's end was cut"):
        verified(forged, noted)
    with AuditLog.open(forged, write=True) as log:
        log.append(4, "test.done", "tester", "car_4", {"n": 4})
        log.append(5, "test.done", "tester", "car_5", {"n": 5})
    with pytest.raises(BrokenChainError, match="entry 5: is another one than was noted"):
        verified(forged, noted)


def test_what_is_not_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        AuditLog.open(tmp_path / "none.db")
    Registry.create(tmp_path / "registry.db").close()
    with pytest.raises(ConfigError, match="is not an audit log"):
        AuditLog.open(tmp_path / "registry.db", write=True)


def test_a_reader_cannot_write(path: Path) -> None:
    with AuditLog.open(path) as log, pytest.raises(UnavailableError, match="readonly"):
        log.append(9, "test.done", "tester", "car_9", {})


WRITER = """
import sys
from pathlib import Path
from components.cloud.sqlite_audit import AuditLog
log = AuditLog.open(Path(sys.argv[1]), write=True)
while True:
    log.append(1, "test.done", "writer", "car", {})
    print(log.head().seq, flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_whole_chain_with_all_that_was_acknowledged(path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        seen = max(int(process.stdout.readline()) for _ in range(10))
        process.kill()
    assert verified(path).seq >= seen
    with AuditLog.open(path, write=True) as log:
        log.append(9, "test.done", "tester", "car_9", {})
        assert log.verify().seq > seen


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    share_rsa_keys(monkeypatch)
    home = tmp_path / "var"
    assert run(["init", "--home", str(home)]) == 0
    assert run(["device", "add", "car_one", "--pubkey", KEY, "--home", str(home)]) == 0
    with AuditLog.open(home / "router" / "audit.db", write=True) as log:
        log.append(5, "join.refused", "stranger", "stranger", {"reason": "unknown"})
    capsys.readouterr()
    return home


def test_both_logs_are_shown_in_the_order_of_time(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["device", "revoke", "car_one", "--home", str(home)]) == 0
    capsys.readouterr()
    assert run(["audit", "show", "--json", "--home", str(home)]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["log"], one["action"], one["subject"]) for one in shown] == [
        ("router", "join.refused", "stranger"),
        ("registry", "registry.made", "registry"),
        ("registry", "operator.added", "admin"),
        ("registry", "persister.added", "persister"),
        ("registry", "device.added", "car_one"),
        ("registry", "device.revoked", "car_one"),
    ]
    assert shown[-1]["by"].startswith("cli:")
    assert shown[-1]["detail"] == {"state": ["active", "revoked"]}
    assert run(["audit", "show", "--home", str(home)]) == 0
    assert "join.refused" in capsys.readouterr().out


def test_a_rotation_of_the_servers_keys_is_on_record(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "rotate", "--home", str(home)]) == 0
    capsys.readouterr()
    assert run(["audit", "show", "--json", "--home", str(home)]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    newest = bundle.parse((home / "server.pub.json").read_text())
    assert (last["action"], last["subject"], last["detail"]["before"]) == ("keys.rotated", newest.kid, newest.before)


def test_verify_prints_heads_that_a_later_verify_takes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "verify", "--home", str(home)]) == 0
    heads = capsys.readouterr().out.split()
    assert [one.rpartition(":")[0] for one in heads] == ["registry:4", "router:1"]
    assert run(["device", "suspend", "car_one", "--home", str(home)]) == 0
    expect = [word for one in heads for word in ("--expect", one)]
    assert run(["audit", "verify", *expect, "--home", str(home)]) == 0
    capsys.readouterr()
    assert run(["audit", "verify", "--expect", "nonsense", "--home", str(home)]) == 2
    (home / "router" / "audit.db").unlink()
    assert run(["audit", "verify", *expect, "--home", str(home)]) == 1
    assert "router's audit log is broken at entry 1: the whole log is missing" in capsys.readouterr().err


def test_verify_names_the_entry_where_the_chain_breaks(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tampered(home / "registry.db", "UPDATE audit SET by = 'nobody' WHERE seq = 4")
    assert run(["audit", "verify", "--home", str(home)]) == 1
    said = "odograph: the registry's audit log is broken at entry 4: was changed, or one before it was\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "change",
    ["detail = '5'", "detail = '[1]'", f"detail = '{'[' * 50_000}'", "at_ms = 9223372036854775807", "at_ms = -1"],
)
def test_a_log_that_cannot_be_shown_says_at_which_entry(
    home: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    tampered(home / "registry.db", f"UPDATE audit SET {change} WHERE seq = 2")  # noqa: S608 - ours
    assert run(["audit", "show", "--home", str(home)]) == 1
    said = "odograph: entry 2: was changed: its detail is no JSON object, or its time none\n"
    assert capsys.readouterr().err == said


def test_a_log_whose_numbers_were_driven_to_their_end_takes_no_change(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tampered(home / "registry.db", "UPDATE audit SET seq = 9223372036854775807 WHERE seq = 4")
    assert run(["device", "revoke", "car_one", "--home", str(home)]) == 1
    assert capsys.readouterr().err.endswith("somebody else wrote to this log\n")


def test_a_long_log_is_read_whole_and_who_reads_it_does_not_hold_up_who_writes(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        for n in range(2500):
            sqlite_audit.append(db, n, "test.done", "tester", "car", {})
    with closing(sqlite3.connect(path)) as db, AuditLog.open(path, write=True) as log:
        reading = sqlite_audit.entries(db)
        assert [next(reading).seq for _ in range(10)] == list(range(1, 11))
        log.append(9, "test.done", "tester", "car", {})
        assert sum(1 for _ in reading) == 2496
        assert log.verify().seq == 2506
        assert [one.seq for one in log.since(2499)] == [2505]


def test_two_that_write_at_once_make_one_chain(path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(path)]
    with ExitStack() as stack:
        writers = [stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE)) for _ in range(2)]
        for process in writers:
            assert process.stdout is not None
            for _ in range(5):
                process.stdout.readline()
        for process in writers:
            process.kill()
    # For writing: who was killed half way left a journal, which a reader may not roll back.
    with AuditLog.open(path, write=True) as log:
        assert log.verify().seq >= 15


@pytest.mark.parametrize("table", ["audit", "device"])
def test_a_change_and_its_entry_are_there_together_or_not_at_all(home: Path, table: str) -> None:
    """Whichever of them cannot be written takes the other with it."""
    with Registry.open(home / "registry.db", write=True) as registry:
        with closing(sqlite3.connect(home / "registry.db")) as db:
            db.execute(f"CREATE TRIGGER full BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        before = registry.audit.head()
        with pytest.raises(UnavailableError, match="disk full"):
            registry.set_state("car_one", "revoked", 1)
        device = registry.device("car_one")
        assert registry.audit.head() == before
    assert device is not None
    assert device.state == "active"
