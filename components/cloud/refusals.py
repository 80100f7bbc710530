"""What the router's audit log says of a flood: each thing once a minute with its count, and no more than so much. Pure.

Whoever knows the router's address can make it refuse as often as they like, under as many names as they like; the log
must neither fill the disk nor keep the router from its work. All strangers share one budget, and each member of the
realm has one of their own: nobody's flood hides what another did.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

BURST: Final = 100
PER_MINUTE: Final = 2
"""Entries that come anew each minute: at most 2,880 a day, less than a megabyte."""
MAX_TEXT: Final = 120
_MAX_WAITING: Final = 1000


@dataclass(frozen=True, slots=True)
class Note:
    """An entry to be: `what` happened to `whom`, `by` whom, with more to tell; equal notes are counted together.

    Attributes:
        source: Whose doing it is, for the budget: a member of the realm, or "" for a stranger.
    """

    what: str
    by: str
    whom: str
    source: str = ""
    more: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, what: str, by: str, whom: str, source: str = "", **more: str) -> "Note":
        """Return a note whose texts are no longer than MAX_TEXT, and text that a file takes: a peer chose them."""
        return cls(what, _fit(by), _fit(whom), source, tuple((key, _fit(text)) for key, text in more.items()))

    def detail(self, count: int) -> Mapping[str, object]:
        """Return the entry's detail."""
        return {**dict(self.more), "count": count}


@dataclass(slots=True)
class _Budget:
    left: int = BURST
    others: int = 0

    def spend(self) -> bool:
        if self.left == 0:
            return False
        self.left -= 1
        return True


@dataclass(slots=True)
class Refusals:
    """Decides which notes are written; `noted` and `minute` return those, with how often they came."""

    _budgets: dict[str, _Budget] = field(default_factory=dict)
    _held: dict[Note, int] = field(default_factory=dict)

    def noted(self, note: Note) -> list[tuple[Note, int]]:
        """Take a note: the first of its kind in this minute is written at once, the others when the minute is over."""
        budget = self._budgets.setdefault(note.source, _Budget())
        if note in self._held:
            self._held[note] += 1
        elif budget.spend():
            self._held[note] = 0
            return [(note, 1)]
        else:
            budget.others += 1
        return []

    def minute(self) -> list[tuple[Note, int]]:
        """A minute is over: what was held, and of each source one note for all that there was no room for."""
        for budget in self._budgets.values():
            budget.left = min(BURST, budget.left + PER_MINUTE)
        found = []
        for note, count in self._held.items():
            budget = self._budgets[note.source]
            if count and budget.spend():
                found.append((note, count))
            else:
                budget.others += count
        self._held.clear()
        for source, budget in list(self._budgets.items()):
            if budget.others and budget.spend():
                found.append((Note("refused", source, "others", source), budget.others))
                budget.others = 0
            elif budget.left == BURST:
                del self._budgets[source]
        return found


@dataclass(slots=True)
class Waiting:
    """Notes on their way into a log: those that cannot be written wait, the latest 1,000 of them."""

    _notes: deque[tuple[int, Note, int]] = field(default_factory=lambda: deque(maxlen=_MAX_WAITING))

    def __len__(self) -> int:
        return len(self._notes)

    def add(self, at_ms: int, notes: Sequence[tuple[Note, int]]) -> None:
        """Take notes of that time (ms UTC), each with how often it came."""
        self._notes.extend((at_ms, note, count) for note, count in notes)

    def drain(self, write: Callable[[int, Note, int], None]) -> None:
        """Have all of them written, oldest first; what `write` raises is raised, and that note and those after wait."""
        while self._notes:
            write(*self._notes[0])
            self._notes.popleft()


def _fit(text: str) -> str:
    # JSON can hold half a character, which UTF-8 cannot.
    return text[:MAX_TEXT].encode(errors="replace").decode()
