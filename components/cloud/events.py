"""A stored packet -> the events that announce it. Pure.

Event ids follow from the packet id, so that feeding again feeds the same ids: `<packet id>/r<n>` one a reading,
`/summary` one a packet, `/d<n>` one a trouble code.
"""

from collections.abc import Iterator, Mapping
from typing import Final, cast

from components.cloud.ports import FeedEvent, StoredPacket
from components.wire import packet as packets
from components.wire import strict_json
from components.wire.packet import Packet
from components.wire.times import iso_ms, iso_s

READINGS: Final = "car_readings"
SUMMARIES: Final = "car_summaries"
DTCS: Final = "car_dtcs"
TOPICS: Final = (READINGS, SUMMARIES, DTCS)


def events(stored: StoredPacket) -> Iterator[FeedEvent]:
    """Yield all events of a packet: readings in order, then the summary, then the codes."""
    opened = packets.read(stored.packet)
    who = {
        "device": stored.device,
        "account": stored.account,
        "vehicle": stored.vehicle,
        "driver": stored.driver,
        "session": stored.session,
        "packet": stored.id,
    }
    for n, reading in enumerate(opened.readings or ()):
        yield _event(stored, READINGS, f"r{n}", "odograph.reading.v1", reading.at_ms, who | _unsigned(reading.as_row()))
    start = {"start": iso_s(opened.start_ms), "period_s": opened.period_s}
    summary = {"summary": {key: _unsigned(figures) for key, figures in opened.summary.items()}}
    yield _event(stored, SUMMARIES, "summary", "odograph.summary.v1", opened.start_ms, who | start | summary)
    for n, code in enumerate(cast("list[dict[str, object]]", stored.packet["dtcs"])):
        yield _event(stored, DTCS, f"d{n}", "odograph.dtc.v1", opened.dtcs[n].last_seen_ms, who | code)


def event_ids(opened: Packet) -> list[str]:
    """Return the ids of all events of a packet, in the order of `events`."""
    readings = [f"r{n}" for n in range(len(opened.readings or ()))]
    return [f"{opened.id}/{tail}" for tail in (*readings, "summary", *(f"d{n}" for n in range(len(opened.dtcs))))]


def _unsigned(table: Mapping[str, object]) -> dict[str, object]:
    """Return a table with zero for minus zero: an archive may lose the sign, and an id has one content for ever."""
    return {key: 0.0 if value == 0 and isinstance(value, float) else value for key, value in table.items()}


def _event(stored: StoredPacket, topic: str, tail: str, kind: str, at_ms: int, data: object) -> FeedEvent:
    return FeedEvent(
        topic=topic,
        key=stored.device,
        id=f"{stored.id}/{tail}",
        type=kind,
        source=f"odograph/device/{stored.device}",
        time=iso_ms(at_ms),
        data=strict_json.dumps(data),
    )
