"""The bytes of the items, and how messages become frames."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.virtual_car import isotp
from components.virtual_car.moment import O2
from components.virtual_car.pids import ALL_KEYS, BY_KEY, ITEMS

# The decode column of the signal table, in words of one byte or one 16-bit number x; the encoder is its inverse.
DECODE: dict[str, Callable[[int], float]] = {
    "load": lambda x: x * 100 / 255,
    "temp": lambda x: x - 40,
    "short_term_fuel_trim_1": lambda x: x * 100 / 128 - 100,
    "long_term_fuel_trim_2": lambda x: x * 100 / 128 - 100,
    "fuel_pressure": lambda x: 3 * x,
    "manifold_pressure": lambda x: x,
    "rpm": lambda x: x / 4,
    "speed": lambda x: x,
    "timing_advance": lambda x: x / 2 - 64,
    "intake_air_temp": lambda x: x - 40,
    "maf": lambda x: x / 100,
    "throttle_pos": lambda x: x * 100 / 255,
    "engine_time": lambda x: x,
    "abs_load": lambda x: x * 100 / 255,
    "ambient_air_temp": lambda x: x - 40,
    "acc_pedal_pos_e": lambda x: x * 100 / 255,
    "eng_fuel_rate": lambda x: x / 20,
    "act_eng_torq": lambda x: x - 125,
    "eng_ref_torq": lambda x: x,
}


@pytest.mark.parametrize("key", sorted(DECODE))
def test_every_value_that_bytes_can_carry_comes_back_exactly(key: str) -> None:
    item = BY_KEY[key]
    for raw in range(0, 256**item.size, 1 if item.size == 1 else 97):
        assert item.encode(DECODE[key](raw)) == raw.to_bytes(item.size, "big")


@pytest.mark.parametrize("key", sorted(DECODE))
def test_a_value_beyond_the_bytes_is_refused(key: str) -> None:
    item = BY_KEY[key]
    step = DECODE[key](1) - DECODE[key](0)
    for value in (DECODE[key](0) - step, DECODE[key](256**item.size - 1) + step):
        with pytest.raises(ValueError, match="outside"):
            item.encode(value)


def test_what_lies_between_two_steps_goes_to_the_nearer() -> None:
    assert BY_KEY["temp"].encode(90.6) == b"\x83"
    assert BY_KEY["short_term_fuel_trim_1"].encode(-3) == b"\x7c"


def test_an_oxygen_sensor_carries_voltage_and_trim() -> None:
    assert BY_KEY["o211"].encode(O2(0.45, 0.0)) == bytes([90, 128])
    assert BY_KEY["o212"].encode(O2(0.66, None)) == bytes([132, 0xFF])
    assert BY_KEY["o212"].encode(0.66) == bytes([132, 0xFF])


def test_bit_coded_items_are_their_byte() -> None:
    assert BY_KEY["fuel_status"].encode(2) == b"\x02\x00"
    assert BY_KEY["aux_input"].encode(True)  # noqa: FBT003  # the value is the argument == b"\x01"


def test_pids_and_keys_are_unique() -> None:
    assert len({item.pid for item in ITEMS}) == len(ITEMS) == 34
    assert len(ALL_KEYS) == 36


def reassembled(frames: list[bytes]) -> bytes:
    """A receiver of ISO 15765-2, written from the receiving side."""
    first = frames[0]
    if first[0] >> 4 == 0:
        return first[1 : 1 + first[0]]
    length = (first[0] & 0x0F) << 8 | first[1]
    assert [frame[0] for frame in frames[1:]] == [0x20 | (number % 16) for number in range(1, len(frames))]
    return (first[2:] + b"".join(frame[1:] for frame in frames[1:]))[:length]


@given(st.binary(min_size=1, max_size=300))
def test_a_message_survives_its_frames(message: bytes) -> None:
    frames = isotp.frames(message)
    assert {len(frame) for frame in frames} == {8}
    assert reassembled(frames) == message


@pytest.mark.parametrize("size", [0, 4096])
def test_a_message_that_no_frames_can_carry_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="4095"):
        isotp.frames(bytes(size))
