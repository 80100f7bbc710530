"""edge.toml: the issue's defaults, and every fault at once."""

from pathlib import Path

import pytest

from components.edge import config
from components.edge.power import Limits
from components.wire.errors import ConfigError

_LEAST = """
[device]
id = "car_one"
key = "device.key"
[router]
url = "ws://127.0.0.1:8080/ws"
[server]
bundle = "server.pub.json"
[spool]
dir = "spool"
"""


def load(directory: Path, text: str) -> config.EdgeConfig:
    path = directory / "edge.toml"
    path.write_text(text)
    return config.load(path)


def test_the_least_file_has_the_defaults_that_the_documentation_promises(tmp_path: Path) -> None:
    loaded = load(tmp_path, _LEAST)
    assert loaded.device.key == tmp_path / "device.key"
    assert loaded.router.realm == "odograph"
    assert (loaded.obd.port, loaded.obd.baud, loaded.obd.protocol) == ("auto", 38400, "auto")
    assert (loaded.gps.gpsd, loaded.modem.port) == ("127.0.0.1:2947", "auto")
    assert (loaded.sampling.rate_hz, loaded.sampling.interval_ms) == (1.0, 1000)
    assert (loaded.packet.period_s, loaded.packet.content) == (60, "full")
    assert (loaded.spool.dir, loaded.spool.keep_days) == (tmp_path / "spool", 15.0)
    assert loaded.vehicle.circumference_m is None
    assert loaded.power == config.Power(13.2, 20.0, 11.8, 0.0, ())


def test_every_fault_is_told_at_once_with_its_path(tmp_path: Path) -> None:
    text = """
[device]
id = "Car One"
[router]
url = "http://x"
[server]
bundle = 3
[spool]
dir = "spool"
keep_days = 0
max_mb = 1
[obd]
baud = 300
protocol = "Z"
[gps]
gpsd = "nowhere"
[sampling]
rate_hz = 11
rate = 1
[packet]
period_s = 7
content = "half"
[vehicle]
gear_ratios = [3.5, -1]
tyre = "wide"
[power]
charging_v = 31
dwell_s = 4
low_v = -1
idle_s = nan
command = "poweroff"
"""
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text)
    assert {fault.split(":")[0] for fault in raised.value.faults} == {
        "device.id", "device.key", "router.url", "server.bundle", "spool.keep_days", "spool.max_mb", "obd.baud",
        "obd.protocol", "gps.gpsd", "sampling.rate_hz", "sampling.rate", "packet.period_s", "packet.content",
        "vehicle.gear_ratios", "vehicle.tyre", "power.charging_v", "power.dwell_s", "power.low_v", "power.idle_s",
        "power.command",
    }  # fmt: skip


@pytest.mark.parametrize("period_s", [5, 6, 10, 12, 15, 20, 30, 60])
def test_a_period_is_any_divisor_of_a_minute_from_five_seconds(tmp_path: Path, period_s: int) -> None:
    assert load(tmp_path, f"{_LEAST}[packet]\nperiod_s = {period_s}\n").packet.period_s == period_s


def test_the_low_voltage_is_below_the_charging_one_and_a_command_begins_with_a_program(tmp_path: Path) -> None:
    given = {"low_v = 12.5\ncharging_v = 12.5": "power.low_v", 'command = [""]': "power.command"}
    for text, at in given.items():
        with pytest.raises(ConfigError) as raised:
            load(tmp_path, f"{_LEAST}[power]\n{text}\n")
        assert [fault.split(":")[0] for fault in raised.value.faults] == [at]
    truck = load(
        tmp_path, f'{_LEAST}[power]\ncharging_v = 26.4\nlow_v = 0\nidle_s = 60\ncommand = ["a", "b c"]\n'
    ).power
    assert truck.limits == Limits(26.4, 20_000, 0.0, 60_000)
    assert truck.command == ("a", "b c")


def test_the_example_of_the_documentation_says_the_defaults(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "power.md").read_text()
    example = text.split("```toml\n")[1].split("```")[0]
    assert load(tmp_path, _LEAST + example).power == config.Power()


def test_another_configuration_has_another_hash_and_the_same_one_the_same(tmp_path: Path) -> None:
    first, again = load(tmp_path, _LEAST), load(tmp_path, _LEAST)
    other = load(tmp_path, f"{_LEAST}[sampling]\nrate_hz = 2\n")
    assert first.hash == again.hash != other.hash


def test_the_tyre_gives_the_way_of_one_turn(tmp_path: Path) -> None:
    loaded = load(tmp_path, f'{_LEAST}[vehicle]\ntyre = "205/55 R16"\n')
    assert loaded.vehicle.circumference_m == pytest.approx(1.985, abs=1e-3)


@pytest.mark.parametrize(
    "port",
    [
        "/dev/rfcomm0",
        "socket://[::1]:35000",
        "bluetooth://AA:BB:CC:DD:EE:FF",
        "bluetooth://aa:bb:cc:dd:ee:ff/2",
    ],
)
def test_a_port_is_a_device_a_socket_or_a_bluetooth_address(tmp_path: Path, port: str) -> None:
    assert load(tmp_path, f'{_LEAST}[obd]\nport = "{port}"\n').obd.port == port


@pytest.mark.parametrize("port", ["bluetooth://OBDII", "bluetooth://AA:BB:CC:DD:EE:FF/0", "rfc2217://x:1"])
def test_a_port_of_another_kind_is_a_fault(tmp_path: Path, port: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, f'{_LEAST}[obd]\nport = "{port}"\n')
    assert [fault.split(":")[0] for fault in raised.value.faults] == ["obd.port"]
