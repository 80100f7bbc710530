"""Packets in MongoDB, or in whatever speaks its protocol: for any number of persisters. Rim.

Not a use of all that MongoDB can do: nothing here is beyond FerretDB 1.24 (facts.md), which the tests run against.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import bson
from bson.codec_options import TypeDecoder, TypeRegistry
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING, DESCENDING, MongoClient, ReadPreference, UpdateOne, WriteConcern
from pymongo.collection import Collection as MongoCollection
from pymongo.errors import BulkWriteError, PyMongoError
from pymongo.read_concern import ReadConcern

from components.cloud.ports import DeadLetter, Outcome, StoredPacket, page
from components.wire.errors import ConfigError, UnavailableError

SELECT_MS = 5_000
"""How long a call waits for a server that can take it, and for a connection to it."""

WRITE_CONCERN_MS = 8_000
"""How long a write waits for the majority's disks."""

QUERY_MS = 8_000
"""How long a server looks for documents: a search that nobody waits for any more must not slow down the next."""

SOCKET_MS = 10_000
"""How long a call waits for an answer; more than the two above, so that the server's own verdict comes first."""

DUPLICATE_KEY = 11_000
"""https://www.mongodb.com/docs/manual/reference/error-codes/"""

BATCH = 200
"""Packets that a server sends at a time."""


class _Whole(TypeDecoder):
    """Numbers of 2^31 and more come back as plain ints: a packet is read by the very type."""

    bson_type = Int64

    def transform_bson(self, value: Any) -> int:  # noqa: ANN401 - bson's signature
        """Return it as a plain int."""
        return int(value)


class MongoArchiveReader:
    """An ArchiveReader on a MongoDB database. It changes nothing, and makes nothing.

    The object can be made while the server is away: each call says so, until it is back.

    Args:
        uri: `mongodb://host[:port][,…]/database[?options]`.

    Raises:
        ConfigError: The URI is wrong or names no database.
    """

    def __init__(self, uri: str) -> None:
        try:
            self._client: MongoClient[dict[str, Any]] = MongoClient(
                uri,
                connect=False,
                appname="odograph",
                serverSelectionTimeoutMS=SELECT_MS,
                connectTimeoutMS=SELECT_MS,
                socketTimeoutMS=SOCKET_MS,
                retryWrites=True,
                # A start that no datetime can hold is still a packet's.
                datetime_conversion="DATETIME_MS",
                type_registry=TypeRegistry([_Whole()]),
            )
            database = self._client.get_default_database()
        except (PyMongoError, ValueError, OSError) as error:  # the last where a file that it names is missing
            # Of a password with a character that should be escaped, the driver's words may show a part.
            why = "" if "@" in uri else f" ({error})"
            raise ConfigError(f"not a MongoDB URI{why}", "write mongodb://host:port/database") from None
        # Whatever the URI says: a receipt promises this much, and a `duplicate` that a fail-over could still roll
        # back would be a lost packet.
        database = database.with_options(
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern(w="majority", j=True, wtimeout=WRITE_CONCERN_MS),
        )
        self._packets = database["packets"]
        self._conflicts = database["conflicts"]
        self._dead_letters = database["dead_letters"]

    def minutes(
        self, device: str, since_ms: int | None = None, until_ms: int | None = None, account: str | None = None
    ) -> Iterator[StoredPacket]:
        """See ArchiveReader."""
        bounds = {"$gte": since_ms, "$lt": until_ms}
        start = {name: bound for name, bound in bounds.items() if bound is not None}
        wanted = {**_of(device, account), **({"start_ms": start} if start else {})}
        order = [("start_ms", ASCENDING), ("session", ASCENDING)]
        # Without a limit of time: MongoDB counts what a cursor takes over all its batches, and these may be a year's.
        with _unavailable(), self._packets.find(wanted, sort=order, batch_size=BATCH) as cursor:
            yield from map(_packet, cursor)

    def latest(self, device: str, account: str | None = None) -> StoredPacket | None:
        """See ArchiveReader."""
        order = [("start_ms", DESCENDING), ("session", DESCENDING)]
        with _unavailable():
            found = self._packets.find_one(_of(device, account), sort=order, max_time_ms=QUERY_MS)
        return None if found is None else _packet(found)

    def counts(self) -> Mapping[str, int]:
        """See ArchiveReader; all but `pending` are what the server keeps count of, so near the truth after a crash."""
        with _unavailable():
            return {
                "packets": self._packets.estimated_document_count(),
                "pending": self._packets.count_documents({"feed": "pending"}, maxTimeMS=QUERY_MS),
                "conflicts": self._conflicts.estimated_document_count(),
                "dead_letters": self._dead_letters.estimated_document_count(),
            }

    def close(self) -> None:
        """See ArchiveReader."""
        self._client.close()


class MongoArchive(MongoArchiveReader):
    """An Archive in a MongoDB database, shared by any number of persisters.

    Its indexes are made by the first call that reaches the server. See MongoArchiveReader for the URI.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._indexed = False

    def _make_indexes(self) -> None:
        if not self._indexed:
            by_start = [("start_ms", ASCENDING), ("session", ASCENDING)]
            self._packets.create_index([("device", ASCENDING), *by_start])
            self._packets.create_index([("device", ASCENDING), ("account", ASCENDING), *by_start])
            # A partial index would hold only what is pending; FerretDB has none.
            self._packets.create_index([("feed", ASCENDING), ("received_ms", ASCENDING)])
            self._indexed = True

    def insert(self, packets: Sequence[StoredPacket]) -> list[Outcome]:
        """See Archive."""
        first: dict[str, StoredPacket] = {}
        for packet in packets:
            first.setdefault(packet.id, packet)
        with _unavailable():
            self._make_indexes()
            there = _put(self._packets, {id_: _document(packet, feed="pending") for id_, packet in first.items()})
            outcomes = [_judge(packet, first[packet.id], there) for packet in packets]
            conflicts = [packet for packet, outcome in zip(packets, outcomes, strict=True) if outcome == "conflict"]
            # An id may be in conflict in many ways, and each is kept once.
            ids = [f"{packet.id}#{packet.plaintext_sha256}" for packet in conflicts]
            _put(
                self._conflicts,
                {id_: _document(packet, _id=id_, id=packet.id) for id_, packet in zip(ids, conflicts, strict=True)},
            )
        return outcomes

    def put_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """See Archive."""
        documents = {
            x.envelope_sha256: {
                "_id": x.envelope_sha256,
                "topic": x.topic,
                "code": x.code,
                "message": x.message,
                "envelope": x.envelope,
                "received_ms": x.received_ms,
            }
            for x in reversed(letters)  # of two in one batch the first stays
        }
        with _unavailable():
            _put(self._dead_letters, documents)

    def pending(self, before_ms: int, limit: int, but: Collection[str] = ()) -> list[StoredPacket]:
        """See Archive."""
        with _unavailable():
            self._make_indexes()
            wanted = {"feed": "pending", "received_ms": {"$lt": before_ms}, "_id": {"$nin": list(but)}}
            order = [("received_ms", ASCENDING)]
            with self._packets.find(wanted, sort=order, limit=limit, batch_size=BATCH, max_time_ms=QUERY_MS) as cursor:
                return page(map(_packet, cursor), limit)

    def mark_fed(self, ids: Sequence[str]) -> None:
        """See Archive."""
        marks = [UpdateOne({"_id": id_}, {"$set": {"feed": "done"}}) for id_ in ids]
        with _unavailable():
            if marks:
                self._packets.bulk_write(marks, ordered=False)


def _of(device: str, account: str | None) -> dict[str, object]:
    """Return which packets are meant."""
    return {"device": device} if account is None else {"device": device, "account": account}


def _put(collection: MongoCollection[dict[str, Any]], documents: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Insert those of the documents that are not there; when it returns, all of them are on a majority's disks.

    Args:
        collection: Where to.
        documents: By their `_id`.

    Returns:
        Of those that were there before: `_id` -> the stored `plaintext_sha256` ("" where a document has none).

    Raises:
        PyMongoError: Nothing may be concluded.
        UnavailableError: The same.
    """
    if not documents:
        return {}
    try:
        collection.insert_many(cast("list[dict[str, Any]]", list(documents.values())), ordered=False)
    except BulkWriteError as error:
        details = error.details
        faults = details.get("writeErrors", [])
        if details.get("writeConcernErrors") or any(fault["code"] != DUPLICATE_KEY for fault in faults):
            raise
        ids = list(documents)
        return {id_: _hash(collection, id_) for id_ in (ids[fault["index"]] for fault in faults)}
    return {}


def _hash(collection: MongoCollection[dict[str, Any]], id_: str) -> str:
    """Return the `plaintext_sha256` of a document that is there, and is there for good; UnavailableError if it is not.

    They are few, and asked for one by one, which needs no more than the one index that every server has.
    """
    found = collection.find_one({"_id": id_}, {"plaintext_sha256": True}, max_time_ms=QUERY_MS)
    if found is None:
        # Someone is writing it at this moment.
        raise UnavailableError("MongoDB: a packet is not on the majority's disks yet")
    return str(found.get("plaintext_sha256", ""))


def _judge(packet: StoredPacket, first: StoredPacket, there: Mapping[str, str]) -> Outcome:
    """Return what became of a packet, by the first of its id in the batch and the hashes that were there before."""
    if packet is first and packet.id not in there:
        return "stored"
    kept = there.get(packet.id, first.plaintext_sha256)
    return "duplicate" if kept == packet.plaintext_sha256 else "conflict"


def _document(x: StoredPacket, **more: object) -> RawBSONDocument:
    """Return a packet as it is stored, encoded once; `start` is for people and for MongoDB's own tools."""
    document = {
        "_id": x.id,
        "device": x.device,
        "session": x.session,
        "start": DatetimeMS(x.start_ms),
        "start_ms": x.start_ms,
        "account": x.account,
        "vehicle": x.vehicle,
        "driver": x.driver,
        "packet": x.packet,
        "envelope": x.envelope,
        "plaintext_sha256": x.plaintext_sha256,
        "received_ms": x.received_ms,
        **more,
    }
    try:
        return RawBSONDocument(bson.encode(document))
    except (bson.errors.BSONError, UnicodeError, OverflowError):
        # JSON knows numbers and strings that BSON does not. One such packet must not hold up its batch for ever.
        return RawBSONDocument(bson.encode({**document, "packet": json.dumps(x.packet, allow_nan=False)}))


def _packet(x: Mapping[str, Any]) -> StoredPacket:
    packet = x.get("packet")
    try:
        packet = json.loads(packet) if isinstance(packet, str) else packet
    except (ValueError, RecursionError):
        packet = {}
    # Whatever another hand made of a document, it must not keep the others from being read.
    texts = ("device", "session", "account", "vehicle", "driver", "plaintext_sha256")
    return StoredPacket(
        id=x["_id"],
        start_ms=x.get("start_ms", 0),
        packet=packet if isinstance(packet, dict) else {},
        envelope=x.get("envelope", b""),
        received_ms=x.get("received_ms", 0),
        **{key: x.get(key, "") for key in texts},
    )


@contextmanager
def _unavailable() -> Iterator[None]:
    """Turn what pymongo raises in the block into UnavailableError."""
    try:
        yield
    except BulkWriteError as error:
        # Its text quotes the documents, and a log is no place for them.
        codes = sorted({fault["code"] for fault in error.details.get("writeErrors", ())})
        raise UnavailableError(f"MongoDB: a batch was refused, error codes {codes}") from error
    except (PyMongoError, bson.errors.BSONError) as error:
        raise UnavailableError(f"MongoDB: {error}") from error
