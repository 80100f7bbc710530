"""What one request may hold on this car, learnt from what came of the requests before. Pure.

How many PIDs: on CAN up to 6 (SAE J1979), believed only after a group was answered whole; on the older buses one.

    what came                                what follows
    ---------------------------------------  -------------------------------------------------------------
    all of a group                           groups of this size work
    part of a group; or nothing, and no      each PID that is missing is asked alone: one that answers
    group has worked yet                     condemns the size (6, 3, 2, 1), one that does not is silent
    no prompt, and no group has worked yet   the size is condemned: it may be the length that silenced it
    nothing, where groups have worked        nothing: it is the car or the line, not the group
    not whole, where groups have worked      it is asked again; after three times in succession each is asked alone
    words, where groups have worked          nothing; after three times in succession each is asked alone

A silent PID is asked alone from then on, until it answers: in a group it would change the number of lines.

How many lines: a digit behind the PIDs ends the answer with that line, and saves the adapter's waiting for more. The
ECUs' bit maps foretell the number, of all ECUs that have one of the PIDs. It is given for a pattern of lines that was
seen to come out so; if then something is missing that it may have cut, or the adapter does not understand, it is asked
again without, and the pattern is learnt again; after three times it is not given any more.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from components.edge.obd_parser import Bus
from components.wire.signals import Signal

_SMALLER: Final = {6: 3, 3: 2, 2: 1}
_BODY_BYTES: Final = 20
"""An answer in three CAN frames (6 + 7 + 7 bytes); six items, big and small well mixed, come to it."""
_MAX_MISCOUNTS: Final = 3
_MAX_COUNT: Final = 15
_MAX_SPOILT: Final = 3


@dataclass(frozen=True, slots=True)
class Request:
    """One request of mode 01.

    Attributes:
        signals: What it asks.
        lines: In how many lines each ECU that has any of them will answer.
        is_counted: Whether it says so.
    """

    signals: tuple[Signal, ...]
    lines: tuple[int, ...]
    is_counted: bool

    @property
    def command(self) -> str:
        """As it is sent, without the CR."""
        pids = "".join(f"{signal.pid:02X}" for signal in self.signals)
        return f"01{pids}{sum(self.lines):X}" if self.is_counted else f"01{pids}"


class Grouping:
    """The requests to one car.

    Args:
        bus: The car's; None while there is none, and nothing is asked.
        pids: What each ECU has.
        silent: Keys of what is known not to answer, though it has it.
    """

    def __init__(self, bus: Bus | None, pids: Mapping[str, frozenset[int]], silent: Iterable[str] = ()) -> None:
        self._bus = bus
        self._pids = tuple(pids.values())
        self.size = 6 if bus is not None and bus.is_can else 1
        self._is_proven = False
        self._spoilt: Counter[tuple[int, ...]] = Counter()
        self._doubted: set[str] = set()
        self._silent = set(silent)
        self._counted: dict[tuple[int, ...], bool] = {}
        self._miscounted: Counter[tuple[int, ...]] = Counter()

    @property
    def silent(self) -> AbstractSet[str]:
        """Keys of what does not answer, though the bit maps name it."""
        return self._silent

    @property
    def is_counted(self) -> bool:
        """Whether the number of lines is given with any request."""
        return any(self._counted.values())

    def request(self, signals: Sequence[Signal]) -> Request:
        """Return the request that asks the first of these, and with it what makes the whole take the fewest lines.

        Args:
            signals: What there is to ask, the most urgent first; at least one.
        """
        alone = [signal for signal in signals if signal.key in self._doubted] or signals[:1]
        if alone[0].key in self._doubted | self._silent or self.size == 1:
            group = tuple(alone[:1])
        else:
            group = self._groups([signal for signal in signals if signal.key not in self._silent], signals[0])
        lines = self._lines(group)
        return Request(group, lines, self._counted.get(lines, False))

    def heard(self, request: Request, missing: Sequence[Signal], why: str, lines: int) -> Collection[Signal]:
        """Learn from an answer.

        Args:
            request: What was asked.
            missing: Those of its signals that the answer has not.
            why: Of wire.signals.REASONS, for these.
            lines: How many lines came.

        Returns:
            What to ask again at once; may be empty.
        """
        signals = request.signals
        if why == "timeout" and missing:
            if len(signals) > 1 and not self._is_proven:
                self._shrink()
            return ()
        if missing and request.is_counted and (lines >= sum(request.lines) or why == "adapter_error"):
            self._miscounted[request.lines] += 1
            self._counted.pop(request.lines)
            return signals
        if not missing:
            self._proved(request, lines)
            return ()
        if len(signals) == 1:
            if why in {"no_data", "negative_response"}:
                self._silent.add(signals[0].key)
            self._doubted.discard(signals[0].key)
            return ()
        self._spoilt[request.lines] += why in {"truncated", "adapter_error"}
        is_doubtful = not self._is_proven or self._spoilt[request.lines] >= _MAX_SPOILT
        if is_doubtful or (len(missing) < len(signals) and why == "no_data"):
            self._doubted.update(signal.key for signal in missing)
            return missing
        return signals if why == "truncated" else ()

    def _proved(self, request: Request, lines: int) -> None:
        """Everything that was asked came."""
        self._spoilt[request.lines] = 0
        if self._miscounted[request.lines] < _MAX_MISCOUNTS:
            self._counted[request.lines] = lines == sum(request.lines) <= _MAX_COUNT
        (key, *others) = (signal.key for signal in request.signals)
        self._silent.discard(key)
        if others:
            self._is_proven = True
        elif key in self._doubted:
            self._shrink()

    def _shrink(self) -> None:
        self.size, self._is_proven = _SMALLER.get(self.size, 1), False
        self._doubted.clear()
        self._spoilt.clear()

    def _groups(self, signals: Sequence[Signal], first: Signal) -> tuple[Signal, ...]:
        """Divide these into as few requests with as few lines as possible; return the one that has `first`.

        Big items together with as many small ones as three frames hold, then small ones together: six of them fit two
        frames. Items that several ECUs have stand together: each such request has a line more from each ECU.
        """
        rest = sorted(signals, key=lambda signal: (-signal.size, -sum(signal.pid in has for has in self._pids)))
        while True:
            group: list[Signal] = []
            body = 1
            for signal in rest:
                if len(group) < self.size and body + 1 + signal.size <= _BODY_BYTES:
                    group.append(signal)
                    body += 1 + signal.size
            if first in group:
                return tuple(group)
            rest = [signal for signal in rest if signal not in group]

    def _lines(self, signals: Sequence[Signal]) -> tuple[int, ...]:
        bodies = (sum(1 + signal.size for signal in signals if signal.pid in has) for has in self._pids)
        return tuple(self._bus.lines(1 + body) if self._bus is not None else 1 for body in bodies if body)
