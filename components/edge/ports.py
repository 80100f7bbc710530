"""What the edge's decisions need from the world, as Protocols. Pure.

Every time here is `elapsed_ms`: ms of CLOCK_BOOTTIME, which runs on while the Pi sleeps and never jumps; `timeline`
makes UTC of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from components.wire.signals import Value


@dataclass(frozen=True, slots=True)
class Sample:
    """What one source said: for each of its signals a value with the time it was measured, or a reason.

    Attributes:
        values: By signal key.
        measured_ms: Elapsed ms at which each of `values` was received; same keys.
        why: Reason by signal key (wire.signals.REASONS) for each of the source's signals that has no value.
        keep_ms: By signal key the age up to which its value may be shown where no newer sample comes; None: as long as
            the connection holds. A value that is not in it holds for this sample only.
    """

    values: Mapping[str, Value]
    measured_ms: Mapping[str, int]
    why: Mapping[str, str]
    keep_ms: Mapping[str, int | None] = field(default_factory=dict)

    def kept(self, at_ms: int) -> "Sample":
        """Return what of this is still to be shown at `at_ms`, where no newer sample came: the rest is `timeout`."""
        keep_ms = {key: limit_ms for key, limit_ms in self.keep_ms.items() if key in self.values}
        measured = {
            key: self.measured_ms[key]
            for key, limit_ms in keep_ms.items()
            if limit_ms is None or at_ms - self.measured_ms[key] <= limit_ms
        }
        why = {key: "timeout" for key in (*self.values, *self.why) if key not in measured}
        return Sample({key: self.values[key] for key in measured}, measured, why, keep_ms)


@dataclass(frozen=True, slots=True, order=True)
class Dtc:
    """A trouble code as one ECU holds it; `ecu` is its answering address in hex (7E8)."""

    code: str
    status: Literal["stored", "pending", "permanent"]
    ecu: str


@dataclass(frozen=True, slots=True)
class CarState:
    """The connection to the car, for `status`.

    Attributes:
        connected: Whether the adapter answers and the car's bus is open.
        port: Device or URL in use; None while there is none.
        adapter: Its own version text; None while unknown.
        protocol: Name of the bus protocol; None while unknown.
        voltage_v: What the adapter said when it was last asked; None when it said nothing.
        voltage_ms: Elapsed ms of that; None with it.
        vin: 17 characters; None with `vin_why` otherwise.
        supported: Signal keys that this car has.
        group: How many PIDs one request holds on this car now.
        counted: Whether requests carry the number of lines that end them.
        timing: How long the adapter waits for further answers, as the commands that are in force.
        calibration: What each ECU calls its software (mode 09 PID 04), in the order of the ECUs.
        rejected: Signals that were asked and had no value for it, by reason, since the start.
        trouble: The adapter's or the system's own words about what is wrong; "" when nothing is.
    """

    connected: bool = False
    port: str | None = None
    adapter: str | None = None
    protocol: str | None = None
    voltage_v: float | None = None
    voltage_ms: int | None = None
    vin: str | None = None
    vin_why: str = "no_data"
    supported: tuple[str, ...] = ()
    group: int = 1
    counted: bool = False
    timing: str = ""
    calibration: tuple[str, ...] = ()
    rejected: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class DtcReport:
    """All that the car says about its faults.

    Attributes:
        codes: From modes 03, 07 and 0A of every ECU, sorted; whole or not there at all.
        freeze_frame: Signal values of frame 0 with its `dtc_ff`; {} when there is none.
        at_ms: Elapsed ms when the last answer came.
    """

    codes: tuple[Dtc, ...]
    freeze_frame: Mapping[str, Value] = field(default_factory=dict)
    at_ms: int = 0


class CarAwayError(Exception):
    """The car or its adapter did not answer a request whole; nothing was concluded from it. The text says what came."""


class Car(Protocol):
    """The car behind its adapter. Every method blocks, for at most its deadline, and is called from one thread only."""

    def sample(self, deadline_ms: int) -> Sample:
        """Ask what is due now; return every OBD signal's latest value or reason.

        Connects first where there is no connection (as far as the deadline lets it; the work goes on at the next
        call). Never raises.

        Args:
            deadline_ms: Elapsed ms by which it returns.
        """

    def rest(self, deadline_ms: int) -> Sample:
        """Leave the car's bus in peace: ask the adapter for its voltage and nothing else.

        Connects to the adapter where there is no connection, not to the car; the next `sample` takes up the car again.
        `state().voltage_v` is afterwards what was measured in this call, or None. Every signal has the reason
        `asleep`. Never raises.

        Args:
            deadline_ms: Elapsed ms by which it returns.
        """

    def read_dtcs(self, deadline_ms: int) -> DtcReport:
        """Ask every ECU for its codes now; CarAwayError when any part of the answer is missing."""

    def measure_now(self, keys: tuple[str, ...], deadline_ms: int) -> Sample:
        """Ask for these signals now, whatever their tier; a signal that is not answered has a reason. Never raises."""

    def clear_dtcs(self, deadline_ms: int) -> Literal["cleared", "refused", "unknown"]:
        """Send mode 04 once. `refused`: an ECU said no. `unknown`: no clear answer came; never sent again."""

    def state(self) -> CarState:
        """Return the connection's state as of the last call; may be called from any thread."""

    def close(self) -> None:
        """Let go of the port; the next `sample` opens it again."""


class Gps(Protocol):
    """A source of position. Called from the reactor's thread; returns at once."""

    def sample(self, elapsed_ms: int) -> Sample:
        """Return the latest fix's values, or reason `no_fix` (no fix) / `stale` (older than 3 s) for each."""

    def utc_ms(self) -> tuple[int, int] | None:
        """Return (UTC in ms, elapsed ms when it was heard) of the latest fix with a time; None while there is none."""


@dataclass(frozen=True, slots=True)
class Sim:
    """Identity of SIM (`iccid`) and modem (`imei`); where one is None its reason stands beside it.

    Asked for once a minute, as the card may be changed. What an answer does to a number that is known:

        answer                                              the number
        --------------------------------------------------  ---------------------------------------------------------
        a number                                            is this one from now on
        `no_data`: the modem says that it has no SIM        None at once
        another modem's IMEI, and no ICCID                  the ICCID is None at once: it was in the other modem
        anything else: no port, busy, silent (`timeout`),   stays for 5 minutes from when it was last confirmed, then
        `adapter_error`, `out_of_range`, `unsupported`      None, with the reason of the latest answer
    """

    iccid: str | None = None
    imei: str | None = None
    iccid_why: str = "unsupported"
    imei_why: str = "unsupported"
