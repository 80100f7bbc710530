"""From a URI to a store, and what is said about one that is none."""

import subprocess
import sys
from pathlib import Path

import pytest

from components.cloud.kafka_feed import PARTITIONS, KafkaFeed
from components.cloud.mongo_archive import MongoArchive, MongoArchiveReader
from components.cloud.sqlite_archive import SqliteArchive, SqliteArchiveReader
from components.cloud.sqlite_feed import SqliteFeed, SqliteFeedReader
from components.cloud.stores import open_archive, open_archive_reader, open_feed, open_feed_reader
from components.console.node import free_port
from components.wire.errors import ConfigError, OperatorError, UnavailableError

AWAY = "mongodb://127.0.0.1:1/cars"


def test_a_relative_path_begins_at_the_base_directory_and_an_absolute_one_does_not(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    for uri, path in {
        "sqlite:a.db": home / "a.db",
        f"sqlite:{elsewhere}/a.db": elsewhere / "a.db",
        f"sqlite://{elsewhere}/b.db": elsewhere / "b.db",
        "sqlite:c?d #1.db": home / "c?d #1.db",
    }.items():
        open_archive(uri, home).close()
        assert path.is_file()
        open_archive_reader(uri, home).close()


def test_each_scheme_opens_its_store(tmp_path: Path) -> None:
    archives = [
        open_archive("sqlite:a.db", tmp_path),
        open_archive_reader("sqlite:a.db", tmp_path),
        open_archive(AWAY, tmp_path),
        open_archive_reader(AWAY, tmp_path),
    ]
    assert [type(x) for x in archives] == [SqliteArchive, SqliteArchiveReader, MongoArchive, MongoArchiveReader]
    feeds = [open_feed("sqlite:f.db", tmp_path), open_feed("kafka://127.0.0.1:1", tmp_path)]
    assert [type(x) for x in feeds] == [SqliteFeed, KafkaFeed]
    reader = open_feed_reader("sqlite:f.db", tmp_path)
    assert type(reader) is SqliteFeedReader
    for archive in archives:
        archive.close()
    for feed in feeds:
        feed.close()
    reader.close()


def test_a_kafka_reader_whose_kafka_is_away_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.cloud.kafka_feed.BOOTSTRAP_MS", 300)
    with pytest.raises(UnavailableError, match=r"Kafka at 127\.0\.0\.1:\d+: "):
        open_feed_reader(f"kafka://127.0.0.1:{free_port()}", tmp_path)


@pytest.mark.parametrize(
    ("query", "given", "wanted"),
    [
        ("", None, (PARTITIONS, "")),
        ("", 12, (12, "")),
        ("?partitions=3", 12, (3, "")),
        ("?prefix=eu.", None, (6, "eu.")),
    ],
)
def test_a_kafka_uri_names_all_brokers_and_may_say_partitions_and_prefix(
    tmp_path: Path, query: str, given: int | None, wanted: tuple[int, str]
) -> None:
    feed = open_feed(f"kafka://a.example:9092,10.0.0.2:9093,[::1]:9094{query}", tmp_path, given)
    assert isinstance(feed, KafkaFeed)
    assert feed._bootstrap == "a.example:9092,10.0.0.2:9093,[::1]:9094"
    assert (feed._partitions, feed._prefix) == wanted


@pytest.mark.parametrize(
    "uri", ["", "archive.db", "postgres://h/db", "sqlite", "kafka://h:1", "MONGODB://h/x", "mongodb:h"]
)
def test_what_is_no_archive_is_one_line_with_the_uri_and_the_forms(uri: str, tmp_path: Path) -> None:
    for open_ in (open_archive, open_archive_reader):
        with pytest.raises(
            ConfigError, match=r"is not the URI of an archive: write sqlite:PATH or mongodb://"
        ) as wrong:
            open_(uri, tmp_path)
        assert uri in str(wrong.value)
        assert "\n" not in str(wrong.value)


@pytest.mark.parametrize("uri", ["", "feed.db", "amqp://u:secret@h", "mongodb://h/x", "kafka:h:1"])
def test_what_is_no_feed_is_one_line_with_the_forms_and_without_its_password(uri: str, tmp_path: Path) -> None:
    for open_ in (open_feed, open_feed_reader):
        with pytest.raises(ConfigError, match=r"is not the URI of a feed: write sqlite:PATH or kafka://") as wrong:
            open_(uri, tmp_path)
        assert "secret" not in str(wrong.value)


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("kafka://", "no brokers in kafka://"),
        ("kafka://host", "no brokers"),
        ("kafka://a:9092,,b:9092", "no brokers"),
        ("kafka://u:secret@h:9092", "no brokers in kafka://…@h:9092"),
        (
            "kafka://h:1?partitions=0&colour=red&prefix=a b",
            "colour: not an option.*partitions: must be 1..9999.*prefix: ",
        ),
        ("kafka://h:1?partitions=", "partitions: must be 1..9999, got $"),
        ("", "an empty text is not the URI"),
        ("sqlite:", "no file in sqlite:"),
        ("sqlite:/", "no file in sqlite:/"),
        ("sqlite:.", "no file in sqlite:."),
        ("sqlite:a\0b", "no file in sqlite:a"),
        ("sqlite://feed.db", "no file in sqlite://feed.db: write sqlite:PATH"),
    ],
)
def test_a_wrong_feed_uri_is_told_every_fault_at_once(uri: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=fault):
        open_feed(uri, tmp_path)


def test_a_file_that_a_mongodb_uri_names_and_that_is_missing_is_told(tmp_path: Path) -> None:
    for opening in (open_archive, open_archive_reader):
        with pytest.raises(ConfigError, match=r"not a MongoDB URI .*No such file"):
            opening(f"mongodb://h/db?tls=true&tlsCAFile={tmp_path}/none.pem", tmp_path)


def test_a_missing_file_is_told_to_a_reader(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"there is no .*/none\.db: check the path"):
        open_archive_reader("sqlite:none.db", tmp_path)
    with pytest.raises(OperatorError, match=r"there is no .*/none\.db: check the path"):
        open_feed_reader("sqlite:none.db", tmp_path)


WITHOUT_DRIVERS = """
import sys
from pathlib import Path
sys.modules.update({"pymongo": None, "kafka": None})
from components.cloud.stores import *
from components.wire.errors import OperatorError
open_archive("sqlite:a.db", Path(sys.argv[1])).close()
open_feed("sqlite:f.db", Path(sys.argv[1])).close()
for open_, uri in {
    open_archive: "mongodb://h/x", open_archive_reader: "mongodb://h/x", open_feed: "kafka://h:1", open_feed_reader: "kafka://h:1"
}.items():
    try:
        open_(uri, Path())
    except OperatorError as error:
        print(error)
"""


def test_who_has_no_drivers_has_sqlite_and_is_told_how_to_get_the_rest(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_DRIVERS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [
        *["pymongo is not installed: pip install 'odograph[cloud]'"] * 2,
        *["kafka-python is not installed: pip install 'odograph[cloud]'"] * 2,
    ]
