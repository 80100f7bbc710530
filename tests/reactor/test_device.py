"""What the car answers to operators, the interlocked clearing above all."""

from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import CallDetails
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from components.edge.device import Device
from components.edge.interlock import ATTEMPTS
from components.edge.ports import Dtc
from components.edge.recorder import Recorder, Sources
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.timeline import Timeline
from components.edge.uplink import Uplink
from components.edge.wamp_link import WampLink
from tests.edge_parts import ONE, T0, HeldLane, InlineLane, Journal, as_lane, wamp_trust
from tests.fakes import FakeCar

P0420 = Dtc("P0420", "stored", "7E8")


def by(authid: str, role: str = "technician") -> CallDetails:
    return cast("CallDetails", SimpleNamespace(caller_authid=authid, caller_authrole=role))


class Bench:
    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.car = FakeCar(self.elapsed_ms, {"rpm": 0.0, "speed": 0})
        self.car.codes, self.car.freeze_frame = (P0420,), {"rpm": 800.0, "dtc_ff": "P0420"}
        self.car_lane: Any = InlineLane()
        self.journal = Journal()
        outbox, lane = SqliteOutbox(directory / "outbox.db"), as_lane(InlineLane())
        self.link = WampLink(
            self.clock,
            "car_one",
            Uplink(0.0, lambda: 0.5),
            outbox,
            lane,
            wamp_trust(self.clock),
            lambda: 0,
            lambda _: None,
        )
        self.recorder = Recorder(
            reactor=self.clock,
            elapsed_ms=self.elapsed_ms,
            sources=Sources(self.car, None, None, 1000, 60, "full", "c" * 16),
            car_lane=cast("Any", self),
            file_lane=as_lane(InlineLane()),
            journal=self.journal,
            timeline=Timeline(ONE, "ntp", T0),
            new_session=lambda: "2" * 16,
            closed=lambda: None,
            changed=lambda _new, _old: None,
        )
        self.device = Device("car_one", "1.0", self.recorder, self.link, outbox, lane, self.elapsed_ms, 0)

    async def run(self, *call: Any) -> Any:  # noqa: ANN401 - as the lane that it stands for, which a test may change
        return await self.car_lane.run(*call)

    def elapsed_ms(self) -> int:
        return round(self.clock.seconds() * 1000)

    def token(self, who: str = "tech") -> str:
        answer = cast("Any", result(self.device.prepare_clear(details=by(who))))
        assert answer["expires_s"] == 60
        return cast("str", answer["token"])

    def clear(self, token: str, who: str = "tech") -> object:
        return result(self.device.clear_dtcs(token, details=by(who)))

    @property
    def steps(self) -> list[str]:
        """Rows in order: audit steps by name, others by kind."""
        return [cast("str", body.get("step", kind)) for _, kind, _, body in self.journal.rows if kind != "session"]


def begun(work: Coroutine[Any, Any, object]) -> tuple[Deferred[None], list[object]]:
    """The work, and a list in which its result or what it raised will stand."""
    found: list[object] = []
    return ensureDeferred(work).addCallbacks(found.append, lambda failure: found.append(failure.value)), found


def result(work: Coroutine[Any, Any, object]) -> object:
    found = begun(work)[1][0]
    if isinstance(found, BaseException):
        raise found
    return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_standing_car_with_its_engine_off_is_cleared_once_and_every_step_is_on_record(bench: Bench) -> None:
    assert bench.clear(bench.token()) == {"outcome": "cleared"}
    assert bench.car.cleared == 1
    assert bench.steps == ["prepare_clear", "dtcs", "clear_begun", "clear_outcome", "dtcs"]
    saved, after = (body for _, kind, _, body in bench.journal.rows if kind == "dtcs")
    assert (saved["codes"][0][0], saved["freeze_frame"]["dtc_ff"], after["codes"]) == ("P0420", "P0420", [])
    trail = [body for _, kind, _, body in bench.journal.rows if kind == "audit"]
    assert {(body["by"], body["role"]) for body in trail} == {("tech", "technician")}
    assert trail[-1]["outcome"] == "cleared"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"rpm": 800.0, "speed": 0}, "engine_running"),
        ({"rpm": 0.0, "speed": 3}, "vehicle_moving"),
        ({"rpm": 0.0}, "speed_unknown"),
        ({"speed": 0}, "rpm_unknown"),
    ],
)
def test_a_car_that_may_not_be_cleared_is_sent_nothing_and_the_refusal_is_on_record(
    bench: Bench, values: dict[str, Any], reason: str
) -> None:
    bench.car.values = values
    assert bench.clear(bench.token()) == {"outcome": "refused", "reason": reason}
    assert bench.car.cleared == 0
    assert bench.steps == ["prepare_clear", "dtcs", "clear_begun", "clear_refused"]


def test_a_token_is_good_once_for_its_caller_within_a_minute(bench: Bench) -> None:
    unknown, expired = ({"outcome": "refused", "reason": f"token_{why}"} for why in ("unknown", "expired"))
    assert bench.clear("") == unknown
    token = bench.token()
    assert bench.clear(token, "other") == unknown
    assert bench.clear(token) == {"outcome": "cleared"}
    assert bench.clear(token) == unknown
    token = bench.token()
    bench.clock.advance(60)
    assert bench.clear(token) == expired
    assert bench.clear(cast("Any", 5)) == unknown
    assert bench.car.cleared == 1
    assert bench.steps.count("clear_refused") == 5


def test_a_flood_of_attempts_fills_no_card_and_its_number_is_on_record(bench: Bench) -> None:
    """Whoever runs the router can call under any name, as often as they like."""
    for n in range(500):
        with suppress(ApplicationError):
            bench.token(f"tech_{n}")
        with suppress(ApplicationError):
            bench.clear("guessed", f"tech_{n}")
    assert len(bench.steps) == ATTEMPTS
    with pytest.raises(ApplicationError, match="too_many"):
        bench.token()
    bench.clock.advance(60)
    assert bench.clear(bench.token()) == {"outcome": "cleared"}
    told = [body["too_many"] for _, _, _, body in bench.journal.rows if "too_many" in body]
    assert told == [1001 - ATTEMPTS]
    assert len(bench.device._interlock._tokens) == 0


def test_attempts_that_were_too_many_are_told_once_where_two_steps_run_at_once(bench: Bench) -> None:
    bench.device._interlock.refused = 5
    kept, bench.recorder.file_lane = bench.recorder.file_lane, as_lane(held := HeldLane())
    steps = [begun(bench.device.prepare_clear(details=by(who))) for who in ("one", "other")]
    while held.queue:
        held.release()
    bench.recorder.file_lane = kept
    assert all(found for _, found in steps)
    assert [body["too_many"] for _, _, _, body in bench.journal.rows if "too_many" in body] == [5]
    assert bench.device._interlock.refused == 0


def test_attempts_that_could_not_be_told_are_told_with_the_next_step(bench: Bench) -> None:
    bench.device._interlock.refused = 5
    bench.journal.full = OSError("full")
    with pytest.raises(ApplicationError):
        bench.token()
    bench.journal.full = None
    bench.token()
    assert [body.get("too_many") for _, kind, _, body in bench.journal.rows if kind == "audit"] == [5]


def test_an_agent_that_was_started_again_knows_no_token_of_before(bench: Bench, tmp_path: Path) -> None:
    token = bench.token()
    (tmp_path / "again").mkdir()
    assert Bench(tmp_path / "again").clear(token) == {"outcome": "refused", "reason": "token_unknown"}


def test_a_crowd_that_asks_for_codes_has_the_car_asked_once_and_too_large_a_crowd_is_refused(bench: Bench) -> None:
    bench.car_lane = held = HeldLane()
    asking = [begun(bench.device.dtcs(refresh=True, details=by("viewer"))) for _ in range(60)]
    assert len(held.queue) == 1
    asking[0][0].cancel()
    held.release()
    answers = [found[0] for _, found in asking]
    refused = [str(one) for one in answers if isinstance(one, ApplicationError)]
    assert (len(refused), refused[0]) == (10, refused[-1])
    assert "too_many" in refused[0]
    assert [cast("Any", one)["at"] for one in answers[1:50]] == ["2026-05-17T06:40:00.000Z"] * 49
    again, found = begun(bench.device.dtcs(refresh=True, details=by("viewer")))
    bench.car.away = "no_data"
    held.release()
    assert isinstance(found[0], ApplicationError)
    assert again.called


def test_of_two_technicians_at_once_one_clears_and_the_other_is_refused(bench: Bench) -> None:
    tokens = bench.token("one"), bench.token("two")
    bench.car_lane = held = HeldLane()
    _, first = begun(bench.device.clear_dtcs(tokens[0], details=by("one")))
    assert bench.clear(tokens[1], "two") == {"outcome": "refused", "reason": "clearing_already"}
    while held.queue:
        held.release()
    assert first == [{"outcome": "cleared"}]
    assert bench.car.cleared == 1
    bench.car_lane = InlineLane()
    assert bench.clear(bench.token("two"), "two") == {"outcome": "cleared"}


def test_a_car_that_does_not_tell_its_codes_is_not_cleared(bench: Bench) -> None:
    bench.car.away = "bus_error"
    assert bench.clear(bench.token()) == {"outcome": "refused", "reason": "codes_unreadable"}
    assert bench.car.cleared == 0


@pytest.mark.parametrize(
    ("clearing", "answer"),
    [
        ("refused", {"outcome": "refused", "reason": "car_refused"}),
        ("unknown", {"outcome": "unknown"}),
    ],
)
def test_what_the_car_did_not_confirm_is_told_as_it_is_and_never_sent_again(
    bench: Bench, clearing: Literal["refused", "unknown"], answer: object
) -> None:
    bench.car.clearing = clearing
    assert bench.clear(bench.token()) == answer
    assert bench.car.cleared == 1
    assert bench.journal.rows[-1][3].get("outcome", clearing) == clearing


def test_the_token_of_another_car_is_good_for_nothing_and_stays_good_there(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    two = Bench(tmp_path / "two")
    token = two.token()
    bench.token()
    assert bench.clear(token) == {"outcome": "refused", "reason": "token_unknown"}
    assert bench.car.cleared == 0
    assert two.clear(token) == {"outcome": "cleared"}


@pytest.mark.parametrize(("key", "reason"), [("speed", "vehicle_moving"), ("rpm", "engine_running")])
def test_a_car_that_starts_between_the_first_look_and_the_command_is_sent_nothing(
    bench: Bench, key: str, reason: str
) -> None:
    """It stood when the token was given, and when its codes were saved."""
    token = bench.token()
    read = bench.car.read_dtcs

    def read_and_start(deadline_ms: int) -> Any:  # noqa: ANN401 - a report
        report = read(deadline_ms)
        bench.car.values[key] = 1
        return report

    bench.car.read_dtcs = read_and_start  # type: ignore[method-assign]
    assert bench.clear(token) == {"outcome": "refused", "reason": reason}
    assert bench.car.cleared == 0


def test_a_car_that_was_measured_too_long_before_the_command_is_sent_nothing(bench: Bench) -> None:
    """Its speed came at once, its engine speed after two seconds: it may be driving off."""
    measure = bench.car.measure_now

    def measure_slowly(keys: tuple[str, ...], deadline_ms: int) -> Any:  # noqa: ANN401 - a sample
        sample = measure(keys, deadline_ms)
        bench.clock.advance(2)
        return sample

    bench.car.measure_now = measure_slowly  # type: ignore[method-assign]
    assert bench.clear(bench.token()) == {"outcome": "refused", "reason": "measured_too_slowly"}
    assert bench.car.cleared == 0


def test_what_is_read_for_the_recording_is_no_look_at_the_car(bench: Bench) -> None:
    """It may be as old as its tier allows."""
    standing = bench.car.sample(0)
    bench.car.sample = lambda _deadline_ms: standing  # type: ignore[assignment, method-assign]
    bench.car.values["rpm"] = 800.0
    assert bench.clear(bench.token()) == {"outcome": "refused", "reason": "engine_running"}


def test_nothing_else_is_asked_of_the_car_between_the_look_and_the_command(bench: Bench) -> None:
    asked: list[str] = []

    class Watched(InlineLane):
        async def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any call
            answer = await super().run(function, *args, **kwargs)
            asked.append("another call may come")
            return answer

    measure, clear = bench.car.measure_now, bench.car.clear_dtcs
    bench.car.measure_now = lambda *a: (asked.append("look"), measure(*a))[1]  # type: ignore[method-assign, func-returns-value]
    bench.car.clear_dtcs = lambda *a: (asked.append("command"), clear(*a))[1]  # type: ignore[method-assign, func-returns-value]
    bench.car_lane = Watched()
    assert bench.clear(bench.token()) == {"outcome": "cleared"}
    assert asked[asked.index("look") + 1] == "command"


@pytest.mark.parametrize("gone_after", [0, 1, 2, 3, 4])
def test_a_caller_who_is_gone_leaves_no_step_of_the_clearing_off_the_record(bench: Bench, gone_after: int) -> None:
    """The router tells of it by cancelling, at any moment; what is under way goes on to its end, and once."""
    token = bench.token()
    bench.car_lane = held = HeldLane()
    calling, found = begun(bench.device.clear_dtcs(token, details=by("tech")))
    for _ in range(gone_after):
        if held.queue:
            held.release()
    calling.cancel()
    while held.queue:
        held.release()
    assert bench.car.cleared == 1
    assert bench.steps == ["prepare_clear", "dtcs", "clear_begun", "clear_outcome", "dtcs"]
    assert len(found) == 1
    bench.car_lane = InlineLane()
    assert bench.clear(token) == {"outcome": "refused", "reason": "token_unknown"}
    assert bench.clear(bench.token()) == {"outcome": "cleared"}


def test_operators_hear_of_every_step_by_the_devices_topic(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(WampLink, "tell", lambda _, name, what: told.append((name, dict(what))))
    bench.clear(bench.token())
    bench.clear("nonsense")
    clears = [what for name, what in told if name == "clear"]
    assert [what["step"] for what in clears] == ["prepare_clear", "clear_begun", "clear_outcome", "clear_refused"]
    assert {what["by"] for what in clears} == {"tech"}
    assert not [what for what in clears if "token" in what]


def test_when_nothing_can_be_recorded_nothing_is_sent(bench: Bench) -> None:
    token = bench.token()
    bench.journal.full = OSError("full")
    assert bench.clear(token) == {"outcome": "refused", "reason": "not_recorded"}
    with pytest.raises(ApplicationError, match="not_recorded"):
        bench.token()
    assert bench.car.cleared == 0


def test_an_outcome_that_cannot_be_recorded_is_told_all_the_same(bench: Bench) -> None:
    token = bench.token()
    clear = bench.car.clear_dtcs

    def clear_and_fill(deadline_ms: int) -> Any:  # noqa: ANN401 - one of three words
        bench.journal.full = OSError("full")
        return clear(deadline_ms)

    bench.car.clear_dtcs = clear_and_fill  # type: ignore[method-assign]
    assert bench.clear(token) == {"outcome": "cleared"}


def test_codes_are_told_as_last_asked_or_asked_now(bench: Bench) -> None:
    told = cast("Any", result(bench.device.dtcs(details=by("viewer"))))
    assert (told["at"], told["dtcs"]) == (None, [])
    told = cast("Any", result(bench.device.dtcs(refresh=True, details=by("viewer"))))
    assert [one["code"] for one in told["dtcs"]] == ["P0420"]
    assert told["at"] == "2026-05-17T06:40:00.000Z"
    bench.car.away = "no_data"
    with pytest.raises(ApplicationError, match="car_away"):
        result(bench.device.dtcs(refresh=True, details=by("viewer")))
    with pytest.raises(ApplicationError, match="invalid_argument"):
        result(bench.device.dtcs(cast("Any", "yes"), details=by("viewer")))


def test_status_tells_of_a_card_that_takes_no_readings(bench: Bench) -> None:
    bench.journal.full = OSError("disk full")
    ensureDeferred(bench.recorder.run())
    told = cast("Any", result(bench.device.status(details=by("viewer"))))
    assert (told["recorder"]["readings"], told["recorder"]["lost"], told["recorder"]["trouble"]) == (0, 1, "disk full")
    bench.journal.full = None
    bench.clock.advance(1)
    told = cast("Any", result(bench.device.status(details=by("viewer"))))
    assert (told["recorder"]["readings"], told["recorder"]["lost"], told["recorder"]["trouble"]) == (1, 1, "")


def test_a_sleeping_car_says_so_and_since_when_and_answers_operators_without_being_woken(bench: Bench) -> None:
    told = cast("Any", result(bench.device.status(details=by("viewer"))))
    assert told["power"] == {"state": "awake", "voltage_v": None, "since": "2026-05-17T06:40:00.000Z"}
    values, bench.car.values = bench.car.values, {}
    bench.car.voltage_v = 12.3
    ensureDeferred(bench.recorder.run())
    for _ in range(40):
        bench.clock.advance(1)
    told = cast("Any", result(bench.device.status(details=by("viewer"))))
    assert told["power"] == {"state": "asleep", "voltage_v": 12.3, "since": "2026-05-17T06:40:20.000Z"}
    assert cast("Any", result(bench.device.query(details=by("viewer"))))["why"]["rpm"] == "asleep"
    bench.car.values = values
    assert cast("Any", result(bench.device.dtcs(refresh=True, details=by("viewer"))))["dtcs"]
    assert bench.clear(bench.token()) == {"outcome": "cleared"}
    for _ in range(40):
        bench.clock.advance(1)
    assert bench.recorder.power.state == "asleep"


def test_before_the_first_reading_there_is_nothing_to_query(bench: Bench) -> None:
    with pytest.raises(ApplicationError, match="no_reading"):
        result(bench.device.query(details=by("viewer")))
    ensureDeferred(bench.recorder.run())
    told = cast("Any", result(bench.device.query(details=by("viewer"))))
    assert (told["rpm"], told["at"]) == (0.0, "2026-05-17T06:40:00.000Z")
