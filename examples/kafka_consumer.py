"""Read the stream from Kafka, each event once. Run: python examples/kafka_consumer.py HOST:PORT [GROUP].

The feed announces at least once: after a crash the same event comes again, under the same id. So whoever counts or
sums drops the ids that it has seen. Here they live in memory, for as long as this program runs; a consumer that
survives its own crash writes ids and results in one transaction of its database, and commits offsets after that.
"""

import contextlib
import json
import sys
from collections import OrderedDict

from kafka import KafkaConsumer

TOPICS = ("car_readings", "car_summaries", "car_dtcs")
REMEMBERED = 200_000  # ids: an hour of 50 cars; a repetition is seldom far from the first

consumer = KafkaConsumer(
    *TOPICS,
    bootstrap_servers=sys.argv[1].split(","),
    group_id=sys.argv[2] if len(sys.argv) > 2 else "odograph-example",
    auto_offset_reset="earliest",  # a new group begins with the oldest event that Kafka still has
    enable_auto_commit=False,
)
seen: OrderedDict[str, None] = OrderedDict()
with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C ends it
    while True:
        for record in (record for records in consumer.poll(timeout_ms=1_000).values() for record in records):
            headers = {name: value.decode() for name, value in record.headers}
            event_id = headers["ce_id"]  # <device>/<session>/<minute>/r<n>, /summary or /d<n>
            if event_id not in seen:
                seen[event_id] = None
                print(
                    headers["ce_time"], headers["ce_type"], event_id, json.loads(record.value).get("speed"), flush=True
                )
        while len(seen) > REMEMBERED:
            seen.popitem(last=False)
        consumer.commit()  # all of that is dealt with
