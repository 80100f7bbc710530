"""The gate by itself: who gets in, what they may, and who must go. With a real router: journey/test_gate."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import ComponentConfig
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock

from components.cloud import wamp_auth
from components.cloud.sqlite_registry import Registry
from components.cloud.wamp_auth import Gate
from components.cloud.who import Invitation, Standing
from components.wire.enrolment import ticket_sha256
from components.wire.topics import REALM
from tests.coroutines import at_once

ONE, TWO, THEO = "aa" * 32, "bb" * 32, "cc" * 32
TICKET, T0 = "77" * 32, 1_779_000_000_000
YEAR_MS = 365 * 86_400_000


class Door:
    """A gate, its registry open for writing, and the router's side of it."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ms, self.elapsed_s = T0, 0.0
        self.path = home / "registry.db"
        self.registry = Registry.create(self.path)
        self.registry.add_device("car_one", ONE, T0, account="acme")
        self.registry.add_device("car_two", TWO, T0)
        self.registry.add_principal("theo", THEO, "technician", T0)
        monkeypatch.setattr(wamp_auth, "_now_ms", lambda: self.now_ms)
        monkeypatch.setattr(wamp_auth, "time", SimpleNamespace(monotonic=lambda: self.elapsed_s))
        self.gate: Any = Gate(ComponentConfig(extra={"cbdir": str(home), "registry": "registry.db"}))
        self.killed: list[int] = []
        self.aborted: list[int] = []
        self.told: list[tuple[str, object]] = []
        self.gate.call = self._call
        self.gate.publish = lambda topic, what: self.told.append((topic, what))
        self._sessions: dict[int, Any] = {}
        self._joined: dict[int, dict[str, Any]] = {}
        transport: Any = SimpleNamespace(_router=SimpleNamespace(_session_id_to_session=self._sessions))
        self.gate._transport = transport

    def _call(self, procedure: str, session: int, **_: object) -> Deferred[None]:
        assert procedure == "wamp.session.kill"
        self.killed.append(session)
        return succeed(None)

    def join(self, session: int, authid: str, key: str, **details: Any) -> str:  # noqa: ANN401 - as authenticate's
        """Return the role that a peer gets, or why it gets none."""
        found = self.authenticate(session, authid, authmethod="cryptosign", authextra={"pubkey": key}, **details)
        abort = SimpleNamespace(_transport=SimpleNamespace(abort=lambda: self.aborted.append(session)))
        if found.get("role"):
            self._sessions[session] = abort
            self._joined[session] = {"session": session, "authid": authid, "authrole": found["role"]}
            self.gate._on_join(self._joined[session])
        return str(found.get("role") or found["error"])

    def authenticate(self, session: int, authid: str, *, realm: str = REALM, **details: object) -> dict[str, Any]:
        details |= {"session": session, "transport": {"peer": "tcp4:192.0.2.7:4711"}}
        try:
            found: dict[str, Any] = at_once(self.gate.authenticate(realm, authid, details))
        except ApplicationError as error:
            return {"error": error.error}
        return found

    def by_ticket(self, session: int, ticket: object, authid: str = "car_new") -> bool:
        return "role" in self.authenticate(session, authid, authmethod="ticket", ticket=ticket)

    def invite(self, ticket: str = TICKET) -> None:
        self.registry.invite_device(Invitation("car_new", ticket_sha256(ticket), ONE, T0 + YEAR_MS, 0, ""), T0)

    def may(self, session: int, action: str, uri: str) -> bool:
        nobody = {"session": session, "authid": "nobody", "authrole": "device"}
        answer = self.gate.authorize(self._joined.get(session, nobody), uri, action, {})
        assert (answer["disclose"], answer["cache"]) == (True, False)
        return bool(answer["allow"])

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.gate._look()

    @property
    def noted(self) -> list[tuple[str, str, object]]:
        """What the router's audit log has: what, whom, and why."""
        return [(one.action, one.subject, one.detail.get("reason")) for one in self.gate._audit.entries()]


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    door = Door(tmp_path, monkeypatch)
    yield door
    door.registry.close()
    door.gate._audit.close()


STATUS, EVENT = "odograph.device.car_one.status", "odograph.event.car_one"


@pytest.mark.parametrize(
    ("authid", "key", "why"),
    [
        ("car_one", TWO, "wrong_key"),
        ("car_one", "", "wrong_key"),
        ("nobody", ONE, "unknown"),
        ("theo", ONE, "wrong_key"),
    ],
)
def test_who_has_not_the_key_of_the_registry_stays_outside_and_is_on_record(
    door: Door, authid: str, key: str, why: str
) -> None:
    assert door.join(1, authid, key) == wamp_auth.REFUSED
    assert door.noted == [("join.refused", authid, why)]


def test_another_realm_is_nobodys(door: Door) -> None:
    assert door.join(1, "car_one", ONE, realm="other") == wamp_auth.REFUSED
    assert door.noted == [("join.refused", "car_one", "wrong_realm")]


@pytest.mark.parametrize("state", ["suspended", "revoked"])
def test_a_device_that_is_not_active_stays_outside(door: Door, state: Any) -> None:  # noqa: ANN401 - one of a Literal
    door.registry.set_state("car_one", state, T0)
    assert door.join(1, "car_one", ONE) == wamp_auth.REFUSED
    assert door.noted == [("join.refused", "car_one", f"{state}_device")]


def test_an_operator_who_is_revoked_or_has_expired_stays_outside(door: Door) -> None:
    door.registry.set_operator("theo", T0, expires_ms=T0)
    assert door.join(1, "theo", THEO) == wamp_auth.REFUSED
    door.registry.set_operator("theo", T0, expires_ms=T0 + 1)
    assert door.join(1, "theo", THEO) == "technician"
    door.registry.set_operator("theo", T0, state="revoked")
    assert door.join(2, "theo", THEO) == wamp_auth.REFUSED
    assert [why for _, _, why in door.noted] == ["expired", "revoked"]


def test_a_ticket_opens_to_enrol_and_five_wrong_ones_lock_that_code_and_no_other(door: Door) -> None:
    door.invite()
    assert door.authenticate(1, "car_new", authmethod="ticket", ticket=TICKET)["role"] == "enrolling"
    assert not door.by_ticket(2, TICKET, "car_one")
    assert not any(door.by_ticket(3, wrong) for wrong in ("", None, 7, ticket_sha256(TICKET), "88" * 32))
    assert not door.by_ticket(4, TICKET)
    assert [what for what, _, _ in door.noted] == ["join.refused"] * 3
    door.invite("99" * 32)
    assert door.by_ticket(5, "99" * 32)


def test_a_session_that_nobody_let_in_may_nothing(door: Door) -> None:
    assert door.join(1, "car_one", ONE) == "device"
    assert door.may(1, "publish", EVENT)
    assert not door.may(2, "publish", EVENT)
    assert ("action.refused", "publish " + EVENT, None) in door.noted


def test_a_call_that_clears_codes_is_on_record_although_it_is_allowed(door: Door) -> None:
    door.join(1, "theo", THEO)
    assert door.may(1, "call", "odograph.device.car_one.clear_dtcs")
    assert [what for what, _, _ in door.noted] == ["clear.called"]


def test_limits_are_those_of_the_registry(door: Door) -> None:
    door.registry.set_operator("theo", T0, account="acme")
    door.join(1, "theo", THEO)
    assert door.may(1, "call", STATUS)
    assert not door.may(1, "call", STATUS.replace("one", "two"))
    # No account is none that anybody could be limited to.
    door.registry.set_operator("theo", T0, account="", devices=("car_one",))
    door.join(2, "theo", THEO)
    assert door.may(2, "call", STATUS)
    assert not door.may(2, "call", STATUS.replace("one", "two"))


def test_whose_time_is_over_may_nothing_at_once_and_is_ended_and_cut_off(door: Door) -> None:
    door.registry.set_operator("theo", T0, expires_ms=T0 + 5)
    door.join(1, "theo", THEO)
    door.now_ms += 5
    assert not door.may(1, "call", STATUS)
    door.look()
    assert (door.killed, door.aborted) == ([1], [])
    door.look()
    assert door.aborted == [1]
    assert ("session.ended", "theo", "expired") in door.noted


def test_a_device_that_is_shut_out_is_ended_within_a_second_and_nobody_else(door: Door) -> None:
    door.join(1, "car_one", ONE)
    door.join(2, "car_two", TWO)
    door.look()
    door.registry.set_state("car_one", "suspended", T0)
    door.look()
    assert door.killed == [1]
    assert (door.may(1, "publish", EVENT), door.may(2, "publish", EVENT.replace("one", "two"))) == (False, True)
    assert ("session.ended", "car_one", "changed") in door.noted


def test_a_device_whose_notes_change_stays(door: Door) -> None:
    door.join(1, "car_one", ONE)
    door.look()
    door.registry.set_device("car_one", T0, driver="nina")
    door.look()
    assert door.killed == []


BEFORE = Standing("technician", ONE, frozenset({"car_one"}))


@pytest.mark.parametrize(
    ("before", "now", "holds"),
    [
        (BEFORE, BEFORE, True),
        (BEFORE, None, False),
        (BEFORE, Standing("viewer", ONE, BEFORE.reach), False),
        (BEFORE, Standing("technician", TWO, BEFORE.reach), False),
        (BEFORE, Standing("technician", ONE, frozenset({"car_two"})), False),
        (BEFORE, Standing("technician", ONE, frozenset({"car_one", "car_two"})), True),
        (BEFORE, Standing("technician", ONE), True),
        (Standing("technician", ONE), BEFORE, False),
    ],
)
def test_a_session_rests_on_role_key_and_reach(before: Standing, now: Standing | None, holds: bool) -> None:
    assert before.holds(now) is holds


def test_a_peer_that_does_not_prove_its_key_is_forgotten_and_on_record(door: Door) -> None:
    door.authenticate(1, "car_one", authmethod="cryptosign", authextra={"pubkey": ONE})
    door.elapsed_s = 31.0
    door.look(wamp_auth._LOOKS_A_MINUTE)
    assert door.noted == [("join.refused", "car_one", "no_proof")], "once, and not again at each look"
    assert not door.may(1, "publish", EVENT)


def test_a_lock_on_the_log_does_not_hold_up_the_router_and_what_was_to_be_noted_waits(door: Door) -> None:
    with closing(sqlite3.connect(door.path.parent / "router" / "audit.db", isolation_level=None)) as other:
        (busy_ms,) = door.gate._audit._db.execute("PRAGMA busy_timeout").fetchone()
        assert busy_ms == 0
        other.execute("BEGIN IMMEDIATE")
        for name in ("nobody", "somebody"):
            door.join(1, name, ONE)
        assert door.noted == []
        other.execute("ROLLBACK")
    door.look()
    assert door.noted == [("join.refused", name, "unknown") for name in ("nobody", "somebody")]


UNAVAILABLE = "odograph.error.unavailable"


def test_who_comes_while_the_registry_is_locked_waits_beside_the_router_and_is_let_in_or_told_to_try_again(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Any = Registry.open
    monkeypatch.setattr(Registry, "open", lambda path, busy_s: opened(path, busy_s=busy_s) if busy_s == 0 else None)
    clock = door.gate._watch.clock = Clock()
    answers: list[str] = []

    async def come(name: str) -> None:
        details = {"session": 1, "authmethod": "cryptosign", "authextra": {"pubkey": ONE}}
        try:
            answers.append((await door.gate.authenticate(REALM, name, details))["role"])
        except ApplicationError as error:
            answers.append(error.error)

    with closing(sqlite3.connect(door.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for name in ("car_one", "nobody"):
            ensureDeferred(come(name))
        clock.pump([0.1] * 10)
        assert answers == []
        clock.pump([0.1] * 10)
        assert answers == [UNAVAILABLE, UNAVAILABLE]
        ensureDeferred(come("car_one"))
        other.execute("ROLLBACK")
    assert len(answers) == 2
    clock.advance(0.1)
    assert answers[2] == "device"
    assert door.noted == [], "nobody was refused"


def test_a_session_that_must_end_ends_when_the_registry_is_not_locked_any_more(door: Door) -> None:
    door.join(1, "car_one", ONE)
    door.look()
    door.registry.set_state("car_one", "revoked", T0)
    with closing(sqlite3.connect(door.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        door.look(2)
        assert door.killed == []
        other.execute("ROLLBACK")
    door.look()
    assert door.killed == [1]


def test_who_has_an_unsound_row_is_refused_as_nobody_is_and_the_log_says_why(door: Door) -> None:
    door.invite()
    with closing(sqlite3.connect(door.path, isolation_level=None)) as other:
        other.execute("UPDATE device SET notes = CAST(x'ff' AS TEXT) WHERE id = 'car_one'")
        other.execute("UPDATE invitation SET refused = -1")
    assert door.join(1, "car_one", ONE) == wamp_auth.REFUSED
    assert not door.by_ticket(2, TICKET)
    assert door.noted == [("join.refused", name, "unsound_row") for name in ("car_one", "car_new")]
    assert door.join(3, "car_two", TWO) == "device"


def test_an_entry_that_cannot_be_read_keeps_nobody_in(door: Door) -> None:
    door.join(1, "car_one", ONE)
    door.look()
    with closing(sqlite3.connect(door.path, isolation_level=None)) as other:
        other.execute("INSERT INTO audit VALUES (99, 1, '', '', printf('%.*c', 2000000, 'x'), '', '')")
    door.registry.set_state("car_one", "revoked", T0)
    door.look()
    assert door.killed == [1]


def test_a_gate_begins_although_somebody_wrote_to_its_log(door: Door) -> None:
    with closing(sqlite3.connect(door.path.parent / "router" / "audit.db")) as other, other:
        other.execute("INSERT INTO audit VALUES (9223372036854775807, ?, 'a', 'b', 'c', '{}', 'x')", (T0,))
    Gate(door.gate.config)._audit.close()


def test_a_device_is_away_when_its_last_session_is_gone(door: Door) -> None:
    leave: Callable[[int], None] = door.gate._on_leave
    for session in (1, 2):
        door.join(session, "car_one", ONE)
    leave(1)
    assert door.told == []
    leave(2)
    assert door.told == [(EVENT, {"event": "offline", "device": "car_one"})]
