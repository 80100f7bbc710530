"""What the router's audit log says of a flood: each thing once a minute with its count, and no more than so much. Pure.

Whoever knows the router's address can make it refuse as often as they like, under as many names as they like; the log
must neither fill the disk nor keep the router from its work.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

BURST: Final = 100
PER_MINUTE: Final = 2
"""Entries that come anew each minute: at most 2,880 a day, less than a megabyte."""
MAX_TEXT: Final = 120


@dataclass(frozen=True, slots=True)
class Note:
    """An entry to be: `what` happened to `whom`, `by` whom, with more to tell; equal notes are counted together."""

    what: str
    by: str
    whom: str
    more: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, what: str, by: str, whom: str, **more: str) -> "Note":
        """Return a note whose texts are no longer than MAX_TEXT: a peer chose them."""
        return cls(what, by[:MAX_TEXT], whom[:MAX_TEXT], tuple((key, text[:MAX_TEXT]) for key, text in more.items()))

    def detail(self, count: int) -> Mapping[str, object]:
        """Return the entry's detail."""
        return {**dict(self.more), "count": count}


@dataclass(slots=True)
class Refusals:
    """Decides which notes are written; `noted` and `minute` return those, with how often they came."""

    _budget: int = BURST
    _held: dict[Note, int] = field(default_factory=dict)
    _others: int = 0

    def noted(self, note: Note) -> list[tuple[Note, int]]:
        """Take a note: the first of its kind in this minute is written at once, the others when the minute is over."""
        if note in self._held:
            self._held[note] += 1
        elif self._budget > 0:
            self._budget -= 1
            self._held[note] = 0
            return [(note, 1)]
        else:
            self._others += 1
        return []

    def minute(self) -> list[tuple[Note, int]]:
        """A minute is over: what was held, and one note for all that there was no room for."""
        self._budget = min(BURST, self._budget + PER_MINUTE)
        found = []
        for note, count in self._held.items():
            if count and self._budget > 0:
                self._budget -= 1
                found.append((note, count))
            else:
                self._others += count
        self._held.clear()
        if self._others and self._budget > 0:
            self._budget -= 1
            found.append((Note("refused", "", "others"), self._others))
            self._others = 0
        return found
