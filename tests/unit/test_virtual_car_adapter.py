"""The running car as its clients meet it: python-OBD and pyserial on both plugs, AT commands on the modem."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import obd
import pytest
import serial

from components.virtual_car.car import Options, VirtualCar
from components.virtual_car.codes import CodeMemory
from tests.waiting import PATIENCE_S

RECORDED = {
    "minute": "2017-05-26T00:36:00Z",
    "readings": [{"time": "2017-05-26T00:36:00.000Z", "rpm": 1266, "speed": 49, "temp": 90.6, "maf": 17.36}],
}


@pytest.fixture
def car() -> Iterator[VirtualCar]:
    with VirtualCar(Options(parked=True, latency_s=0.002)) as running:
        yield running


def line_to(port: str) -> serial.SerialBase:
    return serial.serial_for_url(port, timeout=PATIENCE_S)


def say(line: serial.SerialBase, text: str) -> str:
    line.write(text.encode() + b"\r")
    answer = line.read_until(b">")
    assert answer.endswith(b">"), answer
    return answer.decode()


def quiet(line: serial.SerialBase) -> None:
    for command in ("ATE0", "ATSP6", "ATS0"):
        say(line, command)


def test_python_obd_takes_it_for_a_car(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It waits seconds between its commands, whoever answers; its protocol does not need them.
    monkeypatch.setattr("obd.elm327.time", SimpleNamespace(sleep=lambda _seconds: None))
    path = tmp_path / "minute.json"
    path.write_text(json.dumps(RECORDED))
    driving, parked, replaying = Options(seed=5), Options(parked=True), Options(replay=path)
    with VirtualCar(driving) as first, VirtualCar(parked) as second, VirtualCar(replaying) as third:
        with ThreadPoolExecutor(3) as pool:
            ports = (first.obd, second.obd_tcp, third.obd)
            connections = list(pool.map(lambda port: obd.OBD(port, fast=False), ports))
        try:
            assert [connection.status() for connection in connections] == [obd.OBDStatus.CAR_CONNECTED] * 3
            assert {connection.protocol_id() for connection in connections} == {"6"}
            moving, standing, recorded = (
                {name: connection.query(obd.commands[name]).value for name in ("RPM", "SPEED", "GET_DTC", "VIN")}
                for connection in connections
            )
            assert moving["RPM"].magnitude > 700
            assert moving["GET_DTC"] == []
            assert connections[0].query(obd.commands.GET_CURRENT_DTC).value[0][0] == "P0171"
            assert standing["RPM"].magnitude == 0
            assert [code for code, _ in standing["GET_DTC"]] == ["P0420"]
            assert connections[1].query(obd.commands.STATUS).value.MIL
            assert recorded["RPM"].magnitude == 1266
            assert recorded["SPEED"].magnitude == 49
            assert not connections[2].supports(obd.commands.STATUS)
            # python-OBD takes the digits 0, 1 and 2 at either end of a VIN for padding.
            assert moving["VIN"].decode() == first.identity.vin.strip("012")
        finally:
            for connection in connections:
                connection.close()


@pytest.mark.parametrize("port", ["obd", "obd_tcp"])
def test_terminal_and_tcp_speak_the_same(car: VirtualCar, port: str) -> None:
    with line_to(getattr(car, port)) as line:
        assert say(line, "ATRV") == "ATRV\r12.4V\r\r>"
        quiet(line)
        assert say(line, "03") == "43010420\r4300\r\r>"
        say(line, "ATSH7E0")
        assert say(line, "010C1") == "410C0000\r\r>"
        assert say(line, "09023").startswith("014\r0:490201")


def test_a_code_that_is_cleared_on_one_plug_is_gone_on_the_other(car: VirtualCar) -> None:
    with line_to(car.obd) as one, line_to(car.obd_tcp) as other:
        quiet(one)
        quiet(other)
        assert say(other, "010C") == "410C0000\r\r>"
        assert say(one, "042") == "44\r44\r\r>"
        assert say(other, "032") == "4300\r4300\r\r>"


def test_a_client_that_comes_back_finds_the_chip_as_it_left_it(car: VirtualCar) -> None:
    for port in (car.obd, car.obd_tcp):
        with line_to(port) as line:
            say(line, "ATE0")
        with line_to(port) as line:
            assert say(line, "ATI") == "ELM327 v2.1\r\r>"


def test_a_character_stops_a_running_request() -> None:
    with VirtualCar(Options(latency_s=30)) as car, line_to(car.obd) as line:
        quiet(line)
        line.write(b"010C\r")
        line.write(b"x")
        assert line.read_until(b">") == b"STOPPED\r\r>"


def test_a_client_that_hangs_up_in_the_middle_leaves_a_ready_chip() -> None:
    with VirtualCar(Options(latency_s=30)) as car:
        with line_to(car.obd_tcp) as line:
            quiet(line)
            line.write(b"010C\r")
        with line_to(car.obd_tcp) as line:
            assert say(line, "ATI") == "ELM327 v2.1\r\r>"


def test_a_slow_line_and_a_slow_bus_take_their_time() -> None:
    with VirtualCar(Options(parked=True, latency_s=0.030, baud=9600)) as car, line_to(car.obd) as line:
        quiet(line)
        began = time.monotonic()
        answer = say(line, "010C1")
        took_s = time.monotonic() - began
        assert took_s >= 0.030 + (len("010C1\r") + len(answer)) * 10 / 9600


def test_what_the_car_has_and_remembers_can_be_chosen() -> None:
    options = Options(supported=frozenset({"rpm"}), codes=CodeMemory(stored=("P0300",)), model="v1.5")
    with VirtualCar(options) as car, line_to(car.obd) as line:
        assert "ELM327 v1.5" in say(line, "ATI")
        quiet(line)
        say(line, "ATSH7E0")
        assert say(line, "01001") == "410000100000\r\r>"
        assert say(line, "031") == "43010300\r\r>"


def test_a_port_that_is_taken_leaves_nothing_running(car: VirtualCar) -> None:
    port = int(car.gpsd.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        VirtualCar(Options(gpsd_port=port))


def test_the_modem_knows_who_it_is(car: VirtualCar) -> None:
    with serial.Serial(car.modem, timeout=PATIENCE_S) as modem:

        def command(text: str) -> str:
            modem.write(text.encode() + b"\r")
            answer = b""
            while not answer.endswith((b"OK\r\n", b"ERROR\r\n")):
                piece = modem.read(1)
                assert piece, answer
                answer += piece
            return answer.decode()

        assert command("AT") == "AT\r\r\nOK\r\n"
        assert command("ATE0") == "ATE0\r\r\nOK\r\n"
        iccid, imei = car.identity.iccid, car.identity.imei
        assert command("AT+CGSN") == f"\r\n{imei}\r\n\r\nOK\r\n"
        assert command("at+ccid") == f"\r\n+CCID: {iccid}\r\n\r\nOK\r\n"
        assert command("AT+ICCID") == f"\r\n+ICCID: {iccid}\r\n\r\nOK\r\n"
        assert command("AT^ICCID?") == f"\r\n^ICCID: {iccid}\r\n\r\nOK\r\n"
        assert command("AT+CPIN?") == "\r\n+CPIN: READY\r\n\r\nOK\r\n"
        assert command("ATI").endswith("modem\r\n\r\nOK\r\n")
        assert command("AT+COPS=?") == "\r\nERROR\r\n"
        assert command("HELLO") == "\r\nERROR\r\n"
        assert command("ATE1") == "\r\nOK\r\n"
