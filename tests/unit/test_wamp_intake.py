"""The persister's intake without a router: what waits, what is one batch, what may delay what, how it ends."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from twisted.internet.defer import ensureDeferred
from twisted.logger import LogLevel, capturedLogs, formatEvent

from components.cloud import wamp_intake
from components.cloud.events import event_ids, events
from components.cloud.ports import FeedEvent
from components.wire import packet, topics
from components.wire.errors import RejectedError, UnavailableError
from tests.intake_parts import TOPIC, Cloud, Details
from tests.sealed import KID, plain, sealed


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything that is stored now be older than the sweep's 10 s at once."""
    monkeypatch.setattr(wamp_intake, "SWEEP_AFTER_MS", -60_000)


def test_a_packet_is_stored_receipted_and_fed(cloud: Cloud) -> None:
    assert sorted(cloud.session.subscribed) == sorted(
        topics.packet_prefix(one) for one in ("00", topics.shard("car_one"))
    )
    cloud.hear(sealed())
    ((topic, (receipt,)),) = cloud.session.receipts
    assert (topic, receipt.status) == (topics.receipt("car_one"), "stored")
    assert cloud.fed() == set(event_ids(plain()))
    assert cloud.archive.to_feed == set()


def test_what_waits_is_stored_as_one_batch_and_receipted_in_one_message(cloud: Cloud) -> None:
    cloud.lane.held = True
    cloud.hear(*(sealed(n=n) for n in range(5)))
    assert cloud.session.receipts == []
    cloud.lane.release()
    # The first went alone, for nothing else waited then.
    assert cloud.archive.batches == [1, 4]
    assert [len(receipts) for _, receipts in cloud.session.receipts] == [1, 4]


def test_each_device_hears_of_its_own_packets_only(cloud: Cloud) -> None:
    cloud.lane.held = True
    cloud.hear(sealed())
    cloud.hear(sealed(n=1))
    cloud.hear(b"junk", topic=topics.packet("car_two"), publisher="car_two")
    cloud.lane.release()
    assert [(topic, len(receipts)) for topic, receipts in cloud.session.receipts[1:]] == [
        (topics.receipt("car_two"), 1),
        (topics.receipt("car_one"), 1),
    ]


def test_receipts_are_signed_for_the_key_that_their_envelopes_were_sealed_for(cloud: Cloud) -> None:
    cloud.hear(sealed())
    cloud.lane.held = True
    cloud.hear(b"junk", sealed(n=1), sealed(n=2, server_kid="f" * 16), sealed(n=3), sealed(n=4, server_kid="f" * 16))
    cloud.lane.release()
    told = zip(cloud.signed_for, cloud.session.receipts, strict=True)
    assert [(kid, [one.status for one in receipts]) for kid, (_, receipts) in told] == [
        (KID, ["stored"]),
        ("", ["rejected"]),
        ("f" * 16, ["retry", "retry"]),
        (KID, ["stored", "stored"]),
    ]


def test_a_full_queue_says_so_and_looks_at_nothing(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wamp_intake, "MAX_WAITING", 2)
    cloud.lane.held = True
    cloud.hear(*(sealed(n=n) for n in range(5)))
    assert (cloud.statuses(), cloud.codes()) == (["retry"] * 2, ["queue_full"] * 2)
    cloud.hear(sealed(n=5), topic="odograph.packet.00.car_one")  # nobody's topic: nobody to tell
    assert len(cloud.statuses()) == 2
    cloud.lane.release()
    assert cloud.statuses()[2:] == ["stored"] * 3
    cloud.hear(sealed(n=4))
    assert cloud.statuses()[-1] == "stored"


def test_a_full_queue_is_also_one_of_too_many_bytes(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wamp_intake, "MAX_WAITING_BYTES", len(sealed()))
    cloud.lane.held = True
    cloud.hear(sealed(), sealed())
    assert (cloud.codes(), cloud.intake.waiting["bytes"]) == ([], len(sealed()))
    cloud.hear(b"j")
    assert cloud.codes() == ["queue_full"]


@pytest.mark.parametrize("junk", [(), ("text",), (sealed, 1), (b"",)])
def test_what_is_no_envelope_is_rejected_and_the_next_packet_goes_through(
    cloud: Cloud, junk: tuple[object, ...]
) -> None:
    hear = cloud.session.subscribed[topics.packet_prefix(topics.shard("car_one"))]
    hear(*junk, details=Details(TOPIC, "car_one"))
    cloud.hear(sealed())
    assert cloud.statuses() == ["rejected", "stored"]


def test_a_feed_that_hangs_delays_no_receipt(cloud: Cloud) -> None:
    cloud.feed_lane.held = True
    cloud.hear(*(sealed(n=n) for n in range(4)))
    assert cloud.statuses() == ["stored"] * 4
    assert cloud.fed() == set()
    cloud.feed_lane.release()
    assert cloud.archive.to_feed == set()
    assert cloud.fed() == {id_ for n in range(4) for id_ in event_ids(plain(n))}


@pytest.mark.usefixtures("later")
def test_what_could_not_be_fed_is_pending_and_a_sweep_feeds_it_with_the_same_ids(cloud: Cloud) -> None:
    cloud.feed.away = True
    cloud.hear(sealed(), sealed(n=1))
    cloud.intake.sweep()
    assert len(cloud.archive.to_feed) == 2
    cloud.feed.away = False
    cloud.feed.fails_after = 1
    cloud.intake.sweep()
    assert len(cloud.archive.to_feed) == 2
    cloud.intake.sweep()
    assert cloud.archive.to_feed == set()
    assert cloud.fed() == {id_ for n in range(2) for id_ in event_ids(plain(n))}
    assert cloud.intake.fed == 2


@pytest.mark.usefixtures("later")
def test_what_comes_while_a_sweep_feeds_is_fed_after_it(cloud: Cloud) -> None:
    cloud.feed.away = True
    cloud.hear(sealed())
    cloud.feed_lane.held = True
    cloud.intake.sweep()
    cloud.hear(sealed(n=1))
    cloud.feed.away = False
    cloud.feed_lane.release()
    assert cloud.archive.to_feed == set()
    # And when the sweep fails they do not wait for the next packet either: the next sweep takes all.
    cloud.feed.away = True
    cloud.hear(sealed(n=2))
    cloud.feed_lane.held = True
    cloud.intake.sweep()
    cloud.hear(sealed(n=3))
    cloud.feed_lane.release()
    cloud.feed.away = False
    cloud.intake.sweep()
    assert cloud.archive.to_feed == set()


@pytest.mark.usefixtures("later")
def test_a_stored_packet_that_cannot_be_announced_stops_no_other(cloud: Cloud) -> None:
    cloud.feed.away = True
    cloud.hear(sealed(), sealed(n=1))
    cloud.feed.away = False
    bad = cloud.archive.packets[plain().id]
    cloud.archive.packets[bad.id] = replace(bad, packet={"of": "another version"})
    for _ in range(2):
        cloud.intake.sweep()
        assert cloud.archive.to_feed == {bad.id}
    assert cloud.fed() == set(event_ids(plain(1)))
    # Another version, which can read it.
    cloud.archive.packets[bad.id] = bad
    again = Cloud(cloud.archive)
    again.intake.sweep()
    assert again.fed() == set(event_ids(plain()))
    assert cloud.archive.to_feed == set()


def nothing_fits(_events: object) -> None:
    raise RejectedError("too_large", "an event")


def deep(_stored: object) -> None:
    raise RecursionError


@pytest.mark.usefixtures("later")
def test_one_event_that_the_feed_never_takes_stops_no_other_packet_and_is_not_published_for_ever(cloud: Cloud) -> None:
    publish, tried = cloud.feed.publish, list[str]()

    def but_one(given: Sequence[FeedEvent]) -> None:
        tried.extend(event.id for event in given)
        if any(event.id == f"{plain(1).id}/summary" for event in given):
            nothing_fits(given)
        publish(given)

    cloud.feed.away = True
    cloud.hear(*(sealed(n=n) for n in range(3)))
    cloud.feed.away, cloud.feed.publish = False, but_one  # type: ignore[assignment,method-assign]
    for _ in range(3):
        cloud.intake.sweep()
    assert cloud.archive.to_feed == {plain(1).id}
    assert cloud.fed() == {id_ for n in (0, 2) for id_ in event_ids(plain(n))}
    assert tried.count(f"{plain(1).id}/summary") == 2
    assert cloud.intake.trouble == {"archive": "", "feed": ""}


@pytest.mark.usefixtures("later")
def test_a_packet_whose_events_crash_stops_no_other(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wamp_intake, "events", lambda one: deep(one) if one.id == plain().id else events(one))
    cloud.hear(sealed(), sealed(n=1))
    cloud.intake.sweep()
    assert cloud.archive.to_feed == {plain().id}


@pytest.mark.usefixtures("later")
def test_receipts_wait_for_nothing_that_the_feed_wants_of_the_archive(cloud: Cloud) -> None:
    publish = cloud.feed.publish

    def then_the_archive_is_slow(given: Sequence[FeedEvent]) -> None:
        publish(given)
        cloud.feed_lane.held = True

    cloud.feed.publish = then_the_archive_is_slow  # type: ignore[assignment,method-assign]
    cloud.hear(sealed(), sealed(n=1))
    assert cloud.statuses() == ["stored"] * 2
    assert cloud.archive.to_feed == {plain().id, plain(1).id}, "marked beside, in the feed's lane"
    cloud.feed.publish = publish  # type: ignore[method-assign]
    cloud.feed_lane.release()
    cloud.feed_lane.held, cloud.archive.away = True, True
    cloud.intake.sweep()
    cloud.archive.away = False
    assert cloud.intake.trouble["archive"] == "", "asked beside, in the feed's lane"
    cloud.hear(sealed(n=2))
    assert cloud.statuses() == ["stored"] * 3
    cloud.feed_lane.release()
    assert cloud.archive.to_feed == set()


def test_an_end_while_the_archive_is_away_takes_one_attempt_not_one_for_each_batch(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wamp_intake, "_MAX_BATCH", 2)
    cloud.lane.held = cloud.archive.away = True
    cloud.hear(*(sealed(n=n) for n in range(7)))
    stopping = ensureDeferred(cloud.intake.stop())
    cloud.lane.release()
    assert stopping.called
    assert cloud.codes() == ["archive_away"]


def test_the_sweep_leaves_alone_what_was_stored_just_now(cloud: Cloud) -> None:
    cloud.feed.away = True
    cloud.hear(sealed())
    cloud.feed.away = False
    cloud.intake.sweep()
    assert len(cloud.archive.to_feed) == 1


@pytest.mark.usefixtures("later")
def test_an_archive_that_is_away_stops_neither_intake_nor_sweep(cloud: Cloud) -> None:
    cloud.archive.away = True
    cloud.hear(sealed())
    cloud.intake.sweep()
    assert (cloud.statuses(), cloud.codes()) == (["retry"], ["archive_away"])
    cloud.archive.away = False
    cloud.hear(sealed())
    assert cloud.statuses()[-1] == "stored"
    assert cloud.archive.to_feed == set()


def test_a_batch_that_fails_in_an_unforeseen_way_leaves_the_intake_alive(cloud: Cloud) -> None:
    def fail(_batch: object) -> None:
        raise ZeroDivisionError

    insert = cloud.archive.insert
    cloud.archive.insert = fail  # type: ignore[assignment,method-assign]
    cloud.hear(sealed())
    assert cloud.statuses() == []
    cloud.archive.insert = insert  # type: ignore[method-assign]
    cloud.hear(sealed())
    assert cloud.statuses() == ["stored"]


def test_receipts_go_to_the_session_of_now_and_nowhere_while_there_is_none(cloud: Cloud) -> None:
    cloud.lane.held = True
    cloud.hear(sealed())
    cloud.session.attached = False
    cloud.lane.release()
    assert cloud.session.receipts == []
    before, cloud.session = cloud.session, cloud.join()
    cloud.hear(sealed())
    assert cloud.statuses() == ["duplicate"]
    assert before.receipts == []


def test_stop_finishes_what_is_in_hand_and_takes_no_more(cloud: Cloud) -> None:
    cloud.lane.held = cloud.feed_lane.held = True
    cloud.hear(sealed(), sealed(n=1))
    stopping = ensureDeferred(cloud.intake.stop())
    cloud.hear(sealed(n=2))
    cloud.intake.sweep()
    assert not stopping.called
    cloud.lane.release()
    assert cloud.statuses() == ["stored", "stored"]
    assert not stopping.called
    cloud.feed_lane.release()
    assert cloud.archive.to_feed == set()
    assert len(cloud.archive.packets) == 2
    assert all(one.called for one in (stopping, ensureDeferred(cloud.intake.stop())))


def test_stop_waits_for_a_feed_that_is_under_way(cloud: Cloud) -> None:
    cloud.feed_lane.held = True
    cloud.hear(sealed())
    stopping = ensureDeferred(cloud.intake.stop())
    assert not stopping.called
    cloud.feed_lane.release()
    assert stopping.called


def test_while_the_archive_is_away_everybody_behind_is_told_so(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wamp_intake, "_MAX_BATCH", 2)
    cloud.lane.held = cloud.archive.away = True
    cloud.hear(*(sealed(n=n) for n in range(5)))
    cloud.lane.release()
    assert cloud.codes() == ["archive_away"] * 5


def test_one_sweep_at_a_time_and_none_after_the_end(cloud: Cloud) -> None:
    cloud.feed_lane.held = True
    for _ in range(2):
        cloud.intake.sweep()
    assert len(cloud.feed_lane.waiting) == 1
    cloud.feed_lane.release()
    ensureDeferred(cloud.intake.stop())
    cloud.feed_lane.held = True
    cloud.intake.sweep()
    assert cloud.feed_lane.waiting == []


def test_what_is_stored_is_fed_one_batch_after_the_other(cloud: Cloud) -> None:
    cloud.feed_lane.held = True
    cloud.hear(sealed(), sealed(n=1))
    assert (len(cloud.feed_lane.waiting), cloud.intake.waiting["feed"]) == (1, 1)


def test_no_more_than_may_be_in_memory_waits_for_the_feed(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wamp_intake, "MAX_WEIGHT", 2)
    cloud.feed_lane.held = True
    cloud.hear(*(sealed(n=n) for n in range(5)))
    assert (cloud.statuses(), cloud.intake.waiting["feed"]) == (["stored"] * 5, 2)


def test_a_feed_that_is_away_is_tried_with_one_batch_and_the_rest_stays_pending(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wamp_intake, "_FEED_BATCH", 1)
    tried = list[int]()

    def away(given: Sequence[FeedEvent]) -> None:
        tried.append(len(given))
        raise UnavailableError("away")

    cloud.feed.publish = away  # type: ignore[assignment,method-assign]
    cloud.feed_lane.held = True
    cloud.hear(*(sealed(n=n) for n in range(3)))
    cloud.feed_lane.release()
    assert (len(tried), cloud.intake.waiting["feed"], len(cloud.archive.to_feed)) == (1, 0, 3)


def test_what_gives_very_many_events_is_announced_packet_by_packet(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wamp_intake, "_MAX_EVENTS", 2)
    publish, at_once = cloud.feed.publish, list[set[str]]()

    def noted(given: Sequence[FeedEvent]) -> None:
        at_once.append({event.id.rpartition("/")[0] for event in given})
        publish(given)

    cloud.feed.publish = noted  # type: ignore[assignment,method-assign]
    cloud.feed_lane.held = True
    cloud.hear(*(sealed(n=n) for n in range(4)))
    cloud.feed_lane.release()
    assert at_once == [{plain().id}, {plain(1).id, plain(2).id}, {plain(3).id}]
    assert cloud.archive.to_feed == set()


def test_how_far_behind_the_cars_the_archive_is_counts_from_the_end_of_a_minute(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wamp_intake, "_now_ms", lambda: plain(1).start_ms + 90_000)
    cloud.hear(sealed(n=1), sealed())
    assert (cloud.intake.newest_s, cloud.intake.lag_s) == (plain(2).start_ms / 1000, 30 + 90)


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("away", ["", "feed", "archive"])
def test_the_lanes_have_turned_whatever_the_stores_said(cloud: Cloud, away: str) -> None:
    turns = list[str]()
    cloud.hear(sealed())
    cloud.intake.turned = lambda: turns.append(away)
    if away:
        getattr(cloud, away).away = True
    cloud.intake.sweep()
    assert turns
    turns.clear()
    cloud.lane.held = True
    cloud.intake.sweep()
    assert not turns, "one of them has not"
    cloud.lane.release()
    assert turns
    turns.clear()
    cloud.archive.away = False
    cloud.hear(sealed(n=1))
    assert turns


def test_a_store_that_stays_away_is_told_once_and_a_packet_that_cannot_be_fed_by_its_id(cloud: Cloud) -> None:
    with capturedLogs() as told:
        for away in (True, False, True):
            cloud.archive.away = away
            cloud.hear(*(sealed(n=n) for n in range(3)))
        cloud.archive.away = False
        cloud.feed.away = True
        cloud.hear(sealed(n=4), sealed(n=5))
        cloud.feed.away = False
        cloud.feed.publish = nothing_fits  # type: ignore[assignment,method-assign]
        cloud.hear(sealed(n=3))
    warned = [formatEvent(one) for one in told if one["log_level"] is LogLevel.warn]
    assert [one.split(":")[0] for one in warned] == ["feed"]
    said = [formatEvent(one) for one in told if one["log_level"] is LogLevel.error]
    assert [one.split(":")[0] for one in said] == ["archive", "archive", f"{plain(3).id} is stored and cannot be fed"]


def test_the_stores_make_what_they_need_before_any_packet_and_what_keeps_them_from_it_is_told(cloud: Cloud) -> None:
    published = list[Sequence[FeedEvent]]()
    cloud.feed.publish = published.append  # type: ignore[assignment,method-assign]
    cloud.intake.start()
    assert (cloud.archive.batches, published) == ([0], [[]])
    cloud.archive.away = True
    cloud.intake.start()
    assert cloud.intake.trouble["archive"] != ""
    assert published == [[], []]


def test_stores_that_are_away_at_the_start_are_tried_again_when_needed(cloud: Cloud) -> None:
    cloud.archive.away = cloud.feed.away = True
    cloud.intake.start()
    cloud.archive.away = cloud.feed.away = False
    cloud.hear(sealed())
    assert cloud.archive.to_feed == set()


def test_a_packet_is_not_marked_fed_when_the_archive_went_away_meanwhile(cloud: Cloud) -> None:
    def away(_ids: object) -> None:
        raise UnavailableError("away")

    cloud.archive.mark_fed = away  # type: ignore[assignment,method-assign]
    cloud.hear(sealed())
    assert cloud.archive.to_feed == {packet.read(cloud.archive.packets[plain().id].packet).id}
    assert cloud.intake.fed == 0
