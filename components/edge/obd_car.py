"""The car behind an ELM327 on a serial line: values, trouble codes, one clearing. Rim; blocks, one thread.

What it is not: it keeps no history and knows no wall clock. It is the hand that asks; what it needs to know stands in

    obd_link    the line to the adapter, and how it is mended
    meeting     what is known of this car: its values, and what is learnt of each answer, by
    schedule      which signals are due,
    grouping      what one request may hold,
    timing        how long the adapter waits,
    obd_parser    and what the car's lines say (the one place with python-OBD)
    obd_codes   trouble codes

A call works until its deadline. A request has a limit of its own (`obd_link`), which may be later: then its answer is
taken up by the next call, so an adapter that is slower than the calls is read all the same, and is never disturbed.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

from components.edge.grouping import Request
from components.edge.meeting import Meeting
from components.edge.obd_codes import clear, read_codes
from components.edge.obd_link import ObdLink, Reply
from components.edge.ports import CarAwayError, CarState, DtcReport, Sample
from components.edge.serial_line import Clock, Line, SerialLine
from components.edge.usb_ports import find_obd_ports
from components.wire.signals import OBD_SIGNALS, Signal

_VOLTAGE_EVERY_MS: Final = 5_000
"""What decides whether the car is asleep looks at it."""


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
        keys = tuple(signal.key for signal in OBD_SIGNALS)
        self._wanted = tuple(key for key in keys if wanted is None or key in wanted)
        self._unwanted = {key: "unsupported" for key in keys if key not in self._wanted}
        self._rates = dict(rates or {})
        self._link = ObdLink(ports, open_line or serial_line, protocol, clock)
        self._rejected: Counter[str] = Counter()
        self._meetings = 0
        self._met = self._meet()
        self._asked: Request | str = ""
        """What was sent last: a request, or an AT command."""
        self._is_behind = False
        self._vin = ""
        self._missed_codes: dict[tuple[int, str], int] = {}
        self._voltage_ms = 0
        self._state = CarState()

    def sample(self, deadline_ms: int) -> Sample:
        """See ports.Car."""
        while self._ready(deadline_ms) and self._look_again(deadline_ms):
            now_ms = self._clock()
            if now_ms - self._voltage_ms >= _VOLTAGE_EVERY_MS:
                self._voltage_ms = now_ms
                self._met.orders.append("ATRV")
            self._ask(self._met.due(now_ms), deadline_ms)
            if self._link.state == "ready":
                break  # otherwise what is left of the time is for mending
        latest = self._latest(self._wanted)
        return replace(latest, why={**latest.why, **self._unwanted})

    def measure_now(self, keys: tuple[str, ...], deadline_ms: int) -> Sample:
        """See ports.Car."""
        if self._ready(deadline_ms) and self._take_up(deadline_ms):
            self._ask(self._met.now(keys), deadline_ms, fills_up=False)
        return self._latest(keys)

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
        if self._link.meetings != self._meetings:
            self._meetings = self._link.meetings
            self._met = self._meet()
            self._voltage_ms = self._clock()  # it was asked on the way
        if (vin := self._link.known.vin) is not None and vin != self._vin:
            self._vin, self._missed_codes = vin, {}
        return ready

    def _meet(self) -> Meeting:
        return Meeting(
            self._link.known.bus,
            self._link.known.pids,
            wanted=self._wanted,
            rates=self._rates,
            period_ms=self._period_ms,
            rejected=self._rejected,
            at_ms=self._clock(),
        )

    def _take_up(self, deadline_ms: int) -> bool:
        """Wait for what an earlier call has asked; return whether the adapter is free for another question."""
        if self._link.is_waiting:
            self._ask((), deadline_ms)
        return self._link.state == "ready" and not self._link.is_waiting

    def _ask(self, signals: Sequence[Signal], deadline_ms: int, *, fills_up: bool = True) -> None:
        """Ask these, the most urgent first, as long as there is time.

        What is on its way at the deadline is taken up by the next call: on a slow adapter no request is in vain. Where
        the call before had no time for all of its signals, no request is sent half full: what is due again goes along,
        unless `fills_up` says that exactly these are meant.
        """
        was_behind, unanswered = self._is_behind, {signal.key for signal in signals}
        if self._link.is_waiting and isinstance(self._asked, Request):
            under_way = self._asked.signals
            signals = [signal for signal in signals if signal not in under_way]
        while self._link.state == "ready" and self._clock() < deadline_ms:
            if not self._link.is_waiting:
                if fills_up and was_behind and unanswered and len(signals) < self._met.grouping.size:
                    signals = self._met.due(self._clock())
                if self._met.orders:
                    self._send(self._met.orders.pop(0))
                elif signals:
                    self._send(request := self._met.grouping.request(signals))
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
        """Note what came; return what to ask again at once."""
        request, answer = self._asked, reply.answer
        if request == "ATRV":
            self._met.measured_voltage(self._link.voltage_v, reply.at_ms)
            return ()
        if isinstance(request, str):
            if "?" in answer.text_lines:
                self._met.timing.refused()
            return ()
        again = self._met.heard(request, answer, reply.heard, reply.at_ms)
        if self._link.state == "ready":
            is_trouble = self._met.is_fruitless or answer.reason != "no_data"  # one item that the car has not is none
            self._link.tell(answer.words if is_trouble else "")
            if self._met.is_away(reply.at_ms):
                self._link.lose_car(answer.reason or "no_data", answer.words)
        return again

    def _look_again(self, deadline_ms: int) -> bool:
        """Ask the car once more what it has when it is time; return whether the link is ready."""
        if self._clock() < self._met.look_again_ms:
            return True
        if not self._take_up(deadline_ms):
            return self._link.state == "ready"
        self._met.looked_again(self._clock())
        self._link.look_again()
        return self._ready(deadline_ms)

    def _latest(self, keys: Sequence[str]) -> Sample:
        """Return these signals' values or reasons, as of now."""
        self._note_state()
        if not self._link.is_met:
            return Sample({}, {}, dict.fromkeys(keys, self._link.why))
        return self._met.latest(keys, self._clock())

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
            supported=self._met.supported if link.is_met else (),
            group=self._met.grouping.size,
            counted=self._met.grouping.is_counted,
            timing=" ".join(self._met.timing.commands),
            calibration=known.calibration or (),
            rejected=dict(self._rejected),
            trouble=link.trouble,
        )
