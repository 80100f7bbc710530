"""How long a number of modem or SIM counts: a card that is changed is seen, a poll that fails wipes nothing."""

from dataclasses import replace

import pytest

from components.edge.ports import Sim
from components.edge.sim_identity import KEEP_MS, KnownSim, iccid, imei

ICCID, OTHER_ICCID = "8949200000123456780", "8949200000123456798"
IMEI, OTHER_IMEI = "490154203237518", "356938035643809"
BOTH = Sim(ICCID, IMEI, "", "")
SILENT = Sim(None, None, "timeout", "timeout")


def known(sim: Sim = BOTH, at_ms: int = 1_000_000) -> KnownSim:
    subject = KnownSim()
    subject.heard(sim, at_ms)
    return subject


def test_before_anything_is_heard_there_is_nothing() -> None:
    assert KnownSim().sim == Sim()
    assert KnownSim().heard(SILENT, 1) == SILENT


def test_numbers_may_come_one_after_the_other() -> None:
    subject = known(Sim(None, IMEI, "timeout", ""))
    assert subject.heard(Sim(ICCID, None, "", "timeout"), 1_060_000) == BOTH


def test_a_card_that_is_changed_is_the_new_one_at_once() -> None:
    assert known().heard(Sim(OTHER_ICCID, None, "", "timeout"), 1_060_000) == Sim(OTHER_ICCID, IMEI, "", "")


def test_a_card_that_is_taken_out_is_none_at_once() -> None:
    subject = known()
    gone = Sim(None, IMEI, "no_data", "")
    assert subject.heard(gone, 1_060_000) == gone
    assert subject.heard(SILENT, 1_060_001) == replace(gone, iccid_why="timeout")


@pytest.mark.parametrize("why", ["timeout", "adapter_error", "out_of_range", "unsupported"])
def test_a_poll_that_fails_wipes_nothing_for_five_minutes_and_then_says_why(why: str) -> None:
    subject, failed = known(), Sim(None, None, why, why)
    assert subject.heard(failed, 1_000_000 + KEEP_MS) == BOTH
    assert subject.heard(failed, 1_000_001 + KEEP_MS) == failed
    assert subject.heard(BOTH, 2_000_000) == BOTH


def test_each_number_is_kept_from_when_it_was_last_confirmed() -> None:
    subject = known()
    subject.heard(Sim(ICCID, None, "", "timeout"), 1_200_000)
    assert subject.heard(SILENT, 1_400_000) == Sim(ICCID, None, "", "timeout")


def test_another_modem_has_nothing_of_the_first_one_s_card() -> None:
    later = Sim(None, OTHER_IMEI, "timeout", "")
    assert known().heard(later, 1_060_000) == later
    assert known(Sim(ICCID, None, "", "timeout")).heard(later, 1_060_000) == Sim(ICCID, OTHER_IMEI, "", "")


@pytest.mark.parametrize("text", ["", "8", "٨٩٤٩٢٠٠٠٠٠١٢٣٤٥٦٧٨٠", ICCID + "\n", "F" + ICCID, ICCID + "FFF", IMEI])
def test_what_is_no_card_s_number_is_none(text: str) -> None:
    assert iccid(text) is None


@pytest.mark.parametrize("text", ["", "0", IMEI + "\n", " " + IMEI, "+" + IMEI, IMEI[:-1], ICCID])
def test_what_is_no_modem_s_number_is_none(text: str) -> None:
    assert imei(text) is None
