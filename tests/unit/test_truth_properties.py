"""Whatever becomes of the adapter's text on its way: no exception, no late return, no value that the car did not say.

What is claimed, and what is not. Each answer may be lost, cut anywhere, come late, lose digits inside a line, have
other bytes put in anywhere, its lines lost, doubled, joined or in any order, the zoo's words among them. Hexadecimal
digits put into a line, or changed, are left out: CAN's checksum ends in the adapter, and behind it nobody can tell
another well-formed line from the truth. (The older buses show theirs: tests/unit/test_obd_parser.py.)
"""

import contextlib
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from components.edge.obd_car import ObdCar
from components.edge.ports import CarAwayError
from components.wire.signals import REASONS
from tests.simulated import SimulatedAdapter, Time, untrue
from tests.zoo import SPOILT

Mood = Callable[[bytes], bytes]
NO_DIGITS = bytes(sorted(set(range(256)) - set(b"0123456789ABCDEFabcdef \0")))
"""A space or a NUL between two digits is none of a line's business."""


def cut(place: int) -> Mood:
    return lambda answer: answer[: place % (len(answer) + 1)]


def put_in(place: int, what: bytes) -> Mood:
    return lambda answer: answer[: place % (len(answer) + 1)] + what + answer[place % (len(answer) + 1) :]


def lose_digits(line: int, place: int, count: int) -> Mood:
    def change(answer: bytes) -> bytes:
        lines = answer.split(b"\r")
        lost = lines[line % len(lines)]
        at = place % (len(lost) + 1)
        lines[line % len(lines)] = lost[:at] + lost[at + count :] if lost[:1] != b">" else lost
        return b"\r".join(lines)

    return change


def lose_line_end(place: int) -> Mood:
    def change(answer: bytes) -> bytes:
        ends = [at for at, byte in enumerate(answer) if byte == 13]
        return answer[: (at := ends[place % len(ends)])] + answer[at + 1 :] if ends else answer

    return change


def arranged(order: list[int]) -> Mood:
    """The lines that are named, in that order: some lost, some twice."""

    def change(answer: bytes) -> bytes:
        lines = [line for line in answer.removesuffix(b">").split(b"\r") if line]
        return b"".join(lines[number % len(lines)] + b"\r" for number in order if lines) + b"\r>"

    return change


numbers = st.integers(0, 200)
moods = st.one_of(
    st.just(lambda answer: answer),
    st.builds(cut, numbers),
    st.builds(put_in, numbers, st.lists(st.sampled_from(NO_DIGITS), min_size=1, max_size=12).map(bytes)),
    st.builds(put_in, numbers, st.sampled_from([b">", b"\r", b"\r\r>", b"STOPPED\r", b"\r<RX ERROR\r", b"\rELM327\r"])),
    st.builds(lose_digits, st.integers(0, 4), numbers, st.integers(1, 40)),
    st.builds(lose_line_end, numbers),
    st.builds(arranged, st.lists(st.integers(0, 5), max_size=8)),
    st.sampled_from([SPOILT[name] for name in sorted(SPOILT) if name != "another unit"]),
)
lags = st.sampled_from([0, 0, 0, 0, 30, 400, 1_500])
calls = st.sampled_from(["sample", "sample", "sample", "now", "dtcs", "clear", "rest", "short rest", "close"])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(moods, lags), min_size=1, max_size=30),
    st.lists(calls, min_size=1, max_size=12),
    st.booleans(),
)
def test_no_text_on_its_way_from_the_adapter_raises_delays_or_invents(
    plan: list[tuple[Mood, int]], asked: list[str], met: bool
) -> None:
    time = Time()
    adapter = SimulatedAdapter(time)
    car = ObdCar("/dev/ttyUSB0", clock=time, open_line=adapter.open)
    stored = adapter.codes.stored + adapter.codes.pending + adapter.codes.permanent
    if met:
        assert car.sample(time() + 3_000).values
    answers = 0

    def spoilt(_: str, answer: bytes) -> bytes:
        nonlocal answers
        mood, adapter.lag_ms = plan[answers % len(plan)]
        answers += 1
        return mood(answer)

    adapter.instead = spoilt
    for call in asked:
        deadline_ms = time() + (1_000 if call != "short rest" else 15)
        if call == "dtcs":
            with contextlib.suppress(CarAwayError):
                assert {code.code for code in car.read_dtcs(deadline_ms).codes} == {*stored}
        elif call == "clear":
            # The engine runs: its unit refuses.
            assert car.clear_dtcs(deadline_ms) in {"refused", "unknown"}
        elif call == "close":
            car.close()
        else:
            asks = {"sample": car.sample, "rest": car.rest, "short rest": car.rest}
            ask = asks.get(call, lambda ms: car.measure_now(("rpm", "speed"), ms))
            sample = ask(deadline_ms)
            gearbox_s = () if car._met._owners.get(0x0D, "7E8") == "7E8" else ("speed", "dtc_status")
            assert untrue(adapter, sample.values, sample.measured_ms, gearbox_s) == {}
            assert set(sample.why.values()) <= {*REASONS}
            assert not sample.values.keys() & sample.why.keys()
        assert time() <= deadline_ms
        time.at_ms = max(time.at_ms, deadline_ms)
    assert list(adapter.heard).count("04") <= asked.count("clear")
    assert "" not in adapter.heard
