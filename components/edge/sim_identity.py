"""The numbers that name a modem (IMEI) and its SIM card (ICCID): when one is right, and how long one counts. Pure.

What it is not: it asks nobody. `at_modem` and `dbus_modem` bring what the modem or ModemManager said.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from components.edge.ports import Sim

KEEP_MS: Final = 300_000
"""How long a number counts that nobody confirms: a modem that restarts, or a port that is busy, is back before."""
_ICCID: Final = re.compile(r"(89[0-9]{16,18})F{0,2}", re.ASCII | re.IGNORECASE)
_IMEI: Final = re.compile(r"[0-9]{15}", re.ASCII)


def is_luhn(digits: str) -> bool:
    """Return whether the last digit completes the others (ISO/IEC 7812-1, annex B).

    >>> is_luhn("79927398713"), is_luhn("79927398710")
    (True, False)
    """
    places = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(value // 10 + value % 10 for value in places) % 10 == 0


def iccid(text: str) -> str | None:
    """Return the ICCID that `text` is: 18 to 20 digits that begin with 89 (telecommunication), its padding F left out.

    Source: ITU-T E.118; 3GPP TS 51.011, EF_ICCID (ten bytes, padded with F).

    >>> iccid("8949200000123456780F"), iccid("8949200000123456789")
    ('8949200000123456780', None)
    """
    match = _ICCID.fullmatch(text)
    return match[1] if match and is_luhn(match[1]) else None


def imei(text: str) -> str | None:
    """Return the IMEI that `text` is: 15 digits, not all 0, as a modem says that was never given a number.

    An IMEISV (16 digits) has no check digit, so it cannot be verified and is none.

    Source: 3GPP TS 23.003, 6.2.

    >>> imei("490154203237518"), imei("000000000000000"), imei("4901542032375101")
    ('490154203237518', None, None)
    """
    return text if _IMEI.fullmatch(text) and is_luhn(text) and text.strip("0") else None


@dataclass(slots=True)
class KnownSim:
    """What is known of modem and SIM, by the rule of ports.Sim.

    Attributes:
        sim: What counts now.
    """

    sim: Sim = field(default_factory=Sim)
    _iccid_ms: int = 0
    _imei_ms: int = 0

    def heard(self, later: Sim, now_ms: int) -> Sim:
        """Return what counts after an answer, or the lack of one, at `now_ms` (elapsed)."""
        known = self.sim
        is_other_modem = None not in {known.imei, later.imei} and known.imei != later.imei
        if later.iccid is not None:
            self._iccid_ms = now_ms
        keeps_iccid = not is_other_modem and later.iccid_why != "no_data" and now_ms - self._iccid_ms <= KEEP_MS
        if later.imei is not None:
            self._imei_ms = now_ms
        keeps_imei = now_ms - self._imei_ms <= KEEP_MS
        iccid = later.iccid or (known.iccid if keeps_iccid else None)
        imei = later.imei or (known.imei if keeps_imei else None)
        self.sim = Sim(iccid, imei, "" if iccid else later.iccid_why, "" if imei else later.imei_why)
        return self.sim
