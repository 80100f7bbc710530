"""Envelopes: what one device sealed for one server, and not a bit of it different."""

import random
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from Crypto.Cipher import PKCS1_OAEP
from Crypto.Hash import SHA256
from Crypto.Protocol.DH import import_x25519_public_key
from Crypto.PublicKey import RSA
from Crypto.Signature import pss
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.hashes import SHA256 as PYCA_SHA256
from hypothesis import given
from hypothesis import strategies as st

from components.wire import envelope, strict_cbor
from components.wire.errors import BadInputError, NotYetError, RejectedError
from components.wire.suites import HPKE_SUITE, RSA_SUITE
from tests.sealed import DEVICE, OAEP, SEALING, public, server

PLAIN = b'{"a":1}'
X25519 = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
RSA_KID, X25519_KID = "0" * 16, "2" * 16
HEADER = envelope.Header("car_one", "00f1e2d3c4b5a697", "20261121T100500Z", "a1b2c3d4e5f60718", 7, "0" * 16, "1" * 16)


def seal(plaintext: bytes = PLAIN, seed: int = 1, **other: Any) -> bytes:  # noqa: ANN401 - any field
    return envelope.seal(plaintext, replace(HEADER, **other), public(), SEALING, random.Random(seed).randbytes)  # noqa: S311 - the same bytes again


def seal_hpke(plaintext: bytes = PLAIN, **other: Any) -> bytes:  # noqa: ANN401 - any field
    header = replace(HEADER, alg=HPKE_SUITE, server_kid=X25519_KID, **other)
    key = import_x25519_public_key(X25519.public_key().public_bytes_raw())
    return envelope.seal(plaintext, header, key, SEALING, random.Random(1).randbytes)  # noqa: S311 - not for HPKE


def opened(data: bytes, key: Ed25519PublicKey | None = None) -> bytes:
    found = envelope.parse(data)
    found.verify(key or DEVICE.public_key())
    return found.open({RSA_KID: server(), X25519_KID: X25519})


def with_header(data: bytes, **changes: object) -> bytes:
    """Return an envelope whose header was changed and signed again, by the device's own key."""
    header, *others, _ = parts_of(data)
    form = strict_cbor.loads(header, 1)
    assert isinstance(form, dict)
    return signed(strict_cbor.dumps(form | changes), *others)


def parts_of(data: bytes) -> list[bytes]:
    parts = strict_cbor.loads(data, 1)
    assert isinstance(parts, list)
    return parts


def signed(header: bytes, wrapped: bytes, nonce: bytes, ciphertext: bytes) -> bytes:
    signature = DEVICE.sign(b"odograph-packet-v1" + header + wrapped + nonce + ciphertext)
    return strict_cbor.dumps([header, wrapped, nonce, ciphertext, signature])


def by_hand(packed: bytes, key: bytes = bytes(32), pad: padding.AsymmetricPadding = OAEP, **other: Any) -> bytes:  # noqa: ANN401 - any field
    """Seal with pyca alone what an honest device would not."""
    header, _, nonce, _, _ = parts_of(seal(**other))
    wrapped = server().public_key().encrypt(key, pad)
    return signed(header, wrapped, nonce, AESGCM(key).encrypt(nonce, packed, header + wrapped))


def refusal(data: bytes) -> str:
    with pytest.raises(BadInputError) as caught:
        opened(data)
    return caught.value.code


@pytest.mark.parametrize("coding", sorted(envelope.CODINGS))
@pytest.mark.parametrize("plaintext", [b"", PLAIN, bytes(range(256)) * 100, b'{"count":0}' * 9000])
def test_what_is_sealed_opens(plaintext: bytes, coding: str) -> None:
    data = seal(plaintext, coding=coding)
    assert opened(data) == plaintext
    assert envelope.parse(data).header == replace(HEADER, coding=coding)
    assert envelope.parse(data).header.packet_id == "car_one/00f1e2d3c4b5a697/20261121T100500Z"


@pytest.mark.parametrize("coding", sorted(envelope.CODINGS))
@pytest.mark.parametrize("plaintext", [b"", PLAIN, bytes(range(256)) * 100])
def test_what_is_sealed_with_hpke_opens_and_is_as_the_contract_says(plaintext: bytes, coding: str) -> None:
    data = seal_hpke(plaintext, coding=coding)
    assert opened(data) == plaintext
    header, wrapped, nonce, _, signature = parts_of(data)
    assert (len(wrapped), nonce, len(signature)) == (32, b"", 64)
    assert envelope.parse(data).header == replace(HEADER, coding=coding, alg=HPKE_SUITE, server_kid=X25519_KID)
    assert envelope.server_kid(data) == X25519_KID
    assert len(header) < 256


def test_hpke_weighs_less_by_the_wrapped_key_and_the_nonce() -> None:
    assert len(seal()) - len(seal_hpke()) == 358


@pytest.mark.parametrize(
    ("data", "alg", "kid", "code"),
    [
        # The other suite over the same parts, for the key that it names and for one of the kind that it wants.
        (seal_hpke, RSA_SUITE, X25519_KID, "suite"),
        (seal_hpke, RSA_SUITE, RSA_KID, "grammar"),
        (seal, HPKE_SUITE, RSA_KID, "suite"),
        (seal, HPKE_SUITE, X25519_KID, "grammar"),
        (seal_hpke, HPKE_SUITE, RSA_KID, "suite"),
        (seal, RSA_SUITE, X25519_KID, "suite"),
        # As it was sealed: the change alone is what is refused.
        (seal_hpke, HPKE_SUITE, X25519_KID, ""),
        (seal, RSA_SUITE, RSA_KID, ""),
    ],
)
def test_another_suite_than_it_was_sealed_with_does_not_open_although_the_device_signs_it(
    data: Callable[[], bytes], alg: str, kid: str, code: str
) -> None:
    changed = with_header(data(), alg=alg, server_kid=kid)
    if code:
        assert refusal(changed) == code
    else:
        assert opened(changed) == PLAIN


def test_a_suite_changed_on_the_way_breaks_the_signature() -> None:
    header, *others, signature = parts_of(seal_hpke())
    form = strict_cbor.loads(header, 1)
    assert isinstance(form, dict)
    changed = strict_cbor.dumps(form | {"alg": RSA_SUITE, "server_kid": RSA_KID})
    assert refusal(strict_cbor.dumps([changed, *others, signature])) == "signature"


@pytest.mark.parametrize("field", ["seq", "minute", "coding", "device"])
def test_hpke_binds_every_field_of_the_header(field: str) -> None:
    other = {"seq": 8, "minute": "20261121T100600Z", "coding": "json+zlib", "device": "car_two"}
    assert refusal(with_header(seal_hpke(), **{field: other[field]})) == "decrypt"


def test_with_hpke_every_part_is_bound_to_the_others_without_the_signature() -> None:
    header, wrapped, nonce, ciphertext, _ = parts_of(seal_hpke())
    other = parts_of(seal_hpke())
    assert refusal(signed(other[0], other[1], nonce, ciphertext)) == "decrypt"
    assert refusal(signed(header, wrapped, nonce, other[3])) == "decrypt"
    assert refusal(signed(header, wrapped, bytes(12), ciphertext)) == "grammar"
    assert refusal(signed(header, wrapped + ciphertext[:1], nonce, ciphertext[1:])) == "unwrap"
    assert opened(signed(header, wrapped, nonce, ciphertext)) == PLAIN


def test_with_rsa_an_empty_nonce_is_refused() -> None:
    header, wrapped, _, ciphertext, _ = parts_of(seal())
    assert refusal(signed(header, wrapped, b"", ciphertext)) == "grammar"


def test_every_single_flipped_bit_of_an_hpke_envelope_is_refused() -> None:
    data, key = seal_hpke(b""), DEVICE.public_key()
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RejectedError):
            envelope.parse(bytes(changed)).verify(key)


def test_what_is_no_envelope_names_no_key_and_no_packet() -> None:
    assert [envelope.server_kid(data) for data in (b"", b"\x80", seal()[:-1])] == [""] * 3
    assert [envelope.packet_id(data) for data in (b"", b"\x80", seal()[:-1])] == [None] * 3


def test_the_same_randomness_gives_the_same_bytes_and_other_randomness_shares_nothing() -> None:
    assert seal() == seal()
    assert not set(parts_of(seal())[1:]) & set(parts_of(seal(seed=2))[1:])


def test_every_single_flipped_bit_is_refused() -> None:
    data = seal(b"")
    key = DEVICE.public_key()
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RejectedError) as caught:
            envelope.parse(bytes(changed)).verify(key)
        assert caught.value.code in {"grammar", "signature"}


def test_without_the_signature_every_part_is_still_bound_to_the_others() -> None:
    # A thief of the device's key cannot put one packet's parts beside another's unseen either.
    header, wrapped, nonce, ciphertext, _ = parts_of(seal())
    other = parts_of(seal(seed=2, minute="20261121T100600Z"))
    assert refusal(signed(other[0], wrapped, nonce, ciphertext)) == "decrypt"
    assert refusal(signed(header, other[1], nonce, ciphertext)) == "decrypt"
    assert refusal(signed(header, wrapped, other[2], ciphertext)) == "decrypt"
    assert refusal(signed(header, wrapped, nonce, other[3])) == "decrypt"
    assert opened(signed(header, wrapped, nonce, ciphertext)) == PLAIN


@pytest.mark.parametrize("part", range(5))
def test_a_part_of_another_envelope_breaks_the_signature(part: int) -> None:
    parts, other = parts_of(seal()), parts_of(seal(seed=2, seq=8))
    parts[part] = other[part]
    assert refusal(strict_cbor.dumps(parts)) == "signature"


def test_another_devices_key_does_not_verify() -> None:
    with pytest.raises(RejectedError, match="signature"):
        opened(seal(), Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key())


def test_a_signature_without_the_context_is_refused() -> None:
    parts = parts_of(seal())
    assert refusal(strict_cbor.dumps([*parts[:4], DEVICE.sign(b"".join(parts[:4]))])) == "signature"


def test_a_key_that_is_not_here_may_be_here_later() -> None:
    with pytest.raises(NotYetError) as caught:
        opened(seal(server_kid="f" * 16))
    assert caught.value.code == "unknown_server_key"


def test_what_pyca_wraps_with_sha_256_unwraps_and_with_sha_1_does_not() -> None:
    packed = zlib.compress(PLAIN)
    assert opened(by_hand(packed, coding="json+zlib")) == PLAIN
    old = SHA1()  # noqa: S303 - to be refused
    for mask, label in ((old, PYCA_SHA256()), (PYCA_SHA256(), old)):
        pad = padding.OAEP(padding.MGF1(mask), label, None)
        assert refusal(by_hand(packed, pad=pad, coding="json+zlib")) == "unwrap"


def test_what_the_device_wraps_pycryptodome_unwraps_too() -> None:
    pem = server().private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    oaep = PKCS1_OAEP.new(RSA.import_key(pem), SHA256, lambda seed, n: pss.MGF1(seed, n, SHA256))  # type: ignore[arg-type]
    wrapped = parts_of(seal())[1]
    assert oaep.decrypt(wrapped) == server().decrypt(wrapped, OAEP)


@pytest.mark.parametrize("size", [16, 24])
def test_a_shorter_aes_key_than_the_suite_says_is_refused(size: int) -> None:
    assert refusal(by_hand(zlib.compress(PLAIN), key=bytes(size), coding="json+zlib")) == "unwrap"


@pytest.mark.parametrize("other", [b"", bytes(383), bytes(384), b"\xff" * 384, bytes(385)])
def test_a_wrapped_key_that_is_none_is_refused(other: bytes) -> None:
    header, _, nonce, ciphertext, _ = parts_of(seal())
    assert refusal(signed(header, other, nonce, ciphertext)) == "unwrap"


@pytest.mark.parametrize(
    ("what", "packed"),
    [
        ("nothing", b""),
        ("cut short", zlib.compress(PLAIN)[:-1]),
        ("something behind", zlib.compress(PLAIN) + b"x"),
        ("raw deflate", zlib.compress(PLAIN)[2:-4]),
        ("noise", b"\xff" * 50),
        ("another dictionary", b"\x78\xbb" + bytes(9)),
        ("a bomb", zlib.compress(bytes(64 * 1024 * 1024), 9)),
        ("one byte too many", zlib.compress(bytes(1024 * 1024 + 1))),
    ],
)
def test_what_does_not_inflate_within_bounds_is_refused(what: str, packed: bytes) -> None:
    began = time.process_time()
    assert refusal(by_hand(packed, coding="json+zlib")) == "inflate", what
    assert time.process_time() - began < 1


def test_a_bomb_is_stopped_in_the_memory_of_the_largest_packet() -> None:
    bomb = by_hand(zlib.compress(bytes(64 * 1024 * 1024), 9), coding="json+zlib")
    tracemalloc.start()
    try:
        assert refusal(bomb) == "inflate"
        assert tracemalloc.get_traced_memory()[1] < 4 * envelope.MAX_PLAINTEXT
    finally:
        tracemalloc.stop()


def test_the_largest_plaintext_opens_and_a_larger_one_is_not_sealed() -> None:
    assert opened(seal(bytes(envelope.MAX_PLAINTEXT))) == bytes(envelope.MAX_PLAINTEXT)
    with pytest.raises(ValueError, match="at most"):
        seal(bytes(envelope.MAX_PLAINTEXT + 1))
    with pytest.raises(ValueError, match="at most"):
        seal(random.Random(1).randbytes(300 * 1024))  # noqa: S311 - noise


def test_the_largest_envelope_is_sealed_and_read_and_a_larger_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(seal(PLAIN))
    monkeypatch.setattr(envelope, "MAX_ENVELOPE", size)
    assert opened(seal(PLAIN)) == PLAIN
    monkeypatch.setattr(envelope, "MAX_ENVELOPE", size - 1)
    with pytest.raises(ValueError, match=f"at most {size - 1} bytes, this one {size}"):
        seal(PLAIN)
    monkeypatch.undo()
    header, wrapped, nonce, *_ = parts_of(seal(PLAIN))
    room = envelope.MAX_ENVELOPE - len(signed(header, wrapped, nonce, bytes(70_000))) + 70_000
    full = signed(header, wrapped, nonce, bytes(room))
    assert len(full) == envelope.MAX_ENVELOPE
    assert refusal(full) == "decrypt"
    assert refusal(signed(header, wrapped, nonce, bytes(room + 1))) == "size"


@pytest.mark.parametrize(
    ("field", "value"), [("alg", "RSA1-5"), ("alg", "none"), ("coding", "zstd"), ("coding", "json")]
)
def test_an_unknown_suite_or_coding_is_refused_although_signed(field: str, value: str) -> None:
    header = strict_cbor.loads(parts_of(seal())[0], 1)
    assert isinstance(header, dict)
    _, wrapped, nonce, ciphertext, _ = parts_of(seal())
    assert refusal(signed(strict_cbor.dumps(header | {field: value}), wrapped, nonce, ciphertext)) == "suite"


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": 0},
        {"v": True},
        {"v": 1.0},
        {"v": None},
        {"seq": 0},
        {"seq": -1},
        {"seq": 2**63},
        {"seq": True},
        {"seq": "1"},
        {"seq": 1.0},
        {"device": "Car"},
        {"device": b"car_one"},
        {"device": "car_one\n"},
        {"session": "0" * 15},
        {"minute": "20261121T100500"},
        {"minute": "\u0662" * 8 + "T100500Z"},
        {"epoch": "x" * 16},
        {"server_kid": ""},
        {"device_kid": 1},
        {"alg": ""},
        {"alg": "x" * 41},
        {"coding": "JSON"},
        {"stranger": 1},
    ],
)
def test_a_header_field_out_of_form_is_refused(change: dict[str, object]) -> None:
    parts = parts_of(seal())
    header = strict_cbor.loads(parts[0], 1)
    assert isinstance(header, dict)
    assert refusal(signed(strict_cbor.dumps(header | change), *parts[1:4])) == "grammar"


@pytest.mark.parametrize("field", ["v", "seq", "alg", "device_kid"])
def test_a_header_without_a_field_is_refused(field: str) -> None:
    parts = parts_of(seal())
    header = strict_cbor.loads(parts[0], 1)
    assert isinstance(header, dict)
    del header[field]
    assert refusal(signed(strict_cbor.dumps(header), *parts[1:4])) == "grammar"


def other_forms() -> list[tuple[str, bytes]]:
    data = seal()
    parts = parts_of(data)
    header = parts[0]
    last = header.index(b"\x6aserver_kid")
    swapped = header[:1] + header[last:] + header[1:last]
    return [
        ("nothing", b""),
        ("one byte behind", data + b"\x00"),
        ("one byte missing", data[:-1]),
        ("a longer length than needed", b"\x98\x05" + data[1:]),
        ("an array without end", b"\x9f" + data[1:] + b"\xff"),
        ("a tag in front", b"\xd9\xd9\xf7" + data),
        ("a tag inside", b"\x85\xc2" + data[1:]),
        ("a bignum of two thousand million digits", bytes.fromhex("c5821a7fffffff01")),
        ("a number to compute", bytes.fromhex("c4821a7fffffff01")),
        ("an array in itself", bytes.fromhex("d81c81d81d00")),
        ("four parts", strict_cbor.dumps(parts[:4])),
        ("six parts", strict_cbor.dumps([*parts, b""])),
        ("text for bytes", strict_cbor.dumps(["x", *parts[1:]])),
        ("a map", strict_cbor.dumps(dict(enumerate(parts)))),
        ("a header that is no map", strict_cbor.dumps([strict_cbor.dumps([1]), *parts[1:]])),
        ("a header in another order", strict_cbor.dumps([swapped, *parts[1:]])),
        ("a header with a byte behind", strict_cbor.dumps([header + b"\x00", *parts[1:]])),
        ("a long header", strict_cbor.dumps([bytes(1025), *parts[1:]])),
        ("a nonce of 11", strict_cbor.dumps([*parts[:2], bytes(11), *parts[3:]])),
        ("a ciphertext without its tag", strict_cbor.dumps([*parts[:3], bytes(15), parts[4]])),
        ("a signature of 63", strict_cbor.dumps([*parts[:4], bytes(63)])),
        ("depth", b"\x81" * 100_000),
        ("a length of the sky", bytes.fromhex("5bffffffffffffffff")),
        ("an array of the sky", bytes.fromhex("9b7fffffffffffffff")),
    ]


@pytest.mark.parametrize("number", range(24))
def test_another_form_of_cbor_is_refused(number: int) -> None:
    what, data = other_forms()[number]
    began = time.process_time()
    with pytest.raises(RejectedError) as caught:
        envelope.parse(data)
    assert caught.value.code == "grammar", what
    assert time.process_time() - began < 1


def test_more_bytes_than_allowed_are_refused_unread() -> None:
    with pytest.raises(RejectedError, match="size"):
        envelope.parse(b"\x81" * (envelope.MAX_ENVELOPE + 1))


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(RejectedError) as caught:
        envelope.parse(data)
    assert caught.value.code == "grammar"


@given(st.lists(st.binary(max_size=80), min_size=5, max_size=5), st.binary(max_size=80))
def test_any_five_strings_are_refused_by_one_kind_of_error(parts: list[bytes], header: bytes) -> None:
    parts = [header, parts[1], (parts[2] + bytes(12))[:12], parts[3] + bytes(16), (parts[4] + bytes(64))[:64]]
    with pytest.raises(RejectedError) as caught:
        envelope.parse(strict_cbor.dumps(parts))
    assert caught.value.code == "grammar"


@pytest.mark.parametrize("data", ["c249ffffffffffffffffff", "c4820a01", "d9010281a0", "c11a5f000000", "d9ffff01"])
def test_no_tag_is_read_although_its_form_is_canonical(data: str) -> None:
    with pytest.raises(ValueError, match="not CBOR"):
        strict_cbor.loads(bytes.fromhex(data), 3)
