"""Cars and receivers that tests hold in their hand: no port, no thread, and a time that only the test moves."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from components.edge.ports import CarAwayError, CarState, Dtc, DtcReport, Sample
from components.edge.serial_line import LineGoneError
from components.wire.signals import BY_KEY, BY_PID, GPS_SIGNALS, OBD_SIGNALS, Value


class FakeClock:
    """Elapsed ms that stands until somebody moves it."""

    def __init__(self, at_ms: int = 1_000_000) -> None:
        self.at_ms = at_ms

    def __call__(self) -> int:
        return self.at_ms


def can_lines(ecu: str, data: bytes) -> list[str]:
    """An ECU's answer as the lines that an ELM327 shows with ATH1, ATS0 (ISO 15765-2)."""
    if len(data) <= 7:
        return [f"{ecu}{len(data):02X}{data.hex().upper()}"]
    lines = [f"{ecu}1{len(data):03X}{data[:6].hex().upper()}"]
    rest = data[6:]
    parts = (rest[at : at + 7].ljust(7, bytes(1)).hex().upper() for at in range(0, len(rest), 7))
    return [*lines, *(f"{ecu}2{number % 16:X}{part}" for number, part in enumerate(parts, 1))]


def older_line(header: str, data: bytes) -> str:
    """An ECU's answer as an ELM327 shows it on ISO 9141-2 and KWP: header, data, their sum."""
    frame = bytes.fromhex(header) + data
    return (frame + bytes([sum(frame) % 256])).hex().upper()


def bit_map(base: int, pids: Iterable[int]) -> bytes:
    """The answer to 00, 20, 40 or 60: which of the next 32 PIDs there are."""
    return sum(1 << 32 - (pid - base) for pid in pids if base < pid <= base + 32).to_bytes(4, "big")


class FakeElm:
    """An ELM327 by rote, as a serial_line.Line: it looks up every answer, and waiting for it moves the clock.

    Args:
        clock: Moved by waiting.
        pids: Data bytes of mode 01 by PID, of the engine (7E8).
        answers: By command: bytes, or what makes them; these come first.
        takes_ms: From a command to its answer.
    """

    def __init__(
        self,
        clock: FakeClock,
        pids: Mapping[int, bytes],
        answers: Mapping[str, bytes | Callable[[], bytes]] | None = None,
        takes_ms: int = 10,
    ) -> None:
        self.clock = clock
        self.pids = dict(pids)
        self.answers = dict(answers or {})
        self.takes_ms = takes_ms
        self.said: list[str] = []
        self.is_open = False
        self.is_unplugged = False
        self.is_silent = False
        self.max_pids = 6
        self._out: list[tuple[int, bytes]] = []

    def open(self, url: str, until_ms: int) -> "FakeElm":
        """For ObdCar's `open_line`."""
        del until_ms
        if self.is_unplugged:
            raise LineGoneError(f"no such port: {url}")
        self.is_open = True
        self._out = []
        return self

    def send_later(self, after_ms: int, data: bytes) -> None:
        """Bytes that nobody has asked for now."""
        self._out.append((self.clock.at_ms + after_ms, data))

    def write(self, data: bytes, until_ms: int) -> None:
        del until_ms
        if self.is_unplugged:
            raise LineGoneError("unplugged")
        command = data.decode().removesuffix("\r")
        self.said.append(command)
        if not self.is_silent:
            self.send_later(self.takes_ms, self._answer(command))

    def read(self, until_ms: int) -> bytes:
        if self.is_unplugged:
            raise LineGoneError("unplugged")
        due = [item for item in self._out if item[0] <= max(until_ms, self.clock.at_ms)]
        if not due:
            self.clock.at_ms = max(until_ms, self.clock.at_ms)
            return b""
        self._out.remove(due[0])
        self.clock.at_ms = max(due[0][0], self.clock.at_ms)
        return due[0][1]

    def close(self) -> None:
        self.is_open = False

    def _answer(self, command: str) -> bytes:
        known = self.answers.get(command)
        if known is not None:
            return known if isinstance(known, bytes) else known()
        fixed = {"ATI": "ELM327 v1.5", "ATRV": "12.6V", "ATDPN": "A6", "ATZ": "ELM327 v1.5", "ATWS": "ELM327 v1.5"}
        if command.startswith("AT"):
            return f"{fixed.get(command, 'OK')}\r\r>".encode()
        if command[:2] == "01":
            return self._values(bytes.fromhex(command[2 : len(command) // 2 * 2]))
        return b"NO DATA\r\r>"

    def _values(self, asked: bytes) -> bytes:
        data = b""
        for pid in asked[: self.max_pids]:
            if pid % 0x20 == 0:
                further = {base for base in (0x20, 0x40, 0x60) if any(known > base for known in self.pids)}
                data += bytes((pid,)) + bit_map(pid, {*self.pids, *further})
            elif pid in self.pids:
                data += bytes((pid,)) + self.pids[pid]
        lines = can_lines("7E8", b"\x41" + data) if data else ["NO DATA"]
        return "".join(f"{line}\r" for line in lines).encode() + b"\r>"


def whole_car() -> dict[int, bytes]:
    """Data bytes of a car that has all 36 items; each signal's raw is one that means something."""
    raws = {0x01: 0x00072500, 0x02: 0x0420, 0x03: 0x0200, 0x0C: 0x1AF8, 0x12: 4, 0x1C: 6, 0x1D: 3}
    return {pid: raws.get(pid, 0x31).to_bytes(signal.size, "big") for pid, signal in BY_PID.items() if pid is not None}


class FakeCar:
    """Implements ports.Car by what the test puts in.

    Attributes:
        values: By signal key; what is not there is `unsupported`.
        codes: What read_dtcs returns.
        away: When set, there is no car: this is every signal's reason.
        clearing: What clear_dtcs says.
        cleared: How often it was told to clear.
        keep_ms: How long a value of each sample holds when the next one does not come.
        voltage_v: What its adapter measures; it is measured by every `sample` and `rest`.
        rested: How often it was left in peace since it was last asked for values.
    """

    def __init__(self, clock: Callable[[], int], values: Mapping[str, Value] | None = None) -> None:
        self._clock = clock
        self.values: dict[str, Value] = dict(values or {})
        self.codes: tuple[Dtc, ...] = ()
        self.freeze_frame: dict[str, Value] = {}
        self.away = ""
        self.clearing: Literal["cleared", "refused", "unknown"] = "cleared"
        self.cleared = 0
        self.keep_ms: dict[str, int | None] = {}
        self.vin: str | None = "1ZZVCAR59T0197980"
        self.voltage_v: float | None = 12.6
        self.rested = 0
        self._voltage: tuple[float | None, int | None] = (None, None)

    def sample(self, deadline_ms: int) -> Sample:
        self._measure_voltage()
        return self.measure_now(tuple(signal.key for signal in OBD_SIGNALS), deadline_ms)

    def rest(self, deadline_ms: int) -> Sample:
        del deadline_ms
        self._measure_voltage()
        self.rested += 1
        return Sample({}, {}, {signal.key: "asleep" for signal in OBD_SIGNALS})

    def _measure_voltage(self) -> None:
        self._voltage = (self.voltage_v, self._clock() if self.voltage_v is not None else None)

    def measure_now(self, keys: tuple[str, ...], deadline_ms: int) -> Sample:
        del deadline_ms
        self.rested = 0
        there = {key: self.values[key] for key in keys if key in self.values and not self.away}
        why = {key: self.away or "unsupported" for key in keys if key not in there}
        return Sample(there, dict.fromkeys(there, self._clock()), why, self.keep_ms)

    def read_dtcs(self, deadline_ms: int) -> DtcReport:
        del deadline_ms
        if self.away:
            raise CarAwayError(self.away)
        return DtcReport(tuple(sorted(self.codes)), self.freeze_frame, self._clock())

    def clear_dtcs(self, deadline_ms: int) -> Literal["cleared", "refused", "unknown"]:
        del deadline_ms
        if self.away:
            return "unknown"
        self.cleared += 1
        if self.clearing == "cleared":
            self.codes = tuple(code for code in self.codes if code.status == "permanent")
        return self.clearing

    def state(self) -> CarState:
        supported = tuple(key for key in self.values if BY_KEY[key].pid is not None)
        return CarState(
            connected=not self.away and not self.rested,
            port="fake",
            adapter="fake",
            protocol="fake",
            voltage_v=self._voltage[0],
            voltage_ms=self._voltage[1],
            vin=self.vin,
            vin_why="",
            supported=supported,
            trouble=self.away,
        )

    def close(self) -> None:
        """It holds nothing."""


class FakeGps:
    """Implements ports.Gps by what the test puts in: `values` as heard at `heard_ms`, or `why` for all."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.heard_ms = 0
        self.why = "no_fix"
        self.time: tuple[int, int] | None = None

    def sample(self, elapsed_ms: int) -> Sample:
        del elapsed_ms
        absent = {signal.key: self.why for signal in GPS_SIGNALS if signal.key not in self.values}
        return Sample(dict(self.values), dict.fromkeys(self.values, self.heard_ms), absent)

    def utc_ms(self) -> tuple[int, int] | None:
        return self.time
