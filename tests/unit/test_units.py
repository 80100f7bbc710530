"""The systemd units: that systemd knows every word of them, and what they leave open, which may not grow."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
STATED = re.findall(r"^\| `(odograph-\S+\.service)` \| (\d\.\d) \|", (DEPLOY / "README.md").read_text(), re.MULTILINE)
"""What deploy/README.md says that `systemd-analyze security` says of each."""


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; where there is none, or one that reads no files, the test is skipped."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here: apt-get install systemd")
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, timeout=60, check=True)
    if int(version.stdout.split()[1]) < 250:
        pytest.skip(f"systemd-analyze of {' '.join(version.stdout.split()[:2])} knows no --offline")
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *words], capture_output=True, text=True, timeout=60, check=False
    )


def test_of_each_unit_it_is_stated_what_it_leaves_open() -> None:
    assert {name for name, _ in STATED} == {path.name for path in DEPLOY.glob("*.service")}


@pytest.mark.parametrize(("unit", "most"), STATED)
def test_a_unit_leaves_no_more_open_than_is_stated(unit: str, most: str) -> None:
    threshold = round(float(most) * 10)
    found = analyze("security", "--offline=true", f"--threshold={threshold}", str(DEPLOY / unit))
    assert found.returncode == 0, found.stdout + found.stderr


def test_systemd_knows_every_line_of_the_units() -> None:
    # It also says that the programs are not installed here; a line that it does not take is named by its number.
    found = analyze("verify", *(str(DEPLOY / unit) for unit, _ in STATED))
    assert not re.findall(r"odograph-\S+\.service:\d+:.*", found.stdout + found.stderr)
