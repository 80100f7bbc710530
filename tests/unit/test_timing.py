"""How long the adapter is told to wait."""

from components.edge.timing import Timing


def calm(timing: Timing, requests: int = 500) -> int:
    """How often it was lowered."""
    return sum(timing.answered() for _ in range(requests))


def test_it_is_lowered_step_by_step_while_everything_is_answered() -> None:
    timing = Timing()
    assert timing.commands == ("ATAT1", "ATST32")
    assert [timing.answered() for _ in range(20)] == [False] * 19 + [True]
    assert timing.commands == ("ATAT2", "ATST32")
    assert calm(timing) == 2
    assert timing.commands == ("ATAT2", "ATST0F")


def test_silence_raises_it_at_once_and_for_good() -> None:
    timing = Timing()
    calm(timing)
    assert timing.had_no_data()
    assert timing.commands == ("ATAT2", "ATST19")
    assert calm(timing) == 0
    assert timing.had_no_data()
    assert timing.had_no_data()
    assert not timing.had_no_data()
    assert timing.commands == ("ATAT1", "ATST32")


def test_one_silence_begins_the_count_again() -> None:
    timing = Timing()
    calm(timing, 19)
    assert not timing.had_no_data()
    assert calm(timing, 19) == 0
    assert calm(timing, 1) == 1


def test_an_adapter_that_does_not_know_the_commands_is_left_as_it_is() -> None:
    timing = Timing()
    calm(timing, 20)
    timing.refused()
    assert timing.commands == ("ATAT1", "ATST32")
    assert calm(timing) == 0
