"""The examples run against a real node, within their permissions, as their head lines say."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.cloud.sqlite_registry import Registry
from components.console.home import Home, make_home
from components.console.node import Node, Urls, free_port, write_node
from components.keyfile import make_key, read_key_file, write_key_file
from components.wire import topics
from tests.waiting import PATIENCE_S
from tests.wamp_peer import Peer

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Site:
    home: Home
    urls: Urls
    device_key: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    base = tmp_path_factory.mktemp("examples")
    home = make_home(base / "var", 1)
    key = make_key("car_one", "device")
    write_key_file(base / "device.key", key)
    with Registry.open(home.registry, write=True) as registry:
        registry.add_device("car_one", key.public_key, 1)
    urls = write_node(base / "node", home.path, free_port(), free_port())
    with Node(base / "node", urls):
        yield Site(home, urls, base / "device.key")


def example(name: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=ENVIRONMENT)


@contextmanager
def running_example(name: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """Yield it once it has printed its first line."""
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.terminate()


def test_the_subscriber_hears_the_publisher(site: Site) -> None:
    with running_example("subscriber.py", site.home.admin_key, site.urls.devices) as subscriber:
        published = example("publisher.py", site.device_key, site.urls.devices)
        assert (published.returncode, published.stdout) == (0, "published to odograph.event.car_one\n")
        assert subscriber.stdout is not None
        assert subscriber.stdout.readline() == "car_one {'event': 'hello'}\n"


def test_the_caller_is_answered_by_the_callee_who_knows_who_asked(site: Site) -> None:
    with running_example("callee.py", site.device_key, site.urls.devices):
        called = example("caller.py", site.home.admin_key, "car_one", site.urls.devices)
    assert called.returncode == 0
    assert json.loads(called.stdout) == {"device": "car_one", "asked_by": "admin", "as": "admin"}


def test_autobahns_own_command_line_calls_a_car_with_an_operators_key(site: Site) -> None:
    wamp = Path(sys.executable).with_name("wamp")
    command = [str(wamp), "--url", site.urls.devices, "--realm", "odograph", "--authid", "admin"]
    environment = {**ENVIRONMENT, "WAMP_PRIVATE_KEY": read_key_file(site.home.admin_key).private_key}
    with running_example("callee.py", site.device_key, site.urls.devices):
        called = subprocess.run(
            [*command, "call", "odograph.device.car_one.status"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
            env=environment,
        )
    assert called.stdout == "result: {'device': 'car_one', 'asked_by': 'admin', 'as': 'admin'}\n"


def test_every_car_is_asked_and_one_that_is_away_keeps_nobody_waiting(site: Site) -> None:
    fleet = Peer(site.urls.persisters, read_key_file(site.home.persister_key))
    with fleet, running_example("callee.py", site.device_key, site.urls.devices):
        pages = {"": [{"id": "car_one"}], "car_one": [{"id": "car_two"}], "car_two": []}
        fleet.register(topics.fleet_procedure("devices"), lambda after, **_: pages[after])
        asked = example("all_cars.py", site.home.admin_key, site.urls.devices)
    assert asked.returncode == 0
    assert asked.stdout.splitlines() == [
        'car_one status {"device": "car_one", "asked_by": "admin", "as": "admin"}',
        "car_one dtcs wamp.error.no_such_procedure",
        "car_two status wamp.error.no_such_procedure",
        "car_two dtcs wamp.error.no_such_procedure",
    ]


def test_an_example_with_a_strangers_key_fails(site: Site, tmp_path: Path) -> None:
    write_key_file(tmp_path / "stranger.key", make_key("stranger", "device"))
    assert example("publisher.py", tmp_path / "stranger.key", site.urls.devices).returncode == 1
