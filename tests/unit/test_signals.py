"""The catalogue: every codec reads and writes every integer that a car can send."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.wire.reading import check_value
from components.wire.signals import (
    BY_KEY,
    DTC_PATTERN,
    LARGEST,
    OBD_SIGNALS,
    SIGNALS,
    WIDE_BAND,
    Codec,
    Enum,
    Flag,
    Signal,
    span,
)
from tests.wire_made import EXHAUSTIVE


def codec_of(signal: Signal) -> Codec:
    assert signal.codec is not None
    return signal.codec


def test_the_catalogue_has_the_items_of_the_design() -> None:
    assert (len(SIGNALS), len(OBD_SIGNALS), len(BY_KEY)) == (43, 36, 43)
    assert sum(signal.summarised for signal in SIGNALS) == 18
    assert len({signal.pid for signal in OBD_SIGNALS}) == 36


@pytest.mark.parametrize("signal", EXHAUSTIVE, ids=lambda signal: signal.key)
def test_every_value_of_one_or_two_bytes_comes_back(signal: Signal) -> None:
    codec, meant = codec_of(signal), 0
    for raw in range(256**signal.size):
        try:
            value = codec.decode(raw)
        except ValueError:
            continue
        meant += 1
        again = codec.encode(value)
        assert codec.decode(again) == value
        if not isinstance(codec, (Enum, Flag)):
            assert again == raw
    assert codec.total == (meant == 256**signal.size)
    assert meant


def test_every_voltage_of_a_wide_band_sensor_comes_back_and_can_be_recorded() -> None:
    narrow, wide = BY_KEY["o211"], WIDE_BAND["o211"]
    for raw in range(0x10000):
        value = codec_of(wide).decode(0x80000000 | raw)
        assert value == {"voltage_v": raw * 8 / 65536, "trim_percent": None}
        assert codec_of(narrow).decode(codec_of(narrow).encode(value)) == value
        check_value("o211", value)


@given(st.integers(0, 2**32 - 1))
def test_every_monitor_status_comes_back(raw: int) -> None:
    codec = codec_of(BY_KEY["dtc_status"])
    value = codec.decode(raw)
    assert codec.decode(codec.encode(value)) == value


@pytest.mark.parametrize(
    ("key", "raw", "value"),
    [
        ("rpm", 0x1AF8, 1726.0),
        ("temp", 0x7B, 83),
        ("maf", 0x0163, 3.55),
        ("timing_advance", 0x80, 0.0),
        ("short_term_fuel_trim_1", 0x70, -12.5),
        ("fuel_pressure", 0x0A, 30),
        ("throttle_pos", 0xFF, 100.0),
        ("abs_load", 0xFFFF, 25700.0),
        ("eng_fuel_rate", 0x0064, 5.0),
        ("act_eng_torq", 0x7D, 0),
        ("dtc_ff", 0xC158, "U0158"),
        ("fuel_status", 0x0200, "closed_loop"),
        ("o212", 0x5AFF, {"voltage_v": 0.45, "trim_percent": None}),
        ("aux_input", 1, True),
    ],
)
def test_worked_examples_of_the_standard(key: str, raw: int, value: object) -> None:
    assert codec_of(BY_KEY[key]).decode(raw) == value


def test_the_status_of_the_standards_example_is_read() -> None:
    # SAE J1979: 83 07 65 04: lamp on, three codes.
    assert codec_of(BY_KEY["dtc_status"]).decode(0x83076504) == {
        "mil": True,
        "dtc_count": 3,
        "compression_ignition": False,
        "monitors_ready": {
            "misfire": True, "fuel_system": True, "components": True,
            "catalyst": True, "evaporative_system": False, "oxygen_sensor": True, "oxygen_sensor_heater": True,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    "code", ["P0_42", "p0420", "P042", "P04200", "X0420", "P4420", "P0000", "P0 42", "P0420\n", 420]
)
def test_what_is_no_code_has_no_integer(code: str) -> None:
    with pytest.raises(ValueError, match="no trouble code"):
        codec_of(BY_KEY["dtc_ff"]).encode(code)


@given(st.from_regex(f"^{DTC_PATTERN}$", fullmatch=True))
def test_every_code_of_the_pattern_but_p0000_has_an_integer(code: str) -> None:
    codec = codec_of(BY_KEY["dtc_ff"])
    if code != "P0000" and re.fullmatch(DTC_PATTERN, code):
        assert codec.decode(codec.encode(code)) == code


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rpm", True), ("rpm", "900"), ("aux_input", 1), ("o2_sensor_position_b", "b1s1"),
        ("o2_sensor_position_b", ["b9s9"]), ("o211", {"voltage_v": True, "trim_percent": None}), ("o211", {}),
        ("dtc_status", {"mil": 1, "dtc_count": 0, "compression_ignition": False, "monitors_ready": {}}),
        ("dtc_status", {"mil": True, "dtc_count": 128, "compression_ignition": False, "monitors_ready": {}}),
        ("dtc_status", {"mil": True, "dtc_count": 0, "compression_ignition": False, "monitors_ready": {"egr": 1}}),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused(key: str, value: object) -> None:
    with pytest.raises((TypeError, ValueError, KeyError)):
        codec_of(BY_KEY[key]).encode(value)  # type: ignore[arg-type]


def test_spans_follow_the_bytes_or_the_receiver() -> None:
    assert span(BY_KEY["rpm"]) == (0, 16383.75)
    assert span(BY_KEY["temp"]) == (-40, 215)
    assert span(BY_KEY["heading"]) == (0, 360)
    assert span(BY_KEY["altitude"]) == (-LARGEST, LARGEST)
