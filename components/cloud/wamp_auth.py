"""Authenticator and authorizer: the two procedures that the router asks about every peer. Rim.

Crossbar embeds both classes in its router worker and calls them in its reactor's thread: `authenticate` reads one row
of a local file per join, `authorize` only computes. What they decide stands in the registry and in `permissions`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from autobahn.twisted.wamp import ApplicationSession
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import ComponentConfig

from components.cloud.last_words import leave_last_words
from components.cloud.permissions import allowed
from components.cloud.sqlite_registry import Registry
from components.wire.errors import OdographError
from components.wire.topics import AUTHENTICATE, AUTHORIZE, REALM

REFUSED: Final = ApplicationError.AUTHENTICATION_FAILED


class Authenticator(ApplicationSession):
    """Lets in who is in the registry, is active there, and holds the key that stands there.

    `extra.registry` is the path of registry.db, relative to the node's directory (cbdir).
    """

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        self._path = (Path(config.extra["cbdir"]) / config.extra["registry"]).resolve()
        try:
            Registry.open(self._path).close()
        except OdographError as error:
            # Here and not in onJoin: Crossbar goes on, admitting nobody, after an error there.
            leave_last_words(f"odograph: {error}")
            raise

    async def onJoin(self, _details: object) -> None:  # noqa: N802 - Autobahn's name
        """Offer the procedure; the router admits nobody before that."""
        await self.register(self.authenticate, AUTHENTICATE)

    def authenticate(self, realm: str, authid: str, details: Mapping[str, Any]) -> dict[str, object]:
        """Return who the peer is, with the key that Crossbar then makes it prove; ApplicationError when it is nobody.

        One answer for every reason (unknown, revoked, another key), so that nobody learns who exists; the log has it.
        """
        extra = details.get("authextra") or {}
        pubkey = str(extra.get("pubkey") or "").lower()
        try:
            known = self._known(authid)
        except OdographError as error:
            self.log.warn("refused {authid!r}: {error}", authid=authid, error=error)  # noqa: G010 - txaio's name
            raise ApplicationError("odograph.error.unavailable", "the registry cannot be read") from error
        role, registered = known or ("", "")
        if not known or pubkey != registered or realm != REALM or details.get("authmethod") != "cryptosign":
            self.log.warn("refused {authid!r}: nobody active of that id and key", authid=authid)  # noqa: G010
            raise ApplicationError(REFUSED, f"nobody active is called {authid!r} and has that key")
        return {"realm": REALM, "authid": authid, "role": role, "pubkey": registered, "extra": {}}

    def _known(self, authid: str) -> tuple[str, str] | None:
        """Return role and public key of who is active, read afresh, even from a new file; None for nobody."""
        with Registry.open(self._path) as registry:
            device = registry.device(authid)
            if device is not None:
                return ("device", device.pubkey) if device.state == "active" else None
            one = registry.principal(authid)
            return (one.role, one.pubkey) if one is not None and one.state == "active" else None


class Authorizer(ApplicationSession):
    """Answers from the table in `permissions`, for every publish, subscribe, call and register."""

    async def onJoin(self, _details: object) -> None:  # noqa: N802 - Autobahn's name
        """Offer the procedure; the router refuses everything before that."""
        await self.register(self.authorize, AUTHORIZE)

    def authorize(
        self, details: Mapping[str, Any], uri: str, action: str, options: Mapping[str, object]
    ) -> dict[str, bool]:
        """Return Crossbar's authorization.

        `disclose`: packets and calls carry the id that the router authenticated. `cache` must stay off: Crossbar's
        cache key has no id in it, so that one device's yes would serve another.
        """
        allow = allowed(details["authrole"], details["authid"], uri, action, options or {})
        return {"allow": allow, "disclose": True, "cache": False}
