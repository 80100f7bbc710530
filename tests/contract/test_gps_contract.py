"""ports.Gps over the network: the gpsd double, the real gpsd where it is installed, and one that misbehaves."""

import contextlib
import os
import pty
import shutil
import socket
import subprocess
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.edge.gpsd_gps import GpsdGps
from components.edge.ports import Sample
from components.edge.system_clock import elapsed_ms
from components.virtual_car.car import VirtualCar
from tests.services.servers import free_port
from tests.wamp_peer import reactor, run


@contextlib.contextmanager
def watching(address: str) -> Iterator[GpsdGps]:
    gps = GpsdGps(reactor, address, elapsed_ms)

    async def start() -> None:
        gps.start()

    run(start)
    try:
        yield gps
    finally:
        run(gps.stop)


def wait_for(gps: GpsdGps, holds: Callable[[Sample], bool], within_s: float = 10) -> Sample:
    """Ask until it holds; what is waited for is news over a socket, so this looks every 20 ms."""
    end_ms = elapsed_ms() + 1_000 * within_s
    while not holds(sample := gps.sample(elapsed_ms())):
        assert elapsed_ms() < end_ms, sample
        time.sleep(0.02)
    return sample


def test_the_double_gives_places_and_their_end() -> None:
    with VirtualCar() as car, watching(car.gpsd) as gps:
        sample = wait_for(gps, lambda sample: bool(sample.values))
        assert sample.values["gps_fix"] == 3
        location = sample.values["location"]
        assert isinstance(location, dict)
        assert location["type"] == "Point"
        assert gps.utc_ms() is not None
        car.close()
        assert set(wait_for(gps, lambda sample: not sample.values, 2).why.values()) == {"no_fix"}


def test_rubbish_never_ends_the_connection_and_a_gpsd_that_comes_back_is_found() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    with server, watching(f"127.0.0.1:{port}") as gps:
        for place in (1.0, 2.0):
            connection, _ = server.accept()
            with connection:
                assert b'?WATCH={"enable":true,"json":true}' in connection.recv(100)
                connection.sendall(b"\xff\xfe\n{}\n[]\n" + b"x" * 100_000 + b"\n")
                connection.sendall(b'{"class":"TPV","mode":2,"lat":%f,"lon":0}\r\n' % place)
                expected = {"type": "Point", "coordinates": [0.0, place]}
                wait_for(gps, lambda sample, expected=expected: sample.values.get("location") == expected)  # type: ignore[misc]
            wait_for(gps, lambda sample: not sample.values)


def sentence(body: str) -> bytes:
    """An NMEA 0183 sentence with its checksum."""
    checksum = 0
    for character in body:
        checksum ^= ord(character)
    return f"${body}*{checksum:02X}\r\n".encode()


def epoch(second: int, *, has_fix: bool = True, is_3d: bool = True) -> bytes:
    """One second of a receiver that drives east at 10 m/s (19.4 knots)."""
    at = f"{12:02d}{second // 60:02d}{second % 60:02d}.00"
    if not has_fix:
        return (
            sentence(f"GPRMC,{at},V,,,,,,,221126,,,N")
            + sentence(f"GPGGA,{at},,,,,0,00,,,M,,M,,")
            + sentence("GPGSA,A,1,,,,,,,,,,,,,,,")
        )
    return (
        sentence(f"GPRMC,{at},A,4807.4000,N,01159.2000,E,019.4,090.0,221126,,,A")
        # gpsd takes a height for a third dimension, whatever GSA says.
        + sentence(f"GPGGA,{at},4807.4000,N,01159.2000,E,1,08,0.9,{'519.3,M,46.9,M' if is_3d else ',M,,M'},,")
        + sentence(f"GPGSA,A,{3 if is_3d else 2},04,05,09,12,24,25,29,31,,,,,1.8,0.9,1.5")
    )


class Receiver:
    """A receiver on a pseudo terminal that says one epoch every 0.2 s, so that gpsd hears it as live."""

    def __init__(self) -> None:
        self._ours, self._theirs = pty.openpty()
        tty.setraw(self._theirs)
        self.path = os.ttyname(self._theirs)
        self.has_fix, self.is_3d = True, True
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._speak, daemon=True)
        self._thread.start()

    def _speak(self) -> None:
        second = 0
        while not self._over.wait(0.2):
            os.write(self._ours, epoch(second, has_fix=self.has_fix, is_3d=self.is_3d))
            second += 1

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        os.close(self._ours)
        os.close(self._theirs)


GPSD = shutil.which("gpsd") or ("/usr/sbin/gpsd" if Path("/usr/sbin/gpsd").exists() else None)


@contextlib.contextmanager
def real_gpsd(receiver: Receiver, port: int) -> Iterator[None]:
    assert GPSD is not None
    # Without -G it listens on loopback only; -n: it reads the receiver before anybody asks.
    daemon = subprocess.Popen([GPSD, "-N", "-n", "-S", str(port), receiver.path], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        daemon.terminate()
        daemon.wait(10)


def test_the_real_gpsd_is_understood_through_fix_2d_loss_and_restart() -> None:
    if GPSD is None:
        pytest.skip("gpsd is not installed: make services")
    receiver, port = Receiver(), free_port()
    try:
        with watching(f"127.0.0.1:{port}") as gps:
            with real_gpsd(receiver, port):
                sample = wait_for(gps, lambda sample: sample.values.get("gps_fix") == 3 and "altitude" in sample.values)
                assert sample.values["location"] == {"type": "Point", "coordinates": [11.9866667, 48.1233333]}
                assert sample.values["heading"] == pytest.approx(90.0)
                assert sample.values["gps_speed"] == pytest.approx(9.98, abs=0.02)
                assert sample.values["altitude"] == pytest.approx(519.3)  # above the sea, not above the ellipsoid
                receiver.is_3d = False
                wait_for(gps, lambda sample: sample.values.get("gps_fix") == 2)
                receiver.has_fix = False
                lost = wait_for(gps, lambda sample: not sample.values)
                assert set(lost.why.values()) == {"no_fix"}
                receiver.has_fix = receiver.is_3d = True
                wait_for(gps, lambda sample: bool(sample.values))
            gone = wait_for(gps, lambda sample: not sample.values)
            assert set(gone.why.values()) == {"no_fix"}
            with real_gpsd(receiver, port):
                wait_for(gps, lambda sample: bool(sample.values), 15)
    finally:
        receiver.close()
