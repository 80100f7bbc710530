"""The server's bundle: what it refuses, and that a device climbs from one to the next and nowhere else."""

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from Crypto.PublicKey import RSA
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from components.edge.trust import Trust
from components.wire import bundle
from components.wire.bundle import Bundle, Recipient, key_id
from components.wire.errors import ConfigError, RejectedError
from components.wire.suites import HPKE_SUITE, RSA_SUITE

MADE = "2026-11-21T10:05:00Z"


@cache
def rsa() -> RSA.RsaKey:
    return RSA.generate(2048).public_key()


def receipt_key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def public(number: int) -> str:
    return receipt_key(number).public_key().public_bytes_raw().hex()


def rsa_recipient() -> Recipient:
    return Recipient(RSA_SUITE, key_id(rsa().export_key("DER")), rsa().export_key().decode() + "\n")


def generation(number: int, **other: Any) -> Bundle:  # noqa: ANN401 - any field
    """Return the bundle of that number in a chain; 1 is the first."""
    raw = X25519PrivateKey.from_private_bytes(bytes([number]) * 32).public_key().public_bytes_raw()
    made = Bundle(
        "odograph",
        (Recipient(HPKE_SUITE, key_id(raw), raw.hex()), rsa_recipient()),
        public(number),
        tuple(public(one) for one in range(number - 1, 0, -1)),
        MADE,
        generation(number - 1).kid if number > 1 else "",
    )
    made = replace(made, **other)
    return bundle.signed(made, receipt_key(number - 1).sign) if number > 1 else made


def version_1() -> Bundle:
    return Bundle("odograph", (rsa_recipient(),), public(1))


def refusal(trusted: Bundle, text: str) -> str:
    with pytest.raises(RejectedError) as caught:
        bundle.follow(trusted, text)
    return caught.value.code


@pytest.mark.parametrize("made", [version_1(), generation(1), generation(3)], ids=["version 1", "first", "third"])
def test_a_bundle_comes_back_as_it_was(made: Bundle) -> None:
    text = bundle.dump(made)
    assert bundle.parse(text) == made
    assert json.loads(text)["v"] == (2 if made.made else 1)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"v": 3}, "version 3"),
        ({"v": True}, "version True"),
        ({"extra": 1}, "extra: unknown key"),
        ({"kid": None}, "kid: missing or not text"),
        ({"kid": "00" * 8}, r"recipients\[0\].kid: not the id of public_key"),
        ({"receipt_kid": "00" * 8}, "receipt_kid: not the id of receipt_public_key"),
        ({"rsa_public_key": "-----BEGIN"}, "public_key: not a public key"),
        ({"receipt_public_key": "00"}, "receipt_public_key: must match"),
    ],
)
def test_every_fault_of_a_bundle_of_version_1_is_named(change: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        bundle.parse(json.dumps({**json.loads(bundle.dump(version_1())), **change}))


@pytest.mark.parametrize("name", ["realm", "kid", "rsa_public_key", "receipt_kid", "receipt_public_key"])
def test_what_a_bundle_of_version_1_lacks_is_named(name: str) -> None:
    document = json.loads(bundle.dump(version_1()))
    del document[name]
    with pytest.raises(ConfigError, match=f"{name}: missing"):
        bundle.parse(json.dumps(document))


NO_POINT = "02" + "00" * 31
RECIPIENT = json.loads(bundle.dump(generation(1)))["recipients"][0]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"v": 2.0}, "version 2.0"),
        ({"extra": 1}, "extra: unknown key"),
        ({"realm": ""}, "realm: must match"),
        ({"realm": 1}, "realm: must match"),
        ({"made": "yesterday"}, "made: 'yesterday' is no UTC time"),
        ({"made": 5}, "made: 5 is no UTC time"),
        ({"before": "0"}, "before: must match"),
        ({"before": None}, "before: must match"),
        ({"signature": "00" * 63}, "signature: must match"),
        ({"receipt_public_key": "AB" * 32}, "receipt_public_key: must match"),
        ({"receipt_public_key": NO_POINT}, "receipt_public_key or former_receipt_keys: not a public key"),
        ({"former_receipt_keys": [NO_POINT]}, "receipt_public_key or former_receipt_keys: not a public key"),
        ({"former_receipt_keys": ["00"]}, "former_receipt_keys: must be a list"),
        ({"former_receipt_keys": None}, "former_receipt_keys: must be a list"),
        ({"former_receipt_keys": [5]}, "former_receipt_keys: must be a list"),
        ({"recipients": []}, "recipients: must be a list of at least one key"),
        ({"recipients": {}}, "recipients: must be a list of at least one key"),
        ({"recipients": 5}, "recipients: must be a list of at least one key"),
        ({"recipients": ["x"]}, r"recipients\[0\]: must have alg, kid and public_key"),
        ({"recipients": [{**RECIPIENT, "extra": 1}]}, r"recipients\[0\]: must have alg, kid and public_key"),
        ({"recipients": [{**RECIPIENT, "kid": "00" * 8}]}, r"recipients\[0\].kid: not the id of public_key"),
        ({"recipients": [{**RECIPIENT, "kid": 1}]}, r"recipients\[0\].kid: must match"),
        ({"recipients": [{**RECIPIENT, "public_key": "00" * 32}]}, r"recipients\[0\].public_key: not a public key"),
        ({"recipients": [{**RECIPIENT, "alg": RSA_SUITE}]}, r"recipients\[0\].public_key: not a public key"),
    ],
)
def test_every_fault_of_a_bundle_of_version_2_is_named(change: dict[str, object], fault: str) -> None:
    document = json.loads(bundle.dump(generation(1)))
    with pytest.raises(ConfigError, match=fault):
        bundle.parse(json.dumps({**document, **change}))
    for name in change.keys() & document.keys() - {"v"}:
        without = {key: value for key, value in document.items() if key != name}
        with pytest.raises(ConfigError, match=f"{name}: missing"):
            bundle.parse(json.dumps(without))


@pytest.mark.parametrize("text", ["", "[]", "nul", "[" * 100_000, '{"v": 2, "v": 2}', " " * 70_000, "\ud800"])
def test_what_is_no_bundle_at_all_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="server bundle"):
        bundle.parse(text)


def test_a_device_climbs_step_by_step_and_from_version_1_too() -> None:
    trusted = generation(1)
    for number in (2, 3, 4):
        trusted = bundle.follow(trusted, bundle.dump(generation(number)))
        assert trusted == generation(number)
    after = bundle.signed(generation(2, before=version_1().kid), receipt_key(1).sign)
    assert bundle.follow(version_1(), bundle.dump(after)) == after


def test_an_older_bundle_the_same_one_and_a_leap_do_not_follow() -> None:
    for other in (1, 2, 3, 5):
        assert refusal(generation(3), bundle.dump(generation(other))) == "order"


def test_a_bundle_that_the_key_before_did_not_sign_does_not_follow() -> None:
    second = generation(2)
    for signature in (
        "",
        "00" * 64,
        receipt_key(9).sign(bundle._signed_bytes(second)).hex(),
        # By its own key, as a stranger would; and the right key over something else.
        receipt_key(2).sign(bundle._signed_bytes(second)).hex(),
        receipt_key(1).sign(bundle._signed_bytes(second).removeprefix(b"odograph-bundle-v2")).hex(),
    ):
        assert refusal(generation(1), bundle.dump(replace(second, signature=signature))) == "signature"


def test_a_former_key_cannot_sign_what_follows() -> None:
    fourth = bundle.signed(generation(4), receipt_key(2).sign)
    assert public(2) in generation(3).former_receipt_keys
    assert refusal(generation(3), bundle.dump(fourth)) == "signature"


@pytest.mark.parametrize(
    "change",
    [
        {"realm": "other"},
        {"made": "2026-11-21T10:05:01Z"},
        {"receipt_public_key": public(9)},
        {"former_receipt_keys": (public(9),)},
        {"former_receipt_keys": ()},
        {"recipients": generation(9).recipients},
        {"recipients": generation(2).recipients[::-1]},
        {"recipients": generation(2).recipients[1:]},
    ],
)
def test_not_a_word_of_a_signed_bundle_can_be_changed(change: dict[str, Any]) -> None:
    assert refusal(generation(1), bundle.dump(replace(generation(2), **change))) == "signature"


@pytest.mark.parametrize("text", ["", "{}", "[" * 9, bundle.dump(version_1()).replace("rsa", "ras")])
def test_what_is_no_bundle_does_not_follow(text: str) -> None:
    assert refusal(generation(1), text) == "grammar"


def test_the_suite_is_the_servers_first_that_is_known_or_the_one_that_is_configured() -> None:
    hpke, wrapping = generation(1).recipients
    assert Trust(generation(1), "auto").sealing.kid == hpke.kid
    assert Trust(generation(1), "hpke").sealing.alg == HPKE_SUITE
    chosen = Trust(generation(1), "rsa-oaep").sealing
    assert (chosen.alg, chosen.kid, chosen.key) == (RSA_SUITE, wrapping.kid, rsa())
    assert Trust(generation(1, recipients=(wrapping, hpke)), "auto").sealing.alg == RSA_SUITE
    later = Recipient("SOMETHING-LATER", "0" * 16, "its key")
    text = bundle.dump(generation(1, recipients=(later, hpke)))
    assert Trust(bundle.parse(text), "auto").sealing.kid == hpke.kid
    assert Trust(version_1(), "auto").sealing.alg == RSA_SUITE
    for alone in (version_1(), generation(1, recipients=(later,))):
        with pytest.raises(ConfigError, match="no key for the suite hpke"):
            Trust(alone, "hpke")


def test_what_does_not_follow_leaves_everything_as_it_was() -> None:
    trust = Trust(generation(1), "hpke")
    before = (trust.kid, trust.sealing, trust.receipt_keys)
    _, wrapping = generation(2).recipients
    without_hpke = bundle.signed(generation(2, recipients=(wrapping,)), receipt_key(1).sign)
    for text, error in ((bundle.dump(generation(3)), RejectedError), (bundle.dump(without_hpke), ConfigError)):
        with pytest.raises(error):
            trust.follow(text)
        assert (trust.kid, trust.sealing, trust.receipt_keys) == before
    trust.follow(bundle.dump(generation(2)))
    assert trust.kid == generation(2).kid
    assert len(trust.receipt_keys) == 2


def test_a_bundle_that_is_too_large_is_not_read() -> None:
    text = bundle.dump(generation(1))
    assert bundle.parse(text + " " * (65536 - len(text))) == generation(1)
    with pytest.raises(ConfigError, match="more than 65536 bytes"):
        bundle.parse(text + " " * (65537 - len(text)))
