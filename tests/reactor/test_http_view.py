"""The page of a process, over a real port: metrics, health, readiness; and a port that is taken."""

import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger, globalLogPublisher

from components import http_view, keyfile
from components.lasting_component import LastingComponent
from components.metrics import Metric, Pulse, counter
from tests.wamp_peer import reactor, run


class FakeView:
    """A view that the test holds."""

    patience_s = 60.0

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.waiting: Deferred[None] | None = None
        self.is_broken = False

    def unready(self) -> Sequence[str]:
        return self.faults

    async def metrics(self) -> Sequence[Metric]:
        if self.waiting is not None:
            await self.waiting
        if self.is_broken:
            raise OSError("disk")
        return [counter("odograph_readings_total", "Readings", 5)]


class Page:
    """The served view, and the pulse behind it."""

    def __init__(self) -> None:
        self.view, self.pulse = FakeView(), Pulse()
        self.port: Any = run(self._listen)
        self.number: int = self.port.getHost().port

    async def _listen(self) -> Any:  # noqa: ANN401 - twisted's port
        return http_view.listen(reactor, "127.0.0.1:0", self.view, self.pulse)

    def beat(self, ago_s: float = 0.0) -> None:
        async def beat() -> None:
            self.pulse.beat(reactor.seconds() - ago_s)

        run(beat)

    def ask(self, path: str, method: str = "GET") -> socket.socket:
        asking = socket.create_connection(("127.0.0.1", self.number), timeout=20)
        asking.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return asking

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        with closing(self.ask(path, method)) as asking:
            answer = b"".join(iter(lambda: asking.recv(65536), b"")).decode()
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split()[1]), body


@pytest.fixture
def page() -> Iterator[Page]:
    one = Page()
    yield one

    async def stop() -> None:
        await one.port.stopListening()

    run(stop)


def test_metrics_are_served_as_text_and_nothing_else_is_there(page: Page) -> None:
    code, body = page.get("/metrics")
    assert code == 200
    assert "odograph_readings_total 5.0\n" in body
    assert [page.get(path)[0] for path in ("/", "/nothing", "/metrics/x", "/healthz/x")] == [404] * 4
    assert page.get("/metrics", "POST") == (405, "ask by GET\n")
    assert page.get("/metrics", "HEAD") == (200, "")


def test_health_is_that_the_loop_turns(page: Page) -> None:
    assert page.get("/healthz")[0] == 503
    page.beat()
    assert page.get("/healthz") == (200, "ok\n")
    page.beat(ago_s=120)
    code, body = page.get("/healthz")
    assert code == 503
    assert re.search(r"1\d\d s ago", body)


def test_readiness_is_that_too_and_that_nothing_is_lacking(page: Page) -> None:
    page.beat()
    assert page.get("/readyz") == (200, "ok\n")
    page.view.faults = ["no session with the router", "archive: away"]
    assert page.get("/readyz") == (503, "no session with the router\narchive: away\n")
    assert page.get("/healthz")[0] == 200


def test_who_hangs_up_before_the_answer_harms_nobody_and_health_waits_for_no_lane(page: Page) -> None:
    page.beat()
    page.view.waiting = held = Deferred[None]()
    with closing(page.ask("/metrics")):
        assert page.get("/healthz")[0] == 200
    # With this answer the server has also seen that the other one has gone.
    assert page.get("/healthz")[0] == 200
    events: list[Mapping[str, Any]] = []
    observer: Any = events.append

    async def release() -> None:
        globalLogPublisher.addObserver(observer)
        held.callback(None)
        globalLogPublisher.removeObserver(observer)
        page.view.waiting = None

    run(release)
    assert [event for event in events if "log_failure" in event] == []
    assert page.get("/metrics")[0] == 200


def test_nothing_is_kept_of_what_is_sent(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twisted.web.http.tempfile.TemporaryFile", None)
    for head in ("Content-Length: 300000", "Transfer-Encoding: chunked"):
        with closing(socket.create_connection(("127.0.0.1", page.number), timeout=20)) as asking:
            asking.sendall(f"POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n\r\n".encode())
            chunk = b"x" * 300_000
            asking.sendall(chunk if head.startswith("Content") else b"493e0\r\n" + chunk + b"\r\n0\r\n\r\n")
            assert asking.recv(100).split()[1] == b"405"


def test_few_are_served_at_once_and_nobody_for_long(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_view, "_MOST", 2)
    monkeypatch.setattr(http_view, "_LONGEST_S", 0.3)
    first, second, third = (socket.create_connection(("127.0.0.1", page.number), timeout=20) for _ in range(3))
    with closing(first), closing(second), closing(third):
        assert ended(third)
        first.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        while not ended(first, 0.01):
            with suppress(OSError):
                first.sendall(b"a")
        assert ended(second)
    monkeypatch.undo()
    assert page.get("/healthz")[0] == 503


def ended(connection: socket.socket, within_s: float = 20) -> bool:
    """Whether the other end closes the connection."""
    connection.settimeout(within_s)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_what_cannot_be_counted_is_an_error_that_tells_nothing(page: Page) -> None:
    page.view.is_broken = True
    assert page.get("/metrics") == (500, "see the log\n")


def test_a_port_that_is_taken_is_told(page: Page) -> None:
    async def listen() -> None:
        http_view.listen(reactor, f"127.0.0.1:{page.number}", page.view, page.pulse)

    with pytest.raises(CannotListenError):
        run(listen)


def test_a_process_whose_port_is_taken_says_so_and_goes_on_without(page: Page, tmp_path: Path) -> None:
    key = tmp_path / "device.key"
    keyfile.write_key_file(key, keyfile.make_key("car_one", "device"))
    component = LastingComponent("odograph", key, {"type": "websocket", "url": "ws://127.0.0.1:9/ws"}, "", "")
    component._listen = f"127.0.0.1:{page.number}"
    component.view = lambda: page.view  # type: ignore[method-assign]
    events: list[Mapping[str, Any]] = []
    component._log = Logger(observer=cast("Any", events.append))

    async def show() -> None:
        component._show(reactor)

    run(show)
    assert [(event["log_level"].name, event["address"]) for event in events] == [("error", component._listen)]
    assert component._port is None
