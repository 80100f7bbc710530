"""Who the modem and its SIM are, where ModemManager owns the modem: it is asked, over D-Bus. Rim; blocks; only reads.

What it is not: it starts no ModemManager, and enables, unlocks or configures nothing. A port that ModemManager has
open must not be opened beside it: each would steal half of the other's answers. So it is asked first, and `at_modem`
opens only what it does not own.

Source: ModemManager's D-Bus reference: ObjectManager.GetManagedObjects; Modem's EquipmentIdentifier (IMEI), Ports,
State (0 unknown, 1 initializing) and Sim ("/": none); Sim's SimIdentifier (ICCID).
"""

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Final

from jeepney import DBusAddress, DBusErrorResponse, HeaderFields, MessageFlag, Parser, Properties, new_method_call
from jeepney.bus import get_bus
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import prep_socket
from jeepney.wrappers import unwrap_msg

from components.edge import sim_identity
from components.edge.ports import Sim
from components.edge.serial_line import Clock

SYSTEM_BUS: Final = "unix:path=/run/dbus/system_bus_socket"
_NAME: Final = "org.freedesktop.ModemManager1"
_MODEM: Final = f"{_NAME}.Modem"
_NOBODY: Final = ("org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner")
_NOT_YET: Final = (0, 1)
_MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""What ModemManager tells of a modem is some KiB."""


def read_sim(port: str | None, deadline_ms: int, *, clock: Clock, bus: str = SYSTEM_BUS) -> Sim | None:
    """Ask ModemManager for the numbers that name a modem and its SIM.

    Args:
        port: A device of the modem; None: whichever modem it has, one with a SIM rather than one without.
        deadline_ms: Elapsed ms by which it returns.
        clock: Elapsed ms.
        bus: Address of the system bus.

    Returns:
        Each number, or None with `no_data` (it knows of none), `timeout` (it is silent), `adapter_error` (the SIM is
        not ready, or it refuses), `out_of_range` (check digit). None when it does not own that modem: there is no bus,
        no ModemManager on it, or it has no such port. Never raises.
    """
    try:
        connection = _Bus(bus, deadline_ms, clock)
    except TimeoutError:
        return _without("timeout")
    except Exception:  # noqa: BLE001 - no such socket, no such address, a bus that does not let us in: nobody to ask
        return None
    with closing(connection):
        try:
            return _read(connection, port)
        except TimeoutError:
            return _without("timeout")
        except DBusErrorResponse as error:
            return None if error.name in _NOBODY else _without("adapter_error")
        except Exception:  # noqa: BLE001 - whatever a parser, or the shape of an answer, may raise: nothing was said
            return _without("adapter_error")


def _read(bus: "_Bus", port: str | None) -> Sim | None:
    (objects,) = bus.call(new_method_call(
        DBusAddress(f"/{_NAME.replace('.', '/')}", _NAME, "org.freedesktop.DBus.ObjectManager"), "GetManagedObjects"
    ))  # fmt: skip
    modems = [interfaces[_MODEM] for _, interfaces in sorted(objects.items()) if _MODEM in interfaces]
    if port is not None:
        device = os.path.basename(os.path.realpath(port))  # noqa: PTH119 - as realpath: the port may be no path at all
        modems = [modem for modem in modems if any(name == device for name, _ in _value(modem, "Ports", []))]
    if not modems:
        return None
    modem = min(modems, key=lambda modem: _sim_path(modem) is None)
    imei, imei_why = _checked(sim_identity.imei, _value(modem, "EquipmentIdentifier", ""), "no_data")
    sim_path = _sim_path(modem)
    if sim_path is None:
        is_early = _value(modem, "State", 0) in _NOT_YET
        return Sim(None, imei, "adapter_error" if is_early else "no_data", imei_why)
    try:
        ((_, text),) = bus.call(Properties(DBusAddress(sim_path, _NAME, f"{_NAME}.Sim")).get("SimIdentifier"))
    except DBusErrorResponse:  # it was taken out between the two questions
        text = ""
    # A card that is locked, or has just been put in, has an empty one.
    iccid, iccid_why = _checked(sim_identity.iccid, text, "adapter_error")
    return Sim(iccid, imei, iccid_why, imei_why)


def _value(properties: Mapping[str, tuple[str, Any]], name: str, otherwise: object) -> Any:  # noqa: ANN401 - a variant
    return properties.get(name, ("", otherwise))[1]


def _sim_path(modem: Mapping[str, tuple[str, Any]]) -> str | None:
    path = _value(modem, "Sim", "/")
    return str(path) if path not in {"", "/"} else None


def _checked(check: Callable[[str], str | None], text: str, if_empty: str) -> tuple[str | None, str]:
    if not text:
        return None, if_empty
    number = check(text)
    return number, "" if number else "out_of_range"


def _without(why: str) -> Sim:
    return Sim(None, None, why, why)


class _Bus:
    """A connection to a message bus. Not jeepney's own: that one waits without end for the bus's greeting.

    Raises:
        TimeoutError: It does not answer. Whatever else: it cannot be had.
    """

    def __init__(self, address: str, deadline_ms: int, clock: Clock) -> None:
        self._deadline_ms, self._clock = deadline_ms, clock
        self._parser = Parser()
        self._serial = 0
        self._socket = prep_socket(get_bus(address), timeout=self._left_s())
        try:
            self.call(message_bus.Hello())
        except BaseException:
            self.close()
            raise

    def call(self, message: Any) -> tuple[Any, ...]:  # noqa: ANN401 - jeepney has no types
        """Return the body of the answer; DBusErrorResponse, OSError, TimeoutError."""
        self._serial += 1
        message.header.flags |= MessageFlag.no_auto_start
        self._socket.settimeout(self._left_s())
        self._socket.sendall(message.serialise(self._serial))
        while (answer := self._next()).header.fields.get(HeaderFields.reply_serial) != self._serial:
            pass
        body: tuple[Any, ...] = unwrap_msg(answer)
        return body

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _next(self) -> Any:  # noqa: ANN401 - as in `call`
        taken = 0
        while (message := self._parser.get_next_message()) is None:
            self._socket.settimeout(self._left_s())
            data = self._socket.recv(65_536)
            taken += len(data)
            if not data or taken > _MAX_MESSAGE_BYTES:
                raise ConnectionResetError("the bus hung up, or sends without end")
            self._parser.add_data(data)
        return message

    def _left_s(self) -> float:
        left_ms = self._deadline_ms - self._clock()
        if left_ms <= 0:
            raise TimeoutError
        return left_ms / 1000
