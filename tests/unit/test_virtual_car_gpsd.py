"""The gpsd double in conversation: with a plain socket and with gpsd's own client."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from components.virtual_car import gpsd_protocol
from components.virtual_car.clock import Clock
from components.virtual_car.gpsd_double import GpsdDouble
from components.virtual_car.moment import Moment, Place
from components.virtual_car.recording import Recording, Row
from tests.waiting import PATIENCE_S

WATCH = b'?WATCH={"enable":true,"json":true};\n'
ROWS = 600


def recorded(rows: int = ROWS) -> Recording:
    """Rows every 60 s / rows; the latitude of a row is its number / 100, so that a report tells its row."""
    places = (Place(number / 100, -101.9, 0.7, 328.72, 0.1, 13.2) for number in range(rows))
    return Recording([Row(round(number * 60_000 / rows), Moment({}, place)) for number, place in enumerate(places)])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gpsd(clock: Clock) -> Iterator[GpsdDouble]:
    daemon = GpsdDouble(recorded(), clock)
    yield daemon
    daemon.close()


class Client:
    """A line-wise client."""

    def __init__(self, daemon: GpsdDouble) -> None:
        self.socket = socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE_S)
        self._file = self.socket.makefile("rb")

    def say(self, text: bytes) -> None:
        self.socket.sendall(text)

    def hear(self, wanted: str) -> dict[str, Any]:
        """The next report, which must be of this class; SKY comes now and then."""
        while True:
            line = self._file.readline()
            assert line.endswith(b"\r\n"), line
            report: dict[str, Any] = json.loads(line)
            if report["class"] == wanted:
                return report
            assert report["class"] == "SKY", report

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@pytest.fixture
def client(gpsd: GpsdDouble) -> Iterator[Client]:
    connected = Client(gpsd)
    yield connected
    connected.close()


def test_a_watcher_is_greeted_confirmed_and_then_told(client: Client, gpsd: GpsdDouble) -> None:
    assert client.hear("VERSION")["proto_major"] == 3
    client.say(WATCH)
    assert client.hear("DEVICES")["devices"][0]["path"] == gpsd_protocol.DEVICE
    confirmed = client.hear("WATCH")
    assert confirmed["enable"] is confirmed["json"] is True
    fix = client.hear("TPV")
    assert fix["mode"] == 3
    assert (fix["lon"], fix["altMSL"], fix["track"], fix["climb"], fix["speed"]) == (-101.9, 0.7, 328.72, 0.1, 13.2)
    assert gpsd.port > 0


def test_a_report_bears_the_time_at_which_its_row_begins(client: Client, clock: Clock) -> None:
    client.hear("VERSION")
    client.say(WATCH)
    client.hear("DEVICES")
    client.hear("WATCH")
    rows = []
    for _ in range(3):
        fix = client.hear("TPV")
        row = round(fix["lat"] * 100)
        assert fix["time"] == gpsd_protocol.iso_time(clock.t0_ms + row * 100)
        rows.append(row)
    assert rows == list(range(rows[0], rows[0] + 3))


def test_several_clients_hear_the_same(gpsd: GpsdDouble) -> None:
    clients = [Client(gpsd) for _ in range(3)]
    for client in clients:
        client.hear("VERSION")
        client.say(WATCH)
        client.hear("DEVICES")
        client.hear("WATCH")
    newest = clients[-1].hear("TPV")
    for client in clients[:-1]:
        # Who came earlier has heard more before, and this one too.
        while (fix := client.hear("TPV"))["time"] < newest["time"]:
            pass
        assert fix == newest
    for client in clients:
        client.close()


def test_requests_are_answered_in_pieces_and_in_heaps(client: Client) -> None:
    client.hear("VERSION")
    client.say(b"?VER")
    client.say(b"SION;?DEVICES;\r\n?POLL;")
    assert client.hear("VERSION")["release"] == "3.22"
    assert client.hear("DEVICES")
    polled = client.hear("POLL")
    assert polled["tpv"][0]["mode"] == 3
    client.say(b"?NONSENSE;")
    assert client.hear("ERROR")["message"] == "Unrecognized request '?NONSENSE'"
    client.say(b'?WATCH={"enable":;')
    assert client.hear("ERROR")


def test_who_stops_watching_hears_no_more(client: Client) -> None:
    client.hear("VERSION")
    client.say(WATCH)
    client.hear("DEVICES")
    client.hear("WATCH")
    client.hear("TPV")
    client.say(b'?WATCH={"enable":false};?VERSION;')
    while True:
        line = json.loads(client._file.readline())
        if line["class"] == "WATCH":
            break
    assert line["enable"] is False
    assert client.hear("VERSION")


def test_an_unknown_place_is_no_fix_and_an_unknown_height_a_flat_one() -> None:
    none = gpsd_protocol.tpv(None, 1_000)
    assert (none["mode"], "lat" in none, none["time"]) == (1, False, "1970-01-01T00:00:01.000Z")
    flat = gpsd_protocol.tpv(Place(47.0, 8.0, None, None, None, 3.0), 1_000)
    assert flat["mode"] == 2
    assert not {"altMSL", "alt", "track", "climb"} & set(flat)


@pytest.mark.skipif(shutil.which("gpspipe") is None, reason="gpspipe (Debian: gpsd-clients) is not installed")
def test_gpsds_own_client_is_content(gpsd: GpsdDouble) -> None:
    got = subprocess.run(
        ["gpspipe", "-w", "-n", "6", f"127.0.0.1:{gpsd.port}"], capture_output=True, timeout=PATIENCE_S, check=True
    )
    classes = [json.loads(line)["class"] for line in got.stdout.splitlines()]
    assert classes[:3] == ["VERSION", "DEVICES", "WATCH"]
    assert "TPV" in classes[3:]
