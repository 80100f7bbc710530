"""`python -m components.virtual_car`: a car as a process; one JSON line tells where everything is."""

import argparse
import json
import math
import os
import select
import signal
import sys
from pathlib import Path

from components.virtual_car.buses import BUSES
from components.virtual_car.car import Options, VirtualCar
from components.virtual_car.elm327 import BANNERS, CAN_11_500
from components.virtual_car.pids import ALL_KEYS
from components.virtual_car.recording import UnreadableRecordingError
from components.virtual_car.scenario import UnreadableScenarioError

_ANOTHER = "choose another --tcp-port, --gpsd-port or --control"


def _seconds(text: str) -> float:
    """A time that can be waited for."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"wanted 0 or more, got {text}")
    return number


def _count(text: str) -> int:
    """A whole number from 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"wanted 0 or more, got {text}")
    return number


def _port(text: str) -> int:
    """A TCP port or 0."""
    number = int(text)
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"wanted 0 to 65535, got {text}")
    return number


def _keys(text: str) -> frozenset[str]:
    """Signal keys that there are."""
    keys = frozenset(text.split(","))
    if unknown := keys - ALL_KEYS:
        raise argparse.ArgumentTypeError(f"no such signal: {', '.join(sorted(unknown))}")
    return keys


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m components.virtual_car", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="another seed is another car")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--parked", action="store_true", help="ignition on, engine off, one stored code")
    kind.add_argument("--marked", action="store_true", help="values that walk: none could be a guess")
    kind.add_argument("--replay", type=Path, metavar="FILE", help="drive after a recorded minute, again and again")
    parser.add_argument("--tcp-port", type=_port, default=0, help="of the adapter (0: any free one)")
    parser.add_argument("--gpsd-port", type=_port, default=0, help="of gpsd (0: any free one)")
    parser.add_argument("--latency", type=_seconds, default=0.010, metavar="S", help="seconds from request to answer")
    parser.add_argument("--baud", type=_count, default=115_200, help="of the adapter's serial line (0: no limit)")
    parser.add_argument("--model", choices=sorted(BANNERS), default="v2.1", help="which ELM327 to be")
    parser.add_argument("--supported", type=_keys, metavar="KEY,KEY,…", help="what the car has (without: all)")
    parser.add_argument("--bus", type=int, choices=sorted(BUSES), default=CAN_11_500, help="as ATSP numbers them")
    parser.add_argument("--control", type=_port, metavar="PORT", help="a socket for orders (0: any free port)")
    parser.add_argument("--scenario", type=Path, metavar="FILE", help="orders by time, TOML or JSON")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that holds our stdin")
    return parser.parse_args(argv)


def _catch_signals() -> int:
    """From now on SIGTERM and SIGINT do not kill: they make the returned descriptor readable."""
    signalled, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return signalled


def _wait_for_the_end(signalled: int, watch_stdin: bool) -> None:
    """Block until a signal or, if it is watched, the end of stdin."""
    watched = [signalled, *([sys.stdin.fileno()] if watch_stdin else [])]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if signalled in ready or not os.read(sys.stdin.fileno(), 4096):
            return


def main(argv: list[str] | None = None) -> int:
    """Run a car until it is told to end; the exit code."""
    arguments = _arguments(argv)
    # Before anybody can read our line: who has read it may end us at once, and expects exit code 0.
    signalled = _catch_signals()
    options = Options(
        seed=arguments.seed,
        parked=arguments.parked,
        marked=arguments.marked,
        replay=arguments.replay,
        tcp_port=arguments.tcp_port,
        gpsd_port=arguments.gpsd_port,
        control_port=arguments.control,
        scenario=arguments.scenario,
        latency_s=arguments.latency,
        baud=arguments.baud,
        model=arguments.model,
        supported=arguments.supported,
        bus=arguments.bus,
    )
    try:
        car = VirtualCar(options)
    except (UnreadableRecordingError, UnreadableScenarioError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"no port for the virtual car: {error.strerror}; {_ANOTHER}\n")
        return 2
    with car:
        ready = {
            "obd": car.obd,
            "obd_tcp": car.obd_tcp,
            "gpsd": car.gpsd,
            "modem": car.modem,
            "control": car.control,
            "vin": car.identity.vin,
            "iccid": car.identity.iccid,
            "imei": car.identity.imei,
            "t0_ms": car.clock.t0_ms,
            "adapter_version": BANNERS[options.model],
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        _wait_for_the_end(signalled, arguments.until_stdin_closes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
