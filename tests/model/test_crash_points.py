"""Every call at which a process can die, one by one and then two together; every small disorder on the road."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Final

import pytest

from tests.model.mortal import Mortal, When
from tests.model.world import World

Doom = tuple[str, int, When]
Processes = tuple[Mortal, Mortal, Mortal]


def processes(world: World) -> Processes:
    return world.edge, world.persisters[0], world.persisters[1]


def journey(world: World) -> None:
    """A car out of reach, then in reach; a clock corrected into the minute before; new keys; a full disk; a sweep."""
    world.record(3)
    world.compact()
    world.look()
    # Of the period that was open then.
    world.record()
    world.join()
    world.advance(8)
    world.server.rotate()
    world.deliver()
    world.look()
    world.record(2)
    world.clock_corrected(-7_000)
    world.look()
    world.forget(100_000)
    world.record(4)
    world.feed.fails_after = 2
    world.compact()
    world.advance(3)
    world.deliver([1])
    world.look()
    world.record(3)
    world.compact()
    world.make_room(1)
    world.look()
    world.advance(11)
    world.sweep(0)
    world.deliver([0])
    world.look()


def points(number: int) -> Iterator[Doom]:
    """Every call that process makes in an undisturbed journey, before and after it."""
    world = World()
    try:
        # Those of the quiet end are not of the journey.
        one = processes(world)[number]
        journey(world)
        passed = list(one.passed)
    finally:
        world.close()
    for at, name in enumerate(passed):
        earlier = passed[:at].count(name)
        for when in ("inside", "after") if name == "move" else ("before", "after"):
            yield name, earlier, when


def live(dooms: dict[int, Doom], road: Callable[[World], None] = journey) -> None:
    world = World()
    try:
        for number, doom in dooms.items():
            processes(world)[number].doom = doom
        try:
            road(world)
            world.quieten()
        except AssertionError as error:
            raise AssertionError(f"{dooms}: {error}") from error
    finally:
        world.close()


def test_an_undisturbed_journey_loses_nothing() -> None:
    live({})


@pytest.mark.timeout(900)
def test_whatever_call_is_the_edges_last_nothing_is_lost() -> None:
    dooms = list(points(0))
    assert {name for name, _, _ in dooms} == {"add", "move", "settle", "forget", "forget_unsent", "declare", "keep"}
    for doom in dooms:
        live({0: doom})


@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_whatever_call_is_a_persisters_last_nothing_is_lost(number: int) -> None:
    dooms = list(points(number))
    assert {name for name, _, _ in dooms} >= {"insert", "publish", "mark_fed"} if number == 1 else {"insert"}
    for doom in dooms:
        live({number: doom})


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_whatever_calls_are_the_last_of_the_edge_and_of_a_persister_nothing_is_lost() -> None:
    for edge, persister in product(points(0), points(1)):
        live({0: edge, 1: persister})


def _bring(persister: int) -> Callable[[World], None]:
    return lambda world: world.bring(0, persister, again=True) if world.published else None


def _lose_packets(world: World) -> None:
    world.published.clear()


def _lose_receipts(world: World) -> None:
    world.receipts.clear()


def _return_newest(world: World) -> None:
    if world.receipts:
        world.return_receipt(-1, again=True)


def _reconnect(world: World) -> None:
    world.router_dies()
    world.join()


DISORDER: Final[dict[str, Callable[[World], None]]] = {
    "brought to one": _bring(0),
    "brought to the other": _bring(1),
    "packets lost": _lose_packets,
    "receipts lost": _lose_receipts,
    "receipt returned": _return_newest,
    "persister dies": lambda world: world.kill_persister(0),
    "edge dies": lambda world: world.boot_edge(),
    "router dies, edge comes back": _reconnect,
    "time passes": lambda world: world.advance(31),
    "settled is forgotten": lambda world: world.forget(-1),
    "no room": lambda world: world.make_room(1),
    "keys rotated": lambda world: world.server.rotate(),
}


def disordered(words: tuple[str, ...]) -> None:
    def road(world: World) -> None:
        world.record(4)
        world.join()
        world.compact()
        world.advance(3)
        for word in words:
            DISORDER[word](world)
            world.look()

    live({}, road)


def test_no_two_disorders_in_a_row_lose_or_double_anything() -> None:
    for words in product(DISORDER, repeat=2):
        disordered(words)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_three_disorders_in_a_row_lose_or_double_anything() -> None:
    for words in product(DISORDER, repeat=3):
        disordered(words)
