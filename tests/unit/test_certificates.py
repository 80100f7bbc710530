import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import crypto

from components.cloud.certificates import ALWAYS, ROUTER_LIFE, Tls, certify, hosts_of
from components.wire.errors import ConfigError

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def verified(certificate: x509.Certificate, ca: Path, at: datetime) -> bool:
    """Whether OpenSSL takes it at that time, with this CA alone."""
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(x509.load_pem_x509_certificate(ca.read_bytes())))
    store.set_time(at)
    try:
        crypto.X509StoreContext(store, crypto.X509.from_cryptography(certificate)).verify_certificate()
    except crypto.X509StoreContextError:
        return False
    return True


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(tmp_path / "tls")


def test_the_routers_certificate_is_of_the_ca_and_names_its_hosts(tls: Tls) -> None:
    made = certify(tls, ["Router.Example.org", "192.0.2.7", "2001:db8::7"], NOW)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "router.example.org"]
    addresses = ["127.0.0.1", "192.0.2.7", "2001:db8::7"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(one) for one in addresses]
    assert verified(made, tls.ca, NOW)
    other = Tls(tls.path.with_name("other"))
    certify(other, [], NOW)
    assert not verified(made, other.ca, NOW)


def test_a_pi_whose_clock_says_1970_takes_it_and_nobody_does_after_its_end(tls: Tls) -> None:
    made = certify(tls, [], NOW)
    assert verified(made, tls.ca, datetime(1970, 1, 1, 0, 1, tzinfo=UTC))
    assert verified(made, tls.ca, NOW + timedelta(days=700))
    assert not verified(made, tls.ca, NOW + timedelta(days=900))


def test_private_keys_are_for_their_owner_alone_and_the_router_has_its_own(tls: Tls) -> None:
    made = certify(tls, [], NOW)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tls.path.iterdir()}
    assert modes == {"ca.key": 0o600, "ca.pem": 0o644, "router.pem": 0o600}
    assert load_pem_private_key(tls.router.read_bytes(), None).public_key() == made.public_key()
    assert b"PRIVATE" not in tls.ca.read_bytes()


def test_the_routers_certificate_cannot_sign_another(tls: Tls) -> None:
    made = certify(tls, [], NOW)
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not made.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_a_renewal_is_of_the_same_ca_for_the_same_hosts_with_another_key(tls: Tls) -> None:
    first, ca = certify(tls, ["router.example.org"], NOW), tls.ca.read_bytes()
    later = NOW + timedelta(days=800)
    second = certify(tls, [], later)
    assert tls.ca.read_bytes() == ca
    assert verified(second, tls.ca, later + timedelta(days=800))
    assert hosts_of(second) == hosts_of(first) == [*ALWAYS, "router.example.org"]
    assert second.public_key() != first.public_key()
    assert hosts_of(certify(tls, ["192.0.2.7"], later)) == [*ALWAYS, "192.0.2.7"]


def test_no_certificate_outlives_its_ca_and_one_that_is_over_makes_none(tls: Tls) -> None:
    certify(tls, [], NOW)
    ca = x509.load_pem_x509_certificate(tls.ca.read_bytes())
    late = ca.not_valid_after_utc - timedelta(days=1)
    assert certify(tls, [], late).not_valid_after_utc == ca.not_valid_after_utc < late + ROUTER_LIFE
    with pytest.raises(ConfigError, match="is over"):
        certify(tls, [], ca.not_valid_after_utc)


def test_a_ca_whose_making_was_cut_short_is_made_again(tls: Tls) -> None:
    tls.path.mkdir()
    tls.ca_key.write_text("half a k")
    assert verified(certify(tls, [], NOW), tls.ca, NOW)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda tls: tls.ca_key.chmod(0o640), "can be read or written by others"),
        (lambda tls: tls.ca_key.unlink(), "ca.key does not exist"),
        (lambda tls: tls.ca.unlink(), "ca.pem does not exist"),
        (lambda tls: tls.ca_key.write_text("nonsense"), "no private key in PEM"),
        (lambda tls: tls.ca.write_text("nonsense"), "no certificate in PEM"),
        (lambda tls: tls.ca_key.write_bytes(tls.router.read_bytes()), "is not the key of"),
    ],
)
def test_a_ca_that_is_not_whole_signs_nothing_and_is_never_replaced(tls: Tls, harm: object, says: str) -> None:
    certify(tls, [], NOW)
    harm(tls)  # type: ignore[operator]
    before = {path.name: path.read_bytes() for path in tls.path.iterdir()}
    with pytest.raises(ConfigError, match=says):
        certify(tls, [], NOW)
    assert {path.name: path.read_bytes() for path in tls.path.iterdir()} == before


@pytest.mark.parametrize("host", ["", "a b", "-a", "a_b", "a..b", "wss://router", "router:8080", "a" * 64, "ä.example"])
def test_what_is_no_host_is_refused_before_anything_is_made(tls: Tls, host: str) -> None:
    with pytest.raises(ConfigError, match="neither a host name nor an address"):
        certify(tls, [host], NOW)
    assert not tls.path.exists()
