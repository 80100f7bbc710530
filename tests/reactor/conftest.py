"""A configured device for tests of the agent as a whole: without car, receiver, modem and router."""

from pathlib import Path

import pytest

from components import keyfile
from components.edge import config as edge_config
from components.edge.config import EdgeConfig
from components.wire import bundle
from tests.edge_parts import server_bundle

_TOML = """
[device]
id = "car_one"
key = "device.key"
[router]
url = "ws://127.0.0.1:9/ws"
[server]
bundle = "server.pub.json"
[obd]
port = "/nowhere"
[gps]
gpsd = ""
[modem]
port = ""
[sampling]
rate_hz = 10
[spool]
dir = "spool"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    keyfile.write_key_file(tmp_path / "device.key", keyfile.make_key("car_one", "device"))
    (tmp_path / "server.pub.json").write_text(bundle.dump(server_bundle()))
    (tmp_path / "edge.toml").write_text(_TOML)
    return tmp_path


@pytest.fixture
def config(home: Path) -> EdgeConfig:
    return edge_config.load(home / "edge.toml")
