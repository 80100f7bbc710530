"""What "auto" may open: what is named as an OBD adapter, and never what might be something else."""

from dataclasses import dataclass

import pytest

from components.edge.usb_ports import choose_modem_port, choose_obd_ports, find_modem_port, find_obd_ports


@dataclass
class Entry:
    device: str
    product: str | None = None
    manufacturer: str | None = None
    vid: int | None = None
    pid: int | None = None


OBDLINK = Entry("/dev/ttyUSB0", "OBDLink SX", "ScanTool.net")
BRIDGE = Entry("/dev/ttyUSB1", "USB2.0-Serial", None)
MODEM = Entry("/dev/ttyUSB2", "EC25 LTE modem", "Quectel")
GPS = Entry("/dev/ttyACM0", "u-blox 7 - GPS/GNSS Receiver", "u-blox AG")


def test_only_what_names_itself_an_obd_adapter_is_opened() -> None:
    assert choose_obd_ports([BRIDGE, MODEM, GPS, OBDLINK], [], {}) == ("/dev/ttyUSB0",)
    assert choose_obd_ports([BRIDGE, MODEM, GPS], [], {}) == ()


def test_the_bridge_of_an_adapter_counts_last_and_only_where_nothing_names_it_otherwise() -> None:
    known = Entry("/dev/ttyUSB5", "USB2.0-Serial", None, 0x1A86, 0x7523)
    assert choose_obd_ports([known, OBDLINK], ["/dev/rfcomm0"], {})[-1] == "/dev/ttyUSB5"
    assert choose_obd_ports([known], [], {"/dev/gps0": "/dev/ttyUSB5"}) == ()
    assert choose_obd_ports([Entry("/dev/ttyUSB6", "USB GPS", None, 0x067B, 0x2303)], [], {}) == ()
    assert choose_obd_ports([Entry("/dev/ttyUSB7", "Somebody's board", None, 0x1234, 0x5678)], [], {}) == ()


def test_a_bridge_counts_when_udev_names_it() -> None:
    links = {"/dev/odograph-obd": "/dev/ttyUSB1"}
    assert choose_obd_ports([BRIDGE, OBDLINK], ["/dev/rfcomm0"], links) == (
        "/dev/ttyUSB1",
        "/dev/ttyUSB0",
        "/dev/rfcomm0",
    )
    by_id = {"/dev/serial/by-id/usb-ScanTool.net_LLC_OBDLink-if00-port0": "/dev/ttyUSB0"}
    assert choose_obd_ports([], [], by_id) == ("/dev/ttyUSB0",)
    assert choose_obd_ports([], [], {"/dev/serial/by-id/usb-1a86_USB2.0-Serial-if00": "/dev/ttyUSB1"}) == ()


def test_the_modem_is_never_opened_whatever_else_names_it() -> None:
    links = {"/dev/odograph-modem": "/dev/ttyUSB0", "/dev/odograph-obd": "/dev/ttyUSB0"}
    assert choose_obd_ports([OBDLINK], [], links) == ()
    assert choose_obd_ports([OBDLINK], ["/dev/rfcomm0"], {}, ["/dev/ttyUSB0"]) == ("/dev/rfcomm0",)
    assert choose_obd_ports([OBDLINK], [], {"/dev/sim": "/dev/ttyUSB0"}, ["/dev/sim"]) == ()


@pytest.mark.parametrize(
    ("entries", "links", "port"),
    [
        ([MODEM, OBDLINK], {}, "/dev/ttyUSB2"),
        ([MODEM, Entry("/dev/ttyUSB3", "EC25 LTE modem", "Quectel")], {}, None),
        ([MODEM], {"/dev/odograph-modem": "/dev/ttyUSB9"}, "/dev/ttyUSB9"),
        ([BRIDGE, GPS, OBDLINK], {}, None),
    ],
)
def test_the_modem_is_the_one_that_is_named(entries: list[Entry], links: dict[str, str], port: str | None) -> None:
    assert choose_modem_port(entries, links) == port


def test_this_machine_can_be_asked() -> None:
    assert isinstance(find_obd_ports(), tuple)
    assert find_modem_port() is None or find_modem_port()
