"""Evil files: whatever stands in edge.toml, server.toml, a key file or a bundle, one ConfigError in a few lines."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components import settings as settings_file
from components.cloud import config as cloud_config
from components.cloud import keys
from components.edge import config as edge_config
from components.edge import sqlite_spool
from components.edge.agent import edge_component
from components.keyfile import make_key, read_key_file, write_key_file, write_secret
from components.wamp_transport import transport
from components.wire.errors import ConfigError, OperatorError

EDGE = {
    "device.id": '"car_one"',
    "device.key": '"device.key"',
    "router.url": '"ws://127.0.0.1:8080/ws"',
    "server.bundle": '"server.pub.json"',
    "spool.dir": '"spool"',
}
SERVER = '[registry]\npath = "registry.db"\n[keys]\ndir = "keys"\n'


def refusal(path: Path, read: Callable[[Path], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path)
    message = str(caught.value)
    message.encode()
    assert len(message) < 10_000
    return message


def edge_toml(**changes: str) -> str:
    """Return edge.toml with other values, as TOML writes them, by key with `__` for the point."""
    lines = EDGE | {key.replace("__", "."): value for key, value in changes.items()}
    return "\n".join(f"{key} = {value}" for key, value in lines.items())


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("device.id", "0x" + "f" * 10_000, "must be text, got something too large to show"),
        ("device.id", "'Car'", "must be 3 to 32"),
        ("device.id", "'" + "a" * 10_000 + "'", "must be 3 to 32"),
        ("sampling.rate_hz", "0x" + "f" * 500, "must be a number"),
        ("sampling.rate_hz", "nan", "must be a number"),
        ("sampling.rate_hz", "1e400", "must be a number"),
        ("spool.max_mb", "0x" + "f" * 5_000, "must be a whole number"),
        ("spool.max_mb", "9223372036854775807", "must be a whole number"),
        ("obd.baud", "true", "must be a whole number"),
        ("obd.port", "'socket://elm:99999'", "must be auto"),
        ("obd.port", "'socket://elm'", "must be auto"),
        ("obd.port", '"/dev/tty\\u0000"', "must be auto"),
        ("obd.port", '"/dev/tty\\nUSB0"', "must be auto"),
        ("obd.port", "'ttyUSB0'", "must be auto"),
        ("modem.port", "'http://modem'", "must be auto"),
        ("vehicle.gear_ratios", "3.1", "must be a list of numbers"),
        ("vehicle.gear_ratios", "[1e-300]", "must be up to 24"),
        ("vehicle.gear_ratios", f"[{'1.0,' * 25}]", "must be up to 24"),
        ("vehicle.final_drive", "1e-300", "must be 0.05..20"),
        ("vehicle.tyre", "'205/55 R00'", "must be like"),
        ("vehicle.tyre", "'000/00 R16'", "must be like"),
        ("spool.dir", '"a\\u001b[2J"', "must be a path"),
        ("spool.dir", "'" + "a/" * 3_000 + "'", "must be a path"),
        ("vehicle.gear_ratios", "[inf]", "must be a list of numbers"),
        ("vehicle.gear_ratios", "[[3.1]]", "must be a list of numbers"),
        ("vehicle.tyre", "'٢٠٥/55 R16'", "must be like"),
        ("power.low_v", "-inf", "must be a number"),
        ("packet.period_s", "2026-11-21", "must be a whole number"),
        ("gps.gpsd", "'gps:65536'", "must be HOST:PORT"),
        ("gps.gpsd", "'gps:٢٩٤٧'", "must be HOST:PORT"),
        ("gps.gpsd", "':2947'", "must be HOST:PORT"),
        ("router.realm", "''", "must be a realm's name"),
        ("server.suite", "'none'", 'must be "auto" or'),
    ],
)
def test_an_evil_value_is_one_fault_by_its_key(tmp_path: Path, key: str, value: str, fault: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(edge_toml(**{key: value}))
    message = refusal(path, edge_config.load)
    assert f"has 1 fault; {key}: {fault}" in message


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x = " + "[" * 5_000, "too deep"),
        ("x = " + "{a=" * 5_000, "too deep"),
        ("x = " + "[" * 200 + "]" * 200, "x: unknown key"),
        (".".join("a" * 3_000) + " = 1", "a: unknown key"),
        ("device = " + "{a=" * 150 + "1" + "}" * 150, "cannot be read"),
        ("x = " + "1" * 10_000, "digits"),
        ("[[spool]]", "cannot be read"),
        ('"\\u001b[31mred" = 1', r"'\x1b[31mred': unknown key"),
        ("'" + "k" * 8_000 + "' = 1", "…: unknown key"),
        ("a = 1\na = 2", "cannot be read"),
        ("a = '\0'", "cannot be read"),
        ("\n".join(f"k{n} = 1" for n in range(1_000)), "has 1000 faults"),
    ],
    ids=range(12),
)
def test_an_evil_text_is_one_short_message(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(f"{edge_toml()}\n{text}\n")
    assert fault in refusal(path, edge_config.load)


@pytest.mark.parametrize(
    "url",
    ["", "ws://", "ws:///ws", "ws://:8080", "http://a", "ws://a:0", "ws://a:99999", "ws://a b", "ws://u:p@a", "ws://[::1",
     "ws://a/\\u0000", "ws://ä", "wss://a:x",
     "ws://.", "ws://-", "ws://a..b", "ws://%00", "ws://a\\\\b", "ws://" + "a" * 64, "WS://" + "a" * 3_000],
)  # fmt: skip
def test_what_is_no_url_of_a_router_is_refused_at_both_ends(tmp_path: Path, url: str) -> None:
    path = tmp_path / "some.toml"
    path.write_text(edge_toml(router__url=f'"{url}"'))
    assert "router.url: must be like" in refusal(path, edge_config.load)
    path.write_text(f'[router]\nurl = "{url}"\n{SERVER}')
    assert "router.url: must be like" in refusal(path, cloud_config.read_server)


@pytest.mark.parametrize("name", ["device.key", "spool.dir", "server.bundle"])
@pytest.mark.parametrize("path_text", ["a\\u0000b", "", "~nobody_is_called_so/x"])
def test_a_path_that_no_file_can_have_is_a_fault(tmp_path: Path, name: str, path_text: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(edge_toml(**{name: f'"{path_text}"'}))
    assert f"{name}: must be a path" in refusal(path, edge_config.load)


@pytest.mark.parametrize("uri", ["sqlite:", "sqlite:a\\u0000", "mongodb://", "kafka://a", "file:x", "kafka://a:٩"])
def test_a_store_that_cannot_be_is_a_fault_of_server_toml(tmp_path: Path, uri: str) -> None:
    path = tmp_path / "server.toml"
    path.write_text(f'[archive]\nuri = "{uri}"\n[feed]\nuri = "{uri}"\n{SERVER}')
    message = refusal(path, cloud_config.read_server)
    assert "archive.uri: must be sqlite:PATH" in message
    assert "feed.uri: must be sqlite:PATH" in message


def evil_files(directory: Path) -> dict[str, Path]:
    found = {name: directory / name for name in ("pipe", "directory", "large", "latin", "zero", "loop", "none", "mark")}
    os.mkfifo(found["pipe"])
    found["directory"].mkdir()
    found["large"].write_bytes(b"#" * (1024 * 1024))
    found["latin"].write_bytes(b'id = "\xe9"')
    found["zero"].symlink_to("/dev/zero")
    found["loop"].symlink_to(found["loop"])
    found["mark"].write_bytes(b"\xef\xbb\xbf[device]")
    return found


@pytest.mark.parametrize("kind", ["pipe", "directory", "large", "latin", "zero", "loop", "none", "mark"])
def test_what_is_no_small_text_file_is_refused_without_waiting_or_filling_the_memory(tmp_path: Path, kind: str) -> None:
    path = evil_files(tmp_path)[kind]
    for read in (edge_config.load, cloud_config.read_server):
        assert str(path) in refusal(path, read)


@pytest.mark.parametrize("kind", ["pipe", "directory", "large", "zero"])
def test_a_ca_that_is_none_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = evil_files(tmp_path)[kind]
    refusal(path, lambda ca: transport("wss://127.0.0.1/ws", ca))


@pytest.mark.parametrize("role", ["admin", "persister"])
def test_a_key_of_another_role_is_not_the_devices(tmp_path: Path, role: str) -> None:
    write_key_file(tmp_path / "device.key", make_key("car_one", role))
    (tmp_path / "edge.toml").write_text(edge_toml())
    message = refusal(tmp_path / "edge.toml", lambda path: edge_component(edge_config.load(path)))
    assert f"is the key of car_one, {role}" in message


def test_a_lock_that_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "spool.lock")
    with pytest.raises(OperatorError, match=r"spool\.lock is no file: remove it"):
        sqlite_spool.lock(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "directory", "large", "latin"])
def test_a_key_file_that_is_none_is_refused_too(tmp_path: Path, kind: str) -> None:
    path = evil_files(tmp_path)[kind]
    path.chmod(0o600)
    refusal(path, read_key_file)


@pytest.mark.parametrize("value", ["[SECRET]", "{x = SECRET}", "[[[SECRET]]]"])
def test_a_key_of_the_wrong_type_is_not_shown(tmp_path: Path, value: str) -> None:
    secret = "5ec7e7" * 10
    text = f'authid = "car_one"\nrole = "device"\nprivate_key = {value.replace("SECRET", repr(secret))}\n'
    write_secret(tmp_path / "a.key", text.encode())
    assert "5ec7" not in refusal(tmp_path / "a.key", read_key_file)


@pytest.mark.parametrize(
    ("current", "fault"),
    [
        ('kid = "../../etc/passwd"\nreceipt_kid = "0000000000000000"', "kid: must be 16 hex"),
        ('kid = "a\\u0000"\nreceipt_kid = "0000000000000000"', "kid: must be 16 hex"),
        ("kid = 1\nreceipt_kid = 1", "kid: must be text"),
        ("", "kid: missing"),
        ('kid = "0000000000000000"\nreceipt_kid = "0000000000000000"\nmore = 1', "more: unknown key"),
    ],
)
def test_a_servers_note_of_its_newest_keys_names_no_other_file(tmp_path: Path, current: str, fault: str) -> None:
    (tmp_path / "current.toml").write_text(current)
    assert fault in refusal(tmp_path, keys.load_server_keys)


@pytest.mark.parametrize("suffix", [".rsa.pem", ".x25519", ".ed25519"])
@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"A" * 100_000, b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_a_servers_private_key_that_is_none_is_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / "current.toml").write_text(f'kid = "{"0" * 16}"\nreceipt_kid = "{"0" * 16}"')
    path = tmp_path / f"{'0' * 16}{suffix}"
    write_secret(path, content)
    assert str(path) in refusal(tmp_path, keys.load_server_keys)


toml_values = st.sampled_from((
    "1", "-1", "0.5", "nan", "inf", '""', '"x"', "[]", "[[]]", "{}", "true", "2026-11-21T10:05:00Z", "1e999",
    "0xffffffffffffffffff", "[1, 'a']", '"\\u0000"', "'ws://a'", "07:32:00", '"\\U0010ffff"', "9" * 30,
))  # fmt: skip
KEYS = (
    *EDGE, "obd.port", "obd.baud", "gps.gpsd", "modem.port", "sampling.rate_hz", "vehicle.gear_ratios", "vehicle.tyre",
    "packet.period_s", "packet.content", "spool.max_mb", "power.command", "power.low_v", "server.suite", "x.y", "gps",
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), toml_values, max_size=4), st.text(max_size=3), st.integers(0, 400))
def test_any_mixture_of_keys_and_values_is_a_configuration_or_one_error(
    tmp_path: Path, changes: dict[str, str], noise: str, at: int
) -> None:
    text = edge_toml(**changes)
    path = tmp_path / "edge.toml"
    path.write_bytes((text[:at] + noise + text[at:]).encode("utf-8", "surrogatepass"))
    with suppress(ConfigError):
        assert len(edge_config.load(path).hash) == 16


def test_the_largest_file_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(edge_toml().ljust(settings_file.MAX_BYTES, "\n"))
    assert edge_config.load(path).device.id == "car_one"
    path.write_text(edge_toml().ljust(settings_file.MAX_BYTES + 1, "\n"))
    assert "more than" in refusal(path, edge_config.load)
