"""What a campaign is made of: every row of the crash table as a scenario with a name, and faults drawn from a seed."""

import random
from collections.abc import Callable
from typing import Any, Final

from tests.campaign.doomed import POINTS
from tests.campaign.fault import (
    Fault,
    is_insert,
    is_inserted,
    is_packet,
    is_receipt,
    packet_comes,
    packet_is_stored,
    retry_is_said,
)
from tests.campaign.faults import (
    broken_wire,
    clock_jumps,
    corrupt,
    dead_letter_without_receipt,
    dies_at,
    ended,
    ended_in_mid_batch,
    feed_away,
    full_disk,
    full_disk_of_unsent,
    half_a_frame,
    hung,
    killed,
    lost,
    no_persister,
    one_of_two_late,
    power_cut,
    suspended,
)
from tests.campaign.ground import CARS, PERIOD_S, PERSISTERS
from tests.campaign.key_faults import rekeyed, rekeyed_not_answered, rekeyed_not_taken_up, rotated_keys

_Draw = Callable[[random.Random], Fault]
_BOTH: Final = tuple(PERSISTERS)
_EVERYTHING: Final = (*CARS, *PERSISTERS, "router", "kafka", "ferretdb")
_WIRES: Final = (
    *(f"{car}-router" for car in CARS),
    *(f"{one}-{to}" for one in PERSISTERS for to in ("router", "ferretdb")),
)


def scenarios() -> list[Fault]:
    """Return the rows of the crash table, in its order, that a campaign can bring about."""
    one, other = CARS[0], CARS[1]
    stores, feed = ["router", "ferretdb"], ["router", "ferretdb", "kafka"]
    return [
        power_cut(one),
        dies_at("recorder.before_append", [other], name="power cut before a row is committed"),
        dies_at("compactor.before_commit", [one], name="compactor dies before its commit"),
        dies_at("compactor.within_commit", [CARS[2]], name="compactor dies between packet and cursor"),
        dies_at("compactor.cursor_moved", [one], name="compactor dies between cursor and commit"),
        dies_at("compactor.after_commit", [CARS[3]], name="edge dies after commit, before publish"),
        killed(["router"], 0.0, 1.0, "router dies"),
        no_persister(),
        no_persister(router_too=True),
        dies_at("persister.before_insert", _BOTH, name="persister dies before insert", needs=stores),
        lost("persister_a-ferretdb", "down", is_inserted, "insert's answer lost"),
        dies_at("persister.before_receipt", _BOTH, name="persister dies between storing and receipt", needs=stores),
        lost("persister_b-router", "up", is_receipt, "receipt lost"),
        one_of_two_late("persister_a", "persister_b"),
        dies_at("uplink.receipt_not_kept", [other], name="edge dies between receipt and its commit", needs=stores),
        dies_at("feed.half_published", _BOTH, name="feed dies half way", needs=feed),
        dies_at("feed.before_mark", _BOTH, name="feed dies before the mark", needs=feed),
        dead_letter_without_receipt(),
        corrupt("outbox.db", CARS[2]),
        corrupt("readings.db", CARS[3]),
        corrupt("outbox.db", one, running=True),
        corrupt("readings.db", CARS[2], running=True),
        full_disk(PERIOD_S + 2.0),
        full_disk(3.0, killed_too=True),
        full_disk_of_unsent(PERIOD_S + 1.0),
        clock_jumps(CARS[3], 10),
        clock_jumps(one, -10),
        rotated_keys(),
        rekeyed_not_answered(CARS[2]),
        rekeyed_not_taken_up(CARS[3]),
        suspended(CARS[3], PERIOD_S + 1.0),
        killed(["ferretdb"], 0.0, 3.0, "archive away", packet_comes),
        # Longer than its driver waits for an answer, and than it looks for a server after that.
        hung("ferretdb", 16.0, "archive hangs", retry_is_said),
        feed_away(12.0),
        hung("kafka", 16.0, "feed hangs", packet_is_stored),
        half_a_frame(f"{one}-router", "down", 12.0, goes_on=True, name="router stalls half way through a frame"),
        half_a_frame(
            f"{other}-router", "up", 3.0, goes_on=False, name="a packet's frame is cut half way", which=is_packet
        ),
        half_a_frame(
            "persister_a-router", "up", 3.0, goes_on=False, name="a receipt's frame is cut half way", which=is_receipt
        ),
        half_a_frame(
            "persister_b-ferretdb", "up", 3.0, goes_on=False, name="an insert is cut half way", which=is_insert
        ),
        ended_in_mid_batch("persister_b"),
    ]


def drawn(random_: random.Random) -> Fault:
    """Draw a fault."""
    kinds: list[tuple[int, _Draw]] = [
        (8, _random_kill),
        (4, _random_double_kill),
        (4, _random_hang),
        (3, lambda r: ended(r.choice([*CARS, *PERSISTERS]))),
        (7, _random_wire),
        (8, _random_point),
        (2, lambda r: full_disk(r.uniform(1.0, 4.0))),
        (1, lambda r: full_disk(r.uniform(1.0, 3.0), killed_too=True)),
        (1, lambda r: full_disk_of_unsent(r.uniform(1.0, 4.0))),
        (1, lambda r: suspended(r.choice(CARS), r.uniform(3.0, 6.0))),
        (1, lambda r: rekeyed(r.choice(CARS), r.uniform(0.5, 3.0))),
        (1, lambda _: rotated_keys()),
        (1, lambda r: clock_jumps(r.choice(CARS), r.choice([-60, -10, 10, 15]))),
        (3, _random_half),
    ]
    make = random_.choices([make for _, make in kinds], [weight for weight, _ in kinds])[0]
    return make(random_)


def _random_kill(random_: random.Random) -> Fault:
    weights = [3] * (len(CARS) + len(PERSISTERS)) + [2, 1, 2]
    return killed(random_.choices(_EVERYTHING, weights), random_.uniform(0, 1.0), random_.uniform(0, 1.5))


def _random_double_kill(random_: random.Random) -> Fault:
    return killed(random_.sample([*CARS, *PERSISTERS, "ferretdb"], 2), random_.uniform(0, 1.0), random_.uniform(0, 1.5))


def _random_hang(random_: random.Random) -> Fault:
    return hung(random_.choice(_EVERYTHING), random_.uniform(0.5, 4.0))


def _random_half(random_: random.Random) -> Fault:
    way: Any = random_.choice(["up", "down"])
    return half_a_frame(random_.choice(_WIRES), way, random_.uniform(0.2, 4.0), goes_on=random_.random() < 0.5)


def _random_wire(random_: random.Random) -> Fault:
    how: Any = random_.choice(["cut", "stall", "lose up", "lose down"])
    return broken_wire(random_.choice(_WIRES), how, random_.uniform(0.2, 3.0))


def _random_point(random_: random.Random) -> Fault:
    # A dead letter needs an envelope that is wrong, a new key somebody who asks for it; these are scenarios.
    point = random_.choice([name for name in POINTS if "dead_letter" not in name and "rekey" not in name])
    parts = CARS if POINTS[point].role == "edge" else _BOTH
    return dies_at(point, [random_.choice(parts)], random_.choice([1, 1, 2]))
