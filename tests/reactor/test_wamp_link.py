"""The link against a session that the test holds: what counts as a receipt, and what happens when it goes."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from autobahn.wamp.exception import ApplicationError, TransportLost
from Crypto.Signature import eddsa
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock
from twisted.logger import Logger

from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.uplink import Uplink
from components.edge.wamp_link import WampLink
from components.wire import receipt, strict_cbor, topics
from components.wire.receipt import Receipt
from tests.edge_parts import ONE, T0, InlineLane, as_lane, ed25519, server_bundle, wamp_trust

SERVER, OTHER = 2, 3


def signer(seed: int) -> Callable[[bytes], bytes]:

    return lambda message: eddsa.new(ed25519(seed), "rfc8032").sign(message)


class Session:
    """What the link uses of a session; `published` holds (topic, arguments, the router's answer to come)."""

    def __init__(self) -> None:
        self.published: list[tuple[str, tuple[Any, ...], Deferred[object]]] = []
        self.handlers: dict[str, Callable[..., None]] = {}
        self.subscribed: dict[str, Callable[..., None]] = {}
        self.registered: list[str] = []
        self.called: list[tuple[str, tuple[object, ...]]] = []
        self.attached = True

    def on(self, event: str, handler: Callable[..., None]) -> None:
        self.handlers[event] = handler

    def subscribe(self, handler: Callable[..., None], topic: str) -> Deferred[object]:
        self.subscribed[topic] = handler
        return succeed(None)

    def call(self, procedure: str, *args: object) -> Deferred[object]:
        self.called.append((procedure, args))
        return succeed(None)

    def register(self, _procedure: object, uri: str, options: object) -> Deferred[object]:
        del options
        self.registered.append(uri)
        return succeed(None)

    def is_attached(self) -> bool:
        return self.attached

    def publish(self, topic: str, *args: object, options: object = None) -> Deferred[object]:
        del options
        answer = Deferred[object]()
        self.published.append((topic, args, answer))
        return answer

    def leave(self) -> None:
        self.attached = False
        for name in ("leave", "disconnect"):
            self.handlers[name](self)

    @property
    def packets(self) -> list[bytes]:
        return [args[0] for topic, args, _ in self.published if topic == topics.packet("car_one")]


class Procedures:
    def procedures(self) -> dict[str, Callable[..., Awaitable[object]]]:
        async def nothing() -> None:
            pass

        return {"status": nothing, "dtcs": nothing}


class Bench:
    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.outbox = SqliteOutbox(directory / "outbox.db")
        self.remakes: dict[int, bytes] = {}
        self.link = WampLink(
            self.clock,
            "car_one",
            Uplink(0.0, lambda: 0.5),
            self.outbox,
            as_lane(InlineLane()),
            wamp_trust(self.clock, SERVER),
            lambda: 77,
            self.remake,
        )
        self.session = Session()

    def remake(self, seq: int) -> str | None:
        """Seal a packet again as a test says; not at all where it says nothing."""
        sealed = self.remakes.get(seq)
        if sealed is None:
            return None
        self.outbox.replace(seq, sealed, receipt.digest(sealed))
        return receipt.digest(sealed)

    def join(self) -> Session:
        self.session = Session()
        ensureDeferred(self.link.attend(cast("Any", self.session), Procedures()))
        return self.session

    def keep(self, *numbers: int) -> None:
        for n in numbers:
            sealed = b"sealed %d" % n
            self.outbox.add(
                f"car_one/{ONE}/20260517T06{n:02d}00Z", sealed, receipt.digest(sealed), 7, (n, n), end_ms=T0
            )
        self.link.kept(self.outbox.waiting(self.outbox.next_seq() - 1 - len(numbers)), fresh=True)

    def hear(self, status: str, *numbers: int, by: int = SERVER, **more: Any) -> None:  # noqa: ANN401 - code, seconds
        found = [Receipt(receipt.digest(b"sealed %d" % n), None, cast("Any", status), **more) for n in numbers]
        self.session.subscribed[topics.receipt("car_one")](receipt.sign(found, "a" * 16, signer(by)))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_session_is_subscribed_and_registered_before_the_first_packet_goes(bench: Bench) -> None:
    bench.keep(1)
    session = bench.join()
    assert list(session.subscribed) == ["odograph.receipt.car_one"]
    assert session.registered == ["odograph.device.car_one.status", "odograph.device.car_one.dtcs"]
    assert session.published[0][1] == ({"event": "online", "device": "car_one"},)
    assert session.packets == [b"sealed 1"]
    assert bench.link.connected


def test_each_session_and_each_new_name_in_a_receipt_that_counts_asks_for_newer_server_keys(bench: Bench) -> None:
    session = bench.join()
    question = ("odograph.fleet.bundle", (server_bundle(SERVER).kid,))
    assert session.called == [question]
    bench.hear("stored", 1, by=OTHER)
    assert session.called == [question]
    bench.hear("stored", 1)
    assert session.called == [question] * 2
    assert bench.join().called == [question]


@pytest.mark.parametrize("status", ["stored", "duplicate"])
def test_a_packet_that_the_server_has_is_settled_and_never_published_again(bench: Bench, status: str) -> None:
    session = bench.join()
    bench.keep(1)
    bench.hear(status, 1)
    bench.clock.advance(10_000)
    assert bench.outbox.counts().receipted == 1
    assert session.packets == [b"sealed 1"]
    assert bench.link.counts[status] == 1


def test_a_rejected_packet_is_kept_counted_and_never_published_again(bench: Bench) -> None:
    session = bench.join()
    bench.keep(1)
    bench.hear("rejected", 1, code="schema")
    bench.clock.advance(10_000)
    assert (bench.outbox.counts().rejected, bench.link.counts["rejected"]) == (1, 1)
    assert session.packets == [b"sealed 1"]
    assert bench.outbox.envelope(1) == b"sealed 1"


def test_each_thing_that_happens_to_a_packet_is_one_line_of_the_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Any] = []
    monkeypatch.setattr(WampLink, "_log", Logger(observer=cast("Any", events.append)))
    session = bench.join()
    bench.keep(1)
    session.published[-1][2].callback(None)
    bench.hear("retry", 1, code="queue_full", retry_after_s=5)
    bench.hear("rejected", 1, code="schema")
    assert [(one["event"], one.get("code")) for one in events] == [
        ("published", None),
        ("retried", "queue_full"),
        ("rejected", "schema"),
    ]
    assert {one["envelope"] for one in events} == {receipt.digest(b"sealed 1")}


def test_later_means_not_before_that_many_seconds(bench: Bench) -> None:
    session = bench.join()
    bench.keep(1)
    bench.hear("retry", 1, code="queue_full", retry_after_s=100)
    bench.clock.advance(99)
    assert len(session.packets) == 1
    bench.clock.advance(60)
    assert session.packets == [b"sealed 1"] * 2
    assert bench.outbox.counts().waiting == 1


def test_what_the_router_says_settles_nothing(bench: Bench) -> None:
    session = bench.join()
    bench.keep(1)
    session.published[-1][2].callback(object())
    assert bench.outbox.counts().waiting == 1
    bench.clock.advance(10)
    assert session.packets == [b"sealed 1"] * 2


@pytest.mark.parametrize("forged", [b"", b"\x00" * 200, "text", {"receipts": []}, None])
def test_what_is_no_receipt_counts_as_nothing(bench: Bench, forged: object) -> None:
    session = bench.join()
    bench.keep(1)
    session.subscribed[topics.receipt("car_one")](forged)
    session.subscribed[topics.receipt("car_one")]()
    assert (bench.outbox.counts().waiting, bench.link.counts["bad"]) == (1, 2)


def test_a_receipt_that_another_key_signed_counts_as_nothing(bench: Bench) -> None:
    bench.join()
    bench.keep(1)
    bench.hear("stored", 1, by=OTHER)
    assert (bench.outbox.counts().waiting, bench.link.counts["bad"], bench.link.counts["stored"]) == (1, 1, 0)


def test_a_receipt_for_something_else_settles_nothing(bench: Bench) -> None:
    bench.join()
    bench.keep(1)
    bench.hear("stored", 2)
    assert bench.outbox.counts().waiting == 1


def test_a_packet_whose_session_was_lost_in_mid_publish_goes_again_in_the_next(bench: Bench) -> None:
    first = bench.join()
    bench.keep(1)
    first.leave()
    first.published[-1][2].errback(TransportLost())
    assert not bench.link.connected
    bench.clock.advance(5000)
    assert bench.clock.getDelayedCalls() == []
    assert bench.join().packets == [b"sealed 1"]
    assert first.packets == [b"sealed 1"]


def test_a_refused_publish_is_tried_again_by_its_timer(bench: Bench) -> None:
    session = bench.join()
    bench.keep(1)
    session.published[-1][2].errback(ApplicationError("wamp.error.not_authorized"))
    bench.clock.advance(9)
    assert len(session.packets) == 1
    bench.clock.advance(1)
    assert len(session.packets) == 2


def test_the_leave_of_a_session_that_was_replaced_says_nothing_about_the_new_one(bench: Bench) -> None:
    old = bench.join()
    new = bench.join()
    old.leave()
    assert bench.link.connected
    bench.keep(1)
    assert new.packets == [b"sealed 1"]


def drained(bench: Bench) -> Deferred[None]:
    return ensureDeferred(bench.link.drained(30, 3))


def ended(done: Deferred[None]) -> bool:
    return bool(done.called)


def test_draining_ends_when_the_last_receipt_comes(bench: Bench) -> None:
    bench.join()
    bench.keep(1, 2)
    done = drained(bench)
    bench.hear("stored", 1)
    assert not ended(done)
    bench.hear("stored", 2)
    assert ended(done)
    assert bench.clock.getDelayedCalls() == []


def test_draining_ends_at_once_when_there_is_nothing_to_deliver(bench: Bench) -> None:
    assert ended(drained(bench))


def test_draining_ends_after_its_limit_when_no_receipt_comes(bench: Bench) -> None:
    bench.join()
    bench.keep(1)
    done = drained(bench)
    bench.clock.advance(29)
    assert not ended(done)
    bench.clock.advance(1)
    assert ended(done)


def test_draining_without_a_router_ends_soon_and_one_that_comes_in_time_is_used(bench: Bench) -> None:
    bench.keep(1)
    done = drained(bench)
    bench.clock.advance(2)
    assert not ended(done)
    bench.clock.advance(1)
    assert ended(done)
    again = drained(bench)
    bench.clock.advance(2)
    bench.join()
    bench.clock.advance(2)
    assert not ended(again)
    bench.hear("stored", 1)
    assert ended(again)


def test_draining_ends_when_the_last_packet_is_gone_from_the_outbox(bench: Bench) -> None:
    bench.keep(1)
    done = drained(bench)
    bench.outbox._connection.execute("DELETE FROM packets")
    bench.join()
    assert ended(done)


def test_after_the_end_nothing_is_published_whatever_comes(bench: Bench) -> None:
    session = bench.join()
    bench.keep(1)
    bench.link.end()
    bench.clock.advance(5000)
    bench.keep(2)
    assert session.packets == [b"sealed 1"]
    assert bench.clock.getDelayedCalls() == []


def test_forged_and_foreign_receipts_are_told_apart_and_settle_nothing(bench: Bench) -> None:
    session = bench.join()
    bench.keep(1)
    hear = session.subscribed[topics.receipt("car_one")]
    good = receipt.sign([Receipt(receipt.digest(b"sealed 1"), None, "stored")], "a" * 16, signer(SERVER))
    version_2 = b'{"v":2,"receipts":[],"newest_kid":"aaaaaaaaaaaaaaaa"}'
    signed = strict_cbor.dumps([version_2, signer(SERVER)(b"odograph-receipt-v1" + version_2)])
    for evil in (good[:-1], b"", b"\x00" * 300_000, signed, "text", None, bytearray(good)):
        hear(evil)
    hear(good, good)
    bench.hear("stored", 1, by=OTHER)
    bench.hear("stored", 2, 3)  # of another device, or of packets that are settled
    bench.hear("retry", 4, code="queue_full", retry_after_s=3600)
    counts = bench.link.counts
    assert {name: count for name, count in counts.items() if name.startswith("bad")} == {
        "bad": 9, "bad.grammar": 6, "bad.size": 1, "bad.schema": 1, "bad.signature": 1
    }  # fmt: skip
    assert (counts["foreign"], counts["stored"], counts["retry"]) == (3, 2, 1)
    assert bench.outbox.counts().waiting == 1
    hear(good)
    hear(good)
    assert (bench.outbox.counts().receipted, counts["foreign"]) == (1, 4)


def test_a_packet_for_a_key_that_the_server_has_no_more_is_sealed_again_and_published(bench: Bench) -> None:
    bench.keep(1)
    session = bench.join()
    bench.remakes[1] = b"sealed anew"
    bench.hear("retry", 1, code="unknown_server_key", retry_after_s=5)
    bench.clock.advance(8)
    assert session.packets == [b"sealed 1", b"sealed anew"]
    assert list(bench.link._ids) == [receipt.digest(b"sealed anew")]
    found = [Receipt(receipt.digest(b"sealed anew"), None, "stored")]
    bench.session.subscribed[topics.receipt("car_one")](receipt.sign(found, "a" * 16, signer(SERVER)))
    assert bench.link.uplink.idle


def test_a_packet_that_cannot_be_sealed_again_leaves_its_place_to_the_others(bench: Bench) -> None:
    bench.keep(*range(1, 6))
    session = bench.join()
    bench.hear("retry", 1, code="unknown_server_key", retry_after_s=5)
    assert session.packets == [b"sealed %d" % n for n in (1, 2, 3, 5, 4)]


def test_packets_that_stay_as_they_are_sealed_wait_and_leave_their_places_to_the_others(bench: Bench) -> None:
    bench.keep(*range(1, 7))
    session = bench.join()
    bench.link.remake = lambda seq: receipt.digest(b"sealed %d" % seq)
    assert session.packets == [b"sealed %d" % n for n in (1, 2, 3, 6)]
    bench.hear("retry", 1, 2, 3, 6, code="unknown_server_key", retry_after_s=5)
    assert session.packets[4:] == [b"sealed 4", b"sealed 5"]
    bench.hear("stored", 4, 5)
    assert bench.outbox.counts().waiting == 4
    bench.clock.advance(14)
    assert len(session.packets) == 10
    bench.hear("stored", 1, 2, 3, 6)
    assert bench.link.uplink.idle


def test_a_packet_that_fails_to_be_sealed_again_costs_no_other_receipt_of_the_message(bench: Bench) -> None:
    bench.keep(1, 2)
    bench.join()

    def fail(_seq: int) -> None:
        raise OSError("the card")

    bench.link.remake = fail
    found = [
        Receipt(receipt.digest(b"sealed 1"), None, "retry", "unknown_server_key", 5),
        Receipt(receipt.digest(b"sealed 2"), None, "stored"),
    ]
    bench.session.subscribed[topics.receipt("car_one")](receipt.sign(found, "a" * 16, signer(SERVER)))
    assert bench.outbox.counts().receipted == 1
    assert bench.link.uplink.in_flight == 1


def test_an_envelope_that_is_not_what_was_sealed_is_not_published(bench: Bench) -> None:
    bench.keep(1)
    bench.outbox._connection.execute("UPDATE packets SET envelope = x'00'")
    session = bench.join()
    assert session.packets == []
    assert bench.link.uplink.idle
