"""`python -m tests.fuzz TARGET SECONDS`: feed one boundary, with atheris where it is installed, else with Hypothesis.

Ends with 0 when nothing but the documented errors came out and the memory stayed flat; what broke it is written to
`.cache/fuzz/`, from where it belongs into tests/fuzz/corpus/TARGET when it is mended.
"""

import hashlib
import importlib.util
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.mutations import near

_OUT = Path(".cache/fuzz")
_MAX_LENGTH = 300_000
_MAX_RSS_MB = 512


def main() -> int:
    """Run one target for so many seconds; return the exit code."""
    name, seconds = sys.argv[1], int(sys.argv[2])
    _OUT.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("atheris") is None:
        return _with_hypothesis(name, seconds)
    if len(sys.argv) == 3:
        # libFuzzer ends the process that it runs in, so it gets one.
        return _told(name, [sys.executable, "-m", "tests.fuzz", name, str(seconds), "atheris"])
    return _with_atheris(name, seconds)


def _told(name: str, command: list[str]) -> int:
    """Run libFuzzer, and say in one line what it did, or all that it said when something broke."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    words = done.stdout + done.stderr
    facts = dict(re.findall(r"^stat::(\w+): +(\d+)$", words, re.MULTILINE))
    if done.returncode or not facts:
        print(words[-20_000:])  # noqa: T201 - a program
        return done.returncode or 1
    print(f"{name}: {facts['number_of_executed_units']} inputs by atheris, {facts['peak_rss_mb']} MB at most")  # noqa: T201
    return 0


def _with_atheris(name: str, seconds: int) -> int:
    atheris: Any = importlib.import_module("atheris")  # it is not to be had on every platform
    with atheris.instrument_imports(include=["components"], enable_loader_override=False):
        corpus, targets = _parts()

    seeds = _OUT / f"{name}.seeds"
    seeds.mkdir(exist_ok=True)
    for one in corpus.of(name):
        (seeds / hashlib.sha256(one).hexdigest()[:16]).write_bytes(one)
    options = [f"-max_total_time={seconds}", f"-max_len={_MAX_LENGTH}", f"-rss_limit_mb={_MAX_RSS_MB}", "-timeout=5"]
    options += ["-print_final_stats=1", f"-artifact_prefix={_OUT}/{name}-"]
    atheris.Setup(["fuzz", *options, str(seeds)], targets.TARGETS[name])
    atheris.Fuzz()
    return 0


def _with_hypothesis(name: str, seconds: int) -> int:
    until, count = time.monotonic() + seconds, 0
    corpus, targets = _parts()
    seeds, target = corpus.of(name), targets.TARGETS[name]

    @settings(max_examples=500, deadline=None, database=None, phases=(Phase.generate, Phase.shrink),
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(near(seeds))
    def feed(data: bytes) -> None:
        nonlocal count
        count += 1
        target(data)

    while time.monotonic() < until:
        feed()
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{name}: {count} inputs in {seconds} s without atheris, {rss_mb} MB at most")  # noqa: T201 - a program
    return 0 if rss_mb <= _MAX_RSS_MB else 1


def _parts() -> tuple[Any, Any]:
    """Import what is fed, which atheris must see being imported."""
    return importlib.import_module("tests.fuzz.seeds"), importlib.import_module("tests.fuzz.targets")


if __name__ == "__main__":
    sys.exit(main())
