"""Time at the edge: what is believed of clocks, what begins a session, and that every reading can be dated at last."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.edge.timeline import BUILT_MS, ROLLOVER_MS, Confirmation, Timeline, Told
from components.wire.packet import ClockFix

NOW = 1_795_312_800_000
"""2026-11-22T02:00:00Z."""
HEARD = 500
DAY = 86_400_000
YEAR = 365 * DAY
SESSION, NEXT, THIRD = "a" * 16, "b" * 16, "c" * 16
WORST_FIRST = ("none", "saved", "rtc", "ntp", "gps")


def line(source: str = "rtc") -> Timeline:
    """A session whose time is NOW when elapsed time is HEARD."""
    return Timeline(SESSION, source, NOW - HEARD)


def told(source: str, utc_ms: int, elapsed_ms: int = HEARD) -> Told:
    return Told(source, utc_ms, elapsed_ms)


@pytest.mark.parametrize("offset_ms", [-2000, -1000, -1, 0, 1000, 2000])
def test_a_better_clock_that_agrees_within_two_seconds_changes_nothing(offset_ms: int) -> None:
    assert line().corrected(told("gps", NOW + offset_ms), NEXT, kept=True) is None


@pytest.mark.parametrize("offset_ms", [-30 * DAY, -61_000, -2001, 2001, 61_000, 19 * YEAR])
def test_a_better_clock_that_disagrees_starts_a_session_that_tells_how_far_the_old_one_was_off(offset_ms: int) -> None:
    corrected = line().corrected(told("gps", NOW + offset_ms), NEXT, kept=True)
    assert corrected == Timeline(NEXT, "gps", NOW - HEARD + offset_ms, ClockFix(SESSION, offset_ms))
    assert corrected.at(HEARD + 7) == NOW + offset_ms + 7


@pytest.mark.parametrize("have", WORST_FIRST)
@pytest.mark.parametrize("says", WORST_FIRST)
@pytest.mark.parametrize("offset_ms", [-30 * DAY, -61_000, 61_000, 10 * YEAR])
def test_only_a_better_clock_is_believed_however_far_it_is_away(have: str, says: str, offset_ms: int) -> None:
    corrected = line(have).corrected(told(says, NOW + offset_ms), NEXT, kept=True)
    assert (corrected is not None) is (WORST_FIRST.index(says) > WORST_FIRST.index(have))


WEEKS_1024 = 1024 * 7 * DAY


@pytest.mark.parametrize(
    "utc_ms",
    [
        -62_135_596_800_000,
        -1,
        0,
        10_000,
        NOW - 2 * WEEKS_1024,
        NOW - WEEKS_1024,
        NOW - YEAR,
        BUILT_MS - 1,
        BUILT_MS + ROLLOVER_MS,
        NOW + WEEKS_1024,
        NOW + 80 * YEAR,
        253_402_300_799_999,
    ],
)
@pytest.mark.parametrize("source", ["gps", "ntp"])
def test_a_time_that_cannot_be_is_not_believed_of_anyone_and_even_where_nothing_else_is_known(
    source: str, utc_ms: int
) -> None:
    assert told(source, utc_ms).doubt
    nothing_known = Timeline(SESSION, "none", 0)
    assert nothing_known.corrected(told(source, utc_ms), NEXT, kept=True) is None
    assert not Confirmation().heard(told(source, utc_ms))


@pytest.mark.parametrize("utc_ms", [BUILT_MS, NOW, NOW + 10 * YEAR, BUILT_MS + ROLLOVER_MS - 1])
def test_every_time_from_when_this_was_written_to_the_next_rollover_can_be(utc_ms: int) -> None:
    assert told("gps", utc_ms).doubt == ""


def test_two_corrections_in_a_row_are_a_chain() -> None:
    second = line("saved").corrected(told("ntp", NOW + 90_000), NEXT, kept=True)
    assert second is not None
    third = second.corrected(told("gps", NOW + 60_123, HEARD), THIRD, kept=True)
    assert third is not None
    assert (second.fix, third.fix) == (ClockFix(SESSION, 90_000), ClockFix(NEXT, -29_877))
    assert third.at(HEARD) == NOW + 60_123


def test_a_session_of_which_nothing_was_kept_is_passed_over_by_the_chain() -> None:
    second = line("saved").corrected(told("ntp", NOW + 90_000), NEXT, kept=True)
    assert second is not None
    third = second.corrected(told("gps", NOW + 60_123), THIRD, kept=False)
    assert third == Timeline(THIRD, "gps", NOW - HEARD + 60_123, ClockFix(SESSION, 60_123))
    first_of_all = line("saved").corrected(told("gps", NOW + 60_123), NEXT, kept=False)
    assert first_of_all == Timeline(NEXT, "gps", NOW - HEARD + 60_123, None)


def test_a_session_that_ends_for_another_reason_than_its_clock_is_a_link_of_the_chain() -> None:
    second = line("none").renewed(NEXT)
    assert second == Timeline(NEXT, "none", NOW - HEARD, ClockFix(SESSION, 0))
    third = second.corrected(told("gps", NOW + 90_000), THIRD, kept=True)
    assert third is not None
    assert third.fix == ClockFix(NEXT, 90_000)


@pytest.mark.parametrize(
    ("source", "says", "offset_ms", "slept_ms", "is_right"),
    [
        ("gps", "gps", 50_000, 6_000, True),
        ("gps", "gps", 2_001, 6_000, True),
        ("gps", "gps", 2_000, 6_000, False),
        ("gps", "gps", -2_000, 6_000, False),
        ("gps", "gps", -2_001, 6_000, True),
        ("ntp", "ntp", 2_001, 6_000, True),
        # Times of the session before would be told twice.
        ("gps", "gps", -6_000, 6_000, False),
        ("gps", "gps", -5_999, 6_000, True),
        # Another source is `corrected`'s; and no time that cannot be counts.
        ("gps", "ntp", 50_000, 6_000, False),
        ("gps", "gps", 80 * YEAR, 6_000, False),
    ],
)
def test_after_a_night_a_clock_that_has_drifted_is_right_again_and_no_time_is_told_twice(
    source: str, says: str, offset_ms: int, slept_ms: int, *, is_right: bool
) -> None:
    newest_ms, now_ms = line(source).at(HEARD + 1_000), HEARD + 1_000 + slept_ms
    after = line(source).woken(NEXT, told(says, NOW + offset_ms), newest_ms, now_ms)
    right = Timeline(NEXT, source, NOW - HEARD + offset_ms)
    assert after == (right if is_right else line(source).renewed(NEXT))
    assert after.at(now_ms) > newest_ms


def test_after_a_night_in_which_nothing_told_the_time_the_clock_stays() -> None:
    assert line().woken(NEXT, None, 0, HEARD) == line().renewed(NEXT)


FUTURE = NOW + 80 * YEAR


@pytest.mark.parametrize(
    ("system", "system_ms", "newest_ms", "source", "begins_ms"),
    [
        # What the network says stands above all, as long as it can be.
        ("ntp", NOW, None, "ntp", NOW),
        ("ntp", NOW, NOW - DAY, "ntp", NOW),
        ("ntp", NOW, NOW + DAY, "ntp", NOW),
        ("ntp", 10_000, NOW, "saved", NOW),
        ("ntp", 10_000, None, "none", 10_000),
        # A battery clock is good for a time that is later than all that was.
        ("rtc", NOW, None, "rtc", NOW),
        ("rtc", NOW, NOW - 1, "rtc", NOW),
        ("rtc", NOW, NOW, "rtc", NOW),
        ("rtc", NOW, NOW + 1, "saved", NOW + 1),
        ("rtc", NOW, NOW + 5 * YEAR, "saved", NOW + 5 * YEAR),
        ("rtc", 946_684_800_000, NOW, "saved", NOW),
        ("rtc", 946_684_800_000, None, "none", 946_684_800_000),
        ("rtc", FUTURE, NOW, "saved", NOW),
        # fake-hwclock's, or nobody's: the later of the two.
        ("saved", NOW, None, "saved", NOW),
        ("saved", NOW, NOW - DAY, "saved", NOW),
        ("saved", NOW, NOW + DAY, "saved", NOW + DAY),
        ("saved", 10_000, NOW, "saved", NOW),
        ("saved", NOW - YEAR, None, "none", NOW - YEAR),
        # Rows of a run that knew no time say none.
        ("saved", 10_000, 70_000, "none", 10_000),
        ("saved", NOW, 70_000, "saved", NOW),
        ("saved", NOW, FUTURE, "saved", NOW),
        # What no packet could say is no time at all.
        ("saved", FUTURE, None, "none", 0),
        ("saved", -5_000, None, "none", 0),
    ],
)
def test_a_run_begins_on_the_best_clock_there_is_and_never_goes_back(
    system: str, system_ms: int, newest_ms: int | None, source: str, begins_ms: int
) -> None:
    begun = Timeline.begun(SESSION, told(system, system_ms), newest_ms)
    assert (begun.session, begun.source, begun.at(HEARD), begun.fix) == (SESSION, source, begins_ms, None)


def heard(*fixes: tuple[int, int]) -> list[tuple[bool, bool]]:
    """What becomes of fixes (s of UTC after NOW, s of elapsed time): whether each counts, whether each is refused."""
    confirmation, found = Confirmation(), []
    for utc_s, elapsed_s in fixes:
        counts = confirmation.heard(told("gps", NOW + utc_s * 1000, elapsed_s * 1000))
        found.append((counts, bool(confirmation.doubt)))
    return found


YES, WAIT, NO = (True, False), (False, False), (False, True)


@pytest.mark.parametrize(
    ("fixes", "outcomes"),
    [
        ([(0, 0), (1, 1)], [WAIT, YES]),
        ([(0, 0), (0, 0), (0, 0), (1, 1), (1, 1)], [WAIT, WAIT, WAIT, YES, WAIT]),
        ([(0, 0), (3, 1)], [WAIT, YES]),
        ([(0, 0), (0, 2)], [WAIT, YES]),
        ([(0, 0), (4, 1), (5, 2)], [WAIT, NO, YES]),
        ([(0, 0), (-3600, 1), (2, 2), (3, 3)], [WAIT, NO, NO, YES]),
        ([(0, 0), (10, 10)], [WAIT, YES]),
        ([(0, 0), (11, 11), (12, 12)], [WAIT, WAIT, YES]),
        # Two receivers, one of which rolled over long ago.
        ([(0, 0), (-WEEKS_1024 // 1000, 0), (1, 1), (1 - WEEKS_1024 // 1000, 1)], [WAIT, NO, YES, NO]),
    ],
    ids=[
        "two that agree", "the same again", "jitter", "two seconds late", "a jump", "one outlier", "ten seconds apart",
        "eleven seconds apart", "two receivers",
    ],
)  # fmt: skip
def test_a_fix_counts_when_the_one_before_agrees_with_it(
    fixes: list[tuple[int, int]], outcomes: list[tuple[bool, bool]]
) -> None:
    assert heard(*fixes) == outcomes


OFFSETS = st.one_of(st.integers(-3000, 3000), st.integers(-20 * YEAR, 20 * YEAR))
EVENTS = st.lists(
    st.tuples(st.integers(0, 700_000), st.sampled_from(["row", "row", "renew", *WORST_FIRST]), OFFSETS),
    min_size=1,
    max_size=30,
)


@given(st.sampled_from(WORST_FIRST), EVENTS)
def test_whatever_clocks_say_each_row_is_dated_by_the_chain_exactly_as_the_last_session_would(
    begins: str, events: list[tuple[int, str, int]]
) -> None:
    timeline, elapsed_ms, names = line(begins), HEARD, iter(f"{n:016x}" for n in range(100))
    rows: list[tuple[str, int, int]] = []
    fixes: dict[str, tuple[str, int]] = {}
    for pause_ms, source, offset_ms in events:
        elapsed_ms += pause_ms
        if source == "row":
            rows.append((timeline.session, timeline.at(elapsed_ms), elapsed_ms))
            if timeline.fix is not None:
                fixes[timeline.fix.previous_session] = (timeline.session, timeline.fix.offset_ms)
            continue
        kept = bool(rows) and rows[-1][0] == timeline.session
        if source == "renew":
            timeline = timeline.renewed(next(names)) if kept else timeline
            continue
        utc_ms = NOW + elapsed_ms + offset_ms
        corrected = timeline.corrected(told(source, utc_ms, elapsed_ms), next(names), kept=kept)
        if corrected is not None:
            assert corrected.at(elapsed_ms) == utc_ms
            assert WORST_FIRST.index(corrected.source) > WORST_FIRST.index(timeline.source)
            timeline = corrected
    if not rows or rows[-1][0] != timeline.session:
        return
    for name, at_ms, row_elapsed_ms in rows:
        session = name
        while session in fixes:
            session, offset_ms = fixes[session]
            at_ms += offset_ms  # noqa: PLW2901 - walking the chain
        assert (session, at_ms) == (timeline.session, timeline.at(row_elapsed_ms))
