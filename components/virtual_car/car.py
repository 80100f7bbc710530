"""The running car: a vehicle behind its plugs, with gpsd, modem and control. Wiring, and nothing else."""

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from components.virtual_car.clock import Clock
from components.virtual_car.control import ControlPort, Player
from components.virtual_car.gpsd_double import GpsdDouble
from components.virtual_car.line import Speed
from components.virtual_car.modem import Modem
from components.virtual_car.orders import Order, OrderError, parse_order
from components.virtual_car.plug import Plug
from components.virtual_car.scenario import load_scenario
from components.virtual_car.serial_port import SerialPort
from components.virtual_car.vehicle import Options, Vehicle

__all__ = ["Options", "VirtualCar"]


class VirtualCar:
    """A running car; a context manager that stops it. T0 is its construction.

    Attributes:
        gpsd: `host:port`.
        modem: Device file of the modem.
        control: `host:port` of the control socket; None: there is none.
        identity: VIN, ICCID, IMEI.
        drive: What the car says, by the time since T0.
        said: What it has said on its bus.
        clock: The time since T0.

    Raises:
        UnreadableRecordingError: The recording cannot be replayed.
        UnreadableScenarioError: The scenario cannot be played.
        OSError: A port is taken; nothing is left running.
    """

    def __init__(self, options: Options | None = None) -> None:
        options = options or Options()
        self.options = options
        scenes = load_scenario(options.scenario) if options.scenario is not None else ()
        self.clock = Clock()
        self._vehicle = Vehicle(options, self.clock.elapsed_s)
        self.drive, self.identity, self.said = self._vehicle, self._vehicle.identity, self._vehicle.said
        # Orders come from a test, from the socket and from the scenario: one after the other.
        self._ordering = threading.Lock()
        with ExitStack() as stack:
            self._plug = Plug(self._vehicle.adapter, Speed(options.baud), options.tcp_port)
            stack.callback(self._plug.close)
            gpsd = GpsdDouble(self.drive, self.clock, options.gpsd_port)
            stack.callback(gpsd.close)
            modem = SerialPort(Modem(self.identity), Speed(), "virtual_car modem")
            stack.callback(modem.close)
            self.control = None
            if options.control_port is not None:
                control = ControlPort(self._obey, options.control_port)
                stack.callback(control.close)
                self.control = f"127.0.0.1:{control.port}"
            if scenes:
                stack.callback(Player(scenes, self.clock, self._obey).close)
            self._running = stack.pop_all()
        self.gpsd = f"127.0.0.1:{gpsd.port}"
        self.modem = modem.path

    @property
    def obd(self) -> str:
        """Device file of the adapter; while it is unplugged there is none of that name."""
        return self._plug.path

    @property
    def obd_tcp(self) -> str:
        """The adapter's TCP port as a URL of pyserial."""
        return f"socket://127.0.0.1:{self._plug.tcp_port}"

    def order(self, document: Mapping[str, object]) -> Mapping[str, object]:
        """Order something of the running car.

        Args:
            document: As at the control socket; `orders` has the table.

        Returns:
            The state after it.

        Raises:
            OrderError: Nobody can obey that.
        """
        return self._obey(parse_order(document))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything; idempotent."""
        self._running.close()

    def _obey(self, order: Order) -> Mapping[str, object]:
        with self._ordering:
            self._vehicle.obey(order)
            if order.plugged is False:
                self._plug.pull_out()
            elif order.plugged is not None:
                try:
                    self._plug.put_in(None if order.plugged is True else order.plugged)
                except OSError as error:
                    raise OrderError(f"plugged: the adapter stays out: {error}") from error
            return {**self._vehicle.state(), "plugged": self._plug.is_in, "obd": self.obd, "obd_tcp": self.obd_tcp}
