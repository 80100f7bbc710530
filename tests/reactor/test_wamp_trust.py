"""How a device learns of its server's newer keys: over sessions that come and go, from whoever answers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from autobahn.twisted.wamp import Session
from autobahn.wamp.exception import ApplicationError, TransportLost
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from components.cloud.keys import KeyRing, make_server_keys, rotate
from components.edge.trust import Trust
from components.edge.wamp_trust import WampTrust
from components.wire import bundle, receipt
from components.wire.errors import RejectedError
from components.wire.receipt import Receipt
from tests.edge_parts import HeldLane, InlineLane, as_lane
from tests.quick_keys import share_rsa_keys

NOW_MS = 1_779_000_000_000
DAY_MS = 86_400_000
ONE = Receipt("0" * 64, None, "stored")


class Server:
    """A server whose keys may be rotated, and the session over which a device asks it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.days = 0
        self.asked: list[str] = []
        self.held: list[Deferred[object]] = []
        self.holds = False
        self.answer: Callable[[str], object] = self.following
        make_server_keys(directory, NOW_MS)
        self.ring = KeyRing(directory)

    @property
    def kid(self) -> str:
        return self.ring.keys().newest.kid

    def rotate(self, days: int = 1) -> None:
        self.days += days
        rotate(self.directory, NOW_MS + self.days * DAY_MS)

    def following(self, kid: str) -> str | None:
        found = self.ring.keys().following(kid)
        return None if found is None else bundle.dump(found)

    def call(self, procedure: str, kid: str) -> Deferred[object]:
        assert procedure == "odograph.fleet.bundle"
        self.asked.append(kid)
        answer = Deferred[object]()
        if self.holds:
            self.held.append(answer)
            return answer
        try:
            answer.callback(self.answer(kid))
        except Exception:  # noqa: BLE001 - as the router hands an error to the caller
            answer.errback()
        return answer

    def receipts(self, kid: str) -> bytes:
        """Receipts for what was sealed for that key."""
        keys = self.ring.keys()
        return receipt.sign([ONE], keys.newest.kid, keys.signer(kid))


class Device:
    def __init__(self, server: Server) -> None:
        self.clock, self.server = Clock(), server
        self.kept: list[str] = []
        self.disk_error: OSError | None = None
        self.lane: Any = InlineLane()
        self.start(bundle.dump(server.ring.keys().newest))

    def start(self, text: str) -> None:
        """Begin a run with what was kept by the one before."""
        self.trust = Trust(bundle.parse(text), "auto")
        self.link = WampTrust(self.clock, self.trust, self.keep, as_lane(self.lane))

    def keep(self, text: str) -> None:
        if self.disk_error is not None:
            raise self.disk_error
        self.kept.append(text)

    def join(self) -> None:
        self.link.joined(cast("Any", self.server))

    def hear(self, kid: str) -> str:
        """Verify receipts for what was sealed for that key, and take up what they announce."""
        _, newest = receipt.verify(self.server.receipts(kid), self.link.receipt_keys)
        self.link.announced(cast("Any", self.server), newest)
        return newest


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    share_rsa_keys(monkeypatch)
    return Server(tmp_path / "keys")


@pytest.fixture
def device(server: Server) -> Device:
    return Device(server)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged as a warning or worse."""
    found: list[str] = []

    def observe(event: Any) -> None:  # noqa: ANN401 - a log event
        if event["log_level"].name in {"warn", "error", "critical"} and event["log_namespace"].startswith("components"):
            found.append(event["log_format"])

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    yield found
    globalLogPublisher.removeObserver(observer)


def test_without_a_rotation_there_is_one_question_a_session_and_nothing_is_kept(server: Server, device: Device) -> None:
    device.join()
    assert device.hear(server.kid) == server.kid
    assert server.asked == [server.kid]
    assert device.kept == []


def test_a_receipt_announces_the_new_key_and_what_is_sealed_from_then_on_is_sealed_for_it(
    server: Server, device: Device
) -> None:
    device.join()
    before, old = device.trust.sealing, server.kid
    server.rotate()
    assert device.hear(old) == server.kid
    assert device.trust.kid == server.kid != old
    assert device.trust.sealing != before
    # What was sealed before still gets receipts that count, from persisters that know of the new keys or do not yet.
    assert device.hear(old) == device.hear(server.kid) == server.kid
    device.start(device.kept[-1])
    assert device.trust.kid == server.kid
    assert device.hear(old) == server.kid


def test_a_device_that_was_away_for_two_rotations_climbs_both_and_its_old_packets_get_receipts_that_count(
    server: Server, device: Device
) -> None:
    old = server.kid
    server.rotate(20)
    server.rotate(20)
    # Before it has climbed: its backlog was sealed for the oldest key.
    receipt.verify(server.receipts(old), device.link.receipt_keys)
    device.join()
    assert device.trust.kid == server.kid
    assert [bundle.parse(text).kid for text in device.kept] == server.asked[1:]
    assert len(server.asked) == 3
    assert device.hear(old) == device.hear(server.kid) == server.kid
    assert old in server.ring.keys().unwrap


def test_a_question_that_is_never_answered_is_given_up_and_asked_again(server: Server, device: Device) -> None:
    old, server.holds = server.kid, True
    device.join()
    server.rotate()
    device.clock.advance(29)
    assert device.hear(old) == server.kid
    assert len(server.asked) == 1
    device.clock.advance(1)
    server.holds = False
    device.join()
    assert device.trust.kid == server.kid


def test_a_question_whose_session_was_lost_is_given_up_though_it_cannot_be_cancelled(
    server: Server, device: Device
) -> None:
    lost: Any = Session()
    lost._transport = SimpleNamespace(isOpen=lambda: True, send=lambda _message: None)
    device.link.joined(lost)
    lost.onClose(wasClean=False)
    device.clock.advance(60)
    server.rotate()
    device.join()
    assert device.kept == [bundle.dump(server.ring.keys().newest)]


def test_a_device_that_was_away_longer_than_old_keys_are_kept_still_climbs(server: Server, device: Device) -> None:
    old = server.kid
    for _ in range(4):
        server.rotate(30)
    assert old not in server.ring.keys().unwrap
    device.join()
    assert device.trust.kid == server.kid
    assert device.hear(server.kid) == server.kid


def test_a_forged_bundle_is_refused_said_once_and_asked_for_at_most_once_a_minute(
    server: Server, device: Device, said: list[str], tmp_path: Path
) -> None:
    old = server.kid
    stranger = Server(tmp_path / "stranger")
    stranger.rotate()
    server.rotate()
    followed = server.following(old) or ""
    unsigned = followed.replace(bundle.parse(followed).signature, "")
    by_stranger = (stranger.following(stranger.ring.keys().chain[0].kid) or "").replace(
        stranger.ring.keys().chain[0].kid, old
    )
    rolled_back = bundle.dump(server.ring.keys().chain[0])
    for number, text in enumerate((unsigned, by_stranger, rolled_back, "nonsense")):
        server.answer = lambda _kid, text=text: text  # type: ignore[misc]
        for _ in range(3):
            device.join()
            device.hear(old)
            device.hear(old)
            device.clock.advance(61)
            device.hear(old)
        assert device.trust.kid == old
        assert said == ["a bundle of server keys that is not believed: {error}"] * (number + 1)
    assert len(server.asked) == 4 * 3 * 2 + 1
    assert device.kept == []
    server.answer = server.following
    device.clock.advance(61)
    device.hear(old)
    assert device.trust.kid == server.kid


def test_a_receipt_by_nobody_it_believes_announces_nothing(server: Server, device: Device, tmp_path: Path) -> None:
    stranger = Server(tmp_path / "stranger")
    with pytest.raises(RejectedError, match="signature"):
        receipt.verify(stranger.receipts(""), device.link.receipt_keys)
    # Of a server whose rotation the device has not heard of: its newest key says nothing to it yet.
    server.rotate()
    with pytest.raises(RejectedError, match="signature"):
        receipt.verify(server.receipts(server.kid), device.link.receipt_keys)


@pytest.mark.parametrize(
    "trouble", [ApplicationError("wamp.error.no_such_procedure"), ApplicationError("wamp.error.not_authorized"),
                TransportLost()]
)  # fmt: skip
def test_who_does_not_answer_is_asked_again_and_nothing_is_said(
    server: Server, device: Device, said: list[str], trouble: Exception
) -> None:
    def fails(_kid: str) -> object:
        raise trouble

    server.answer = fails
    device.join()
    old = server.kid
    server.rotate()
    device.hear(old)
    server.answer = server.following
    device.hear(old)
    assert device.trust.kid == old
    device.clock.advance(61)
    device.hear(old)
    assert device.trust.kid == server.kid
    assert said == []


@pytest.mark.parametrize("answer", [None, 5, b"{}", ["x"]])
def test_an_answer_that_is_no_text_changes_nothing(server: Server, device: Device, answer: object) -> None:
    server.answer = lambda _kid: answer
    device.join()
    assert len(server.asked) == 1
    assert device.kept == []


def test_one_question_is_under_way_at_a_time(server: Server, device: Device) -> None:
    server.holds = True
    device.join()
    device.join()
    device.clock.advance(29)
    device.link.announced(cast("Any", server), "f" * 16)
    assert len(server.asked) == 1
    server.held.pop().errback(TransportLost())
    device.join()
    assert len(server.asked) == 2


def test_a_card_that_cannot_keep_the_new_keys_is_said_and_they_are_used_all_the_same(
    server: Server, device: Device, said: list[str]
) -> None:
    server.rotate()
    device.disk_error = OSError(28, "No space left on device")
    device.join()
    assert device.trust.kid == server.kid
    assert said == ["the server's new keys cannot be kept on the card: {error}"]


def test_the_card_is_written_in_its_lane(server: Server, device: Device) -> None:
    device.lane = lane = HeldLane()
    device.start(bundle.dump(server.ring.keys().newest))
    server.rotate()
    device.join()
    assert device.kept == []
    lane.release()
    assert [bundle.parse(text).kid for text in device.kept] == [server.kid]
