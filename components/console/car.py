"""`odograph car`: a car at this laptop, through the edge's own reader. No server, no keys, nothing recorded."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.live import Live

from components.console import show
from components.wire.errors import UnavailableError
from components.wire.signals import OBD_SIGNALS

if TYPE_CHECKING:
    # Not otherwise: whoever runs a server has no edge installed, and this module is asked for its commands.
    from components.edge.ports import Car, Sample
    from components.edge.serial_line import Clock, Line

Codes = Sequence[dict[str, str]] | None
_CONNECT_MS: Final = 25_000
"""The slowest search over all buses, and a reset of the adapter before it."""
_BUS_IS_AWAY: Final = frozenset({"no_data", "bus_error"})
_WHOLE_MS: Final = 10_000
_NOT_YET: Final = frozenset({"timeout", "stale"})
_PASS_MS: Final = 1_000
_DTCS_MS: Final = 5_000
_DTCS_EVERY_MS: Final = 30_000
_PAUSE_S: Final = 0.05
"""Between attempts where there is no car: an attempt may end at once."""


@click.command()
@click.option(
    "--port", default="auto", show_default=True, help="A device, socket://HOST:PORT, bluetooth://MAC or auto."
)
@click.option(
    "--baud", type=click.IntRange(9600, 2_000_000), default=38_400, show_default=True, help="Of a serial line."
)
@click.option("--once", is_flag=True, help="Read everything once, print it and end.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object on standard output; with --once.")
@click.option("--raw", is_flag=True, help="Show the traffic on standard error, in place of the live table.")
def car(port: str, baud: int, once: bool, as_json: bool, raw: bool) -> None:
    """Show what a car says: its adapter, trouble codes, and every value with its age, as fast as the line allows."""
    if as_json and not once:
        raise click.UsageError("--json goes with --once")
    # With the edge's extra installed only, as in `odograph edge`.
    from components.console.overheard import Overheard  # noqa: PLC0415
    from components.edge.obd_car import ObdCar  # noqa: PLC0415
    from components.edge.serial_line import SerialLine  # noqa: PLC0415
    from components.edge.system_clock import elapsed_ms  # noqa: PLC0415

    def opened(url: str, until_ms: int) -> "Line":
        line = SerialLine(url, baud, elapsed_ms, until_ms)
        return Overheard(line, elapsed_ms) if raw else line

    with closing(ObdCar(port, clock=elapsed_ms, open_line=opened)) as found:
        visit = _Visit(found, elapsed_ms)
        visit.connect()
        if once or not (raw or sys.stdout.isatty()):
            visit.print_once(as_json=as_json)
        else:
            with suppress(KeyboardInterrupt):
                visit.watch(live=not raw)


def commands() -> list[Any]:
    """Return this module's commands for the `odograph` group."""
    return [car]


class _Visit:
    """One look at a car. `car` is an edge.ports.Car; `clock` gives elapsed ms."""

    def __init__(self, car: "Car", clock: "Clock") -> None:
        self._car = car
        self._clock = clock

    def connect(self) -> None:
        """Wait until the car is met, or the adapter says that there is none behind it, or for long enough.

        Raises:
            UnavailableError: There is no adapter, or it does not answer.
        """
        until_ms = self._clock() + _CONNECT_MS
        for sample in self._passes():
            state, is_late = self._car.state(), self._clock() >= until_ms
            is_away = is_late or _BUS_IS_AWAY.intersection(sample.why.values())
            if state.connected or (state.port and state.adapter and is_away):
                return
            if state.port is None or is_late:
                raise UnavailableError(f"no adapter answers: {state.trouble or 'timeout'}: check --port and --baud")

    def print_once(self, *, as_json: bool) -> None:
        """Read the car's codes, then everything that it has; print it."""
        # The values last: reading the codes may take so long that they are old after it.
        codes = self._codes()
        until_ms = self._clock() + _WHOLE_MS
        for sample in self._passes():
            found = self._form(sample, codes)
            if self._clock() >= until_ms or _NOT_YET.isdisjoint(map(sample.why.get, found["supported"])):
                break
        if as_json:
            click.echo(json.dumps(found))
        else:
            Console().print(show.car(found, _texts(codes)))

    def watch(self, *, live: bool) -> None:
        """Read as fast as the line allows, until somebody interrupts."""
        codes: Codes = None
        due_ms = self._clock()
        with Live(auto_refresh=False) as screen:
            for sample in self._passes():
                if not self._car.state().connected:
                    codes, due_ms = None, self._clock()  # what comes back may be another car
                elif self._clock() >= due_ms:
                    codes, due_ms = self._codes(), self._clock() + _DTCS_EVERY_MS
                if live:
                    screen.update(show.car(self._form(sample, codes), _texts(codes)), refresh=True)

    def _passes(self) -> "Iterator[Sample]":
        while True:
            yield self._car.sample(self._clock() + _PASS_MS)
            if not self._car.state().connected:
                time.sleep(_PAUSE_S)

    def _codes(self) -> Codes:
        """Return the codes that the car holds; None when it did not answer whole: that is not the same as none."""
        from components.edge.ports import CarAwayError  # noqa: PLC0415 - as above

        try:
            report = self._car.read_dtcs(self._clock() + _DTCS_MS)
        except CarAwayError:
            return None
        return [{"code": one.code, "status": one.status, "ecu": one.ecu} for one in report.codes]

    def _form(self, sample: "Sample", codes: Codes) -> dict[str, Any]:
        state, now_ms = self._car.state(), self._clock()
        return {
            "adapter": state.adapter,
            "protocol": state.protocol,
            "voltage": state.voltage_v,
            "vin": state.vin,
            "supported": list(state.supported),
            "signals": {
                signal.key: {
                    "value": sample.values.get(signal.key),
                    "unit": signal.unit,
                    "age_ms": now_ms - sample.measured_ms[signal.key] if signal.key in sample.values else None,
                    "reason": sample.why.get(signal.key),
                }
                for signal in OBD_SIGNALS
            },
            "dtcs": codes,
        }


def _texts(codes: Codes) -> dict[str, str]:
    from components.edge.obd_parser import code_text  # noqa: PLC0415 - as above

    return {one["code"]: code_text(one["code"]) for one in codes or ()}
