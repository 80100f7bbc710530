"""The code memory of an ECU: stored, pending and permanent trouble codes and the freeze frame. Pure."""

import re
from dataclasses import dataclass, replace

from components.virtual_car.moment import Moment

_FORM = re.compile(r"[PCBU][0-3][0-9A-F]{3}\Z")


def code_bytes(code: str) -> bytes:
    """A trouble code as two bytes (SAE J2012).

    Raises:
        ValueError: Not of the form P0171.

    >>> code_bytes("P0171").hex(), code_bytes("U0100").hex()
    ('0171', 'c100')
    """
    if not _FORM.match(code):
        raise ValueError(f"not a trouble code: {code!r}")
    return ("PCBU".index(code[0]) << 14 | int(code[1:], 16)).to_bytes(2, "big")


@dataclass(frozen=True)
class FreezeFrame:
    """What the car said when a code was stored.

    Args:
        code: The code that caused it.
        moment: Every value at that time.
    """

    code: str
    moment: Moment


@dataclass(frozen=True)
class CodeMemory:
    """What an ECU remembers of faults.

    Args:
        stored: Confirmed codes; any of them lights the malfunction lamp (MIL).
        pending: Seen once, not confirmed.
        permanent: Codes that only the car itself can erase.
        freeze: The freeze frame, if a code is stored.
        monitors_complete: Whether the self-tests have run since the codes were cleared.
    """

    stored: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    permanent: tuple[str, ...] = ()
    freeze: FreezeFrame | None = None
    monitors_complete: bool = True

    @property
    def mil(self) -> bool:
        """Whether the malfunction lamp is lit."""
        return bool(self.stored)

    def cleared(self) -> "CodeMemory":
        """After mode 04: stored and pending codes and the freeze frame are gone, the self-tests start anew.

        Permanent codes stay: they are there so that a clearing before an inspection hides nothing.
        """
        return replace(self, stored=(), pending=(), freeze=None, monitors_complete=False)

    def status_bytes(self) -> bytes:
        """PID 01: MIL and number of stored codes, then which self-tests exist (spark ignition) and which are open."""
        # Misfire, fuel system and components; catalyst, evaporative system, oxygen sensors and heaters, EGR/VVT.
        exist_b, exist_c = 0x07, 0xE5
        open_b, open_c = (0x00, 0x00) if self.monitors_complete else (exist_b << 4, exist_c)
        return bytes([self.mil << 7 | len(self.stored), exist_b | open_b, exist_c, open_c])
