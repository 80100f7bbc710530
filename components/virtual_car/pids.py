"""The mode-01 items of the car and how an ECU writes each into bytes (SAE J1979). Pure.

Written from the standard's formulas in the direction value -> bytes and sharing nothing with the reader that it serves
to test: two independent inverses find each other's mistakes.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from components.virtual_car.moment import O2, Value

MASK_PIDS = (0x00, 0x20, 0x40, 0x60)
"""The PIDs that tell which of the 32 following ones are supported."""


@dataclass(frozen=True)
class Item:
    """One PID of mode 01.

    Args:
        key: Signal key.
        pid: 0x01 to 0x7F.
        size: Data bytes.
        encode: Value -> `size` bytes; raises ValueError for a value that the bytes cannot carry.
    """

    key: str
    pid: int
    size: int
    encode: Callable[[Value], bytes]


def _linear(size: int, steps_per_unit: float, offset: float = 0.0) -> Callable[[Value], bytes]:
    """An encoder of `raw = (value + offset) * steps_per_unit`, rounded to the nearest step, big-endian."""
    top = 256**size - 1
    lowest, highest = 0.0 - offset, top / steps_per_unit - offset

    def encode(value: Value) -> bytes:
        if isinstance(value, O2 | bytes):
            raise TypeError(f"wanted a number, got {value!r}")
        raw = round((value + offset) * steps_per_unit)
        if not 0 <= raw <= top:
            raise ValueError(f"{value} is outside {lowest:.7g}..{highest:.7g}")
        return raw.to_bytes(size, "big")

    return encode


def _trim(percent: float) -> int:
    """The byte of a fuel trim of -100 to 99.2 percent."""
    return _linear(1, 128 / 100, 100)(percent)[0]


def _two_systems(value: Value) -> bytes:
    """PID 03: the first fuel system's state; the car has no second one."""
    return bytes([_linear(1, 1)(value)[0], 0])


def _o2(value: Value) -> bytes:
    """Voltage in steps of 5 mV and the trim that the sensor drives, FF if none; a bare number is a voltage."""
    if isinstance(value, bytes):
        raise TypeError(f"wanted a sensor, got {value!r}")
    sensor = value if isinstance(value, O2) else O2(float(value), None)
    voltage = _linear(1, 200)(sensor.voltage_v)[0]
    return bytes([voltage, 0xFF if sensor.trim_percent is None else _trim(sensor.trim_percent)])


_PERCENT = _linear(1, 255 / 100)
_CELSIUS = _linear(1, 1, 40)
_TRIM = _linear(1, 128 / 100, 100)
_BYTE = _linear(1, 1)
_WORD = _linear(2, 1)
_TORQUE = _linear(1, 1, 125)

# Source: SAE J1979 / ISO 15031-5, table of PIDs. 01 and 02 belong to the ECU's code memory, not to the drive.
ITEMS: tuple[Item, ...] = (
    Item("fuel_status", 0x03, 2, _two_systems),
    Item("load", 0x04, 1, _PERCENT),
    Item("temp", 0x05, 1, _CELSIUS),
    Item("short_term_fuel_trim_1", 0x06, 1, _TRIM),
    Item("long_term_fuel_trim_1", 0x07, 1, _TRIM),
    Item("short_term_fuel_trim_2", 0x08, 1, _TRIM),
    Item("long_term_fuel_trim_2", 0x09, 1, _TRIM),
    Item("fuel_pressure", 0x0A, 1, _linear(1, 1 / 3)),
    Item("manifold_pressure", 0x0B, 1, _BYTE),
    Item("rpm", 0x0C, 2, _linear(2, 4)),
    Item("speed", 0x0D, 1, _BYTE),
    Item("timing_advance", 0x0E, 1, _linear(1, 2, 64)),
    Item("intake_air_temp", 0x0F, 1, _CELSIUS),
    Item("maf", 0x10, 2, _linear(2, 100)),
    Item("throttle_pos", 0x11, 1, _PERCENT),
    Item("secondary_air_status", 0x12, 1, _BYTE),
    Item("o211", 0x14, 2, _o2),
    Item("o212", 0x15, 2, _o2),
    Item("obd_standard", 0x1C, 1, _BYTE),
    Item("o2_sensor_position_b", 0x1D, 1, _BYTE),
    Item("aux_input", 0x1E, 1, _BYTE),
    Item("engine_time", 0x1F, 2, _WORD),
    Item("abs_load", 0x43, 2, _linear(2, 255 / 100)),
    Item("rel_throttle_pos", 0x45, 1, _PERCENT),
    Item("ambient_air_temp", 0x46, 1, _CELSIUS),
    Item("abs_throttle_pos_b", 0x47, 1, _PERCENT),
    Item("acc_pedal_pos_d", 0x49, 1, _PERCENT),
    Item("acc_pedal_pos_e", 0x4A, 1, _PERCENT),
    Item("comm_throttle_ac", 0x4C, 1, _PERCENT),
    Item("rel_acc_pedal_pos", 0x5A, 1, _PERCENT),
    Item("eng_fuel_rate", 0x5E, 2, _linear(2, 20)),
    Item("drv_demand_eng_torq", 0x61, 1, _TORQUE),
    Item("act_eng_torq", 0x62, 1, _TORQUE),
    Item("eng_ref_torq", 0x63, 2, _WORD),
)

BY_KEY: Mapping[str, Item] = {item.key: item for item in ITEMS}
BY_PID: Mapping[int, Item] = {item.pid: item for item in ITEMS}

MEMORY_PIDS: Mapping[str, int] = {"dtc_status": 0x01, "dtc_ff": 0x02}
"""The two items that an ECU answers from its code memory."""

ALL_KEYS: frozenset[str] = frozenset(BY_KEY) | frozenset(MEMORY_PIDS)
"""The 36 items of a fully equipped car."""


def size_of(pid: int) -> int:
    """The data bytes of a PID of mode 01 that the car has."""
    if pid in BY_PID:
        return BY_PID[pid].size
    return 2 if pid == MEMORY_PIDS["dtc_ff"] else 4


def pids_of(keys: Iterable[str]) -> frozenset[int]:
    """The PIDs of signal keys.

    Raises:
        KeyError: A key is not one of `ALL_KEYS`.
    """
    return frozenset(MEMORY_PIDS[key] if key in MEMORY_PIDS else BY_KEY[key].pid for key in keys)


def mask(base: int, pids: Iterable[int]) -> bytes:
    """The answer to a "which PIDs are supported" request.

    Args:
        base: 0x00, 0x20, 0x40, … : the mask covers base + 1 to base + 32.
        pids: Supported PIDs, the mask PIDs themselves left out.

    Returns:
        Four bytes, highest bit first. The last bit tells that the next mask is worth asking for.

    >>> mask(0x00, [0x0C, 0x0D, 0x43]).hex()
    '00180001'
    >>> mask(0x40, [0x0C, 0x0D, 0x43]).hex()
    '20000000'
    """
    numbers = set(pids)
    bits = sum(1 << (32 - (pid - base)) for pid in numbers if base < pid <= base + 31)
    return (bits | any(pid > base + 0x20 for pid in numbers)).to_bytes(4, "big")
