"""Who the car is: VIN, ICCID and IMEI with valid check digits, the same for the same seed. Pure."""

import hashlib
from dataclasses import dataclass

_VIN_VALUES = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", (*range(1, 9), *range(1, 6), 7, 9, *range(2, 10)), strict=True))
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


@dataclass(frozen=True)
class Identity:
    """The three numbers that name a car and its modem.

    Args:
        vin: 17 characters, the ninth a check digit (ISO 3779, 49 CFR 565).
        iccid: 19 digits, the last by Luhn (ITU-T E.118).
        imei: 15 digits, the last by Luhn (3GPP TS 23.003).
    """

    vin: str
    iccid: str
    imei: str


def draw(seed: int, name: str, below: int) -> int:
    """A number 0 to below - 1 that depends on the seed and on what it is for, and on nothing else."""
    digest = hashlib.sha256(f"virtual_car/{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % below


def luhn(digits: str) -> str:
    """The digit that completes `digits`.

    >>> luhn("7992739871")
    '3'
    """
    doubled = [int(digit) * (2 - index % 2) for index, digit in enumerate(reversed(digits))]
    return str(-sum(value // 10 + value % 10 for value in doubled) % 10)


def vin_check_digit(vin: str) -> str:
    """The ninth character that a VIN must have (0 to 9 or X); the one it has now does not count.

    >>> vin_check_digit("1M8GDM9A_KP042788")
    'X'
    """
    total = sum(
        weight * (int(character) if character.isdigit() else _VIN_VALUES.get(character, 0))
        for character, weight in zip(vin, _VIN_WEIGHTS, strict=True)
    )
    return "0123456789X"[total % 11]


def identity_of(seed: int) -> Identity:
    """The identity of the car with this seed; another seed gives another car."""
    # VCAR tells whoever meets the number in a log that no maker built this car.
    vin = f"1ZZVCAR50T0{draw(seed, 'vin', 10**6):06d}"
    vin = vin[:8] + vin_check_digit(vin) + vin[9:]
    iccid = f"8949{draw(seed, 'iccid', 10**14):014d}"
    # Type allocation codes that begin with 00 are those of test equipment.
    imei = f"001017{draw(seed, 'imei', 10**8):08d}"
    return Identity(vin, iccid + luhn(iccid), imei + luhn(imei))
