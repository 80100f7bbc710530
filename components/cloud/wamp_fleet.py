"""What the cloud answers to operators: devices, latest, minutes, bundle. Rim; reads only.

Who is limited to some devices hears of those only; who is limited to an account, of what was stored while a device was
of that account. Answers are small enough for one message of any transport of the router: lists come in pages, which
the caller puts together, and of a packet that is larger the longest parts are left out, and named.
"""

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import cbor2
from autobahn.twisted.wamp import ApplicationSession
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import CallDetails, RegisterOptions
from twisted.logger import Logger

from components.cloud.keys import ServerKeys
from components.cloud.ports import ArchiveReader, StoredPacket
from components.cloud.sqlite_registry import Registry
from components.cloud.who import Device, Principal
from components.lane import Lane
from components.wamp_procedure import INVALID, UNAVAILABLE, guarded
from components.wire import bundle, receipt, topics
from components.wire.errors import ConfigError, UnavailableError
from components.wire.times import iso_ms

_ANSWER_BYTES: Final = 250_000
"""In CBOR. The router ends the connection of who sends a longer message than 270,336 bytes by websocket."""
_LONG_PARTS: Final = ("readings", "lost", "gaps", "dtcs")
_MAX_MS: Final = 2**53


def stored_form(stored: StoredPacket) -> dict[str, object]:
    """Return a stored packet as operators get it: who, when, and the packet with its columns as they travelled.

    `packet` is {} where the archive cannot read it any more.
    """
    return {
        "id": stored.id,
        "device": stored.device,
        "account": stored.account,
        "vehicle": stored.vehicle,
        "driver": stored.driver,
        "start": iso_ms(stored.start_ms),
        "received": iso_ms(stored.received_ms),
        "packet": stored.packet,
    }


def told(stored: StoredPacket) -> dict[str, object]:
    """Return `stored_form` as it fits into one answer: without as many of its long parts as must go, in `left_out`."""
    form = stored_form(stored)
    left_out: list[str] = []
    for part in (one for one in _LONG_PARTS if one in stored.packet):
        if len(cbor2.dumps(form)) <= _ANSWER_BYTES:
            break
        left_out.append(part)
        rest = {key: value for key, value in stored.packet.items() if key not in left_out}
        # These two stand in every packet.
        form |= {"packet": rest | {key: [] for key in ("gaps", "dtcs") if key in left_out}, "left_out": left_out}
    return form


@dataclass(frozen=True, slots=True)
class Fleet:
    """The procedures; `archive` and `registry` are open for reading, used in `lane`; `keys` gives those of now."""

    archive: ArchiveReader
    registry: Registry
    lane: Lane
    keys: Callable[[], ServerKeys]
    _passed_over: set[str] = field(default_factory=set)
    _log = Logger()

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

    async def devices(self, after: str = "", *, details: CallDetails) -> list[dict[str, object]]:
        """Return a page of the registered devices, by id, each with the start of its latest packet.

        Args:
            after: The last id of the page before; "" for the first page. After the last page comes an empty one.
        """
        if after != "":
            _device(after, "after")
        found: list[dict[str, object]] = await self._read(self._devices, details.caller_authid, after)
        return found

    async def latest(self, device: str, *, details: CallDetails) -> dict[str, object] | None:
        """Return a device's latest packet (see `told`), or None."""
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
            `minutes`: packets (see `told`); `more`: whether there is another page.
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
        except (ConfigError, UnavailableError) as error:
            raise ApplicationError(UNAVAILABLE, str(error)) from error

    def _caller(self, authid: str | None) -> Principal:
        """Return the operator who asks, as the registry has them now."""
        one = self.registry.principal(authid or "")
        if one is None or not one.admitted(time.time_ns() // 1_000_000):
            raise ApplicationError(ApplicationError.NOT_AUTHORIZED, f"{authid} is no operator, or not any more")
        return one

    def _devices(self, authid: str | None, after: str) -> list[dict[str, object]]:
        caller = self._caller(authid)
        if not after:
            self._tell_of_the_unsound()
        following = (
            device
            for device in self.registry.devices()
            if device.id > after and caller.reaches(device.id, device.account)
        )
        return _page(self._device_form(caller, device) for device in following)[0]

    def _tell_of_the_unsound(self) -> None:
        """Say once of each device that is passed over why."""
        unsound = set(self.registry.unsound_devices())
        for one in sorted(unsound - self._passed_over):
            self._log.warn("passed over: {why}", why=one)
        self._passed_over.clear()
        self._passed_over.update(unsound)

    def _device_form(self, caller: Principal, device: Device) -> dict[str, object]:
        latest = self.archive.latest(device.id, caller.account_for(device.id))
        return {
            "id": device.id,
            "state": device.state,
            "account": device.account,
            "vehicle": device.vehicle,
            "driver": device.driver,
            "latest": None if latest is None else iso_ms(latest.start_ms),
        }

    def _latest(self, authid: str | None, device: str) -> dict[str, object] | None:
        stored = self.archive.latest(device, self._within(authid, device).account_for(device))
        return None if stored is None else told(stored)

    def _within(self, authid: str | None, device: str) -> Principal:
        """Return the caller, who reaches that device now; ApplicationError otherwise, whether there is one or not."""
        caller, known = self._caller(authid), self.registry.device(device)
        if not caller.reaches(device, known.account if known is not None else ""):
            raise ApplicationError(ApplicationError.NOT_AUTHORIZED, f"{device} is not within the limits of {authid}")
        return caller

    def _page(
        self, authid: str | None, device: str, since_ms: int | None, until_ms: int | None, after: str
    ) -> dict[str, object]:
        account = self._within(authid, device).account_for(device)
        session = after.split("/")[1] if after else ""
        following = (
            one
            for one in self.archive.minutes(device, since_ms, until_ms, account)
            if one.start_ms != since_ms or one.session > session
        )
        page, more = _page(told(one) for one in following)
        return {"minutes": page, "more": more}


def _page(forms: Iterable[dict[str, object]]) -> tuple[list[dict[str, object]], bool]:
    """Return as many as one answer holds, but at least one, and whether there are more."""
    page: list[dict[str, object]] = []
    size = 0
    for form in forms:
        size += len(cbor2.dumps(form))
        if page and size > _ANSWER_BYTES:
            return page, True
        page.append(form)
    return page, False


def _is_time(bound: object) -> bool:
    return type(bound) is int and abs(bound) <= _MAX_MS


def _device(device: object, what: str = "device") -> str:
    if type(device) is not str or not topics.is_id(device):
        raise ApplicationError(INVALID, f"{what}: must be a device id")
    return device
