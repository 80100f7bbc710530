"""Server keys for tests without the second that each RSA key takes: smaller ones, made once and shared by all tests."""

from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from components.cloud import keys as server_keys


@cache
def rsa(number: int) -> RSAPrivateKey:
    """Return the key of that number, the same each time."""
    del number
    return generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - to be made quickly


def share_rsa_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this test's generations have the shared RSA keys, each another."""
    numbers = iter(range(50))
    monkeypatch.setattr(server_keys, "RSA_BITS", 1024)
    monkeypatch.setattr(server_keys, "generate_private_key", lambda **_: rsa(next(numbers)))
