"""The agent as it is seen from outside: its counts and states under Prometheus's names, and what it lacks. Rim.

It counts nothing itself: recorder, car, link, spool and clock do, and `device` tells operators the same in words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from components.edge.device import Device
from components.edge.power import State
from components.metrics import Metric, counter, gauge, state
from components.wire import envelope, receipt
from components.wire.packet import CLOCKS
from components.wire.times import parse_minute

_TURNS: Final = 3
_LEAST_S: Final = 3.0
"""At ten readings a second, three of them pass while the machine does anything else at all."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Implements metrics.View.

    Attributes:
        lost: How many ranges were declared lost, by reason.
    """

    device: Device
    lost: Mapping[str, int]

    @property
    def patience_s(self) -> float:
        """Three turns of the recorder: readings, or looks at a car that sleeps."""
        return max(_LEAST_S, _TURNS * self.device.recorder.interval_ms / 1000)

    def unready(self) -> Sequence[str]:
        """Return why packets would not reach the server, or readings not the card."""
        faults = {
            "no session with the router": not self.device.link.connected,
            f"the card takes no readings: {self.device.recorder.trouble}": self.device.recorder.trouble,
        }
        return [words for words, holds in faults.items() if holds]

    async def metrics(self) -> Sequence[Metric]:
        """Count everything, now."""
        return [*self._recording(), *await self._delivery()]

    def _recording(self) -> Sequence[Metric]:
        recorder, car = self.device.recorder, self.device.recorder.sources.car.state()
        readings = {"kept": recorder.recorded, "lost": recorder.lost}
        clock, power = recorder.timeline.source, recorder.power.state
        age_s = None if recorder.latest is None else (self._now_ms() - recorder.latest.at_ms) / 1000
        who: tuple[str, ...] = (self.device.id, self.device.version)
        return [
            Metric("gauge", "odograph_info", "Who this is", ("device", "version"), {who: 1}),
            counter("odograph_readings_total", "Readings that were made", readings, by="outcome"),
            gauge("odograph_latest_reading_age_seconds", "Since the latest reading was made", age_s),
            counter("odograph_signals_without_value_total", "Signals asked without a value", car.rejected, by="reason"),
            gauge("odograph_car_connected", "Whether adapter and bus answer", car.connected),
            gauge("odograph_plug_volts", "Voltage at the plug", car.voltage_v),
            state("odograph_power_state", "Whether the car is awake", power, of=get_args(State), by="state"),
            state("odograph_clock_source", "Where the session's time comes from", clock, of=CLOCKS, by="source"),
        ]

    async def _delivery(self) -> Sequence[Metric]:
        link, counts = self.device.link, await self.device.outbox_lane.run(self.device.outbox.counts)
        kept = {"waiting": counts.waiting, "receipted": counts.receipted, "rejected": counts.rejected}
        receipts = {status: link.counts[status] for status in receipt.STATUSES}
        bad = {name.removeprefix("bad."): count for name, count in link.counts.items() if name.startswith("bad.")}
        oldest_s, published = await self._oldest_age_s(), link.counts["published"]
        return [
            gauge("odograph_outbox_packets", "Packets that are kept, receipted ones until they are old", kept, "state"),
            gauge("odograph_outbox_waiting_bytes", "Size of the packets without a receipt", counts.waiting_bytes),
            gauge("odograph_oldest_unsent_age_seconds", "Since the start of the oldest of them; 0 for none", oldest_s),
            gauge("odograph_in_flight_packets", "How many of them are published", link.uplink.in_flight),
            counter("odograph_publications_total", "Packets handed to the router, each time", published),
            counter("odograph_receipts_total", "Receipts", receipts, by="status"),
            counter("odograph_bad_receipts_total", "What came as receipts and was none", bad, by="code"),
            counter("odograph_foreign_receipts_total", "Receipts of what does not wait here", link.counts["foreign"]),
            counter("odograph_lost_ranges_total", "Ranges that were declared lost", self.lost, "reason"),
            gauge("odograph_router_connected", "Whether there is a session with the router", link.connected),
        ]

    def _now_ms(self) -> int:
        return self.device.recorder.timeline.at(self.device.elapsed_ms())

    async def _oldest_age_s(self) -> float | None:
        seq = self.device.link.uplink.oldest
        sealed = None if seq is None else await self.device.outbox_lane.run(self.device.outbox.envelope, seq)
        if sealed is None:
            return 0.0
        name = envelope.packet_id(sealed)
        return None if name is None else (self._now_ms() - parse_minute(name.rpartition("/")[2])) / 1000
