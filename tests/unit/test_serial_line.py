"""Bytes out and in by a deadline, over a pseudo terminal, TCP and what stands for Bluetooth; and ports that go away."""

import contextlib
import os
import pty
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from components.edge import serial_line
from components.edge.obd_car import ObdCar
from components.edge.serial_line import Line, LineGoneError, SerialLine
from components.edge.system_clock import elapsed_ms
from components.virtual_car.car import Options, VirtualCar

ADAPTER = "bluetooth://00:1d:a5:68:98:8a"


def soon(ms: int = 2_000) -> int:
    return elapsed_ms() + ms


def opened(url: str, within_ms: int = 2_000) -> SerialLine:
    return SerialLine(url, 38_400, elapsed_ms, soon(within_ms))


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """The other end of a serial port, and the port's path."""
    ours, theirs = pty.openpty()
    path = os.ttyname(theirs)
    os.close(theirs)
    yield ours, path
    with contextlib.suppress(OSError):
        os.close(ours)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def url_of(listener: socket.socket) -> str:
    return f"socket://127.0.0.1:{listener.getsockname()[1]}"


def gone(work: Callable[[], object]) -> str:
    """What it says when the port is gone; that it says so at once and not at its deadline is its caller's long one."""
    with pytest.raises(LineGoneError) as caught:
        work()
    return str(caught.value)


def read_all(line: Line, size: int) -> bytes:
    heard = b""
    end_ms = soon()
    while len(heard) < size and elapsed_ms() < end_ms:
        heard += line.read(end_ms)
    return heard


def test_bytes_go_both_ways_on_a_device(terminal: tuple[int, str]) -> None:
    other, path = terminal
    line = opened(path)
    line.write(b"ATZ\r", soon())
    assert os.read(other, 100) == b"ATZ\r"
    os.write(other, b"\xff\x00>")
    assert read_all(line, 3) == b"\xff\x00>"
    assert line.read(elapsed_ms()) == b""
    line.close()


def test_a_device_that_is_unplugged_is_gone_in_reading_and_in_writing(terminal: tuple[int, str]) -> None:
    other, path = terminal
    line = opened(path)
    os.close(other)
    assert gone(lambda: line.read(soon(60_000)))
    assert gone(lambda: line.write(b"AT\r", soon(60_000)))
    line.close()
    line.close()


@pytest.mark.parametrize("work", ["read", "write"])
def test_a_port_that_hangs_up_without_an_error_is_gone_and_not_waited_for(
    work: str, terminal: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other, path = terminal
    line = opened(path)
    os.close(other)

    def would_block(*_: object) -> Any:  # noqa: ANN401 - stands for os.read and os.write
        raise BlockingIOError

    monkeypatch.setattr(serial_line.os, work, would_block)  # type: ignore[attr-defined]
    calls = {"read": lambda: line.read(soon(60_000)), "write": lambda: line.write(b"AT\r", soon(60_000))}
    assert gone(calls[work]) == "the port hung up"


def test_a_wake_up_for_nothing_does_not_end_the_wait(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    line = opened(url_of(listener))
    other, _ = listener.accept()
    other.sendall(b"OK\r>")
    real, answers = os.read, iter([BlockingIOError, BlockingIOError])

    def read(fd: int, size: int) -> bytes:
        for error in answers:
            raise error
        return real(fd, size)

    monkeypatch.setattr(serial_line.os, "read", read)  # type: ignore[attr-defined]
    assert line.read(soon()) == b"OK\r>"
    line.close()
    other.close()


def test_a_device_that_is_not_there_is_gone() -> None:
    assert "/dev/does-not-exist" in gone(lambda: opened("/dev/does-not-exist"))


@pytest.mark.parametrize(
    "url",
    ["socket://127.0.0.1:99999", "socket://127.0.0.1:x", "socket://", "socket://[::1", "nothing://x", "/dev/null"],
)
def test_an_address_that_is_none_is_gone(url: str) -> None:
    assert gone(lambda: opened(url, 100))


def test_a_peer_that_closes_is_gone_after_what_it_said(listener: socket.socket) -> None:
    line = opened(url_of(listener))
    other, _ = listener.accept()
    other.sendall(b"STOPPED\r")
    other.close()
    assert read_all(line, 8) == b"STOPPED\r"
    assert gone(lambda: line.read(soon(60_000))) == "the port was closed by the other end"
    line.close()


def test_a_peer_that_resets_is_gone(listener: socket.socket) -> None:
    line = opened(url_of(listener))
    other, _ = listener.accept()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()
    assert gone(lambda: line.read(soon(60_000)))
    line.close()


def test_a_port_that_takes_no_more_bytes_costs_the_deadline(listener: socket.socket) -> None:
    line = opened(url_of(listener))
    other, _ = listener.accept()
    assert gone(lambda: line.write(bytes(50_000_000), soon(100))) == "the port takes no more bytes"
    line.close()
    other.close()


def test_an_adapter_may_have_an_ipv6_address() -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server:
        line = opened(f"socket://[::1]:{server.getsockname()[1]}")
        other, _ = server.accept()
        line.write(b"ATI\r", soon())
        assert other.recv(100) == b"ATI\r"
        line.close()
        other.close()


class Rfcomm(socket.socket):
    """Stands for a Bluetooth socket, which most machines that run tests do not have: TCP to `port` behind it."""

    port = 0
    called: list[tuple[object, ...]]

    def __init__(self, *kind: int) -> None:
        self.called.append(kind)
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)

    def connect_ex(self, address: Any) -> int:  # noqa: ANN401 - as in socket
        self.called.append(address)
        return super().connect_ex(("127.0.0.1", self.port))


@pytest.fixture
def rfcomm(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> type[Rfcomm]:
    Rfcomm.port, Rfcomm.called = listener.getsockname()[1], []
    monkeypatch.setattr(serial_line, "socket", WithBluetooth)
    return Rfcomm


class WithBluetooth:
    """What serial_line sees of the module `socket` in a Python that was built with Bluetooth."""

    SOCK_STREAM, SOL_SOCKET, SO_ERROR = socket.SOCK_STREAM, socket.SOL_SOCKET, socket.SO_ERROR
    AF_BLUETOOTH, BTPROTO_RFCOMM, socket = 31, 3, Rfcomm


@pytest.mark.parametrize(("url", "channel"), [(ADAPTER, 1), (ADAPTER + "/2", 2), (ADAPTER.upper() + "/30", None)])
def test_a_bluetooth_adapter_is_called_by_its_address_and_channel(
    url: str, channel: int | None, rfcomm: type[Rfcomm], listener: socket.socket
) -> None:
    line = opened(url.replace("BLUETOOTH", "bluetooth"))
    line.write(b"ATZ\r", soon())
    assert line.read(elapsed_ms() + 50) == b""
    other, _ = listener.accept()
    assert rfcomm.called == [(31, socket.SOCK_STREAM, 3), ("00:1D:A5:68:98:8A", channel or 30)]
    assert other.recv(100) == b"ATZ\r"
    other.sendall(b"ELM327 v1.5\r\r>")
    assert read_all(line, 14) == b"ELM327 v1.5\r\r>"
    other.close()
    assert gone(lambda: line.read(soon(60_000))) == "the port was closed by the other end"
    line.close()


def test_a_bluetooth_adapter_that_takes_its_time_keeps_every_deadline_and_hears_the_latest_word(
    rfcomm: type[Rfcomm], listener: socket.socket
) -> None:
    assert rfcomm.port
    listener.listen(0)
    with socket.create_connection(listener.getsockname()):  # the queue is full: who calls now has to wait
        line = opened(ADAPTER)
        for command in (b"ATWS\r", b"ATZ\r"):
            line.write(command, soon(60_000))
            before_ms = elapsed_ms()
            assert line.read(before_ms + 20) == b""
            assert elapsed_ms() >= before_ms + 20
        listener.accept()[0].close()
        end_ms = soon(10_000)
        while line._is_connecting and elapsed_ms() < end_ms:
            line.read(elapsed_ms() + 100)
        other, _ = listener.accept()
        assert other.recv(100) == b"ATZ\r"
    line.close()
    other.close()


def test_a_bluetooth_adapter_that_is_away_is_gone_with_the_systems_words(
    rfcomm: type[Rfcomm], listener: socket.socket
) -> None:
    assert rfcomm.port
    listener.close()
    line = opened(ADAPTER)
    line.write(b"ATZ\r", soon())
    assert gone(lambda: line.read(soon(60_000))) == "the Bluetooth adapter does not answer: Connection refused"
    line.close()


def test_a_bluetooth_socket_that_cannot_even_begin_is_gone(
    rfcomm: type[Rfcomm], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rfcomm, "connect_ex", lambda *_: 113)
    assert "No route to host" in gone(lambda: opened(ADAPTER))


def test_a_python_without_bluetooth_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AF_BLUETOOTH", "BTPROTO_RFCOMM"):
        monkeypatch.delattr(serial_line.socket, name, raising=False)  # type: ignore[attr-defined]
    words = gone(lambda: opened(ADAPTER))
    assert "rfcomm bind" in words
    assert "/dev/rfcomm0" in words


def test_a_car_is_read_over_bluetooth_as_it_is_over_tcp(rfcomm: type[Rfcomm]) -> None:
    with VirtualCar(Options(latency_s=0.001)) as running:
        rfcomm.port = urlsplit(running.obd_tcp).port or 0
        car = ObdCar(ADAPTER, clock=elapsed_ms)
        end_ms = soon(10_000)
        while "rpm" not in car.sample(soon(500)).values and elapsed_ms() < end_ms:
            pass
        assert car.state().port == ADAPTER
        assert "rpm" in car.sample(soon(500)).values
        car.close()


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "x",
        "00:1D:A5:68:98",
        "00:1D:A5:68:98:8A:11",
        "00:1D:A5:68:98:8G",
        "00-1D-A5-68-98-8A",
        "00:1D:A5:68:98:8A/0",
        "00:1D:A5:68:98:8A/31",
        "00:1D:A5:68:98:8A/1/2",
    ],
)
def test_what_is_no_bluetooth_address_is_said_to_be_none(rest: str, rfcomm: type[Rfcomm]) -> None:
    assert "AA:BB:CC:DD:EE:FF" in gone(lambda: opened(f"bluetooth://{rest}"))
    assert rfcomm.called == []
