"""What is known of one car from meeting it to losing it: its values, and how it is asked. Pure.

What it is not: it asks nothing (`obd_car` does) and outlives no meeting: after a reconnection it might be another car,
and nothing that was learnt of the last one is trusted.

Every value is one that the car said: the ECU that owns the PID answered positively, with the mode, the PIDs and the
lengths that were asked. What is rejected has a reason of wire.signals.REASONS at once, unless it is asked again at
once; a value that there was no time to ask again stays, with its time, until it is three periods old.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from components.edge.elm_answer import Answer
from components.edge.grouping import Grouping, Request
from components.edge.obd_parser import Bus, Heard, decode, parse_pids
from components.edge.ports import Sample
from components.edge.schedule import Schedule
from components.edge.timing import Timing
from components.wire.signals import OBD_SIGNALS, WIDE_BAND, Signal, Value

_WIDE_BAND_CURRENT: Final = {"o211": 0x34, "o212": 0x35}
"""The PIDs of wide-band sensors that tell a current and no voltage. Source: SAE J1979."""
_AWAY_AFTER_MS: Final = 1_500
"""So long without one value, and more than one answer without any: the car is away."""
_LOOK_FIRST_MS: Final = 5_000
_LOOK_AGAIN_MS: Final = 600_000
_STARTING_MS: Final = 3_000
"""From the engine's start until all ECUs are awake, about."""
_START_V: Final = 0.5
"""By which the voltage rises when the engine starts: its generator adds more, a fan that stops less."""


class Meeting:
    """One car.

    Args:
        bus: The car's; None while there is none, and then nothing is asked.
        pids: What each ECU has, lowest address first: of two that have a PID the lower one's value counts, the
            engine's.
        wanted: The signals to ask, of those that the car has.
        rates: As in Schedule.
        period_ms: The sampling period.
        rejected: Signals that were asked and had no value for it, by reason; is added to.
        at_ms: Now.
    """

    def __init__(
        self,
        bus: Bus | None,
        pids: Mapping[str, frozenset[int]],
        *,
        wanted: Collection[str],
        rates: Mapping[str, float],
        period_ms: int,
        rejected: Counter[str],
        at_ms: int,
    ) -> None:
        self._bus, self._pids = bus, pids
        self._rejected = rejected
        self._owners = {pid: ecu for ecu, has in sorted(pids.items(), reverse=True) for pid in has}
        forms = ((signal, WIDE_BAND.get(signal.key, signal)) for signal in OBD_SIGNALS)
        self._has = {
            narrow.key: narrow if narrow.pid in self._owners else wide
            for narrow, wide in forms
            if {narrow.pid, wide.pid} & self._owners.keys()
        }
        asked = [signal for key, signal in self._has.items() if key in wanted]
        self._schedule = Schedule(asked, period_ms, rates)
        self._unheard = {signal.key for signal in asked}
        self.grouping = Grouping(bus, pids)
        self.timing = Timing()
        self.orders: list[str] = []
        """AT commands that are to be sent before the next request."""
        self._values: dict[str, Value] = {}
        self._measured_ms: dict[str, int] = {}
        self._why: dict[str, str] = {}
        self._fruitless, self._found_ms = 0, at_ms
        self._learnt_ms = at_ms
        self._voltage_v: float | None = None
        self.look_again_ms = at_ms + _LOOK_FIRST_MS
        """When to ask the car once more what it has: soon, after the engine's start, and every 10 minutes."""

    @property
    def supported(self) -> tuple[str, ...]:
        """Keys of the signals that the car has."""
        return tuple(self._has)

    def due(self, at_ms: int) -> list[Signal]:
        """Return what to ask now, the most urgent first."""
        return self._schedule.due(at_ms)

    def now(self, keys: Iterable[str]) -> list[Signal]:
        """Return those that can be asked, wanted or not; their values are forgotten, for they are not of now."""
        for key in keys:
            self._values.pop(key, None)
            self._why[key] = "timeout"
        return [self._has[key] for key in keys if key in self._has]

    def heard(self, request: Request, answer: Answer, heard: Heard, at_ms: int) -> Collection[Signal]:
        """Note what an answer says, and learn from it how to ask.

        Returns:
            What to ask again at once; may be empty.
        """
        found, why = parse_pids(heard, 1, {signal.pid or 0: signal.size for signal in request.signals})
        why = answer.reason or (why if answer.prompted or why != "no_data" else "timeout")
        said = {
            signal.key: found.get(signal.pid or 0, {}).get(self._owners[signal.pid or 0]) for signal in request.signals
        }
        missing = [signal for signal in request.signals if said[signal.key] is None]
        self._rejected.update(why for _ in missing)
        self._count_fruitless(request, at_ms, is_fruitful=len(missing) < len(said))
        self._unheard -= said.keys()
        again = self._learn(request, missing, why, answer, heard)
        for signal in request.signals:
            if (data := said[signal.key]) is not None:
                self._note(signal, data, at_ms)
            elif signal not in again:
                self._miss(signal, why)
        done = [signal for signal in request.signals if signal not in again]
        self._schedule.answered([signal for signal in done if signal not in missing], at_ms)
        left = [signal for signal in done if signal in missing]
        if why in {"no_data", "negative_response"}:
            self._schedule.silent(left, at_ms)
        else:
            self._schedule.failed(left, at_ms)
        return again

    @property
    def is_fruitless(self) -> bool:
        """Whether the last answers, more than one, had no value."""
        return self._fruitless > 1

    def is_away(self, at_ms: int) -> bool:
        """Return whether the car has said nothing for so long that it must be looked for anew."""
        return self.is_fruitless and at_ms - self._found_ms >= _AWAY_AFTER_MS

    def measured_voltage(self, voltage_v: float | None, at_ms: int) -> None:
        """Note the voltage at the plug: that it rises may be the engine's start, where rpm does not tell."""
        if voltage_v is not None and self._voltage_v is not None and voltage_v - self._voltage_v >= _START_V:
            self._look_again_soon(at_ms)
        self._voltage_v = voltage_v

    def looked_again(self, at_ms: int) -> None:
        """Note that the car is being asked what it has.

        Every 10 minutes it is also learnt anew what a request may hold: a bad moment is not held against it for ever.
        """
        self.look_again_ms = at_ms + _LOOK_AGAIN_MS
        if at_ms - self._learnt_ms >= _LOOK_AGAIN_MS:
            self._learnt_ms = at_ms
            self.grouping = Grouping(self._bus, self._pids, self.grouping.silent)

    def latest(self, keys: Iterable[str], at_ms: int) -> Sample:
        """Return of each of these the latest value, or the reason that there is none."""
        values: dict[str, Value] = {}
        why: dict[str, str] = {}
        keep_ms: dict[str, int | None] = {}
        for key in keys:
            if (signal := self._has.get(key)) is None:
                is_wide_band = _WIDE_BAND_CURRENT.get(key) in self._owners
                why[key] = "wide_band" if is_wide_band else "unsupported"
            elif key not in self._values:
                why[key] = self._why.get(key, "timeout")
            elif (stale_ms := self._schedule.stale_ms(signal)) and at_ms - self._measured_ms[key] > stale_ms:
                why[key] = "stale"
            else:
                values[key] = self._values[key]
                keep_ms[key] = stale_ms
        return Sample(values, {key: self._measured_ms[key] for key in values}, why, keep_ms)

    def _learn(
        self, request: Request, missing: Sequence[Signal], why: str, answer: Answer, heard: Heard
    ) -> Collection[Signal]:
        """Learn from an answer how to ask; return what to ask again at once."""
        is_news = any(signal.key not in self.grouping.silent for signal in missing)
        if is_news and answer.reason == "no_data" and not heard.messages and self.timing.had_no_data():
            self.orders += self.timing.commands
            return request.signals
        # Until each item was asked it is not known which are silent, and their silence would seem the waiting's fault.
        if not missing and not request.is_counted and not self._unheard and self.timing.answered():
            self.orders += self.timing.commands
        return self.grouping.heard(request, missing, why, len(answer.hex_lines))

    def _count_fruitless(self, request: Request, at_ms: int, *, is_fruitful: bool) -> None:
        """Count the answers in succession that had no value; what is silent anyway tells nothing."""
        silent = self.grouping.silent
        if is_fruitful:
            self._fruitless, self._found_ms = 0, at_ms
        elif silent >= self._has.keys() or any(signal.key not in silent for signal in request.signals):
            self._fruitless += 1

    def _note(self, signal: Signal, data: bytes, at_ms: int) -> None:
        try:
            value = decode(signal, data)
        except ValueError:
            if signal.key == "dtc_ff":  # 0000, no freeze frame, is an answer and no error
                self._miss(signal, "no_data")
            else:
                self._miss(signal, "out_of_range")
                self._rejected["out_of_range"] += 1
            return
        if signal.key == "rpm" and value != 0 and self._values.get("rpm") == 0:
            self._look_again_soon(at_ms)
        self._values[signal.key] = value
        self._measured_ms[signal.key] = at_ms

    def _miss(self, signal: Signal, why: str) -> None:
        self._values.pop(signal.key, None)
        self._why[signal.key] = why

    def _look_again_soon(self, at_ms: int) -> None:
        self.look_again_ms = min(self.look_again_ms, at_ms + _STARTING_MS)
