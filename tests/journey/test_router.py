"""The real node, with real peers: who gets in, and who may do what."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from autobahn.wamp.auth import AuthCryptoSign

from components.cloud.sqlite_registry import Registry
from components.console.home import make_home
from components.console.node import Node, free_port, write_node
from components.keyfile import KeyFile, make_key, read_key_file
from components.wire import topics
from components.wire.errors import UnavailableError
from tests.waiting import PATIENCE_S, until
from tests.wamp_peer import RefusedJoinError, refusal
from tests.wamp_site import Site, running_site

DENIED = "wamp.error.not_authorized"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def keys(site: Site) -> dict[str, KeyFile]:
    cast = {"car_one": "device", "car_two": "device", "vera": "viewer", "theo": "technician"}
    made = {name: site.add(name, role) for name, role in cast.items()}
    return {**made, "admin": read_key_file(site.home.admin_key), "persister": read_key_file(site.home.persister_key)}


def test_everybody_joins_with_the_role_of_the_registry(site: Site, keys: dict[str, KeyFile]) -> None:
    for key in keys.values():
        with site.peer(key) as peer:
            assert (peer.details.authid, peer.details.authrole, peer.details.realm) == (
                key.authid,
                key.role,
                "odograph",
            )


def test_a_role_cannot_be_claimed(site: Site, keys: dict[str, KeyFile]) -> None:
    with site.peer(replace(keys["vera"], role="admin")) as peer:
        assert peer.details.authrole == "viewer"


def test_an_unknown_id_is_refused(site: Site) -> None:
    with (
        pytest.raises(RefusedJoinError, match="nobody active is called 'stranger'"),
        site.peer(make_key("stranger", "device")),
    ):
        pass


def test_another_key_is_refused(site: Site, keys: dict[str, KeyFile]) -> None:
    for name in ("car_one", "admin"):
        forged = make_key(name, keys[name].role)
        with pytest.raises(RefusedJoinError, match=f"nobody active is called '{name}'"), site.peer(forged):
            pass


def test_a_device_joins_as_soon_as_it_is_added_and_no_longer_when_it_is_revoked(site: Site) -> None:
    key = site.add("car_new", "device")
    with site.peer(key):
        pass
    with Registry.open(site.home.registry, write=True) as registry:
        registry.set_state("car_new", "revoked", 2)
    with pytest.raises(RefusedJoinError, match="nobody active"), site.peer(key):
        pass


def test_a_public_key_alone_opens_nothing(site: Site, keys: dict[str, KeyFile]) -> None:
    """The challenge must be signed: claiming the registered key while signing with another is refused."""
    forged = make_key("car_one", "device")
    real_public = keys["car_one"].public_key
    original = AuthCryptoSign.authextra
    try:
        AuthCryptoSign.authextra = property(lambda _: {"pubkey": real_public})  # type: ignore[method-assign,assignment]
        with pytest.raises(RefusedJoinError, match="invalid signature"), site.peer(forged):
            pass
    finally:
        AuthCryptoSign.authextra = original  # type: ignore[method-assign]


def test_a_device_reaches_its_own_topics_and_procedures_only(site: Site, keys: dict[str, KeyFile]) -> None:
    with site.peer(keys["car_one"]) as car:
        assert car.publish(topics.packet("car_one"), b"envelope").id
        assert refusal(car.publish, topics.packet("car_two"), b"envelope") == DENIED
        assert refusal(car.publish, topics.event("car_two"), "online") == DENIED
        assert refusal(car.publish, topics.receipt("car_one"), b"forged") == DENIED
        assert car.subscribe(topics.receipt("car_one"))
        assert refusal(car.subscribe, topics.receipt("car_two")) == DENIED
        assert refusal(car.subscribe, "odograph.receipt.", "prefix") == DENIED
        assert refusal(car.subscribe, topics.receipt("car_one"), "prefix") == DENIED
        assert refusal(car.subscribe, "odograph.receipt.", "wildcard") == DENIED
        assert refusal(car.subscribe, "", "prefix") == DENIED
        assert car.register(topics.device_procedure("car_one", "status"), lambda **_: 1)
        assert refusal(car.register, topics.device_procedure("car_two", "status"), lambda **_: 1) == DENIED
        assert refusal(car.register, topics.fleet_procedure("devices"), lambda **_: 1) == DENIED
        assert refusal(car.call, topics.device_procedure("car_one", "status")) == DENIED
        assert refusal(car.call, "wamp.session.list") == DENIED
        assert refusal(car.call, "wamp.session.add_testament", topics.event("car_one"), [], {}) == DENIED
        assert refusal(car.call, "wamp.session.kill_by_authid", "vera") == DENIED


def test_a_packet_reaches_the_persister_under_the_authenticated_id(site: Site, keys: dict[str, KeyFile]) -> None:
    with site.peer(keys["persister"]) as persister, site.peer(keys["car_one"]) as car:
        persister.subscribe(topics.packet_prefix(topics.shard("car_one")), "prefix")
        car.publish(topics.packet("car_one"), b"\x00envelope")
        assert persister.hear() == [(topics.packet("car_one"), "car_one", "device", (b"\x00envelope",))]
        car.subscribe(topics.receipt("car_one"))
        persister.publish(topics.receipt("car_one"), b"receipt")
        assert car.hear() == [(topics.receipt("car_one"), "persister", "persister", (b"receipt",))]


def test_a_device_cannot_speak_for_another(site: Site, keys: dict[str, KeyFile]) -> None:
    spoof = [{"session": 1, "authid": "car_two", "authrole": "device"}]
    with site.peer(keys["car_one"]) as car:
        assert refusal(car.publish, topics.packet("car_one"), b"envelope", forward_for=spoof) == DENIED


def test_one_devices_yes_does_not_serve_another(site: Site, keys: dict[str, KeyFile]) -> None:
    """It would, with Crossbar's cache of authorizations."""
    with site.peer(keys["car_one"]) as one, site.peer(keys["car_two"]) as two:
        assert refusal(one.publish, topics.packet("car_one"), b"envelope") == ""
        assert refusal(two.publish, topics.packet("car_one"), b"envelope") == DENIED
        assert refusal(one.subscribe, topics.receipt("car_one")) == ""
        assert refusal(two.subscribe, topics.receipt("car_one")) == DENIED


def test_a_persister_subscribes_by_shard_only(site: Site, keys: dict[str, KeyFile]) -> None:
    with site.peer(keys["persister"]) as persister:
        assert refusal(persister.subscribe, "odograph.packet.", "prefix") == DENIED
        assert refusal(persister.subscribe, "odograph.packet..", "wildcard") == DENIED
        assert refusal(persister.publish, topics.packet("car_one"), b"envelope") == DENIED
        assert refusal(persister.call, topics.device_procedure("car_one", "status")) == DENIED


def test_a_call_reaches_the_car_under_the_authenticated_id_and_a_viewer_cannot_clear(
    site: Site, keys: dict[str, KeyFile]
) -> None:
    def answer(*_: object, details: object = None) -> list[str]:
        return [details.caller_authid, details.caller_authrole]  # type: ignore[attr-defined]

    with site.peer(keys["car_one"]) as car:
        for name in topics.DEVICE_PROCEDURES:
            car.register(topics.device_procedure("car_one", name), answer, force_reregister=True)
        for who, role, may_clear in (("vera", "viewer", False), ("theo", "technician", True), ("admin", "admin", True)):
            with site.peer(keys[who]) as operator:
                for name in topics.DEVICE_PROCEDURES:
                    if "clear" in name and not may_clear:
                        assert refusal(operator.call, topics.device_procedure("car_one", name)) == DENIED
                    else:
                        assert operator.call(topics.device_procedure("car_one", name)) == [who, role]


def test_an_operator_hears_events_and_taps_nothing(site: Site, keys: dict[str, KeyFile]) -> None:
    with site.peer(keys["admin"]) as admin, site.peer(keys["car_two"]) as car:
        for topic, match in (("odograph.", "prefix"), ("odograph.packet.", "prefix"), ("odograph.receipt.", "prefix")):
            assert refusal(admin.subscribe, topic, match) == DENIED
        assert refusal(admin.subscribe, topics.packet("car_one")) == DENIED
        assert refusal(admin.subscribe, topics.receipt("car_one")) == DENIED
        assert refusal(admin.publish, topics.event("car_one"), "online") == DENIED
        admin.subscribe("odograph.event.", "prefix")
        car.publish(topics.event("car_two"), {"event": "online"})
        # The gate may tell only now of cars of the tests before, that they have gone.
        until(lambda: (topics.event("car_two"), "car_two", "device", ({"event": "online"},)) in admin.events)


def run_crossbar(cbdir: Path) -> "subprocess.CompletedProcess[str]":
    crossbar = Path(sys.executable).with_name("crossbar")
    command = [str(crossbar), "start", "--cbdir", str(cbdir)]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_S, check=False
    )


def test_a_node_without_a_home_ends_with_the_remedy_as_its_last_line(tmp_path: Path) -> None:
    write_node(tmp_path / "node", tmp_path / "var", free_port(), free_port())
    ended = run_crossbar(tmp_path / "node")
    assert ended.returncode != 0
    expected = f"odograph: {tmp_path}/var/registry.db does not exist: run: odograph init --home {tmp_path}/var"
    assert ended.stdout.splitlines()[-1] == expected


def test_a_node_with_a_registry_of_another_version_ends_with_the_remedy_as_its_last_line(tmp_path: Path) -> None:
    home = make_home(tmp_path / "var", 1)
    with sqlite3.connect(home.registry) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    write_node(tmp_path / "node", home.path, free_port(), free_port())
    ended = run_crossbar(tmp_path / "node")
    assert ended.returncode != 0
    last = ended.stdout.splitlines()[-1]
    assert last.endswith("has registry version 99, this odograph reads version 2: install the odograph that made it")


def test_a_node_whose_port_is_taken_says_so_in_one_line(site: Site, tmp_path: Path) -> None:
    taken = int(site.node.urls.persisters.rpartition(":")[2])
    node = Node(tmp_path / "node", write_node(tmp_path / "node", site.home.path, free_port(), taken))
    with pytest.raises(UnavailableError, match=f"port {taken} is taken"):
        node.launch()


def test_the_largest_envelope_passes_and_a_larger_message_ends_its_senders_connection_only(
    site: Site, keys: dict[str, KeyFile]
) -> None:
    largest = bytes(256 * 1024)
    with site.peer(keys["persister"]) as persister, site.peer(keys["car_two"]) as other:
        persister.subscribe(topics.packet_prefix(topics.shard("car_one")), "prefix")
        with site.peer(keys["car_one"]) as car:
            car.publish(topics.packet("car_one"), largest)
            assert persister.hear()[0][3] == (largest,)
            car.publish_until_dropped(topics.packet("car_one"), largest + bytes(16 * 1024))
        assert other.publish(topics.event("car_two"), "still here").id
        assert len(persister.events) == 1
