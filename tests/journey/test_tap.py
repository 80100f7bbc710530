"""What the router, and whoever listens there, can learn of a drive: who and when, never what."""

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing

import pytest
from autobahn.wamp.exception import ApplicationError

from components.cloud.stores import open_archive_reader
from components.console.fleet import Fleet
from components.keyfile import read_key_file
from components.wire import packet as packets
from components.wire import topics
from components.wire.signals import BY_KEY
from tests.commands import odograph
from tests.journey_fleet import access, more_receipts, one_line, operator, told
from tests.journey_tap import EVENT, PUBLISH, Tapped, message
from tests.waiting import until
from tests.wamp_peer import Peer


def secrets_of(tapped: Tapped) -> dict[str, list[bytes]]:
    """Return what nobody may find, in every form in which it could stand there; short numbers are found by chance."""
    stored, hello = tapped.stored(), tapped.fleet.cars[0].hello
    found = {name: [str(hello[name]).encode()] for name in ("vin", "iccid", "imei")}
    found["who"] = [text.encode() for one in stored for text in (one.account, one.vehicle, one.driver)]
    found["signals"] = [key.encode() for key in BY_KEY if len(key) > 5]
    numbers = {
        number
        for one in stored
        for reading in packets.read(one.packet).readings or ()
        for value in reading.values.values()
        for number in _numbers(value)
    }
    found["decimals"] = [text.encode() for number in numbers if len(text := repr(number)) > 5]
    floats = [float(number) for number in numbers if number != int(number)]
    found["floats"] = [struct.pack(form, number) for number in floats for form in ("<d", ">d")]
    return found


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def test_no_frame_tells_who_where_or_what(tapped: Tapped) -> None:
    stored = tapped.stored()
    frames = list(tapped.tap.frames())
    seen = b"".join(frames)
    # The tap has seen what it is there to see, whole: sealed packets and signed receipts.
    assert len(stored) >= 3
    assert sum(one.envelope in frame for one in stored for frame in frames) >= len(stored)
    assert {message(frame)[0] for frame in frames} == {EVENT, PUBLISH}
    assert all(one.id.encode() in seen for one in stored[:2])
    found = secrets_of(tapped)
    assert all(found.values()), found
    assert len(found["decimals"]) > 20
    for name, secrets in found.items():
        assert [secret for secret in secrets if secret in seen] == [], name
    # And it would have found them: they all stand in the packets.
    plain = "".join(json.dumps(one.packet) for one in stored)
    assert all(found[name][0].decode() in plain for name in ("vin", "iccid", "imei"))


def test_no_car_publishes_for_another_nor_hears_its_receipts(tapped: Tapped) -> None:
    fleet = tapped.fleet
    stranger = fleet.home.path / "cars" / "stranger"
    made = odograph(
        *("edge", "init", "--device", "car_99", "--server", fleet.home.bundle, "--home", stranger),
        *("--router", fleet.urls.devices),
    )
    assert made.returncode == 0, made.stderr
    added = odograph("device", "add", "car_99", "--pubkey", made.stdout.strip(), "--home", fleet.home.path)
    assert added.returncode == 0, added.stderr
    envelope = tapped.stored()[0].envelope
    with Peer(fleet.urls.devices, read_key_file(stranger / "device.key")) as peer:
        for topic in (topics.packet("car_01"), topics.event("car_01"), topics.receipt("car_01")):
            with pytest.raises(ApplicationError, match="not_authorized"):
                peer.publish(topic, envelope)
        with pytest.raises(ApplicationError, match="not_authorized"):
            peer.subscribe(topics.receipt("car_01"))
        # Under its own name it may publish what it likes, and is told what that is worth.
        peer.subscribe(topics.receipt("car_99"))
        peer.publish(topics.packet("car_99"), envelope)
        payload = peer.hear()[0][3][0]
    assert b'"rejected","code":"device_mismatch"' in payload
    more_receipts(fleet.cars[0])


def test_one_flipped_bit_is_a_dead_letter_and_the_next_packet_goes_through(tapped: Tapped) -> None:
    fleet = tapped.fleet
    envelope = bytearray(tapped.stored()[0].envelope)
    envelope[-100] ^= 1
    key = read_key_file(fleet.cars[0].directory / "device.key")
    before = dead_letters(fleet)
    with Peer(fleet.urls.devices, key) as peer:
        peer.publish(topics.packet("car_01"), bytes(envelope))
        until(lambda: dead_letters(fleet) == before + 1, "the dead letter")
        more_receipts(fleet.cars[0])
    assert told("status", "car_01", *access(fleet))["outbox"]["rejected"] == 0


def dead_letters(fleet: Fleet) -> int:
    with closing(open_archive_reader(fleet.plan.archive, fleet.home.path)) as archive:
        return archive.counts()["dead_letters"]


def test_a_viewer_may_look_and_may_not_clear(tapped: Tapped) -> None:
    key = operator(tapped.fleet, "vera", "viewer")
    assert told("dtcs", "car_01", *access(tapped.fleet, key))["device"] == "car_01"
    refused = odograph("clear-dtcs", "car_01", *access(tapped.fleet, key))
    assert one_line(refused, 1) == "vera (viewer) may not do this"
    assert refused.stdout == ""


def test_a_moving_car_is_not_cleared_and_says_why(tapped: Tapped) -> None:
    key = operator(tapped.fleet, "theo", "technician")
    refused = odograph("clear-dtcs", "car_01", "--json", *access(tapped.fleet, key))
    assert one_line(refused, 1).startswith("car_01 was not cleared: ")
    found = json.loads(refused.stdout)
    assert found["outcome"] == "refused"
    assert found["reason"] in {"engine_running", "vehicle_moving"}
