"""`python -m components.virtual_car` as a process."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import serial

from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "components.virtual_car"]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    line: dict[str, object] = json.loads(process.stdout.readline())
    return line


def test_it_says_where_everything_is_and_ends_when_it_is_told() -> None:
    process = start("--parked", "--seed", "9", "--model", "v1.5")
    ready = first_line(process)
    assert list(ready) == [
        "obd", "obd_tcp", "gpsd", "modem", "control", "vin", "iccid", "imei", "t0_ms", "adapter_version",
    ]  # fmt: skip
    assert abs(int(str(ready["t0_ms"])) / 1_000 - time.time()) < 30
    with serial.Serial(str(ready["obd"]), timeout=PATIENCE_S) as line:
        line.write(b"ATI\r")
        assert line.read_until(b">") == b"ATI\rELM327 v1.5\r\r>"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (0, "", "")


def test_it_ends_with_the_process_that_holds_its_stdin() -> None:
    process = start("--until-stdin-closes")
    device = str(first_line(process)["obd"])
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=PATIENCE_S) == 0
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    assert not Path(device).exists()


def test_a_taken_port_is_one_line_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = ["--gpsd-port", str(taken.getsockname()[1])]
        done = subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "--gpsd-port" in done.stderr


def test_an_unreadable_recording_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "minute.json"
    path.write_text('{"minute": "2017-05-26T00:36:00Z", "readings": []}')
    done = subprocess.run([*COMMAND, "--replay", str(path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"{path}: readings: wanted a list")
    assert "real_minute.json" in done.stderr
