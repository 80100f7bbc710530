"""The virtual car's adapter at a line whose time only waiting moves: no thread, no port, no pause, always the same run.

`SimulatedAdapter` is the plug: it has a chip (components.virtual_car.elm327) over a car that marks what it says, a line
of some baud, and everything that can go wrong with it as an attribute or a call. `ObdCar` opens it through `open`.

It writes down each raw that each ECU has put on the bus, with its moment (`said`), before any fault has touched it, so
that a test can tell what the car said from what was made of it on the way.
"""

import math
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from heapq import heappop, heappush
from itertools import count, islice
from typing import TYPE_CHECKING

from components.edge.serial_line import LineGoneError
from components.virtual_car.codes import CodeMemory, FreezeFrame
from components.virtual_car.elm327 import CAN_11_500, Elm327
from components.virtual_car.identity import identity_of
from components.virtual_car.marked import MarkedDrive
from components.virtual_car.moment import Drive
from components.virtual_car.vehicle_bus import ENGINE, two_unit_bus
from components.wire.signals import BY_KEY, BY_PID
from components.wire.signals import Value as Reported

if TYPE_CHECKING:
    from components.virtual_car.faults import Fault

BusMessages = Sequence[tuple[int, bytes]]
_REMEMBERED = 64
"""What is kept of each PID's past."""


class Time:
    """Elapsed ms that waiting moves; called, it is the clock."""

    def __init__(self, at_ms: float = 1_000_000) -> None:
        self.at_ms = at_ms

    def __call__(self) -> int:
        return math.floor(self.at_ms)


class SimulatedAdapter:
    """An ELM327 at a line of virtual time.

    Args:
        time: Moved by whoever waits for this adapter.
        drive: What the car says.
        codes: The engine's code memory.
        bus: The digit of the car's bus.
        baud: Of the line, both ways.
        latency_s: Of bus and adapter together.
        supported: Signal keys that the car has; None: all.

    Attributes:
        port: The device at which it is plugged in; None while it is unplugged.
        is_silent: It neither hears nor says anything.
        is_asleep: The car's bus is quiet: no ECU answers.
        lag_ms: How much later than it should all that it says leaves; nothing overtakes what is under way.
        faults: Of the virtual car's own, those that are on.
        on_bus: Makes of what the ECUs answer (request, messages) what the adapter hears of it.
        instead: Makes of a command and its whole true answer, with the prompt, what is sent. While it is set an answer
            leaves when its prompt would.
        heard: The latest commands, without their CR.
    """

    def __init__(
        self,
        time: Time,
        drive: Drive | None = None,
        codes: CodeMemory | None = None,
        *,
        bus: int = CAN_11_500,
        baud: int = 38_400,
        latency_s: float = 0.010,
        supported: frozenset[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.time = time
        self.drive = drive or MarkedDrive()
        self._bus_digit, self.is_can = bus, bus >= CAN_11_500
        self._began_ms = time.at_ms
        self._byte_ms = 10_000 / baud
        self._latency_s = latency_s
        keys = self.drive.supported if supported is None else supported
        self.codes = codes or some_codes(self.drive)
        self.bus = two_unit_bus(keys, self.codes, identity_of(seed))
        self.port: str | None = "/dev/ttyUSB0"
        self.is_silent = False
        self.is_asleep = False
        self.lag_ms = 0
        self.faults: list[Fault] = []
        self.on_bus: Callable[[bytes, BusMessages], BusMessages] | None = None
        self.instead: Callable[[str, bytes], bytes] | None = None
        self.heard: deque[str] = deque(maxlen=1_000)
        self.said: dict[tuple[str, int], deque[tuple[float, bytes]]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._plugged_in = 0
        self._to_come: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._boot()

    # ---- the world around it

    def ports(self, **_: object) -> tuple[str, ...]:
        """The ports that there are, as usb_ports.find_obd_ports tells them."""
        self.run_to(self.time.at_ms)
        return () if self.port is None else (self.port,)

    def open(self, url: str, until_ms: int) -> "SimulatedLine":
        """For ObdCar's `open_line`."""
        del until_ms
        self.run_to(self.time.at_ms)
        if url != self.port:
            raise LineGoneError(f"could not open port {url}: No such file or directory")
        return SimulatedLine(self, self._plugged_in)

    def unplug(self) -> None:
        """Pull it out: every open line is gone, and its supply with it."""
        self.port = None
        self._plugged_in += 1

    def plug_in(self, port: str = "/dev/ttyUSB0") -> None:
        """Put it back in, perhaps where the system gives it another name."""
        self.port = port
        self._boot()

    def reset(self, words: bytes = b"\r\rLV RESET\r\rELM327 v2.1\r\r>") -> None:
        """Its supply dips: every setting is lost, the request in hand too; these words come, or none."""
        self._boot()
        self.interject(words)

    def later(self, after_ms: float, happens: Callable[[], None]) -> None:
        """Let something happen in a while, whatever its client does meanwhile."""
        heappush(self._to_come, (self.time.at_ms + after_ms, next(self._order), happens))

    def interject(self, data: bytes) -> None:
        """Bytes that nobody has asked for."""
        self._send(self.time.at_ms, data)

    # ---- what the car said

    def value_said(self, key: str, heard_ms: float, within_ms: float, ecu: str = "7E8") -> list[Reported]:
        """What an ECU said of a signal up to `within_ms` before `heard_ms`, newest first; its own decoding."""
        signal = BY_KEY[key]
        assert signal.codec is not None
        assert signal.pid is not None
        said = self.said[ecu, signal.pid]
        newest = bisect_right(said, heard_ms, key=lambda item: item[0])
        past = [item for item in islice(said, newest) if item[0] >= heard_ms - within_ms]
        return [signal.codec.decode(int.from_bytes(data, "big")) for _, data in reversed(past)]

    # ---- the chip in its time

    def _boot(self) -> None:
        self._chip = Elm327(
            self._ask,
            lambda: 13.9,
            latency_s=self._latency_s,
            bus=self._bus_digit,
            faults=lambda: self.faults,
        )
        self._line = ""
        self._held = b""
        self._wake_ms: float | None = None
        self._arriving: deque[tuple[float, bytes]] = deque()
        self.leaving: deque[tuple[float, bytes]] = deque()
        self._free_ms = self.time.at_ms

    def hear(self, data: bytes) -> None:
        """Bytes that the client has just begun to send; each command reaches the chip when its last byte has."""
        self._arriving.append((self.time.at_ms + len(data) * self._byte_ms, data))

    def run_to(self, at_ms: float) -> float | None:
        """Let everything happen that happens up to `at_ms`; return when the next thing will happen."""
        while (next_ms := self._next_ms()) is not None and next_ms <= at_ms:
            if self._to_come and self._to_come[0][0] == next_ms:
                heappop(self._to_come)[2]()
            elif self._arriving and self._arriving[0][0] == next_ms:
                _, data = self._arriving.popleft()
                self._received(next_ms, data)
            else:
                self._wake_ms, self._now_ms = None, next_ms
                turn = self._chip.woke()
                self._wake_ms = None if turn.wake_s is None else next_ms + 1000 * turn.wake_s
                self._say(next_ms, turn.out)
        return self._next_ms()

    def _next_ms(self) -> float | None:
        moments = [self._arriving[0][0]] if self._arriving else []
        moments += [self._wake_ms] if self._wake_ms is not None else []
        moments += [self._to_come[0][0]] if self._to_come else []
        return min(moments, default=None)

    def _received(self, at_ms: float, data: bytes) -> None:
        if self.is_silent:
            return
        self._now_ms = at_ms
        for byte in data.decode("latin-1"):
            if byte == "\r":
                self.heard.append(self._line)
                self._command, self._line = self._line, ""
            else:
                self._line += byte
        turn = self._chip.received(data)
        if not turn.keeps_waiting:
            self._wake_ms = None if turn.wake_s is None else at_ms + 1000 * turn.wake_s
        self._say(at_ms, turn.out)

    def _say(self, at_ms: float, out: bytes) -> None:
        self._held += out
        if self.instead is None:
            out, self._held = self._held, b""
        elif b">" in self._held:
            out, self._held = self.instead(self._command, self._held), b""
        else:
            return
        self._send(at_ms, out)

    def _send(self, at_ms: float, out: bytes) -> None:
        if self.is_silent or not out:
            return
        for start in range(0, len(out), 16):  # as a USB bridge hands them on
            piece = out[start : start + 16]
            self._free_ms = max(self._free_ms, at_ms + self.lag_ms) + len(piece) * self._byte_ms
            self.leaving.append((self._free_ms, piece))

    # ---- the car

    def _ask(self, address: int, request: bytes) -> BusMessages:
        if self.is_asleep:
            return ()
        moment = self.drive.at((self._now_ms - self._began_ms) / 1000)
        answers = []
        for ecu, message in self.bus.ask(address, request, moment):
            whole = _of_its_own(message) if ecu != ENGINE else message
            self._write_down(f"{ecu:03X}", whole)
            answers.append((ecu, whole))
        return answers if self.on_bus is None else self.on_bus(request, answers)

    def _write_down(self, ecu: str, message: bytes) -> None:
        if message[0] != 0x41:
            return
        data = message[1:]
        while data and (signal := BY_PID.get(data[0])) is not None:
            self.said[ecu, data[0]].append((self._now_ms, data[1 : 1 + signal.size]))
            data = data[1 + signal.size :]


def _of_its_own(message: bytes) -> bytes:
    """The gearbox's speed is not the engine's, so that nobody can take the one for the other unnoticed."""
    at = message.find(b"\x0d", 1)
    if message[0] != 0x41 or at < 0 or at + 1 >= len(message) or message[1] in {0x00, 0x20}:
        return message
    return message[: at + 1] + bytes([message[at + 1] ^ 0x55]) + message[at + 2 :]


def some_codes(drive: Drive) -> CodeMemory:
    """A code memory whose lists need several frames, with a freeze frame."""
    stored = ("P0420", "P0171", "C1234", "U0100")
    return CodeMemory(stored, ("P0300",), ("P0420",), FreezeFrame("P0420", drive.at(17.0)))


class SimulatedLine:
    """One opening of the port; a serial_line.Line."""

    def __init__(self, adapter: SimulatedAdapter, plugged_in: int) -> None:
        self._adapter = adapter
        self._plugged_in = plugged_in
        self._is_open = True
        # What came before it was opened is in nobody's buffer.
        adapter.run_to(adapter.time.at_ms)
        adapter.leaving.clear()

    def write(self, data: bytes, until_ms: int) -> None:
        del until_ms
        self._adapter.run_to(self._adapter.time.at_ms)
        self._check()
        self._adapter.hear(data)

    def read(self, until_ms: int) -> bytes:
        time, adapter = self._adapter.time, self._adapter
        until_ms = max(until_ms, time())
        while True:
            next_ms = adapter.run_to(time.at_ms)
            self._check()
            arrived = b""
            while adapter.leaving and adapter.leaving[0][0] <= time.at_ms:
                arrived += adapter.leaving.popleft()[1]
            if arrived:
                return arrived
            moments = [next_ms] if next_ms is not None else []
            moments += [adapter.leaving[0][0]] if adapter.leaving else []
            wait_ms = min(moments, default=math.inf)
            if wait_ms > until_ms:
                time.at_ms = max(time.at_ms, until_ms)
                return b""
            time.at_ms = max(time.at_ms, wait_ms)

    def close(self) -> None:
        self._is_open = False

    def _check(self) -> None:
        if not self._is_open:
            raise AssertionError("a closed line is used")
        if self._plugged_in != self._adapter._plugged_in:
            raise LineGoneError("device reports readiness to read but returned no data (device disconnected?)")


ANSWER_MS = 1_100
"""How long after the bus has carried it a value may still be heard: the longest wait for an answer, and the line."""
AHEAD_MS = 300
"""How much younger a value may be than it says: one that came while nobody listened is as old as the last time that
somebody did, and that is until the pause between two calls is over."""


def untrue(
    adapter: SimulatedAdapter,
    values: Mapping[str, Reported],
    measured_ms: Mapping[str, int],
    of_gearbox: Collection[str] = (),
) -> dict[str, Reported]:
    """The values that the car did not say at about the time when they are said to be measured; none is good.

    Args:
        of_gearbox: Keys for which the gearbox's word is as good as the engine's.
    """

    def was_said(key: str, value: Reported) -> bool:
        ecus = ("7E8", "7E9") if key in of_gearbox else ("7E8",)
        heard_ms = measured_ms[key] + AHEAD_MS
        return any(value in adapter.value_said(key, heard_ms, ANSWER_MS + AHEAD_MS, ecu) for ecu in ecus)

    return {key: value for key, value in values.items() if not was_said(key, value)}
