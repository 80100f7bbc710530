"""How long the adapter waits for further answers, lowered as far as the car allows. Pure.

It matters where the number of lines cannot be given with a request (`grouping`): there each request ends with a wait.

    step  commands         the adapter waits (ELM327 data sheet)
    ----  ---------------  -----------------------------------------------------------------
    0     ATAT1 ATST32     as it has learnt from the car's answers, at most 205 ms
    1     ATAT2 ATST32     the same, learnt more boldly
    2     ATAT2 ATST19     … at most 102 ms
    3     ATAT2 ATST0F     … at most 61 ms

    event                                 what happens
    ------------------------------------  ---------------------------------------------------
    20 whole answers in succession, when  one step down, unless that step has failed before
    each item was asked once
    NO DATA to what the car has, step > 0 one step up, that step has failed, and ask again
    NO DATA, step 0                       believed: it is silent from then on
    NO DATA to what is silent             tells nothing
    a command is not understood           step 0 for good
"""

from typing import Final

_STEPS: Final = (("ATAT1", "ATST32"), ("ATAT2", "ATST32"), ("ATAT2", "ATST19"), ("ATAT2", "ATST0F"))
_CALM: Final = 20


class Timing:
    """The waiting of one adapter at one car; begins at step 0, which `elm_dialogue.meet` has set."""

    def __init__(self) -> None:
        self._step = 0
        self._deepest = len(_STEPS) - 1
        self._calm = 0

    @property
    def commands(self) -> tuple[str, ...]:
        """What must be in force now."""
        return _STEPS[self._step]

    def answered(self) -> bool:
        """A request that gave no number of lines was answered whole; return whether `commands` are others now."""
        self._calm += 1
        if self._calm < _CALM or self._step == self._deepest:
            return False
        self._step, self._calm = self._step + 1, 0
        return True

    def had_no_data(self) -> bool:
        """The car was silent to what it has; return whether that may be the waiting: `commands` are others now."""
        self._calm = 0
        if self._step == 0:
            return False
        self._step -= 1
        self._deepest = self._step
        return True

    def refused(self) -> None:
        """The adapter does not know one of the commands."""
        self._step = self._deepest = 0
