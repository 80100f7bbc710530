"""What is counted, in Prometheus's text; whether a loop turns; and a packet's line in the log."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.logger import Logger

from components import http_view, packet_log, settings
from components.metrics import Metrics, Pulse, counter, gauge, state
from components.wire.errors import ConfigError

ID = "car_one/0123456789abcdef/20261122T020000Z"


def test_what_is_counted_is_read_back_by_prometheus_with_its_kinds_labels_and_values() -> None:
    told = [
        counter("odograph_readings_total", "Readings", {"kept": 7, "lost": 2}, by="outcome"),
        gauge("odograph_plug_volts", "Voltage", 12.5),
        gauge("odograph_latest_reading_age_seconds", "Age", None),
        state("odograph_power_state", "Power", "asleep", of=("awake", "asleep"), by="state"),
    ]
    found = {family.name: family for family in text_string_to_metric_families(http_view.text(told).decode())}
    samples = {(one.name, *one.labels.values()): one.value for family in found.values() for one in family.samples}
    assert found["odograph_readings"].type == "counter"
    assert found["odograph_plug_volts"].type == "gauge"
    assert {key: value for key, value in samples.items() if key[0].startswith("odograph")} == {
        ("odograph_readings_total", "kept"): 7,
        ("odograph_readings_total", "lost"): 2,
        ("odograph_plug_volts",): 12.5,
        ("odograph_power_state", "awake"): 0,
        ("odograph_power_state", "asleep"): 1,
    }
    assert samples["process_resident_memory_bytes",] > 1_000_000


@pytest.mark.parametrize(
    "address", ["9464", "localhost:9464", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "[::1]:x"]
)
def test_an_address_that_cannot_be_listened_at_is_a_fault_of_the_configuration(tmp_path: Path, address: str) -> None:
    (tmp_path / "some.toml").write_text(f'listen = "{address}"')
    with pytest.raises(ConfigError, match="listen: must be IP:PORT"):
        settings.read(tmp_path / "some.toml", Metrics)


@pytest.mark.parametrize("address", ["", "127.0.0.1:9464", "[::1]:9464", "0.0.0.0:1"])
def test_an_ip_address_with_a_port_is_listened_at_and_nothing_is_nowhere(tmp_path: Path, address: str) -> None:
    (tmp_path / "some.toml").write_text(f'listen = "{address}"')
    assert settings.read(tmp_path / "some.toml", Metrics).listen == address


def test_a_loop_is_sick_until_it_has_turned_and_when_it_has_not_for_longer_than_its_patience() -> None:
    pulse, heard = Pulse(), list[str]()
    pulse.heard_by.append(lambda: heard.append("beat"))
    assert "not turned yet" in pulse.sick(100.0, 3.0)
    pulse.beat(100.0)
    assert (pulse.sick(103.0, 3.0), heard) == ("", ["beat"])
    assert pulse.sick(103.1, 3.0)
    pulse.beat(103.1)
    assert pulse.sick(103.2, 3.0) == ""


def told(event: packet_log.Event, packet: str | None, **facts: object) -> Mapping[str, Any]:
    """Log it, and return the log's event."""
    events: list[Mapping[str, Any]] = []
    observer: Any = events.append
    packet_log.tell(Logger(observer=observer), event, packet, **facts)
    (one,) = events
    return one


def test_a_line_of_the_log_is_the_event_and_its_facts_and_an_observer_has_them_as_fields() -> None:
    event = told("rejected", ID, envelope="9f86", code="signature", after_s=None)
    words = str(event["log_format"]).format(**event)
    assert words == f"packet rejected packet={ID} envelope=9f86 code=signature"
    assert (event["event"], event["packet"], event["code"]) == ("rejected", ID, "signature")


def test_what_others_wrote_cannot_begin_a_line_of_its_own_or_pass_for_another_fact() -> None:
    evil = 'x code=fine\npacket stored packet="y"'
    words = packet_log.line({"why": evil})
    assert "\n" not in words
    assert words.startswith("why=")
    assert json.loads(words.removeprefix("why=")) == evil


def test_at_the_edge_a_packet_that_fares_well_is_no_line_on_the_card_and_at_the_server_it_is() -> None:
    names: tuple[packet_log.Event, ...] = ("made", "published", "receipted", "retried", "rejected", "stored", "fed")
    levels = {name: told(name, ID)["log_level"].name for name in names}
    assert levels == {
        "made": "debug",
        "published": "debug",
        "receipted": "debug",
        "retried": "info",
        "rejected": "error",
        "stored": "info",
        "fed": "info",
    }
