"""Evil rows in readings.db, checksum and all: each costs itself, the rest of the drive is packed."""

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.edge import minute, row_form
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.sqlite_readings import ReadingsReader, ReadingsWriter
from components.wire.packet import MAX_READINGS, Packet, parse, read
from components.wire.signals import BY_KEY
from tests.edge_parts import ONE, T0, compactor, drive, packets, reading, session_row
from tests.wire_made import readings


class Spool:
    """A drive of 70 s over two minutes, in which rows are changed."""

    def __init__(self, directory: Path) -> None:
        self.writer = ReadingsWriter(directory / "readings.db")
        drive(self.writer, ONE, T0, 70)
        self.reader = ReadingsReader(directory / "readings.db")
        self.outbox = SqliteOutbox(directory / "outbox.db")

    def put(self, seq: int, body: str, *, kind: str = "reading", at_ms: int = T0, session: str = ONE) -> None:
        crc = zlib.crc32(f"{session}/{kind}/{at_ms}/{body}".encode())
        row = (session, kind, at_ms, body, crc, seq)
        statement = "UPDATE rows SET session = ?, kind = ?, at_ms = ?, body = ?, crc = ? WHERE seq = ?"
        self.writer._connection.execute(statement, row)

    def packed(self) -> list[Packet]:
        compactor(self.reader, self.outbox).compact(closing=True)
        return [read(parse(text)) for text in packets(self.outbox).values()]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


GOOD = '{"values":{"speed":50},"why":{},"age_ms":{}}'
READINGS: dict[str, dict[str, Any]] = {
    "no JSON": {"body": "speed"},
    "nothing": {"body": ""},
    "a list": {"body": "[]"},
    "null": {"body": "null"},
    "a key twice": {"body": '{"values":{},"values":{},"why":{},"age_ms":{}}'},
    "NaN": {"body": '{"values":{"speed":NaN},"why":{},"age_ms":{}}'},
    "depth": {"body": "[" * 100_000},
    "a long number": {"body": '{"values":{"speed":' + "9" * 5_000 + '},"why":{},"age_ms":{}}'},
    "a megabyte": {"body": '{"values":{"speed":5' + " " * 1024 * 1024 + '},"why":{},"age_ms":{}}'},
    "a part missing": {"body": '{"values":{"speed":50},"why":{}}'},
    "a part too many": {"body": GOOD[:-1] + ',"more":1}'},
    "values that are no table": {"body": '{"values":[1],"why":{},"age_ms":{}}'},
    "a signal that is none": {"body": '{"values":{"warp":9},"why":{},"age_ms":{}}'},
    "a value that cannot be": {"body": '{"values":{"speed":256},"why":{},"age_ms":{}}'},
    "a value of another kind": {"body": '{"values":{"speed":"fast"},"why":{},"age_ms":{}}'},
    "a reason that is none": {"body": '{"values":{},"why":{"speed":"bored"},"age_ms":{}}'},
    "a reason that is a list": {"body": '{"values":{},"why":{"speed":[]},"age_ms":{}}'},
    "a reason for a value": {"body": '{"values":{"speed":1},"why":{"speed":"no_data"},"age_ms":{}}'},
    "an age of nothing": {"body": '{"values":{},"why":{},"age_ms":{"speed":5}}'},
    "an age that is not over": {"body": '{"values":{"speed":1},"why":{},"age_ms":{"speed":-5}}'},
    "half a surrogate pair": {"body": '{"values":{},"why":{"\\ud800":"no_data"},"age_ms":{}}'},
    "the year 10000": {"body": GOOD, "at_ms": 253_402_300_800_000},
    "before 1970": {"body": GOOD, "at_ms": -1},
    "the end of all integers": {"body": GOOD, "at_ms": 2**63 - 1},
    "no session": {"body": GOOD, "session": ""},
    "a session of another form": {"body": GOOD, "session": "../../etc/passwd"},
}


def test_readings_that_no_recorder_wrote_cost_themselves_and_no_other_row(spool: Spool) -> None:
    evil = {2 + 2 * n: what for n, what in enumerate(READINGS)}
    for seq, what in evil.items():
        spool.put(seq, **READINGS[what])
    there = {(one.at_ms - T0) // 1000 + 2 for found in spool.packed() for one in found.readings or ()}
    assert [what for seq, what in evil.items() if seq in there] == []
    assert there == set(range(2, 72)) - evil.keys()
    assert spool.outbox.cursor(spool.reader.file_id) == 71


@pytest.mark.parametrize("seq", [2, 61, 71])
def test_a_reading_that_no_recorder_wrote_is_a_declared_gap_wherever_it_stands(spool: Spool, seq: int) -> None:
    spool.put(seq, **READINGS["the year 10000"])
    found = spool.packed()
    assert sum(len(one.readings or ()) for one in found) == 69
    assert [gap.reason for one in found for gap in one.gaps] == ["corrupt"]


SESSION = dict(session_row(T0)[2])


@pytest.mark.parametrize(
    "change",
    [
        {"period_s": 0}, {"period_s": 7}, {"period_s": "60"}, {"period_s": True}, {"interval_ms": 0}, {"clock": "sun"},
        {"clock": []}, {"content": "all"}, {"config_hash": "x"}, {"clock_fix": 5}, {"clock_fix": ["x", 1]},
        {"clock_fix": [ONE, 2**60]}, {"more": 1},
    ],
)  # fmt: skip
def test_what_no_recorder_says_of_a_session_is_not_sound(change: dict[str, object]) -> None:
    assert row_form.is_sound(ONE, "session", T0, SESSION)
    assert not row_form.is_sound(ONE, "session", T0, SESSION | change)


def test_a_session_that_no_recorder_opened_is_as_a_missing_one(spool: Spool) -> None:
    spool.put(1, json.dumps(SESSION | {"period_s": 7}), kind="session")
    assert spool.packed() == []
    assert spool.outbox.cursor(spool.reader.file_id) == 71


IDENTITY: dict[str, Any] = {"vin": None, "iccid": None, "imei": "3" * 15, "why": {"vin": "timeout", "iccid": "timeout"}}
LOST: dict[str, Any] = {"key": "a", "lost": [ONE, T0, T0 + 5, "readings", 5, "bound"]}
CODES: dict[str, Any] = {"codes": [["P0420", "stored", "7E8", T0, T0]], "freeze_frame": {"rpm": 800.0}}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("identity", IDENTITY | {"vin": "too short"}),
        ("identity", IDENTITY | {"vin": 5}),
        ("identity", IDENTITY | {"imei": None}),
        ("identity", IDENTITY | {"why": []}),
        ("identity", {}),
        *(("lost", LOST | {"lost": lost}) for lost in (None, [], [ONE, T0, T0, "all", 5, "bound"], [ONE] * 6)),
        ("lost", LOST | {"lost": [ONE, -1, 2**62, "readings", 5, "bound"]}),
        ("lost", LOST | {"key": 5}),
        ("dtcs", CODES | {"codes": [["P0420", "stored", "7E8", T0]]}),
        ("dtcs", CODES | {"codes": [["P04", "stored", "7E8", T0, T0]]}),
        ("dtcs", CODES | {"codes": [["P0420", "lost", "7E8", T0, T0]]}),
        ("dtcs", CODES | {"codes": [["P0420", "stored", "7E8", T0, 2**62]]}),
        ("dtcs", CODES | {"codes": [["P0420", "stored", "7E8", T0, T0]] * 1001}),
        ("dtcs", CODES | {"codes": "P0420"}),
        ("dtcs", CODES | {"freeze_frame": {"warp": 9}}),
        ("dtcs", CODES | {"freeze_frame": []}),
        ("dtcs", CODES | {"more": 1}),
    ],
)
def test_what_no_recorder_says_of_identity_or_codes_is_not_sound(kind: str, body: dict[str, Any]) -> None:
    assert row_form.is_sound(ONE, kind, T0, {"identity": IDENTITY, "dtcs": CODES, "lost": LOST}[kind])
    assert not row_form.is_sound(ONE, kind, T0, body)


def test_an_identity_and_codes_that_no_recorder_wrote_are_not_believed(spool: Spool) -> None:
    spool.put(2, json.dumps(IDENTITY | {"imei": 5}), kind="identity")
    spool.put(3, json.dumps(CODES | {"codes": [[]]}), kind="dtcs")
    found = spool.packed()
    assert sum(len(one.readings or ()) for one in found) == 68
    assert {(one.identity.imei, one.dtcs, one.dtcs_at_ms) for one in found} == {(None, (), None)}


def test_more_rows_in_one_minute_than_a_packet_can_hold_are_lost_and_the_next_minute_is_packed(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    crowd = [("reading", T0 + 70_000, minute.reading_body(reading(T0 + 70_000)))] * (2 * MAX_READINGS + 500)
    spool.writer.append(ONE, crowd)  # type: ignore[arg-type]
    drive(spool.writer, ONE, T0 + 120_000, 3, opening=False)
    assert [len(one.readings or ()) for one in spool.packed()] == [60, 3]
    assert spool.outbox.cursor(spool.reader.file_id) == 71 + len(crowd) + 3


@given(readings())
@settings(max_examples=30, deadline=None)
def test_whatever_a_recorder_may_write_is_believed(found: tuple[Any, ...]) -> None:
    for one in found:
        body = minute.reading_body(one)
        assert row_form.is_sound(ONE, "reading", one.at_ms, body)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(["reading", "session", "identity", "dtcs", "audit", ""]),
    st.dictionaries(st.sampled_from(["values", "why", "age_ms", "codes", "freeze_frame", *SESSION, *IDENTITY]), junk),
)
@settings(max_examples=150, deadline=None)
def test_any_body_is_sound_or_not_and_nothing_raises(kind: str, body: dict[str, object]) -> None:
    # All these keys with a value of chance: never what a recorder writes, but for an empty reading.
    if row_form.is_sound(ONE, kind, T0, body):
        assert set(body.get("values", {})) <= set(BY_KEY)  # type: ignore[call-overload]
