"""The suites: RFC 9180's own vector through the code that seals and the code that opens, and each against the other."""

import base64
from typing import Any, Final

import pytest
from Crypto.Protocol import DH, HPKE
from Crypto.PublicKey import ECC, RSA
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from components.wire import suites
from components.wire.errors import RejectedError
from components.wire.suites import HPKE_SUITE, RSA_SUITE, SUITES, Sealed
from tests.edge_parts import server_rsa

# The vector that accompanies RFC 9180 for mode 0, kem 0x0020, kdf 0x0001, aead 0x0002 (test-vectors.json of
# cfrg/draft-irtf-cfrg-hpke, which the RFC's appendix A names; the appendix itself prints AES-128-GCM only), its first
# encryption. Go's src/crypto/hpke/testdata/rfc9180.json has the same skRm, pkRm and enc.
INFO: Final = b"Ode on a Grecian Urn"
SK_R: Final = bytes.fromhex("497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d")
PK_R: Final = "430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c"
SK_E: Final = bytes.fromhex("179d4b53b6365c45b600c4163b61d95cbc2f4d9e36f1695558dce265ab8bab11")
ENC: Final = bytes.fromhex("6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256")
PLAINTEXT: Final = b"Beauty is truth, truth beauty"
AAD: Final = b"Count-0"
CIPHERTEXT: Final = bytes.fromhex(
    "e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be9931980a41de125a925cdad859d5b7a"
)
KEY: Final = X25519PrivateKey.from_private_bytes(SK_R)
SUITE: Final = SUITES[HPKE_SUITE]


def no_randomness(_: int) -> bytes:
    raise AssertionError


@pytest.fixture
def ephemeral(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vector's ephemeral key in the place of a random one."""
    monkeypatch.setattr(ECC, "generate", lambda **_: DH.import_x25519_private_key(SK_E))


@pytest.mark.usefixtures("ephemeral")
def test_what_seals_gives_the_vectors_ciphertext() -> None:
    context = HPKE.new(receiver_key=SUITE.read_key(PK_R)[1], aead_id=HPKE.AEAD.AES256_GCM, info=INFO)
    assert context.enc == ENC
    assert context.seal(PLAINTEXT, AAD) == CIPHERTEXT


def test_what_opens_gives_the_vectors_plaintext() -> None:
    # pyca's public call has no AAD; the vector has one. This is the call that it makes itself.
    opened = openssl.hpke._decrypt_with_aad(suites._HPKE, ENC + CIPHERTEXT, KEY, INFO, AAD)
    assert opened == PLAINTEXT
    assert KEY.public_key().public_bytes_raw().hex() == PK_R


@pytest.mark.usefixtures("ephemeral")
def test_the_suite_is_that_vectors_with_the_header_as_info_and_no_aad() -> None:
    public = SUITE.read_key(PK_R)[1]
    sealed = SUITE.seal(PLAINTEXT, INFO, public, no_randomness)
    # AES in counter mode: the AAD changes the tag and nothing before it.
    assert (sealed.wrapped_key, sealed.nonce, sealed.ciphertext[:-16]) == (ENC, b"", CIPHERTEXT[:-16])
    assert SUITE.open(sealed, INFO, KEY) == PLAINTEXT
    private = DH.import_x25519_private_key(SK_R)
    context = HPKE.new(receiver_key=private, aead_id=HPKE.AEAD.AES256_GCM, info=INFO, enc=ENC)
    assert context.unseal(sealed.ciphertext) == PLAINTEXT


def test_what_pyca_seals_by_itself_opens() -> None:
    both = suites._HPKE.encrypt(PLAINTEXT, KEY.public_key(), INFO)
    assert SUITE.open(Sealed(both[:32], b"", both[32:]), INFO, KEY) == PLAINTEXT


def test_the_same_plaintext_sealed_twice_shares_nothing() -> None:
    public = SUITE.read_key(PK_R)[1]
    one, other = (SUITE.seal(PLAINTEXT, INFO, public, no_randomness) for _ in range(2))
    assert one.wrapped_key != other.wrapped_key
    assert one.ciphertext != other.ciphertext


@pytest.mark.parametrize(
    ("enc", "ciphertext", "info", "code"),
    [
        (ENC, CIPHERTEXT, INFO, "decrypt"),
        (b"", ENC + CIPHERTEXT, INFO, "unwrap"),
        (ENC + CIPHERTEXT[:1], CIPHERTEXT[1:], INFO, "unwrap"),
        (ENC[:-1], ENC[-1:] + CIPHERTEXT, INFO, "unwrap"),
        (bytes(32), CIPHERTEXT, INFO, "decrypt"),
        (b"\xff" * 32, CIPHERTEXT, INFO, "decrypt"),
        (ENC, bytes(16), INFO, "decrypt"),
    ],
)
def test_what_is_not_whole_is_refused_by_its_own_code(enc: bytes, ciphertext: bytes, info: bytes, code: str) -> None:
    with pytest.raises(RejectedError) as caught:
        SUITE.open(Sealed(enc, b"", ciphertext), info, KEY)
    assert caught.value.code == code


def test_another_header_does_not_open() -> None:
    sealed = SUITE.seal(PLAINTEXT, INFO, SUITE.read_key(PK_R)[1], no_randomness)
    for header in (b"", INFO[:-1], INFO + b"\0"):
        with pytest.raises(RejectedError, match="decrypt"):
            SUITE.open(sealed, header, KEY)


@pytest.mark.parametrize("alg", sorted(SUITES))
@pytest.mark.parametrize(
    "text", ["", "00", "zz" * 32, "00" * 32, "01" + "00" * 31, "AB" * 32, PK_R + "\n", "-----BEGIN"]
)
def test_a_public_key_that_is_none_is_refused(alg: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        SUITES[alg].read_key(text)


def test_a_key_for_signing_is_no_key_for_sealing() -> None:
    key: Any = ECC.generate(curve="Ed25519").public_key().export_key(format="PEM")
    with pytest.raises(ValueError, match=r"."):
        SUITES[suites.RSA_SUITE].read_key(key + "\n")


@pytest.mark.parametrize(("bits", "exponent"), [(1023, 65537), (8193, 65537), (3072, 65536)])
def test_an_rsa_key_of_no_sane_length_or_with_an_even_exponent_is_none(bits: int, exponent: int) -> None:
    der = RSA.construct((2 ** (bits - 1) + 1, exponent), consistency_check=False).export_key("DER")
    with pytest.raises(ValueError, match="of 1024 to 8192 bits"):
        SUITES[RSA_SUITE].read_key(as_public_pem(der))


@pytest.mark.parametrize("bits", [1024, 8192])
def test_the_shortest_and_the_longest_rsa_key_are_keys(bits: int) -> None:
    der = RSA.construct((2 ** (bits - 1) + 1, 65537), consistency_check=False).export_key("DER")
    assert SUITES[RSA_SUITE].read_key(as_public_pem(der))[0] == der


@pytest.mark.parametrize("inside", ["", "A", "MIA=", "=MIA", "M=IA", "AAAA"])
def test_what_stands_between_the_lines_of_a_pem_and_is_no_key_is_none(inside: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        SUITES[RSA_SUITE].read_key(f"-----BEGIN PUBLIC KEY-----\n{inside}\n-----END PUBLIC KEY-----\n")


def test_a_private_key_under_the_name_of_a_public_one_is_none() -> None:
    with pytest.raises(ValueError, match="no public key"):
        SUITES[RSA_SUITE].read_key(as_public_pem(server_rsa().export_key("DER")))


def as_public_pem(der: bytes) -> str:
    return f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----\n"
