"""Topics: what is built is parsed, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.wire import topics
from components.wire.errors import ConfigError

ids = st.from_regex(topics.ID_PATTERN, fullmatch=True)


@given(ids)
def test_a_packet_topic_names_its_device_and_lies_in_its_shard(device: str) -> None:
    topic = topics.packet(device)
    assert topics.device_of(topic) == device
    assert topic.startswith(topics.packet_prefix(topics.shard(device)))


@given(ids, ids)
def test_no_two_devices_share_a_uri(one: str, other: str) -> None:
    made = (topics.packet, topics.receipt, topics.event, lambda device: topics.device_procedure(device, "status"))
    uris = {build(device) for build in made for device in (one, other)}
    assert len(uris) == 4 * len({one, other})


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "odograph.packet.0b.car_two",
        "odograph.packet.0b.car_one.x",
        "odograph.packet.0B.car_one",
        "odograph.packet.car_one",
        "odograph.receipt.car_one",
        "odograph.packet.0b.car_one\n",
        "xodograph.packet.0b.car_one",
        "odograph.packet.0b.",
        "odograph_packet_0b_car_one",
        "odograph.packet.0b.Car_one",
    ],
)
def test_another_topic_is_nobodys(topic: str) -> None:
    assert topics.device_of("odograph.packet.0b.car_one") == "car_one"
    assert topics.device_of(topic) is None


@given(st.text(max_size=60))
def test_any_text_is_a_topic_or_not(topic: str) -> None:
    device = topics.device_of(topic)
    assert device is None or topics.packet(device) == topic


@pytest.mark.parametrize("name", ["", "ab", "Car", "1car", "car-one", "car.one", "c" * 33, "car\n", "çar"])
def test_an_id_that_is_no_uri_component_is_refused_with_a_hint(name: str) -> None:
    with pytest.raises(ConfigError, match="device id") as caught:
        topics.check_id(name, "device")
    assert caught.value.hint


@given(ids)
def test_a_good_id_is_returned(name: str) -> None:
    assert topics.check_id(name, "device") == name
