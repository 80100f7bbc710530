"""A fleet's own CA and the certificate of its router, for who has none; as files of one directory. Rim.

    tls/ca.key       the CA's private key, 0600: only a renewal needs it, so it may lie elsewhere between two
    tls/ca.pem       the CA: what devices and operators trust
    tls/router.pem   the router's private key and certificate, 0600

The last is one file, so that a renewal replaces both or neither.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from components.bounded_file import read_bytes
from components.durable_file import replace_file
from components.keyfile import refuse_open_file, write_secret
from components.wire.errors import ConfigError

CA_LIFE: Final = timedelta(days=20 * 365)
"""As long as a car: changing it means going to each of them."""
ROUTER_LIFE: Final = timedelta(days=825)
ALWAYS: Final = ("localhost", "127.0.0.1")
_BEGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""A Pi without a battery clock starts in 1970, and must reach its router then, too."""
_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_MAX_BYTES: Final = 64 * 1024
_RESTORE: Final = "restore it from your copy"
_HOST: Final = re.compile(rf"(?=.{{1,253}}$)(\*\.)?{_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class Tls:
    """Where a home's CA and its router's certificate lie."""

    path: Path

    @property
    def ca_key(self) -> Path:
        """The CA's private key."""
        return self.path / "ca.key"

    @property
    def ca(self) -> Path:
        """The CA's certificate."""
        return self.path / "ca.pem"

    @property
    def router(self) -> Path:
        """The router's private key and certificate."""
        return self.path / "router.pem"


def certify(tls: Tls, hosts: Sequence[str], now: datetime) -> x509.Certificate:
    """Give the router a new key and certificate, by a CA that is made where there is none; return the certificate.

    Args:
        hosts: Names and addresses by which the router is reached, beside this machine's own; empty: those of the
            certificate that is there.
        now: With a time zone.

    Raises:
        ConfigError: A host is neither a name nor an address; or the CA is there in parts only, or not as it should be.
    """
    names = [_host(host) for host in dict.fromkeys([*ALWAYS, *(hosts or _hosts(tls))])]
    tls.path.mkdir(mode=0o700, exist_ok=True)
    ca_key, ca = _ca(tls, now)
    key = generate_private_key(SECP256R1())
    certificate = (
        _begun("odograph router", key, min(now + ROUTER_LIFE, ca.not_valid_after_utc))
        .issuer_name(ca.subject)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, SHA256())
    )
    replace_file(tls.router, _private(key) + certificate.public_bytes(Encoding.PEM), 0o600)
    return certificate


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses that a certificate is for."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(one.value) for one in names]


def _hosts(tls: Tls) -> list[str]:
    if not tls.router.exists():
        return []
    return hosts_of(_certificate(tls.router))


def _ca(tls: Tls, now: datetime) -> tuple[EllipticCurvePrivateKey, x509.Certificate]:
    """Return the CA that is there; make one where there is nothing of one."""
    if not tls.ca.exists() and not tls.router.exists():
        tls.ca_key.unlink(missing_ok=True)  # nobody trusts it: its making was cut short
        _make_ca(tls, now)
    refuse_open_file(tls.ca_key)
    try:
        key = load_pem_private_key(read_bytes(tls.ca_key, _MAX_BYTES, _RESTORE), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # the second where it has a password
        raise ConfigError(f"{tls.ca_key} is no private key in PEM", _RESTORE) from error
    ca = _certificate(tls.ca)
    if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
        raise ConfigError(f"{tls.ca_key} is not the key of {tls.ca}", "restore both from your copy")
    if ca.not_valid_after_utc <= now:
        raise ConfigError(f"{tls.ca} is over", f"move {tls.path} away, and give every device the CA that is made then")
    return key, ca


def _make_ca(tls: Tls, now: datetime) -> None:
    key = generate_private_key(SECP256R1())
    builder = _begun("odograph CA", key, now + CA_LIFE)
    ca = (
        builder.issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odograph CA")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, SHA256())
    )
    write_secret(tls.ca_key, _private(key))
    replace_file(tls.ca, ca.public_bytes(Encoding.PEM))


def _begun(name: str, key: EllipticCurvePrivateKey, until: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        name = text.lower()
    if not _HOST.fullmatch(name):
        raise ConfigError(f"{text!r} is neither a host name nor an address", "such as router.example.org or 192.0.2.7")
    return x509.DNSName(name)


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_bytes(path, _MAX_BYTES, _RESTORE))
    except ValueError as error:
        raise ConfigError(f"{path} has no certificate in PEM", _RESTORE) from error


def _private(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
