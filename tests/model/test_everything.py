"""The law of receipts, held by a machine that does to both ends, and to what is between them, whatever may happen."""

from collections.abc import Callable
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from components.wire.receipt import Receipt
from tests.model.ends import Known
from tests.model.keys import forged
from tests.model.mortal import When
from tests.model.world import World

OF_THE_EDGE: Final[list[tuple[str, When]]] = [
    ("add", "before"), ("move", "inside"), ("move", "after"), ("add", "after"),
    ("settle", "before"), ("settle", "after"), ("forget", "before"), ("forget", "after"),
]  # fmt: skip
OF_A_PERSISTER: Final[list[tuple[str, When]]] = [
    (name, when)
    for name in ("insert", "put_dead_letters", "publish", "mark_fed", "pending")
    for when in ("before", "after")
]  # fmt: skip
PERSISTERS = st.integers(0, 1)


def has(what: Callable[[World], Any]) -> Callable[["Everything"], bool]:
    return lambda self: bool(what(self.world))


class Everything(RuleBasedStateMachine):
    """Faults, in any order; at the end they are over, and nothing may be missing."""

    @initialize(seed=st.integers(0, 99))
    def begin(self, seed: int) -> None:
        self.world = World(seed)

    def pick(self, data: st.DataObject, of: list[Any]) -> int:
        return data.draw(st.integers(0, len(of) - 1))

    # The car.

    @rule(count=st.integers(1, 4))
    def it_records(self, count: int) -> None:
        self.world.record(count)

    @rule(count=st.integers(3, 6))
    def it_drives(self, count: int) -> None:
        self.world.record(count)
        self.world.compact()

    @rule(offset_s=st.integers(-12, 12))
    def its_clock_is_corrected(self, offset_s: int) -> None:
        self.world.clock_corrected(offset_s * 1000)

    @rule(lose_outbox=st.booleans())
    def it_loses_power(self, lose_outbox: bool) -> None:
        self.world.boot_edge(lose_outbox=lose_outbox)

    @rule(at=st.sampled_from(OF_THE_EDGE), passed=st.integers(0, 2))
    def it_will_lose_power_at(self, at: tuple[str, When], passed: int) -> None:
        self.world.edge.doom = at[0], passed, at[1]

    @rule(keep_ms=st.sampled_from([-1, 0, 5_000, 100_000]))
    def it_forgets(self, keep_ms: int) -> None:
        self.world.forget(keep_ms)

    @rule(packets=st.integers(0, 3))
    def it_is_over_its_bound(self, packets: int) -> None:
        self.world.make_room(packets)

    @rule()
    def its_key_is_changed(self) -> None:
        self.world.car_key += 1
        self.world.boot_edge()

    @rule(seconds=st.sampled_from([0.1, 1, 3, 11, 40, 1000]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    # The road.

    @rule(seconds=st.sampled_from([0, 3, 11]))
    def all_goes_well_for_a_while(self, seconds: float) -> None:
        self.world.join()
        self.world.advance(seconds)
        self.world.deliver()

    @rule()
    def it_is_in_reach(self) -> None:
        self.world.join()

    @rule()
    def it_is_out_of_reach(self) -> None:
        self.world.leave()

    @rule()
    def the_router_dies(self) -> None:
        self.world.router_dies()

    @rule(data=st.data(), taken=st.booleans())
    @precondition(has(lambda world: world.answers))
    def the_router_answers(self, data: st.DataObject, taken: bool) -> None:
        self.world.answered(self.pick(data, self.world.answers), taken=taken)

    @rule(data=st.data(), persister=PERSISTERS, again=st.booleans())
    @precondition(has(lambda world: world.published))
    def a_packet_arrives(self, data: st.DataObject, persister: int, again: bool) -> None:
        self.world.bring(self.pick(data, self.world.published), persister, again=again)

    @rule(data=st.data())
    @precondition(has(lambda world: world.published))
    def a_packet_is_lost(self, data: st.DataObject) -> None:
        del self.world.published[self.pick(data, self.world.published)]

    @rule(data=st.data(), persister=PERSISTERS)
    @precondition(has(lambda world: world.published))
    def a_packet_arrives_broken(self, data: st.DataObject, persister: int) -> None:
        found = self.world.published[self.pick(data, self.world.published)]
        at = data.draw(st.integers(0, 8 * len(found) - 1))
        broken = bytearray(found)
        broken[at // 8] ^= 1 << at % 8
        self.world.hand_garbage(bytes(broken), persister)

    @rule(data=st.data(), again=st.booleans())
    @precondition(has(lambda world: world.receipts))
    def a_receipt_arrives(self, data: st.DataObject, again: bool) -> None:
        self.world.return_receipt(self.pick(data, self.world.receipts), again=again)

    @rule(data=st.data())
    @precondition(has(lambda world: world.receipts))
    def a_receipt_is_lost(self, data: st.DataObject) -> None:
        del self.world.receipts[self.pick(data, self.world.receipts)]

    @rule(data=st.data())
    @precondition(has(lambda world: world.receipts))
    def a_receipt_arrives_broken(self, data: st.DataObject) -> None:
        found = bytearray(self.world.receipts[self.pick(data, self.world.receipts)])
        at = data.draw(st.integers(0, 8 * len(found) - 1))
        found[at // 8] ^= 1 << at % 8
        self.world.hand_receipt(bytes(found))

    @rule(data=st.data(), status=st.sampled_from(["stored", "duplicate", "rejected"]))
    @precondition(has(lambda world: world.ledger.minutes))
    def a_receipt_is_forged(self, data: st.DataObject, status: Any) -> None:  # noqa: ANN401 - one of a Literal
        name = data.draw(st.sampled_from(sorted(self.world.ledger.minutes)))
        sha256 = data.draw(st.sampled_from(sorted(self.world.ledger.minutes[name].envelopes)))
        self.world.hand_receipt(forged(Receipt(sha256, name, status)))

    @rule(data=st.data(), status=st.sampled_from(["stored", "duplicate", "rejected"]))
    @precondition(has(lambda world: world.ledger.minutes))
    def a_receipt_for_another_envelope_arrives(self, data: st.DataObject, status: Any) -> None:  # noqa: ANN401
        name = data.draw(st.sampled_from(sorted(self.world.ledger.minutes)))
        self.world.hand_receipt(self.world.server.sign("", [Receipt("f" * 64, name, status)]))

    # The server.

    @rule(persister=PERSISTERS)
    def a_persister_dies(self, persister: int) -> None:
        self.world.kill_persister(persister)

    @rule(persister=PERSISTERS, at=st.sampled_from(OF_A_PERSISTER), passed=st.integers(0, 1))
    def a_persister_will_die_at(self, persister: int, at: tuple[str, When], passed: int) -> None:
        self.world.persisters[persister].doom = at[0], passed, at[1]

    @rule(persister=PERSISTERS, how=st.sampled_from(["", "before", "after"]))
    def the_archive_is_away_or_back(self, persister: int, how: Any) -> None:  # noqa: ANN401 - one of a Literal
        self.world.persisters[persister].archive.away = how

    @rule(persister=PERSISTERS)
    def the_archive_is_slow(self, persister: int) -> None:
        self.world.hold(persister)

    @rule(persister=PERSISTERS)
    def the_archive_is_quick(self, persister: int) -> None:
        self.world.let_go(persister)

    @rule(away=st.booleans(), fails_after=st.none() | st.integers(0, 3))
    def the_feed_is_away_or_back(self, away: bool, fails_after: int | None) -> None:
        self.world.feed.away, self.world.feed.fails_after = away, fails_after

    @rule(persister=PERSISTERS)
    def a_persister_sweeps(self, persister: int) -> None:
        self.world.sweep(persister)

    @rule()
    def the_servers_keys_are_rotated(self) -> None:
        self.world.server.rotate()

    @rule(data=st.data(), persister=PERSISTERS)
    @precondition(has(lambda world: world.ledger.stored))
    def another_content_of_a_stored_packet_arrives(self, data: st.DataObject, persister: int) -> None:
        self.world.contradict(data.draw(st.sampled_from(sorted(self.world.ledger.stored))), persister)

    @rule(state=st.sampled_from(["active", "active", "suspended", "revoked", ""]))
    def an_operator_changes_the_registry(self, state: str) -> None:
        self.world.known = Known(state) if state else None

    @invariant()
    def nothing_is_broken(self) -> None:
        if hasattr(self, "world"):
            self.world.look()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.world.quieten()
            finally:
                self.world.close()


Everything.TestCase.settings = settings(
    max_examples=20, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestEverything = Everything.TestCase
