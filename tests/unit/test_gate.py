"""The gate without a router: what it admits, and what it keeps of refusals when it is started again or cannot write."""

from pathlib import Path
from typing import Any

import pytest
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import ComponentConfig
from twisted.internet.defer import succeed

from components.cloud.refusals import BURST
from components.cloud.sqlite_audit import AuditLog, router_audit
from components.cloud.sqlite_registry import Registry
from components.cloud.tries import MOST
from components.cloud.wamp_auth import Gate, _now_ms
from components.cloud.who import Invitation
from components.keyfile import KeyFile, make_key
from components.wire import enrolment
from components.wire.enrolment import Code
from components.wire.errors import UnavailableError
from components.wire.topics import REALM, device_procedure
from tests.coroutines import at_once


class Door:
    """A gate, and whoever comes to it."""

    def __init__(self, directory: Path) -> None:
        self.registry = directory / "registry.db"
        if not self.registry.exists():
            Registry.create(self.registry).close()
        extra = {"cbdir": str(directory), "registry": "registry.db"}
        self.gate = Gate(ComponentConfig(realm=REALM, extra=extra))
        self._sessions = 0

    def add(self, name: str, role: str, **more: Any) -> KeyFile:  # noqa: ANN401 - as the registry's
        key = make_key(name, role)
        with Registry.open(self.registry, write=True) as registry:
            if role == "device":
                registry.add_device(name, key.public_key, 1)
            else:
                registry.add_principal(name, key.public_key, role, 1, **more)  # type: ignore[arg-type]
        return key

    def invite(self, device: str) -> Code:
        code, now_ms = Code(device, bytes(16), bytes(16)), _now_ms()
        proof, ticket = code.proof_key().public_key().public_bytes_raw().hex(), enrolment.ticket_sha256(code.ticket())
        with Registry.open(self.registry, write=True) as registry:
            registry.invite_device(Invitation(device, ticket, proof, now_ms + 60_000, 0, ""), now_ms)
        return code

    def ask(self, authid: str, address: str, **details: object) -> int:
        """Come with a ticket or a key; return the session, or 0 when refused."""
        self._sessions += 1
        peer = {"transport": {"peer": f"tcp4:{address}:4000"}, "session": self._sessions}
        try:
            at_once(self.gate.authenticate(REALM, authid, {**peer, **details}))
        except ApplicationError:
            return 0
        return self._sessions

    def by_ticket(self, authid: str, ticket: str, address: str) -> int:
        return self.ask(authid, address, authmethod="ticket", ticket=ticket)

    def by_key(self, key: KeyFile) -> int:
        return self.ask(key.authid, "10.0.0.9", authmethod="cryptosign", authextra={"pubkey": key.public_key})

    def may(self, session: int, authid: str, role: str, uri: str, action: str = "call") -> bool:
        details = {"session": session, "authid": authid, "authrole": role}
        return self.gate.authorize(details, uri, action, {})["allow"]

    def noted(self) -> list[tuple[str, dict[str, Any]]]:
        with AuditLog.open(router_audit(self.registry)) as log:
            return [(one.action, {"by": one.by, "of": one.subject, **one.detail}) for one in log.entries()]


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def test_a_stranger_who_tries_tickets_locks_nobody_out_but_their_own_address(door: Door) -> None:
    ticket = door.invite("car_one").ticket()
    assert not any(door.by_ticket("car_one", f"{n:064x}", "10.0.0.1") for n in range(50))
    assert not door.by_ticket("car_one", ticket, "10.0.0.1")
    assert door.by_ticket("car_one", ticket, "10.0.0.2")


def test_wrong_tickets_count_on_when_the_router_is_started_again(door: Door, tmp_path: Path) -> None:
    ticket = door.invite("car_one").ticket()
    for n in range(MOST):
        door.by_ticket("car_one", f"{n:064x}", "10.0.0.1")
    door.gate._write(door.gate._refusals.minute())
    again = Door(tmp_path)
    assert not again.by_ticket("car_one", ticket, "10.0.0.1")
    assert again.by_ticket("car_one", ticket, "10.0.0.2")
    again.invite("car_one")
    assert again.by_ticket("car_one", ticket, "10.0.0.3")


def test_a_name_that_was_not_proved_is_not_lent_to_a_session_that_is_there(door: Door) -> None:
    """A second hello comes while the answer to the first is under way."""
    code, admin = door.invite("car_one"), door.add("anna", "admin")
    session = door.by_ticket("car_one", code.ticket(), "10.0.0.1")
    door._sessions -= 1
    assert door.by_key(admin) == session
    assert not door.may(session, "car_one", "enrolling", device_procedure("car_two", "clear_dtcs"))


def test_a_flood_of_refusals_hides_no_clearing_and_no_other_members_refusals(door: Door) -> None:
    tina, car = door.by_key(door.add("tina", "technician")), door.by_key(door.add("car_bad", "device"))
    for n in range(BURST + 20):
        door.ask(f"nobody{n}", "10.0.0.1", authmethod="cryptosign")
        assert not door.may(car, "car_bad", "device", f"odograph.event.car_{n}", "publish")
    assert door.may(tina, "tina", "technician", device_procedure("car_one", "clear_dtcs"))
    assert ("clear.called", "tina") in [(what, more["by"]) for what, more in door.noted()]
    assert len(door.noted()) == 2 * BURST + 1
    door.gate._write(door.gate._refusals.minute())
    others = {more["by"]: more["count"] for what, more in door.noted() if what == "refused"}
    assert others == {"": 20, "car_bad": 20}


def test_what_cannot_be_written_is_written_when_it_can_in_its_order_and_with_its_time(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = AuditLog.append

    def full(*_: object) -> None:
        raise UnavailableError("disk full")

    monkeypatch.setattr(AuditLog, "append", full)
    door.ask("first", "10.0.0.1")
    before_ms = _now_ms()
    door.ask("second", "10.0.0.1")
    assert door.noted() == []
    monkeypatch.setattr(AuditLog, "append", append)
    door.gate._write([])
    assert [more["of"] for _, more in door.noted()] == ["first", "second"]
    with AuditLog.open(router_audit(door.registry)) as log:
        assert log.entries()[0].at_ms <= before_ms
        assert log.verify().seq == 2


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sessions that the gate asks to go."""
    found: list[int] = []

    def kill(_: Gate, session: int, __: str) -> Any:  # noqa: ANN401 - a Deferred
        found.append(session)
        return succeed(None)

    monkeypatch.setattr(Gate, "_kill", kill)
    return found


def test_one_key_has_so_many_sessions_and_the_oldest_go(door: Door, ended: list[int]) -> None:
    keys = {role: door.add(f"one_{role}", role) for role in ("device", "viewer", "persister")}
    sessions = {role: [door.by_key(key) for _ in range(103)] for role, key in keys.items()}
    for role, found in sessions.items():
        for session in found:
            door.may(session, f"one_{role}", role, "odograph.fleet.bundle")
    door.gate._end_what_holds_no_more()
    assert ended == [*sessions["device"][:3], *sessions["viewer"][:3]]


@pytest.mark.parametrize("end", ["expired", "revoked"])
def test_who_may_not_any_more_prepares_and_does_not_clear(
    door: Door, end: str, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tina = door.by_key(door.add("tina", "technician", expires_ms=_now_ms() + 60_000))
    prepare, clear = device_procedure("car_one", "prepare_clear"), device_procedure("car_one", "clear_dtcs")
    assert door.may(tina, "tina", "technician", prepare)
    if end == "revoked":
        with Registry.open(door.registry, write=True) as registry:
            registry.set_operator("tina", 2, state="revoked")
    else:
        later_ms = _now_ms() + 60_001
        monkeypatch.setattr("components.cloud.wamp_auth._now_ms", lambda: later_ms)
        assert not door.may(tina, "tina", "technician", clear), "before anybody has looked"
    door.gate._end_what_holds_no_more()
    assert not door.may(tina, "tina", "technician", clear)
    assert ended == [tina]


@pytest.mark.parametrize("authid", ["half \ud800", "", None, 5, ["car_one"], "e" * 200_000, "nul\0", "car_one\n"])
def test_a_name_that_is_none_is_nobody_and_is_noted(door: Door, authid: Any) -> None:  # noqa: ANN401 - whatever comes
    assert not door.ask(authid, "10.0.0.1", authmethod="cryptosign")
    assert not door.ask(authid, "10.0.0.1", authmethod="ticket", ticket="00")
    assert [(what, more["reason"]) for what, more in door.noted()] == [("join.refused", "unknown")]


@pytest.mark.parametrize("ticket", ["half \ud800", None, 5, "", b"\0" * 32])
def test_a_ticket_that_is_none_is_a_wrong_one(door: Door, ticket: Any) -> None:  # noqa: ANN401 - whatever comes
    code = door.invite("car_one")
    assert not door.by_ticket("car_one", ticket, "10.0.0.1")
    assert [more["reason"] for _, more in door.noted()] == ["wrong_ticket"]
    assert door.by_ticket("car_one", code.ticket(), "10.0.0.1")


def test_a_name_of_half_a_character_stops_no_later_note(door: Door) -> None:
    car = door.by_key(door.add("car_bad", "device"))
    assert not door.may(car, "car_bad", "device", "odograph.event.\ud800", "publish")
    assert not door.may(car, "car_bad", "device", "odograph.event.car_two", "publish")
    assert [more["of"] for _, more in door.noted()] == ["publish odograph.event.?", "publish odograph.event.car_two"]


def test_a_look_that_fails_is_not_the_last(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry whose rows make no sense, a peer whose address is none."""
    ended: list[str] = []
    monkeypatch.setattr(Gate, "_end_what_holds_no_more", lambda _: 1 / 0)
    monkeypatch.setattr(Gate, "_cut_strangers", lambda _: ended.append("strangers") or 1 / 0)  # type: ignore[func-returns-value]
    for _ in range(2):
        door.gate._look()
    assert ended == ["strangers"] * 2
