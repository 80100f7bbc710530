"""From a URI to a store: the one place that knows which forms there are. Rim.

`sqlite:PATH`, `mongodb://host:port/database` for archives; `sqlite:PATH`, `kafka://host:port[,…]` for feeds, with
`?partitions=6` for topics that are made and `?prefix=NAME` where several odographs share one Kafka.

The drivers of MongoDB and Kafka are imported only where such a URI is given: who never asks for them needs neither.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl

from components.cloud.config import ARCHIVE_FORMS, FEED_FORMS
from components.cloud.ports import Archive, ArchiveReader, Feed, FeedReader
from components.cloud.sqlite_archive import SqliteArchive, SqliteArchiveReader
from components.cloud.sqlite_feed import SqliteFeed, SqliteFeedReader
from components.settings import is_address, without_password
from components.wire.errors import ConfigError, OperatorError


def open_archive(uri: str, base_dir: Path) -> Archive:
    """Open an archive for its persister.

    Nothing is reached out to yet, except a file: `insert([])` says whether MongoDB is there.

    Args:
        uri: `sqlite:PATH` or `mongodb://host:port/database`.
        base_dir: Where a relative PATH begins.

    Raises:
        ConfigError: The URI is none of these.
        OperatorError: The file cannot be had, or the driver is not installed.
    """
    if path := _sqlite_path(uri, base_dir):
        return SqliteArchive(path)
    if uri.startswith(("mongodb://", "mongodb+srv://")):
        with _driver("pymongo"):
            from components.cloud.mongo_archive import MongoArchive  # noqa: PLC0415
        return MongoArchive(uri)
    raise _unknown(uri, "an archive", ARCHIVE_FORMS)


def open_archive_reader(uri: str, base_dir: Path) -> ArchiveReader:
    """Open an archive to read, beside a persister or without one; see open_archive."""
    if path := _sqlite_path(uri, base_dir):
        return SqliteArchiveReader(path)
    if uri.startswith(("mongodb://", "mongodb+srv://")):
        with _driver("pymongo"):
            from components.cloud.mongo_archive import MongoArchiveReader  # noqa: PLC0415
        return MongoArchiveReader(uri)
    raise _unknown(uri, "an archive", ARCHIVE_FORMS)


def open_feed(uri: str, base_dir: Path, partitions: int | None = None) -> Feed:
    """Open a feed for its persister.

    Nothing is reached out to yet, except a file: `publish([])` says whether Kafka is there, and makes the topics.

    Args:
        uri: `sqlite:PATH` or `kafka://host:port[,host:port…][?partitions=6&prefix=NAME]`.
        base_dir: Where a relative PATH begins.
        partitions: Of a topic that is made, where the URI does not say.

    Raises:
        ConfigError: The URI is none of these.
        OperatorError: The file cannot be had, or the driver is not installed.
    """
    if path := _sqlite_path(uri, base_dir):
        return SqliteFeed(path)
    if uri.startswith("kafka://"):
        with _driver("kafka-python"):
            from components.cloud.kafka_feed import PARTITIONS, KafkaFeed  # noqa: PLC0415
        bootstrap, asked, prefix = _kafka(uri)
        return KafkaFeed(bootstrap, asked or partitions or PARTITIONS, prefix)
    raise _unknown(uri, "a feed", FEED_FORMS)


def open_feed_reader(uri: str, base_dir: Path) -> FeedReader:
    """Open a feed to read.

    Args:
        uri: As for open_feed.
        base_dir: Where a relative PATH begins.

    Raises:
        ConfigError: The URI is none of these.
        OperatorError: There is no such file, or the driver is not installed.
        UnavailableError: Kafka does not answer.
    """
    if path := _sqlite_path(uri, base_dir):
        return SqliteFeedReader(path)
    if uri.startswith("kafka://"):
        with _driver("kafka-python"):
            from components.cloud.kafka_feed import KafkaFeedReader  # noqa: PLC0415
        bootstrap, _, prefix = _kafka(uri)
        return KafkaFeedReader(bootstrap, prefix)
    raise _unknown(uri, "a feed", FEED_FORMS)


def _sqlite_path(uri: str, base_dir: Path) -> Path | None:
    scheme, colon, path = uri.partition(":")
    if scheme != "sqlite" or not colon:
        return None
    # sqlite:///PATH is what other programs write for an absolute one.
    path = path.removeprefix("//") if path.startswith("///") else path
    if not Path(path).name or path.startswith("//") or "\0" in path:
        raise ConfigError(f"no file in {uri}", "write sqlite:PATH, as in sqlite:archive.db")
    return base_dir / path


def _kafka(uri: str) -> tuple[str, int | None, str]:
    """Return the bootstrap list, the partitions (None where it does not say) and the prefix of a kafka:// URI."""
    address, _, query = uri.removeprefix("kafka://").partition("?")
    bootstrap = address.rstrip("/")
    if not all(is_address(broker) for broker in bootstrap.split(",")):
        raise ConfigError(f"no brokers in {without_password(uri)}", f"write {FEED_FORMS}")
    options = dict(parse_qsl(query, keep_blank_values=True))
    partitions, prefix = options.pop("partitions", None), options.pop("prefix", "")
    faults = [f"{name}: not an option; there are partitions and prefix" for name in options]
    if partitions is not None and not re.fullmatch(r"[1-9][0-9]{0,3}", partitions):
        faults.append(f"partitions: must be 1..9999, got {partitions}")
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,200}", prefix):
        faults.append(f"prefix: must be letters, digits, '.', '_' and '-', got {prefix}")
    if faults:
        raise ConfigError(f"wrong options in {uri}", faults=faults)
    return bootstrap, int(partitions) if partitions else None, prefix


@contextmanager
def _driver(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise OperatorError(f"{name} is not installed", "pip install 'odograph[cloud]'") from error


def _unknown(uri: str, what: str, forms: str) -> ConfigError:
    return ConfigError(f"{without_password(uri) or 'an empty text'} is not the URI of {what}", f"write {forms}")
