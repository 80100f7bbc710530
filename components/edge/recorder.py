"""Sources -> readings.db, once an interval, whatever the sources, the card or the network do.

Runs on the reactor's clock; the car and the file are each behind a lane. A car that does not answer in time leaves
reasons, not holes: place and time are recorded all the same. A card that takes no rows is told of once, and tried
again at the next reading.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from components.edge import minute
from components.edge.dtc_book import DtcBook
from components.edge.gear import Gearbox
from components.edge.ports import Car, CarAwayError, DtcReport, Gps, Sample, Sim
from components.edge.sqlite_readings import Kind
from components.edge.timeline import Timeline
from components.lane import Lane
from components.timers import Timers
from components.wire.errors import UnavailableError
from components.wire.packet import Identity, TroubleCode
from components.wire.reading import Reading, check_value
from components.wire.signals import OBD_SIGNALS, Value

_DTC_EVERY_MS = 60_000
_DTC_DEADLINE_MS = 5_000
_DTC_AGAIN_MS = 10_000


class Journal(Protocol):
    """Where rows are kept; sqlite_readings.ReadingsWriter is one."""

    def append(self, session: str, rows: list[tuple[Kind, int, Mapping[str, object]]], /) -> None:
        """Keep rows (kind, ms UTC, body); durable when it returns."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What is recorded, and how often; `gearbox` and `gps` are None where there is none."""

    car: Car
    gps: Gps | None
    gearbox: Gearbox | None
    interval_ms: int
    period_s: int
    content: str
    config_hash: str


@dataclass(slots=True)
class Recorder:
    """Makes one reading an interval, and the rows that say who, when and with which codes.

    Args:
        elapsed_ms: Clock of elapsed time; `reactor` ticks by the same.
        closed: Called when a period is over and may be compacted.
        changed: Called with the codes that appeared and the codes that were cleared.
        system_clock: Source and ms UTC of the machine's own clock; None where it counts at the start only.

    Attributes:
        lost: Readings that were made and could not be kept.
        trouble: Why the latest could not be kept; "" while all goes well.
    """

    reactor: Timers
    elapsed_ms: Callable[[], int]
    sources: Sources
    car_lane: Lane
    file_lane: Lane
    journal: Journal
    timeline: Timeline
    new_session: Callable[[], str]
    closed: Callable[[], object]
    changed: Callable[[tuple[object, ...], tuple[TroubleCode, ...]], None]
    system_clock: Callable[[], tuple[str, int]] | None = None
    book: DtcBook = field(default_factory=DtcBook)
    sim: Sim = field(default_factory=Sim)
    latest: Reading | None = None
    recorded: int = 0
    lost: int = 0
    trouble: str = ""
    _pending: Deferred[Sample] | None = None
    _asking: Deferred[None] | None = None
    _resting: Deferred[None] | None = None
    _identity: Identity | None = None
    _written: tuple[str, int] | None = None
    _opened: str = ""
    _dtcs_due_ms: int = 0
    _stopping: bool = False
    _log = Logger()

    async def run(self) -> None:
        """Record until `stop`; returns when the last reading is on the card. Nothing else ends it."""
        due_ms = self.elapsed_ms()
        while not self._stopping:
            try:
                await self._record(due_ms)
            except Exception as error:  # noqa: BLE001 - a car without a recorder is worse than any error here
                self._not_kept(error)
            self._ask_codes_if_due()
            due_ms += self.sources.interval_ms
            late_ms = self.elapsed_ms() - due_ms
            if late_ms > 0:
                # Missed ticks are gone; the next one keeps the rhythm.
                due_ms += -(-late_ms // self.sources.interval_ms) * self.sources.interval_ms
            if not self._stopping:
                pause_s = max(0.0, (due_ms - self.elapsed_ms()) / 1000)
                self._resting = deferLater(self.reactor, pause_s)  # type: ignore[arg-type]
                with suppress(CancelledError):
                    await self._resting
        if self._asking is not None:
            await self._asking

    def stop(self) -> None:
        """Let `run` return after the reading in hand."""
        self._stopping = True
        if self._resting is not None:
            self._resting.cancel()

    def begin_session(self) -> None:
        """Begin a session on the same clock, as the file that has the rows of this one is no more."""
        self.timeline, self._identity = replace(self.timeline, session=self.new_session()), None
        self._dtcs_due_ms = self.elapsed_ms()

    async def read_codes(self) -> DtcReport:
        """Ask the car for its codes now, and record them.

        Raises:
            CarAwayError: It did not answer whole.
            UnavailableError: It did, and the answer could not be recorded.
        """
        report = await self.car_lane.run(self.sources.car.read_dtcs, self.elapsed_ms() + _DTC_DEADLINE_MS)
        at_ms = self.timeline.at(report.at_ms)
        self.book, appeared, cleared = self.book.updated(report, at_ms)
        try:
            await self._write([("dtcs", at_ms, minute.dtcs_body(self.book.codes, report.freeze_frame))])
        finally:
            if appeared or cleared:
                self.changed(appeared, cleared)
        return report

    async def note(self, body: Mapping[str, object]) -> None:
        """Add a row to the audit trail; UnavailableError when it could not be written."""
        await self._write([("audit", self.timeline.at(self.elapsed_ms()), body)])

    async def _record(self, due_ms: int) -> None:
        sources = self.sources
        deadline_ms = due_ms + sources.interval_ms * 8 // 10
        sample = await self._sample_car(deadline_ms)
        now_ms = self.elapsed_ms()
        self._correct_clock(now_ms)
        reading = self._reading(sample, now_ms)
        self.latest = reading
        rows: list[tuple[Kind, int, Mapping[str, object]]] = []
        identity = self._identify()
        if identity != self._identity:
            self._identity = identity
            rows.append(("identity", reading.at_ms, _identity_body(identity)))
        rows.append(("reading", reading.at_ms, minute.reading_body(reading)))
        of = self.timeline.session, minute.period_of(reading.at_ms, sources.period_s)
        try:
            await self._write(rows)
        except UnavailableError:
            self._identity = None
            raise
        self.recorded += 1
        if self.trouble:
            self._log.info("readings are kept again; {lost} were lost", lost=self.lost)
            self.trouble = ""
        before, self._written = self._written, of
        if before is not None and before != of:
            self.closed()

    def _not_kept(self, error: Exception) -> None:
        self.lost += 1
        if str(error) != self.trouble:
            self._log.error("a reading is lost, and each that follows until this ends: {error!r}", error=error)
            self.trouble = str(error) or type(error).__name__

    async def _sample_car(self, deadline_ms: int) -> Sample:
        """Ask the car; a call that overruns its deadline goes on, and its values come with a later reading."""
        if self._pending is None:
            self._pending = ensureDeferred(self.car_lane.run(self.sources.car.sample, deadline_ms))
            self._pending.addErrback(self._car_broke)
        pending, waiting = self._pending, Deferred[Sample | None]()
        # A tenth of the interval after the deadline: another tenth is left to write the reading in.
        grace_ms = self.sources.interval_ms // 10
        alarm_ms = max(grace_ms, deadline_ms + grace_ms - self.elapsed_ms())
        alarm = self.reactor.callLater(alarm_ms / 1000, waiting.callback, None)

        def came(result: Sample) -> Sample:
            if alarm.active():
                alarm.cancel()
                waiting.callback(result)
            return result

        pending.addCallback(came)
        sample = await waiting
        if sample is None:
            return Sample({}, {}, {signal.key: "timeout" for signal in OBD_SIGNALS})
        self._pending = None
        return sample

    def _car_broke(self, failure: Any) -> Sample:  # noqa: ANN401 - twisted's Failure
        """Go on without a car that raised, which it never may."""
        self._log.failure("the car's driver failed", failure)
        return Sample({}, {}, {signal.key: "adapter_error" for signal in OBD_SIGNALS})

    def _reading(self, car: Sample, now_ms: int) -> Reading:
        values: dict[str, Value] = dict(car.values)
        why: dict[str, str] = dict(car.why)
        measured = dict(car.measured_ms)
        gps = self.sources.gps.sample(now_ms) if self.sources.gps is not None else None
        if gps is None:
            why |= dict.fromkeys(("location", "heading", "altitude", "climb", "gps_speed", "gps_fix"), "unsupported")
        else:
            values |= gps.values
            why |= gps.why
            measured |= gps.measured_ms
        if self.sources.gearbox is None:
            why["gear"] = "unsupported"
        elif (gear := self.sources.gearbox.gear(values)) is None:
            why["gear"] = "no_data"
        else:
            values["gear"] = gear
            measured["gear"] = min(measured["rpm"], measured["speed"])
        for key in [key for key, value in values.items() if not _can_be(key, value)]:
            # What no packet can carry would keep its whole minute from the server.
            del values[key], measured[key]
            why[key] = "out_of_range"
        age_ms = {key: now_ms - at_ms for key, at_ms in measured.items() if now_ms > at_ms}
        return Reading.checked(self.timeline.at(now_ms), values, why, age_ms)

    def _correct_clock(self, now_ms: int) -> None:
        told: list[tuple[str, int, int]] = []
        if self.sources.gps is not None and (heard := self.sources.gps.utc_ms()) is not None:
            told.append(("gps", *heard))
        if self.system_clock is not None:
            told.append((*self.system_clock(), now_ms))
        for source, utc_ms, elapsed_ms in told:
            corrected = self.timeline.corrected(source, utc_ms, elapsed_ms, self.new_session())
            if corrected is not None:
                self._begin(corrected, now_ms)

    def _begin(self, corrected: Timeline, now_ms: int) -> None:
        self._log.info(
            "clock corrected by {offset_ms} ms from {source}: session {session} begins",
            offset_ms=corrected.base_ms - self.timeline.base_ms,
            source=corrected.source,
            session=corrected.session,
        )
        self.book = self.book.shifted(corrected.base_ms - self.timeline.base_ms)
        self.timeline, self._identity = corrected, None
        self._dtcs_due_ms = now_ms

    def _identify(self) -> Identity:
        state, sim = self.sources.car.state(), self.sim
        found = {
            "vin": (state.vin, state.vin_why),
            "iccid": (sim.iccid, sim.iccid_why),
            "imei": (sim.imei, sim.imei_why),
        }
        why = {key: reason for key, (value, reason) in found.items() if value is None}
        return Identity(state.vin, sim.iccid, sim.imei, why)

    def _ask_codes_if_due(self) -> None:
        """Ask beside the readings, which would have a hole if they waited for it."""
        if self.elapsed_ms() >= self._dtcs_due_ms and not self._stopping and (not self._asking or self._asking.called):
            self._asking = ensureDeferred(self._ask_codes())

    async def _ask_codes(self) -> None:
        # Set before, as a new session that begins meanwhile wants them again at once.
        self._dtcs_due_ms = self.elapsed_ms() + _DTC_EVERY_MS
        try:
            await self.read_codes()
        except (CarAwayError, UnavailableError) as error:
            self._log.debug("no codes: {error}", error=error)
            self._dtcs_due_ms = self.elapsed_ms() + _DTC_AGAIN_MS
        except Exception:  # noqa: BLE001 - as in `run`
            self._log.failure("the car's driver failed at the codes")

    async def _write(self, rows: list[tuple[Kind, int, Mapping[str, object]]]) -> None:
        try:
            await self.file_lane.run(self._append, self.timeline, rows)
        except Exception as error:
            raise UnavailableError(str(error) or type(error).__name__) from error

    def _append(self, timeline: Timeline, rows: list[tuple[Kind, int, Mapping[str, object]]]) -> None:
        """Write in the file's lane; the first rows of a session come with the one that opens it, or not at all."""
        if self._opened != timeline.session:
            opening = minute.session_body(
                timeline.source,
                timeline.fix,
                self.sources.interval_ms,
                self.sources.period_s,
                self.sources.content,
                self.sources.config_hash,
            )
            rows = [("session", rows[0][1], opening), *rows]
        self.journal.append(timeline.session, rows)
        self._opened = timeline.session


def _can_be(key: str, value: Value) -> bool:
    try:
        check_value(key, value)
    except ValueError:
        return False
    return True


def _identity_body(identity: Identity) -> Mapping[str, object]:
    return {"vin": identity.vin, "iccid": identity.iccid, "imei": identity.imei, "why": identity.why}
