"""A chip on a pseudo terminal: to its client a serial device file. Rim."""

import os
import pty
import threading
import tty

from components.virtual_car.chip import Chip
from components.virtual_car.line import Line, Speed, Stop


class SerialPort:
    """A serial port with a chip behind it, served by a thread of its own from construction to `close`.

    Args:
        chip: An adapter or a modem.
        speed: Line speed, whatever the client sets: a pseudo terminal knows no bauds.
        name: For the thread.
    """

    def __init__(self, chip: Chip, speed: Speed, name: str) -> None:
        # Our own handle on the client's side stays open, or the line would end with the first client.
        self._ours, self._clients = pty.openpty()
        tty.setraw(self._clients)
        os.set_blocking(self._ours, False)
        self.path = os.ttyname(self._clients)
        self._stop = Stop()
        line = Line(self._ours, chip, speed, self._stop)
        self._thread = threading.Thread(target=line.serve, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and take the device file away; clients meet the hang-up of a device that is pulled out."""
        self._stop.set()
        self._thread.join()
        os.close(self._ours)
        os.close(self._clients)
        self._stop.close()
