"""Who is connected and has not joined, and how often wrong tickets are taken."""

from components.cloud.strangers import JOIN_S, MOST, Strangers, host
from components.cloud.tries import BACK_MS, Tries
from components.cloud.tries import MOST as MOST_TRIES


def test_who_does_not_join_in_time_is_cut_and_who_joins_is_not() -> None:
    strangers = Strangers()
    mute, car = "tcp4:10.0.0.1:1", "tcp4:10.0.0.1:2"
    assert strangers.seen([mute, car], set(), 100) == {}
    assert strangers.seen([mute, car], {car}, 100 + JOIN_S - 1) == {}
    assert strangers.seen([mute, car], {car}, 100 + JOIN_S) == {mute: "never_joined"}
    assert strangers.seen([car], set(), 200) == {}, "who has left has time again"
    assert strangers.seen([car], set(), 200 + JOIN_S) == {car: "never_joined"}


def test_of_many_of_one_address_the_newest_are_cut_and_nobody_of_another() -> None:
    strangers = Strangers()
    before = [f"tcp4:10.0.0.1:{n}" for n in range(MOST)]
    assert strangers.seen(before, set(), 0) == {}
    newer, other = [f"tcp4:10.0.0.1:{n}" for n in range(MOST, MOST + 9)], "tcp4:10.0.0.2:1"
    assert strangers.seen([*newer, other, *before], set(), 1) == dict.fromkeys(newer, "too_many")


def test_of_ipv6_one_customers_network_is_one_address() -> None:
    assert host("tcp6:2001:db8::1:4000") == host("tcp6:2001:db8::ffff:0:0:1:5000")
    assert host("tcp6:2001:db8:0:1::1:4000") != host("tcp6:2001:db8::1:4000")
    assert host("tcp6:fe80::1%eth0:4000") == "tcp6:fe80::/64"
    assert host("tcp6:::ffff:10.0.0.1:4000") == host("tcp4:10.0.0.1:5000")


def test_wrong_tickets_count_for_one_code_and_one_address_and_are_forgotten_with_time() -> None:
    tries = Tries()
    for _ in range(MOST_TRIES):
        assert tries.are_left("code", "here", 0)
        tries.wrong("code", "here", 0)
    assert not tries.are_left("code", "here", BACK_MS - 1)
    assert tries.are_left("code", "there", 0)
    assert tries.are_left("other", "here", 0)
    assert tries.are_left("code", "here", BACK_MS)
    tries.wrong("code", "here", BACK_MS)
    assert not tries.are_left("code", "here", BACK_MS)


def test_a_flood_of_addresses_takes_no_more_memory_and_is_forgotten_oldest_first() -> None:
    tries = Tries()
    for n in range(30_000):
        tries.wrong("code", f"address {n}", 0, MOST_TRIES)
    assert len(tries._wrong) == 10_000
    assert not tries.are_left("code", "address 29999", 0)
