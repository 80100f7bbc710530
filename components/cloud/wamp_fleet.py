"""What the cloud answers to operators: devices, latest, minutes, bundle. Rim; reads only.

Who is limited to some devices hears of those only; who is limited to an account, of what was stored while a device was
of that account. Answers are pages small enough for one WAMP message; `odograph.console` puts them together.
"""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from autobahn.twisted.wamp import ApplicationSession
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import CallDetails, RegisterOptions

from components.cloud.keys import ServerKeys
from components.cloud.ports import ArchiveReader, StoredPacket
from components.cloud.sqlite_registry import Registry
from components.cloud.who import Principal
from components.lane import Lane
from components.wamp_procedure import INVALID, guarded
from components.wire import bundle, receipt, strict_json, topics
from components.wire.errors import UnavailableError
from components.wire.times import iso_ms

_PAGE_BYTES: Final = 150_000
_MAX_MS: Final = 2**53


def stored_form(stored: StoredPacket) -> dict[str, object]:
    """Return a stored packet as operators get it: who, and the packet with its columns as they travelled."""
    return {
        "id": stored.id,
        "device": stored.device,
        "account": stored.account,
        "vehicle": stored.vehicle,
        "driver": stored.driver,
        "received": iso_ms(stored.received_ms),
        "packet": stored.packet,
    }


@dataclass(frozen=True, slots=True)
class Fleet:
    """The procedures; `archive` and `registry` are open for reading, used in `lane`; `keys` gives those of now."""

    archive: ArchiveReader
    registry: Registry
    lane: Lane
    keys: Callable[[], ServerKeys]

    async def attend(self, session: ApplicationSession) -> None:
        """Register with one session; several persisters take turns."""
        options = RegisterOptions(invoke="roundrobin", details_arg="details")
        procedures: Mapping[str, Callable[..., Awaitable[object]]] = {
            "devices": self.devices,
            "latest": self.latest,
            "minutes": self.minutes,
        }
        for name, procedure in procedures.items():
            await session.register(guarded(procedure), topics.fleet_procedure(name), options=options)
        # The same for everybody, so it is not asked who they are.
        options = RegisterOptions(invoke="roundrobin")
        await session.register(guarded(self.public_bundle), topics.fleet_procedure("bundle"), options=options)

    async def devices(self, *, details: CallDetails) -> list[dict[str, object]]:
        """List the registered devices, by id, each with the start of its latest packet."""
        found: list[dict[str, object]] = await self._read(self._devices, details.caller_authid)
        return found

    async def latest(self, device: str, *, details: CallDetails) -> dict[str, object] | None:
        """Return a device's latest packet (see `stored_form`), or None."""
        found: dict[str, object] | None = await self._read(self._latest, details.caller_authid, _device(device))
        return found

    async def minutes(
        self,
        device: str,
        since_ms: int | None = None,
        until_ms: int | None = None,
        after: str = "",
        *,
        details: CallDetails,
    ) -> dict[str, object]:
        """Return a page of a device's packets by start, then session.

        Args:
            since_ms, until_ms: `since_ms <= start < until_ms`, ms UTC; None: no bound.
            after: The id of the last packet of the page before, whose start is `since_ms`; "" for the first page.

        Returns:
            `minutes`: packets (see `stored_form`); `more`: whether there is another page.
        """
        if not all(bound is None or _is_time(bound) for bound in (since_ms, until_ms)):
            raise ApplicationError(INVALID, "since_ms and until_ms: must be ms UTC, or null")
        if type(after) is not str or not (after == "" or re.fullmatch(receipt.PACKET_ID, after)):
            raise ApplicationError(INVALID, "after: must be a packet id, or empty")
        page: dict[str, object] = await self._read(
            self._page, details.caller_authid, _device(device), since_ms, until_ms, after
        )
        return page

    async def public_bundle(self, after: str = "") -> str | None:
        """Return the server's newest public bundle, as in server.pub.json, or the one that follows another.

        Args:
            after: The kid of a bundle; "" for the newest.

        Returns:
            None when no bundle of this server follows that one.
        """
        if type(after) is not str or not (after == "" or bundle.is_kid(after)):
            raise ApplicationError(INVALID, "after: must be the kid of a bundle, or empty")
        keys: ServerKeys = await self._read(self.keys)
        found = keys.following(after) if after else keys.newest
        return None if found is None else bundle.dump(found)

    async def _read(self, call: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401 - whatever `call` returns
        try:
            return await self.lane.run(call, *args)
        except UnavailableError as error:
            raise ApplicationError("odograph.error.unavailable", str(error)) from error

    def _caller(self, authid: str | None) -> Principal:
        """Return the operator who asks, as the registry has them now."""
        one = self.registry.principal(authid or "")
        if one is None or not one.admitted(time.time_ns() // 1_000_000):
            raise ApplicationError(ApplicationError.NOT_AUTHORIZED, f"{authid} is no operator, or not any more")
        return one

    def _devices(self, authid: str | None) -> list[dict[str, object]]:
        caller = self._caller(authid)
        found: list[dict[str, object]] = []
        for device in self.registry.devices():
            if not caller.reaches(device.id, device.account):
                continue
            latest = self._stored_latest(caller, device.id)
            found.append(
                {
                    "id": device.id,
                    "state": device.state,
                    "account": device.account,
                    "vehicle": device.vehicle,
                    "driver": device.driver,
                    "latest": None if latest is None else iso_ms(latest.start_ms),
                }
            )
        return found

    def _latest(self, authid: str | None, device: str) -> dict[str, object] | None:
        stored = self._stored_latest(self._within(authid, device), device)
        return None if stored is None else stored_form(stored)

    def _stored_latest(self, caller: Principal, device: str) -> StoredPacket | None:
        stored = self.archive.latest(device)
        return stored if stored is None or caller.reaches(device, stored.account) else None

    def _within(self, authid: str | None, device: str) -> Principal:
        """Return the caller, who reaches that device now; ApplicationError otherwise, whether there is one or not."""
        caller, known = self._caller(authid), self.registry.device(device)
        if not caller.reaches(device, known.account if known is not None else ""):
            raise ApplicationError(ApplicationError.NOT_AUTHORIZED, f"{device} is not within the limits of {authid}")
        return caller

    def _page(
        self, authid: str | None, device: str, since_ms: int | None, until_ms: int | None, after: str
    ) -> dict[str, object]:
        caller = self._within(authid, device)
        session = after.split("/")[1] if after else ""
        following = (
            one
            for one in self.archive.minutes(device, since_ms, until_ms)
            if caller.reaches(device, one.account) and (one.start_ms != since_ms or one.session > session)
        )
        page: list[dict[str, object]] = []
        size = 0
        for stored in following:
            form = stored_form(stored)
            size += len(strict_json.dumps(form))
            if page and size > _PAGE_BYTES:
                return {"minutes": page, "more": True}
            page.append(form)
        return {"minutes": page, "more": False}


def _is_time(bound: object) -> bool:
    return type(bound) is int and abs(bound) <= _MAX_MS


def _device(device: object) -> str:
    if type(device) is not str or not topics.is_id(device):
        raise ApplicationError(INVALID, "device: must be a device id")
    return device
