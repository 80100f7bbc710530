"""Code, schemas and golden examples held together: what one refuses, the other refuses.

Each example is mutated at every key path; schema and code must give the same verdict. Where a schema cannot say what
the code demands, the rule stands in BEYOND_SCHEMA, by the message with which the code refuses.
"""

# ruff: noqa: ANN401 - JSON of any shape is the point here
import base64
import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from Crypto.PublicKey import ECC
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from components.wire import bundle, envelope, packet, receipt, strict_cbor, strict_json
from components.wire.errors import ConfigError, RejectedError
from schemas import make

SCHEMAS: Final = Path(make.__file__).parent
EXAMPLES: Final = SCHEMAS / "examples"
DOCUMENTS: Final = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*_to_*/*.json")}
REGISTRY: Final[Registry[Any]] = Registry().with_resources(
    (document["$id"], Resource.from_contents(document)) for document in DOCUMENTS.values()
)
RECEIPT_KEY: Final = ECC.construct(curve="Ed25519", seed=bytes(32))  # type: ignore[arg-type]  # the stub's error


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(DOCUMENTS[name], registry=REGISTRY)


def example(name: str) -> Any:
    return json.loads((EXAMPLES / name).read_text())


def accept_packet(form: Any) -> None:
    packet.read(packet.parse(strict_json.dumps(form)))


def accept_header(form: Any) -> None:
    parts = [strict_cbor.dumps(form), bytes(384), bytes(12), bytes(64), bytes(64)]
    envelope.parse(strict_cbor.dumps(parts))


def accept_receipt(form: Any) -> None:
    payload = strict_json.dumps(form)
    signature = Ed25519PrivateKey.from_private_bytes(bytes(32)).sign(b"odograph-receipt-v1" + payload)
    receipt.verify(strict_cbor.dumps([payload, signature]), [RECEIPT_KEY.public_key()])


def accept_bundle(form: Any) -> None:
    try:
        bundle.parse(json.dumps(form))
    except ConfigError as error:
        raise ValueError(str(error)) from error


ACCEPT: Final[dict[str, Callable[[Any], object]]] = {
    "packet.v1.json": accept_packet,
    "envelope_header.v1.json": accept_header,
    "receipt.v1.json": accept_receipt,
    "bundle.v2.json": accept_bundle,
}

BEYOND_SCHEMA: Final = {
    r"id: must be": "the id is made of device, session and start",
    r"start: not the start of a period": "the start is a multiple of the period",
    r"is out of range for month|day of month": "a month has as many days as it has",
    r"list of another length": "columns and `at` have as many entries as each other",
    r"has either a value or a reason": "either a value or a reason",
    r"why\.\w+: runs are|why\.\w+: fewer|a list of at most [12] was": "as many reasons as nulls",
    r"why: reasons without nulls": "reasons belong to nulls of a column that has values",
    r"measured: ": "as many moments as values, none later than its reading, each signal in one group",
    r"not from \S+ to": "differences add up to what the signal's bytes can say",
    r"has no meaning|0000 is no code": "differences add up to codes that mean something",
    r"differences add up": "differences add up to less than 2^53",
    r"readings: times are not in order": "times are in order, inside the period",
    r"no values have these statistics": "there are values of that signal that have all of these statistics",
    r"gaps: not from": "gaps lie inside the period",
    r"dtcs_at: codes without": "codes have the time of the answer",
    r"clock_fix.previous_session: is": "the session before is another one",
    r"location: half a place": "longitude and latitude are there together",
    r"differences are whole numbers|runs are \{reason|whole number from|exponent|whole numbers of ms|retry_after_s: 0|"
    r"v: must|version is not|seq is not": "60.0 is an integer to JSON Schema; here it has no point",
    r"an age is positive": "an age belongs to a value",
    r"o211: not a value|o212: not a value": "voltage and trim are on the sensor's steps",
    r"each signal has either": "a reason for each null, and for no value",
    r"dtc_status: not a value": "a monitor belongs to the kind of engine",
    r"not the id of public_key|not a public key": "an id is that of its key, a key is one",
    r"has version 2.0": "60.0 is an integer to JSON Schema; here it has no point",
    r"more than 17 digits": "no number has more than 17 digits before its point",
}


def paths(form: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value; of lists, that of the first and the last entry."""
    yield path
    if isinstance(form, dict):
        for key, value in form.items():
            yield from paths(value, (*path, key))
    elif isinstance(form, list) and form:
        for n in sorted({0, len(form) - 1}):
            yield from paths(form[n], (*path, n))


STRANGERS: Final[tuple[Any, ...]] = (
    None,
    True,
    -1,
    10**16,
    1.5,
    "",
    "no_such_word",
    [],
    {},
    "no_data",
    [None],
    {"x": 1},
)


OF_AN_OBJECT: Final = {
    "$schema", "$id", "$defs", "title", "description", "type", "properties", "required", "additionalProperties"
}  # fmt: skip


def narrowed(schema: Any, path: tuple[str | int, ...]) -> tuple[Any, tuple[str | int, ...]]:
    """Return the part of a schema that judges a change at a path, and the path to there: all around it is as it was."""
    depth = 0
    while depth < len(path) - 1 and schema.keys() <= OF_AN_OBJECT and "properties" in schema:
        schema, depth = schema["properties"][path[depth]], depth + 1
    return schema, path[:depth]


def mutations(form: Any) -> Iterator[tuple[str, tuple[str | int, ...], Any]]:
    """Yield a copy for every path with the value dropped, joined by a stranger, or changed."""
    seen = set()
    for path in paths(form):
        found = at(form, path)
        if path and isinstance(path[-1], str):
            yield f"{path} dropped", path, dropped(form, path)
        # Equal neighbours (43 columns, 18 summaries) are changed once: a second time would tell nothing new.
        if (kind := (path[:-1], json.dumps(found))) in seen:
            continue
        seen.add(kind)
        changes: list[Any] = [*STRANGERS]
        if isinstance(found, dict):
            changes.append({**found, "stranger": 1})
        elif isinstance(found, list):
            changes += [[*found, *found[-1:]], found[:-1], [*found, "stranger"]]
        elif isinstance(found, str):
            changes += [found + "0", found[:-1], found.swapcase(), "\u0661" + found[1:], " " + found]
        elif isinstance(found, (int, float)) and not isinstance(found, bool):
            changes += [float(found), str(found), -found - 1, found + 0.5, 1e300]
        for change in changes:
            if json.dumps(change) != json.dumps(found):
                yield f"{path} = {change!r}"[:200], path, replaced(form, path, change)


def at(form: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        form = form[step]
    return form


def replaced(form: Any, path: tuple[str | int, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.copy(form)
    changed[path[0]] = replaced(form[path[0]], path[1:], value)
    return changed


def dropped(form: Any, path: tuple[str | int, ...]) -> Any:
    around = copy.copy(at(form, path[:-1]))
    del around[path[-1]]
    return replaced(form, path[:-1], around)


@pytest.mark.parametrize("name", sorted(ACCEPT))
def test_the_golden_example_is_right_to_schema_and_code(name: str) -> None:
    validator(name).validate(example(name))
    ACCEPT[name](example(name))


@pytest.mark.parametrize("name", sorted(ACCEPT))
def test_schema_and_code_give_the_same_verdict_on_every_mutation(name: str) -> None:
    schema, form = validator(name), example(name)
    refused, quarrels = 0, []
    for what, path, mutation in mutations(form):
        part, place = narrowed(DOCUMENTS[name], path)
        by_schema = not schema.evolve(schema=part).is_valid(at(mutation, place))
        by_code = ""
        try:
            ACCEPT[name](mutation)
        except (RejectedError, ValueError) as error:
            by_code = str(error)
        refused += bool(by_code)
        if by_schema and not by_code:
            quarrels.append(f"only the schema refuses {what}")
        elif by_code and not by_schema and not any(re.search(rule, by_code) for rule in BEYOND_SCHEMA):
            quarrels.append(f"only the code refuses {what}: {by_code}")
    assert quarrels == []
    assert refused > 100


@pytest.mark.parametrize("path", sorted(make.MADE))
def test_the_schema_files_are_what_the_catalogue_makes(path: str) -> None:
    written = (SCHEMAS / path).read_text()
    assert written == make.dumps(make.MADE[path]()), "run: python -m schemas.make"


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_every_schema_is_a_schema_and_closed(name: str) -> None:
    Draft202012Validator.check_schema(DOCUMENTS[name])
    assert DOCUMENTS[name]["additionalProperties"] is False
    assert set(DOCUMENTS[name]["required"]) <= set(DOCUMENTS[name]["properties"])


@pytest.mark.parametrize("number", range(4))
def test_the_golden_commands_are_right_and_their_procedures_exchanged_are_not(number: int) -> None:
    commands, schema = example("command.v1.json"), validator("command.v1.json")
    schema.validate(commands[number])
    assert commands[number]["procedure"] == ("status", "dtcs", "prepare_clear", "clear_dtcs")[number]
    assert not schema.is_valid({**commands[number], "arguments": {"raw": "0100"}})
    if number:
        assert not schema.is_valid({**commands[number], "answer": commands[0]["answer"]})


def test_the_golden_packet_holds_every_form_of_column() -> None:
    columns = example("packet.v1.json")["readings"]["columns"].values()
    forms = {"reason" if isinstance(column, str) else "".join(sorted(column)) for column in columns}
    assert forms == {"reason", "d", "de", "v", "latlon"}


def test_the_golden_packet_is_what_the_code_writes() -> None:
    written = (EXAMPLES / "packet.v1.json").read_bytes()
    assert packet.pack(packet.read(packet.parse(written))) == written


def test_the_golden_reading_is_the_second_one_of_the_golden_packet() -> None:
    found = packet.read(example("packet.v1.json")).readings
    assert found is not None
    row = json.loads(json.dumps(found[1].as_row()))
    assert row == example("reading.v1.json")
    validator("reading.v1.json").validate(row)


def test_the_golden_envelope_opens_to_the_golden_packet() -> None:
    golden = example("golden_envelope.v1.json")
    key = load_pem_private_key(golden["server_private_key"].encode(), None)
    assert isinstance(key, RSAPrivateKey)
    found = envelope.parse(base64.b64decode(golden["envelope"]))
    found.verify(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(golden["device_seed"])).public_key())
    assert found.open({found.header.server_kid: key}) == (EXAMPLES / "packet.v1.json").read_bytes()
    assert found.header == envelope.Header(**example("envelope_header.v1.json"))


def test_the_golden_hpke_envelope_opens_to_the_golden_packet() -> None:
    golden = example("golden_envelope_hpke.v1.json")
    key = X25519PrivateKey.from_private_bytes(bytes.fromhex(golden["server_private_key"]))
    found = envelope.parse(base64.b64decode(golden["envelope"]))
    found.verify(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(golden["device_seed"])).public_key())
    assert found.open({found.header.server_kid: key}) == (EXAMPLES / "packet.v1.json").read_bytes()
    assert found.header.server_kid == bundle.key_id(key.public_key().public_bytes_raw())


def test_the_golden_bundle_follows_the_first_of_its_chain() -> None:
    second = bundle.parse((EXAMPLES / "bundle.v2.json").read_text())
    assert bundle.dump(second) == (EXAMPLES / "bundle.v2.json").read_text()
    first = bundle.Bundle("odograph", (bundle.Recipient("X", second.before, "x"),), second.former_receipt_keys[0])
    assert bundle.follow(first, bundle.dump(second)) == second


def test_the_preset_dictionary_never_changes() -> None:
    written = Path(envelope.__file__).with_name("packet.v1.dict").read_bytes()
    assert hashlib.sha256(written).hexdigest() == "83bab5a487625ce856ea25f3748868c3f5c492ca98e1a61ac198f75d9df35dd4"
