"""Evil arguments: whatever an operator sends, one error that says which argument is wrong, and nothing was begun."""

from typing import Any, cast

import pytest
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import CallDetails
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, ensureDeferred

from components.cloud.wamp_fleet import Fleet
from components.edge.device import Device
from components.wamp_procedure import INTERNAL, INVALID, guarded
from tests.edge_parts import InlineLane, as_lane
from tests.fake_stores import MemoryArchive

NOTHING = cast("Any", None)
BY: Any = type("Details", (), {"caller_authid": "olga", "caller_authrole": "viewer"})()


class Nobody:
    """A registry in which there is the caller alone, who may see everything, and keys of which none is the newest."""

    def devices(self) -> list[object]:
        return []

    def unsound_devices(self) -> list[str]:
        return []

    def device(self, _id: str) -> None:
        return None

    def principal(self, _id: str) -> "Nobody":
        return self

    def admitted(self, _now_ms: int) -> bool:
        return True

    def reaches(self, _device: str, _account: str) -> bool:
        return True

    def account_for(self, _device: str) -> None:
        return None

    def following(self, _kid: str) -> None:
        return None


def fleet() -> Fleet:
    return Fleet(
        cast("Any", MemoryArchive()), cast("Any", Nobody()), as_lane(InlineLane()), lambda: cast("Any", Nobody())
    )


def device() -> Device:
    return Device("car_one", "1.0", NOTHING, NOTHING, NOTHING, NOTHING, lambda: 0, 0)


def answer(procedure: Any, *args: object, **kwargs: object) -> Any:  # noqa: ANN401 - whatever it answers
    """What a caller gets of a registered procedure; the error where it is one."""
    found: list[Any] = []
    call: Any = guarded(procedure)(*args, **kwargs)
    done: Deferred[Any] = ensureDeferred(call)
    done.addCallbacks(found.append, lambda failure: found.append(failure.value))
    return found[0]


def is_refused(found: object, error: str = INVALID) -> bool:
    assert isinstance(found, ApplicationError), found
    assert len(str(found.args)) < 300
    return bool(found.error == error)


def asked(name: str, *args: object, **kwargs: object) -> Any:  # noqa: ANN401 - whatever it answers
    """What the fleet answers to an operator."""
    by = {} if name == "public_bundle" else {"details": BY}
    return answer(getattr(fleet(), name), *args, **kwargs, **by)


DEEP: Any = []
for _ in range(5_000):
    DEEP = [DEEP]

ODD: tuple[object, ...] = (
    None, True, 5, -1, 2**64, 1.5, float("nan"), b"car_one", "", "Car", "car_one\n", "car-one", "x" * 1_000_000,
    "\ud800", "../../etc", "car_one' OR 1=1", ["car_one"], {"$ne": ""}, DEEP,
)  # fmt: skip
NO_TIME: tuple[object, ...] = (
    True, 1.0, float("inf"), float("nan"), "5", b"5", [], {}, 2**53 + 1, -(2**53) - 1, 2**63, 10**4000, DEEP
)  # fmt: skip
PACKET = f"car_one/{'0' * 16}/20261121T100500Z"
NO_PACKET: tuple[object, ...] = (None, 5, b"", "x", "a/b/c", PACKET + "\n", PACKET * 2, "//", "\ud800", DEEP)
NO_KID: tuple[object, ...] = (None, 5, b"0" * 16, "x", "0" * 15, "0" * 17, "F" * 16, "../current", DEEP)


@pytest.mark.parametrize("name", ["latest", "minutes"])
def test_what_is_no_device_id_is_refused_before_a_store_is_asked(name: str) -> None:
    for odd in ODD:
        assert is_refused(asked(name, odd))


def test_the_list_of_devices_begins_after_a_device_and_after_nothing_else() -> None:
    for odd in (one for one in ODD if one != ""):
        assert is_refused(asked("devices", odd))
    assert asked("devices", "car_one") == asked("devices", "") == []


def test_a_time_is_a_whole_number_that_a_store_can_hold() -> None:
    for odd in NO_TIME:
        assert is_refused(asked("minutes", "car_one", odd))
        assert is_refused(asked("minutes", "car_one", None, odd))
    for good in (0, -1, 2**53, -(2**53), None):
        assert asked("minutes", "car_one", good, good) == {"minutes": [], "more": False}


def test_a_page_begins_after_a_packet_and_after_nothing_else() -> None:
    for odd in NO_PACKET:
        assert is_refused(asked("minutes", "car_one", None, None, odd))
    assert asked("minutes", "car_one", None, None, PACKET) == {"minutes": [], "more": False}


def test_a_bundle_follows_a_key_id_and_nothing_else() -> None:
    for odd in NO_KID:
        assert is_refused(asked("public_bundle", odd))
    assert asked("public_bundle", "f" * 16) is None


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("latest", (), {}), ("latest", ("car_one", "car_two"), {}), ("latest", ("car_one",), {"x" * 10_000: 1}),
        ("minutes", (), {"device": "car_one", "limit": 5}), ("minutes", ("car_one",) * 9, {}),
        ("devices", ("", ""), {}), ("devices", (), {"self": 1}), ("public_bundle", ("", ""), {}),
    ],
)  # fmt: skip
def test_too_many_too_few_or_unknown_arguments_are_refused_by_the_fleet(
    name: str, args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    assert is_refused(asked(name, *args, **kwargs))


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("status", (1,), {}), ("status", (), {"verbose": True}), ("dtcs", (True, True), {}), ("dtcs", ("yes",), {}),
        ("dtcs", (1,), {}), ("dtcs", (None,), {}), ("dtcs", (DEEP,), {}), ("dtcs", (), {"refresh": "false"}),
        ("query", ("rpm",), {}), ("prepare_clear", ("now",), {}), ("clear_dtcs", ("a", "b"), {}),
        ("clear_dtcs", (), {"force": True}), ("clear_dtcs", (), {"__class__": 1}),
    ],
)  # fmt: skip
def test_too_many_or_odd_arguments_are_refused_by_a_device_before_anything_is_asked_of_the_car(
    name: str, args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    assert is_refused(answer(getattr(device(), name), *args, details=BY, **kwargs))


def test_what_a_procedure_did_not_foresee_is_told_in_no_detail() -> None:
    async def broken(*, details: CallDetails) -> object:
        raise KeyError("/home/secret/path", details)

    found = answer(broken, details=BY)
    assert is_refused(found, INTERNAL)
    assert "secret" not in str(found)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from(["devices", "latest", "minutes", "public_bundle"]),
    st.lists(values | st.just("car_one"), max_size=5),
    st.dictionaries(st.sampled_from(["device", "since_ms", "until_ms", "after", "x"]), values, max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_any_arguments_have_an_answer_or_are_refused(name: str, args: list[object], kwargs: dict[str, object]) -> None:
    found = asked(name, *args, **kwargs)
    if isinstance(found, Exception):
        # The newest bundle is not in these keys.
        assert is_refused(found, INVALID) or (name == "public_bundle" and is_refused(found, INTERNAL))
