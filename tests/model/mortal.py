"""A process that may die at any call to what outlives it. A dead one changes nothing any more."""

from collections.abc import Callable
from typing import Any, Final, Literal

When = Literal["before", "inside", "after"]


class PowerCutError(BaseException):
    """The process ends here. No `except Exception` of the product may catch it."""


class Mortal:
    """One process: what it calls may be its last.

    `doom` names the call at which it dies: a name, how many of them pass before, and whether the call has been made
    then. `passed` has each call that was made, in order.
    """

    def __init__(self) -> None:
        self.is_alive = True
        self.doom: tuple[str, int, When] | None = None
        self.passed: list[str] = []

    def guard(self, name: str, call: Callable[..., Any], when: tuple[When, When] = ("before", "after")) -> Any:  # noqa: ANN401
        """Return `call` as this process makes it."""

        def mortal(*args: object, **kwargs: object) -> object:
            if not self.is_alive:
                raise PowerCutError(name)
            self.passed.append(name)
            self._die_at(name, when[0])
            answer = call(*args, **kwargs)
            self._die_at(name, when[1])
            return answer

        return mortal

    def _die_at(self, name: str, when: When) -> None:
        if self.doom is None or self.doom[0] != name or self.doom[2] != when:
            return
        if self.doom[1]:
            self.doom = name, self.doom[1] - 1, when
            return
        self.is_alive = False
        raise PowerCutError(name)


class Seam:
    """Anything that outlives a process, as that process sees it: `calls` can be its last."""

    def __init__(self, mortal: Mortal, behind: object, calls: tuple[str, ...]) -> None:
        self._mortal: Final = mortal
        self._behind: Final = behind
        self._calls: Final = calls

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever is behind
        found = getattr(self._behind, name)
        return self._mortal.guard(name, found) if name in self._calls else found
