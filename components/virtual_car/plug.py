"""The adapter in the car's socket: a device file and a TCP port that come and go together. Rim."""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from components.virtual_car.chip import Chip
from components.virtual_car.line import Speed
from components.virtual_car.serial_port import SerialPort
from components.virtual_car.tcp_port import TcpPort

FIRST_NAME = "ttyUSB0"


class Plug:
    """An adapter that can be pulled out and put back; it is in from construction to `close`.

    Pulled out, its device file is gone and who has it open meets a hang-up; TCP clients are cut off and the port
    refuses. Put back it is freshly powered, at the same TCP port.

    Args:
        chip: Makes an adapter chip as it is when power comes.
        speed: Of its serial line.
        tcp_port: 0 for any free one.

    Attributes:
        path: The device file: a link in a temporary folder, as the pseudo terminal itself cannot be named.
        tcp_port: The TCP port.

    Raises:
        OSError: The port is taken; nothing is left.
    """

    def __init__(self, chip: Callable[[], Chip], speed: Speed, tcp_port: int) -> None:
        self._chip = chip
        self._speed = speed
        self._folder = Path(tempfile.mkdtemp(prefix="virtual_car_"))
        self._name = FIRST_NAME
        self._plugged: ExitStack | None = None
        self.tcp_port = tcp_port
        try:
            self.put_in()
        except OSError:
            shutil.rmtree(self._folder)
            raise

    @property
    def path(self) -> str:
        """The device file, there or not."""
        return str(self._folder / self._name)

    @property
    def is_in(self) -> bool:
        """Whether the adapter is in the socket."""
        return self._plugged is not None

    def put_in(self, name: str | None = None) -> None:
        """Plug it in; it is pulled out before where it is in under another name.

        Args:
            name: Of the device file; None: the last one.

        Raises:
            OSError: Somebody has taken the port meanwhile; it is out.
        """
        if self.is_in and name in {None, self._name}:
            return
        self.pull_out()
        self._name = name or self._name
        with ExitStack() as stack:
            serial = SerialPort(self._chip(), self._speed, "virtual_car obd")
            stack.callback(serial.close)
            tcp = TcpPort(self._chip(), self._speed, self.tcp_port, "virtual_car obd tcp")
            stack.callback(tcp.close)
            self.tcp_port = tcp.port
            link = Path(self.path)
            link.symlink_to(serial.path)
            # Called first: who looks for the file must not find one that leads nowhere.
            stack.callback(link.unlink)
            self._plugged = stack.pop_all()

    def pull_out(self) -> None:
        """Unplug it; idempotent."""
        plugged, self._plugged = self._plugged, None
        if plugged is not None:
            plugged.close()

    def close(self) -> None:
        """Pull it out for ever."""
        self.pull_out()
        shutil.rmtree(self._folder, ignore_errors=True)
