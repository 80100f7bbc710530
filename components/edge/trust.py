"""What this device believes of its server: for which key packets are sealed, whose receipts count. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from Crypto.PublicKey import ECC

from components.wire import bundle
from components.wire.bundle import Bundle
from components.wire.errors import ConfigError
from components.wire.suites import HPKE_SUITE, RSA_SUITE, SUITES, PublicKey

SuiteChoice = Literal["auto", "hpke", "rsa-oaep"]
_SUITES: Final[Mapping[str, tuple[str, ...]]] = {
    "auto": tuple(SUITES),
    "hpke": (HPKE_SUITE,),
    "rsa-oaep": (RSA_SUITE,),
}


@dataclass(frozen=True, slots=True)
class SealingKey:
    """A key of the server, and the suite that it is for."""

    alg: str
    kid: str
    key: PublicKey


class Trust:
    """A server's bundle, and whatever follows it in the server's chain.

    Args:
        suite: `auto`: what the server prefers of what is known here.

    Raises:
        ConfigError: The server has no key for that suite.
    """

    def __init__(self, trusted: Bundle, suite: SuiteChoice) -> None:
        self._suite = suite
        self._take(trusted)

    @property
    def kid(self) -> str:
        """Name of the bundle that is believed now."""
        return self._bundle.kid

    @property
    def sealing(self) -> SealingKey:
        """For which key packets are sealed from now on; may be asked from any thread."""
        return self._sealing

    @property
    def receipt_keys(self) -> tuple[ECC.EccKey, ...]:
        """The keys by which receipts may be signed, the newest first."""
        return self._receipt_keys

    def follow(self, text: str) -> None:
        """Believe the bundle that follows.

        Raises:
            RejectedError: It does not; see `bundle.follow`. What was believed stays.
            ConfigError: It has no key for the configured suite. What was believed stays.
        """
        self._take(bundle.follow(self._bundle, text))

    def _take(self, trusted: Bundle) -> None:
        wanted = _SUITES[self._suite]
        found = next((one for one in trusted.recipients if one.alg in wanted), None)
        if found is None:
            raise ConfigError(f"the server has no key for the suite {self._suite}", 'set [server] suite = "auto"')
        self._sealing = SealingKey(found.alg, found.kid, found.key())
        self._receipt_keys = trusted.receipt_keys()
        self._bundle = trusted
