"""The parts of the campaign: a wire that breaks as it is told to, points that kill, a plan."""

import socket
import threading
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import bson
import pytest

from tests.campaign import doomed
from tests.campaign.doomed import POINTS, Point, arm
from tests.campaign.fault import is_insert, is_inserted
from tests.campaign.ground import patience, until
from tests.campaign.run import plan
from tests.campaign.scenarios import scenarios
from tests.proxy import Proxy
from tests.waiting import PATIENCE_S


class Died(BaseException):
    """Instead of the process."""


class Store:
    """What a point can be put on."""

    def __init__(self) -> None:
        self.kept: list[int] = []

    def insert(self, some: list[int]) -> int:
        self.kept += some
        return len(some)


def die() -> None:
    raise Died


@pytest.mark.parametrize(("when", "kept"), [("before", []), ("half", [1, 2]), ("after", [1, 2, 3])])
def test_a_point_kills_before_half_way_or_after(when: Any, kept: list[int], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    monkeypatch.setattr(Store, "insert", Store.insert)
    arm(Point("persist", f"{__name__}:Store.insert", when), 2, die, Store)
    store = Store()
    assert store.insert([]) == 0
    assert store.insert([0]) == 1
    with pytest.raises(Died):
        store.insert([1, 2, 3])
    assert store.kept == [0, *kept]


@pytest.mark.parametrize("point", POINTS)
def test_every_point_is_a_method_of_the_product(point: str) -> None:
    module, path = POINTS[point].where.split(":")
    owner, method = path.split(".")
    assert callable(getattr(getattr(import_module(module), owner), method))
    assert doomed.owner_of(POINTS[point]) is getattr(import_module(module), owner)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE_S)
        yield listening


def joined(proxy: Proxy, server: socket.socket) -> tuple[socket.socket, socket.socket]:
    near = socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE_S)
    far, _ = server.accept()
    far.settimeout(PATIENCE_S)
    return near, far


def test_a_wire_that_is_cut_ends_and_is_a_wire_again_when_it_is_healed(server: socket.socket) -> None:
    with Proxy(server.getsockname()[1]) as proxy:
        near, far = joined(proxy, server)
        with near, far:
            near.sendall(b"up")
            assert far.recv(9) == b"up"
            proxy.cut()
            assert near.recv(9) == b""
            assert far.recv(9) == b""
        proxy.heal()
        near, far = joined(proxy, server)
        with near, far:
            far.sendall(b"down")
            assert near.recv(9) == b"down"


def test_a_wire_that_stalls_loses_nothing(server: socket.socket) -> None:
    with Proxy(server.getsockname()[1]) as proxy:
        near, far = joined(proxy, server)
        with near, far:
            proxy.stall()
            near.sendall(b"late")
            far.settimeout(0.1)
            with pytest.raises(TimeoutError):
                far.recv(9)
            far.settimeout(PATIENCE_S)
            proxy.heal()
            assert far.recv(9) == b"late"


def test_a_mute_wire_loses_one_way_only_and_ends_when_it_is_healed(server: socket.socket) -> None:
    seen: list[bytes] = []
    with Proxy(server.getsockname()[1], lambda: lambda _, piece: seen.append(piece)) as proxy:
        near, far = joined(proxy, server)
        with near, far:
            proxy.mute("up")
            near.sendall(b"lost")
            far.sendall(b"kept")
            assert near.recv(9) == b"kept"
            until(lambda: proxy.is_mute, PATIENCE_S, "it is lost")
            proxy.heal()
            assert far.recv(9) == b""
    assert seen == [b"kept"]


def test_a_wire_loses_what_is_meant_and_all_after_it_and_tells_of_what_is_expected(server: socket.socket) -> None:
    with Proxy(server.getsockname()[1]) as proxy:
        near, far = joined(proxy, server)
        with near, far:
            proxy.mute("up", lambda piece: piece == b"meant")
            seen = proxy.expect("down", lambda piece: piece == b"told")
            near.sendall(b"other")
            assert far.recv(9) == b"other"
            assert not proxy.is_mute
            near.sendall(b"meant")
            until(lambda: proxy.is_mute, PATIENCE_S, "it is lost")
            near.sendall(b"after")
            assert not seen.is_set()
            far.sendall(b"told")
            assert near.recv(9) == b"told"
            assert seen.is_set()
            proxy.heal()
            assert far.recv(9) == b""


def test_an_insert_and_its_answer_are_told_from_all_else() -> None:
    asked = [{"insert": "packets"}, {"find": "packets"}, {"update": "packets"}]
    answers: list[dict[str, object]] = [
        {"n": 1, "ok": 1.0},
        {"cursor": {}, "ok": 1.0},
        {"n": 1, "nModified": 1, "ok": 1.0},
    ]
    assert [is_insert(b"head" + bson.encode(one)) for one in asked] == [True, False, False]
    assert [is_inserted(b"head" + bson.encode(one)) for one in answers] == [True, False, False]


def test_what_is_under_way_when_a_connection_is_ended_for_what_it_lost_is_lost_with_it(server: socket.socket) -> None:
    seen: list[bytes] = []
    before = threading.active_count()
    with Proxy(server.getsockname()[1], lambda: lambda _, piece: seen.append(piece)) as proxy:
        near, far = joined(proxy, server)
        with near, far:
            proxy.mute("down")
            far.sendall(b"lost")
            until(lambda: proxy.is_mute, PATIENCE_S, "it is lost")
            proxy.stall()
            near.sendall(b"under way")
            proxy.heal()
            assert far.recv(9) == b""
            assert near.recv(9) == b""
    until(lambda: threading.active_count() == before, PATIENCE_S, "its threads have ended")
    assert seen == []


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_wire_that_stalls_half_way_through_a_frame_goes_on_or_is_cut_there(
    server: socket.socket, *, goes_on: bool
) -> None:
    seen: list[bytes] = []
    with Proxy(server.getsockname()[1], lambda: lambda _, piece: seen.append(piece)) as proxy:
        near, far = joined(proxy, server)
        with near, far:
            proxy.halve("up", lambda piece: piece == b"frame")
            near.sendall(b"other")
            assert far.recv(9) == b"other"
            near.sendall(b"frame")
            assert far.recv(9) == b"fra"
            until(lambda: proxy.is_stalled, PATIENCE_S, "it stalls")
            assert seen == [b"other", b"fra"]
            if not goes_on:
                proxy.cut()
            proxy.heal()
            assert far.recv(9) == (b"me" if goes_on else b"")


def test_a_busy_machine_gets_more_time_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    times = []
    for load in (0.1, 2.0, 5.0, 900.0):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, load, load))
        times.append(patience())
    assert times == [1.0, 1.0, 2.5, 4.0]


def test_every_row_of_the_crash_table_has_a_name_of_its_own() -> None:
    names = [one.name for one in scenarios()]
    assert len(names) == len(set(names))


def test_a_seed_is_a_plan() -> None:
    assert [one.name for one in plan(60, 7)] == [one.name for one in plan(60, 7)]
    assert [one.name for one in plan(60, 7)] != [one.name for one in plan(60, 8)]
