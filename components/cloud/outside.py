"""The persister as it is seen from outside: its counts under Prometheus's names, and what it lacks. Pure.

It counts nothing itself: persister and intake do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from components.cloud.wamp_intake import Intake
from components.metrics import Metric, counter, gauge

_PATIENCE_S: Final = 180.0
"""A sweep comes every 10 s. With both stores away and a batch before it, it takes their drivers' time-outs (up to 30 s
each) a few times over."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Implements metrics.View."""

    intake: Intake

    @property
    def patience_s(self) -> float:
        """For how long nothing may go through both lanes."""
        return _PATIENCE_S

    def unready(self) -> Sequence[str]:
        """Return why packets do not come, or cannot be stored or fed."""
        faults = [] if self.intake.connected else ["no session with the router"]
        return [*faults, *(f"{store}: {why}" for store, why in self.intake.trouble.items() if why)]

    async def metrics(self) -> Sequence[Metric]:
        """Count everything, now."""
        intake = self.intake
        packets: dict[tuple[str, ...], float] = {}
        # A copy, as they are counted in the archive's lane.
        for key, count in dict(intake.persister.counts).items():
            outcome, _, code = key.partition(".")
            if code or outcome not in {"rejected", "retry"}:
                packets[outcome, code] = count
        waiting, labels = intake.waiting, ("outcome", "code")
        queues = {key: waiting[key] for key in ("intake", "feed")}
        is_up = {store: not trouble for store, trouble in intake.trouble.items()}
        newest_s, lag_s = intake.newest_s, intake.lag_s
        return [
            Metric("gauge", "odograph_info", "Who this is", ("version",), {(version("odograph"),): 1}),
            Metric("counter", "odograph_packets_total", "Packets, by what became of them, and why", labels, packets),
            counter("odograph_fed_packets_total", "Packets announced at the feed", intake.fed),
            gauge("odograph_unfit_packets", "Stored packets that this version cannot feed", len(intake.unfit)),
            counter("odograph_lag_seconds_total", "From a period's end until it was stored, summed over all", lag_s),
            gauge("odograph_newest_packet_timestamp_seconds", "End of the newest period that was stored", newest_s),
            gauge("odograph_queue_packets", "Packets in hand, by what they wait for", queues, by="queue"),
            gauge("odograph_queue_bytes", "Size of the envelopes that wait for the archive", waiting["bytes"]),
            gauge("odograph_store_up", "Whether it answered when it was last asked", is_up, by="store"),
            gauge("odograph_router_connected", "Whether there is a session with the router", intake.connected),
        ]
