"""Which signals are recorded: chosen in the configuration, nowhere to be found otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.edge import config
from components.edge.choice import Choice
from components.wire.errors import ConfigError
from components.wire.signals import BY_KEY, OBD_SIGNALS, Value
from tests.unit.test_edge_config import _LEAST, load

PLACE: Value = {"type": "Point", "coordinates": [9.1, 48.7]}


def signals(directory: Path, text: str) -> config.Signals:
    return load(directory, f"{_LEAST}[signals]\n{text}\n").signals


def faults(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        signals(directory, text)
    return list(raised.value.faults)


def test_all_signals_are_recorded_unless_some_are_chosen(tmp_path: Path) -> None:
    assert signals(tmp_path, "").wanted == BY_KEY.keys()
    assert signals(tmp_path, 'only = ["rpm", "location"]').wanted == {"rpm", "location"}
    assert signals(tmp_path, 'never = ["location"]').wanted == BY_KEY.keys() - {"location"}


def test_a_key_that_no_signal_has_is_told_with_the_nearest_that_there_is(tmp_path: Path) -> None:
    found = faults(
        tmp_path, 'only = ["rpm", "sped"]\nrates = {locatoin = 10, "\\u001b[31m" = 1, rpm = 3601, temp = -1}'
    )
    assert found == [
        "signals.only: there is no signal sped, did you mean speed?",
        "signals.rates: there is no signal locatoin, did you mean location?",
        "signals.rates: there is no signal '\\x1b[31m'",
        "signals.rates.rpm: must be 0..3600 (seconds), got 3601.0",
        "signals.rates.temp: must be 0..3600 (seconds), got -1.0",
    ]


def test_only_and_never_together_are_refused_and_so_is_what_is_no_list_or_table(tmp_path: Path) -> None:
    assert faults(tmp_path, 'only = ["rpm"]\nnever = ["speed"]') == [
        "signals.never: must be left out where only says it all"
    ]
    assert faults(tmp_path, 'only = "rpm"\nnever = [1]\nrates = {rpm = "fast"}') == [
        "signals.only: must be a list of texts, got 'rpm'",
        "signals.never: must be a list of texts, got [1]",
        "signals.rates: must be a table of numbers, got {'rpm': 'fast'}",
    ]


def test_the_hash_is_of_what_is_configured_and_not_of_how_it_is_written_or_where(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    first = load(tmp_path, f'{_LEAST}[signals]\nonly = ["rpm", "speed"]\nrates = {{rpm = 1, speed = 2}}\n')
    again = load(
        tmp_path / "elsewhere",
        '[signals] # two\nrates = {speed = 2.0, rpm = 1}\nonly = ["speed", "rpm"]\n'
        + _LEAST.replace("device.key", "other.key")
        + "[packet]\nperiod_s = 60\n",
    )
    assert first.hash == again.hash
    others = [
        load(tmp_path, f"{_LEAST}[signals]\n{text}\n").hash
        for text in ("", 'only = ["rpm"]', 'never = ["rpm"]', "rates = {rpm = 1}")
    ]
    assert len({first.hash, *others}) == 5


def test_the_hash_is_the_same_in_every_process(tmp_path: Path) -> None:
    here = load(tmp_path, f'{_LEAST}[signals]\nnever = ["rpm", "speed", "gear", "location"]\n')
    path = str(tmp_path / "edge.toml")
    code = f"from pathlib import Path; from components.edge import config; print(config.load(Path({path!r})).hash)"
    for seed in ("1", "2"):
        told = subprocess.check_output(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, text=True
        )
        assert told.strip() == here.hash


def test_the_car_is_asked_for_what_is_wanted_and_for_what_tells_whether_it_sleeps() -> None:
    assert Choice(frozenset(("temp", "location"))).asked == {"temp", "rpm", "speed"}
    assert Choice().asked == {signal.key for signal in OBD_SIGNALS}
    assert Choice(rates={"rpm": 2, "location": 9}).car_rates == {"rpm": 2}


def applied(choice: Choice, values: dict[str, Value], at_ms: int) -> tuple[dict[str, Value], dict[str, int]]:
    measured = dict.fromkeys(values, at_ms)
    why: dict[str, str] = {}
    choice.apply(values, measured, why)
    assert values.keys() == measured.keys()
    assert all(why[key] == "unsupported" for key in BY_KEY.keys() - choice.wanted)
    return values, measured


def test_what_is_not_wanted_is_null_and_has_no_age() -> None:
    never = Choice(frozenset(BY_KEY.keys() - {"location", "rpm"}))
    assert applied(never, {"location": PLACE, "rpm": 800.0, "heading": 1.0}, 5) == ({"heading": 1.0}, {"heading": 5})


def test_a_receiver_s_value_that_is_wanted_seldom_is_held_with_its_moment_and_never_past_its_fix() -> None:
    choice = Choice(rates={"heading": 10})
    assert applied(choice, {"heading": 1.0}, 0) == ({"heading": 1.0}, {"heading": 0})
    assert applied(choice, {"heading": 2.0}, 9_999) == ({"heading": 1.0}, {"heading": 0})
    assert applied(choice, {"heading": 3.0}, 10_000) == ({"heading": 3.0}, {"heading": 10_000})
    assert applied(choice, {}, 11_000) == ({}, {})
    assert applied(choice, {"heading": 4.0}, 12_000) == ({"heading": 4.0}, {"heading": 12_000})
