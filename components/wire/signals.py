"""The catalogue: what a car and its receivers can tell, as data. Pure.

Each OBD-II item travels as the integer that the car sent (`raw`: its data bytes, big-endian). A codec makes of that
integer the value that people read, and back. Receivers' items (place, heading, …) have no PID and no codec.

Source: SAE J1979 / ISO 15031-5 for PIDs and formulas; COVESA VSS 6 (OBD overlay) for paths.
"""

import re
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal, Protocol

Value = float | int | str | bool | list[str] | dict[str, object]
Tier = Literal["F", "M", "S", "O"]

REASONS: Final = (
    "unsupported", "no_data", "timeout", "out_of_range", "bus_error", "adapter_error", "truncated",
    "negative_response", "stale", "wide_band", "no_fix", "asleep",
)  # fmt: skip
"""Every reason for which a value can be absent (protocol.md)."""

LARGEST: Final = 2**53
"""No number of a reading is beyond it on either side: up to there every JSON reader has whole numbers exactly."""

DTC_PATTERN: Final = "[PCBU][0-3][0-9A-F]{3}"
"""A trouble code of SAE J2012."""


class Codec(Protocol):
    """Turns the integer that the car sent into a value, and back.

    Attributes:
        total: Whether every integer of the signal's size has a meaning.
    """

    total: ClassVar[bool]

    def decode(self, raw: int) -> Value:
        """Return the value; ValueError where `raw` has no meaning in the standard."""

    def encode(self, value: Value) -> int:
        """Return the integer whose value is nearest to `value`; ValueError or TypeError where there is none."""


@dataclass(frozen=True, slots=True)
class Linear:
    """`raw * num / den + offset`: an int where the resolution is whole, else a float.

    >>> Linear(100, 255).decode(163), Linear(offset=-40).decode(131), Linear(1, 4).encode(1266.25)
    (63.92156862745098, 91, 5065)
    """

    num: int = 1
    den: int = 1
    offset: int = 0

    total: ClassVar[bool] = True

    def decode(self, raw: int) -> float | int:
        """See Codec."""
        return raw * self.num + self.offset if self.den == 1 else raw * self.num / self.den + self.offset

    def encode(self, value: Value) -> int:
        """See Codec."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"a number, not {value!r}")
        return round((value - self.offset) * self.den / self.num)


@dataclass(frozen=True, slots=True)
class Enum:
    """One word a code; the code stands above `shift` bits that do not belong to it.

    >>> Enum({2: "closed_loop"}, shift=8).decode(0x0200)
    'closed_loop'
    """

    words: dict[int, str]
    shift: int = 0

    total: ClassVar[bool] = False

    def decode(self, raw: int) -> str:
        """See Codec."""
        code = raw >> self.shift
        if code not in self.words:
            raise ValueError(f"code {code} has no meaning")
        return self.words[code]

    def encode(self, value: Value) -> int:
        """See Codec."""
        for code, word in self.words.items():
            if word == value:
                return code << self.shift
        raise ValueError(f"no code means {value!r}")


@dataclass(frozen=True, slots=True)
class Bits:
    """The names of the bits that are set, lowest bit first.

    >>> Bits(("b1s1", "b1s2")).decode(3)
    ['b1s1', 'b1s2']
    """

    names: tuple[str, ...]

    total: ClassVar[bool] = True

    def decode(self, raw: int) -> list[str]:
        """See Codec."""
        return [name for bit, name in enumerate(self.names) if raw >> bit & 1]

    def encode(self, value: Value) -> int:
        """See Codec."""
        if not isinstance(value, list):
            raise TypeError(f"a list of names, not {value!r}")
        return sum(1 << self.names.index(name) for name in value)


@dataclass(frozen=True, slots=True)
class Flag:
    """Bit 0."""

    total: ClassVar[bool] = True

    def decode(self, raw: int) -> bool:
        """See Codec."""
        return bool(raw & 1)

    def encode(self, value: Value) -> int:
        """See Codec."""
        if not isinstance(value, bool):
            raise TypeError(f"true or false, not {value!r}")
        return int(value)


@dataclass(frozen=True, slots=True)
class TroubleCode:
    """Two bytes as a J2012 code; 0000 is no code.

    >>> TroubleCode().decode(0x0420), TroubleCode().encode("U0100")
    ('P0420', 49408)
    """

    total: ClassVar[bool] = False

    def decode(self, raw: int) -> str:
        """See Codec."""
        if raw == 0:
            raise ValueError("0000 is no code")
        return f"{'PCBU'[raw >> 14]}{raw >> 12 & 3}{raw & 0xFFF:03X}"

    def encode(self, value: Value) -> int:
        """See Codec."""
        if not isinstance(value, str) or not re.fullmatch(DTC_PATTERN, value) or value == "P0000":
            raise ValueError(f"{value!r} is no trouble code")
        return "PCBU".index(value[0]) << 14 | int(value[1]) << 12 | int(value[1:], 16) & 0xFFF


_WIDE = 0x10000
"""Above a raw of two bytes: the voltage of a wide-band sensor follows."""


@dataclass(frozen=True, slots=True)
class OxygenSensor:
    """An oxygen sensor: voltage, and the trim that it causes (FF: it takes no part in trim).

    A raw is the two bytes of a narrow-band sensor (PID 14..1B), or, above 10000, the two bytes that a wide-band sensor
    has for its voltage (PID 24..2B, C and D); that one takes no part in trim.

    >>> OxygenSensor().decode(0x5A80), OxygenSensor().decode(0x10E66)
    ({'voltage_v': 0.45, 'trim_percent': 0.0}, {'voltage_v': 0.449951171875, 'trim_percent': None})
    """

    total: ClassVar[bool] = True

    def decode(self, raw: int) -> dict[str, object]:
        """See Codec."""
        if raw >= _WIDE:
            return {"voltage_v": (raw - _WIDE) * 8 / 65_536, "trim_percent": None}
        trim = raw & 0xFF
        return {"voltage_v": (raw >> 8) / 200, "trim_percent": None if trim == 0xFF else trim * 100 / 128 - 100}

    def encode(self, value: Value) -> int:
        """See Codec."""
        if not isinstance(value, dict):
            raise TypeError(f"an object, not {value!r}")
        voltage, trim = value["voltage_v"], value["trim_percent"]
        if not isinstance(voltage, (int, float)) or not isinstance(trim, (int, float, type(None))):
            raise TypeError(f"numbers, not {value!r}")
        # To isinstance, a bool is an int.
        if isinstance(voltage, bool) or isinstance(trim, bool):
            raise TypeError(f"numbers, not {value!r}")
        narrow = round(voltage * 200)
        if trim is not None:
            return narrow << 8 | round((trim + 100) * 128 / 100)
        return narrow << 8 | 0xFF if narrow <= 0xFF and narrow / 200 == voltage else _WIDE + round(voltage * 8192)


@dataclass(frozen=True, slots=True)
class WideBandSensor:
    """PID 24..2B: the ratio in A and B, the voltage in C and D; of these only the voltage is recorded."""

    total: ClassVar[bool] = True

    def decode(self, raw: int) -> dict[str, object]:
        """See Codec."""
        return OxygenSensor().decode(_WIDE + (raw & 0xFFFF))

    def encode(self, value: Value) -> int:
        """See Codec; the ratio is 0."""
        return OxygenSensor().encode(value) & 0xFFFF


_SPARK = {0: "catalyst", 1: "heated_catalyst", 2: "evaporative_system", 3: "secondary_air", 4: "ac_refrigerant",
          5: "oxygen_sensor", 6: "oxygen_sensor_heater", 7: "egr"}  # fmt: skip
_COMPRESSION = {
    0: "nmhc_catalyst",
    1: "nox_scr",
    3: "boost_pressure",
    5: "exhaust_gas_sensor",
    6: "pm_filter",
    7: "egr",
}
_CONTINUOUS = {0: "misfire", 1: "fuel_system", 2: "components"}


@dataclass(frozen=True, slots=True)
class MonitorStatus:
    """PID 01: the MIL, the number of stored codes, and the readiness of each monitor that the car has."""

    total: ClassVar[bool] = True

    def decode(self, raw: int) -> dict[str, object]:
        """See Codec."""
        a, b, c, d = raw.to_bytes(4, "big")
        compression = bool(b & 0x08)
        monitors = {name: not b >> bit + 4 & 1 for bit, name in _CONTINUOUS.items() if b >> bit & 1}
        once = _COMPRESSION if compression else _SPARK
        monitors |= {name: not d >> bit & 1 for bit, name in once.items() if c >> bit & 1}
        return {
            "mil": bool(a & 0x80),
            "dtc_count": a & 0x7F,
            "compression_ignition": compression,
            "monitors_ready": monitors,
        }

    def encode(self, value: Value) -> int:
        """See Codec."""
        if not isinstance(value, dict) or not isinstance(ready := value["monitors_ready"], dict):
            raise TypeError(f"an object, not {value!r}")
        mil, compression, count = value["mil"], value["compression_ignition"], value["dtc_count"]
        if not all(type(flag) is bool for flag in (mil, compression, *ready.values())):
            raise TypeError(f"true or false, not {value!r}")
        if type(count) is not int or not 0 <= count <= 0x7F:
            raise ValueError(f"0 to 127 codes, not {count!r}")
        a = (0x80 if mil else 0) | count
        b = 0x08 if compression else 0
        for bit, name in _CONTINUOUS.items():
            b |= (name in ready) << bit | (ready.get(name) is False) << bit + 4
        c = d = 0
        for bit, name in (_COMPRESSION if compression else _SPARK).items():
            c |= (name in ready) << bit
            d |= (ready.get(name) is False) << bit
        return int.from_bytes(bytes((a, b, c, d)), "big")


@dataclass(frozen=True, slots=True)
class Signal:
    """One item of a reading.

    Attributes:
        key: Its name in readings, summaries, schemas and metrics.
        unit: As people write it; "" where the value is a word, an object or a place.
        vss: Path in COVESA VSS below `Vehicle.`; "" where VSS has none.
        tier: How often it is asked: F every pass, M about 5 s, S 30 s, O once a session and on change.
        summarised: Whether the packet's summary has it.
        pid: Of mode 01; None for what does not come from the car's bus.
        size: Data bytes of the answer; 0 where `pid` is None.
        codec: How `raw` is read; None where `pid` is None.
        least, most: What a receiver's number can be; for the car's items the codec knows.
    """

    key: str
    unit: str
    vss: str
    tier: Tier = "F"
    summarised: bool = False
    pid: int | None = None
    size: int = 0
    codec: Codec | None = None
    least: float = -LARGEST
    most: float = LARGEST


_PERCENT = Linear(100, 255)
_TRIM = Linear(100, 128, -100)
_TEMPERATURE = Linear(offset=-40)
_TORQUE = Linear(offset=-125)
# Byte B speaks of a second fuel system; the signal is the first one's.
_FUEL = Enum(
    {1: "open_loop_temperature", 2: "closed_loop", 4: "open_loop_load", 8: "open_loop_fault", 16: "closed_loop_fault"},
    shift=8,
)
_AIR = Enum({1: "upstream", 2: "downstream", 4: "outside_or_off", 8: "pump_on_for_diagnostics"})
_SENSORS = Bits(("b1s1", "b1s2", "b2s1", "b2s2", "b3s1", "b3s2", "b4s1", "b4s2"))
_STANDARDS = Enum({
    1: "obd2_carb", 2: "obd_epa", 3: "obd_and_obd2", 4: "obd1", 5: "not_obd_compliant", 6: "eobd", 7: "eobd_and_obd2",
    8: "eobd_and_obd", 9: "eobd_obd_obd2", 10: "jobd", 11: "jobd_and_obd2", 12: "jobd_and_eobd", 13: "jobd_eobd_obd2",
    17: "emd", 18: "emd_plus", 19: "hd_obd_c", 20: "hd_obd", 21: "wwh_obd", 23: "hd_eobd_1", 24: "hd_eobd_1_n",
    25: "hd_eobd_2", 26: "hd_eobd_2_n", 28: "obdbr_1", 29: "obdbr_2", 30: "kobd",
    31: "iobd_1", 32: "iobd_2", 33: "hd_eobd_4",
})  # fmt: skip


def _obd(key: str, pid: int, size: int, codec: Codec, unit: str, tier: Tier, summarised: str, vss: str) -> Signal:
    return Signal(key, unit, vss, tier, bool(summarised), pid, size, codec)


# fmt: off
OBD_SIGNALS: Final = (
    _obd("dtc_status",             0x01, 4, MonitorStatus(),   "",        "M", "",  "OBD.Status"),
    _obd("dtc_ff",                 0x02, 2, TroubleCode(),     "",        "S", "",  "OBD.FreezeDTC"),
    _obd("fuel_status",            0x03, 2, _FUEL,             "",        "S", "",  "OBD.FuelStatus"),
    _obd("load",                   0x04, 1, _PERCENT,          "percent", "F", "Σ", "OBD.EngineLoad"),
    _obd("temp",                   0x05, 1, _TEMPERATURE,      "Celsius", "S", "Σ", "OBD.CoolantTemperature"),
    _obd("short_term_fuel_trim_1", 0x06, 1, _TRIM,             "percent", "M", "Σ", "OBD.ShortTermFuelTrim1"),
    _obd("long_term_fuel_trim_1",  0x07, 1, _TRIM,             "percent", "S", "Σ", "OBD.LongTermFuelTrim1"),
    _obd("short_term_fuel_trim_2", 0x08, 1, _TRIM,             "percent", "M", "Σ", "OBD.ShortTermFuelTrim2"),
    _obd("long_term_fuel_trim_2",  0x09, 1, _TRIM,             "percent", "S", "Σ", "OBD.LongTermFuelTrim2"),
    _obd("fuel_pressure",          0x0A, 1, Linear(3),         "kPa",     "M", "",  "OBD.FuelPressure"),
    _obd("manifold_pressure",      0x0B, 1, Linear(),          "kPa",     "F", "",  "OBD.MAP"),
    _obd("rpm",                    0x0C, 2, Linear(1, 4),      "rpm",     "F", "Σ", "OBD.EngineSpeed"),
    _obd("speed",                  0x0D, 1, Linear(),          "km/h",    "F", "Σ", "OBD.Speed"),
    _obd("timing_advance",         0x0E, 1, Linear(1, 2, -64), "degrees", "F", "Σ", "OBD.TimingAdvance"),
    _obd("intake_air_temp",        0x0F, 1, _TEMPERATURE,      "Celsius", "S", "Σ", "OBD.IntakeTemp"),
    _obd("maf",                    0x10, 2, Linear(1, 100),    "g/s",     "F", "Σ", "OBD.MAF"),
    _obd("throttle_pos",           0x11, 1, _PERCENT,          "percent", "F", "Σ", "OBD.ThrottlePosition"),
    _obd("secondary_air_status",   0x12, 1, _AIR,              "",        "S", "",  "OBD.AirStatus"),
    _obd("o211",                   0x14, 2, OxygenSensor(),    "V",       "M", "",  "OBD.O2.Sensor1"),
    _obd("o212",                   0x15, 2, OxygenSensor(),    "V",       "M", "Σ", "OBD.O2.Sensor2"),
    _obd("obd_standard",           0x1C, 1, _STANDARDS,        "",        "O", "",  "OBD.OBDStandards"),
    _obd("o2_sensor_position_b",   0x1D, 1, _SENSORS,          "",        "O", "",  "OBD.OxygenSensorsIn4Banks"),
    _obd("aux_input",              0x1E, 1, Flag(),            "",        "S", "",  "OBD.IsPTOActive"),
    _obd("engine_time",            0x1F, 2, Linear(),          "s",       "M", "",  "OBD.RunTime"),
    _obd("abs_load",               0x43, 2, _PERCENT,          "percent", "F", "",  "OBD.AbsoluteLoad"),
    _obd("rel_throttle_pos",       0x45, 1, _PERCENT,          "percent", "F", "",  "OBD.RelativeThrottlePosition"),
    _obd("ambient_air_temp",       0x46, 1, _TEMPERATURE,      "Celsius", "S", "",  "OBD.AmbientAirTemperature"),
    _obd("abs_throttle_pos_b",     0x47, 1, _PERCENT,          "percent", "M", "",  "OBD.ThrottlePositionB"),
    _obd("acc_pedal_pos_d",        0x49, 1, _PERCENT,          "percent", "F", "",  "OBD.AcceleratorPositionD"),
    _obd("acc_pedal_pos_e",        0x4A, 1, _PERCENT,          "percent", "M", "",  "OBD.AcceleratorPositionE"),
    _obd("comm_throttle_ac",       0x4C, 1, _PERCENT,          "percent", "F", "",  "OBD.ThrottleActuator"),
    _obd("rel_acc_pedal_pos",      0x5A, 1, _PERCENT,          "percent", "F", "",  "OBD.RelativeAcceleratorPosition"),
    _obd("eng_fuel_rate",          0x5E, 2, Linear(1, 20),     "L/h",     "M", "",  "OBD.FuelRate"),
    _obd("drv_demand_eng_torq",    0x61, 1, _TORQUE,           "percent", "F", "",  "DriverDemandTorque"),
    _obd("act_eng_torq",           0x62, 1, _TORQUE,           "percent", "F", "",  "ActualEngineTorque"),
    _obd("eng_ref_torq",           0x63, 2, Linear(),          "Nm",      "O", "",  "ReferenceEngineTorque"),
)
# fmt: on
"""The 36 items of a car's bus. VSS has no path for the three torques: theirs are a private overlay."""

GPS_SIGNALS: Final = (
    Signal("location", "", "CurrentLocation"),
    Signal("heading", "degrees", "CurrentLocation.Heading", summarised=True, least=0, most=360),
    Signal("altitude", "m", "CurrentLocation.Altitude", summarised=True),
    Signal("climb", "m/s", "", summarised=True),
    Signal("gps_speed", "m/s", "", summarised=True),
    Signal("gps_fix", "", "CurrentLocation.GNSSReceiver.FixType", least=2, most=3),
)

GEAR: Final = Signal("gear", "", "Powertrain.Transmission.CurrentGear", summarised=True)

SIGNALS: Final = (*OBD_SIGNALS, *GPS_SIGNALS, GEAR)
BY_KEY: Final = {signal.key: signal for signal in SIGNALS}
BY_PID: Final = {signal.pid: signal for signal in OBD_SIGNALS}
WIDE_BAND: Final = {
    key: replace(BY_KEY[key], pid=pid, size=4, codec=WideBandSensor()) for key, pid in (("o211", 0x24), ("o212", 0x25))
}
"""How a car with wide-band sensors is asked for the same signals."""


def span(signal: Signal) -> tuple[float, float]:
    """Return the least and the greatest number that a signal can be; for signals whose values are numbers."""
    if isinstance(signal.codec, Linear):
        return signal.codec.decode(0), signal.codec.decode(256**signal.size - 1)
    return signal.least, signal.most


def most_raw(signal: Signal) -> int:
    """Return the greatest raw that a signal of the bus can have."""
    return 2 * _WIDE - 1 if isinstance(signal.codec, OxygenSensor) else 256**signal.size - 1
