"""The car behind an ELM327 on a serial line: values, trouble codes, one clearing. Rim; blocks, one thread.

What it is not: it keeps no history and knows no wall clock. `obd_link` owns the line and mends it, `schedule` says
what is due, `obd_parser` (the one place with python-OBD) reads what the car says.

Every value is one that the car said: the ECU that owns the PID answered positively, with the mode, the PIDs and the
lengths that were asked. What is rejected has a reason of wire.signals.REASONS at once; a value that there was no time
to ask again stays, with its time, until it is three periods old.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Literal

from components.edge.grouping import Grouping, Request
from components.edge.obd_codes import clear, read_codes
from components.edge.obd_link import ObdLink, Reply
from components.edge.obd_parser import decode, parse_pids
from components.edge.ports import CarAwayError, CarState, DtcReport, Sample
from components.edge.schedule import Schedule
from components.edge.serial_line import Clock, Line, SerialLine
from components.edge.timing import Timing
from components.edge.usb_ports import find_obd_ports
from components.wire.signals import OBD_SIGNALS, Signal, Value

_WIDE_BAND: Final = {"o211": (0x24, 0x34), "o212": (0x25, 0x35)}
"""The PIDs by which a car with wide-band sensors answers instead. Source: signals.md."""
_VOLTAGE_EVERY_MS: Final = 5_000
"""What decides whether the car is asleep looks at it."""
_AWAY_AFTER_MS: Final = 1_500
"""So long without one value, and more than one answer without any: the car is away."""
_LOOK_FIRST_MS: Final = 5_000
_LOOK_AGAIN_MS: Final = 600_000
_STARTING_MS: Final = 3_000
"""From the engine's start until all ECUs are awake, about."""
_START_V: Final = 0.5
"""By which the voltage rises when the engine starts: the generator's share is more, what a fan takes is less."""


class ObdCar:
    """Implements ports.Car over an ELM327.

    Args:
        port: Device path, `socket://host:port`, or "auto" (usb_ports).
        baud: Bits a second of a serial line.
        protocol: "auto", or the number of a bus as in the ELM327 data sheet ("6": CAN 11/500).
        clock: Returns elapsed ms.
        not_ports: Device paths that "auto" never opens: the modem's.
        period_ms: The sampling period.
        wanted: Keys of the signals to ask; None: all. `sample` has no other, for the reason `unsupported`.
        rates: Seconds by signal key, as in Schedule.
        open_line: Opens a port; for tests.
    """

    def __init__(
        self,
        port: str,
        baud: int = 38_400,
        protocol: str = "auto",
        *,
        clock: Clock,
        not_ports: Sequence[str] = (),
        period_ms: int = 1_000,
        wanted: Collection[str] | None = None,
        rates: Mapping[str, float] | None = None,
        open_line: Callable[[str, int], Line] | None = None,
    ) -> None:
        def serial_line(url: str, until_ms: int) -> Line:
            return SerialLine(url, baud, clock, until_ms)

        def ports() -> Sequence[str]:
            return find_obd_ports(not_ports=not_ports) if port == "auto" else (port,)

        self._clock = clock
        self._period_ms = period_ms
        self._wanted = tuple(signal for signal in OBD_SIGNALS if wanted is None or signal.key in wanted)
        self._rates = dict(rates or {})
        self._link = ObdLink(ports, open_line or serial_line, protocol, clock)
        self._rejected: Counter[str] = Counter()
        self._meeting = 0
        self._vin = ""
        self._missed_codes: dict[tuple[int, str], int] = {}
        self._voltage_ms = 0
        self._begin_session()
        self._state = CarState()

    def sample(self, deadline_ms: int) -> Sample:
        """See ports.Car."""
        if self._ready(deadline_ms) and self._look_again(deadline_ms):
            now_ms = self._clock()
            if now_ms - self._voltage_ms >= _VOLTAGE_EVERY_MS:
                self._voltage_ms = now_ms
                self._orders.append("ATRV")
            self._ask(self._schedule.due(now_ms), deadline_ms)
        self._note_state()
        keys = {signal.key for signal in self._wanted}
        return self._latest({signal.key: signal.key in keys for signal in OBD_SIGNALS})

    def measure_now(self, keys: tuple[str, ...], deadline_ms: int) -> Sample:
        """See ports.Car."""
        if self._ready(deadline_ms) and self._take_up(deadline_ms):
            for key in keys:  # an earlier value is no answer to "now"
                self._values.pop(key, None)
                self._why[key] = "timeout"
            self._ask([self._has[key] for key in keys if key in self._has], deadline_ms)
        self._note_state()
        return self._latest(dict.fromkeys(keys, True))

    def rest(self, deadline_ms: int) -> Sample:
        """See ports.Car."""
        self._link.rest(deadline_ms)
        self._note_state()
        return Sample({}, {}, {signal.key: "asleep" for signal in OBD_SIGNALS})

    def read_dtcs(self, deadline_ms: int) -> DtcReport:
        """See ports.Car."""
        if not (self._ready(deadline_ms) and self._take_up(deadline_ms)):
            raise CarAwayError(self._link.trouble or "the car does not answer")
        try:
            return read_codes(self._link, deadline_ms, self._missed_codes)
        finally:
            self._note_state()

    def clear_dtcs(self, deadline_ms: int) -> Literal["cleared", "refused", "unknown"]:
        """See ports.Car."""
        is_free = self._ready(deadline_ms) and self._take_up(deadline_ms)
        outcome = clear(self._link, deadline_ms) if is_free else "unknown"
        self._note_state()
        return outcome

    def state(self) -> CarState:
        """See ports.Car."""
        return self._state

    def close(self) -> None:
        """See ports.Car."""
        self._link.close()
        self._note_state()

    def _ready(self, deadline_ms: int) -> bool:
        """Connect as far as the deadline lets it; take over what a new meeting taught."""
        ready = self._link.advance(deadline_ms)
        if self._link.meetings != self._meeting:
            self._meeting = self._link.meetings
            self._begin_session()
        return ready

    def _begin_session(self) -> None:
        """Forget everything about the car that was; nothing learnt of it is trusted after a reconnection."""
        known = self._link.known
        owners: dict[int, str] = {}
        for ecu, has in known.pids.items():
            for pid in has:
                owners.setdefault(pid, ecu)
        self._owners = owners
        self._has = {signal.key: signal for signal in OBD_SIGNALS if signal.pid in owners}
        self._absent = {
            key: "wide_band" for key, pids in _WIDE_BAND.items() if key not in self._has and owners.keys() & pids
        }
        asked = [signal for signal in self._wanted if signal.key in self._has]
        self._schedule = Schedule(asked, self._period_ms, self._rates)
        self._grouping = Grouping(known.bus, known.pids)
        self._timing = Timing()
        self._values: dict[str, Value] = {}
        self._measured_ms: dict[str, int] = {}
        self._why: dict[str, str] = {}
        self._orders: list[str] = []
        self._asked: Request | str = ""
        if known.vin is not None and known.vin != self._vin:
            self._vin, self._missed_codes = known.vin, {}
        self._voltage_ms = self._clock()  # `meet` has just asked
        self._learnt_ms = self._found_ms = self._clock()
        self._look_again_ms = self._learnt_ms + _LOOK_FIRST_MS
        self._fruitless = 0
        self._is_behind = False

    def _take_up(self, deadline_ms: int) -> bool:
        """Wait for what an earlier call has asked; return whether the adapter is free for another question."""
        if self._link.is_waiting:
            self._ask((), deadline_ms)
        return self._link.state == "ready" and not self._link.is_waiting

    def _ask(self, signals: Sequence[Signal], deadline_ms: int) -> None:
        """Ask these, the most urgent first, as long as there is time.

        What is on its way at the deadline is taken up by the next call: on a slow adapter no request is in vain. Where
        the call before had no time for all of its signals, no request is sent half full: what is due again goes along.
        """
        was_behind, unanswered = self._is_behind, {signal.key for signal in signals}
        if self._link.is_waiting and isinstance(self._asked, Request):
            under_way = self._asked.signals
            signals = [signal for signal in signals if signal not in under_way]
        while self._link.state == "ready" and self._clock() < deadline_ms:
            if not self._link.is_waiting:
                if was_behind and unanswered and len(signals) < self._grouping.size:
                    signals = self._schedule.due(self._clock())
                if self._orders:
                    self._send(self._orders.pop(0))
                elif signals:
                    self._send(request := self._grouping.request(signals))
                    signals = [signal for signal in signals if signal not in request.signals]
                else:
                    break
            reply = self._link.reply(deadline_ms)
            if reply is None:
                break
            if isinstance(self._asked, Request):
                unanswered -= {signal.key for signal in self._asked.signals}
            signals = [*self._heard(reply), *signals]
            if reply.answer.reason == "bus_error":
                break
        self._is_behind = bool(unanswered)

    def _send(self, what: Request | str) -> None:
        self._asked = what
        if isinstance(what, str):
            self._link.send(what, lambda _: False)
            return
        begins = {bytes((0x41, signal.pid or 0)) for signal in what.signals} | {b"\x7f\x01"}
        self._link.send(what.command, lambda message: message.data[:2] in begins)

    def _heard(self, reply: Reply) -> Collection[Signal]:
        """Note what an answer says; return what to ask again at once."""
        request, answer = self._asked, reply.answer
        if isinstance(request, str):
            if "?" in answer.text_lines and request != "ATRV":
                self._timing.refused()
            return ()
        found, why = parse_pids(reply.heard, 1, {signal.pid or 0: signal.size for signal in request.signals})
        why = answer.reason or (why if answer.prompted or why != "no_data" else "timeout")
        data = {
            signal.key: found.get(signal.pid or 0, {}).get(self._owners[signal.pid or 0]) for signal in request.signals
        }
        answered = [signal for signal in request.signals if data[signal.key] is not None]
        missing = [signal for signal in request.signals if data[signal.key] is None]
        self._rejected.update(why for _ in missing)
        self._find_car(request, why, reply, is_fruitful=bool(answered))
        again = self._learn(request, missing, why, reply)
        for signal in answered:
            self._note(signal, data[signal.key] or b"", reply.at_ms)
        missing = [signal for signal in missing if signal not in again]
        for signal in missing:
            self._values.pop(signal.key, None)
            self._why[signal.key] = why
        self._schedule.answered([signal for signal in answered if signal not in again], reply.at_ms)
        if why in {"no_data", "negative_response"}:
            self._schedule.silent(missing, reply.at_ms)
        else:
            self._schedule.failed(missing, reply.at_ms)
        return again

    def _learn(self, request: Request, missing: Sequence[Signal], why: str, reply: Reply) -> Collection[Signal]:
        """Learn from an answer how to ask; return what to ask again at once."""
        if missing and reply.answer.reason == "no_data" and not reply.heard.messages and self._timing.had_no_data():
            self._orders += self._timing.commands
            return request.signals
        if not missing and not request.is_counted and self._timing.answered():
            self._orders += self._timing.commands
        return self._grouping.heard(request, missing, why, len(reply.answer.hex_lines))

    def _find_car(self, request: Request, why: str, reply: Reply, *, is_fruitful: bool) -> None:
        """Tell what the adapter says that is wrong; where nothing comes any more, look for the car anew."""
        keys, silent = {signal.key for signal in request.signals}, self._grouping.silent
        if is_fruitful:
            self._fruitless, self._found_ms = 0, reply.at_ms
            self._link.tell("")
        elif self._link.state == "ready" and (not keys <= silent or self._has.keys() <= silent):
            self._fruitless += 1
            self._link.tell(reply.answer.words)
            if self._fruitless > 1 and reply.at_ms - self._found_ms >= _AWAY_AFTER_MS:
                self._link.lose_car(why, reply.answer.words)

    def _look_again(self, deadline_ms: int) -> bool:
        """Ask what the car has once more when it is time; return whether the link is ready.

        Soon after the beginning and after the engine's start, when ECUs may have slept, and every 10 minutes. Every 10
        minutes it is also learnt anew what a request may hold: one bad moment is not held against the car for ever.
        """
        now_ms = self._clock()
        if now_ms < self._look_again_ms:
            return True
        if not self._take_up(deadline_ms):
            return self._link.state == "ready"
        self._look_again_ms = now_ms + _LOOK_AGAIN_MS
        if now_ms - self._learnt_ms >= _LOOK_AGAIN_MS:
            self._learnt_ms = now_ms
            self._grouping = Grouping(self._link.known.bus, self._link.known.pids)
        self._link.look_again()
        return self._ready(deadline_ms)

    def _note(self, signal: Signal, data: bytes, at_ms: int) -> None:
        try:
            value = decode(signal, data)
        except ValueError:
            # No freeze frame (PID 02: 0000) is an answer, not an error.
            why = "no_data" if signal.key == "dtc_ff" else "out_of_range"
            self._values.pop(signal.key, None)
            self._why[signal.key] = why
            self._rejected[why] += signal.key != "dtc_ff"
            return
        if signal.key == "rpm" and value != 0 and self._values.get("rpm") == 0:
            self._look_again_ms = min(self._look_again_ms, at_ms + _STARTING_MS)
        self._values[signal.key] = value
        self._measured_ms[signal.key] = at_ms

    def _latest(self, keys: Mapping[str, bool]) -> Sample:
        """Every key's latest value or its reason, as of now; `keys` says of each whether it is wanted."""
        now_ms = self._clock()
        values: dict[str, Value] = {}
        why: dict[str, str] = {}
        for key, is_wanted in keys.items():
            signal = self._has.get(key)
            if not is_wanted:
                why[key] = "unsupported"
            elif not self._link.is_met:
                why[key] = self._link.why
            elif signal is None:
                why[key] = self._absent.get(key, "unsupported")
            elif key not in self._values:
                why[key] = self._why.get(key, "timeout")
            else:
                stale_ms = self._schedule.stale_ms(signal)
                if stale_ms is not None and now_ms - self._measured_ms[key] > stale_ms:
                    why[key] = "stale"
                else:
                    values[key] = self._values[key]
        return Sample(values, {key: self._measured_ms[key] for key in values}, why)

    def _note_state(self) -> None:
        link, known = self._link, self._link.known
        self._state = CarState(
            connected=link.is_met,
            port=link.port,
            adapter=known.adapter or None,
            protocol=known.bus.name if known.bus is not None and link.is_met else None,
            voltage_v=link.voltage_v,
            voltage_ms=link.voltage_ms,
            vin=known.vin,
            vin_why=known.vin_why,
            supported=tuple(self._has) if link.is_met else (),
            group=self._grouping.size,
            counted=self._grouping.is_counted,
            timing=" ".join(self._timing.commands),
            calibration=known.calibration or (),
            rejected=dict(self._rejected),
            trouble=link.trouble,
        )
