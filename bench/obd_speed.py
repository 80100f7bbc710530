"""How fast a car is read: ObdCar beside python-OBD, on the same virtual adapter, in the same run.

The adapter is a process of its own. For three models of it, with all 36 items and with 20 of them:

* "line allows": what the model makes possible at all, by a formula: the bytes of the best grouping out and in at ten
  bits each, one latency a request, and no waiting, neither of the adapter for more lines nor of the reader.
* "ours, all": `measure_now` of all 36 items, again and again; complete sets a second are readings a second.
* "ours, 10 Hz": `sample` by its tiers, ten times a second where the adapter can; distinct fresh values a second.
* "python-OBD": `OBD(fast=True).query` over the same items, again and again. "checked" leaves out what it knows the car
  has not (`query(command)`), "asked" asks for everything (`query(command, force=True)`). It has no 61, 62, 63.
* "Async": `obd.Async` with its defaults, watching the same items; what its callbacks got.

PIDs a second are answers to items. "The double" is its own truth: what share of its model a bare request
and its answer reach over it, so that nobody takes the double for the line.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, Final

import obd

from components.edge.obd_car import ObdCar
from components.edge.serial_line import SerialLine
from components.edge.system_clock import elapsed_ms
from components.wire.signals import BY_KEY, OBD_SIGNALS, Signal

MODELS: Final = ((0.030, 38_400), (0.030, 115_200), (0.060, 38_400))
ALL: Final = tuple(signal.key for signal in OBD_SIGNALS)
USUAL: Final = (
    "dtc_status", "fuel_status", "load", "temp", "short_term_fuel_trim_1", "long_term_fuel_trim_1",
    "manifold_pressure", "rpm", "speed", "timing_advance", "intake_air_temp", "maf", "throttle_pos", "o211", "o212",
    "obd_standard", "engine_time", "abs_load", "ambient_air_temp", "acc_pedal_pos_d",
)  # fmt: skip
"""20 items that most petrol cars have."""
SHARED: Final = frozenset({"dtc_status", "speed"})
"""What the virtual car's transmission answers beside the engine."""
MEASURE_S: Final = 3.0


@contextmanager
def adapter(latency_s: float, baud: int, keys: tuple[str, ...]) -> Iterator[str]:
    """A virtual car in a process of its own, for as long as the context lasts; its serial device."""
    command = [sys.executable, "-m", "components.virtual_car", "--latency", str(latency_s), "--baud", str(baud)]
    command += ["--supported", ",".join(keys), "--until-stdin-closes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as car:
        if car.stdout is None or car.stdin is None:
            raise RuntimeError("no pipe to the virtual car")
        yield json.loads(car.stdout.readline())["obd"]
        car.stdin.close()


def request_s(signals: tuple[Signal, ...], latency_s: float, baud: int) -> float:
    """What the model takes for one counted request and its answer, no waiting.

    `01`, PIDs, count and CR out; each ECU's frames in, as `7E8` and hex digits and CR; CR and prompt.
    """
    sent = 2 + 2 * len(signals) + 1 + 1
    got = 2
    for ecu in (signals, tuple(signal for signal in signals if signal.key in SHARED)):
        body = 1 + sum(1 + signal.size for signal in ecu)
        if ecu:
            got += 3 + 2 * (1 + body) + 1 if body <= 7 else (3 + 16 + 1) * (1 + -(-(body - 6) // 7))
    return latency_s + (sent + got) * 10 / baud


def best_set_s(keys: tuple[str, ...], latency_s: float, baud: int) -> float:
    """What the model takes for all of these in the best of all divisions into requests of six at most.

    Only size and ECUs of an item matter, so it is enough to try how many of each kind a request has.
    """
    kinds: dict[tuple[int, bool], list[Signal]] = {}
    for key in keys:
        kinds.setdefault((BY_KEY[key].size, key in SHARED), []).append(BY_KEY[key])
    names = tuple(kinds)

    @cache
    def cost(counts: tuple[int, ...]) -> float:
        return request_s(tuple(signal for name, n in zip(names, counts, strict=True) for signal in kinds[name][:n]),
                         latency_s, baud)  # fmt: skip

    @cache
    def least(left: tuple[int, ...]) -> float:
        if not any(left):
            return 0.0
        tries = product(*(range(min(6, n) + 1) for n in left))
        return min(
            cost(counts) + least(tuple(n - taken for n, taken in zip(left, counts, strict=True)))
            for counts in tries
            # A request that is not full leaves nothing behind that it could have taken: dividing evenly is no gain.
            if sum(counts) == min(6, sum(left))
        )

    return least(tuple(len(kinds[name]) for name in names))


@dataclass(frozen=True)
class Pace:
    """What was read a second."""

    pids: float
    readings: float


def repeated(once: Callable[[], int]) -> Pace:
    """Do it until the time is over, at least once; `once` returns how many values it got."""
    values = rounds = 0
    began = now = time.monotonic()
    while now - began < MEASURE_S:
        values += once()
        rounds += 1
        now = time.monotonic()
    return Pace(values / (now - began), rounds / (now - began))


def ours(port: str, baud: int, keys: tuple[str, ...]) -> tuple[Pace, float, str]:
    """All at once, and PIDs a second by the tiers at 10 Hz; and how it asks."""
    car = ObdCar(port, baud, clock=elapsed_ms, period_ms=100)
    while len(car.sample(elapsed_ms() + 1_000).values) < len(keys) - 1:  # no freeze frame has no code
        pass
    for _ in range(4):
        car.measure_now(ALL, elapsed_ms() + 9_000)

    def once() -> int:
        sample = car.measure_now(ALL, elapsed_ms() + 9_000)
        # 0000, there is no freeze frame, is an answer too; it has no value.
        return len(sample.values) + (sample.why.get("dtc_ff") == "no_data")

    whole = repeated(once)
    fresh: set[tuple[str, int]] = set()
    began = now = time.monotonic()
    while now - began < MEASURE_S:
        due_s = now + 0.1
        fresh |= set(car.sample(elapsed_ms() + 100).measured_ms.items())
        time.sleep(max(0.0, due_s - time.monotonic()))
        now = time.monotonic()
    late = sum(at_ms < began * 1000 for _, at_ms in fresh)
    state = car.state()
    car.close()
    return (
        whole,
        (len(fresh) - late) / (now - began),
        f"{state.group} a request, {'' if state.counted else 'not '}counted",
    )


def python_obd(port: str, baud: int) -> tuple[Pace, Pace]:
    """Blocking, `fast=True`: with its check for support, and asked for everything."""
    peer = obd.OBD(port, baudrate=baud, fast=True)
    table: Any = obd.commands[1]
    commands = [table[signal.pid] for signal in OBD_SIGNALS if (signal.pid or 0) < len(table)]

    def once(*, force: bool) -> int:
        return sum(not peer.query(command, force=force).is_null() for command in commands)

    once(force=False)  # it learns how many frames each answer has
    paces = repeated(lambda: once(force=False)), repeated(lambda: once(force=True))
    peer.close()
    return paces


def python_obd_async(port: str, baud: int) -> float:
    """PIDs a second with its defaults."""
    peer = obd.Async(port, baudrate=baud)
    table: Any = obd.commands[1]
    got = heard = watched = 0

    def came(response: Any) -> None:  # noqa: ANN401 - an object of python-OBD
        nonlocal got, heard
        heard += 1
        got += not response.is_null()

    for signal in OBD_SIGNALS:
        if (signal.pid or 0) < len(table):
            peer.watch(table[signal.pid], callback=came)
            watched += peer.supports(table[signal.pid])
    peer.start()
    until = time.monotonic() + 20
    while heard < watched and time.monotonic() < until:  # the first round, in which it learns
        time.sleep(0.05)
    before, began = got, time.monotonic()
    time.sleep(MEASURE_S)
    pace = (got - before) / (time.monotonic() - began)
    peer.stop()
    peer.close()
    return pace


def double_share(port: str, latency_s: float, baud: int, keys: tuple[str, ...]) -> float:
    """The share of its model that the double reaches, always with the same request and nobody who reads the answer."""
    signals = tuple(BY_KEY[key] for key in keys if BY_KEY[key].size == 1 and key not in SHARED)[:6]
    line = SerialLine(port, baud, elapsed_ms, elapsed_ms() + 1_000)

    def asked(command: str) -> None:
        line.write(command.encode() + b"\r", elapsed_ms() + 1_000)
        data = b""
        while not data.endswith(b">"):
            data += line.read(elapsed_ms() + 1_000)

    for command in ("ATE0", "ATS0", "ATH1"):
        asked(command)
    command = "01" + "".join(f"{signal.pid:02X}" for signal in signals) + "2"
    began = time.monotonic()
    for _ in range(20):
        asked(command)
    took_s = (time.monotonic() - began) / 20
    line.close()
    return request_s(signals, latency_s, baud) / took_s


def main() -> None:
    """Print the table."""
    logging.disable(logging.CRITICAL)  # python-OBD's warnings about what is not supported
    print(f"{os.cpu_count()} cores. PIDs/s and readings/s (complete sets of what the car has of the 36)")
    worst = {"share": 1.0, "asked 20": 99.0, "asked 36": 99.0}
    for (latency_s, baud), keys in product(MODELS, (ALL, USUAL)):
        allowed = len(keys) / best_set_s(keys, latency_s, baud)
        with adapter(latency_s, baud, keys) as port:
            double = double_share(port, latency_s, baud, keys)
            whole, by_tiers, how = ours(port, baud, keys)
            checked, asked = python_obd(port, baud)
            relaxed = python_obd_async(port, baud)
        pids = whole.pids
        print(f"{1000 * latency_s:.0f} ms, {baud} baud, {len(keys)} of 36 items; ours: {how}")
        print(f"  line allows            {allowed:6.1f} PIDs/s  {allowed / len(keys):5.2f} readings/s")
        print(f"  ours, all              {pids:6.1f} PIDs/s  {whole.readings:5.2f} readings/s", end="")
        print(
            f"   {100 * pids / allowed:.1f} % of what the line allows (the double: {100 * double:.1f} % of its model)"
        )
        print(f"  ours, 10 Hz            {by_tiers:6.1f} PIDs/s")
        print(f"  python-OBD, asked      {asked.pids:6.1f} PIDs/s  {asked.readings:5.2f} readings/s", end="")
        print(f"   ours: {pids / asked.pids:.1f} x PIDs, {pids / len(keys) / asked.readings:.1f} x readings")
        print(f"  python-OBD, checked    {checked.pids:6.1f} PIDs/s  {checked.readings:5.2f} readings/s", end="")
        print(f"   ours: {pids / checked.pids:.1f} x PIDs")
        print(f"  python-OBD, Async      {relaxed:6.1f} PIDs/s                   ours: {pids / relaxed:.1f} x PIDs")
        worst["share"] = min(worst["share"], pids / allowed)
        worst[f"asked {len(keys)}"] = min(worst[f"asked {len(keys)}"], pids / asked.pids)
    print(f"at least {100 * worst['share']:.1f} % of what the line allows (aim: 90 %), and")
    print(f"at least {worst['asked 20']:.1f} x python-OBD asked for the same items with 20 supported (aim: 5),")
    print(f"at least {worst['asked 36']:.1f} x with 36 (aim: 4)")


if __name__ == "__main__":
    main()
