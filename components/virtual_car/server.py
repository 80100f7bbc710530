"""A loopback port and the thread behind it: what the doubles that listen have in common. Rim."""

import socket
import threading
from abc import ABC, abstractmethod

from components.virtual_car.line import Stop


class Server(ABC):
    """A listening port, served by a thread of its own from construction to `close`.

    A subclass sets up what `_serve` needs before it calls this constructor, which starts the thread.

    Args:
        port: 0 for any free one.
        name: For the thread.

    Attributes:
        port: Where it listens.

    Raises:
        OSError: The port is taken; no thread runs.
    """

    def __init__(self, port: int, name: str) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._stop = Stop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hang up on everyone, end the thread, give the port back."""
        self._stop.set()
        self._thread.join()
        self._listener.close()
        self._stop.close()

    @abstractmethod
    def _serve(self) -> None:
        """Serve, in the thread, until the stop switch is thrown; then hang up."""
