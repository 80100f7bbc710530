"""What may not be seen: of keys and passwords in words about faults, of a process's memory by others."""

import subprocess
import sys
from pathlib import Path

import pytest

from components import keyfile
from components.cloud.config import read_server, server_toml
from components.cloud.stores import open_archive
from components.wire.errors import ConfigError
from tests.waiting import PATIENCE_S

SECRET = "deadbeef12345678"  # noqa: S105 - the test's own
KEYS = {
    "number": f"private_key = {int(SECRET, 16)}",
    "text": f'private_key = "{SECRET}"',
    "list": f'private_key = ["{SECRET}"]',
    "table": f'private_key = {{ hidden = "{SECRET}" }}',
    "unquoted": f"private_key = {SECRET}",
    "twice": f'private_key = "{SECRET}"\nprivate_key = "{SECRET}"',
    "misspelt": f'private_kye = "{SECRET}"',
}


@pytest.mark.parametrize("form", KEYS)
def test_no_word_about_a_key_file_shows_the_key(tmp_path: Path, form: str) -> None:
    path = tmp_path / "some.key"
    keyfile.write_secret(path, f'authid = "admin"\nrole = "admin"\n{KEYS[form]}\n'.encode())
    with pytest.raises(ConfigError) as refused:
        keyfile.read_key_file(path)
    assert "private_k" in str(refused.value) or "cannot be read" in str(refused.value)
    assert SECRET not in str(refused.value)
    assert str(int(SECRET, 16)) not in str(refused.value)


@pytest.mark.parametrize(
    ("archive", "feed"),
    [
        (f"mongodb://odograph:{SECRET}@db.example", "sqlite:feed.db"),
        ("sqlite:archive.db", f"kafka://odograph:{SECRET}@broker.example"),
    ],
)
def test_no_word_about_a_stores_address_shows_its_password(tmp_path: Path, archive: str, feed: str) -> None:
    path = tmp_path / "server.toml"
    keyfile.write_secret(path, server_toml(archive=archive, feed=feed).encode())
    with pytest.raises(ConfigError, match=r"uri: must be .*//…@") as refused:
        read_server(path)
    assert SECRET not in str(refused.value)


def test_a_password_that_the_driver_takes_for_something_else_is_not_shown_either(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a MongoDB URI") as refused:
        open_archive(f"mongodb://odograph:12/{SECRET}@h:1/d", tmp_path)
    assert SECRET not in str(refused.value)


def test_a_server_toml_with_a_password_is_refused_while_others_may_read_it_and_one_without_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "server.toml"
    path.write_text(server_toml())
    path.chmod(0o644)
    assert read_server(path).archive.uri.startswith("sqlite:")
    path.write_text(server_toml(archive=f"mongodb://odograph:{SECRET}@db.example/cars"))
    with pytest.raises(ConfigError, match=f"run: chmod 600 {path}"):
        read_server(path)
    path.chmod(0o600)
    assert SECRET in read_server(path).archive.uri


def test_a_process_that_keeps_its_memory_private_leaves_no_core_and_is_not_dumpable() -> None:
    program = """
import ctypes, resource
from components.console.secrecy import keep_memory_private
get = lambda: (resource.getrlimit(resource.RLIMIT_CORE)[1], ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
before = get()
keep_memory_private()
print(before[1], *get())
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert ended.stdout.split() == ["1", "0", "0"]
