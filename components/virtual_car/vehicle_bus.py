"""The car's CAN bus as a tester meets it: who hears a request, who answers. Pure."""

from collections.abc import Sequence

from components.virtual_car.codes import CodeMemory
from components.virtual_car.ecu import Ecu
from components.virtual_car.identity import Identity
from components.virtual_car.moment import Moment

FUNCTIONAL = 0x7DF
"""The address at which every emission-related unit listens (ISO 15765-4)."""
ENGINE, TRANSMISSION = 0x7E8, 0x7E9
_TRANSMISSION_KEYS = frozenset({"dtc_status", "speed"})


class VehicleBus:
    """The control units of one car.

    Args:
        ecus: In the order in which they answer.
    """

    def __init__(self, ecus: Sequence[Ecu]) -> None:
        self.ecus = tuple(ecus)

    def ask(self, address: int, request: bytes, moment: Moment) -> list[tuple[int, bytes]]:
        """Put a request on the bus.

        Args:
            address: 0x7DF for all, 0x7E0 to 0x7E7 for one; nobody listens elsewhere.
            request: 1 to 7 bytes.
            moment: What the car says now.

        Returns:
            (CAN identifier, answer) of every unit that answers; may be empty.
        """
        heard = [ecu for ecu in self.ecus if address in (FUNCTIONAL, ecu.address - 8)]
        answers = [(ecu.address, ecu.answer(request, moment)) for ecu in heard]
        return [(source, answer) for source, answer in answers if answer is not None]


def two_unit_bus(supported: frozenset[str], codes: CodeMemory, identity: Identity) -> VehicleBus:
    """Engine and transmission of one car.

    Args:
        supported: Signal keys that the car has; the engine answers all, the transmission speed and code status.
        codes: The engine's code memory; the transmission's is empty.
        identity: For the VIN.

    Returns:
        The bus; the engine is its first unit.
    """
    engine_info = {
        0x02: identity.vin.encode(),
        0x04: b"VCAR-ENGINE-0001",
        0x0A: b"ECM\x00-EngineControl".ljust(20, b"\x00"),
    }
    transmission_info = {0x04: b"VCAR-TRANSM-0001", 0x0A: b"TCM\x00-TransmisCtrl".ljust(20, b"\x00")}
    return VehicleBus(
        [
            Ecu(ENGINE, supported, codes, engine_info),
            Ecu(TRANSMISSION, supported & _TRANSMISSION_KEYS, CodeMemory(), transmission_info),
        ]
    )
