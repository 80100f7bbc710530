"""The whole car but its plugs: drive, bus, adapter chips, and what was ordered of them. Pure: the time is asked for.

Whoever wants a car without threads makes a `Vehicle` on a clock of his own and plays the chips of `adapter()` by
their turns; `car` puts the same vehicle behind a terminal and ports.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from components.virtual_car.codes import CodeMemory, FreezeFrame
from components.virtual_car.drive import DriveModel
from components.virtual_car.elm327 import CAN_11_500, Elm327
from components.virtual_car.faults import FAULTS, Fault, Units
from components.virtual_car.identity import identity_of
from components.virtual_car.marked import MarkedDrive
from components.virtual_car.moment import Drive, Moment
from components.virtual_car.orders import Condition, Order, Orders
from components.virtual_car.parked import IdlingCar, ParkedCar, at_rest, parked_codes
from components.virtual_car.recording import load_recording
from components.virtual_car.said import Said
from components.virtual_car.vehicle_bus import two_unit_bus

MOVING_CODES = CodeMemory(pending=("P0171",))
"""The engine's code memory of a car on the road: a suspicion, nothing confirmed."""

_CHARGING_V, _RESTING_V, _CRANKING_V = 14.1, 12.4, 9.6


@dataclass(frozen=True)
class Options:
    """What kind of car.

    Args:
        seed: Identity, place and phase of the drive.
        parked: Ignition on, engine off, one stored code; ordered to run, it idles.
        marked: Values by which the car is known (`marked`), instead of the drive model.
        replay: A recording to drive after; None: the drive model.
        tcp_port: Of the adapter; 0 for any free one.
        gpsd_port: 0 for any free one.
        control_port: Of the control socket; 0 for any free one; None: there is none.
        scenario: A file of orders to play from T0 on (`scenario`); None: there is none.
        latency_s: From a request to its answer, bus and adapter together.
        baud: Of the adapter's serial line; 0: no line time.
        model: `v1.5` or `v2.1`.
        bus: The digit of the car's bus as ATSP has it, 1 to 9.
        supported: Signal keys that the car has; None: all that the drive has.
        codes: The engine's code memory; None: what belongs to the kind of car.
    """

    seed: int = 0
    parked: bool = False
    marked: bool = False
    replay: Path | None = None
    tcp_port: int = 0
    gpsd_port: int = 0
    control_port: int | None = None
    scenario: Path | None = None
    latency_s: float = 0.010
    baud: int = 115_200
    model: str = "v2.1"
    bus: int = CAN_11_500
    supported: frozenset[str] | None = None
    codes: CodeMemory | None = None


def drive_of(options: Options) -> tuple[Drive, CodeMemory]:
    """The drive that the options ask for while the engine runs, and the code memory that belongs to it.

    Raises:
        UnreadableRecordingError: The recording cannot be replayed.
    """
    if options.replay is not None:
        return load_recording(options.replay), CodeMemory()
    if options.parked:
        return IdlingCar(options.seed), parked_codes(options.seed)
    return MarkedDrive() if options.marked else DriveModel(options.seed), MOVING_CODES


class Vehicle:
    """One car. It is a Drive itself: what it says at a time, after all that was ordered.

    Args:
        options: Those of ports and lines count for nothing here.
        elapsed_s: The time since T0, seconds; never less than before.

    Attributes:
        identity: VIN, ICCID, IMEI.
        supported: Signal keys.
        said: What it has said on its bus.

    Raises:
        UnreadableRecordingError: The recording cannot be replayed.
    """

    def __init__(self, options: Options, elapsed_s: Callable[[], float]) -> None:
        self._options = options
        self._elapsed_s = elapsed_s
        self._drive, codes = drive_of(options)
        self._parked = ParkedCar(options.seed) if options.parked else None
        self.identity = identity_of(options.seed)
        has = self._drive.supported
        self.supported = has if options.supported is None else has & options.supported
        self._bus = two_unit_bus(self.supported, options.codes or codes, self.identity)
        self._orders = Orders(Condition(ignition="on" if options.parked else "run"))
        self.said = Said()

    @property
    def condition(self) -> Condition:
        """How the car and its adapter are now."""
        return self._orders.at(self._elapsed_s())

    def obey(self, order: Order) -> None:
        """Obey an order from now on, but for plugging, which needs a plug."""
        self._orders.give(order, self._elapsed_s())
        if order.codes is not None:
            engine, stored = self._bus.ecus[0], order.codes.stored
            frame = engine.codes.freeze if engine.codes.stored else None
            if stored and frame is None:
                frame = FreezeFrame(stored[0], self.at(self._elapsed_s()))
            engine.codes = replace(order.codes, freeze=frame if stored else None)

    def state(self) -> dict[str, object]:
        """How the car is now, in the words of the orders."""
        codes = self._bus.ecus[0].codes
        lists = {"stored": codes.stored, "pending": codes.pending, "permanent": codes.permanent}
        return {**asdict(self.condition), "voltage": self.voltage(), "codes": lists}

    def adapter(self) -> Elm327:
        """A chip at the car's bus; each has settings of its own."""
        options = self._options
        return Elm327(
            self._ask,
            self.voltage,
            latency_s=options.latency_s,
            model=options.model,
            bus=options.bus,
            faults=self.faults,
        )

    def at(self, elapsed_s: float) -> Moment:
        """What the car says at this time. It drives on only while its engine runs."""
        ignition = self._orders.at(elapsed_s).ignition
        moment = self._drive.at(self._orders.ran_s(elapsed_s))
        if ignition == "run":
            return moment
        if self._parked is not None and ignition == "on":
            return self._parked.at(elapsed_s)
        return at_rest(moment, cranks=ignition == "crank")

    def next_fix_s(self, elapsed_s: float) -> float:
        """When the receiver has news: by the drive, and at rest every second."""
        ran_s = self._orders.ran_s(elapsed_s)
        if self._orders.at(elapsed_s).ignition == "run":
            return self._drive.next_fix_s(ran_s) + (elapsed_s - ran_s)
        return float(int(elapsed_s + 1e-6) + 1)

    def voltage(self) -> float:
        """At the plug now, volts."""
        condition = self.condition
        if condition.voltage is not None:
            return condition.voltage
        if condition.ignition == "crank":
            return _CRANKING_V
        return _CHARGING_V if self._engine_runs() else _RESTING_V

    def faults(self) -> tuple[Fault, ...]:
        """Those that are on now."""
        condition = self.condition
        faults = tuple(FAULTS[name] for name in condition.fault)
        if condition.slow_s or condition.stall_s:
            faults += (Fault("as ordered", slow_s=condition.slow_s, stall_s=condition.stall_s),)
        return faults

    def _engine_runs(self) -> bool:
        return self.condition.ignition == "run" and self.at(self._elapsed_s()).engine_runs

    def _ask(self, address: int, request: bytes) -> Units:
        now_s = self._elapsed_s()
        if self._orders.at(now_s).ignition == "off":
            return []
        answers = self._bus.ask(address, request, self.at(now_s))
        for _, message in answers:
            self.said.add(message, now_s)
        return answers
