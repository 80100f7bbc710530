"""Receipts: only the server's own word counts, and only whole."""

import json
from dataclasses import replace
from typing import Any, cast

import pytest
from Crypto.Signature import eddsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from components.wire import receipt, strict_cbor
from components.wire.errors import RejectedError
from components.wire.receipt import MAX_RECEIPTS, Receipt, digest, sign, verify

SERVER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = eddsa.import_public_key(SERVER.public_key().public_bytes_raw())
FOREIGN = Ed25519PrivateKey.from_private_bytes(bytes(32))
KID = "0123456789abcdef"
PACKET = "car_one/00f1e2d3c4b5a697/20261121T100500Z"
STORED = Receipt(digest(b"one"), PACKET, "stored")
REJECTED = Receipt(digest(b"two"), None, "rejected", code="grammar")
RETRY = Receipt(digest(b"three"), PACKET, "retry", code="queue_full", retry_after_s=0)


def test_what_the_server_signed_is_read_back() -> None:
    receipts = (STORED, REJECTED, RETRY)
    assert verify(sign(receipts, KID, SERVER.sign), [KEY]) == (receipts, KID)


def test_each_of_the_servers_keys_counts_and_a_stranger_s_beside_them_does_not() -> None:
    foreign = eddsa.import_public_key(FOREIGN.public_key().public_bytes_raw())
    for keys in ([KEY, foreign], [foreign, KEY]):
        assert verify(sign((STORED,), KID, SERVER.sign), keys) == ((STORED,), KID)
    for keys in ([], [foreign]):
        with pytest.raises(RejectedError, match="signature"):
            verify(sign((STORED,), KID, SERVER.sign), keys)


def test_no_receipts_still_tell_of_the_newest_key() -> None:
    assert verify(sign((), KID, SERVER.sign), [KEY]) == ((), KID)


def test_as_many_receipts_as_allowed_fit_and_one_more_does_not() -> None:
    full = sign((RETRY,) * 1024, KID, SERVER.sign)
    assert len(verify(full, [KEY])[0]) == 1024 == MAX_RECEIPTS
    with pytest.raises(RejectedError):
        verify(sign((RETRY,) * 1025, KID, SERVER.sign), [KEY])


def test_a_receipt_of_another_servers_key_is_refused() -> None:
    with pytest.raises(RejectedError, match="signature"):
        verify(sign((STORED,), KID, FOREIGN.sign), [KEY])


def test_a_signature_over_the_payload_alone_is_refused() -> None:
    # Without the context, any other thing that the server signs could be taken for a receipt.
    with pytest.raises(RejectedError, match="signature"):
        verify(sign((STORED,), KID, lambda message: SERVER.sign(message.removeprefix(b"odograph-receipt-v1"))), [KEY])


def test_of_one_signature_there_is_no_second_form() -> None:
    payload, signature = cast("list[bytes]", strict_cbor.loads(sign((STORED,), KID, SERVER.sign), 1))
    # RFC 8032, 5.1.7: S is below the order of the group; S + L would fit the same equation.
    second = int.from_bytes(signature[32:], "little") + 2**252 + 27742317777372353535851937790883648493
    with pytest.raises(RejectedError, match="signature"):
        verify(strict_cbor.dumps([payload, signature[:32] + second.to_bytes(32, "little")]), [KEY])


def test_every_truncation_and_every_addition_is_refused() -> None:
    whole = sign((STORED,), KID, SERVER.sign)
    for data in [*(whole[:size] for size in range(len(whole))), whole + b"\x00", b"\x00" + whole]:
        with pytest.raises(RejectedError) as caught:
            verify(data, [KEY])
        assert caught.value.code == "grammar"


def test_every_flipped_bit_is_refused() -> None:
    whole = sign((Receipt("0" * 64, None, "stored"),), KID, SERVER.sign)
    for byte in range(len(whole)):
        data = bytearray(whole)
        data[byte] ^= 1 << byte % 8
        with pytest.raises(RejectedError):
            verify(bytes(data), [KEY])


@pytest.mark.parametrize(("size", "code"), [(256 * 1024, "grammar"), (256 * 1024 + 1, "size")])
def test_more_bytes_than_allowed_are_refused_unread(size: int, code: str) -> None:
    with pytest.raises(RejectedError, match=code):
        verify(bytes(size), [KEY])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("v",), True),
        (("v",), 2),
        (("v",), 1.0),
        (("newest_kid",), "x"),
        (("newest_kid",), None),
        (("receipts",), {}),
        (("stranger",), 1),
        (("receipts", 0), []),
        (("receipts", 0, "envelope"), "00"),
        (("receipts", 0, "packet"), "car"),
        (("receipts", 0, "packet"), 1),
        (("receipts", 0, "status"), "lost"),
        (("receipts", 0, "status"), []),
        (("receipts", 0, "code"), "odd"),
        (("receipts", 0, "retry_after_s"), 1),
        (("receipts", 1, "code"), "UPPER"),
        (("receipts", 1, "code"), None),
        (("receipts", 2, "retry_after_s"), 3601),
        (("receipts", 2, "retry_after_s"), -1),
        (("receipts", 2, "retry_after_s"), True),
        (("receipts", 2, "retry_after_s"), None),
        (("receipts", 0, "x"), 1),
    ],
)
def test_even_the_servers_word_must_be_in_form(path: tuple[Any, ...], value: object) -> None:
    parts = strict_cbor.loads(sign((STORED, REJECTED, RETRY), KID, SERVER.sign), 1)
    assert isinstance(parts, list)
    form = found = json.loads(parts[0])
    for step in path[:-1]:
        found = found[step]
    found[path[-1]] = value
    assert refusal(json.dumps(form).encode()) == "schema"


@pytest.mark.parametrize("key", ["v", "receipts", "newest_kid", "envelope", "packet", "status"])
def test_a_word_without_one_of_its_keys_is_refused(key: str) -> None:
    form = json.loads(payload_of(sign((STORED,), KID, SERVER.sign)))
    (form if key in form else form["receipts"][0]).pop(key)
    assert refusal(json.dumps(form).encode()) == "schema"


@pytest.mark.parametrize("payload", [b"[]", b"null", b"{}", b"1", b'"v"', b'{"v":1,"receipts":[null],"newest_kid":""}'])
def test_a_signed_word_that_is_no_object_is_refused(payload: bytes) -> None:
    assert refusal(payload) == "schema"


def test_what_is_no_array_of_two_byte_strings_is_refused_before_any_signature() -> None:
    payload, signature = cast("list[bytes]", strict_cbor.loads(sign((STORED,), KID, SERVER.sign), 1))
    forms = ([payload], [payload, signature, b""], [payload.decode(), signature], [payload, None], payload, None)
    for form in (*forms, {payload: signature}, {}):
        with pytest.raises(RejectedError, match=r"grammar: receipts are an array of two"):
            verify(strict_cbor.dumps(form), [KEY])


def test_the_bounds_themselves_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    receipts = (replace(RETRY, retry_after_s=3600),)
    data = sign(receipts, KID, SERVER.sign)
    monkeypatch.setattr(receipt, "_MAX_BYTES", len(data))
    assert verify(data, [KEY]) == (receipts, KID)
    monkeypatch.setattr(receipt, "_MAX_BYTES", len(data) - 1)
    with pytest.raises(RejectedError, match="size"):
        verify(data, [KEY])


def payload_of(data: bytes) -> bytes:
    return cast("list[bytes]", strict_cbor.loads(data, 1))[0]


def refusal(payload: bytes) -> str:
    with pytest.raises(RejectedError) as caught:
        verify(strict_cbor.dumps([payload, SERVER.sign(b"odograph-receipt-v1" + payload)]), [KEY])
    return caught.value.code


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_by_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(RejectedError) as caught:
        verify(data, [KEY])
    assert caught.value.code == "grammar"


@given(st.binary(max_size=100))
def test_any_signed_payload_is_refused_by_one_kind_of_error(payload: bytes) -> None:
    with pytest.raises(RejectedError, match="schema"):
        verify(strict_cbor.dumps([payload, SERVER.sign(b"odograph-receipt-v1" + payload)]), [KEY])
