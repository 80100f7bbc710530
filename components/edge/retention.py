"""What the spool forgets, and in which order, decided from numbers. Pure.

=============  ======================================================  ============  ===========================
step           what goes, oldest first                                 when          what is lost by it
=============  ======================================================  ============  ===========================
EXPIRED        packets settled (receipt, or refused for ever) longer   always        nothing; refused ones are
               than `keep_days`, in time that agents ran                             declared as `rejected`
SETTLED_ROWS   rows that no packet in the outbox is made of            always        nothing
SET_ASIDE      files that were set aside as corrupt                    over bound    nothing: declared before
SETTLED        all other settled packets                               over bound    as EXPIRED
SETTLED_ROWS   their rows                                              over bound    nothing
PACKED_ROWS    rows whose packet is made and waits for its receipt     over bound    nothing while outbox.db is
                                                                                     sound: they are needed only to
                                                                                     make that one again
UNSENT         packets without a receipt                               over bound    these; declared as
                                                                                     `lost_range`
UNPACKED       rows of which no packet could be made, but for as many  over bound    these; declared as
               as one packet may hold                                                `lost_range`
=============  ======================================================  ============  ===========================

Rows whose packet is made when their minute is over never go. A card that is full is the same, at once, whatever the
bound. What is begun goes on until the spool is 5 % below its bound, so that it is not begun again with the next row; on
a full card, until 5 % of the spool is free, and 1 MB at least. What is lost for good (UNSENT, UNPACKED) goes for the
5 % only, whatever freed it: a young spool may be less than 1 MB.
"""

from enum import Enum
from typing import Final

_BELOW: Final = 20
"""One part in so many is made free at a time."""
_LEAST_BYTES: Final = 1_000_000


class Step(Enum):
    """What to forget next."""

    EXPIRED = "expired packets"
    SETTLED_ROWS = "rows of no packet here"
    SET_ASIDE = "files set aside"
    SETTLED = "settled packets"
    PACKED_ROWS = "rows of unsent packets"
    UNSENT = "unsent packets"
    UNPACKED = "rows of no packet to come"


_ORDER: Final = (
    Step.EXPIRED,
    Step.SETTLED_ROWS,
    Step.SET_ASIDE,
    Step.SETTLED,
    Step.SETTLED_ROWS,
    Step.PACKED_ROWS,
    Step.UNSENT,
    Step.UNPACKED,
)
_ALWAYS: Final = 2
_LOSING: Final = (Step.UNSENT, Step.UNPACKED)


class Tidying:
    """One tidying of a spool, from its beginning to its end.

    Args:
        used_bytes: What the spool takes now.
        max_bytes: Its bound.
        is_full: Whether the card has no room, whatever the bound.
    """

    def __init__(self, used_bytes: int, max_bytes: int, *, is_full: bool) -> None:
        bound = max_bytes - max_bytes // _BELOW if used_bytes > max_bytes else None
        self.goal_bytes = self._losing_goal = bound
        if is_full:
            room = used_bytes // _BELOW
            self.goal_bytes = min(used_bytes - max(room, _LEAST_BYTES), bound or used_bytes)
            # A young spool may not have the least at all: what is lost by it goes no further than its share.
            self._losing_goal = min(used_bytes - room, bound or used_bytes)
        self._at = 0

    @property
    def is_pressed(self) -> bool:
        """Whether it is about room, and not about age only."""
        return self.goal_bytes is not None

    def begun(self) -> Step:
        """Return the first step."""
        return _ORDER[0]

    def went(self, count: int, used_bytes: int) -> Step | None:
        """The step before has forgotten so many things: return the next step, None when all is done.

        A step is repeated until it finds nothing more; those that make room, only while more room is needed.
        """
        if count == 0:
            self._at += 1
        if self._at < _ALWAYS:
            return _ORDER[self._at]
        if self._at == len(_ORDER):
            return None
        step = _ORDER[self._at]
        # The losing steps come last and need no more than the others: where one is not needed, no later one is.
        goal = self._losing_goal if step in _LOSING else self.goal_bytes
        return None if goal is None or used_bytes <= goal else step
