"""Whatever bytes an adapter sends, cut anywhere: no exception, no late return, no value that the car did not say."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from components.edge.obd_car import ObdCar
from components.edge.ports import CarAwayError
from components.wire.signals import OBD_SIGNALS
from tests.fakes import FakeClock, FakeElm, whole_car

SLACK_MS = 100

words = st.sampled_from([
    b"NO DATA\r\r>", b"SEARCHING...", b"UNABLE TO CONNECT\r\r>", b"BUS INIT: ...ERROR\r\r>", b"CAN ERROR\r\r>",
    b"BUFFER FULL\r\r>", b"STOPPED\r\r>", b"<RX ERROR\r\r>", b"LV RESET\r\r>", b"ELM327 v1.5\r\r>", b"OK\r\r>",
    b"?\r\r>", b"A6\r\r>",
    b">", b">>", b"\r", b"\0", b"7E8", b"7E8037F0112\r\r>", b"7E8100F410C1AF80D", b"7E82132\r", b"486B10410C1AF8\r",
    b"18DAF11003410D", b"ERR94\r\r>", b"ACT ALERT\r\r>", b"",
])  # fmt: skip
noise = st.lists(words | st.binary(max_size=30), max_size=6).map(b"".join)


class NoisyElm(FakeElm):
    """It answers well or with noise, whole or cut, early or late, as it is told."""

    def __init__(self, clock: FakeClock, moods: list[tuple[int, bytes, int]]) -> None:
        super().__init__(clock, whole_car())
        self._moods = moods
        self._asked = 0

    def _answer(self, command: str) -> bytes:
        well = super()._answer(command)
        mood, garbage, cut = self._moods[self._asked % len(self._moods)]
        self._asked += 1
        if mood == 0:
            return garbage
        if mood == 1:
            return well[: cut % (len(well) + 1)]
        if mood == 2:
            self.send_later(cut * 50, well)
            return b""
        if mood == 3:
            at = cut % (len(well) + 1)
            return well[:at] + garbage + well[at:]
        if mood == 4:
            # One character that the serial line lost. Of two, nobody can tell whether they were data or padding.
            at = cut % (len(well) + 1)
            return well[:at] + well[at + 1 :]
        return well


moods = st.lists(st.tuples(st.integers(0, 12), noise, st.integers(0, 60)), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(moods, st.lists(st.sampled_from(["sample", "sample", "dtcs", "now", "clear"]), min_size=1, max_size=12))
def test_nothing_that_an_adapter_sends_raises_blocks_or_invents(
    moods: list[tuple[int, bytes, int]], calls: list[str]
) -> None:
    clock = FakeClock()
    elm = NoisyElm(clock, moods)
    car = ObdCar("/dev/x", clock=clock, open_line=elm.open)
    truth = {}
    for signal in OBD_SIGNALS:
        assert signal.codec is not None
        assert signal.pid is not None
        truth[signal.key] = signal.codec.decode(int.from_bytes(whole_car()[signal.pid], "big"))
    for call in calls:
        deadline_ms = clock.at_ms + 1_000
        if call == "dtcs":
            with contextlib.suppress(CarAwayError):
                car.read_dtcs(deadline_ms)
        elif call == "clear":
            assert car.clear_dtcs(deadline_ms) in {"cleared", "refused", "unknown"}
        else:
            sample = car.sample(deadline_ms) if call == "sample" else car.measure_now(("rpm", "speed"), deadline_ms)
            for key, value in sample.values.items():
                assert value == truth[key]
            assert sample.values.keys() == sample.measured_ms.keys()
            assert not sample.values.keys() & sample.why.keys()
        assert clock.at_ms <= deadline_ms + SLACK_MS
        clock.at_ms = max(clock.at_ms, deadline_ms)
    assert elm.said.count("04") <= calls.count("clear")
    assert "" not in elm.said


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.integers(1, 50))
def test_a_raw_stream_cut_anywhere_is_survived(stream: bytes, piece: int) -> None:
    clock = FakeClock()
    elm = FakeElm(clock, {})
    elm.is_silent = True
    car = ObdCar("/dev/x", clock=clock, open_line=elm.open)
    car.sample(clock.at_ms + 1)
    for number, start in enumerate(range(0, len(stream), piece)):
        elm.send_later(number * 7, stream[start : start + piece])
    for _ in range(5):
        deadline_ms = clock.at_ms + 1_000
        assert car.sample(deadline_ms).values == {}
        assert clock.at_ms <= deadline_ms + SLACK_MS
        clock.at_ms = deadline_ms
