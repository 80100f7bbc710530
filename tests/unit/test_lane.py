"""A lane, with a reactor that is a queue: the test decides when an answer arrives."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Never, TypeVar

import pytest
from twisted.internet.defer import CancelledError, Deferred

from components.lane import Lane
from components.wire.errors import UnavailableError

T = TypeVar("T")


class Answers:
    """As much of a reactor as a lane needs."""

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[], object]] = queue.Queue()

    def callFromThread(self, function: Callable[..., object], *args: object) -> None:  # noqa: N802 (Twisted's name)
        self._calls.put(lambda: function(*args))

    def deliver_one(self) -> None:
        self._calls.get(timeout=10)()

    def result_of(self, answer: Deferred[T]) -> T:
        """Run the reactor until the answer is there, and return it or raise what it is."""
        results: list[Any] = []
        answer.addBoth(results.append)
        while not results:
            self.deliver_one()
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        result: T = results[0]
        return result


@pytest.fixture
def reactor() -> Answers:
    return Answers()


@pytest.fixture
def lane(reactor: Answers) -> Iterator[Lane]:
    lane = Lane(reactor, "test")  # type: ignore[arg-type]  # zope's interfaces are no types without a plug-in
    lane.start()
    yield lane
    lane.stop()


def begin(lane: Lane, function: Callable[..., T], *args: object, **kwargs: object) -> Deferred[T]:
    return Deferred.fromCoroutine(lane.run(function, *args, **kwargs))


def test_a_call_runs_in_a_thread_of_the_lane_and_its_answer_comes_through_the_reactor(
    lane: Lane, reactor: Answers
) -> None:
    answer = begin(lane, lambda a, b: (threading.current_thread().name, a, b), 1, b=2)
    assert not answer.called
    name, *values = reactor.result_of(answer)
    assert "test" in name
    assert values == [1, 2]


def test_what_the_function_raises_is_raised_to_who_awaits(lane: Lane, reactor: Answers) -> None:
    def fail() -> Never:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        reactor.result_of(begin(lane, fail))
    assert reactor.result_of(begin(lane, lambda: "goes on")) == "goes on"


def test_a_lane_of_width_one_runs_one_call_at_a_time_in_order(lane: Lane, reactor: Answers) -> None:
    order: list[str] = []
    gate = threading.Event()

    def first() -> None:
        assert gate.wait(10)
        order.append("first")

    answers = [begin(lane, first), begin(lane, order.append, "second"), begin(lane, order.append, "third")]
    assert order == []
    gate.set()
    for answer in answers:
        reactor.result_of(answer)
    assert order == ["first", "second", "third"]


def test_a_lane_of_width_two_runs_two_calls_at_once_and_not_three(reactor: Answers) -> None:
    lane = Lane(reactor, "wide", width=2)  # type: ignore[arg-type]
    lane.start()
    meeting = threading.Barrier(2)
    inside, most, guard = 0, 0, threading.Lock()

    def meet() -> None:
        nonlocal inside, most
        with guard:
            inside += 1
            most = max(most, inside)
        meeting.wait(10)
        with guard:
            inside -= 1

    for answer in [begin(lane, meet) for _ in range(6)]:
        reactor.result_of(answer)
    lane.stop()
    assert most == 2


def test_closing_refuses_new_calls_and_returns_when_those_that_were_taken_are_answered(
    lane: Lane, reactor: Answers
) -> None:
    gate = threading.Event()
    first, second = begin(lane, gate.wait, 10), begin(lane, lambda: "queued")
    closing = Deferred.fromCoroutine(lane.close())
    with pytest.raises(UnavailableError, match="the lane test does not run"):
        reactor.result_of(begin(lane, lambda: "late"))
    assert closing.called is False
    gate.set()
    assert (reactor.result_of(first), reactor.result_of(second)) == (True, "queued")
    reactor.result_of(closing)
    assert not [thread for thread in threading.enumerate() if "-test-" in thread.name]
    reactor.result_of(Deferred.fromCoroutine(lane.close()))


def test_stopping_blocks_until_what_was_taken_has_run(lane: Lane) -> None:
    done: list[int] = []
    begin(lane, done.append, 1)
    begin(lane, done.append, 2)
    lane.stop()
    assert done == [1, 2]
    lane.stop()
    with pytest.raises(UnavailableError, match="is stopped"):
        lane.start()


def test_to_cancel_ends_the_waiting_and_not_the_call(lane: Lane, reactor: Answers) -> None:
    gate, done = threading.Event(), threading.Event()

    def call() -> None:
        assert gate.wait(10)
        done.set()

    answer = begin(lane, call)
    answer.cancel()
    with pytest.raises(CancelledError):
        reactor.result_of(answer)
    gate.set()
    assert reactor.result_of(begin(lane, done.is_set))


def test_a_lane_that_was_not_started_calls_nothing(reactor: Answers) -> None:
    lane = Lane(reactor, "new")  # type: ignore[arg-type]
    with pytest.raises(UnavailableError):
        reactor.result_of(begin(lane, lambda: 1))
