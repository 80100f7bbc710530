"""One round of a campaign: what it is, and what shows that it met the moment that it is named for."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.campaign.ground import Ground, NotInTimeError, patience, until
from tests.campaign.oracle import Oracle
from tests.commands import odograph

REACH_S: Final = 40.0
"""A doomed process reaches its point within this, unless what else is broken keeps it from there."""
_INSERTED: Final = re.compile(rb"\x10n\x00....\x01ok\x00", re.DOTALL)
"""In the answer to an insert, in BSON: how many, and nothing between that and the verdict."""
_PACKET_BYTES: Final = 512
"""No packet is shorter; of what else a car that has joined sends, all is."""

Shown = Callable[[Ground, Oracle], Callable[[], bool]]
"""Asked when something has just been broken; what it returns is true once the fault has met what it is named for."""


class NotReachedError(Exception):
    """The fault did not have its effect: the round proved nothing."""


class CommandError(Exception):
    """A command of ours did not go well though nothing stood in its way."""


class NotHereError(Exception):
    """This machine does not let it be done."""


@dataclass(frozen=True)
class Fault:
    """One round.

    Attributes:
        kind: What it is counted as.
        name: What it did to whom; the same seed gives the same names.
        targets: The parts and connections that nobody else may touch meanwhile.
        run: Breaks and mends; NotReachedError when it had no effect, NotHereError when it cannot be done.
    """

    kind: str
    name: str
    targets: frozenset[str]
    run: Callable[[Ground, Oracle], None]


def fault(kind: str, name: str, targets: Sequence[str], run: Callable[[Ground, Oracle], None]) -> Fault:
    """Return one; a target may be named twice."""
    return Fault(kind, name, frozenset(targets), run)


def is_packet(piece: bytes) -> bool:
    """Whether a piece from a car that has joined, sealed by TLS, can be nothing but a packet."""
    return len(piece) >= _PACKET_BYTES


def is_receipt(piece: bytes) -> bool:
    """Whether a piece from a persister to the router has a receipt."""
    return b"odograph.receipt." in piece


def is_insert(piece: bytes) -> bool:
    """Whether a piece from a persister to FerretDB has a packet to be kept."""
    return b"\x02insert\x00" in piece


def is_inserted(piece: bytes) -> bool:
    """Whether a piece from FerretDB says that something was kept."""
    return _INSERTED.search(piece) is not None


def something_shown(_ground: Ground, _oracle: Oracle) -> Callable[[], bool]:
    """The fault alone is what it is named for."""
    return lambda: True


def packet_comes(_ground: Ground, oracle: Oracle) -> Callable[[], bool]:
    """A packet comes to a persister meanwhile."""
    before = oracle.deliveries
    return lambda: oracle.deliveries > before


def retry_is_said(_ground: Ground, oracle: Oracle) -> Callable[[], bool]:
    """A persister says meanwhile that a packet shall come again."""
    before = oracle.counts["receipts retry"]
    return lambda: oracle.counts["receipts retry"] > before


def packet_is_stored(_ground: Ground, oracle: Oracle) -> Callable[[], bool]:
    """A packet is stored and has its receipt meanwhile, which nothing feeds."""
    before = oracle.counts["receipts stored"]
    return lambda: oracle.counts["receipts stored"] > before


def lasts(ground: Ground, oracle: Oracle, for_s: float, shown: Shown) -> None:
    """Let what is broken be so for that long, and until it has met what it is named for."""
    met = shown(ground, oracle)
    time.sleep(for_s)
    reached(met, shown.__name__)


def reached(met: Callable[[], bool], what: str) -> None:
    """Wait until the fault has had its effect, in words; NotReachedError when it does not."""
    try:
        until(met, REACH_S, what)
    except NotInTimeError as error:
        raise NotReachedError(str(error)) from error


def at_home(ground: Ground, *arguments: str) -> None:
    """Run a command on the server's home; it needs nobody else, so it has to go well."""
    ended = odograph(*arguments, "--home", ground.fleet.home.path, timeout_s=60 * patience())
    if ended.returncode:
        raise CommandError(ended.stderr)
