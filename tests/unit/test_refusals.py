"""What a flood of refusals leaves in the audit log."""

import pytest

from components.cloud.refusals import BURST, MAX_TEXT, Note, Refusals, Waiting
from components.wire.errors import UnavailableError


def test_the_same_thing_is_written_at_once_and_then_once_a_minute_with_its_count() -> None:
    refusals, note = Refusals(), Note.of("join.refused", "tcp4:10.0.0.1", "car_one", reason="unknown")
    assert refusals.noted(note) == [(note, 1)]
    assert [refusals.noted(note) for _ in range(1000)] == [[]] * 1000
    assert refusals.minute() == [(note, 1000)]
    assert refusals.minute() == []
    assert refusals.noted(note) == [(note, 1)]


def test_a_flood_under_ever_new_names_writes_so_much_and_counts_the_rest() -> None:
    refusals = Refusals()
    written = [entry for n in range(100_000) for entry in refusals.noted(Note.of("join.refused", "", f"car_{n}"))]
    assert len(written) == BURST
    ((others, count),) = refusals.minute()
    assert (others.whom, count) == ("others", 100_000 - BURST)
    for _ in range(10):
        written = [entry for n in range(1000) for entry in refusals.noted(Note.of("join.refused", "", f"car_{n}"))]
        written += refusals.minute()
        assert len(written) == 2
        assert len(refusals._held) <= BURST


def test_what_comes_twice_under_ever_new_names_has_no_more_room_than_what_comes_once() -> None:
    refusals = Refusals()
    for n in range(2 * BURST):
        refusals.noted(Note.of("join.refused", "", f"car_{n // 2}"))
    assert [count for _, count in refusals.minute()] == [1, 1]
    assert [(note.whom, count) for note, count in refusals.minute()] == [("others", BURST - 2)]


def test_after_a_quiet_hour_a_source_has_its_whole_room_again_and_is_forgotten() -> None:
    refusals = Refusals()
    for n in range(BURST):
        refusals.noted(Note.of("join.refused", "", f"car_{n}", "vera"))
    for _ in range(60):
        assert refusals.minute() == []
    assert refusals._budgets == {}
    assert sum(len(refusals.noted(Note.of("join.refused", "", f"car_{n}", "vera"))) for n in range(150)) == BURST


def test_nothing_is_lost_from_the_count() -> None:
    refusals, seen, note_count = Refusals(), 0, 5000
    for n in range(note_count):
        seen += sum(count for _, count in refusals.noted(Note.of("join.refused", "", f"car_{n % 150}")))
        if n % 500 == 499:
            seen += sum(count for _, count in refusals.minute())
    while more := refusals.minute():
        seen += sum(count for _, count in more)
    assert seen == note_count


def test_what_a_peer_chose_is_cut_to_size() -> None:
    note = Note.of("action.refused", "b" * 9999, "w" * 9999, role="r" * 9999)
    assert {len(note.by), len(note.whom), len(note.more[0][1])} == {MAX_TEXT}


def test_of_what_cannot_be_written_the_latest_thousand_wait_and_are_written_once_in_order() -> None:
    waiting, note, written = Waiting(), Note("join.refused", "", "car_one"), list[int]()

    def write(at_ms: int, _note: Note, _count: int) -> None:
        if at_ms == 500 and not failed:
            failed.append(at_ms)
            raise UnavailableError
        written.append(at_ms)

    failed = list[int]()
    waiting.add(0, [(note, 1)])
    for at_ms in range(1, 1001):
        waiting.add(at_ms, [(note, 1)])
    with pytest.raises(UnavailableError):
        waiting.drain(write)
    assert len(waiting) == 501
    waiting.drain(write)
    assert (written, len(waiting)) == (list(range(1, 1001)), 0)
