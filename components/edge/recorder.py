"""Sources -> readings.db, once an interval, whatever the sources, the card or the network do.

Runs on the reactor's clock; the car and the file are each behind a lane. A car that does not answer in time leaves
reasons, not holes: place and time are recorded all the same. A card that takes no rows is told of once, and tried
again at the next reading.

While the car sleeps (`power` says when) nothing is recorded and its bus is left alone. Sleep ends a session: its last
period is packed early, and a row that came later would be lost as part of a packet that is there already.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from components.edge import minute
from components.edge.choice import Choice
from components.edge.dtc_book import DtcBook
from components.edge.gear import Gearbox
from components.edge.ports import Car, CarAwayError, DtcReport, Gps, Sample, Sim
from components.edge.power import LOOK_EVERY_MS, Limits, Look, Order, Power
from components.edge.sqlite_readings import Kind
from components.edge.timeline import Confirmation, Timeline, Told
from components.lane import Lane
from components.timers import Timers
from components.wire.errors import UnavailableError
from components.wire.packet import Identity, TroubleCode
from components.wire.reading import Reading, check_value
from components.wire.signals import OBD_SIGNALS, Value
from components.wire.times import iso_ms

_DTC_EVERY_MS = 60_000
_DTC_DEADLINE_MS = 5_000
_DTC_AGAIN_MS = 10_000
_NO_SAMPLE = Sample({}, {}, {signal.key: "timeout" for signal in OBD_SIGNALS})


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
    choice: Choice = field(default_factory=Choice)


@dataclass(slots=True)
class Recorder:
    """Makes one reading an interval, and the rows that say who, when and with which codes.

    Args:
        elapsed_ms: Clock of elapsed time; `reactor` ticks by the same.
        closed: Called when a period is over and may be compacted.
        changed: Called with the codes that appeared and the codes that were cleared.
        power: Whether the car is awake.
        power_changed: Called with what is to be done now: at `sleep` the session has ended with its last reading, at
            `wake` a new one begins, at `command` the configured command is due.
        sent: Whether the packet that was closed when the car fell asleep has its receipt.
        network_time: The machine's own clock while the network keeps it right; None while it does not.
        turned: Called when the loop has turned: a reading was kept, or refused by the card, or a sleeping car looked
            at. Not called where it failed in another way.

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
    power: Power = field(default_factory=lambda: Power(Limits(), 0))
    power_changed: Callable[[Order], object] = lambda _order: None
    sent: Callable[[], bool] = lambda: True
    network_time: Callable[[], Told | None] = lambda: None
    turned: Callable[[], object] = lambda: None
    book: DtcBook = field(default_factory=DtcBook)
    sim: Sim = field(default_factory=Sim)
    latest: Reading | None = None
    recorded: int = 0
    lost: int = 0
    trouble: str = ""
    _pending: Deferred[Sample] | None = None
    _latest_sample: Sample = _NO_SAMPLE
    _asking: Deferred[None] | None = None
    _resting: Deferred[None] | None = None
    _gps_time: Confirmation = field(default_factory=Confirmation)
    _latest_told: Told | None = None
    _doubts: set[tuple[str, str]] = field(default_factory=set)
    _identity: Identity | None = None
    _vin: tuple[str | None, str] = None, "no_data"
    _written: tuple[str, int] | None = None
    _opened: str = ""
    _dtcs_due_ms: int = 0
    _at_rest: bool = False
    _stopping: bool = False
    _log = Logger()

    async def run(self) -> None:
        """Record until `stop`; returns when the last reading is on the card. Nothing else ends it."""
        due_ms = self.elapsed_ms()
        while not self._stopping:
            try:
                await self._take_turn(due_ms)
                self.turned()
            except Exception as error:  # noqa: BLE001 - a car without a recorder is worse than any error here
                self._not_kept(error)
                # A card that takes no rows takes none from a new process; another fault may be gone in one.
                if isinstance(error, UnavailableError):
                    self.turned()
            self._ask_codes_if_due()
            interval_ms = self.interval_ms
            due_ms += interval_ms
            late_ms = self.elapsed_ms() - due_ms
            if late_ms >= 0:
                # Missed ticks are gone; the next one keeps the rhythm, and is not now: no two readings are of one time.
                due_ms += (late_ms // interval_ms + 1) * interval_ms
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
        """Begin a session on the same clock, as the file that has the rows of this one is no more.

        One of which no row was kept goes on, with what its first packet has to tell of the one before.
        """
        if self._opened == self.timeline.session:
            self.timeline = self.timeline.renewed(self.new_session())
        self._identity, self._dtcs_due_ms = None, self.elapsed_ms()

    async def read_codes(self) -> DtcReport:
        """Ask the car for its codes now, and record them.

        Raises:
            CarAwayError: It did not answer whole.
            UnavailableError: It did, and the answer could not be recorded.
        """
        report = await self.car_lane.run(self.sources.car.read_dtcs, self.elapsed_ms() + _DTC_DEADLINE_MS)
        at_ms = self.timeline.at(report.at_ms)
        self.book, appeared, cleared = self.book.updated(report, at_ms)
        frozen = {key: value for key, value in report.freeze_frame.items() if key in self.sources.choice.wanted}
        try:
            await self._write([("dtcs", at_ms, minute.dtcs_body(self.book.codes, frozen))])
        finally:
            if appeared or cleared:
                self.changed(appeared, cleared)
        return report

    async def note(self, body: Mapping[str, object]) -> None:
        """Add a row to the audit trail; UnavailableError when it could not be written."""
        await self._write([("audit", self.timeline.at(self.elapsed_ms()), body)])

    @property
    def interval_ms(self) -> int:
        """From one turn to the next; most of it may be taken by the car."""
        return LOOK_EVERY_MS if self._at_rest else self.sources.interval_ms

    async def _take_turn(self, due_ms: int) -> None:
        """Make a reading: of a car that is awake, or the last one before it sleeps; or look whether it still sleeps."""
        car = self.sources.car
        if self._at_rest:
            if self.power.state == "asleep":
                ask = car.sample if self.power.tries_bus(self.elapsed_ms()) else car.rest
                self._look(await self._sample_car(ask, due_ms))
                self._correct_clock(self.elapsed_ms())
            if self.power.state == "awake":
                self._wake()
                await self._record(car.sample, self.elapsed_ms())
        elif self.power.state == "asleep":
            self._at_rest = True
            try:
                await self._record(car.rest, due_ms)
            finally:
                self.power_changed("sleep")
        else:
            await self._record(car.sample, due_ms)

    def _look(self, sample: Sample) -> None:
        """Let `power` conclude from what the car said."""
        state = self.sources.car.state()
        rpm, speed = (cast("float | None", sample.values.get(key)) for key in ("rpm", "speed"))
        has_rpm = sample.why.get("rpm") != "unsupported"
        look = Look(self.elapsed_ms(), rpm, speed, state.voltage_v, state.voltage_ms, self.sent(), has_rpm)
        if self.power.heard(look) == "command":
            self.power_changed("command")

    def _wake(self) -> None:
        """Begin a session: the packet of this very minute may be made already, and none is made twice."""
        self._at_rest = False
        self._pending = None  # it would say `asleep` of a car that is awake
        if self._opened == self.timeline.session and self.latest is not None:
            told, newest_ms = self._latest_told, self.latest.at_ms
            self.timeline = self.timeline.woken(self.new_session(), told, newest_ms, self.elapsed_ms())
            self.book = self.book.shifted(0)
        self._identity, self._dtcs_due_ms = None, self.elapsed_ms()
        self.power_changed("wake")

    async def _record(self, ask: Callable[[int], Sample], due_ms: int) -> None:
        sources = self.sources
        sample = await self._sample_car(ask, due_ms)
        if self.elapsed_ms() > due_ms + 2 * self.interval_ms:
            # The machine was suspended meanwhile: what was measured before is asked again.
            sample = await self._sample_car(ask, self.elapsed_ms())
        self._look(sample)
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

    async def _sample_car(self, ask: Callable[[int], Sample], due_ms: int) -> Sample:
        """Ask the car; a call that overruns its deadline goes on, and its values come with a later reading.

        Until then those of the sample before stay as long as each may, while the car is connected.
        """
        deadline_ms = due_ms + self.interval_ms * 8 // 10
        if self._pending is None:
            self._pending = ensureDeferred(self.car_lane.run(ask, deadline_ms))
            self._pending.addErrback(self._car_broke)
        pending, waiting = self._pending, Deferred[Sample | None]()
        # A tenth of the interval after the deadline: another tenth is left to write the reading in.
        grace_ms = self.interval_ms // 10
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
            if not self.sources.car.state().connected:
                self._latest_sample = _NO_SAMPLE
            return self._latest_sample.kept(self.elapsed_ms())
        self._pending, self._latest_sample = None, sample
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
        self.sources.choice.apply(values, measured, why)
        for key in [key for key, value in values.items() if not _can_be(key, value)]:
            # What no packet can carry would keep its whole minute from the server.
            del values[key], measured[key]
            why[key] = "out_of_range"
        age_ms = {key: now_ms - at_ms for key, at_ms in measured.items() if now_ms > at_ms}
        return Reading.checked(self.timeline.at(now_ms), values, why, age_ms)

    def _correct_clock(self, now_ms: int) -> None:
        told: list[Told] = []
        if self.sources.gps is not None and (heard := self.sources.gps.utc_ms()) is not None:
            fix = Told("gps", *heard)
            if self._gps_time.heard(fix):
                told.append(fix)
            self._say_doubt(fix, self._gps_time.doubt)
        if (network := self.network_time()) is not None:
            told.append(network)
            self._say_doubt(network, network.doubt)
        for one in told:
            kept = self._opened == self.timeline.session
            corrected = self.timeline.corrected(one, self.new_session(), kept=kept)
            if corrected is not None:
                self._begin(corrected, now_ms)
            if one.source == self.timeline.source:
                self._latest_told = one

    def _say_doubt(self, told: Told, why: str) -> None:
        if why and (told.source, why) not in self._doubts:
            self._doubts.add((told.source, why))
            self._log.warn(
                "the time of {source}, {at}, is not believed: {why}",
                source=told.source,
                at=iso_ms(told.utc_ms),
                why=why,
            )

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
        """Who is recorded; the car that was met last stays while the adapter looks for it anew."""
        state, sim = self.sources.car.state(), self.sim
        if state.connected or state.vin is not None:
            self._vin = state.vin, state.vin_why
        vin, vin_why = self._vin
        found = {
            "vin": (vin, vin_why),
            "iccid": (sim.iccid, sim.iccid_why),
            "imei": (sim.imei, sim.imei_why),
        }
        why = {key: reason for key, (value, reason) in found.items() if value is None}
        return Identity(vin, sim.iccid, sim.imei, why)

    def _ask_codes_if_due(self) -> None:
        """Ask beside the readings, which would have a hole if they waited for it."""
        is_wanted = not self._stopping and self.power.state == "awake" and self.elapsed_ms() >= self._dtcs_due_ms
        if is_wanted and (not self._asking or self._asking.called):
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
        """Write in the file's lane. A session is opened with its first reading: their time tells its first packet."""
        opens = self._opened != timeline.session and any(kind == "reading" for kind, _, _ in rows)
        if opens:
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
        if opens:
            self._opened = timeline.session


def _can_be(key: str, value: Value) -> bool:
    try:
        check_value(key, value)
    except ValueError:
        return False
    return True


def _identity_body(identity: Identity) -> Mapping[str, object]:
    return {"vin": identity.vin, "iccid": identity.iccid, "imei": identity.imei, "why": identity.why}
