"""ports.Car: one suite over the fake, and over ObdCar on the virtual car's terminal and on its TCP port."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import cast

import pytest

from components.edge.obd_car import ObdCar
from components.edge.ports import Car, CarAwayError, Dtc, Sample
from components.edge.system_clock import elapsed_ms
from components.virtual_car.car import Options, VirtualCar
from components.virtual_car.codes import CodeMemory
from components.wire.signals import BY_KEY, OBD_SIGNALS, REASONS
from tests.fakes import FakeCar
from tests.waiting import until

KEYS = {signal.key for signal in OBD_SIGNALS}
CODES = CodeMemory(stored=("P0420", "P0301", "U0100", "C0035"), pending=("P0171",), permanent=("P0420",))
HAS = frozenset(KEYS - {"maf", "abs_load", "o212", "obd_standard"})
AMPLE_MS = 30_000
"""For what ends when its answer is there."""


@dataclass
class Kind:
    """A kind of car: a way to make one that is there, parked, with CODES and all of HAS; how to take it away."""

    car: Car
    leave: Callable[[], None]


def on_virtual_car(port: str) -> Iterator[Kind]:
    options = Options(parked=True, codes=CODES, supported=HAS, latency_s=0.004)
    with VirtualCar(options) as running:

        def leave() -> None:
            running.order({"fault": "silent"})

        car = ObdCar(getattr(running, port), clock=elapsed_ms)
        yield Kind(car, leave)
        car.close()


def fake() -> Iterator[Kind]:
    car = FakeCar(elapsed_ms, {"rpm": 0.0, "speed": 0, "temp": 20})
    stored = tuple(Dtc(code, "stored", "7E8") for code in CODES.stored)
    car.codes = (*stored, Dtc("P0171", "pending", "7E8"), Dtc("P0420", "permanent", "7E8"))

    def leave() -> None:
        car.away = "timeout"

    yield Kind(car, leave)


@pytest.fixture(params=["fake", "obd", "obd_tcp"])
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    yield from fake() if request.param == "fake" else on_virtual_car(request.param)


def connected(car: Car) -> Sample:
    def found() -> Sample | None:
        sample = car.sample(elapsed_ms() + 1_000)
        return sample if {"rpm", "speed"} <= sample.values.keys() else None

    return cast("Sample", until(found, "a car that is met and read"))


def test_a_sample_has_a_value_with_its_time_or_a_reason_for_every_signal(kind: Kind) -> None:
    began_ms = elapsed_ms()
    sample = connected(kind.car)
    assert sample.values.keys() | sample.why.keys() == KEYS
    assert not sample.values.keys() & sample.why.keys()
    assert sample.values.keys() == sample.measured_ms.keys()
    assert set(sample.why.values()) <= set(REASONS)
    assert sample.values["rpm"] == 0
    assert sample.why["maf"] == "unsupported"
    assert all(began_ms <= at_ms <= elapsed_ms() for at_ms in sample.measured_ms.values())


def test_every_value_is_one_that_the_codec_can_carry(kind: Kind) -> None:
    for key, value in connected(kind.car).values.items():
        codec = BY_KEY[key].codec
        assert codec is not None
        assert codec.decode(codec.encode(value)) == value


def test_the_state_names_what_is_connected(kind: Kind) -> None:
    connected(kind.car)
    state = kind.car.state()
    assert (state.connected, state.trouble) == (True, "")
    assert state.vin is not None
    assert len(state.vin) == 17
    assert "rpm" in state.supported
    assert "maf" not in state.supported


def test_codes_are_whole_and_sorted(kind: Kind) -> None:
    connected(kind.car)
    report = kind.car.read_dtcs(elapsed_ms() + AMPLE_MS)
    assert list(report.codes) == sorted(report.codes)
    assert {(code.code, code.status) for code in report.codes} == {
        *((code, "stored") for code in CODES.stored),
        ("P0171", "pending"),
        ("P0420", "permanent"),
    }
    assert {code.ecu for code in report.codes} == {"7E8"}


def test_now_is_now_and_only_what_was_asked(kind: Kind) -> None:
    connected(kind.car)
    began_ms = elapsed_ms()
    sample = kind.car.measure_now(("rpm", "speed", "maf"), began_ms + AMPLE_MS)
    assert sample.values == {"rpm": 0, "speed": 0}
    assert sample.why == {"maf": "unsupported"}
    assert min(sample.measured_ms.values()) >= began_ms


def test_clearing_clears_what_can_be_cleared(kind: Kind) -> None:
    connected(kind.car)
    assert kind.car.clear_dtcs(elapsed_ms() + AMPLE_MS) == "cleared"
    left = kind.car.read_dtcs(elapsed_ms() + AMPLE_MS).codes
    assert {code.status for code in left} <= {"permanent"}


def test_a_car_that_is_gone_has_reasons_within_the_deadline_and_concludes_nothing(kind: Kind) -> None:
    connected(kind.car)
    kind.leave()
    gone_ms = elapsed_ms()
    while (sample := kind.car.sample(elapsed_ms() + 300)).values:
        assert elapsed_ms() < gone_ms + 2 * AMPLE_MS
    assert sample.why.keys() == KEYS
    with pytest.raises(CarAwayError):
        kind.car.read_dtcs(elapsed_ms() + 300)
    assert kind.car.clear_dtcs(elapsed_ms() + 300) == "unknown"
    assert kind.car.measure_now(("rpm",), elapsed_ms() + 300).values == {}
    assert not kind.car.state().connected


def test_after_close_the_next_sample_connects_again(kind: Kind) -> None:
    connected(kind.car)
    kind.car.close()
    assert connected(kind.car).values["rpm"] == 0


def test_at_rest_every_signal_is_asleep_and_the_voltage_is_fresh(kind: Kind) -> None:
    connected(kind.car)
    for _ in range(2):
        began_ms = elapsed_ms()
        sample = kind.car.rest(began_ms + AMPLE_MS)
        assert sample.why == dict.fromkeys(KEYS, "asleep")
        assert (sample.values, sample.measured_ms) == ({}, {})
        state = kind.car.state()
        assert state.voltage_v is not None
        assert 9 < state.voltage_v < 16
        assert began_ms <= (state.voltage_ms or 0) <= elapsed_ms()
        assert not state.connected


def test_a_car_is_left_in_peace_that_was_never_met_and_met_after_that(kind: Kind) -> None:
    assert kind.car.rest(elapsed_ms() + AMPLE_MS).why == dict.fromkeys(KEYS, "asleep")
    assert kind.car.state().voltage_v is not None
    assert connected(kind.car).values["rpm"] == 0
    assert kind.car.state().connected


def test_the_state_can_travel(kind: Kind) -> None:
    connected(kind.car)
    assert json.loads(json.dumps(asdict(kind.car.state())))["connected"] is True
