"""What can go wrong: every row of the crash table as a scenario with a name, and random faults drawn from a seed.

A fault breaks something, waits until that has had its effect where it can know (a condition), and mends it.
"""

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from tests.campaign.doomed import POINTS
from tests.campaign.ground import CARS, PERIOD_S, PERSISTERS, SMALL_DISK_CAR, Ground, NotInTimeError, until
from tests.campaign.oracle import Oracle
from tests.campaign.spools import Spool
from tests.journey_fleet import odograph

_REACH_S: Final = 40.0
"""A doomed process reaches its point within this, unless what else is broken keeps it from there."""
_LOOK_EVERY_S: Final = 0.1
_TIDIED_S: Final = 1.0
"""When the card has room again, the edge is done with making some within this."""
_BOTH: Final = tuple(PERSISTERS)
_EVERYTHING: Final = (*CARS, *PERSISTERS, "router", "kafka", "ferretdb")


class NotReachedError(Exception):
    """The fault did not have its effect: the round proved nothing."""


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


def _fault(kind: str, name: str, targets: Sequence[str], run: Callable[[Ground, Oracle], None]) -> Fault:
    return Fault(kind, name, frozenset(targets), run)


def killed(parts: Sequence[str], after_s: float, down_s: float, name: str = "") -> Fault:
    """SIGKILL at some moment; started again after a while."""

    def run(ground: Ground, _: Oracle) -> None:
        time.sleep(after_s)
        for part in parts:
            ground.kill(part)
        time.sleep(down_s)
        for part in parts:
            ground.start(part)

    return _fault("SIGKILL", name or f"kill {' and '.join(parts)} for {down_s:.1f} s", parts, run)


def hung(part: str, for_s: float, name: str = "") -> Fault:
    """SIGSTOP for a while."""

    def run(ground: Ground, _: Oracle) -> None:
        ground.stop(part)
        time.sleep(for_s)
        ground.resume(part)

    return _fault("SIGSTOP", name or f"stop {part} for {for_s:.1f} s", [part], run)


def broken_wire(wire: str, how: Literal["cut", "stall", "lose up", "lose down"], for_s: float, name: str = "") -> Fault:
    """A connection is cut, or hands nothing on, or loses all that goes one way and then breaks."""

    def run(ground: Ground, _: Oracle) -> None:
        proxy = ground.proxies[wire]
        if how == "cut":
            proxy.cut()
        elif how == "stall":
            proxy.stall()
        else:
            proxy.mute("up" if how == "lose up" else "down")
        time.sleep(for_s)
        proxy.heal()

    return _fault(f"connection: {how}", name or f"{how} {wire} for {for_s:.1f} s", [wire], run)


def dies_at(point: str, parts: Sequence[str], nth: int = 1, name: str = "", needs: Sequence[str] = ()) -> Fault:
    """Each of the parts is started so that it dies at a point; then started as it should be.

    What it `needs` to come so far is left whole meanwhile.
    """

    def run(ground: Ground, _: Oracle) -> None:
        for part in parts:
            ground.kill(part)
            ground.start_doomed(part, point, nth)
        # Of two persisters the one may leave the other nothing to do: one that dies is what is wanted.
        try:
            until(lambda: any(map(ground.died, parts)), _REACH_S, point)
        except NotInTimeError as error:
            raise NotReachedError(str(error)) from error
        finally:
            for part in parts:
                ground.kill(part)
                ground.start(part)

    return _fault("crash point", name or f"{point} of {' and '.join(parts)}, time {nth}", [*parts, *needs], run)


def ended(part: str) -> Fault:
    """SIGTERM, as by an operator; it must end well, or by the signal itself where it was still loading."""

    def run(ground: Ground, oracle: Oracle) -> None:
        code = ground.end(part)
        if code not in {0, -signal.SIGTERM}:
            oracle.violations.append(f"{part} ended with {code} at SIGTERM")
        ground.start(part)

    return _fault("SIGTERM", f"SIGTERM to {part}", [part], run)


def ended_in_mid_batch(part: str) -> Fault:
    """SIGTERM to a persister that has a batch in hand, not yet stored: it stores it, gives its receipts, ends well."""

    def run(ground: Ground, oracle: Oracle) -> None:
        ground.kill(part)
        before = oracle.answered[part]
        ground.start_doomed(part, "persister.before_insert", how="TERM")
        try:
            until(lambda: ground.ended(part) is not None, _REACH_S, "it has ended")
        except NotInTimeError as error:
            raise NotReachedError(str(error)) from error
        finally:
            code = ground.ended(part)
            ground.kill(part)
            ground.start(part)
        if code != 0:
            oracle.violations.append(f"{part} ended with {code} at SIGTERM in mid-batch")
        if oracle.answered[part] == before:
            oracle.violations.append(f"{part} ended at SIGTERM without a receipt for the batch in hand")

    # Without these there is neither a batch nor a way for its receipts.
    others = ["router", "ferretdb", f"{part}-router", f"{part}-ferretdb"]
    return _fault("SIGTERM", f"SIGTERM to {part} in mid-batch", [part, *others], run)


def full_disk(for_s: float) -> Fault:
    """The card of one car takes no byte more for a while."""

    def run(ground: Ground, oracle: Oracle) -> None:
        if not ground.small_disk:
            raise NotHereError("a tmpfs cannot be mounted here: run it as root")
        spool = oracle.spools[SMALL_DISK_CAR]
        spool.was_full = True
        # What is forgotten now must have been seen before.
        with ground.full_disk():
            _look_for(spool, for_s)
        _look_for(spool, _TIDIED_S)

    return _fault("full disk", f"card full for {for_s:.1f} s", [SMALL_DISK_CAR], run)


def _look_for(spool: Spool, for_s: float) -> None:
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        spool.look()
        time.sleep(_LOOK_EVERY_S)


def feed_away(for_s: float) -> Fault:
    """Kafka is down for longer than its driver waits."""
    return killed(["kafka"], 0.0, for_s, f"feed away for {for_s:.0f} s")


def no_persister() -> Fault:
    """Nobody subscribes: the router takes packets, and nobody has them."""
    return killed(_BOTH, 0.0, PERIOD_S + 1.0, "no persister subscribed")


def dead_letter_without_receipt() -> Fault:
    """An envelope that will never be right; both persisters die when they have kept it, before they say so."""

    def run(ground: Ground, oracle: Oracle) -> None:
        car = CARS[0]
        for part in _BOTH:
            ground.kill(part)
            ground.start_doomed(part, "persister.after_dead_letter")
        ground.kill(car)
        oracle.broken_seals += 1
        ground.start_doomed(car, "seal.broken")
        try:
            until(lambda: all(map(ground.died, _BOTH)), _REACH_S, "both have kept the dead letter")
        except NotInTimeError as error:
            raise NotReachedError(str(error)) from error
        finally:
            for part in (*_BOTH, car):
                ground.kill(part)
                ground.start(part)

    needs = ["router", "ferretdb", f"{CARS[0]}-router"]
    return _fault("crash point", "dead letter written, no receipt", [*_BOTH, CARS[0], *needs], run)


def corrupt(file: Literal["outbox.db", "readings.db"], device: str) -> Fault:
    """A file of the spool is garbage at the next start."""

    def run(ground: Ground, oracle: Oracle) -> None:
        car, spool = ground.car(device), oracle.spools[device]
        until((car.spool / file).exists, 20, f"{file} of {device}")
        ground.kill(device)
        until(spool.look, 10, f"the spool of {device}")
        if file == "readings.db":
            spool.given_up |= set(spool.times)
        for path in car.spool.glob(f"{file}*"):
            if ".corrupt-" not in path.name:
                path.write_bytes(b"garbage, " * 1000)
        ground.start(device)
        until(lambda: any(car.spool.glob(f"{file}.corrupt-*")), 30, f"{file} of {device} is set aside")

    return _fault("corrupt file", f"{file} of {device} is garbage", [device], run)


def suspended(device: str, for_s: float) -> Fault:
    """A device is shut out, and let in again: what it says meanwhile waits on its card."""

    def run(ground: Ground, _: Oracle) -> None:
        for order, then_s in (("suspend", for_s), ("resume", 0.0)):
            ended = odograph("device", order, device, "--home", ground.fleet.home.path)
            if ended.returncode:
                raise RuntimeError(ended.stderr)
            time.sleep(then_s)

    return _fault("suspension", f"{device} suspended for {for_s:.0f} s", [device], run)


def scenarios() -> list[Fault]:
    """Return the rows of the crash table, in its order, that a campaign can bring about."""
    one, other = CARS[0], CARS[1]
    stores, feed = ["router", "ferretdb"], ["router", "ferretdb", "kafka"]
    return [
        killed([one], 0.0, 0.5, "power cut while recording"),
        dies_at("recorder.before_append", [other], name="power cut before a row is committed"),
        dies_at("compactor.before_commit", [one], name="compactor dies before its commit"),
        dies_at("compactor.within_commit", [CARS[2]], name="compactor dies between packet and cursor"),
        dies_at("compactor.cursor_moved", [one], name="compactor dies between cursor and commit"),
        dies_at("compactor.after_commit", [CARS[3]], name="edge dies after commit, before publish"),
        killed(["router"], 0.0, 1.0, "router dies"),
        no_persister(),
        dies_at("persister.before_insert", _BOTH, name="persister dies before insert", needs=stores),
        broken_wire("persister_a-ferretdb", "lose down", PERIOD_S + 1.0, "insert's answer lost"),
        dies_at("persister.before_receipt", _BOTH, name="persister dies between storing and receipt", needs=stores),
        broken_wire("persister_b-router", "lose up", PERIOD_S + 1.0, "receipt lost"),
        hung("persister_a", PERIOD_S + 1.0, "two persisters hold the same packet, one of them late"),
        dies_at("uplink.receipt_not_kept", [other], name="edge dies between receipt and its commit", needs=stores),
        dies_at("feed.half_published", _BOTH, name="feed dies half way", needs=feed),
        dies_at("feed.before_mark", _BOTH, name="feed dies before the mark", needs=feed),
        dead_letter_without_receipt(),
        corrupt("outbox.db", CARS[2]),
        corrupt("readings.db", CARS[3]),
        full_disk(PERIOD_S + 2.0),
        suspended(CARS[3], PERIOD_S + 1.0),
        killed(["ferretdb"], 0.0, 3.0, "archive away"),
        hung("ferretdb", PERIOD_S + 3.0, "archive hangs"),
        feed_away(12.0),
        ended_in_mid_batch("persister_b"),
    ]


def drawn(random_: random.Random) -> Fault:
    """Draw a fault."""
    kinds: list[tuple[int, Callable[[random.Random], Fault]]] = [
        (8, _random_kill),
        (4, _random_double_kill),
        (4, _random_hang),
        (3, lambda r: ended(r.choice([*CARS, *PERSISTERS]))),
        (7, _random_wire),
        (8, _random_point),
        (2, lambda r: full_disk(r.uniform(1.0, 4.0))),
        (1, lambda r: suspended(r.choice(CARS), r.uniform(1.0, 4.0))),
    ]
    make = random_.choices([make for _, make in kinds], [weight for weight, _ in kinds])[0]
    return make(random_)


def _random_kill(random_: random.Random) -> Fault:
    weights = [3] * (len(CARS) + len(PERSISTERS)) + [2, 1, 2]
    return killed(random_.choices(_EVERYTHING, weights), random_.uniform(0, 1.0), random_.uniform(0, 1.5))


def _random_double_kill(random_: random.Random) -> Fault:
    return killed(random_.sample([*CARS, *PERSISTERS, "ferretdb"], 2), random_.uniform(0, 1.0), random_.uniform(0, 1.5))


def _random_hang(random_: random.Random) -> Fault:
    return hung(random_.choice(_EVERYTHING), random_.uniform(0.5, 4.0))


def _random_wire(random_: random.Random) -> Fault:
    wires = [f"{car}-router" for car in CARS] + [f"{one}-{to}" for one in PERSISTERS for to in ("router", "ferretdb")]
    how: Any = random_.choice(["cut", "stall", "lose up", "lose down"])
    return broken_wire(random_.choice(wires), how, random_.uniform(0.2, 3.0))


def _random_point(random_: random.Random) -> Fault:
    # A dead letter needs an envelope that is wrong; that is a scenario.
    point = random_.choice([name for name in POINTS if "dead_letter" not in name])
    parts = CARS if POINTS[point].role == "edge" else _BOTH
    return dies_at(point, [random_.choice(parts)], random_.choice([1, 1, 2]))
