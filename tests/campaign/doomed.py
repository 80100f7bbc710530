"""An edge or a persister that is killed at a named point: a test program, as the product has no such points.

python -m tests.campaign.doomed KILL|TERM POINT NTH persist|edge|edge rekey --config FILE

A point is a call of one method of one store, which is where the law of receipts is kept: the process sends itself the
signal before that call begins or after it has returned, the NTH time that it is made with something in hand.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Literal


@dataclass(frozen=True)
class Point:
    """Where to die.

    Attributes:
        where: `module:class.method`.
        when: `half`: after the first half of what was in hand is done.
    """

    role: Literal["edge", "persist", "rekey"]
    where: str
    when: Literal["before", "after", "half"]


_OUTBOX: Final = "components.edge.sqlite_outbox:SqliteOutbox"
_READINGS: Final = "components.edge.sqlite_readings:ReadingsWriter"
_ARCHIVE: Final = "components.cloud.mongo_archive:MongoArchive"
_FEED: Final = "components.cloud.kafka_feed:KafkaFeed"

POINTS: Final = {
    "recorder.before_append": Point("edge", f"{_READINGS}.append", "before"),
    "recorder.after_append": Point("edge", f"{_READINGS}.append", "after"),
    "compactor.before_commit": Point("edge", f"{_OUTBOX}.add", "before"),
    # The packet is inserted; its cursor is not moved yet, or is; nothing is committed.
    "compactor.within_commit": Point("edge", f"{_OUTBOX}._move", "before"),
    "compactor.cursor_moved": Point("edge", f"{_OUTBOX}._move", "after"),
    "compactor.after_commit": Point("edge", f"{_OUTBOX}.add", "after"),
    "uplink.before_publish": Point("edge", f"{_OUTBOX}.envelope", "before"),
    "uplink.receipt_not_kept": Point("edge", f"{_OUTBOX}.settle", "before"),
    "uplink.receipt_kept": Point("edge", f"{_OUTBOX}.settle", "after"),
    "persister.before_insert": Point("persist", f"{_ARCHIVE}.insert", "before"),
    "persister.half_inserted": Point("persist", f"{_ARCHIVE}.insert", "half"),
    "persister.before_receipt": Point("persist", f"{_ARCHIVE}.insert", "after"),
    "persister.before_dead_letter": Point("persist", f"{_ARCHIVE}.put_dead_letters", "before"),
    "persister.after_dead_letter": Point("persist", f"{_ARCHIVE}.put_dead_letters", "after"),
    "feed.before_publish": Point("persist", f"{_FEED}.publish", "before"),
    "feed.half_published": Point("persist", f"{_FEED}.publish", "half"),
    "feed.before_mark": Point("persist", f"{_ARCHIVE}.mark_fed", "before"),
    "feed.after_mark": Point("persist", f"{_ARCHIVE}.mark_fed", "after"),
    "rekey.not_answered": Point("persist", "components.cloud.sqlite_registry:Registry.rekey_device", "after"),
    # The server has taken the new key; its file waits beside the old one.
    "rekey.not_taken_up": Point("rekey", "pathlib:Path.replace", "before"),
}


def owner_of(point: Point) -> type:
    """Return the class whose method a point is."""
    module, _, path = point.where.partition(":")
    owner: type = getattr(import_module(module), path.partition(".")[0])
    return owner


def arm(point: Point, nth: int, die: Callable[[], None], owner: type) -> None:
    """Wrap the method of a point; `die` is called at its `nth` call with something in hand."""
    method = point.where.rpartition(".")[2]
    real = getattr(owner, method)
    calls = 0

    def doomed(store: Any, first: Any, *others: Any, **named: Any) -> Any:  # noqa: ANN401 - any method
        nonlocal calls
        # Stores are prepared by calls with nothing in hand.
        calls += first != []
        now = calls == nth and first != []
        if now and point.when == "before":
            die()
        if now and point.when == "half":
            real(store, first[: (len(first) + 1) // 2], *others, **named)
            die()
        result = real(store, first, *others, **named)
        if now:
            die()
        return result

    setattr(owner, method, doomed)


def main(arguments: list[str]) -> int:
    """Run the command until it dies, or ends in order where TERM is what it got."""
    from components.console.__main__ import run  # noqa: PLC0415 - the points are asked for by others

    how, name, nth, *command = arguments
    if name == "seal.broken":
        break_one_seal()
    else:
        number = signal.Signals[f"SIG{how}"]
        arm(POINTS[name], int(nth), lambda: os.kill(os.getpid(), number), owner_of(POINTS[name]))
    return run(command)


def break_one_seal() -> None:
    """Let the edge's first envelope carry a signature that is wrong: a packet that will never be right."""
    compactor: Any = import_module("components.edge.compactor")
    real = compactor.Sealer.seal
    broken: list[bytes] = []

    def seal(sealer: Any, *args: Any) -> bytes:  # noqa: ANN401 - as the method's
        made: bytes = real(sealer, *args)
        if not broken:
            broken.append(made)
            made = made[:-1] + bytes([made[-1] ^ 1])
        return made

    compactor.Sealer.seal = seal


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
