"""What must be true whatever was broken, counted in the stores by code of its own.

Receipts are looked at while they pass: the document must be there before its receipt is. The rest is counted when all
has been mended: what each edge has committed, against what FerretDB holds and what Kafka tells.
"""

import hashlib
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import cbor2
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.campaign.ground import PERIOD_S, NotInTimeError, patience, until
from tests.campaign.spools import Sealed, Spool
from tests.proxy import Direction, Watch

_PUBLISH: Final = 16
_EVENT: Final = 36
_LATE_MS: Final = 2_500
"""Longer than this between two readings is a hole that must be declared."""
LIVE_S: Final = 120.0
"""When all is mended, whatever was committed has its receipt within this, on a machine with nothing else to do.

An uplink that heard nothing for the better part of a minute has timers of up to 60 s (40 s, drawn up to half as long
again).
"""
FED_S: Final = 90.0
"""And this is when it has been fed: a sweep finds what is 10 s old, every 10 s, and Kafka may have to come back."""
_TOPICS: Final = ("car_readings", "car_summaries", "car_dtcs")


@dataclass(frozen=True)
class Seen:
    """A receipt that passed."""

    packet: str | None
    envelope: str
    status: str
    at_ms: int


@dataclass(frozen=True)
class Declared:
    """What a stored packet says is lost: so many packets of a session, ms UTC."""

    session: str | None
    from_ms: int
    to_ms: int
    count: int | None
    reason: str

    def covers(self, packet: Sealed) -> bool:
        """Whether it tells of this packet, and for a reason that it had."""
        reasons = {"rejected"} if packet.state == "rejected" else {"bound", "card_full"}
        end_ms = packet.start_ms + PERIOD_S * 1000
        inside = self.from_ms <= packet.start_ms and end_ms <= self.to_ms
        return inside and self.session == packet.session and self.reason in reasons


@dataclass
class Oracle:
    """Watches receipts and counts in the stores.

    Attributes:
        violations: What must never be, in words; empty is the only good answer.
        counts: What was seen, by name.
        broken_seals: How many envelopes were sealed wrong on purpose.
        longest_s: The longest that anything took after mending, by what.
        answered: Ids of packets that had a receipt `stored` or `duplicate`, how often, by persister.
        shut_out: Devices of which nothing may be taken between two moments, ms UTC.
    """

    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    broken_seals: int = 0
    longest_s: dict[str, float] = field(default_factory=dict)
    answered: dict[str, Counter[str | None]] = field(default_factory=lambda: defaultdict(Counter))
    shut_out: list[tuple[str, int, int]] = field(default_factory=list)
    spools: dict[str, Spool] = field(default_factory=dict)
    _expected: dict[str, list[str]] = field(default_factory=dict)
    _unfed: dict[str, float] = field(default_factory=dict)
    _verified: set[str] = field(default_factory=set)
    _fed: dict[str, str] = field(default_factory=dict)
    _places: dict[Any, int] = field(default_factory=dict)
    _unsure: list[Seen] = field(default_factory=list)
    _delivered: Counter[tuple[str, str]] = field(default_factory=Counter)
    _promised: set[str] = field(default_factory=set)
    _declared: dict[str, set[Declared]] = field(default_factory=lambda: defaultdict(set))
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, mongo_port: int, kafka_port: int, spools: Mapping[str, Path]) -> None:
        """Learn where the stores and the spools are."""
        self._kafka_port = kafka_port
        # A receipt is held back while it is asked for.
        self._passing: Any = _database(mongo_port, 3_000)
        self._database: Any = _database(mongo_port, 60_000)
        self.spools = {device: Spool(device, path) for device, path in spools.items()}

    def watch(self, persister: str) -> Watch:
        """Make what looks at one connection of a persister with the router."""
        streams = {"up": bytearray(), "down": bytearray()}
        # RawSocket: four bytes of handshake, then frames of a type, three bytes of length and the message.
        greeted = set[str]()

        def see(direction: Direction, piece: bytes) -> None:
            stream = streams[direction]
            stream += piece
            if direction not in greeted and len(stream) >= 4:
                greeted.add(direction)
                del stream[:4]
            while len(stream) >= 4 and len(stream) >= (end := 4 + int.from_bytes(stream[1:4], "big")):
                kind, frame = stream[0], bytes(stream[4:end])
                del stream[:end]
                if kind == 0:
                    self._see(persister, cbor2.loads(frame))

        return see

    def _see(self, persister: str, message: list[Any]) -> None:
        if message[0] == _EVENT and len(message) > 4 and isinstance(message[4][0], bytes):
            with self._guard:
                self._delivered[persister, hashlib.sha256(message[4][0]).hexdigest()] += 1
        elif message[0] == _PUBLISH and message[3].startswith("odograph.receipt."):
            payload, _ = cbor2.loads(message[4][0])
            for one in json.loads(payload)["receipts"]:
                seen = Seen(one["packet"], one["envelope"], one["status"], time.time_ns() // 1_000_000)
                with self._guard:
                    self.counts[f"receipts {seen.status}"] += 1
                    if seen.status in {"stored", "duplicate"}:
                        self.answered[persister][seen.packet] += 1
                        self._promised.add(seen.envelope)
                self._check(seen, late=False)

    def _check(self, seen: Seen, *, late: bool) -> None:
        """Say when a receipt has no durable document behind it; ask again later when the store does not answer.

        A document that is found late only counts if it was received before the receipt was given.
        """
        if seen.status == "retry":
            return
        try:
            database = self._database if late else self._passing
            if seen.status == "rejected":
                there = database["dead_letters"].find_one({"_id": seen.envelope}, {"received_ms": True})
            else:
                there = database["packets"].find_one({"_id": seen.packet}, {"received_ms": True})
        except PyMongoError:
            with self._guard:
                self._unsure.append(seen)
                self.counts["receipts checked late"] += not late
            return
        if there is None or there["received_ms"] > seen.at_ms:
            self.violations.append(f"a receipt without a durable document: {seen}")
        elif not late:
            with self._guard:
                self.counts["receipts checked as they passed"] += 1

    @property
    def deliveries(self) -> int:
        """How many envelopes have come to a persister."""
        return self._delivered.total()

    @property
    def resends(self) -> int:
        """How often an envelope came to the same persister again."""
        return self.deliveries - len(self._delivered)

    def look(self) -> None:
        """Read all spools; NotInTimeError when one stays unreadable."""
        for spool in self.spools.values():
            until(spool.look, 10, f"{spool.device}: the spool cannot be read")

    def quiet(self) -> None:
        """Wait until all that is committed by now has its receipt, and each car that of a later packet; count it all.

        What is late is a violation.
        """
        self.look()
        committed = {id_ for spool in self.spools.values() for id_ in spool.sealed}
        self._until_receipted(committed)
        self._until_lively(committed)
        self._count()

    def _until_receipted(self, committed: set[str]) -> None:
        """Wait for receipts; with each that comes the bound begins anew, as an archive may be slow with a backlog."""
        began = time.monotonic()
        left = self.owed() & committed

        def fewer() -> bool:
            nonlocal left
            before, left = left, self.owed() & committed
            return left < before

        try:
            while left:
                until(fewer, LIVE_S, "receipts do not flow")
        except NotInTimeError as error:
            self.violations += [f"{error}: {what}" for what in self._fates(left)]
        self._took("until all was receipted", began)

    def _until_lively(self, known: set[str]) -> None:
        began = time.monotonic()

        def silent() -> list[str]:
            self.look()
            return [device for device, spool in self.spools.items() if not spool.receipted() - known]

        try:
            until(lambda: not silent(), LIVE_S, "no new packet is made and receipted")
        except NotInTimeError as error:
            self.violations.append(f"{error}: {silent()}")
        self._took("until every car had a new receipt after that", began)

    def owed(self) -> set[str]:
        """Return the ids of packets whose receipt, or loss, is still to be told, as of now."""
        self.look()
        self._count_packets()
        for spool in self.spools.values():
            for one in spool.sealed.values():
                if one.forgotten and (one.is_owed or one.promised):
                    self._explain(one)
        return {id_ for spool in self.spools.values() for id_ in spool.owed()}

    def _fates(self, ids: set[str]) -> list[str]:
        known = {one.id: one for spool in self.spools.values() for one in spool.sealed.values()}
        return [
            f"{id_} {'vanished, neither receipted nor declared lost' if known[id_].forgotten else 'waits'}"
            for id_ in sorted(ids)
        ]

    def _explain(self, one: Sealed) -> None:
        """Find out what became of a packet that a card has forgotten before its receipt was seen on it."""
        one.declared = any(told.covers(one) for told in self._declared[one.device])
        one.promised = not one.declared and one.state == "waiting" and bool(one.hashes & self._promised)

    def _learn(self, document: Mapping[str, Any]) -> None:
        """Note the packets that a stored packet says are lost."""
        for one in document["packet"].get("lost", []):
            if one["what"] == "packets":
                told = Declared(one["session"], _ms(one["from"]), _ms(one["to"]), one["count"], one["reason"])
                self._declared[document["_id"].partition("/")[0]].add(told)

    def _count(self) -> None:
        with self._guard:
            unsure, self._unsure = self._unsure, []
        for seen in unsure:
            self._check(seen, late=True)
        self._count_packets()
        # Kafka may still be coming back: what it has is read the next time.
        with suppress(KafkaError):
            self._read_feed()
        now = time.monotonic()
        for id_, since in list(self._unfed.items()):
            if self._fed.keys() >= set(self._expected[id_]):
                del self._unfed[id_]
            elif now - since > FED_S * patience():
                del self._unfed[id_]
                self.violations.append(f"not fed within {FED_S:.0f} s: {id_}")

    def _count_packets(self) -> None:
        for spool in self.spools.values():
            self.violations += [f"vanished: {what}" for what in spool.vanished] + spool.disorder
            spool.vanished.clear()
            spool.disorder.clear()
            for one in spool.sealed.values():
                if (one.is_settled or one.declared) and one.id not in self._verified:
                    # Where the store does not answer, the next count asks again.
                    with suppress(PyMongoError):
                        self._verify(spool, one)
                        self._verified.add(one.id)

    def _still_unfed(self) -> bool:
        self._count()
        return bool(self._unfed)

    def _verify(self, spool: Spool, one: Sealed) -> None:
        found = self._database["packets"].find_one({"_id": one.id})
        if found is None:
            if not one.declared:
                self.violations.append(f"lost: {one.id} has its receipt and is not stored")
            return
        self._learn(found)
        if hashlib.sha256(found["envelope"]).hexdigest() not in one.hashes:
            self.violations.append(f"{one.id}: the stored envelope is not what the edge sealed")
        packet = found["packet"]
        times = [one.start_ms + offset for offset in accumulate(packet["readings"]["at"])]
        if times != spool.in_period(one):
            self.violations.append(f"{one.id}: readings at {times}, recorded at {spool.in_period(one)}")
        gaps = [(_ms(gap["from"]), _ms(gap["to"])) for gap in packet["gaps"]]
        for begin, end in spool.holes(one, _LATE_MS):
            self.counts["gaps"] += 1
            if not any(begin >= since and end <= to for since, to in gaps):
                self.violations.append(f"{one.id}: nothing from {begin} to {end}, and it declares only {gaps}")
        tails = [f"r{n}" for n in range(len(times))] + ["summary"] + [f"d{n}" for n in range(len(packet["dtcs"]))]
        self._expected[one.id] = [f"{one.id}/{tail}" for tail in tails]
        self._unfed[one.id] = time.monotonic()

    def _read_feed(self) -> None:
        """Read what Kafka has more than the last time; an id that comes again must say the same."""
        consumer: Any = KafkaConsumer(
            bootstrap_servers=f"127.0.0.1:{self._kafka_port}", group_id=None, enable_auto_commit=False
        )
        try:
            parts = [TopicPartition(topic, n) for topic in _TOPICS for n in consumer.partitions_for_topic(topic) or ()]
            consumer.assign(parts)
            ends = consumer.end_offsets(parts)
            for part in parts:
                consumer.seek(part, self._places.setdefault(part, 0))
            end = time.monotonic() + 30
            while any(self._places[part] < ends[part] for part in parts) and time.monotonic() < end:
                for part, records in consumer.poll(timeout_ms=200).items():
                    for record in records:
                        self._hear(dict(record.headers)["ce_id"].decode(), hashlib.sha256(record.value).hexdigest())
                    self._places[part] = consumer.position(part)
        finally:
            with suppress(Exception):
                consumer.close()

    def _hear(self, event: str, content: str) -> None:
        self.counts["events"] += 1
        if event in self._fed:
            self.counts["events fed again"] += 1
            if self._fed[event] != content:
                self.violations.append(f"the event {event} was fed with two contents")
        self._fed[event] = content

    def end(self) -> None:
        """Count everything, when the edges have ended and nothing more can come."""
        self._until_receipted(self.owed())
        self._count()
        began = time.monotonic()
        try:
            until(lambda: not self._still_unfed(), FED_S, "not all is fed")
        except NotInTimeError as error:
            self.violations.append(f"{error}: {sorted(self._unfed)[:5]} of {len(self._unfed)}")
        self._took("until all was fed", began)
        self._count_stores()

    def _count_stores(self) -> None:
        sealed = {id_: one for spool in self.spools.values() for id_, one in spool.sealed.items()}
        receipted = {id_ for id_, one in sealed.items() if one.is_settled}
        documents = list(self._database["packets"].find({}, {"received_ms": True}))
        stored = Counter(str(one["_id"]) for one in documents)
        letters = {str(one["_id"]): one for one in self._database["dead_letters"].find({})}
        for device, since_ms, to_ms in self.shut_out:
            self.violations += [
                f"taken from {device} while it was shut out: {one['_id']}"
                for one in documents
                if one["_id"].startswith(f"{device}/") and since_ms < one["received_ms"] < to_ms
            ]
        self.violations += [f"stored {times} times: {id_}" for id_, times in stored.items() if times > 1]
        self.violations += [f"stored, and no edge has sealed it: {id_}" for id_ in stored.keys() - sealed.keys()]
        self.violations += [f"lost: {id_}" for id_ in receipted - stored.keys()]
        self.violations += [f"neither receipted nor declared lost: {id_}" for id_, one in sealed.items() if one.is_owed]
        self.violations += [
            f"fed, and not stored: {id_}" for id_ in {e.rpartition("/")[0] for e in self._fed} - set(stored)
        ]
        self._count_dead_letters(letters, sealed, stored)
        if conflicts := self._database["conflicts"].count_documents({}):
            self.violations.append(f"{conflicts} conflicts")
        for spool in self.spools.values():
            self._weigh(spool)
            self.violations += [f"recorded, and in no packet: {id_}" for id_ in spool.periods() - spool.sealed.keys()]
            self.counts["readings lost with a broken readings.db"] += sum(
                not any(one.session == session and at in spool.in_period(one) for one in spool.sealed.values())
                for session in spool.given_up
                for at in spool.times[session]
            )
        self.counts["packets"] = len(sealed)
        self.counts["stored"] = len(stored)
        self.counts["dead letters"] = len(letters)
        self.counts["lost"] = len(receipted - stored.keys())
        self.counts["declared lost"] = sum(one.declared for one in sealed.values())
        self.counts["declared lost, and stored all the same"] = sum(
            one.declared and one.id in stored for one in sealed.values()
        )
        self.counts["forgotten after their receipt"] = sum(
            one.forgotten and not one.declared for one in sealed.values()
        )

    def _count_dead_letters(
        self, letters: Mapping[str, Any], sealed: Mapping[str, Sealed], stored: Mapping[str, int]
    ) -> None:
        """Hold the dead letters against the seals that were broken: they are of packets that were refused for ever.

        One whose outbox was lost after that is sealed again, and well.
        """
        owners = {hash_: one for one in sealed.values() for hash_ in one.hashes}
        for hash_, letter in letters.items():
            one = owners.get(hash_)
            sealed_again = one is not None and len(one.hashes) > 1 and one.id in stored
            if one is None or not (one.state == "rejected" or sealed_again):
                self.violations.append(f"a dead letter of a packet that was not refused: {hash_}")
            if hashlib.sha256(letter["envelope"]).hexdigest() != hash_:
                self.violations.append(f"the dead letter is not what the edge sealed: {hash_}")
        for one in sealed.values():
            if one.state == "rejected" and not one.hashes & letters.keys():
                self.violations.append(f"rejected without its dead letter: {one.id}")
        if len(letters) != self.broken_seals:
            self.violations.append(f"{self.broken_seals} seals were broken, and there are {len(letters)} dead letters")

    def _weigh(self, spool: Spool) -> None:
        """Hold what is declared lost against what is gone: nothing is declared that is there."""
        for told in self._declared[spool.device]:
            # Of these a receipt may have been on its way: the car did not hear it.
            gone = sum(one.forgotten and told.covers(one) and one.state != "receipted" for one in spool.sealed.values())
            if told.count != gone:
                self.violations.append(f"{spool.device} declares {told}, and {gone} of its packets are gone")

    def _took(self, what: str, began: float) -> None:
        self.longest_s[what] = max(self.longest_s.get(what, 0.0), time.monotonic() - began)


def _database(port: int, answer_ms: int) -> Any:  # noqa: ANN401 - the driver is not typed
    client: Any = MongoClient(
        f"mongodb://127.0.0.1:{port}",
        connect=False,
        serverSelectionTimeoutMS=1500,
        connectTimeoutMS=1500,
        socketTimeoutMS=answer_ms,
    )
    return client["odograph"]


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
