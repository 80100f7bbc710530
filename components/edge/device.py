"""What the car answers to operators: status, trouble codes, interlocked clearing, live values. Rim.

It answers from memory where it can, and asks the car where it must. Errors have the URIs `odograph.error.*`.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import CallDetails
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from components.edge.interlock import MUST_BE_ZERO, TOKEN_LIFE_MS, Interlock, refusal
from components.edge.ports import Car, CarAwayError, DtcReport
from components.edge.recorder import Recorder
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.wamp_link import WampLink
from components.lane import Lane
from components.wamp_procedure import INVALID
from components.wire.errors import UnavailableError
from components.wire.packet import TroubleCode
from components.wire.times import iso_ms
from components.wire.topics import DEVICE_PROCEDURES

T = TypeVar("T")
_CAR_AWAY = "odograph.error.car_away"
_NOT_RECORDED = "odograph.error.not_recorded"
_TOO_MANY = "odograph.error.too_many"
_MOST_WAITING = 50
_MEASURE_MS = 3_000
_CLEAR_MS = 5_000


@dataclass(slots=True)
class Device:
    """The procedures of one device."""

    id: str
    version: str
    recorder: Recorder
    link: WampLink
    outbox: SqliteOutbox
    outbox_lane: Lane
    elapsed_ms: Callable[[], int]
    started_ms: int
    _interlock: Interlock = field(default_factory=Interlock)
    _clearing: bool = False
    _waiting: list[Deferred[DtcReport]] = field(default_factory=list)
    _log = Logger()

    def procedures(self) -> Mapping[str, Callable[..., Awaitable[object]]]:
        """Return what is offered, by name."""
        return {name: getattr(self, name) for name in DEVICE_PROCEDURES if hasattr(self, name)}

    async def status(self, *, details: CallDetails) -> dict[str, object]:
        """Tell how recording, car and delivery are; times are RFC 3339 UTC."""
        del details
        recorder, counts = self.recorder, await self.outbox_lane.run(self.outbox.counts)
        power, timeline = recorder.power, recorder.timeline
        latest = recorder.latest
        gps_fix = latest.values.get("gps_fix") if latest else None
        return {
            "device": self.id,
            "version": self.version,
            "at": iso_ms(timeline.at(self.elapsed_ms())),
            "uptime_s": (self.elapsed_ms() - self.started_ms) // 1000,
            "session": timeline.session,
            "clock": timeline.source,
            "power": {
                "state": power.state,
                "voltage_v": power.voltage_v,
                "since": iso_ms(timeline.at(power.since_ms)),
            },
            "recorder": {
                "readings": recorder.recorded,
                "lost": recorder.lost,
                "trouble": recorder.trouble,
                "latest_at": iso_ms(latest.at_ms) if latest else None,
                "interval_ms": recorder.sources.interval_ms,
                "config_hash": recorder.sources.config_hash,
            },
            "car": {**asdict(recorder.sources.car.state()), "supported": list(recorder.sources.car.state().supported)},
            "gps": {"fix": gps_fix, "why": latest.why.get("gps_fix") if latest else "no_fix"},
            "sim": asdict(recorder.sim),
            "outbox": asdict(counts),
            "uplink": dict(self.link.counts),
        }

    async def dtcs(self, refresh: bool = False, *, details: CallDetails) -> dict[str, object]:
        """Tell the trouble codes: as last asked, or (`refresh`) asked now."""
        del details
        if type(refresh) is not bool:
            raise ApplicationError(INVALID, "refresh: must be true or false")
        if refresh:
            await self._read_codes()
        book = self.recorder.book
        return {
            "device": self.id,
            "at": None if book.read_at_ms is None else iso_ms(book.read_at_ms),
            "dtcs": [_code(one) for one in book.codes],
        }

    async def query(self, *, details: CallDetails) -> dict[str, object]:
        """Tell the latest reading."""
        del details
        latest = self.recorder.latest
        if latest is None:
            raise ApplicationError("odograph.error.no_reading", "nothing has been recorded yet")
        return latest.as_row()

    async def prepare_clear(self, *, details: CallDetails) -> dict[str, object]:
        """Give the caller a token for one `clear_dtcs` within 60 s."""
        self._begin_attempt()
        token = secrets.token_hex(16)
        self._interlock.prepare(_caller(details), token, self.elapsed_ms())
        await self._audit("prepare_clear", details, {})
        return {"token": token, "expires_s": TOKEN_LIFE_MS // 1000}

    async def clear_dtcs(self, token: str = "", *, details: CallDetails) -> dict[str, object]:
        """Clear the car's codes, if token and car allow it: engine off and standing, measured now.

        Codes and freeze frame are recorded before; the command is sent once and never again. It goes on, and its
        outcome is recorded, when the caller is gone.

        Returns:
            `outcome` cleared, refused (with `reason`) or unknown.
        """
        self._begin_attempt()
        why = self._interlock.redeem(_caller(details), token if isinstance(token, str) else "", self.elapsed_ms())
        if why is None and self._clearing:
            why = "clearing_already"
        if why is not None:
            return await self._refuse(why, details)
        self._clearing = True
        return await _in_any_case(ensureDeferred(self._clear(details)).addBoth(self._cleared))

    def _begin_attempt(self) -> None:
        if not self._interlock.begins(self.elapsed_ms()):
            raise ApplicationError(_TOO_MANY, "too many attempts to clear within a minute; try again in a minute")

    def _cleared(self, result: T) -> T:
        self._clearing = False
        return result

    async def _clear(self, details: CallDetails) -> dict[str, object]:
        recorder = self.recorder
        car, lane = recorder.sources.car, recorder.car_lane
        try:
            await recorder.read_codes()
        except CarAwayError:
            return await self._refuse("codes_unreadable", details)
        except UnavailableError:
            return {"outcome": "refused", "reason": "not_recorded"}
        await self._audit("clear_begun", details, {})
        outcome, why = await lane.run(self._measure_and_clear, car)
        if why is not None:
            return await self._refuse(why, details)
        try:
            await self._audit("clear_outcome", details, {"outcome": outcome})
        except ApplicationError as error:
            # It has happened; the caller must hear of it all the same.
            self._log.error("clearing codes ended {outcome}, not recorded: {error}", outcome=outcome, error=error)
        if outcome == "refused":
            return {"outcome": outcome, "reason": "car_refused"}
        try:
            await recorder.read_codes()
        except (CarAwayError, UnavailableError) as error:
            self._log.info("codes were not read after clearing: {error}", error=error)
        return {"outcome": outcome}

    def _measure_and_clear(self, car: Car) -> tuple[str, str | None]:
        """Clear if the car stands with its engine off; in one call of the lane, so that nothing comes in between.

        Returns:
            The outcome, and why it was not even tried (None when it was).
        """
        measured = car.measure_now(MUST_BE_ZERO, self.elapsed_ms() + _MEASURE_MS)
        why = refusal(measured.values, measured.measured_ms, self.elapsed_ms())
        if why is not None:
            return "refused", why
        return car.clear_dtcs(self.elapsed_ms() + _CLEAR_MS), None

    async def _refuse(self, reason: str, details: CallDetails) -> dict[str, object]:
        await self._audit("clear_refused", details, {"reason": reason})
        return {"outcome": "refused", "reason": reason}

    async def _read_codes(self) -> None:
        """Ask the car; who asks meanwhile gets the same answer, so that no crowd keeps the car from being recorded."""
        if len(self._waiting) >= _MOST_WAITING:
            raise ApplicationError(_TOO_MANY, "too many are waiting for the car's answer")
        waiter = Deferred[DtcReport]()
        self._waiting.append(waiter)
        if len(self._waiting) == 1:
            ensureDeferred(self.recorder.read_codes()).addBoth(self._codes_read)
        try:
            await waiter
        except CarAwayError as error:
            raise ApplicationError(_CAR_AWAY, str(error)) from error
        except UnavailableError as error:
            raise ApplicationError(_NOT_RECORDED, str(error)) from error

    def _codes_read(self, result: DtcReport | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.called:
                one.callback(result)

    async def _audit(self, step: str, details: CallDetails, what: Mapping[str, object]) -> None:
        note = {"step": step, "by": _caller(details), "role": details.caller_authrole, **what}
        # Another step that runs meanwhile does not tell them again.
        refused, self._interlock.refused = self._interlock.refused, 0
        if refused:
            note["too_many"] = refused
        try:
            await self.recorder.note(note)
        except UnavailableError as error:
            self._interlock.refused += refused
            raise ApplicationError(_NOT_RECORDED, f"{step}: {error}") from error
        # For the audit log at the router, where operators see it; the card has it in any case.
        self.link.tell("clear", note)


def _in_any_case(work: Deferred[T]) -> Deferred[T]:
    """Return what fires as `work` does; cancelling it, as Autobahn does when a caller is gone, leaves `work` alone."""
    waiter = Deferred[T]()

    def through(result: Any) -> None:  # noqa: ANN401 - a T, or a Failure
        if not waiter.called:
            (waiter.errback if isinstance(result, Failure) else waiter.callback)(result)

    work.addBoth(through)
    return waiter


def _caller(details: CallDetails) -> str:
    return str(details.caller_authid)


def _code(one: TroubleCode) -> dict[str, object]:
    return {
        "code": one.code,
        "status": one.status,
        "ecu": one.ecu,
        "first_seen": iso_ms(one.first_seen_ms),
        "last_seen": iso_ms(one.last_seen_ms),
    }
