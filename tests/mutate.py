"""`make mutants`: put each fault of mutants/*.toml into a copy of the code, and see that its tests fail."""
# ruff: noqa: T201 - it is a program that prints

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
_COPIED: Final = ("components", "tests", "schemas", "router", "pyproject.toml", "setup.cfg")
_HANGS_S: Final = 60
"""A test that takes longer has failed; without a mutant, too, so that a busy machine is not taken for a killer."""
_LIMIT_S: Final = 600
"""For what hangs where no test is to blame."""
_AT_ONCE: Final = 2
_FAILED: Final = re.compile(r"^FAILED (?:\S*/)?(\S+?\.py::.+?)(?: - |$)", re.MULTILINE)


@dataclass(frozen=True)
class Mutant:
    """One fault, as a file of mutants/ has it."""

    name: str
    why: str
    file: str
    old: str
    new: str
    tests: Sequence[str]

    def put_into(self, tree: Path) -> str:
        """Change the file in that tree; return why it cannot be, "" when it is."""
        path = tree / self.file
        text = path.read_text() if path.is_file() else ""
        if (count := text.count(self.old)) != 1:
            return f"its old text stands {count} times in {self.file}: the mutant no longer applies"
        path.write_text(text.replace(self.old, self.new))
        return ""


def read() -> list[Mutant]:
    """Return the mutants of all files."""
    files = sorted((ROOT / "tests/mutants").glob("*.toml"))
    return [Mutant(**one) for path in files for one in tomllib.loads(path.read_text())["mutant"]]


def main(names: Sequence[str]) -> int:
    """Try the mutants whose names have one of these words, or all; return the exit code."""
    began = time.monotonic()
    mutants = [one for one in read() if not names or any(name in one.name for name in names)]
    with tempfile.TemporaryDirectory(prefix="odograph-mutants-") as folder, ThreadPoolExecutor(_AT_ONCE) as pool:
        sound = _sound(Path(folder))
        tests = sorted({test for one in mutants for test in one.tests})
        code, said = _run(sound, ["-n", str(_AT_ONCE), *tests], None)
        if code != 0:
            print(said, "the tests fail without any mutant", sep="\n")
            return 1
        numbered = list(enumerate(mutants))
        verdicts = []
        for mutant, verdict in zip(mutants, pool.map(lambda one: _try(sound, *one), numbered), strict=True):
            verdicts.append(verdict.startswith("killed"))
            print(f"{mutant.name:52} {verdict}", flush=True)
    print(f"{sum(verdicts)} of {len(mutants)} mutants killed in {time.monotonic() - began:.0f} s")
    return 0 if mutants and all(verdicts) else 1


def _try(sound: Path, number: int, mutant: Mutant) -> str:
    tree = Path(shutil.copytree(sound, sound.with_name(str(number))))
    try:
        if trouble := mutant.put_into(tree):
            return trouble
        code, said = _run(tree, mutant.tests)
    finally:
        shutil.rmtree(tree)
    if code is None:
        return f"killed: its tests did not end within {_LIMIT_S} s"
    failed = _FAILED.search(said)
    if code == 1 and failed is not None:
        return f"killed by {failed[1]}"
    return "SURVIVED" if code == 0 else f"its tests did not run (pytest ended with {code}): {said[-300:]}"


def _sound(folder: Path) -> Path:
    """Copy what the tests need, as it is now."""
    tree = folder / "sound"
    tree.mkdir()
    for part in _COPIED:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, tree / part)
    return tree


def _run(tree: Path, arguments: Sequence[str], limit_s: float | None = _LIMIT_S) -> tuple[int | None, str]:
    """Return pytest's exit code, None where it did not end in time, and what it printed."""
    options = ["-q", "-x", "-rf", "--tb=no", "--hypothesis-profile=mutants", f"--timeout={_HANGS_S}"]
    command = [sys.executable, "-m", "pytest", *options, *arguments]
    # The first run compiles everything, and each mutant's tree is a copy that has it.
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": ""}
    try:
        ended = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return ended.returncode, ended.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
