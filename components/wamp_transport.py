"""How a peer gets to its router, and whose certificate it takes there; for both ends and for operators.

Rim: reads the file of a CA, says what Autobahn is to connect to and, when that did not work, why.
"""

from pathlib import Path
from typing import Any, Final

from autobahn.rawsocket.util import parse_url as parse_rawsocket_url
from autobahn.wamp.exception import ApplicationError
from autobahn.websocket.util import parse_url as parse_websocket_url
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from components.bounded_file import read_bytes
from components.settings import is_url
from components.wire.errors import ConfigError

_TLS: Final = ("wss://", "rss://")
_MAX_CA: Final = 1024 * 1024
"""A system's own bundle of CAs has a quarter of it."""
_CA_HINT: Final = "copy var/tls/ca.pem from the server's home"
_UNTRUSTED: Final = "certificate verify failed"


def speaks_tls(url: str) -> bool:
    """Whether a router's URL is one of TLS."""
    return url.startswith(_TLS)


def check_url(router: str) -> None:
    """ConfigError when this is not where devices and operators may join."""
    if not is_url(router, "ws", "wss"):
        raise ConfigError(f"{router[:100]!r} is no router URL", "it is like ws://HOST:8080/ws or wss://HOST/ws")


def transport(url: str, ca: Path | None = None) -> dict[str, Any]:
    """Return Autobahn's transport to a router, in CBOR.

    Args:
        url: ws://, wss://, rs:// or rss://.
        ca: PEM file of the only CAs that are trusted; None: the system's. The certificate must name the URL's host.

    Raises:
        ConfigError: `url` is none of a router, or `ca` has no certificate or nothing to do.
    """
    web = url.startswith(("ws://", "wss://"))
    try:
        _, host, port, *_ = (parse_websocket_url if web else parse_rawsocket_url)(url)
    except Exception as error:
        raise ConfigError(f"{url} is no router URL", str(error)) from error
    endpoint: dict[str, object] = {"type": "tcp", "host": host, "port": port}
    if speaks_tls(url):
        # Autobahn by itself would go to an rss:// in plain text.
        endpoint["tls"] = optionsForClientTLS(host, trustRoot=None if ca is None else _trusted(ca))
    elif ca is not None:
        raise ConfigError(f"{url} is no URL of TLS", f"{ca} has nothing to prove there; it begins with wss://")
    kind = {"type": "websocket", "serializers": ["cbor"]} if web else {"type": "rawsocket", "serializer": "cbor"}
    return {"url": url, "endpoint": endpoint, **kind}


def in_words(error: BaseException, url: str, ca: Path | None, *, joined: bool = False) -> str:
    """Say why there is no connection, for a person; without a remedy, the error's own text.

    Args:
        joined: Whether the peer had got in by this connection.
    """
    if isinstance(error, VerificationError):
        return f"the certificate that came from {url} is for another host"
    if isinstance(error, SSL.Error):
        # OpenSSL's queue of errors: (library, function, reason).
        reasons = {reason for _, _, reason in error.args[0]} if error.args else set()
        if _UNTRUSTED in reasons:
            return f"the certificate that came from {url} is not of {ca or 'a CA that this system trusts'}, or is over"
        return f"no TLS with {url}: {', '.join(sorted(reasons)) or error}"
    if not joined and not speaks_tls(url) and isinstance(error, (ConnectionDone, ConnectionLost)):
        return f"the router ended the connection at once: {url} is plain, and it may speak TLS only"
    if isinstance(error, ApplicationError):
        # Its own text is that of a programmer.
        return f"the router says: {' '.join(map(str, error.args)) or error.error}"
    return str(error)


def read_ca(ca: Path) -> bytes:
    """Return the file of a CA as it stands; ConfigError when it cannot be one."""
    return read_bytes(ca, _MAX_CA, _CA_HINT)


def _trusted(ca: Path) -> Any:  # noqa: ANN401 - one of Twisted's interfaces
    try:
        found = x509.load_pem_x509_certificates(read_ca(ca))
    except ValueError as error:
        raise ConfigError(f"{ca} has no certificate in PEM", _CA_HINT) from error
    return trustRootFromCertificates(  # type: ignore[no-untyped-call]
        [Certificate.loadPEM(one.public_bytes(Encoding.PEM)) for one in found]
    )
