"""A virtual drive with faults: the recorder and ObdCar at a simulated adapter, in virtual time; what it holds them to.

The car's calls run ahead of the reactor: each has its own virtual time, and its answer arrives when the reactor's
clock has come as far, so that a call that overruns overruns here too.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast
from unittest.mock import patch

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from components.edge.obd_car import ObdCar
from components.edge.ports import CarAwayError, Sample
from components.edge.recorder import Recorder, Sources
from components.edge.timeline import Timeline
from components.virtual_car.elm327 import CAN_11_500
from components.wire import signals
from components.wire.signals import OBD_SIGNALS
from tests.edge_parts import ONE, T0, InlineLane, as_lane
from tests.fakes import FakeGps
from tests.simulated import SimulatedAdapter, Time, untrue
from tests.zoo import TROUBLES

if TYPE_CHECKING:
    from components.lane import Lane

P = ParamSpec("P")
T = TypeVar("T")
REASONS = frozenset(signals.REASONS)
FAST = frozenset(signal.key for signal in OBD_SIGNALS if signal.tier == "F")
FIRST_S, EVERY_S = 5, 20
LONGEST_S = 8.0
"""Of a fault."""
HEALS_WITHIN_S = 12
"""After a fault has ended, every fast signal is measured again; the longest: a flood of bytes that is still coming."""


class AheadLane:
    """A lane of width 1: a call is made at once, in a time of its own, and answered when the reactor is there."""

    def __init__(self, reactor: Clock, time: Time, complaints: list[str]) -> None:
        self._reactor, self._time, self._complaints = reactor, time, complaints

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        now_s = self._reactor.seconds()
        self._time.at_ms = max(self._time.at_ms, 1000 * now_s)
        answer: Deferred[T] = Deferred()
        try:
            result = function(*args, **kwargs)
        except CarAwayError as error:
            self._reactor.callLater(self._time.at_ms / 1000 - now_s, answer.errback, error)
        except Exception as error:
            self._complaints.append(f"{now_s}: the car's driver raised {error!r}")
            raise
        else:
            self._reactor.callLater(self._time.at_ms / 1000 - now_s, answer.callback, result)
        return await answer


class WatchedCar(ObdCar):
    """It remembers what was not the engine's in the latest samples: an engine that was away when the car was met."""

    foreign: deque[frozenset[str]]

    def sample(self, deadline_ms: int) -> Sample:
        sample = super().sample(deadline_ms)
        engines = {"7E8", "18DAF110", "10"}
        owners = {signal.key: self._met._owners.get(signal.pid or 0) for signal in OBD_SIGNALS}
        self.foreign.append(frozenset(key for key, ecu in owners.items() if ecu is not None and ecu not in engines))
        return sample


@dataclass
class Drive:
    """The drive, and what was found wrong with it (`complaints`; empty is good).

    Attributes:
        faults: Name, begin and end (seconds of the reactor's clock) of each, in order.
        bus: The digit of the car's bus.
        healed_s: By the place of a fault: how long after its end every fast signal was measured anew.
    """

    seed: int
    seconds: int
    bus: int = CAN_11_500
    complaints: list[str] = field(default_factory=list)
    faults: list[tuple[str, float, float]] = field(default_factory=list)
    healed_s: dict[int, float] = field(default_factory=dict)
    readings: int = 0
    values: int = 0
    codes_read: int = 0
    _last_ms: int = 0

    def run(self, note: Callable[[int], None] = lambda _: None) -> "Drive":
        """Drive; `note` is told of each second that is over."""
        reactor, time = Clock(), Time()
        reactor.advance(time.at_ms / 1000)
        self._adapter, self._began_s = SimulatedAdapter(time, bus=self.bus, seed=self.seed), reactor.seconds()
        self._last_ms = round(1000 * self._began_s)
        self._car = WatchedCar("auto", clock=time, open_line=self._adapter.open)
        self._car.foreign = deque(maxlen=3)
        gps, sessions = FakeGps(), count(1)
        recorder = Recorder(
            reactor=reactor,
            elapsed_ms=lambda: round(reactor.seconds() * 1000),
            sources=Sources(self._car, gps, None, 1000, 60, "full", "c" * 16),
            car_lane=cast("Lane", AheadLane(reactor, time, self.complaints)),
            file_lane=as_lane(InlineLane()),
            journal=self,
            timeline=Timeline(ONE, "ntp", T0 - self._last_ms),
            new_session=lambda: f"{next(sessions):016x}",
            closed=lambda: None,
            changed=self._changed,
        )
        self._plan(Random(self.seed))  # noqa: S311 - a drive that can be driven again
        with patch("components.edge.obd_car.find_obd_ports", self._adapter.ports):
            done = ensureDeferred(recorder.run())
            for second in range(self.seconds):
                gps.values, gps.heard_ms = {"gps_fix": 3, "gps_speed": float(second)}, recorder.elapsed_ms()
                self._advance(reactor, self._began_s + second + 1)
                note(second)
            recorder.stop()
            self._advance(reactor, reactor.seconds() + 10)
        if not done.called:
            self.complaints.append("the recorder does not stop")
        if recorder.lost:
            self.complaints.append(f"{recorder.lost} readings lost: {recorder.trouble}")
        self._judge_healing()
        return self

    def _advance(self, reactor: Clock, to_s: float) -> None:
        while (calls := reactor.getDelayedCalls()) and (
            first := min(cast("Any", call).getTime() for call in calls)
        ) <= to_s:
            reactor.rightNow = max(first, reactor.rightNow)
            reactor.advance(0)
        reactor.rightNow = to_s

    def _plan(self, random: Random) -> None:
        """A fault every 20 s, for at most 8 s, all of the table before one comes again."""
        bag: list[str] = []
        for second in range(FIRST_S, self.seconds - HEALS_WITHIN_S, EVERY_S):
            bag = bag or random.sample(sorted(TROUBLES), len(TROUBLES))
            begin_s = self._began_s + second + 3 * random.random()
            end_s = begin_s + random.choice((0.3, 2, LONGEST_S, LONGEST_S)) * random.uniform(0.3, 1)
            fault = bag.pop(), begin_s, end_s
            self.faults.append(fault)
            self._adapter.later(1000 * (begin_s - self._began_s), partial(self._begin, fault, random))

    def _begin(self, fault: tuple[str, float, float], random: Random) -> None:
        name, _, end_s = fault
        end = TROUBLES[name](self._adapter, random)
        self._adapter.later(max(0.0, 1000 * end_s - self._adapter.time.at_ms), end)

    # ---- what it is held to

    def append(self, session: str, rows: list[tuple[Any, int, Mapping[str, Any]]], /) -> None:
        """The recorder's journal: looks at every row, and keeps none."""
        del session
        for kind, at_ms, body in rows:
            if kind == "reading":
                self._judge(at_ms - T0 + round(1000 * self._began_s), body)
            self.codes_read += kind == "dtcs"

    def _judge(self, at_ms: int, body: Mapping[str, Any]) -> None:
        """A second has its reading, a value was said, and what is not there has a reason."""
        if at_ms - self._last_ms >= 2000:
            self._complain(at_ms, f"no reading since {self._last_ms}")
        self._last_ms = at_ms
        self.readings += 1
        values, ages, why = body["values"], body["age_ms"], body["why"]
        of_car = {signal.key: values[signal.key] for signal in OBD_SIGNALS if signal.key in values}
        self.values += len(of_car)
        measured = {key: at_ms - ages.get(key, 0) for key in of_car}
        foreign = frozenset[str]().union(*self._car.foreign)
        for key, value in untrue(self._adapter, of_car, measured, foreign).items():
            self._complain(at_ms, f"{key} = {value!r}, measured at {measured[key]}, was never said")
        # A signal that is in neither part is unsupported; this car has them all, unless its engine was away when met.
        absent = {signal.key: why.get(signal.key, "unsupported") for signal in OBD_SIGNALS if signal.key not in values}
        known = REASONS if foreign else REASONS - {"unsupported"}
        if wrong := {key: reason for key, reason in absent.items() if reason not in known}:
            self._complain(at_ms, f"no reason of this car's: {wrong}")
        if values.get("gps_fix") != 3:
            self._complain(at_ms, "no position")
        past = [place for place, fault in enumerate(self.faults) if fault[1] <= at_ms / 1000]
        if past and values.keys() >= FAST:
            since_s = min(measured[key] for key in FAST) / 1000 - self.faults[past[-1]][2]
            if since_s >= 0:
                self.healed_s.setdefault(past[-1], since_s)

    def _judge_healing(self) -> None:
        for place, (name, _, end_s) in enumerate(self.faults):
            if self.healed_s.get(place, math.inf) > HEALS_WITHIN_S:
                self.complaints.append(f"{name}, over at {end_s}, healed after {self.healed_s.get(place)} s")

    def _complain(self, at_ms: int, words: str) -> None:
        past = [fault for fault in self.faults if fault[1] <= at_ms / 1000]
        self.complaints.append(f"{at_ms} (after {past[-1] if past else 'nothing'}): {words}")

    def _changed(self, new: object, old: object) -> None:
        if old or (new and self.codes_read > 1):
            self.complaints.append(f"codes that did not change: {new} {old}")
