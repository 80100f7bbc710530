"""Rows -> packets over real files: every row in one packet, and the same packet however often it is made."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from components.edge.compactor import Compactor
from components.edge.sqlite_outbox import SqliteOutbox
from components.edge.sqlite_readings import ReadingsReader, ReadingsWriter
from components.edge.trust import SealingKey
from components.wire import envelope
from components.wire.packet import Packet, parse, read
from components.wire.suites import HPKE_SUITE, RSA_SUITE, SUITES
from tests.edge_parts import ONE, T0, TWO, compactor, drive, opened, packets, reading_row, sealer, session_row


class Spool:
    """The two files of an agent, with what may happen to them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.writer = ReadingsWriter(directory / "readings.db")
        self.reader = ReadingsReader(directory / "readings.db")
        self.outbox = SqliteOutbox(directory / "outbox.db")

    @property
    def compactor(self) -> Compactor:
        return compactor(self.reader, self.outbox)

    def lose_outbox(self) -> None:
        self.outbox.close()
        for file in self.directory.glob("outbox.db*"):
            file.unlink()
        self.outbox = SqliteOutbox(self.directory / "outbox.db")

    def packets(self) -> dict[str, Packet]:
        return {name: read(parse(text)) for name, text in packets(self.outbox).items()}

    def flip(self, seq: int, change: str = "crc = crc + 1") -> None:
        self.writer._connection.execute(f"UPDATE rows SET {change} WHERE seq = {seq}")  # noqa: S608 - constants


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def minute(n: int, session: str = ONE) -> str:
    return f"car_one/{session}/20260517T06{40 + n}00Z"


def counts(found: dict[str, Packet]) -> dict[str, int]:
    return {name: len(one.readings or ()) for name, one in found.items()}


def test_a_period_is_packed_when_a_later_reading_exists_and_not_before(spool: Spool) -> None:
    drive(spool.writer, ONE, T0, 60)
    assert spool.compactor.compact() == 0
    drive(spool.writer, ONE, T0 + 60_000, 1, opening=False)
    assert spool.compactor.compact() == 1
    assert counts(spool.packets()) == {minute(0): 60}
    assert spool.compactor.compact() == 0


def test_closing_packs_the_period_in_hand(spool: Spool) -> None:
    drive(spool.writer, ONE, T0, 70)
    assert spool.compactor.compact(closing=True) == 2
    found = spool.packets()
    assert counts(found) == {minute(0): 60, minute(1): 10}
    assert all(one.gaps == () for one in found.values())


def test_a_session_that_has_ended_is_packed_to_its_last_row_and_the_one_after_it_is_not(spool: Spool) -> None:
    drive(spool.writer, ONE, T0, 10)
    assert spool.compactor.compact(ended=TWO) == 0
    assert spool.compactor.compact(ended=ONE) == 1
    # It began before the order to close the one before it came to its turn.
    drive(spool.writer, TWO, T0 + 20_000, 5)
    assert spool.compactor.compact(ended=ONE) == 0
    drive(spool.writer, TWO, T0 + 25_000, 5, opening=False)
    assert spool.compactor.compact(ended=TWO) == 1
    assert sorted(counts(spool.packets()).values()) == [10, 10]


def test_nothing_recorded_gives_no_packet(spool: Spool) -> None:
    assert spool.compactor.compact(closing=True) == 0


def test_another_session_closes_the_period_of_the_one_before(spool: Spool) -> None:
    drive(spool.writer, ONE, T0 + 30_000, 10)
    drive(spool.writer, TWO, T0 + 40_000, 10)
    assert spool.compactor.compact() == 1
    assert spool.compactor.compact(closing=True) == 1
    assert counts(spool.packets()) == {minute(0, ONE): 10, minute(0, TWO): 10}
    assert all(one.gaps == () for one in spool.packets().values())


def test_a_backlog_longer_than_one_read_is_packed_whole(spool: Spool) -> None:
    drive(spool.writer, ONE, T0, 1201)
    assert spool.compactor.compact() == 20
    assert set(counts(spool.packets()).values()) == {60}


def test_header_and_plaintext_name_the_same_packet_under_the_number_that_the_outbox_gave(spool: Spool) -> None:
    drive(spool.writer, ONE, T0, 130)
    spool.compactor.compact(closing=True)
    for one in spool.outbox.waiting():
        header = envelope.parse(spool.outbox.envelope(one.seq) or b"").header
        assert (header.seq, header.epoch) == (one.seq, spool.outbox.epoch)
        assert header.packet_id in spool.packets()


def test_a_crash_before_the_commit_gives_the_same_packet_in_the_next_run(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive(spool.writer, ONE, T0, 130)
    drive(spool.writer, TWO, T0 + 130_000, 5)
    sealed: list[bytes] = []

    def crash(_outbox: object, _id: str, envelope_: bytes, *_: object, **__: object) -> bool:
        sealed.append(envelope_)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SqliteOutbox, "add", crash)
        with pytest.raises(KeyboardInterrupt):
            spool.compactor.compact()
    assert spool.outbox.waiting() == []
    spool.compactor.compact()
    first = spool.outbox.envelope(1) or b""
    assert first != sealed[0]
    assert opened(first) == opened(sealed[0])


def test_a_lost_outbox_gives_the_same_packets_again(spool: Spool) -> None:
    drive(spool.writer, ONE, T0 + 30_000, 100)
    drive(spool.writer, TWO, T0 + 140_000, 100)
    spool.flip(20)
    spool.compactor.compact(closing=True)
    before = packets(spool.outbox)
    spool.lose_outbox()
    spool.compactor.compact(closing=True)
    assert packets(spool.outbox) == before


def test_without_the_row_that_opened_a_session_its_rows_are_passed_over_and_the_next_session_is_packed(
    spool: Spool,
) -> None:
    drive(spool.writer, ONE, T0, 70, opening=False)
    drive(spool.writer, TWO, T0 + 70_000, 5)
    assert spool.compactor.compact(closing=True) == 1
    assert list(spool.packets()) == [minute(1, TWO)]
    assert spool.outbox.cursor(spool.reader.file_id) == 76


def test_a_corrupt_session_row_is_as_a_missing_one(spool: Spool) -> None:
    drive(spool.writer, ONE, T0, 70)
    spool.flip(1)
    assert spool.compactor.compact(closing=True) == 0
    assert spool.outbox.cursor(spool.reader.file_id) == 71


@pytest.mark.parametrize("change", ["body = '{}'", "at_ms = 5", f"session = '{TWO}'", "crc = 0"])
@pytest.mark.parametrize("seq", [2, 30, 61, 62, 71])
def test_a_row_in_which_a_bit_flipped_costs_itself_and_no_other_row(spool: Spool, seq: int, change: str) -> None:
    drive(spool.writer, ONE, T0, 70)
    spool.flip(seq, change)
    assert spool.compactor.compact(closing=True) == 2
    found = spool.packets()
    assert sum(counts(found).values()) == 69
    assert [gap.reason for one in found.values() for gap in one.gaps] == ["corrupt"]


def test_a_period_of_corrupt_rows_only_is_passed_over(spool: Spool) -> None:
    drive(spool.writer, ONE, T0, 3)
    for seq in (2, 3, 4):
        spool.flip(seq)
    assert spool.compactor.compact(closing=True) == 0
    assert spool.outbox.cursor(spool.reader.file_id) == 4


def test_codes_and_identity_are_those_that_the_session_had_when_the_period_ended(spool: Spool) -> None:
    drive(spool.writer, ONE, T0, 50)
    identity = {"vin": None, "iccid": None, "imei": "001017603272611", "why": {"vin": "timeout", "iccid": "timeout"}}
    spool.writer.append(ONE, [("identity", T0 + 55_000, identity), reading_row(T0 + 55_000)])
    drive(spool.writer, ONE, T0 + 60_000, 1, opening=False)
    spool.writer.append(ONE, [("identity", T0 + 61_000, {**identity, "imei": "001017603272629"})])
    spool.compactor.compact()
    assert spool.packets()[minute(0)].identity.imei == "001017603272611"


def test_rows_beyond_the_card_s_other_file_are_of_no_concern_to_this_cursor(spool: Spool) -> None:
    drive(spool.writer, ONE, T0, 61)
    spool.compactor.compact()
    spool.reader.close()
    spool.writer.close()
    for path in spool.directory.glob("readings.db*"):
        path.unlink()
    spool.outbox.close()
    again = Spool(spool.directory)
    drive(again.writer, TWO, T0, 61)
    assert again.compactor.compact() == 1
    assert again.outbox.first_row_kept(again.reader.file_id) == 2


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_whatever_retention_took_a_lost_outbox_never_gives_a_packet_that_contradicts_the_first(
    data: st.DataObject,
) -> None:
    draw = data.draw
    with TemporaryDirectory() as directory:
        spool = Spool(Path(directory))
        at_ms = T0
        for n in range(draw(st.integers(1, 4))):
            name, count = f"{n:016x}", draw(st.integers(1, 40))
            spool.writer.append(name, [session_row(at_ms, period_s=draw(st.sampled_from([5, 10])))])
            drive(spool.writer, name, at_ms, count, opening=False)
            at_ms += 1000 * (count + draw(st.integers(0, 9)))
        last = spool.reader.readings_after(0, 10_000)[-1].seq
        for seq in data.draw(st.lists(st.integers(1, last), max_size=3)):
            spool.flip(seq, data.draw(st.sampled_from(["crc = crc + 1", "at_ms = 7", "session = 'x'"])))
        spool.compactor.compact(closing=data.draw(st.booleans()))
        first = packets(spool.outbox)
        for _ in range(draw(st.integers(0, 3))):
            waiting = spool.outbox.waiting()[: draw(st.integers(0, 9))]
            spool.outbox.settle([(one.sha256, "receipted", None) for one in waiting], 0)
            spool.outbox.forget(1, 1, draw(st.integers(1, 9)))
            kept = spool.outbox.first_row_kept(spool.reader.file_id)
            spool.writer.forget(kept, draw(st.integers(1, 30)))
        unsent = packets(spool.outbox)
        spool.lose_outbox()
        spool.compactor.compact(closing=True)
        again = packets(spool.outbox)
        assert unsent.items() <= again.items(), "a packet without a receipt cannot be made again"
        for name in again.keys() & first.keys():
            assert again[name] == first[name]
        for file in (spool.reader, spool.writer, spool.outbox):
            file.close()


def test_each_packet_is_sealed_for_the_key_that_is_believed_when_it_is_made(spool: Spool) -> None:
    raw = X25519PrivateKey.from_private_bytes(bytes([7]) * 32).public_key().public_bytes_raw()
    believed = [sealer().server(), SealingKey(HPKE_SUITE, "c" * 16, SUITES[HPKE_SUITE].read_key(raw.hex())[1])]
    made = Compactor("car_one", spool.reader, spool.outbox, replace(sealer(), server=lambda: believed.pop(0)))
    drive(spool.writer, ONE, T0, 121)
    assert made.compact() == 2
    headers = [envelope.parse(spool.outbox.envelope(one.seq) or b"").header for one in spool.outbox.waiting()]
    assert [(one.alg, one.server_kid) for one in headers] == [(RSA_SUITE, "a" * 16), (HPKE_SUITE, "c" * 16)]
