"""Keys that change while packets flow: the server's, and a device's, cut short at each of its moments."""

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from components.console.fleet import Fleet
from tests.campaign.fault import REACH_S, Fault, NotReachedError, at_home, fault, reached
from tests.campaign.ground import CARS, PERSISTERS, Ground, NotInTimeError, patience, until
from tests.campaign.oracle import Oracle
from tests.commands import odograph
from tests.journey_fleet import ENVIRONMENT, ROOT


def rotated_keys() -> Fault:
    """The server gets new keys while packets flow; every car learns of them, whatever else is broken just now."""

    def run(ground: Ground, _: Oracle) -> None:
        at_home(ground, "keys", "rotate")
        reached(lambda: len(ground.ignorant()) < len(CARS), "a car has the new keys")

    return fault("keys", "server keys rotated", ["keys"], run)


def rekeyed(device: str, cut_short_s: float) -> Fault:
    """A device gets another key; the command is killed at some moment."""

    def cut(_: Ground, command: Sequence[str | Path]) -> None:
        with suppress(subprocess.TimeoutExpired):
            # As it is typed: when it is killed it may still be loading its program.
            typed = Fleet.odograph(*map(str, command))
            subprocess.run(typed, capture_output=True, timeout=cut_short_s, check=False, env=ENVIRONMENT, cwd=ROOT)

    return _rekeyed(device, f"the change cut short after {cut_short_s:.1f} s", cut, [])


def rekeyed_not_answered(device: str) -> Fault:
    """A device gets another key; the persisters die when it is in the registry, before they say so."""

    def cut(ground: Ground, command: Sequence[str | Path]) -> None:
        for part in PERSISTERS:
            ground.kill(part)
            ground.start_doomed(part, "rekey.not_answered")

        def dies() -> bool:
            odograph(*command, timeout_s=REACH_S * patience())
            return any(map(ground.died, PERSISTERS))

        try:
            reached(dies, "a persister has the new key")
        finally:
            for part in PERSISTERS:
                ground.kill(part)
                ground.start(part)

    return _rekeyed(device, "the persister dies before it says so", cut, list(PERSISTERS))


def rekeyed_not_taken_up(device: str) -> Fault:
    """A device gets another key; the command dies when it has heard so, before the key is in its place."""

    def cut(_: Ground, command: Sequence[str | Path]) -> None:
        doomed = [sys.executable, "-m", "tests.campaign.doomed", "KILL", "rekey.not_taken_up", "1", *command]

        def dies() -> bool:
            ended = subprocess.run(doomed, check=False, capture_output=True, timeout=REACH_S * patience())
            return ended.returncode == -signal.SIGKILL

        reached(dies, "the command has its answer")

    return _rekeyed(device, "the command dies before it is in its place", cut, list(PERSISTERS))


def _rekeyed(
    device: str, words: str, cut: Callable[[Ground, Sequence[str | Path]], None], needs: Sequence[str]
) -> Fault:
    """The change of a key is cut short in some way, and run again until it says that it is done."""

    def run(ground: Ground, _: Oracle) -> None:
        car = ground.car(device)
        key = car.directory / "device.key"
        before = key.read_bytes()
        command: list[str | Path] = ["edge", "rekey", "--config", car.config]
        try:
            cut(ground, command)
            until(lambda: odograph(*command).returncode == 0, 2 * REACH_S, f"{device} has another key")
        except (NotInTimeError, subprocess.TimeoutExpired) as error:
            raise NotReachedError(str(error)) from error
        finally:
            # The one that runs goes on with the old key; it records, and does not join.
            ground.kill(device)
            ground.start(device)
        if key.read_bytes() == before:
            raise NotReachedError("the key is the same")

    parts = [device, f"{device}-router", "router", *needs]
    return fault("keys", f"{device} gets another key, {words}", parts, run)
