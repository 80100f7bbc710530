"""What the port "auto" means, and where the modem is. Pure decisions over what the system lists; no port is opened.

Never an unknown device, never the modem's port: a word written to the wrong device can do harm. So a port counts only
when it is a Bluetooth serial port (/dev/rfcomm*, which somebody has bound by hand), when udev or the USB descriptor
*names* it as an OBD adapter, or, last, when its USB ids are those of the bridges in OBD adapters and nothing names it
as something else. Receivers and modems carry some of the same bridges: udev's names for them (gps*, odograph-modem)
keep their ports out, and deploy/'s rule for the adapter ends all doubt.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from serial.tools import list_ports

OBD_LINK: Final = "/dev/odograph-obd"
"""Made by deploy/'s udev rules for an adapter that only its owner knows to be one."""
MODEM_LINK: Final = "/dev/odograph-modem"
_OBD_IDS: Final = frozenset((
    (0x0403, 0x6001),  # FTDI FT232R: ELM327 USB
    (0x0403, 0x6015),  # FTDI FT230X: OBDLink SX and EX
    (0x067B, 0x2303),  # Prolific PL2303: ELM327 clones
    (0x10C4, 0xEA60),  # Silicon Labs CP2102: ELM327 clones
    (0x1A86, 0x7523),  # WCH CH340: ELM327 clones
))  # fmt: skip
"""Vendor and product of the USB bridges in OBD adapters as they are sold."""
_OBD_WORDS: Final = ("obd", "elm327", "elm-327", "elm_327", "scantool", "vgate")
_MODEM_WORDS: Final = ("modem", "lte", "gsm", "umts", "quectel", "sierra", "simcom", "simtech", "huawei", "telit")
_OTHER_WORDS: Final = (*_MODEM_WORDS, "gps", "gnss", "u-blox", "arduino")


class UsbPort(Protocol):
    """One entry of serial.tools.list_ports.comports()."""

    device: str
    vid: int | None
    pid: int | None
    product: str | None
    manufacturer: str | None


def choose_obd_ports(
    entries: Iterable[UsbPort], rfcomm: Iterable[str], links: Mapping[str, str], not_ports: Sequence[str] = ()
) -> tuple[str, ...]:
    """Choose the ports that "auto" may open, the surest first.

    Args:
        entries: USB serial ports.
        rfcomm: Bluetooth serial ports.
        links: Names that udev gave, each with the device it stands for.
        not_ports: Devices or links that are never opened.

    Returns:
        Device paths, each once; may be empty.
    """
    modem = choose_modem_port(entries := tuple(entries), links)
    forbidden = {links.get(port, port) for port in (*not_ports, *([modem] if modem else []))}
    named = [links[OBD_LINK]] if OBD_LINK in links else []
    linked = [device for link, device in sorted(links.items()) if link != OBD_LINK and _names(_OBD_WORDS, link)]
    described = [port.device for port in entries if _names(_OBD_WORDS, port.product, port.manufacturer)]
    others = {device for link, device in links.items() if _names(_OTHER_WORDS, link)}
    known = [
        port.device
        for port in entries
        if (port.vid, port.pid) in _OBD_IDS
        and port.device not in others
        and not _names(_OTHER_WORDS, port.product, port.manufacturer)
    ]
    found = dict.fromkeys((*named, *linked, *described, *sorted(rfcomm), *known))
    return tuple(device for device in found if device not in forbidden)


def choose_modem_port(entries: Iterable[UsbPort], links: Mapping[str, str]) -> str | None:
    """Choose the modem's AT port: udev's name for it, else the one port whose descriptor names a modem; else None.

    Modems show several ports of which one takes commands; where there is more than one, only udev can tell.
    """
    if MODEM_LINK in links:
        return links[MODEM_LINK]
    found = {
        port.device
        for port in entries
        if _names(_MODEM_WORDS, port.product, port.manufacturer) and not _names(_OBD_WORDS, port.product)
    }
    return found.pop() if len(found) == 1 else None


def find_obd_ports(*, not_ports: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what `choose_obd_ports` chooses on this machine now."""
    rfcomm = [str(path) for path in Path("/dev").glob("rfcomm*")]
    forbidden = [os.path.realpath(port) for port in not_ports]
    return choose_obd_ports(list_ports.comports(), rfcomm, _read_links(), forbidden)


def find_modem_port() -> str | None:
    """Return what `choose_modem_port` chooses on this machine now."""
    return choose_modem_port(list_ports.comports(), _read_links())


def _names(words: Sequence[str], *texts: str | None) -> bool:
    return any(word in (text or "").lower() for text in texts for word in words)


def _read_links() -> dict[str, str]:
    """Return the links that udev made, each with its device; a link whose device is gone is left out."""
    paths = [Path(OBD_LINK), Path(MODEM_LINK), *Path("/dev/serial/by-id").glob("*"), *Path("/dev").glob("gps*")]
    return {str(path): os.path.realpath(path) for path in paths if path.exists()}
