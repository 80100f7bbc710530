"""What a minute weighs sealed, part by part, beside the two earlier ways to send it, made here in the same run.

Both earlier ways send the rows and the summary as one JSON text, as the first version of this idea did. `encrypted,
then compressed` is its own order: AES-CBC, zlib, base64. `compressed first` turns that order round. Their figures are
without a wrapped key and without a signature; ours is with both.
"""

import base64
import json
import secrets
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from Crypto.Cipher import AES
from Crypto.PublicKey import ECC, RSA
from Crypto.Util.Padding import pad

from bench._minute import minute, recorded
from components.wire import envelope, packet
from components.wire.packet import Packet
from components.wire.suites import HPKE_SUITE, RSA_SUITE, PublicKey
from components.wire.times import minute_id

_KID: Final = "0123456789abcdef"
_KEYS: Final[Mapping[str, Callable[[], PublicKey]]] = {
    HPKE_SUITE: lambda: ECC.generate(curve="Curve25519").public_key(),
    RSA_SUITE: lambda: RSA.generate(3072).public_key(),
}
"""A server's key for each suite."""


def seal(one: Packet, coding: str, alg: str) -> bytes:
    """Return the envelope of a packet, with keys made for this once."""
    header = envelope.Header(one.device, one.session, minute_id(one.start_ms), _KID, 1, _KID, _KID, coding, alg)
    device_key = ECC.generate(curve="Ed25519")
    return envelope.seal(packet.pack(one), header, _KEYS[alg](), device_key, secrets.token_bytes)


def as_first_sent(one: Packet) -> tuple[str, bytes]:
    """Return the JSON text that the first version made of a minute: as recorded, or of our own rows."""
    path = recorded("real_minute.as_recorded.json")
    if path is not None:
        return "the same minute's rows as recorded", json.dumps(json.loads(path.read_text("utf-8"))).encode()
    rows = [reading.as_row() for reading in one.readings or ()]
    return "the same readings as rows", json.dumps({"data": rows, "summary": dict(one.summary)}).encode()


def encrypted(text: bytes) -> bytes:
    """Encrypt as the first version did: AES-256-CBC, the vector in front."""
    vector = secrets.token_bytes(16)
    return vector + AES.new(secrets.token_bytes(32), AES.MODE_CBC, vector).encrypt(pad(text, 16))


def main() -> None:
    """Print bytes, and ratios to ours."""
    words, one = minute()
    sealed = seal(one, envelope.DEFAULT_CODING, HPKE_SUITE)
    parts, ours = envelope.parse(sealed), len(sealed)
    print(f"{words}: {len(one.readings or ())} readings and their summary, sealed and signed: {ours} bytes")
    named = {
        "header (in the clear)": len(parts.header_bytes),
        "HPKE's enc (X25519)": len(parts.wrapped_key),
        "ciphertext with its tag": len(parts.ciphertext),
        "signature (Ed25519)": len(parts.signature),
    }
    for name, size in (named | {"CBOR around them": ours - sum(named.values())}).items():
        print(f"  {name:32} {size:6}")
    text = packet.pack(one)
    print(f"  (the ciphertext is {len(text)} bytes of JSON columns, deflated)")
    wrapped = len(seal(one, envelope.DEFAULT_CODING, RSA_SUITE))
    print(f"  {'with an AES key under RSA-3072':32} {wrapped:6}   {wrapped / ours:5.2f} x")
    plain = len(seal(one, "json+zlib", HPKE_SUITE))
    print(f"  {'with zlib, no dictionary':32} {plain:6}   {plain / ours:5.2f} x")
    rows_words, rows = as_first_sent(one)
    print(f"{rows_words}, JSON of {len(rows)} bytes, no key, no signature:")
    ways = {
        "encrypted, then compressed": base64.b64encode(zlib.compress(encrypted(rows))),
        "compressed first": encrypted(zlib.compress(rows, 9)),
    }
    for name, way in ways.items():
        print(f"  {name:32} {len(way):6}   {len(way) / ours:5.2f} x")
    if recorded() is not None:
        print(f"the real minute is to stay below 3200 bytes, aim 2500; it is {ours}")


if __name__ == "__main__":
    main()
