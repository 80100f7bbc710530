"""The small corpus: golden examples of schemas/examples, and inputs that once broke something, as files beside this."""

import base64
import json
from pathlib import Path

from components.wire import envelope

_EXAMPLES = Path(__file__).resolve().parents[2] / "schemas/examples"
_FOUND = Path(__file__).parent / "corpus"


def of(name: str) -> list[bytes]:
    """Return the seeds of a target of targets.py; at least one."""
    files = sorted((_FOUND / name).glob("*")) if (_FOUND / name).is_dir() else []
    return [*_golden(name), *(file.read_bytes() for file in files)]


def _golden(name: str) -> list[bytes]:
    plain = (_EXAMPLES / "packet.v1.json").read_bytes()
    packed = json.dumps(json.loads(plain), separators=(",", ":")).encode()
    if name == "envelope":
        both = ("golden_envelope.v1.json", "golden_envelope_hpke.v1.json")
        return [base64.b64decode(json.loads((_EXAMPLES / one).read_bytes())["envelope"]) for one in both]
    if name == "inflated":
        return [bytes([n]) + envelope._deflate(packed, coding) for n, coding in enumerate(sorted(envelope.CODINGS))]
    if name == "receipt":
        return [json.dumps(json.loads((_EXAMPLES / "receipt.v1.json").read_bytes())).encode()]
    if name == "bundle":
        return [(_EXAMPLES / "bundle.v2.json").read_bytes()]
    if name == "gpsd":
        return [b'{"class":"TPV","device":"/dev/a","mode":3,"time":"2026-11-22T02:05:00.887Z","lat":48.1,"lon":11.9}']
    return [packed]
