"""What must not count: words that the server did not say, said of another packet, or that say `not yet`."""

from collections.abc import Iterator

import pytest

from components.wire.receipt import STATUSES, Receipt
from tests.model.keys import forged
from tests.model.world import World


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    world.record(7)
    world.join()
    world.compact()
    world.advance(8)
    yield world
    world.close()


def states(world: World) -> tuple[int, int, int]:
    counts = world.edge.outbox.counts()
    return counts.waiting, counts.receipted, counts.rejected


def test_no_forged_receipt_settles_anything(world: World) -> None:
    waiting = len(world.ledger.minutes)
    for name, one in world.ledger.minutes.items():
        for status in STATUSES:
            for sha256 in one.envelopes:
                world.hand_receipt(forged(Receipt(sha256, name, status)))
            world.hand_receipt(world.server.sign("", [Receipt("f" * 64, name, status)]))
    world.look()
    assert states(world) == (waiting, 0, 0)


def test_retry_settles_nothing(world: World) -> None:
    waiting = len(world.ledger.minutes)
    world.known = None
    world.deliver()
    assert {word for words in world.ledger.heard.values() for word in words} == {"retry"}
    world.look()
    assert states(world) == (waiting, 0, 0)
    world.quieten()
    assert states(world)[0] == 0


@pytest.mark.parametrize("how", ["before", "after"])
def test_no_receipt_while_the_archive_is_away(world: World, how: str) -> None:
    waiting = len(world.ledger.minutes)
    for one in world.persisters:
        one.archive.away = how  # type: ignore[assignment]
    world.deliver()
    world.look()
    assert states(world) == (waiting, 0, 0)
    world.quieten()


def test_each_status_is_another_fate(world: World) -> None:
    first, second = world.published[:2]
    world.hand(first, 0)
    world.hand(first, 1)
    world.hand_garbage(second[:-1] + bytes([second[-1] ^ 1]), 0)
    assert [one.status for said in world.receipts for one in world.said[said]] == ["stored", "duplicate", "rejected"]
    world.quieten()
