"""`odograph car`, as a person with a laptop types it, at a virtual car."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from components.console.__main__ import run
from components.virtual_car.car import Options, VirtualCar
from components.virtual_car.codes import CodeMemory
from components.wire.signals import OBD_SIGNALS

HAS = frozenset({"rpm", "speed", "temp", "load", "dtc_status", "fuel_status"})
NO_ADAPTER_HERE = "socket://127.0.0.1:1"


@pytest.fixture(scope="module")
def car() -> Iterator[VirtualCar]:
    with VirtualCar(Options(latency_s=0.002, supported=HAS, codes=CodeMemory(stored=("P0420", "P3FFF")))) as made:
        yield made


def looked_at(port: str, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert run(["car", "--port", port, "--once", "--json", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("line", ["obd", "obd_tcp"])
def test_a_script_gets_the_car_in_one_object(car: VirtualCar, capsys: pytest.CaptureFixture[str], line: str) -> None:
    found = looked_at(getattr(car, line), capsys)
    signals = found.pop("signals")
    assert found == {
        "adapter": "ELM327 v2.1",
        "protocol": "ISO 15765-4 (CAN 11/500)",
        "voltage": 14.1,
        "vin": car.identity.vin,
        "supported": [signal.key for signal in OBD_SIGNALS if signal.key in HAS],
        "dtcs": [
            {"code": "P0420", "status": "stored", "ecu": "7E8"},
            {"code": "P3FFF", "status": "stored", "ecu": "7E8"},
        ],
    }
    assert list(signals) == [signal.key for signal in OBD_SIGNALS]
    for key, one in signals.items():
        assert list(one) == ["value", "unit", "age_ms", "reason"]
        if key in HAS:
            assert one["value"] is not None
            assert 0 <= one["age_ms"] < 10_000
            assert one["reason"] is None
        else:
            assert (one["value"], one["age_ms"], one["reason"]) == (None, None, "unsupported")
    assert signals["temp"]["unit"] == "Celsius"
    assert signals["dtc_status"]["value"]["dtc_count"] == 2


def test_a_person_sees_what_the_code_means_and_what_the_car_has(
    car: VirtualCar, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["car", "--port", car.obd, "--once"]) == 0
    shown = capsys.readouterr().out
    assert "Catalyst System Efficiency" in shown
    assert car.identity.vin in shown
    assert "rpm" in shown
    assert "eng_ref_torq" not in shown


def test_raw_shows_the_traffic_beside_the_object(car: VirtualCar, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["car", "--port", car.obd_tcp, "--once", "--json", "--raw"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["vin"] == car.identity.vin
    assert r"to   ATE0\r" in said.err
    assert "from" in said.err


@pytest.mark.parametrize("port", ["/dev/odograph-is-not-there", NO_ADAPTER_HERE])
def test_no_adapter_is_one_line_that_names_the_reason(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["car", "--port", port, "--once", "--json"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("odograph: no adapter answers: ")
    assert said.err.count("\n") == 1


def test_json_without_once_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["car", "--json"]) == 2
    assert "--json goes with --once" in capsys.readouterr().err


def test_without_a_terminal_it_is_shown_once(car: VirtualCar, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["car", "--port", car.obd_tcp]) == 0
    assert "P0420" in capsys.readouterr().out


def test_a_slow_bus_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with VirtualCar(Options(latency_s=0.06, baud=38_400, bus=3)) as slow:
        signals = looked_at(slow.obd_tcp, capsys)["signals"]
    reasons = {key: one["reason"] for key, one in signals.items() if one["reason"] is not None}
    assert reasons == {"dtc_ff": "no_data"}


def test_a_car_that_is_off_is_told_by_its_adapter(capsys: pytest.CaptureFixture[str]) -> None:
    with VirtualCar(Options(latency_s=0.002)) as parked:
        parked.order({"ignition": "off"})
        found = looked_at(parked.obd_tcp, capsys)
    assert (found["voltage"], found["protocol"], found["dtcs"]) == (12.4, None, None)
    assert {one["reason"] for one in found["signals"].values()} <= {"no_data", "bus_error"}
