"""What can go wrong; `scenarios` says which of it a campaign is made of.

A fault breaks something, waits until that has had its effect where it can know (a condition), and mends it.
"""

import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Final, Literal

from tests.campaign.fault import (
    REACH_S,
    Fault,
    NotHereError,
    NotReachedError,
    Shown,
    at_home,
    fault,
    is_packet,
    lasts,
    packet_is_stored,
    reached,
    something_shown,
)
from tests.campaign.ground import (
    CARS,
    FAKETIME,
    PERSISTERS,
    SMALL_DISK_CAR,
    Ground,
    NotInTimeError,
    until,
)
from tests.campaign.oracle import Oracle
from tests.campaign.spools import Spool
from tests.proxy import Direction, Which, whatever

_TAKES_EFFECT_MS: Final = 2_000
"""What a persister had in hand when a device was shut out may still be stored."""
_LOOK_EVERY_S: Final = 0.1
_TIDIED_S: Final = 1.0
"""When the card has room again, the edge is done with making some within this."""
_BOTH: Final = tuple(PERSISTERS)
_HEARD_BY_BOTH: Final = CARS[:2]


def killed(
    parts: Sequence[str], after_s: float, down_s: float, name: str = "", shown: Shown = something_shown
) -> Fault:
    """SIGKILL at some moment; started again after a while."""

    def run(ground: Ground, oracle: Oracle) -> None:
        time.sleep(after_s)
        for part in parts:
            ground.kill(part)
        try:
            lasts(ground, oracle, down_s, shown)
        finally:
            for part in parts:
                ground.start(part)

    return fault("SIGKILL", name or f"kill {' and '.join(parts)} for {down_s:.1f} s", parts, run)


def power_cut(device: str) -> Fault:
    """SIGKILL of an edge that has just recorded something, and so is about to record the next."""

    def run(ground: Ground, oracle: Oracle) -> None:
        spool = oracle.spools[device]
        until(spool.look, 10, f"the spool of {device}")
        before = _recorded(spool)
        reached(lambda: spool.look() and _recorded(spool) > before, f"{device} records")
        ground.kill(device)
        ground.start(device)

    return fault("SIGKILL", "power cut while recording", [device], run)


def hung(part: str, for_s: float, name: str = "", shown: Shown = something_shown) -> Fault:
    """SIGSTOP for a while."""

    def run(ground: Ground, oracle: Oracle) -> None:
        ground.stop(part)
        try:
            lasts(ground, oracle, for_s, shown)
        finally:
            ground.resume(part)

    return fault("SIGSTOP", name or f"stop {part} for {for_s:.1f} s", [part], run)


def one_of_two_late(late: str, other: str) -> Fault:
    """Both persisters have a packet, as the router hands it to both; one hangs until the other has stored it."""

    def run(ground: Ground, oracle: Oracle) -> None:
        ground.stop(late)
        before = {*oracle.answered[late], *oracle.answered[other]}

        def by_other() -> set[str]:
            return {id_ for id_ in oracle.answered[other].copy() if id_ and id_.startswith(_HEARD_BY_BOTH)} - before

        try:
            reached(lambda: bool(by_other()), f"{other} stores a packet that {late} has in hand")
        finally:
            ground.resume(late)

    parts = [late, other, "router", "ferretdb"]
    wires = [f"{part}-{to}" for part in (late, other) for to in ("router", "ferretdb")]
    return fault("SIGSTOP", "two persisters hold the same packet, one of them late", [*parts, *wires], run)


def half_a_frame(
    wire: str, way: Direction, for_s: float, *, goes_on: bool, name: str = "", which: Which = whatever
) -> Fault:
    """A connection stalls in the middle of a frame (of TLS, on a car's), and then goes on, or is cut there."""

    def run(ground: Ground, _: Oracle) -> None:
        proxy = ground.proxies[wire]
        proxy.halve(way, which)
        try:
            reached(lambda: proxy.is_stalled, f"a frame goes {way} {wire}")
            time.sleep(for_s)
            if not goes_on:
                proxy.cut()
        finally:
            proxy.heal()

    then = "goes on" if goes_on else "is cut"
    words = f"{wire} stalls half way through a frame {way} for {for_s:.1f} s and {then}"
    return fault("connection: half a frame", name or words, [wire, *_ends(wire, which)], run)


def lost(wire: str, way: Direction, which: Which, name: str) -> Fault:
    """What is meant, and all after it, goes one way and does not arrive; then the connection breaks."""

    def run(ground: Ground, _: Oracle) -> None:
        proxy = ground.proxies[wire]
        proxy.mute(way, which)
        try:
            reached(lambda: proxy.is_mute, name)
        finally:
            proxy.heal()

    return fault(f"connection: lose {way}", name, [wire, *_ends(wire, which)], run)


def _ends(wire: str, which: Which) -> list[str]:
    """Return the parts that nobody else may touch while something that is meant is to go through a wire."""
    return [] if which is whatever else [*wire.split("-"), "router", "ferretdb"]


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

    return fault(f"connection: {how}", name or f"{how} {wire} for {for_s:.1f} s", [wire], run)


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
            reached(lambda: any(map(ground.died, parts)), point)
        finally:
            for part in parts:
                ground.kill(part)
                ground.start(part)

    return fault("crash point", name or f"{point} of {' and '.join(parts)}, time {nth}", [*parts, *needs], run)


def ended(part: str) -> Fault:
    """SIGTERM, as by an operator; it must end well, or by the signal itself where it was still loading."""

    def run(ground: Ground, oracle: Oracle) -> None:
        code = ground.end(part)
        if code not in {0, -signal.SIGTERM}:
            oracle.violations.append(f"{part} ended with {code} at SIGTERM")
        ground.start(part)

    return fault("SIGTERM", f"SIGTERM to {part}", [part], run)


def ended_in_mid_batch(part: str) -> Fault:
    """SIGTERM to a persister that has a batch in hand, not yet stored: it stores it, gives its receipts, ends well."""

    def run(ground: Ground, oracle: Oracle) -> None:
        ground.kill(part)
        before = oracle.answered[part].total()
        ground.start_doomed(part, "persister.before_insert", how="TERM")
        try:
            reached(lambda: ground.ended(part) is not None, "it has ended")
        finally:
            code = ground.ended(part)
            ground.kill(part)
            ground.start(part)
        if code != 0:
            oracle.violations.append(f"{part} ended with {code} at SIGTERM in mid-batch")
        if oracle.answered[part].total() == before:
            oracle.violations.append(f"{part} ended at SIGTERM without a receipt for the batch in hand")

    # Without these there is neither a batch nor a way for its receipts.
    others = ["router", "ferretdb", f"{part}-router", f"{part}-ferretdb"]
    return fault("SIGTERM", f"SIGTERM to {part} in mid-batch", [part, *others], run)


def full_disk(for_s: float, *, killed_too: bool = False) -> Fault:
    """The card of one car takes no byte more for a while; its edge may be killed, and has to start on that card."""

    def run(ground: Ground, oracle: Oracle) -> None:
        if killed_too and not ground.small_disk:
            raise NotHereError("a tmpfs cannot be mounted here: run it as root")
        spool = oracle.spools[SMALL_DISK_CAR]
        spool.was_full = True
        # What is forgotten now must have been seen before.
        with ground.full_disk():
            room = _ballast(spool)
            _look_for(spool, for_s)
            reached(lambda: spool.look() and _ballast(spool) != room, "its edge finds the card full")
            if killed_too:
                ground.kill(SMALL_DISK_CAR)
                ground.start(SMALL_DISK_CAR)
                _look_for(spool, for_s)
        _look_for(spool, _TIDIED_S)

    words = "and its edge killed" if killed_too else f"for {for_s:.1f} s"
    return fault("full disk", f"card full {words}", [SMALL_DISK_CAR], run)


def full_disk_of_unsent(for_s: float) -> Fault:
    """The card is full while nobody hears of its packets: the oldest of them may have to go, and are declared."""
    wire = f"{SMALL_DISK_CAR}-router"

    def run(ground: Ground, oracle: Oracle) -> None:
        ground.proxies[wire].cut()
        try:
            for _ in range(2):
                _one_more_packet(oracle.spools[SMALL_DISK_CAR])
            full_disk(for_s).run(ground, oracle)
        finally:
            ground.proxies[wire].heal()

    return fault("full disk", "card full of packets that nobody hears of", [SMALL_DISK_CAR, wire], run)


def _recorded(spool: Spool) -> int:
    return sum(map(len, spool.times.values()))


def _ballast(spool: Spool) -> int:
    """Return which file keeps room for a full card, 0 where none does: an edge that finds its card full lets it go."""
    try:
        return (spool.directory / "ballast").stat().st_ino
    except OSError:
        return 0


def _look_for(spool: Spool, for_s: float) -> None:
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        spool.look()
        time.sleep(_LOOK_EVERY_S)


def feed_away(for_s: float) -> Fault:
    """Kafka is down for longer than its driver waits."""
    return killed(["kafka"], 0.0, for_s, f"feed away for {for_s:.0f} s", packet_is_stored)


def no_persister(*, router_too: bool = False) -> Fault:
    """Nobody subscribes: the router takes a packet, and nobody has it; in the end it may die with it."""
    parts = (*_BOTH, "router") if router_too else _BOTH
    wire = f"{CARS[0]}-router"

    def run(ground: Ground, _: Oracle) -> None:
        for part in _BOTH:
            ground.kill(part)
        try:
            reached(ground.proxies[wire].expect("up", is_packet).is_set, f"{CARS[0]} publishes a packet")
            if router_too:
                ground.kill("router")
        finally:
            for part in reversed(parts):
                ground.start(part)

    name = "the router has packets that nobody subscribed to, and dies" if router_too else "no persister subscribed"
    return fault("SIGKILL", name, [*_BOTH, "router", CARS[0], wire], run)


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
            reached(lambda: all(map(ground.died, _BOTH)), "both have kept the dead letter")
        finally:
            for part in (*_BOTH, car):
                ground.kill(part)
                ground.start(part)

    needs = ["router", "ferretdb", f"{CARS[0]}-router"]
    return fault("crash point", "dead letter written, no receipt", [*_BOTH, CARS[0], *needs], run)


def corrupt(file: Literal["outbox.db", "readings.db"], device: str, *, running: bool = False) -> Fault:
    """A file of the spool is garbage, at the next start or under the hands of the edge that runs."""

    def run(ground: Ground, oracle: Oracle) -> None:
        car, spool = ground.car(device), oracle.spools[device]
        before = set(car.spool.glob(f"{file}.corrupt-*"))
        until((car.spool / file).exists, 20, f"{file} of {device}")
        # Stopped in mid-air, so that what is counted is all that there was.
        ground.stop(device) if running else ground.kill(device)
        until(spool.look, 10, f"the spool of {device}")
        if file == "readings.db":
            spool.given_up |= set(spool.times)
        # Its shared memory, cut short, would be the end of who has that mapped: that is no fault of a card.
        for path in [car.spool / file] if running else car.spool.glob(f"{file}*"):
            if ".corrupt-" not in path.name:
                path.write_bytes(b"garbage, " * 1000)
        ground.resume(device) if running else ground.start(device)
        until(lambda: set(car.spool.glob(f"{file}.corrupt-*")) - before, 30, f"{file} of {device} is set aside")

    when = "while its edge runs" if running else "when its edge starts"
    return fault("corrupt file", f"{file} of {device} is garbage {when}", [device], run)


def suspended(device: str, for_s: float) -> Fault:
    """A device is shut out, and let in again: what it says meanwhile waits on its card."""

    def run(ground: Ground, oracle: Oracle) -> None:
        before = _shut_out(ground, device)
        at_home(ground, "device", "suspend", device)
        since_ms = time.time_ns() // 1_000_000 + _TAKES_EFFECT_MS
        try:
            time.sleep(for_s)
            _one_more_packet(oracle.spools[device])
            reached(lambda: _shut_out(ground, device) > before, f"the router has ended {device}'s session")
        except NotInTimeError as error:
            raise NotReachedError(str(error)) from error
        finally:
            oracle.shut_out.append((device, since_ms, time.time_ns() // 1_000_000))
            at_home(ground, "device", "resume", device)

    return fault("suspension", f"{device} suspended for {for_s:.0f} s", [device], run)


def _shut_out(ground: Ground, device: str) -> int:
    """Return how often the router's log says that it ended a device's session, or did not let it join."""
    log = f"file:{ground.fleet.home.router_audit}?mode=ro"
    said = "SELECT count(*) FROM audit WHERE subject = ? AND action IN ('session.ended', 'join.refused')"
    with closing(sqlite3.connect(log, uri=True, timeout=10)) as db:
        return int(db.execute(said, (device,)).fetchone()[0])


def clock_jumps(device: str, years: int) -> Fault:
    """The wall clock of a car jumps by years while its edge runs; then that is killed, and starts with that clock."""

    def run(ground: Ground, oracle: Oracle) -> None:
        if FAKETIME is None:
            raise NotHereError("libfaketime is not here: make services")
        spool, clock = oracle.spools[device], ground.car(device).directory / "clock"
        clock.write_text("+0\n")
        ground.kill(device)
        ground.start_at(device, clock)
        try:
            _one_more_packet(spool)
            clock.write_text(f"{years:+}y\n")
            _one_more_packet(spool)
            ground.kill(device)
            ground.start_at(device, clock)
            _one_more_packet(spool)
        except NotInTimeError as error:
            raise NotReachedError(str(error)) from error
        finally:
            ground.kill(device)
            ground.start(device)

    return fault("clock", f"the clock of {device} jumps {years:+} years", [device], run)


def _one_more_packet(spool: Spool) -> None:
    until(spool.look, 10, f"the spool of {spool.device}")
    before = len(spool.sealed)
    until(lambda: spool.look() and len(spool.sealed) > before, REACH_S, f"{spool.device} makes a packet")
