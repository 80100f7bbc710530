"""Orders to a running car by its socket and by a scenario, and the adapter that is pulled out and put back."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial

from components.virtual_car.car import Options, VirtualCar
from components.virtual_car.orders import OrderError
from tests.waiting import PATIENCE_S, until

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "components.virtual_car"]


@pytest.fixture
def car() -> Iterator[VirtualCar]:
    with VirtualCar(Options(parked=True, latency_s=0.002, control_port=0)) as running:
        yield running


def say(line: serial.SerialBase, text: str) -> str:
    line.write(text.encode() + b"\r")
    return line.read_until(b"\r>").decode()


def test_the_socket_takes_a_line_of_json_and_answers_with_one(car: VirtualCar) -> None:
    assert car.control is not None
    host, _, port = car.control.partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as client, client.makefile("rw") as talk:

        def order(text: str) -> dict[str, dict[str, object]]:
            talk.write(text + "\n")
            talk.flush()
            answer: dict[str, dict[str, object]] = json.loads(talk.readline())
            return answer

        state = order('{"fault": "no_data", "voltage": 11.9}')["state"]
        assert (state["fault"], state["voltage"], state["ignition"]) == (["no_data"], 11.9, "on")
        assert (state["plugged"], state["obd"], state["obd_tcp"]) == (True, car.obd, car.obd_tcp)
        with serial.serial_for_url(car.obd_tcp, timeout=PATIENCE_S) as line:
            say(line, "ATE0")
            assert say(line, "ATRV") == "11.9V\r\r>"
            assert say(line, "010C1").endswith("NO DATA\r\r>")
        assert order("{}")["state"] == state
        assert order('{"fault": "x"}') == {"error": order('{"fault": "x"}')["error"]}
        assert str(order('{"fault": "x"}')["error"]).startswith("fault: 'x' is none")
        assert str(order("no json")["error"]).startswith("not JSON")
        assert str(order("[" * 60_000)["error"]).startswith("not JSON")
        assert order("{}")["state"] == state
        assert order('{"fault": null}')["state"]["fault"] == []


def test_two_clients_may_order_and_one_may_leave_in_the_middle(car: VirtualCar) -> None:
    assert car.control is not None
    port = int(car.control.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as one:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as other:
            other.sendall(b'{"voltage": ')
        one.sendall(b'{"voltage": 10}\n{"voltage": 11}\n')
        with one.makefile() as answers:
            assert [json.loads(answers.readline())["state"]["voltage"] for _ in range(2)] == [10, 11]


def test_a_test_orders_in_the_same_words(car: VirtualCar) -> None:
    assert car.order({"ignition": "run"})["ignition"] == "run"
    with pytest.raises(OrderError, match="ignition"):
        car.order({"ignition": "fly"})


def test_who_reads_from_an_adapter_that_is_pulled_out_meets_a_hang_up(car: VirtualCar) -> None:
    with serial.Serial(car.obd, timeout=PATIENCE_S) as line:
        assert say(line, "ATI").endswith("\r\r>")
        car.order({"plugged": False})
        with pytest.raises(serial.SerialException):
            line.read(1)
    assert not Path(car.obd).is_symlink()
    with pytest.raises(serial.SerialException):
        serial.Serial(car.obd)


def test_who_is_connected_by_tcp_is_cut_off(car: VirtualCar) -> None:
    address = ("127.0.0.1", int(car.obd_tcp.rpartition(":")[2]))
    with socket.create_connection(address, timeout=PATIENCE_S) as client:
        client.sendall(b"ATI\r")
        assert client.recv(100)
        car.order({"plugged": False})
        while client.recv(100):
            pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=PATIENCE_S)


@pytest.mark.parametrize(("name", "file"), [(True, "ttyUSB0"), ("ttyUSB7", "ttyUSB7")])
def test_an_adapter_that_is_put_back_is_freshly_powered(car: VirtualCar, name: bool | str, file: str) -> None:
    folder, tcp = Path(car.obd).parent, car.obd_tcp
    with serial.Serial(car.obd, timeout=PATIENCE_S) as line:
        say(line, "ATE0")
    car.order({"plugged": False})
    state = car.order({"plugged": name})
    assert state["obd"] == car.obd == str(folder / file)
    assert [path.name for path in folder.iterdir()] == [file]
    with serial.Serial(car.obd, timeout=PATIENCE_S) as line:
        assert say(line, "ATI") == "ATI\rELM327 v2.1\r\r>"
    assert car.obd_tcp == tcp
    with serial.serial_for_url(tcp, timeout=PATIENCE_S) as line:
        assert say(line, "ATI") == "ATI\rELM327 v2.1\r\r>"


def test_an_adapter_that_is_in_stays_as_it_is_when_it_is_put_in(car: VirtualCar) -> None:
    with serial.Serial(car.obd, timeout=PATIENCE_S) as line:
        say(line, "ATE0")
        car.order({"plugged": True})
        assert say(line, "ATI") == "ELM327 v2.1\r\r>"


def test_an_adapter_whose_port_is_taken_meanwhile_stays_out_and_says_so(car: VirtualCar) -> None:
    car.order({"plugged": False})
    port = int(car.obd_tcp.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)), pytest.raises(OrderError, match="plugged: the adapter stays out"):
        car.order({"plugged": True})
    assert car.order({})["plugged"] is False
    assert car.order({"plugged": True})["plugged"] is True


def test_nothing_is_left_of_a_car_that_has_ended() -> None:
    with VirtualCar() as car:
        folder = Path(car.obd).parent
        assert folder.exists()
    assert not folder.exists()


def test_a_scenario_is_played_on_the_cars_clock(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(
        '[[moments]]\nat_s = 0.05\nvoltage = 9.1\n[[moments]]\nat_s = 0.1\nplugged = "ttyUSB5"\n'
        "[[moments]]\nat_s = 3600\nvoltage = 1\n"
    )
    with VirtualCar(Options(scenario=path)) as car:
        until(lambda: car.obd.endswith("/ttyUSB5"))
        assert car.clock.elapsed_s() >= 0.1
        assert car.order({})["voltage"] == 9.1


def test_a_process_names_its_control_socket_and_refuses_a_bad_scenario(tmp_path: Path) -> None:
    path = tmp_path / "scenario.json"
    path.write_text('{"moments": [{"at_s": 0, "voltage": 12.9}]}')
    process = subprocess.Popen(
        [*COMMAND, "--control", "0", "--scenario", str(path), "--until-stdin-closes"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    with process.stdout, process.stdin:
        hello = json.loads(process.stdout.readline())
        address = ("127.0.0.1", int(hello["control"].rpartition(":")[2]))
        with socket.create_connection(address, timeout=PATIENCE_S) as client, client.makefile("rw") as talk:

            def voltage() -> object:
                talk.write("{}\n")
                talk.flush()
                return json.loads(talk.readline())["state"]["voltage"]

            until(lambda: voltage() == 12.9)
    assert process.wait(PATIENCE_S) == 0
    path.write_text('{"moments": [{"at_s": 0, "volts": 12.9}]}')
    done = subprocess.run([*COMMAND, "--scenario", str(path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"{path}: moments[0].volts: no such order")
