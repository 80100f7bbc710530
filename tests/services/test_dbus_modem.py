"""ModemManager over a real D-Bus daemon, on a bus of the test's own; ModemManager itself is played by the test."""

import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jeepney import HeaderFields, MessageType, new_error, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection

from components.console.node import free_port
from components.edge import at_modem, dbus_modem
from components.edge.agent import Agent
from components.edge.dbus_modem import read_sim
from components.edge.ports import Sim
from components.edge.system_clock import elapsed_ms
from tests.conftest import missing
from tests.services.servers import Server

ICCID, IMEI = "8949200000123456780", "490154203237518"
NAME = "org.freedesktop.ModemManager1"
MODEM, SIM = f"/{NAME.replace('.', '/')}/Modem/0", f"/{NAME.replace('.', '/')}/SIM/0"
PORTS = [("ttyUSB1", 2), ("ttyUSB2", 3), ("cdc-wdm0", 6)]
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <listen>tcp:host=127.0.0.1,port={port}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
  </policy>
</busconfig>
"""


@pytest.fixture(scope="module")
def bus() -> Iterator[str]:
    """The address of a bus."""
    if shutil.which("dbus-daemon") is None:
        missing("dbus-daemon is not here: make services")
    # A socket's path may have 107 bytes, which pytest's folders use up.
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        path = folder / "bus"
        (folder / "bus.conf").write_text(CONFIG.format(path=path, port=port))
        command = ["dbus-daemon", "--nofork", "--nopidfile", f"--config-file={folder / 'bus.conf'}"]
        server = Server("dbus", command, port, folder)
        server.start()
        yield f"unix:path={path}"
        server.stop()


def modem(**changes: tuple[str, Any]) -> dict[str, tuple[str, Any]]:
    """The properties of a modem with a SIM, as variants."""
    return {
        "EquipmentIdentifier": ("s", IMEI),
        "Ports": ("a(su)", PORTS),
        "State": ("i", 8),
        "Sim": ("o", SIM),
        "Manufacturer": ("s", "QUALCOMM INCORPORATED"),
        **changes,
    }


class ModemManager:
    """A ModemManager that says what the test puts in.

    Attributes:
        modems: Properties by object path.
        iccid: What the SIM says; None: there is no such object.
        refuses: Name of the error that every question gets, if any.
        is_silent: Whether it answers at all.
        asked: Interface and member of each call.
    """

    def __init__(self, bus: str) -> None:
        self.modems: dict[str, dict[str, tuple[str, Any]]] = {MODEM: modem()}
        self.iccid: str | None = ICCID
        self.refuses = ""
        self.is_silent = False
        self.asked: list[tuple[str, str]] = []
        self._connection = open_dbus_connection(bus)
        self._connection.send_and_get_reply(message_bus.RequestName(NAME), timeout=5)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave the bus."""
        self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def _serve(self) -> None:
        while True:
            try:
                message = self._connection.receive()
            except OSError:
                return
            if message.header.message_type is MessageType.method_call and not self.is_silent:
                self._connection.send(self._answer(message))

    def _answer(self, message: Any) -> Any:  # noqa: ANN401 - jeepney has no types
        fields = message.header.fields
        self.asked.append((fields[HeaderFields.interface], fields[HeaderFields.member]))
        if self.refuses:
            return new_error(message, self.refuses, "s", ("no",))
        if self.asked[-1][1] == "GetManagedObjects":
            others = {f"{NAME}.Modem.Signal": {"Rate": ("u", 0)}}
            objects = {path: {f"{NAME}.Modem": values, **others} for path, values in self.modems.items()}
            return new_method_return(message, "a{oa{sa{sv}}}", (objects,))
        if fields[HeaderFields.path] == SIM and self.iccid is not None:
            return new_method_return(message, "v", (("s", self.iccid),))
        return new_error(message, "org.freedesktop.DBus.Error.UnknownObject", "s", ("no such object",))


@pytest.fixture
def manager(bus: str) -> Iterator[ModemManager]:
    subject = ModemManager(bus)
    yield subject
    subject.close()


def ask(bus: str, port: str | None = None, within_ms: int = 5_000) -> Sim | None:
    return read_sim(port, elapsed_ms() + within_ms, clock=elapsed_ms, bus=bus)


def test_modem_and_card_are_named_by_questions_that_change_nothing(bus: str, manager: ModemManager) -> None:
    assert ask(bus) == Sim(ICCID, IMEI, "", "")
    assert manager.asked == [
        ("org.freedesktop.DBus.ObjectManager", "GetManagedObjects"),
        ("org.freedesktop.DBus.Properties", "Get"),
    ]


def test_a_port_is_owned_by_the_modem_that_lists_it_under_any_of_its_names(
    bus: str, manager: ModemManager, tmp_path: Path
) -> None:
    assert manager
    assert ask(bus, "/dev/ttyUSB2") == Sim(ICCID, IMEI, "", "")
    link = tmp_path / "odograph-modem"
    link.symlink_to("/dev/ttyUSB2")
    assert ask(bus, str(link)) == Sim(ICCID, IMEI, "", "")
    assert ask(bus, "/dev/ttyUSB7") is None
    assert ask(bus, "socket://127.0.0.1:1") is None


def test_nobody_owns_a_modem_without_a_manager_or_without_a_bus(bus: str) -> None:
    assert ask(bus) is None
    assert ask("unix:path=/nowhere/bus") is None
    assert ask("tcp:host=127.0.0.1,port=1") is None
    assert ask("rubbish") is None


def test_a_manager_without_modems_owns_none(bus: str, manager: ModemManager) -> None:
    manager.modems = {}
    assert ask(bus) is None


def test_of_two_modems_the_one_with_a_card_counts(bus: str, manager: ModemManager) -> None:
    other = modem(EquipmentIdentifier=("s", "356938035643809"), Sim=("o", "/"))
    manager.modems = {MODEM: other, MODEM.replace("Modem/0", "Modem/1"): modem()}
    assert ask(bus) == Sim(ICCID, IMEI, "", "")


@pytest.mark.parametrize(
    ("changes", "iccid", "expected"),
    [
        ({"Sim": ("o", "/")}, ICCID, Sim(None, IMEI, "no_data", "")),
        ({"Sim": ("o", "/"), "State": ("i", -1)}, ICCID, Sim(None, IMEI, "no_data", "")),
        ({"Sim": ("o", "/"), "State": ("i", 1)}, ICCID, Sim(None, IMEI, "adapter_error", "")),
        ({}, "", Sim(None, IMEI, "adapter_error", "")),
        ({}, None, Sim(None, IMEI, "adapter_error", "")),
        ({}, "8949200000123456781", Sim(None, IMEI, "out_of_range", "")),
        ({}, f"{ICCID}F", Sim(ICCID, IMEI, "", "")),
        ({"EquipmentIdentifier": ("s", "")}, ICCID, Sim(ICCID, None, "", "no_data")),
        ({"EquipmentIdentifier": ("s", "490154203237519")}, ICCID, Sim(ICCID, None, "", "out_of_range")),
        ({"EquipmentIdentifier": ("s", "A1000012345678")}, ICCID, Sim(ICCID, None, "", "out_of_range")),
        ({"EquipmentIdentifier": ("u", 7)}, ICCID, Sim(None, None, "adapter_error", "adapter_error")),
    ],
)
def test_a_number_that_is_not_there_has_its_reason(
    changes: dict[str, tuple[str, Any]], iccid: str | None, expected: Sim, bus: str, manager: ModemManager
) -> None:
    manager.modems, manager.iccid = {MODEM: modem(**changes)}, iccid
    assert ask(bus) == expected


def test_a_manager_that_refuses_is_an_error_and_its_modem_is_left_alone(bus: str, manager: ModemManager) -> None:
    manager.refuses = "org.freedesktop.DBus.Error.AccessDenied"
    assert ask(bus) == Sim(None, None, "adapter_error", "adapter_error")


def test_a_manager_that_is_silent_costs_the_deadline(bus: str, manager: ModemManager) -> None:
    manager.is_silent = True
    assert ask(bus, within_ms=200) == Sim(None, None, "timeout", "timeout")


def test_a_bus_that_is_silent_costs_the_deadline() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as mute:
        mute.bind(f"{folder}/bus")
        mute.listen()
        assert ask(f"unix:path={folder}/bus", within_ms=200) == Sim(None, None, "timeout", "timeout")


@pytest.mark.parametrize(
    ("configured", "found", "expected", "opened"),
    [
        ("auto", None, Sim(ICCID, IMEI, "", ""), []),
        ("auto", "/dev/ttyUSB2", Sim(ICCID, IMEI, "", ""), []),
        ("auto", "/dev/ttyUSB7", Sim(), ["/dev/ttyUSB7"]),
        ("/dev/ttyUSB2", None, Sim(ICCID, IMEI, "", ""), []),
        ("/dev/ttyUSB7", "/dev/ttyUSB2", Sim(), ["/dev/ttyUSB7"]),
        ("", "/dev/ttyUSB2", Sim(), []),
    ],
)
def test_the_agent_asks_who_owns_the_modem_and_opens_no_port_of_the_managers(
    configured: str,
    found: str | None,
    expected: Sim,
    opened: list[str],
    bus: str,
    manager: ModemManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert manager
    asked: list[str] = []

    def of_the_bus(*args: Any, **named: Any) -> Sim | None:  # noqa: ANN401 - passed on
        return read_sim(*args, **named, bus=bus)

    def at_the_port(port: str, *_: object, **__: object) -> Sim:
        asked.append(port)
        return Sim()

    monkeypatch.setattr(dbus_modem, "read_sim", of_the_bus)
    monkeypatch.setattr(at_modem, "read_sim", at_the_port)
    monkeypatch.setattr("components.edge.agent.find_modem_port", lambda: found)
    agent: Any = Agent.__new__(Agent)
    agent._config = type("C", (), {"modem": type("M", (), {"port": configured})})
    assert agent._read_sim() == expected
    assert asked == opened
