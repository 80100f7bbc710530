"""The server's keys: rotated while everything goes on, kept for 45 days, never half there."""

import base64
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.internet.defer import ensureDeferred
from twisted.logger import LogLevel, capturedLogs

from components.cloud import keys as server_keys
from components.cloud.keys import KEPT_MS, KeyRing, ServerKeys, load_server_keys, make_server_keys, rotate
from components.cloud.wamp_fleet import Fleet
from components.console.__main__ import run
from components.console.home import make_home
from components.keyfile import write_secret
from components.wire import bundle
from components.wire.bundle import Bundle, key_id
from components.wire.errors import ConfigError
from components.wire.suites import HPKE_SUITE, RSA_SUITE
from tests.edge_parts import InlineLane, as_lane
from tests.quick_keys import rsa, share_rsa_keys

NOW_MS = 1_779_000_000_000
DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def quick_rsa(monkeypatch: pytest.MonkeyPatch) -> None:
    share_rsa_keys(monkeypatch)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_server_keys(tmp_path / "keys", NOW_MS)
    return tmp_path / "keys"


def old_home(directory: Path) -> tuple[RSAPrivateKey, Ed25519PrivateKey]:
    """Make a directory as it was before there was HPKE: one RSA key, one receipt key, no bundle."""
    directory.mkdir(mode=0o700)
    receipt = Ed25519PrivateKey.generate()
    pem = rsa(50).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    kid, receipt_kid = server_keys._kid(rsa(50)), key_id(receipt.public_key().public_bytes_raw())
    for name, content in (
        (f"{kid}.rsa.pem", pem),
        (f"{receipt_kid}.ed25519", receipt.private_bytes_raw().hex().encode()),
        ("current.toml", f'kid = "{kid}"\nreceipt_kid = "{receipt_kid}"\n'.encode()),
    ):
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o600)
    return rsa(50), receipt


def follows(before: Bundle, after: Bundle) -> bool:
    return bundle.follow(before, bundle.dump(after)) == after


def test_new_keys_are_one_of_each_suite_and_the_cheaper_for_the_server_is_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o755)
    make_server_keys(directory, NOW_MS)
    keys = load_server_keys(directory)
    assert [one.alg for one in keys.newest.recipients] == [HPKE_SUITE, RSA_SUITE]
    hpke, wrapping = (keys.unwrap[one.kid] for one in keys.newest.recipients)
    assert isinstance(hpke, X25519PrivateKey)
    assert isinstance(wrapping, RSAPrivateKey)
    assert wrapping.key_size == 3072
    assert (keys.newest.before, keys.newest.signature) == ("", "")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in directory.iterdir()} == {0o600}
    with pytest.raises(ConfigError, match="has server keys already"):
        make_server_keys(directory, NOW_MS)


@pytest.mark.parametrize("kind", ["*.rsa.pem", "*.x25519", "*.ed25519"])
def test_a_private_key_that_others_may_read_or_that_is_another_is_refused(directory: Path, kind: str) -> None:
    (secret,) = directory.glob(kind)
    secret.chmod(0o640)
    with pytest.raises(ConfigError, match=f"run: chmod 600 {secret}"):
        load_server_keys(directory)
    secret.chmod(0o600)
    other = secret.rename(secret.with_name("0" * 16 + secret.name[16:]))
    with pytest.raises(ConfigError, match="than its name says"):
        load_server_keys(directory)
    other.write_text("nothing")
    with pytest.raises(ConfigError, match="is not"):
        load_server_keys(directory)
    other.unlink()
    if kind != "*.rsa.pem":
        with pytest.raises(ConfigError, match="does not exist"):
            load_server_keys(directory)


def test_a_bundle_under_another_name_is_refused(directory: Path) -> None:
    (public,) = directory.glob("*.pub.json")
    made, _ = rotate(directory, NOW_MS + 1)
    public.write_bytes((directory / f"{made.kid}.pub.json").read_bytes())
    with pytest.raises(ConfigError, match="holds another bundle than its name says"):
        load_server_keys(directory)


def encrypted(key: RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def of_no_known_kind(key: RSAPrivateKey) -> bytes:
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    other = der.replace(bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a864886f70d01017f"))
    return b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(other) + b"-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize("spoil", [encrypted, of_no_known_kind])
def test_an_rsa_key_that_cannot_be_used_is_told(directory: Path, spoil: Callable[[RSAPrivateKey], bytes]) -> None:
    (path,) = directory.glob("*.rsa.pem")
    path.write_bytes(spoil(rsa(0)))
    with pytest.raises(ConfigError, match="is not an RSA private key of at least"):
        load_server_keys(directory)


def test_an_rsa_key_that_is_too_short_and_a_directory_that_is_none_are_told(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_keys, "RSA_BITS", 1025)
    with pytest.raises(ConfigError, match="is not an RSA private key of at least 1025 bits"):
        load_server_keys(directory)
    with pytest.raises(ConfigError, match="none has no server keys: run: odograph init"):
        rotate(directory / "none", NOW_MS)


def test_bundles_that_name_each_other_as_the_one_before_end_the_chain(directory: Path) -> None:
    first = load_server_keys(directory).newest
    second, _ = rotate(directory, NOW_MS + 1)
    (directory / f"{first.kid}.pub.json").write_text(bundle.dump(replace(first, before=second.kid)))
    assert [one.kid for one in load_server_keys(directory).chain] == [first.kid, second.kid]


def test_a_bundle_that_is_gone_is_made_again_for_nobody_but_an_old_home(directory: Path) -> None:
    (public,) = directory.glob("*.pub.json")
    public.unlink()
    with pytest.raises(ConfigError, match=r"has no bundle beside it: restore <kid>\.pub\.json"):
        load_server_keys(directory)


def test_each_rotation_is_signed_by_the_key_before_and_what_was_sealed_before_still_opens(directory: Path) -> None:
    first = load_server_keys(directory)
    second, removed = rotate(directory, NOW_MS + 1 * DAY_MS)
    third, _ = rotate(directory, NOW_MS + 2 * DAY_MS)
    keys = load_server_keys(directory)
    assert keys.chain == (first.newest, second, third)
    assert follows(first.newest, second)
    assert follows(second, third)
    assert removed == []
    assert {one.kid for each in keys.chain for one in each.recipients} == keys.unwrap.keys()
    assert len(keys.unwrap) == 6
    assert third.former_receipt_keys == (second.receipt_public_key, first.newest.receipt_public_key)
    assert keys.following(first.newest.kid) == second
    assert keys.following(second.kid) == third
    assert keys.following(third.kid) is keys.following("0" * 16) is None


def test_a_receipt_is_signed_by_the_key_that_goes_with_the_key_the_packet_was_sealed_for(directory: Path) -> None:
    first = load_server_keys(directory).newest
    second, _ = rotate(directory, NOW_MS + DAY_MS)
    keys = load_server_keys(directory)
    by = {one.kid: each.receipt_public_key for each in (first, second) for one in each.recipients}
    by |= {"": second.receipt_public_key, "0" * 16: second.receipt_public_key}
    for kid, public in by.items():
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(keys.signer(kid)(b"receipt"), b"receipt")


def test_private_keys_stay_for_45_days_after_they_retired_and_the_next_rotation_removes_them(directory: Path) -> None:
    first = load_server_keys(directory).newest
    second, _ = rotate(directory, NOW_MS + DAY_MS)
    third, removed = rotate(directory, NOW_MS + DAY_MS + KEPT_MS - 1)
    assert removed == []
    assert first.receipt_public_key in third.former_receipt_keys
    fourth, removed = rotate(directory, NOW_MS + DAY_MS + KEPT_MS)
    assert removed == [first.kid]
    assert first.receipt_public_key not in fourth.former_receipt_keys
    keys = load_server_keys(directory)
    assert not {one.kid for one in first.recipients} & keys.unwrap.keys()
    assert not [path for path in directory.iterdir() if path.name[:16] == first.receipt_kid]
    # A device that was away all that time still climbs from where it was.
    assert [one.kid for one in keys.chain] == [first.kid, second.kid, third.kid, fourth.kid]
    assert rotate(directory, NOW_MS + DAY_MS + KEPT_MS + 1)[1] == []


def test_a_home_from_before_there_was_hpke_goes_on_and_its_devices_can_follow(tmp_path: Path) -> None:
    key, _ = old_home(tmp_path / "keys")
    old = load_server_keys(tmp_path / "keys").newest
    assert (old.kid, [one.alg for one in old.recipients]) == (server_keys._kid(key), [RSA_SUITE])
    # What its devices were given.
    given = bundle.parse(bundle.dump(old))
    assert json.loads(bundle.dump(old))["v"] == 1
    made, _ = rotate(tmp_path / "keys", NOW_MS)
    assert follows(given, made)
    assert given.receipt_public_key in made.former_receipt_keys
    assert load_server_keys(tmp_path / "keys").chain == (old, made)
    again, _ = rotate(tmp_path / "keys", NOW_MS + 2 * KEPT_MS)
    assert follows(made, again)
    assert key.public_key().public_numbers() not in [
        one.public_key().public_numbers()
        for one in load_server_keys(tmp_path / "keys").unwrap.values()
        if isinstance(one, RSAPrivateKey)
    ]


@pytest.mark.parametrize("step", range(6))
def test_a_rotation_that_dies_anywhere_leaves_the_keys_of_before_whole(
    directory: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    before = load_server_keys(directory).newest
    steps = iter(range(100))

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def maybe(*arguments: Any) -> Any:  # noqa: ANN401 - as what it stands for
            if next(steps) == step:
                raise KeyboardInterrupt
            return call(*arguments)

        return maybe

    for name in ("write_secret", "replace_file", "sync_directory"):
        monkeypatch.setattr(server_keys, name, dying(getattr(server_keys, name)))
    with pytest.raises(KeyboardInterrupt):
        rotate(directory, NOW_MS + 1)
    assert load_server_keys(directory).newest == before
    made, _ = rotate(directory, NOW_MS + 2)
    assert follows(before, made)
    assert load_server_keys(directory).newest == made


def test_a_secret_file_is_there_whole_or_not_at_all_and_replaces_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(_handle: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "secret"
    with monkeypatch.context() as cut:
        cut.setattr(os, "fsync", dies)
        with pytest.raises(KeyboardInterrupt):
            write_secret(path, b"first")
    assert not path.exists()
    write_secret(path, b"second")
    with pytest.raises(ConfigError, match="there already"):
        write_secret(path, b"third")
    assert [(one.name, one.read_bytes(), stat.S_IMODE(one.stat().st_mode)) for one in tmp_path.iterdir()] == [
        ("secret", b"second", 0o600)
    ]


def test_a_clock_behind_the_last_rotation_and_a_second_rotation_at_once_change_nothing(directory: Path) -> None:
    before = sorted(directory.iterdir())
    with pytest.raises(ConfigError, match="later than now: set the clock"):
        rotate(directory, NOW_MS - 1)
    with server_keys._alone(directory), pytest.raises(ConfigError, match="another rotation is under way"):
        rotate(directory, NOW_MS + 1)
    assert sorted(directory.iterdir()) == before


def test_a_key_ring_gives_the_new_keys_as_soon_as_they_are_there_and_reads_them_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = KeyRing(directory)
    first = ring.keys()
    assert ring.keys() is first
    made, _ = rotate(directory, NOW_MS + 1)
    reads = []

    def load(path: Path) -> ServerKeys:
        reads.append(path)
        return load_server_keys(path)

    monkeypatch.setattr(server_keys, "load_server_keys", load)
    assert ring.keys().newest == made
    assert ring.keys() is ring.keys()
    assert reads == [directory]


def test_a_key_ring_keeps_the_keys_of_before_while_the_new_ones_are_half_there(directory: Path) -> None:
    ring = KeyRing(directory)
    first = ring.keys()
    made, _ = rotate(directory, NOW_MS + 1)
    missing = directory / f"{made.kid}.x25519"
    secret = missing.read_bytes()
    missing.unlink()
    with capturedLogs() as told:
        assert ring.keys() is ring.keys() is first
    assert [one["log_level"] for one in told] == [LogLevel.error]
    missing.write_bytes(secret)
    missing.chmod(0o600)
    os.utime(directory, ns=(1, 1))
    assert ring.keys().newest == made


def test_the_fleet_procedure_gives_the_newest_bundle_or_the_one_that_follows(directory: Path) -> None:
    ring, nothing = KeyRing(directory), cast("Any", None)
    fleet = Fleet(nothing, nothing, as_lane(InlineLane()), ring.keys)

    def asked(*arguments: object) -> Any:  # noqa: ANN401 - whatever it answers
        call: Any = fleet.public_bundle
        answers: list[object] = []
        ensureDeferred(call(*arguments)).addBoth(answers.append)
        return answers[0]

    first = ring.keys().newest
    assert bundle.parse(asked()) == first
    assert asked(first.kid) is None
    second, _ = rotate(directory, NOW_MS + 1)
    third, _ = rotate(directory, NOW_MS + 2)
    assert [bundle.parse(asked(*after)) for after in ((first.kid,), (second.kid,), ())] == [second, third, third]
    assert [asked(third.kid), asked("f" * 16)] == [None, None]
    assert asked(5).value.error == "odograph.error.invalid_argument"


def test_keys_rotate_and_keys_list_say_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = make_home(tmp_path / "var", NOW_MS)
    first = bundle.parse(home.bundle.read_text())
    assert run(["keys", "rotate", "--home", str(home.path)]) == 0
    made = bundle.parse(home.bundle.read_text())
    assert follows(first, made)
    assert f"the newest key is {made.kid}; {first.kid} opens packets for 45 days more" in capsys.readouterr().out
    assert run(["keys", "list", "--json", "--home", str(home.path)]) == 0
    old, new = json.loads(capsys.readouterr().out)
    assert (old["kid"], old["made"], old["retired"], old["opens"]) == (first.kid, first.made, made.made, True)
    assert (new["kid"], new["retired"], new["kept_until"], new["opens"]) == (made.kid, None, None, True)
    assert (new["suites"], old["kept_until"] > old["retired"]) == ([HPKE_SUITE, RSA_SUITE], True)
    assert run(["keys", "list", "--home", str(home.path)]) == 0
    printed = capsys.readouterr().out
    assert first.kid in printed
    assert made.made[:10] in printed


def test_keys_of_no_home_are_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("rotate", "list"):
        assert run(["keys", command, "--home", str(tmp_path)]) == 2
        assert capsys.readouterr().err == f"odograph: {tmp_path}/keys has no server keys: run: odograph init\n"
