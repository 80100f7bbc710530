"""The whole matrix role x URI x action x match, against the table that people read in router/README.md."""

import itertools
from pathlib import Path

import pytest

from components.cloud.permissions import ACTIONS, PEER_ROLES, allowed
from components.wire.topics import FLEET_PROCEDURES, shard

README = Path(__file__).parents[2] / "router" / "README.md"
# Words that stand for <device> and for <name>: an id may look like a role or a procedure.
WORDS = ("car_one", "car_two", "admin", "persister", *FLEET_PROCEDURES)
AUTHIDS = {
    "device": "car_one",
    "enrolling": "car_one",
    "persister": "persister",
    "viewer": "vera",
    "technician": "theo",
    "admin": "admin",
}
SHARDS = (shard("car_one"), shard("car_two"), "00", "ff")
MATCHES = ("exact", "prefix", "wildcard")


def rows() -> list[list[str]]:
    lines = [line for line in README.read_text("utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["action", "URI", "match", *PEER_ROLES, "limited operator"]
    return [row for row in cells[1:] if row[0] in ACTIONS]


def concrete(uri: str, authid: str) -> list[str]:
    uris = [uri.replace("<shard of self>", shard(authid)).replace("<self>", authid)]
    for mark, words in (("<device>", WORDS), ("<shard>", SHARDS), ("<name>", WORDS)):
        uris = [one.replace(mark, word) for one in uris for word in words]
    return list(dict.fromkeys(uris))


GRANTED = {
    (role, action, match, one)
    for action, uri, match, *roles, _ in rows()
    for role, yes in zip(PEER_ROLES, roles, strict=True)
    if yes == "yes"
    for one in concrete(uri, AUTHIDS[role])
}
REACH = frozenset({"car_one", "persister"})
LIMITED = {
    (role, action, match, one)
    for action, uri, match, *roles, limited in rows()
    for role, yes in zip(PEER_ROLES, roles, strict=True)
    if yes == "yes" and limited in {"yes", "reached"}
    for one in concrete(uri, AUTHIDS[role])
    if limited == "yes" or one.split(".")[2] in REACH
}
"""What is left to somebody who is limited to REACH."""
PROCEDURES = ("status", "dtcs", "prepare_clear", "clear_dtcs", "query", "watch", "reboot", "")
NEAR_MISSES = (
    "",
    "odograph",
    "odograph.",
    "odograph.packet",
    "odograph.packet.",
    "odograph.packet.0",
    "odograph.packet.GG.",
    "odograph.packet..car_one",
    "odograph.receipt.",
    "odograph.receipt",
    "odograph.receipt.car_one.",
    "odograph.receipt.car_one\n",
    "odograph.event",
    "odograph.event.car_one.more",
    "odograph.event.Car_One",
    "odograph.device.",
    "odograph.device..status",
    "odograph.fleet.",
    "odograph.fleet.devices.more",
    "odograph.auth.authenticate",
    "odograph.auth.authorize",
    "odograph.auth.",
    "odograph.enrol",
    "odograph.enrol.",
    "odograph.enrol.car_one",
    "odograph.rekey",
    "odograph.rekey.car_one",
    "wamp.session.kill",
    "wamp.session.list",
    "wamp.session.on_join",
    "wamp.session.get",
    "wamp.subscription.list",
    "wamp.subscription.on_create",
    "wamp.registration.remove_callee",
    "crossbar.get_info",
    "odographXpacket.0b.car_one",
)
URIS = sorted(
    {uri for *_, uri in GRANTED}
    | {f"odograph.{kind}.{one}" for kind in ("receipt", "event", "fleet") for one in WORDS}
    | {f"odograph.packet.{one}.{device}" for one in SHARDS for device in (*WORDS, "")}
    | {f"odograph.device.{device}.{name}" for device in WORDS for name in PROCEDURES}
    | set(NEAR_MISSES)
)


@pytest.mark.parametrize("role", [*PEER_ROLES, "gate", "anonymous", "trusted", ""])
def test_a_role_may_do_what_the_readme_says_and_nothing_else(role: str) -> None:
    authid = AUTHIDS.get(role, "car_one")
    wrong = []
    for action, match, uri in itertools.product((*ACTIONS, "kill", ""), MATCHES, URIS):
        expected = (role, action, match, uri) in GRANTED
        if allowed(role, authid, uri, action, {"match": match}) != expected:
            wrong.append((role, action, match, uri, expected))
    assert wrong == []


@pytest.mark.parametrize("role", [*PEER_ROLES, "gate", "anonymous", ""])
def test_a_limited_operator_reaches_the_devices_of_its_limits_and_nothing_else(role: str) -> None:
    authid = AUTHIDS.get(role, "car_one")
    wrong = []
    for action, match, uri in itertools.product(ACTIONS, MATCHES, URIS):
        expected = (role, action, match, uri) in LIMITED
        if allowed(role, authid, uri, action, {"match": match}, REACH) != expected:
            wrong.append((role, action, match, uri, expected))
    assert wrong == []


def test_limits_take_away_and_never_add() -> None:
    assert len(LIMITED) > 20
    assert LIMITED < GRANTED
    assert not allowed("viewer", "vera", "odograph.event.car_one", "subscribe", {}, frozenset())


def test_the_matrix_is_large_and_most_of_it_is_refused() -> None:
    assert len(GRANTED) > 60
    assert len(URIS) * len(ACTIONS) * len(MATCHES) * len(PEER_ROLES) > 20 * len(GRANTED)


def test_another_device_with_the_same_shard_prefix_is_refused() -> None:
    mine = f"odograph.packet.{shard('car_one')}.car_one"
    assert allowed("device", "car_one", mine, "publish", {})
    assert not allowed("device", "car_on", mine, "publish", {})
    assert not allowed("device", "car_one2", mine, "publish", {})
    assert not allowed("device", "car_one", f"odograph.packet.{shard('car_two')}.car_one", "publish", {})


def test_no_peer_may_speak_for_another() -> None:
    spoof = {"forward_for": [{"session": 1, "authid": "car_two", "authrole": "device"}]}
    for role, action, match, uri in GRANTED:
        assert allowed(role, AUTHIDS[role], uri, action, {"match": match})
        assert not allowed(role, AUTHIDS[role], uri, action, {"match": match, **spoof})


def test_nothing_may_be_retained() -> None:
    retained = {uri for role, action, _, uri in GRANTED if allowed(role, AUTHIDS[role], uri, action, {"retain": True})}
    assert retained == set()
