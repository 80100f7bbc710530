"""Settings: one TOML file, every fault at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from components import settings
from components.wire.errors import ConfigError


@dataclass(frozen=True)
class Uplink:
    window: int = settings.checked("be 1..16", lambda n: 1 <= n <= 16, 4)
    mode: Literal["full", "summary"] = "full"
    ratios: tuple[float, ...] = ()
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.words) > self.window:
            raise ValueError(f"words: must be at most window, got {len(self.words)}")


@dataclass(frozen=True)
class Device:
    id: str
    key: Path


@dataclass(frozen=True)
class Shape:
    device: Device
    uplink: Uplink = field(default_factory=Uplink)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "some.toml"
    path.write_text(text)
    return path


def test_defaults_fill_in_and_relative_paths_stand_beside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[device]\nid = "car"\nkey = "keys/car.key"\n[uplink]\nratios = [3, 2.5]\n')
    shape = settings.read(path, Shape)
    assert shape == Shape(Device("car", tmp_path / "keys/car.key"), Uplink(ratios=(3.0, 2.5)))


def test_every_fault_is_reported_at_once_with_its_path(tmp_path: Path) -> None:
    path = write(
        tmp_path, '[device]\nid = 7\n[uplink]\nwindow = 0\nmode = "half"\nwindw = 3\nratios = [true]\n[other]\nx = 1\n'
    )
    with pytest.raises(ConfigError) as caught:
        settings.read(path, Shape)
    assert sorted(caught.value.faults) == [
        "device.id: must be text, got 7",
        "device.key: missing; must be a path",
        "other: unknown key",
        'uplink.mode: must be "full" or "summary", got \'half\'',
        "uplink.ratios: must be a list of numbers, got [True]",
        "uplink.window: must be 1..16, got 0",
        "uplink.windw: unknown key, did you mean window?",
    ]
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["[device", "device = 3\n", "\xff\n"])
def test_what_is_no_toml_or_no_table_is_one_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "some.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError):
        settings.read(path, Shape)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml does not exist"):
        settings.read(tmp_path / "none.toml", Shape)


def test_a_list_of_texts_is_a_list_and_of_texts_only(tmp_path: Path) -> None:
    device = '[device]\nid = "car"\nkey = "k"\n[uplink]\n'
    assert settings.read(write(tmp_path, f'{device}words = ["a b", ""]'), Shape).uplink.words == ("a b", "")
    for wrong in ('"a b"', '["a", 1]'):
        with pytest.raises(ConfigError) as caught:
            settings.read(write(tmp_path, f"{device}words = {wrong}"), Shape)
        assert [fault.split(", got")[0] for fault in caught.value.faults] == ["uplink.words: must be a list of texts"]


def test_a_rule_between_fields_is_reported_with_all_other_faults(tmp_path: Path) -> None:
    path = write(tmp_path, '[device]\nid = 7\nkey = "k"\n[uplink]\nwindow = 1\nwords = ["a", "b"]')
    with pytest.raises(ConfigError) as caught:
        settings.read(path, Shape)
    assert list(caught.value.faults) == [
        "device.id: must be text, got 7",
        "uplink.words: must be at most window, got 2",
    ]
