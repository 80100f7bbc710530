"""The edge's small pure parts: gear, book of codes, interlock."""

import pytest

from components.edge.dtc_book import DtcBook
from components.edge.gear import Gearbox
from components.edge.interlock import TOKEN_LIFE_MS, Interlock, refusal
from components.edge.ports import Dtc, DtcReport
from components.wire.signals import Value

STORED = Dtc("P0420", "stored", "7E8")
PENDING = Dtc("P0420", "pending", "7E8")


def test_a_gear_is_told_where_speed_and_engine_speed_fit_one_and_nowhere_else() -> None:
    box = Gearbox((3.5, 2.0, 1.3), 4.0, 2.0)
    # 30 km/h are 250 turns of the wheel a minute, 1000 of the gearbox's output.
    gears: list[tuple[dict[str, Value], int | None]] = [
        ({"rpm": 3500.0, "speed": 30}, 1),
        ({"rpm": 1300.0, "speed": 30}, 3),
        ({"rpm": 2000.0 * 1.079, "speed": 30}, 2),
        ({"rpm": 2000.0 * 1.09, "speed": 30}, None),
        ({"rpm": 800.0, "speed": 0}, None),
        ({"rpm": 800.0, "speed": 4}, None),
        ({"speed": 30}, None),
        ({"rpm": 2000.0}, None),
    ]
    assert [box.gear(values) for values, _ in gears] == [gear for _, gear in gears]


def test_a_book_tells_what_appeared_what_was_cleared_and_since_when_the_rest_is_there() -> None:
    book, appeared, cleared = DtcBook().updated(DtcReport((STORED,)), 1000)
    assert (appeared, cleared, book.read_at_ms) == ((STORED,), (), 1000)
    book, appeared, cleared = book.updated(DtcReport((PENDING, STORED)), 2000)
    assert (appeared, cleared) == ((PENDING,), ())
    assert [(one.status, one.first_seen_ms, one.last_seen_ms) for one in book.codes] == [
        ("pending", 2000, 2000),
        ("stored", 1000, 2000),
    ]
    book, appeared, cleared = book.updated(DtcReport((PENDING,)), 3000)
    assert (appeared, [(one.status, one.last_seen_ms) for one in cleared]) == ((), [("stored", 2000)])
    book, _, _ = book.updated(DtcReport(()), 4000)
    assert (book.codes, book.read_at_ms) == ((), 4000)


def test_a_token_is_good_once() -> None:
    interlock = Interlock()
    interlock.prepare("tech", "t1", 0)
    assert interlock.redeem("tech", "t1", 10) is None
    assert interlock.redeem("tech", "t1", 10) == "token_unknown"


def test_a_token_is_good_for_sixty_seconds_of_elapsed_time() -> None:
    interlock = Interlock()
    interlock.prepare("tech", "t1", 0)
    interlock.prepare("other", "t2", 0)
    assert interlock.redeem("tech", "t1", TOKEN_LIFE_MS - 1) is None
    assert interlock.redeem("other", "t2", TOKEN_LIFE_MS) == "token_expired"


def test_a_token_is_good_for_its_caller_only_and_the_attempt_of_another_does_not_use_it_up() -> None:
    interlock = Interlock()
    interlock.prepare("tech", "t1", 0)
    assert interlock.redeem("other", "t1", 1) == "token_unknown"
    assert interlock.redeem("tech", "t1", 2) is None


def test_a_wrong_token_uses_up_the_right_one_and_an_empty_one_is_never_good() -> None:
    interlock = Interlock()
    assert interlock.redeem("tech", "", 1) == "token_unknown"
    interlock.prepare("tech", "t1", 0)
    assert interlock.redeem("tech", "guess", 1) == "token_unknown"
    assert interlock.redeem("tech", "t1", 2) == "token_unknown"


def test_a_new_token_makes_the_one_before_void() -> None:
    interlock = Interlock()
    interlock.prepare("tech", "t1", 0)
    interlock.prepare("tech", "t2", 1)
    assert interlock.redeem("tech", "t1", 2) == "token_unknown"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"rpm": 0.0, "speed": 0}, None),
        ({"rpm": 0.0, "speed": 1}, "vehicle_moving"),
        ({"rpm": 0.25, "speed": 0}, "engine_running"),
        ({"rpm": 900.0, "speed": 60}, "engine_running"),
        ({"speed": 0}, "rpm_unknown"),
        ({"rpm": 0.0}, "speed_unknown"),
        ({}, "rpm_unknown"),
    ],
)
def test_a_car_may_be_cleared_only_when_both_speeds_are_known_to_be_zero(
    values: dict[str, Value], reason: str | None
) -> None:
    assert refusal(values, dict.fromkeys(values, 0), 1_500) == reason


def test_a_book_moves_with_the_clock_that_was_corrected() -> None:
    book, _, _ = DtcBook().updated(DtcReport((STORED,)), 1000)
    (code,) = book.shifted(500).codes
    assert (code.first_seen_ms, code.last_seen_ms, book.shifted(500).read_at_ms) == (1500, 1500, None)
