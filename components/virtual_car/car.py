"""The whole car: adapters on a terminal and a port, gpsd, modem, over one drive. Wiring, and nothing else."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from components.virtual_car.chip import Fault, no_fault
from components.virtual_car.clock import Clock
from components.virtual_car.codes import CodeMemory
from components.virtual_car.drive import DriveModel
from components.virtual_car.elm327 import Elm327
from components.virtual_car.gpsd_double import GpsdDouble
from components.virtual_car.identity import identity_of
from components.virtual_car.line import Speed
from components.virtual_car.modem import Modem
from components.virtual_car.moment import Drive
from components.virtual_car.parked import ParkedCar, parked_codes
from components.virtual_car.recording import load_recording
from components.virtual_car.serial_port import SerialPort
from components.virtual_car.tcp_port import TcpPort
from components.virtual_car.vehicle_bus import two_unit_bus

MOVING_CODES = CodeMemory(pending=("P0171",))
"""The engine's code memory of a car on the road: a suspicion, nothing confirmed."""

_CHARGING_V, _RESTING_V = 14.1, 12.4


@dataclass(frozen=True)
class Options:
    """What kind of car.

    Args:
        seed: Identity, place and phase of the drive.
        parked: Ignition on, engine off, one stored code.
        replay: A recording to drive after; None: the drive model.
        tcp_port: Of the adapter; 0 for any free one.
        gpsd_port: 0 for any free one.
        latency_s: From a request to its answer, bus and adapter together.
        baud: Of the adapter's serial line; 0: no line time.
        model: `v1.5` or `v2.1`.
        supported: Signal keys that the car has; None: all that the drive has.
        codes: The engine's code memory; None: what belongs to the kind of car.
        fault: What stands between the adapter and its lines.
    """

    seed: int = 0
    parked: bool = False
    replay: Path | None = None
    tcp_port: int = 0
    gpsd_port: int = 0
    latency_s: float = 0.010
    baud: int = 115_200
    model: str = "v2.1"
    supported: frozenset[str] | None = None
    codes: CodeMemory | None = None
    fault: Fault = no_fault


def drive_of(options: Options) -> tuple[Drive, CodeMemory]:
    """The drive that the options ask for, and the code memory that belongs to it.

    Raises:
        UnreadableRecordingError: The recording cannot be replayed.
    """
    if options.replay is not None:
        return load_recording(options.replay), CodeMemory()
    if options.parked:
        return ParkedCar(options.seed), parked_codes(options.seed)
    return DriveModel(options.seed), MOVING_CODES


class VirtualCar:
    """A running car; a context manager that stops it. T0 is its construction.

    Attributes:
        obd: Device file of the adapter.
        obd_tcp: The adapter's TCP port as a URL of pyserial.
        gpsd: `host:port`.
        modem: Device file of the modem.
        identity: VIN, ICCID, IMEI.
        drive: What the car says, by the time since T0.
        clock: The time since T0.

    Raises:
        UnreadableRecordingError: The recording cannot be replayed.
        OSError: A port is taken; nothing is left running.
    """

    def __init__(self, options: Options | None = None) -> None:
        options = options or Options()
        self.options = options
        self.drive, codes = drive_of(options)
        self.identity = identity_of(options.seed)
        supported = self.drive.supported if options.supported is None else self.drive.supported & options.supported
        self._bus = two_unit_bus(supported, options.codes or codes, self.identity)
        self.clock = Clock()
        with ExitStack() as stack:
            speed, fault = Speed(options.baud), options.fault
            serial = SerialPort(self._adapter(), speed, "virtual_car obd", fault)
            stack.callback(serial.close)
            tcp = TcpPort(self._adapter(), speed, options.tcp_port, "virtual_car obd tcp", fault)
            stack.callback(tcp.close)
            gpsd = GpsdDouble(self.drive, self.clock, options.gpsd_port)
            stack.callback(gpsd.close)
            modem = SerialPort(Modem(self.identity), Speed(), "virtual_car modem")
            stack.callback(modem.close)
            self._running = stack.pop_all()
        self.obd = serial.path
        self.obd_tcp = f"socket://127.0.0.1:{tcp.port}"
        self.gpsd = f"127.0.0.1:{gpsd.port}"
        self.modem = modem.path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything; idempotent."""
        self._running.close()

    def _adapter(self) -> Elm327:
        options = self.options
        return Elm327(self._ask, self._voltage, latency_s=options.latency_s, model=options.model)

    def _ask(self, address: int, request: bytes) -> Sequence[tuple[int, bytes]]:
        return self._bus.ask(address, request, self.drive.at(self.clock.elapsed_s()))

    def _voltage(self) -> float:
        return _CHARGING_V if self.drive.at(self.clock.elapsed_s()).engine_runs else _RESTING_V
