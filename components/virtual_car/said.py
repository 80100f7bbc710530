"""What the car has said, to tell a value of the car from one that a reader has made up. Pure."""

from collections import defaultdict, deque

from components.virtual_car.pids import size_of

KEPT_EACH = 4_096
"""Answers that are remembered for each PID: over an hour at one a second."""


class Said:
    """The data bytes that units have put on the bus in answer to mode 01, by PID, with their times.

    Faults behind the bus (frames, lines, text) do not change what the car has said.
    """

    def __init__(self) -> None:
        self._by_pid: dict[int, deque[tuple[float, bytes]]] = defaultdict(lambda: deque(maxlen=KEPT_EACH))

    def add(self, message: bytes, at_s: float) -> None:
        """Remember an answer of a unit; other modes and negative responses are none of ours.

        Args:
            message: As an ECU puts it, mode + 0x40 first.
            at_s: Seconds since T0.
        """
        rest = message[1:] if message[0] == 0x41 else b""
        while rest:
            pid, size = rest[0], size_of(rest[0])
            self._by_pid[pid].append((at_s, rest[1 : 1 + size]))
            rest = rest[1 + size :]

    def has(self, pid: int, raw: bytes, by_s: float, since_s: float = 0.0) -> bool:
        """Whether the car has said these data bytes for this PID, at a time from `since_s` to `by_s`."""
        return any(raw == data and since_s <= at_s <= by_s for at_s, data in reversed(self._by_pid[pid]))

    def last(self, pid: int, by_s: float) -> bytes | None:
        """What the car has said last for this PID up to `by_s`; None: nothing."""
        return next((data for at_s, data in reversed(self._by_pid[pid]) if at_s <= by_s), None)
