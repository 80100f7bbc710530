"""Fixtures that every kind of test may ask for: the real services, started once a session and only when asked for."""

import os
from collections.abc import Generator, Iterator
from typing import Any, Final, Never

import pytest
from hypothesis import Phase, settings
from twisted.logger import globalLogBeginner
from xdist.scheduler import LoadFileScheduling

from tests.services import servers
from tests.services.servers import Service
from tests.waiting import PATIENCE_S

settings.register_profile("odograph", deadline=None)
settings.load_profile("odograph")
"""No deadline an example: on a machine that has other work, too, it would tell of that work."""
settings.register_profile("mutants", derandomize=True, database=None, phases=(Phase.explicit, Phase.generate))
"""For tests/mutate.py: the same examples each time, and no search for the smallest that fails."""

globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
"""Else Twisted keeps the last 65,536 events for who begins later, and all that has logged: a thousand open files."""

REQUIRED = os.environ.get("ODOGRAPH_REQUIRE_SERVICES") == "1"
"""Whether a service that is not here is a failure (in CI) or a skip that says how to get it (elsewhere)."""


_TOGETHER: Final = {
    "tests/contract/test_feed_contract.py": "kafka",
    "tests/journey/test_demo_servers.py": "kafka",
    "tests/journey/test_kafka_away.py": "kafka",
    "tests/services/test_kafka_feed.py": "kafka",
    "tests/journey/test_operators.py": "tapped",
    "tests/journey/test_tap.py": "tapped",
}
"""Files whose tests share what takes long to start: one worker runs them all, one after the other."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give each file to one worker, and those of _TOGETHER, as if they were one."""
    scheduler: Any = LoadFileScheduling(config, log)
    file_of = scheduler._split_scope
    scheduler._split_scope = lambda test: _TOGETHER.get(file := file_of(test), file)
    return scheduler


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--seed`: of what is random in a slow test, so that it can be had again."""
    parser.addoption("--seed", type=int)


def missing(reason: str) -> Never:
    """End the test that needs something which is not here: skipped, or failed where services are required."""
    if REQUIRED:
        pytest.fail(f"{reason}; and ODOGRAPH_REQUIRE_SERVICES=1", pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where services are required, no test is skipped for the want of one, whoever skips it.

    A skip for something else (a recording that is not beside this checkout) stays one.
    """
    report = yield
    if REQUIRED and report.skipped and "make services" in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"skipped where services are required: {report.longrepr}"
    return report


def _someone_elses(variable: str, scheme: str) -> str | None:
    uri = os.environ.get(variable)
    if uri and not uri.startswith(scheme):
        pytest.fail(f"{variable} must begin with {scheme}, got {uri}", pytrace=False)
    return uri.removeprefix(scheme).rstrip("/") if uri else None


@pytest.fixture(scope="session")
def mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that speaks MongoDB's protocol: ODOGRAPH_TEST_MONGODB (`mongodb://host:port`), or FerretDB."""
    if address := _someone_elses("ODOGRAPH_TEST_MONGODB", "mongodb://"):
        yield Service(address, None)
        return
    if not servers.FERRETDB.exists():
        missing("FerretDB is not here: make services (or set ODOGRAPH_TEST_MONGODB)")
    server = servers.ferretdb(tmp_path_factory.mktemp("ferretdb"))
    server.start()
    yield Service(f"127.0.0.1:{server.port}", server)
    server.kill()  # nobody reads its data any more, and a good end takes up to half a minute


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Apache Kafka: ODOGRAPH_TEST_KAFKA (`kafka://host:port`), or the fetched one."""
    if address := _someone_elses("ODOGRAPH_TEST_KAFKA", "kafka://"):
        yield Service(address, None)
        return
    if not (servers.KAFKA_LIBS / ".stamp").exists():
        missing("Apache Kafka is not here: make services (or set ODOGRAPH_TEST_KAFKA)")
    server = servers.kafka(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield Service(f"127.0.0.1:{server.port}", server)
    server.kill()  # nobody reads its data any more, and a good end takes up to half a minute


@pytest.fixture
def patient_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drivers that wait for their servers as long as a test does: a busy machine is no server that is away."""
    for name in ("SELECT_MS", "SOCKET_MS"):
        monkeypatch.setattr(f"components.cloud.mongo_archive.{name}", 1000 * PATIENCE_S)
    for name, value in {"BOOTSTRAP_MS": 50_000, "REQUEST_MS": 50_000, "DELIVERY_MS": 100_000, "PUBLISH_S": 150}.items():
        monkeypatch.setattr(f"components.cloud.kafka_feed.{name}", value)


@pytest.fixture
def own_mongodb(mongodb: Service) -> Iterator[servers.Server]:
    """The same, to stop, kill and start; it runs again for the next test."""
    yield from _ours(mongodb)


@pytest.fixture
def own_kafka(kafka: Service) -> Iterator[servers.Server]:
    """The same, to stop, kill and start; it runs again for the next test."""
    yield from _ours(kafka)


def _ours(service: Service) -> Iterator[servers.Server]:
    if service.server is None:
        pytest.skip(f"{service.address} is not ours to stop")
    service.server.start()
    yield service.server
    service.server.start()
