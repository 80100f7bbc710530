"""What can go wrong; `scenarios` says which of it a campaign is made of.

A fault breaks something, waits until that has had its effect where it can know (a condition), and mends it.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from components.console.fleet import Fleet
from tests.campaign.ground import (
    CARS,
    FAKETIME,
    PERIOD_S,
    PERSISTERS,
    SMALL_DISK_CAR,
    Ground,
    NotInTimeError,
    patience,
    until,
)
from tests.campaign.oracle import Oracle
from tests.campaign.spools import Spool
from tests.commands import odograph
from tests.journey_fleet import ENVIRONMENT, ROOT
from tests.proxy import Direction

_REACH_S: Final = 40.0
"""A doomed process reaches its point within this, unless what else is broken keeps it from there."""
_TAKES_EFFECT_MS: Final = 2_000
"""What a persister had in hand when a device was shut out may still be stored."""
_LOOK_EVERY_S: Final = 0.1
_TIDIED_S: Final = 1.0
"""When the card has room again, the edge is done with making some within this."""
_BOTH: Final = tuple(PERSISTERS)


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


def half_a_frame(wire: str, way: Direction, for_s: float, *, goes_on: bool, name: str = "") -> Fault:
    """A connection stalls in the middle of a frame (of TLS, on a car's), and then goes on, or is cut there."""

    def run(ground: Ground, _: Oracle) -> None:
        proxy = ground.proxies[wire]
        proxy.halve(way)
        try:
            until(lambda: proxy.is_stalled, _REACH_S, f"a frame goes {way} {wire}")
            time.sleep(for_s)
            if not goes_on:
                proxy.cut()
        except NotInTimeError as error:
            raise NotReachedError(str(error)) from error
        finally:
            proxy.heal()

    then = "goes on" if goes_on else "is cut"
    words = f"{wire} stalls half way through a frame {way} for {for_s:.1f} s and {then}"
    return _fault("connection: half a frame", name or words, [wire], run)


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


def full_disk(for_s: float, *, killed_too: bool = False) -> Fault:
    """The card of one car takes no byte more for a while; its edge may be killed, and has to start on that card."""

    def run(ground: Ground, oracle: Oracle) -> None:
        if killed_too and not ground.small_disk:
            raise NotHereError("a tmpfs cannot be mounted here: run it as root")
        spool = oracle.spools[SMALL_DISK_CAR]
        spool.was_full = True
        # What is forgotten now must have been seen before.
        with ground.full_disk():
            _look_for(spool, for_s)
            if killed_too:
                ground.kill(SMALL_DISK_CAR)
                ground.start(SMALL_DISK_CAR)
                _look_for(spool, for_s)
        _look_for(spool, _TIDIED_S)

    words = "and its edge killed" if killed_too else f"for {for_s:.1f} s"
    return _fault("full disk", f"card full {words}", [SMALL_DISK_CAR], run)


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

    return _fault("full disk", "card full of packets that nobody hears of", [SMALL_DISK_CAR, wire], run)


def _look_for(spool: Spool, for_s: float) -> None:
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        spool.look()
        time.sleep(_LOOK_EVERY_S)


def feed_away(for_s: float) -> Fault:
    """Kafka is down for longer than its driver waits."""
    return killed(["kafka"], 0.0, for_s, f"feed away for {for_s:.0f} s")


def no_persister(*, router_too: bool = False) -> Fault:
    """Nobody subscribes: the router takes packets, and nobody has them; in the end it may die with them."""
    parts = (*_BOTH, "router") if router_too else _BOTH

    def run(ground: Ground, _: Oracle) -> None:
        for part in _BOTH:
            ground.kill(part)
        time.sleep(PERIOD_S + 1.0)
        if router_too:
            ground.kill("router")
        for part in reversed(parts):
            ground.start(part)

    name = "the router has packets that nobody subscribed to, and dies" if router_too else "no persister subscribed"
    return _fault("SIGKILL", name, parts, run)


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
    return _fault("corrupt file", f"{file} of {device} is garbage {when}", [device], run)


def suspended(device: str, for_s: float) -> Fault:
    """A device is shut out, and let in again: what it says meanwhile waits on its card."""

    def run(ground: Ground, oracle: Oracle) -> None:
        _at_home(ground, "device", "suspend", device)
        since_ms = time.time_ns() // 1_000_000 + _TAKES_EFFECT_MS
        time.sleep(for_s)
        oracle.shut_out.append((device, since_ms, time.time_ns() // 1_000_000))
        _at_home(ground, "device", "resume", device)

    return _fault("suspension", f"{device} suspended for {for_s:.0f} s", [device], run)


def rotated_keys() -> Fault:
    """The server gets new keys while packets flow; every car learns of them, whatever else is broken just now."""

    def run(ground: Ground, _: Oracle) -> None:
        _at_home(ground, "keys", "rotate")
        try:
            until(lambda: len(ground.ignorant()) < len(CARS), _REACH_S, "a car has the new keys")
        except NotInTimeError as error:
            raise NotReachedError(str(error)) from error

    return _fault("keys", "server keys rotated", ["keys"], run)


def rekeyed(device: str, cut_short_s: float) -> Fault:
    """A device gets another key: the command is killed at some moment, and run again until it says that it is done."""

    def run(ground: Ground, _: Oracle) -> None:
        car = ground.car(device)
        key = car.directory / "device.key"
        before = key.read_bytes()
        command = ["edge", "rekey", "--config", car.config]
        with suppress(subprocess.TimeoutExpired):
            # As it is typed: when it is killed it may still be loading its program.
            typed = Fleet.odograph(*map(str, command))
            subprocess.run(typed, capture_output=True, timeout=cut_short_s, check=False, env=ENVIRONMENT, cwd=ROOT)
        try:
            until(lambda: odograph(*command).returncode == 0, 2 * _REACH_S, f"{device} has another key")
        except NotInTimeError as error:
            raise NotReachedError(str(error)) from error
        finally:
            # The one that runs goes on with the old key; it records, and does not join.
            ground.kill(device)
            ground.start(device)
        if key.read_bytes() == before:
            raise NotReachedError("the key is the same")

    needs = ["router", f"{device}-router"]
    return _fault(
        "keys", f"{device} gets another key, the change cut short after {cut_short_s:.1f} s", [device, *needs], run
    )


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

    return _fault("clock", f"the clock of {device} jumps {years:+} years", [device], run)


def _one_more_packet(spool: Spool) -> None:
    until(spool.look, 10, f"the spool of {spool.device}")
    before = len(spool.sealed)
    until(lambda: spool.look() and len(spool.sealed) > before, _REACH_S, f"{spool.device} makes a packet")


def _at_home(ground: Ground, *arguments: str) -> None:
    """Run a command on the server's home; it needs nobody else, so it has to go well."""
    ended = odograph(*arguments, "--home", ground.fleet.home.path, timeout_s=60 * patience())
    if ended.returncode:
        raise CommandError(ended.stderr)
