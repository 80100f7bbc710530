"""Everything that an adapter or a car may answer instead of the truth, given to ObdCar: the value, or the one reason.

Each case lasts four passes and is then over. In each pass no deadline is missed and no value is one that the car did
not say; what was rejected is counted by its reason, the adapter's words are in the log once, and the car is read again
soon afterwards.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from twisted.logger import ILogObserver, globalLogPublisher

from components.edge.obd_car import ObdCar
from components.edge.ports import CarAwayError, Sample
from components.wire.signals import REASONS
from tests.simulated import BusMessages, SimulatedAdapter, Time, untrue
from tests.zoo import ENDLESS, HARMLESS, ON_BUS, SPOILT, TROUBLES, WORDS

RESETS = {"ERR94", "ERR71", "LV RESET", "ACT ALERT", "!ACT ALERT", "LP ALERT", "!LP ALERT", "ELM327 v1.5"}
THE_VALUE = ""
MAPS = ("0100", "0120", "0140", "0160")


def behind_the_data(words: str) -> str:
    """What a whole line is worth before these words: words of a reset end the connection, a mark spoils the line."""
    return "adapter_error" if words in RESETS else "bus_error" if words.startswith("<") else THE_VALUE


ANSWERS = {
    **{f"only {words!r}": reason for words, reason in WORDS.items()},
    **{f"{words!r} behind the data": behind_the_data(words) for words in WORDS},
    **dict.fromkeys(HARMLESS, THE_VALUE),
    "nothing": "timeout",
    "a prompt only": "timeout",
    "half a line": "timeout",
    "half a line and a prompt": "truncated",
    "an odd number of digits": "truncated",
    "a byte short": "truncated",
    "a byte of another line": "truncated",
    "no headers": "truncated",
    "bytes above 7F": "adapter_error",
    "a marked line": "bus_error",
    "a line marked behind a space": "bus_error",
    "marked on the next line": "bus_error",
    "a reset in the middle": "adapter_error",
    "STOPPED in the middle": "adapter_error",
    "an unknown sender": "no_data",
    "a tester's header": "no_data",
    "another unit": "no_data",
    "a 29-bit header": "truncated",
    "no first line": "timeout",
    "no last line": "timeout",
    "each line twice": THE_VALUE,
    "all of it twice": THE_VALUE,
    "backwards": THE_VALUE,
    "the prompt in the middle": THE_VALUE,
    ENDLESS: "timeout",
    "garbage around it": THE_VALUE,
}
"""What engine speed is while it is asked alone and each answer is so spoilt."""

BUS = {
    "it is refused": "negative_response",
    "it is pending": "negative_response",
    "it is pending, then answered": THE_VALUE,
    "another item": "timeout",
    "another mode": "timeout",
    "a length too short": "truncated",
    "a length too long": "truncated",
    "another unit answers": "no_data",
    "a stranger answers": "no_data",
    "only the gearbox answers": "no_data",
    "nobody answers": "no_data",
}


class Bench:
    """A car at a simulated adapter; every pass is held to what always holds."""

    def __init__(self, keys: frozenset[str] | None) -> None:
        self.time = Time()
        self.adapter = SimulatedAdapter(self.time, supported=keys)
        self.car = ObdCar("/dev/ttyUSB0", clock=self.time, open_line=self.adapter.open)
        self.words: list[str] = []

    def sample(self) -> Sample:
        deadline_ms = self.time() + 800
        sample = self.car.sample(deadline_ms)
        assert self.time() <= deadline_ms
        assert untrue(self.adapter, sample.values, sample.measured_ms) == {}
        assert set(sample.why.values()) <= {*REASONS}
        self.time.at_ms = deadline_ms + 200
        return sample

    def rejected(self) -> Counter[str]:
        return Counter(self.car.state().rejected)

    def spoil(self, change: Callable[[bytes], bytes]) -> None:
        self.adapter.instead = lambda command, answer: (
            change(answer) if command.startswith("01") and not command.startswith(MAPS) else answer
        )

    def spoil_bus(self, change: Callable[[bytes, BusMessages], BusMessages]) -> None:
        self.adapter.on_bus = lambda request, messages: (
            messages if request.hex().startswith(MAPS) else change(request, messages)
        )

    def heal(self) -> None:
        self.adapter.instead = self.adapter.on_bus = None


@pytest.fixture(params=["alone", "all"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(frozenset({"rpm"}) if request.param == "alone" else None)

    def observe(event: dict[str, Any]) -> None:
        bench.words += [event["words"]] if "words" in event else []

    globalLogPublisher.addObserver(cast("ILogObserver", observe))
    for _ in range(3):
        assert "rpm" in bench.sample().values
    yield bench
    globalLogPublisher.removeObserver(cast("ILogObserver", observe))


def hold(bench: Bench, expected: str) -> None:
    is_alone = len(bench.car.state().supported) == 1
    whole = len(bench.car.state().supported)
    before, began_ms = bench.rejected(), bench.time()
    passes = [bench.sample() for _ in range(4)]
    seen = {sample.why["rpm"] for sample in passes if "rpm" in sample.why}
    fresh = [sample.measured_ms["rpm"] >= began_ms for sample in passes if "rpm" in sample.values]
    if is_alone:
        # After a reset the car is met again, and there may be no time left to ask.
        allowed = {expected, "timeout"} if expected == "adapter_error" else {expected}
        assert seen <= allowed
        assert any(fresh) == (expected == THE_VALUE)
        if expected != THE_VALUE:
            assert passes[-1].why["rpm"] in allowed
            assert (bench.rejected() - before).keys() <= {expected}
    assert max(Counter(bench.words).values(), default=0) <= 1
    bench.heal()
    healed_ms = bench.time()
    for _ in range(8):
        sample = bench.sample()
        if len(sample.values) == whole and sample.measured_ms["rpm"] >= healed_ms:
            return
    raise AssertionError(sample.why)


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_spoilt_on_its_way(bench: Bench, name: str) -> None:
    bench.spoil(SPOILT[name])
    hold(bench, ANSWERS[name])


@pytest.mark.parametrize("name", BUS)
def test_what_the_units_answer_instead(bench: Bench, name: str) -> None:
    bench.spoil_bus(ON_BUS[name])
    hold(bench, BUS[name])


@pytest.mark.parametrize("words", WORDS)
def test_the_adapter_s_words_are_in_the_log_once_and_what_they_cost_is_counted(bench: Bench, words: str) -> None:
    bench.spoil(SPOILT[f"only {words!r}"])
    before = bench.rejected()
    for _ in range(10):
        bench.sample()
    said = words.removeprefix("SEARCHING...\r")
    assert bench.words.count(said) == 1
    assert (bench.rejected() - before)[WORDS[words]] >= 1


def test_every_case_is_in_the_tables() -> None:
    assert ANSWERS.keys() == SPOILT.keys()
    assert BUS.keys() == ON_BUS.keys()


@pytest.mark.parametrize("name", sorted(SPOILT))
def test_codes_are_whole_or_not_there_however_their_answers_are_spoilt(name: str) -> None:
    bench = Bench(None)
    bench.sample()
    true = bench.car.read_dtcs(bench.time() + 5_000)
    assert len(true.codes) == 6
    for mode in ("03", "07", "0A", "02"):
        bench.adapter.instead = lambda command, answer, mode=mode: (
            SPOILT[name](answer) if command.startswith(mode) else answer
        )
        deadline_ms = bench.time() + 3_000
        try:
            report = bench.car.read_dtcs(deadline_ms)
        except CarAwayError:
            pass
        else:
            assert report.codes == true.codes
            assert dict(report.freeze_frame).items() <= dict(true.freeze_frame).items()
        assert bench.time() <= deadline_ms
        bench.adapter.instead = None
        for _ in range(7):
            bench.sample()
    assert bench.car.read_dtcs(bench.time() + 5_000).codes == true.codes


@pytest.mark.parametrize("name", sorted(SPOILT))
def test_clearing_is_sent_once_and_never_said_to_be_done_when_it_was_not(name: str) -> None:
    bench = Bench(None)
    bench.sample()
    bench.adapter.instead = lambda _, answer: SPOILT[name](answer)
    outcome = bench.car.clear_dtcs(bench.time() + 2_000)
    # The engine runs, and so the unit refuses.
    assert outcome in {"refused", "unknown"}
    assert list(bench.adapter.heard).count("04") == 1
    assert "" not in bench.adapter.heard


def test_every_trouble_has_an_end() -> None:
    assert len(TROUBLES) > 150
