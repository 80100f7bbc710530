"""Enrolment and change of keys at the server: what the procedures take, and what each refusal says."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from autobahn.wamp.exception import ApplicationError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import ensureDeferred

from components.cloud.certificates import Tls, certify
from components.cloud.sqlite_registry import Registry, _now_ms
from components.cloud.wamp_enrol import Enrolment
from components.cloud.who import Invitation
from components.console import enrol as console
from components.console.ask import Router
from components.durable_file import replace_file
from components.keyfile import KeyFile, make_key
from components.wamp_procedure import INVALID
from components.wire import bundle, enrolment
from components.wire.enrolment import Code
from components.wire.errors import ConfigError, UnavailableError
from components.wire.topics import ENROL, REKEY
from tests.edge_parts import InlineLane, as_lane

BUNDLE = "the server's bundle"
HOUR_MS = 3_600_000


def signed(key: KeyFile, message: bytes) -> str:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key.private_key)).sign(message).hex()


@dataclass
class Desk:
    """The server's side, and what a device would send."""

    path: Path
    procedures: Enrolment

    def code(self, device: str = "car_one", secret: bytes = bytes(16), *, hours: int = 24) -> Code:
        """Invite a device and return its code."""
        code = Code(device, secret, enrolment.fingerprint(BUNDLE))
        proof = code.proof_key().public_key().public_bytes_raw().hex()
        now_ms = _now_ms()
        ticket = enrolment.ticket_sha256(code.ticket())
        with Registry.open(self.path, write=True) as registry:
            registry.invite_device(Invitation(device, ticket, proof, now_ms + hours * HOUR_MS, 0, ""), now_ms)
        return code

    def request(self, code: Code, key: KeyFile) -> list[str]:
        """Return the arguments of odograph.enrol, as a device with this code makes them."""
        message = enrolment.enrolment(code.device, key.public_key, code.fingerprint.hex())
        return [key.public_key, code.fingerprint.hex(), code.proof_key().sign(message).hex(), signed(key, message)]

    def call(self, name: str, device: str, *arguments: object) -> Any:  # noqa: ANN401 - what the procedure answers
        """Call a procedure as a device; return the answer, or the last word of the error's URI."""
        details = cast("Any", SimpleNamespace(caller_authid=device))
        found: list[Any] = []
        answer = ensureDeferred(getattr(self.procedures, name)(*arguments, details=details))
        answer.addCallbacks(found.append, lambda failure: found.append(failure.value))
        if isinstance(found[0], ApplicationError):
            return str(found[0].error).rpartition(".")[2]
        assert not isinstance(found[0], BaseException), found
        return found[0]

    def enrol(self, code: Code, key: KeyFile, **different: object) -> Any:  # noqa: ANN401 - as `call`
        """Enrol; `different` arguments by position, as `_0`."""
        arguments: list[object] = list(self.request(code, key))
        for position, value in different.items():
            arguments[int(position[1:])] = value
        return self.call("enrol", code.device, *arguments)

    def state(self, device: str = "car_one") -> tuple[str, str]:
        with Registry.open(self.path) as registry:
            found = registry.device(device)
        assert found is not None
        return found.state, found.pubkey

    def refused(self, action: str = "enrolment.refused") -> list[object]:
        with Registry.open(self.path) as registry:
            return [one.detail["reason"] for one in registry.audit.entries() if one.action == action]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    path = tmp_path / "registry.db"
    with closing(Registry.create(path)):
        yield Desk(path, Enrolment(path, as_lane(InlineLane()), lambda: BUNDLE))


KEY, OTHER = make_key("car_one", "device"), make_key("car_one", "device")


def test_an_invited_device_becomes_active_with_its_own_key_and_gets_the_bundle(desk: Desk) -> None:
    code = desk.code()
    assert desk.state() == ("invited", "")
    assert desk.enrol(code, KEY) == {"bundle": BUNDLE}
    assert desk.state() == ("active", KEY.public_key)


def test_a_code_is_good_once_but_an_answer_that_was_lost_can_be_had_again(desk: Desk) -> None:
    code = desk.code()
    desk.enrol(code, KEY)
    assert desk.enrol(code, OTHER) == "code_used"
    assert desk.enrol(code, KEY) == {"bundle": BUNDLE}
    assert desk.state() == ("active", KEY.public_key)
    assert desk.refused() == ["code_used"]


def test_another_code_for_a_device_that_did_not_hear_the_answer_to_the_first_is_used_up_by_the_key_it_has(
    desk: Desk,
) -> None:
    desk.enrol(desk.code(), KEY)
    code = desk.code(secret=b"another secret!!")
    assert desk.enrol(code, KEY) == {"bundle": BUNDLE}
    assert desk.enrol(code, OTHER) == "code_used"
    assert desk.state() == ("active", KEY.public_key)
    with Registry.open(desk.path) as registry:
        assert registry.device_key("car_one", bundle.key_id(bytes.fromhex(KEY.public_key)), 0) is None


# The eight points of small order, each way in which libraries read one: y of p and p + 1, x of 0 with the other sign.
ORDER_8 = (
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03",
)
WEAK = [
    *("00" * 31 + last for last in ("00", "80")),
    *("01" + "00" * 30 + last for last in ("00", "80")),
    *(first + "ff" * 30 + last for first in ("ec", "ed", "ee") for last in ("7f", "ff")),
    *(ORDER_8[0] + last for last in ("05", "85")),
    *(ORDER_8[1] + last for last in ("7a", "fa")),
]


def forged(message: bytes, weak: str) -> str:
    """Return a signature by nobody's private key; for a message of some, pyca finds none of these good."""
    tried = [weak_r + "00" * 32 for weak_r in WEAK]
    return next((one for one in tried if enrolment.is_signed(message, weak, one)), tried[0])


@pytest.mark.parametrize("weak", WEAK)
def test_a_key_for_which_everybody_can_sign_is_never_a_devices(desk: Desk, weak: str) -> None:
    code = desk.code()
    message = enrolment.enrolment("car_one", weak, code.fingerprint.hex())
    proofs = code.proof_key().sign(message).hex(), forged(message, weak)
    assert desk.call("enrol", "car_one", weak, code.fingerprint.hex(), *proofs) == "invalid_argument"
    desk.enrol(code, KEY)
    message = enrolment.rekeying("car_one", KEY.public_key, weak)
    assert desk.call("rekey", "car_one", weak, signed(KEY, message), forged(message, weak)) == "invalid_argument"
    assert desk.state() == ("active", KEY.public_key)


@pytest.mark.parametrize("cut_at", ["server.pub.json", "ca.pem", "edge.toml"])
def test_an_enrolment_that_dies_between_its_files_is_run_again_and_has_the_same_key(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_at: str
) -> None:
    async def call(_procedure: str, *arguments: object) -> dict[str, object]:
        answer: dict[str, object] = desk.call("enrol", "car_one", *arguments)
        return answer

    def dies(path: Path, content: bytes) -> None:
        if path.name == cut_at:
            raise KeyboardInterrupt
        replace_file(path, content)

    monkeypatch.setattr(console, "join_and_ask", lambda _reactor, _router, _who, question: question(call))
    monkeypatch.setattr(console, "blocking", lambda ask: asyncio.run(ask(None)))
    monkeypatch.setattr(bundle, "parse", lambda text: text)
    certify(Tls(tmp_path / "tls"), (), datetime.now(UTC))
    code, home = desk.code(), tmp_path / "car"
    router = Router("wss://127.0.0.1:1/ws", tmp_path / "tls" / "ca.pem")
    with monkeypatch.context() as cut:
        cut.setattr(console, "replace_file", dies)
        with pytest.raises(KeyboardInterrupt):
            console.enrol(router, code, home, "[device]")
    assert not (home / "edge.toml").exists()
    key = console.enrol(router, code, home, "[device]")
    assert desk.state() == ("active", key.public_key)
    assert sorted(one.name for one in home.iterdir()) == ["ca.pem", "device.key", "edge.toml", "server.pub.json"]


def test_a_servers_home_is_none_for_a_device(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "server.pub.json").write_text(BUNDLE)
    with pytest.raises(ConfigError, match="there already"):
        console.enrol(Router("ws://127.0.0.1:1/ws", None), desk.code(), tmp_path, "")


@pytest.mark.parametrize("state", ["suspended", "revoked"])
def test_a_used_code_opens_nothing_for_a_device_that_was_shut_out(desk: Desk, state: Any) -> None:  # noqa: ANN401
    code = desk.code()
    desk.enrol(code, KEY)
    with Registry.open(desk.path, write=True) as registry:
        registry.set_state("car_one", state, 1)
    assert desk.enrol(code, KEY) == f"{state}_device"
    assert desk.state()[0] == state


def test_what_does_not_fit_a_procedure_is_refused_before_it_is_run(desk: Desk) -> None:
    offered: dict[str, Any] = {}

    class Session:
        async def register(self, procedure: object, uri: str, **_: object) -> None:
            offered[uri] = procedure

    ensureDeferred(desk.procedures.attend(cast("Any", Session())))
    for uri in (ENROL, REKEY):
        for arguments, named in (((), {}), (("",) * 9, {}), ((), {"x": 1})):
            found: list[Any] = []
            ensureDeferred(offered[uri](*arguments, details=None, **named)).addErrback(found.append)
            assert found[0].value.error == INVALID


def test_a_code_that_is_too_old_is_refused(desk: Desk) -> None:
    assert desk.enrol(desk.code(hours=0), KEY) == "code_expired"
    assert desk.state() == ("invited", "")


def test_who_saw_the_ticket_and_everything_that_was_sent_cannot_enrol_a_key_of_their_own(desk: Desk) -> None:
    """The router's operator, who has let the device's own call fall."""
    code = desk.code()
    seen = desk.request(code, KEY)
    message = enrolment.enrolment("car_one", OTHER.public_key, code.fingerprint.hex())
    forgeries = [
        [OTHER.public_key, *seen[1:]],
        [OTHER.public_key, seen[1], seen[2], signed(OTHER, message)],
        [OTHER.public_key, seen[1], signed(OTHER, message), signed(OTHER, message)],
        [OTHER.public_key, seen[1], bytes.fromhex(code.ticket()).hex() * 2, signed(OTHER, message)],
    ]
    assert [desk.call("enrol", "car_one", *forgery) for forgery in forgeries] == ["wrong_proof"] * 4
    assert desk.state() == ("invited", "")
    assert desk.enrol(code, KEY) == {"bundle": BUNDLE}


def test_who_reads_the_registry_cannot_make_the_code_of_it(desk: Desk) -> None:
    code = desk.code(secret=b"0123456789abcdef")
    held = desk.path.read_bytes()
    derived = code.proof_key().private_bytes_raw()
    for secret in (code.secret, bytes.fromhex(code.ticket()), derived):
        assert secret not in held
        assert secret.hex().encode() not in held
    assert code.text().encode() not in held
    assert "0123" not in repr(code)
    assert code.secret.hex() not in repr(code)


def test_every_secret_and_every_signature_is_for_one_device_and_one_purpose() -> None:
    code, other = (Code(device, bytes(16), bytes(16)) for device in ("car_one", "car_two"))
    seeds = [one.proof_key().private_bytes_raw().hex() for one in (code, other)]
    assert len({code.ticket(), other.ticket(), *seeds}) == 4
    assert enrolment.rekeying("car_one", "aa", "bb") != enrolment.enrolment("car_one", "aa", "bb")


def test_five_wrong_tries_lock_a_code_for_good_and_all_are_in_the_log_by_their_number(desk: Desk) -> None:
    code = desk.code()
    assert [desk.enrol(code, KEY, _2="00" * 64) for _ in range(50)] == ["wrong_proof"] * 50
    assert desk.enrol(code, KEY) == "code_locked"
    assert desk.refused() == ["wrong_proof", "code_locked"]
    desk.procedures._note_minute()
    assert desk.refused() == ["wrong_proof", "code_locked", "wrong_proof"]
    with Registry.open(desk.path) as registry:
        assert registry.audit.entries()[-1].detail == {"reason": "wrong_proof", "count": 49}
    assert desk.enrol(desk.code(secret=bytes(15) + b"1"), KEY) == {"bundle": BUNDLE}


@pytest.mark.parametrize(
    ("different", "reason"),
    [
        ({"_0": "zz" * 32}, "invalid_argument"),
        ({"_0": KEY.public_key.upper()}, "invalid_argument"),
        ({"_0": None}, "invalid_argument"),
        ({"_1": "00" * 16}, "bundle_changed"),
        ({"_1": None}, "bundle_changed"),
        ({"_2": ""}, "wrong_proof"),
        ({"_2": 5}, "wrong_proof"),
        ({"_2": "0g" * 64}, "wrong_proof"),
        ({"_3": "00" * 64}, "wrong_proof"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name_and_noted(desk: Desk, different: dict[str, object], reason: str) -> None:
    assert desk.enrol(desk.code(), KEY, **different) == reason
    assert desk.state() == ("invited", "")
    assert desk.refused() == [reason]


def test_the_code_of_one_device_is_none_of_another(desk: Desk) -> None:
    code, _ = desk.code("car_one"), desk.code("car_two", b"1" * 16)
    assert desk.enrol(replace(code, device="car_two"), make_key("car_two", "device")) == "wrong_proof"
    assert desk.call("enrol", "car_two", *desk.request(code, KEY)) == "wrong_proof"
    assert desk.call("enrol", "car_new", *desk.request(code, KEY)) == "wrong_proof"
    assert desk.refused() == ["wrong_proof", "wrong_proof"]  # the first two are one refusal, which came twice


def test_a_device_changes_its_key_with_the_word_of_both(desk: Desk) -> None:
    desk.enrol(desk.code(), KEY)
    message = enrolment.rekeying("car_one", KEY.public_key, OTHER.public_key)
    good = [OTHER.public_key, signed(KEY, message), signed(OTHER, message)]
    for wrong in ([good[0], good[2], good[2]], [good[0], good[1], good[1]], [KEY.public_key, *good[1:]]):
        assert desk.call("rekey", "car_one", *wrong) == "wrong_proof"
    assert desk.call("rekey", "car_two", *good) == "wrong_proof"
    assert desk.call("rekey", "car_one", "nonsense", *good[1:]) == "invalid_argument"
    assert desk.state() == ("active", KEY.public_key)
    assert desk.call("rekey", "car_one", *good) == {"device": "car_one"}
    assert desk.state() == ("active", OTHER.public_key)
    back = enrolment.rekeying("car_one", OTHER.public_key, KEY.public_key)
    assert desk.call("rekey", "car_one", KEY.public_key, signed(OTHER, back), signed(KEY, back)) == "not_rekeyed"
    assert desk.refused("rekey.refused") == ["wrong_proof", "wrong_proof", "invalid_argument", "not_rekeyed"]


@pytest.mark.parametrize("state", ["active", "revoked"])
def test_a_code_for_a_device_that_is_there_replaces_its_key_for_good(desk: Desk, state: Any) -> None:  # noqa: ANN401
    """A Pi that broke or was stolen, and the one in its place."""
    first, kid = desk.code(), bundle.key_id(bytes.fromhex(KEY.public_key))
    desk.enrol(first, KEY)
    with Registry.open(desk.path, write=True) as registry:
        registry.set_state("car_one", state, 1)
    code = desk.code(secret=b"another secret!!")
    assert desk.state() == ("active" if state == "active" else "invited", KEY.public_key)
    assert desk.enrol(first, KEY) == "wrong_proof"
    if state == "revoked":
        assert desk.enrol(code, KEY) == "key_had_before"
    assert desk.enrol(code, OTHER) == {"bundle": BUNDLE}
    assert desk.state() == ("active", OTHER.public_key)
    back = enrolment.rekeying("car_one", OTHER.public_key, KEY.public_key)
    assert desk.call("rekey", "car_one", KEY.public_key, signed(OTHER, back), signed(KEY, back)) == "not_rekeyed"
    with Registry.open(desk.path) as registry:
        sender = registry.sender("car_one", kid)
        assert sender is not None
        assert sender.pubkey == OTHER.public_key, "no packet of the key before is taken any more"
        details = [one.detail for one in registry.audit.entries() if one.action == "device.enrolled"]
    assert details[-1] == {"pubkey": [KEY.public_key, OTHER.public_key]}


def test_a_code_is_void_for_whoever_is_shut_out_after_it_was_made(desk: Desk) -> None:
    desk.enrol(desk.code(), KEY)
    code = desk.code(secret=b"another secret!!")
    with Registry.open(desk.path, write=True) as registry:
        registry.set_state("car_one", "suspended", 1)
    assert desk.enrol(code, OTHER) == "suspended_device"
    with pytest.raises(ConfigError, match="car_one is suspended: resume it first, or revoke it"):
        desk.code()
    with Registry.open(desk.path, write=True) as registry:
        registry.set_state("car_one", "revoked", 2)
    assert desk.enrol(code, OTHER) == "revoked_device"
    assert desk.state() == ("revoked", KEY.public_key)


def test_the_code_of_an_operators_id_is_refused(desk: Desk) -> None:
    with Registry.open(desk.path, write=True) as registry:
        registry.add_principal("vera", KEY.public_key, "viewer", 1)
    with pytest.raises(ConfigError, match="'vera' already"):
        desk.code("vera")


def test_a_registry_that_cannot_be_written_is_for_later(desk: Desk) -> None:
    code = desk.code()
    away = desk.path.rename(desk.path.with_suffix(".away"))
    assert desk.enrol(code, KEY) == "unavailable"
    away.rename(desk.path)
    blocked = desk.path.with_name("registry.db-journal")
    blocked.mkdir()
    assert desk.enrol(code, KEY) == "unavailable"
    blocked.rmdir()
    assert desk.enrol(code, KEY) == {"bundle": BUNDLE}


def test_while_the_registry_is_locked_a_refusal_says_why_and_is_noted_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cast("Any", Registry.open).__kwdefaults__, "busy_s", 0.01)
    code = desk.code()
    with closing(sqlite3.connect(desk.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert [desk.enrol(code, KEY, _2="") for _ in range(3)] == ["wrong_proof"] * 3
        assert desk.call("rekey", "car_one", KEY.public_key, "", "") == "wrong_proof"
        with pytest.raises(UnavailableError, match="locked"):
            desk.procedures._note_minute()
        other.execute("ROLLBACK")
    assert desk.refused() == []
    desk.procedures._note_minute()
    with Registry.open(desk.path) as registry:
        found = [(one.action, one.detail["count"]) for one in registry.audit.entries()[-3:]]
    assert found == [("enrolment.refused", 1), ("rekey.refused", 1), ("enrolment.refused", 2)]


def test_a_code_means_the_same_to_every_version() -> None:
    # Computed beside this code: base32 of 32 bytes; HMAC-SHA256 of "odograph-enrol-ticket-v1", 0 and the device.
    code = enrolment.parse("car_one.aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq")
    assert code == Code("car_one", bytes(range(16)), bytes(range(16, 32)))
    assert code.ticket() == "97a7f4cdd0cd6b275c13a465de7b2a1707a08164d29d1cbc249079a1aa6edb99"
    proof_key = code.proof_key().public_key().public_bytes_raw().hex()
    assert proof_key == "d4bf5b0eb575ccacce647cd6228abe636c09911bff3f129c5cfb64aba9da5147"


@pytest.mark.parametrize("form", [str.upper, "{} ".format, lambda one: f"{one[:2]} {one[2:]}", lambda one: one[:-2]])
def test_a_signature_has_one_form(form: Callable[[str], str]) -> None:
    signature = signed(KEY, b"message")
    assert enrolment.is_signed(b"message", KEY.public_key, signature)
    assert not enrolment.is_signed(b"message", KEY.public_key, form(signature))


def test_a_code_comes_back_from_its_text_and_what_is_none_is_refused_without_being_shown() -> None:
    code = Code("car_one", bytes(range(16)), bytes(range(16, 32)))
    assert enrolment.parse(f"  {code.text()}\n") == code
    text = code.text()
    for wrong in (
        "",
        "car_one",
        text[:-1],
        text + "a",
        text.replace(".", ":"),
        text.replace("car_one", "Car"),
        "x" * 99,
    ):
        with pytest.raises(ConfigError, match="this is no enrolment code") as caught:
            enrolment.parse(wrong)
        assert text[10:] not in str(caught.value)
