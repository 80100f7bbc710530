"""A car whose engine stops and starts again: what travels, what its bus hears meanwhile, and what is run."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from components.cloud.stores import open_archive_reader
from components.console.fleet import Car, Fleet
from components.edge.spool_view import SpoolView
from components.keyfile import read_key_file
from components.virtual_car.car import Options, VirtualCar
from components.virtual_car.vehicle import Vehicle
from components.wire import topics
from components.wire.packet import read
from tests.journey_fleet import balanced, running_fleet
from tests.waiting import until
from tests.wamp_peer import Peer


@dataclass
class Heard:
    """When the car's bus was asked, and when its adapter for the voltage; monotonic seconds."""

    bus: list[float] = field(default_factory=list)
    plug: list[float] = field(default_factory=list)


@dataclass
class Night:
    """A fleet whose one car is at hand, with all that it hears; `ran` is what the command writes to."""

    fleet: Fleet
    car: VirtualCar
    heard: Heard
    ran: Path


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Night]:
    heard, ran = Heard(), tmp_path / "ran"
    ask, voltage, start_agent = Vehicle._ask, Vehicle.voltage, Fleet.start_agent

    def noted_ask(self: Vehicle, address: int, request: bytes) -> Sequence[object]:
        heard.bus.append(time.monotonic())
        return ask(self, address, request)

    def noted_voltage(self: Vehicle) -> float:
        heard.plug.append(time.monotonic())
        return voltage(self)

    monkeypatch.setattr(Vehicle, "_ask", noted_ask)
    monkeypatch.setattr(Vehicle, "voltage", noted_voltage)
    with VirtualCar(Options(seed=1)) as car:

        def start_agent_here(self: Fleet, one: Car) -> None:
            text = one.config.read_text().replace(one.hello["obd"], car.obd)
            command = f'["sh", "-c", "echo ran >> {ran}; echo out of breath; exit 3"]'
            one.config.write_text(
                f"{text}\n[sampling]\nrate_hz = 5\n[power]\ndwell_s = 5\nidle_s = 1\ncommand = {command}\n"
            )
            start_agent(self, one)

        monkeypatch.setattr(Fleet, "start_agent", start_agent_here)
        with running_fleet(tmp_path / "home") as fleet:
            yield Night(fleet, car, heard, ran)


@pytest.fixture
def admin(night: Night) -> Iterator[Peer]:
    with Peer(night.fleet.urls.devices, read_key_file(night.fleet.home.admin_key)) as peer:
        yield peer


def test_an_engine_stops_and_starts_and_no_reading_is_lost_or_twice(night: Night, admin: Peer) -> None:
    (car,) = night.fleet.cars
    spool, log = SpoolView(car.spool), night.fleet.home.path / "logs" / "car_01-agent.log"

    def rpm() -> object:
        return (spool.latest() or {}).get("rpm")

    def happened() -> list[object]:
        return [args[0]["event"] for _, _, _, args in admin.events]

    until(rpm, "a reading of the running engine")
    admin.subscribe(topics.event("car_01"))
    night.car.order({"ignition": "off"})
    until(lambda: "asleep" in happened())
    asleep_s, readings = time.monotonic(), spool.readings()
    power = admin.call(topics.device_procedure("car_01", "status"))["power"]
    assert (power["state"], power["voltage_v"]) == ("asleep", 12.4)
    until(lambda: {one.state for one in spool.packets()} == {"receipted"}, "the packet in hand")
    until(lambda: "exit code 3: out of breath" in log.read_text(), "the command")
    assert spool.readings() == readings
    assert [at_s for at_s in night.heard.bus if at_s > asleep_s] == []

    woken_s = time.monotonic()
    night.car.order({"ignition": "run"})
    until(rpm, "a reading of the engine that runs again")
    assert [at_s for at_s in night.heard.plug if asleep_s < at_s < min(at for at in night.heard.bus if at > woken_s)]

    night.fleet.end_agents()
    figures = balanced(night.fleet, 2)
    assert figures.readings_stored == figures.readings_recorded == spool.readings()
    with closing(open_archive_reader(night.fleet.plan.archive, night.fleet.home.path)) as archive:
        stored = [read(one.packet) for one in archive.minutes("car_01")]
    at = [reading.at_ms for one in stored for reading in one.readings or ()]
    assert len(at) == len(set(at)) == spool.readings()
    assert len({one.session for one in stored}) == 2
    assert {one.clock_fix.offset_ms for one in stored if one.clock_fix} == {0}
    until(lambda: "awake" in happened())
    assert [one for one in happened() if one in {"asleep", "awake"}] == ["asleep", "awake"]
    assert night.ran.read_text() == "ran\n"
