"""`make campaign`: rounds of faults on real processes, and the count of what they cost.

python -m tests.campaign.run [--rounds N] [--seed S] [--keep] [--only WORDS …] [--list]

Five rounds go on at a time, on parts that they do not share; after each twenty everything is mended, and the next
begin when all that was committed has its receipt. The seed decides the faults and their order; which instruction a
process has reached when it is hit is the machine's.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Final

from components.wire.errors import UnavailableError
from tests.campaign import scenarios
from tests.campaign.fault import CommandError, Fault, NotHereError, NotReachedError
from tests.campaign.ground import CARS, PERSISTERS, Ground, NotInTimeError, until
from tests.campaign.oracle import LIVE_S, Oracle
from tests.services import servers
from tests.services.servers import ServerDidNotStartError

_AT_ONCE: Final = 5
_PER_BARRIER: Final = 20
_ENDINGS: Final = 4
_PARTS: Final = (*CARS, *PERSISTERS, "router", "kafka", "ferretdb")


@dataclass
class Campaign:
    """Rounds on one ground.

    Attributes:
        unreached: Rounds whose fault had no effect, with the reason; they prove nothing and are not counted by kind.
        unproved: How many of these were rows of the crash table.
    """

    ground: Ground
    oracle: Oracle
    kinds: Counter[str] = field(default_factory=Counter)
    unreached: list[str] = field(default_factory=list)
    unproved: int = 0
    scenarios: int = field(default_factory=lambda: len(scenarios.scenarios()))
    _locks: dict[str, Lock] = field(default_factory=dict)
    _said: Lock = field(default_factory=Lock)

    def run(self, rounds: Sequence[Fault]) -> None:
        """Run the rounds, twenty at a time; ends early when something is violated."""
        self._locks = {target: Lock() for fault in rounds for target in fault.targets}
        # One pool for all: a server ends with the thread that started it (pdeathsig).
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            self.oracle.quiet()
            if self._all(pool, rounds):
                self._end_agents()
                self.oracle.end()

    def _end_agents(self) -> None:
        """End all edges; once more where one ended with packets that wait: it gives its last ones half a minute."""
        for _ in range(_ENDINGS):
            self.ground.end_agents()
            if not self.oracle.owed():
                return
            say("      the edges have ended before all receipts came: once more")
            self._mend()
            self.oracle.quiet()

    def _all(self, pool: ThreadPoolExecutor, rounds: Sequence[Fault]) -> bool:
        began = time.monotonic()
        for first in range(0, len(rounds), _PER_BARRIER):
            some = list(enumerate(rounds, 1))[first : first + _PER_BARRIER]
            list(pool.map(self._round, some))
            self._mend()
            mended = time.monotonic()
            self.oracle.quiet()
            self._all_know_the_keys()
            say(f"      all mended; quiet after {time.monotonic() - mended:.1f} s")
            say(f"{some[-1][0]:5} rounds, {time.monotonic() - began:6.0f} s: {self.figures()}")
            for part in _PARTS:
                self.ground.measure(part)
            if self.oracle.violations:
                return False
        return True

    def _all_know_the_keys(self) -> None:
        try:
            until(lambda: not self.ground.ignorant(), LIVE_S, "the server's newest keys are not known")
        except NotInTimeError as error:
            self.oracle.violations.append(f"{error}: {self.ground.ignorant()}")

    def figures(self) -> str:
        """Return how things stand, in a line."""
        made = sum(len(spool.sealed) for spool in self.oracle.spools.values())
        counts = self.oracle.counts
        return f"{made} packets, {self.oracle.resends} resends, {counts['receipts duplicate']} duplicate receipts"

    def _round(self, numbered: tuple[int, Fault]) -> None:
        number, fault = numbered
        with ExitStack() as held:
            for target in sorted(fault.targets):
                held.enter_context(self._locks[target])
            began = time.monotonic()
            try:
                fault.run(self.ground, self.oracle)
                self.kinds[fault.kind] += 1
                outcome = "done"
            except (NotReachedError, NotHereError) as error:
                outcome = f"without effect: {error}"
                self.unreached.append(f"round {number}, {fault.name}: {error}")
                # What the seed drew may come to nothing while something else is broken; a scenario may not.
                self.unproved += number <= self.scenarios and isinstance(error, NotReachedError)
            except (NotInTimeError, UnavailableError, ServerDidNotStartError, CommandError) as error:
                outcome = f"went wrong: {error}"
                self.oracle.violations.append(f"round {number}, {fault.name}: {error}")
        with self._said:
            say(f"{number:5} {fault.name}: {outcome} ({time.monotonic() - began:.1f} s)")

    def _mend(self) -> None:
        for proxy in self.ground.proxies.values():
            proxy.heal()
        for part in _PARTS:
            self.ground.resume(part)
            self.ground.start(part)


def plan(count: int, seed: int) -> list[Fault]:
    """Return that many rounds: the crash table's first, then what the seed draws."""
    random_ = random.Random(seed)  # noqa: S311 - faults, not secrets
    named = scenarios.scenarios()
    return named[:count] + [scenarios.drawn(random_) for _ in range(count - len(named))]


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def report(campaign: Campaign, seed: int, took_s: float) -> None:
    """Print what it came to."""
    oracle, ground = campaign.oracle, campaign.ground
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    say(f"seed {seed}: {sum(campaign.kinds.values())} rounds in {took_s:.0f} s, {load}")
    say("faults: " + ", ".join(f"{kind} {count}" for kind, count in sorted(campaign.kinds.items())))
    say(campaign.figures())
    for name, count in sorted(oracle.counts.items()):
        say(f"  {name}: {count}")
    for what, longest_s in sorted(oracle.longest_s.items()):
        say(f"  longest {what}: {longest_s:.1f} s")
    kills = ground.kills
    say(f"processes killed: {kills.total()} ({', '.join(f'{kind} {count}' for kind, count in sorted(kills.items()))})")
    peaks = ", ".join(f"{kind} {peak} MB" for kind, peak in sorted(ground.peaks_mb.items()))
    say(f"peak memory of one process: {peaks}")
    for line in campaign.unreached:
        say(f"without effect: {line}")
    for line in oracle.violations:
        say(f"VIOLATION: {line}")


def main(arguments: list[str]) -> int:
    """Run a campaign; exit code 0 when nothing was violated and every scenario had its effect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument(
        "--only", nargs="+", metavar="WORDS", help="scenarios with these words in their names, no others"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the scenarios")
    parser.add_argument("--keep", action="store_true", help="keep the directory, with every log and file")
    asked = parser.parse_args(arguments)
    rounds = plan(asked.rounds, asked.seed)
    if asked.only:
        rounds = [one for one in scenarios.scenarios() if any(words in one.name for words in asked.only)]
    if asked.list or not rounds:
        say("\n".join(one.name for one in scenarios.scenarios()))
        return 0 if asked.list else 2
    if not servers.FERRETDB.exists() or not (servers.KAFKA_LIBS / ".stamp").exists():
        say("Kafka or FerretDB is not here: make services")
        return 2
    # SIGTERM ends it in order, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    home = Path(tempfile.mkdtemp(prefix="odograph-campaign-"))
    say(f"seed {asked.seed}, {len(rounds)} rounds, in {home}")
    began = time.monotonic()
    oracle = Oracle()
    with Ground(home, oracle.watch) as ground:
        oracle.begin(ground.ferretdb.port, ground.kafka.port, {car.device: car.spool for car in ground.fleet.cars})
        campaign = Campaign(ground, oracle)
        campaign.run(rounds)
        report(campaign, asked.seed, time.monotonic() - began)
    bad = bool(oracle.violations or campaign.unproved)
    if not bad and not asked.keep:
        shutil.rmtree(home)
    else:
        say(f"every log and file is in {home}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
