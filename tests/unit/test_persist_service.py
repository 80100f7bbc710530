"""The persister's process: what goes wrong in its minutes ends neither those nor its orderly end."""

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock, LoopingCall
from twisted.logger import Logger

from components.cloud.service import PersistComponent


class Part:
    """Whatever is stopped or closed at the end."""

    ended = 0

    def stop(self) -> Deferred[None]:
        self.ended += 1
        return succeed(None)

    close = stop


def test_a_minute_that_fails_is_not_the_last_and_keeps_nothing_from_its_end() -> None:
    tried = list[float]()

    async def minute() -> None:
        tried.append(clock.seconds())
        raise PermissionError(13, "var may not be entered")

    clock, part = Clock(), Part()
    persister: Any = object.__new__(PersistComponent)
    persister.intake = part
    persister._enrolment = SimpleNamespace(minute=minute)
    for name in ("lane", "feed_lane", "read_lane", "reader", "archive", "feed", "registry", "fleet_registry"):
        setattr(persister, f"_{name}", part)
    persister._log = Logger(observer=cast("Any", lambda _: None))
    persister._sweep = LoopingCall(lambda: None)
    persister._minute = LoopingCall(persister._note_refusals)
    persister._minute.clock = cast("Any", clock)
    persister._minute.start(60, now=False)
    clock.pump([60, 60])
    assert tried == [60, 120]
    ended = ensureDeferred(persister.end())
    failed = list[object]()
    ended.addErrback(failed.append)
    assert (failed, part.ended, persister._minute.running) == ([], 9, False)
