"""What the parts of a process count, in one shape; and whether its working loop turns. Pure.

What it is not: it keeps no count of its own (the parts do), and knows no text format (`http_view` does). Names are
Prometheus's: counters end in `_total`, units are in names.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal, Protocol

from components.settings import checked


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return not text
    return port.isascii() and port.isdigit() and 1 <= int(port) <= 65535


@dataclass(frozen=True, slots=True)
class Metrics:
    """`[metrics]` of edge.toml and server.toml: where `http_view` listens; nowhere when it is empty."""

    listen: str = checked("be IP:PORT, like 127.0.0.1:9464, or empty for none", _is_address, "")


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of numbers.

    Attributes:
        kind: A counter never falls while its process lives; a gauge may.
        by: Names of its labels.
        values: The numbers, by the values of those labels; one without labels is at ().
    """

    kind: Literal["counter", "gauge"]
    name: str
    words: str
    by: tuple[str, ...]
    values: Mapping[tuple[str, ...], float]


Value = float | Mapping[str, float] | None
"""A number, numbers by the label `by`, or none while it is not known."""


def counter(name: str, words: str, value: Value, by: str = "") -> Metric:
    """Return what only grows."""
    return Metric("counter", name, words, (by,) if by else (), _labelled(value))


def gauge(name: str, words: str, value: Value, by: str = "") -> Metric:
    """Return what rises and falls."""
    return Metric("gauge", name, words, (by,) if by else (), _labelled(value))


def state(name: str, words: str, now: str, of: Iterable[str], by: str) -> Metric:
    """Return a state as Prometheus wants it: 1 for the one that holds, 0 for the others.

    >>> state("odograph_power_state", "", "asleep", of=("awake", "asleep"), by="state").values
    {('awake',): 0, ('asleep',): 1}
    """
    return gauge(name, words, {each: int(each == now) for each in of}, by)


def _labelled(value: Value) -> Mapping[tuple[str, ...], float]:
    if isinstance(value, Mapping):
        return {(label,): number for label, number in value.items()}
    return {} if value is None else {(): value}


@dataclass(slots=True)
class Pulse:
    """Whether the working loop of a process turns; times are seconds of one clock that never jumps.

    Attributes:
        heard_by: Told of each beat.
    """

    heard_by: list[Callable[[], object]] = field(default_factory=list)
    _at_s: float | None = None

    def beat(self, now_s: float) -> None:
        """The loop has turned."""
        self._at_s = now_s
        for hear in self.heard_by:
            hear()

    def sick(self, now_s: float, patience_s: float) -> str:
        """Return why the loop does not seem to turn, in words; "" where it turned within `patience_s`."""
        if self._at_s is None:
            return "the working loop has not turned yet"
        age_s = now_s - self._at_s
        return (
            ""
            if age_s <= patience_s
            else f"the working loop turned {age_s:.0f} s ago, and should every {patience_s:.0f} s"
        )


class View(Protocol):
    """One end, seen from outside."""

    @property
    def patience_s(self) -> float:
        """For how long its working loop may not turn."""

    async def metrics(self) -> Sequence[Metric]:
        """Count everything, now."""

    def unready(self) -> Sequence[str]:
        """Return what it lacks for its work now, in words; the loop may turn all the same."""
