"""The car behind an ELM327 on a serial line: values, trouble codes, one clearing. Rim; blocks, one thread.

What it is not: it keeps no history and knows no wall clock. `obd_link` owns the line and mends it, `schedule` says
what is due, `obd_parser` (the one place with python-OBD) reads what the car says.

Every value is one that the car said: the ECU that owns the PID answered positively, with the mode, the PIDs and the
lengths that were asked. What is rejected has a reason of wire.signals.REASONS at once; a value that there was no time
to ask again stays, with its time, until it is three periods old.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from components.edge.elm_answer import Answer
from components.edge.elm_dialogue import COMMAND_MS
from components.edge.obd_codes import clear, read_codes
from components.edge.obd_link import ObdLink
from components.edge.obd_parser import Message, decode, parse_pids
from components.edge.ports import CarState, DtcReport, Sample
from components.edge.schedule import Schedule
from components.edge.serial_line import Clock, Line, SerialLine
from components.edge.usb_ports import find_obd_ports
from components.wire.signals import BY_KEY, OBD_SIGNALS, Signal, Value

_SMALLER: Final = {6: 3, 3: 2, 2: 1}
_WIDE_BAND: Final = {"o211": (0x24, 0x34), "o212": (0x25, 0x35)}
"""The PIDs by which a car with wide-band sensors answers instead. Source: signals.md."""
_VOLTAGE_EVERY_MS: Final = 5_000
"""What decides whether the car is asleep looks at it."""
_MAX_MISCOUNTS: Final = 3
_FRUITLESS_PASSES: Final = 2
"""Passes without one value, after which the car counts as away."""


class ObdCar:
    """Implements ports.Car over an ELM327.

    Args:
        port: Device path, `socket://host:port`, or "auto" (usb_ports).
        baud: Bits a second of a serial line.
        protocol: "auto", or the number of a bus as in the ELM327 data sheet ("6": CAN 11/500).
        clock: Returns elapsed ms.
        not_ports: Device paths that "auto" never opens: the modem's.
        period_ms: The sampling period; the fast tier is stale after three.
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
        open_line: Callable[[str, int], Line] | None = None,
    ) -> None:
        def serial_line(url: str, until_ms: int) -> Line:
            return SerialLine(url, baud, clock, until_ms)

        def ports() -> Sequence[str]:
            return find_obd_ports(not_ports=not_ports) if port == "auto" else (port,)

        self._clock = clock
        self._period_ms = period_ms
        self._link = ObdLink(ports, open_line or serial_line, protocol, clock)
        self._meeting = 0
        self._signals: dict[str, Signal] = {}
        self._absent: dict[str, str] = {}
        self._owners: dict[int, str] = {}
        self._schedule = Schedule((), period_ms)
        self._values: dict[str, Value] = {}
        self._measured_ms: dict[str, int] = {}
        self._why: dict[str, str] = {}
        self._group = 1
        self._group_works = False
        self._silent: set[str] = set()
        self._counted: dict[tuple[int, ...], bool] = {}
        self._miscounted: dict[tuple[int, ...], int] = {}
        self._fruitless = 0
        self._slowest_ms = 0.0
        self._voltage_ms = 0
        self._answered_codes: set[tuple[int, str]] = set()
        self._rejected: Counter[str] = Counter()
        self._state = CarState()

    def sample(self, deadline_ms: int) -> Sample:
        """See ports.Car."""
        if self._ready(deadline_ms):
            self._pass(deadline_ms)
        self._note_state()
        return self._latest(tuple(signal.key for signal in OBD_SIGNALS))

    def rest(self, deadline_ms: int) -> Sample:
        """See ports.Car."""
        self._link.rest(deadline_ms)
        self._note_state()
        return Sample({}, {}, {signal.key: "asleep" for signal in OBD_SIGNALS})

    def measure_now(self, keys: tuple[str, ...], deadline_ms: int) -> Sample:
        """See ports.Car."""
        asked = [BY_KEY[key] for key in keys if key in BY_KEY and BY_KEY[key].pid is not None]
        if self._ready(deadline_ms):
            for key in keys:  # an earlier value is no answer to "now"
                self._values.pop(key, None)
                self._why[key] = "timeout"
            self._ask([signal for signal in asked if signal.key in self._signals], deadline_ms)
        self._note_state()
        return self._latest(keys)

    def read_dtcs(self, deadline_ms: int) -> DtcReport:
        """See ports.Car."""
        self._ready(deadline_ms)
        try:
            return read_codes(self._link, deadline_ms, self._answered_codes)
        finally:
            self._note_state()

    def clear_dtcs(self, deadline_ms: int) -> Literal["cleared", "refused", "unknown"]:
        """See ports.Car."""
        self._ready(deadline_ms)
        outcome = clear(self._link, deadline_ms)
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
        owners: dict[int, str] = {}
        for ecu, has in self._link.known.pids.items():
            for pid in has:
                owners.setdefault(pid, ecu)
        self._owners = owners
        self._signals = {signal.key: signal for signal in OBD_SIGNALS if signal.pid in owners}
        self._absent = {signal.key: "unsupported" for signal in OBD_SIGNALS if signal.key not in self._signals}
        for key, pids in _WIDE_BAND.items():
            if key in self._absent and any(pid in owners for pid in pids):
                self._absent[key] = "wide_band"
        self._schedule = Schedule(tuple(self._signals.values()), self._period_ms)
        self._values, self._measured_ms, self._why = {}, {}, {}
        bus = self._link.known.bus
        self._group, self._group_works = (6 if bus is not None and bus.is_can else 1), False
        self._silent, self._answered_codes = set(), set()
        self._counted, self._miscounted = {}, {}
        self._fruitless, self._slowest_ms = 0, 0.0
        self._voltage_ms = self._clock()

    def _pass(self, deadline_ms: int) -> None:
        """Ask what is due, the most overdue first, as long as there is time."""
        refused, answered = self._ask(self._schedule.due(self._clock()), deadline_ms)
        if self._link.state != "ready":
            return
        self._fruitless = self._fruitless + 1 if refused and not answered else 0
        if refused and self._fruitless >= _FRUITLESS_PASSES:
            self._link.lose_car(refused.reason, refused.words)
            return
        self._link.tell(refused.words if refused and not answered else "")
        now_ms = self._clock()
        if now_ms - self._voltage_ms >= _VOLTAGE_EVERY_MS and self._has_time(deadline_ms):
            self._voltage_ms = now_ms
            self._link.measure_voltage(min(deadline_ms, now_ms + COMMAND_MS))

    def _ask(self, signals: Sequence[Signal], deadline_ms: int) -> tuple[Answer | None, int]:
        """Ask these in as few requests as work, as long as there is time.

        Returns:
            The last answer in which the adapter had something to say, and how many signals have a value now.
        """
        refused, answered, first = None, 0, True
        # A pass too short for the slowest request still asks one thing, or it would ask nothing for ever.
        while signals and self._link.state == "ready" and (self._has_time(deadline_ms) or first):
            if self._clock() >= deadline_ms:
                break
            first = False
            request, signals = tuple(signals[: self._group]), signals[self._group :]
            answer = self._request(request, deadline_ms)
            answered += sum(signal.key in self._values for signal in request)
            refused = answer if answer.reason else refused
            if answer.reason == "bus_error":
                break
        return refused, answered

    def _has_time(self, deadline_ms: int) -> bool:
        """Whether a request that takes as long as the slowest of late would be answered before the deadline."""
        return self._clock() + self._slowest_ms < deadline_ms

    def _request(self, signals: Sequence[Signal], deadline_ms: int) -> Answer:
        """Ask for these in one request; where grouping fails, in smaller ones. Notes values and reasons."""
        answer, missing = self._exchange(signals, deadline_ms)
        if len(signals) == 1:
            return answer
        if not missing:
            self._group_works = True
        elif not answer.prompted and not self._group_works:
            self._group = _SMALLER.get(self._group, 1)  # it may be the length that silenced it
        elif len(missing) < len(signals) or not self._group_works:
            self._doubt_grouping(missing, deadline_ms)
        return answer

    def _doubt_grouping(self, missing: Sequence[Signal], deadline_ms: int) -> None:
        """A group was answered in part: is it the car that has no value, or the group that does not work?

        What answers when asked alone condemns the group for this connection; what does not is known as silent.
        """
        for place, signal in enumerate(missing):
            if self._link.state != "ready" or not self._has_time(deadline_ms):
                return
            if signal.key in self._silent:
                continue
            _, still_missing = self._exchange((signal,), deadline_ms)
            if still_missing:
                self._silent.add(signal.key)
                continue
            self._group, self._group_works = _SMALLER.get(self._group, 1), False
            self._ask(missing[place + 1 :], deadline_ms)
            return

    def _exchange(self, signals: Sequence[Signal], deadline_ms: int) -> tuple[Answer, list[Signal]]:
        """Ask once; note every value and reason; return the answer and the signals that it has not."""
        sizes = {signal.pid: signal.size for signal in signals if signal.pid is not None}
        command = "01" + "".join(f"{pid:02X}" for pid in sizes)
        lines = self._lines(sizes)
        counted = self._counted.get(lines, False)

        def concerns(message: Message) -> bool:
            return message.data[:2] in {bytes((0x41, pid)) for pid in sizes} or message.data[:2] == b"\x7f\x01"

        began_ms = self._clock()
        reply = self._link.ask(
            f"{command}{sum(lines):X}" if counted else command, min(deadline_ms, began_ms + COMMAND_MS), concerns
        )
        if reply.answer.prompted:
            self._slowest_ms = max(reply.at_ms - began_ms, 0.9 * self._slowest_ms)
        found, why = parse_pids(reply.heard, 1, sizes)
        if not reply.answer.prompted and why == "no_data":
            why = "timeout"
        why = reply.answer.reason or why
        missing = []
        for signal in signals:
            data = found.get(signal.pid or 0, {}).get(self._owners.get(signal.pid or 0, ""))
            if data is None:
                missing.append(signal)
            self._note(signal, data, why, reply.at_ms)
        if counted and missing and reply.answer.prompted:
            # The count may be what cut this answer. It is learnt again, unless it was proven wrong too often.
            self._miscounted[lines] = self._miscounted.get(lines, 0) + 1
            self._counted.pop(lines)
            if self._link.state == "ready" and self._has_time(deadline_ms):
                return self._exchange(signals, deadline_ms)
        elif not missing and self._miscounted.get(lines, 0) < _MAX_MISCOUNTS:
            # Answered in as many lines as the ECUs' bit maps foretell: the count may be given from now on.
            self._counted[lines] = len(reply.answer.hex_lines) == sum(lines) < 16
        if self._link.state == "ready":
            self._schedule.asked(signals, reply.at_ms)
            self._schedule.unanswered(missing, reply.at_ms)
        return reply.answer, missing

    def _lines(self, sizes: Mapping[int, int]) -> tuple[int, ...]:
        """Return in how many lines each ECU that has any of these PIDs will answer."""
        bus = self._link.known.bus
        bodies = (sum(1 + size for pid, size in sizes.items() if pid in has) for has in self._link.known.pids.values())
        return tuple(bus.lines(1 + body) if bus is not None else 1 for body in bodies if body)

    def _note(self, signal: Signal, data: bytes | None, why: str, at_ms: int) -> None:
        if data is not None:
            try:
                self._values[signal.key] = decode(signal, data)
            except ValueError:
                # No freeze frame (PID 02: 0000) is an answer, not an error.
                why = "no_data" if signal.key == "dtc_ff" else "out_of_range"
            else:
                self._measured_ms[signal.key] = at_ms
                self._silent.discard(signal.key)
                return
        self._values.pop(signal.key, None)
        self._why[signal.key] = why
        self._rejected[why] += 1

    def _latest(self, keys: tuple[str, ...]) -> Sample:
        """Every key's latest value or its reason, as of now."""
        now_ms = self._clock()
        values: dict[str, Value] = {}
        measured_ms: dict[str, int] = {}
        why: dict[str, str] = {}
        for key in keys:
            signal = self._signals.get(key)
            if not self._link.is_met:
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
                    values[key], measured_ms[key] = self._values[key], self._measured_ms[key]
        return Sample(values, measured_ms, why)

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
            supported=tuple(self._signals) if link.is_met else (),
            group=self._group,
            counted=any(self._counted.values()),
            timing="ATAT1",
            rejected=dict(self._rejected),
            trouble=link.trouble,
        )
