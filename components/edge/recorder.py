"""Sources -> readings.db, once an interval, whatever the sources, the card or the network do.

Runs on the reactor's clock; the car and the file are each behind a lane. A car that does not answer in time leaves
reasons, not holes: place and time are recorded all the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from twisted.internet.defer import Deferred, ensureDeferred
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
    """

    reactor: Timers
    elapsed_ms: Callable[[], int]
    sources: Sources
    car_lane: Lane
    file_lane: Lane
    journal: Journal
    timeline: Timeline
    new_session: Callable[[], str]
    closed: Callable[[], None]
    changed: Callable[[tuple[object, ...], tuple[TroubleCode, ...]], None]
    book: DtcBook = field(default_factory=DtcBook)
    sim: Sim = field(default_factory=Sim)
    latest: Reading | None = None
    recorded: int = 0
    _pending: Deferred[Sample] | None = None
    _identity: Identity | None = None
    _opened: bool = False
    _dtcs_due_ms: int = 0
    _stopping: bool = False
    _log = Logger()

    async def run(self) -> None:
        """Record until `stop`; returns when the last reading is on the card."""
        due_ms = self.elapsed_ms()
        while not self._stopping:
            await self._record(due_ms)
            if self.elapsed_ms() >= self._dtcs_due_ms and not self._stopping:
                await self._ask_codes()
            due_ms += self.sources.interval_ms
            late_ms = self.elapsed_ms() - due_ms
            if late_ms > 0:
                # Missed ticks are gone; the next one keeps the rhythm.
                due_ms += -(-late_ms // self.sources.interval_ms) * self.sources.interval_ms
            pause_s = max(0.0, (due_ms - self.elapsed_ms()) / 1000)
            await deferLater(self.reactor, pause_s)  # type: ignore[arg-type]

    def stop(self) -> None:
        """Let `run` return after the reading in hand."""
        self._stopping = True

    async def read_codes(self) -> DtcReport:
        """Ask the car for its codes now, and record them; CarAwayError when it does not answer whole."""
        report = await self.car_lane.run(self.sources.car.read_dtcs, self.elapsed_ms() + _DTC_DEADLINE_MS)
        at_ms = self.timeline.at(report.at_ms)
        self.book, appeared, cleared = self.book.updated(report, at_ms)
        await self._write([("dtcs", at_ms, minute.dtcs_body(self.book.codes, report.freeze_frame))])
        if appeared or cleared:
            self.changed(appeared, cleared)
        return report

    async def note(self, body: Mapping[str, object]) -> None:
        """Add a row to the audit trail."""
        await self._write([("audit", self.timeline.at(self.elapsed_ms()), body)])

    async def _record(self, due_ms: int) -> None:
        sources = self.sources
        deadline_ms = due_ms + sources.interval_ms * 8 // 10
        sample = await self._sample_car(deadline_ms)
        now_ms = self.elapsed_ms()
        self._correct_clock(now_ms)
        reading = self._reading(sample, now_ms)
        before, self.latest = self.latest, reading
        rows: list[tuple[Kind, int, Mapping[str, object]]] = []
        identity = self._identify()
        if identity != self._identity:
            self._identity = identity
            rows.append(("identity", reading.at_ms, _identity_body(identity)))
        rows.append(("reading", reading.at_ms, minute.reading_body(reading)))
        await self._write(rows)
        self.recorded += 1
        if before is not None and self._period(before) != self._period(reading):
            self.closed()

    async def _sample_car(self, deadline_ms: int) -> Sample:
        """Ask the car; a call that overruns its deadline goes on, and its values come with a later reading."""
        if self._pending is None:
            self._pending = ensureDeferred(self.car_lane.run(self.sources.car.sample, deadline_ms))
        pending, waiting = self._pending, Deferred[Sample | None]()
        alarm = self.reactor.callLater(
            max(0.05, (deadline_ms - self.elapsed_ms()) / 1000 + 0.1), waiting.callback, None
        )

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
        heard = self.sources.gps.utc_ms() if self.sources.gps is not None else None
        if heard is None:
            return
        corrected = self.timeline.corrected("gps", heard[0], heard[1], self.new_session())
        if corrected is not None:
            self._log.info(
                "clock corrected by {offset_ms} ms from gps: session {session} begins",
                offset_ms=corrected.base_ms - self.timeline.base_ms,
                session=corrected.session,
            )
            self.timeline, self._opened, self._identity = corrected, False, None
            self.book = replace(self.book, read_at_ms=None)
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

    async def _ask_codes(self) -> None:
        try:
            await self.read_codes()
            self._dtcs_due_ms = self.elapsed_ms() + _DTC_EVERY_MS
        except CarAwayError as error:
            self._log.debug("no codes: {error}", error=error)
            self._dtcs_due_ms = self.elapsed_ms() + _DTC_AGAIN_MS

    async def _write(self, rows: list[tuple[Kind, int, Mapping[str, object]]]) -> None:
        timeline = self.timeline
        if not self._opened:
            self._opened = True
            opening = minute.session_body(
                timeline.source,
                timeline.fix,
                self.sources.interval_ms,
                self.sources.period_s,
                self.sources.content,
                self.sources.config_hash,
            )
            rows = [("session", rows[0][1], opening), *rows]
        await self.file_lane.run(self.journal.append, timeline.session, rows)

    def _period(self, reading: Reading) -> int:
        return minute.period_of(reading.at_ms, self.sources.period_s)


def _can_be(key: str, value: Value) -> bool:
    try:
        check_value(key, value)
    except ValueError:
        return False
    return True


def _identity_body(identity: Identity) -> Mapping[str, object]:
    return {"vin": identity.vin, "iccid": identity.iccid, "imei": identity.imei, "why": identity.why}
