"""The persister's process: what goes wrong in its minutes ends neither those nor its orderly end."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock, LoopingCall
from twisted.logger import Logger

from components.cloud.service import PersistComponent
from components.wire.errors import UnavailableError


class Part:
    """Whatever is stopped or closed at the end."""

    ended = 0

    def stop(self) -> Deferred[None]:
        self.ended += 1
        return succeed(None)

    close = stop


@pytest.mark.parametrize("fault", [PermissionError(13, "var may not be entered"), UnavailableError("locked")])
def test_a_minute_that_fails_is_told_is_not_the_last_and_keeps_nothing_from_its_end(fault: Exception) -> None:
    tried = list[float]()

    async def minute() -> None:
        tried.append(clock.seconds())
        raise fault

    clock, part = Clock(), Part()
    persister: Any = object.__new__(PersistComponent)
    persister.intake = part
    persister._enrolment = SimpleNamespace(minute=minute)
    for name in ("lane", "feed_lane", "read_lane", "reader", "archive", "feed", "registry", "fleet_registry"):
        setattr(persister, f"_{name}", part)
    told = list[str]()
    persister._log = Logger(observer=cast("Any", lambda event: told.append(event["log_level"].name)))
    persister._sweep = LoopingCall(lambda: None)
    persister._minute = LoopingCall(persister._note_refusals)
    persister._minute.clock = cast("Any", clock)
    persister._minute.start(60, now=False)
    clock.pump([60, 60])
    assert tried == [60, 120]
    assert told == ["critical" if isinstance(fault, OSError) else "warn"] * 2
    ended = ensureDeferred(persister.end())
    failed = list[object]()
    ended.addErrback(failed.append)
    assert tried == [60, 120, 120]
    assert (failed, part.ended, persister._minute.running) == ([], 9, False)
