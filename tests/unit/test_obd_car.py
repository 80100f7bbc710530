"""ObdCar on an adapter by rote, in a time that only waiting moves: what it asks, believes, gives up, takes up again."""

from typing import cast

import pytest
from twisted.logger import ILogObserver, globalLogPublisher

from components.edge.ports import CarAwayError, Dtc
from components.wire.signals import OBD_SIGNALS
from tests.fakes import FakeClock, FakeElm, older_line, whole_car
from tests.obd_drive import ALL, Drive, drive, requests


def answer(*lines: str) -> bytes:
    return "".join(f"{line}\r" for line in lines).encode() + b"\r>"


def test_the_first_sample_connects_and_has_every_value() -> None:
    subject = drive()
    sample = subject.sample()
    assert sample.why == {}
    assert sample.values["rpm"] == 1726.0
    assert sample.values["dtc_ff"] == "P0420"
    state = subject.car.state()
    assert (state.connected, state.adapter, state.voltage_v) == (True, "ELM327 v1.5", 12.6)
    assert state.protocol == "ISO 15765-4 (CAN 11/500)"
    assert set(state.supported) == ALL
    assert (state.vin, state.vin_why, state.trouble) == (None, "no_data", "")


def test_only_the_fast_tier_is_asked_in_every_pass_and_nothing_starves() -> None:
    subject = drive()
    subject.sample()
    began = len(subject.elm.said)
    for _ in range(60):
        assert subject.sample().why == {}
    pids = _pids(requests(subject.elm, began))
    assert 58 <= pids.count(0x0C) <= 60
    assert 10 <= pids.count(0x06) <= 14  # tier M: about every 5 s
    assert 1 <= pids.count(0x05) <= 4  # tier S: every 30 s
    assert pids.count(0x1C) == 0  # tier O: once


def _pids(asked: list[str]) -> list[int]:
    return [pid for request in asked for pid in bytes.fromhex(request[2 : len(request) // 2 * 2])]


def test_what_the_car_has_not_is_unsupported_and_never_asked() -> None:
    subject = drive({0x0C: b"\x1a\xf8", 0x0D: b"\x32"})
    sample = subject.sample()
    assert set(sample.values) == {"rpm", "speed"}
    assert set(sample.why.values()) == {"unsupported"}
    subject.sample()
    assert set(_pids([request for request in requests(subject.elm) if request[:2] == "01"])) == {0x00, 0x0C, 0x0D}


def test_a_wide_band_sensor_gives_its_voltage_or_says_what_it_is_where_it_has_none() -> None:
    subject = drive({0x0C: b"\x1a\xf8", 0x24: b"\x80\x00\x0e\x66", 0x35: bytes(4)})
    sample = subject.sample()
    assert sample.values["o211"] == {"voltage_v": 0.449951171875, "trim_percent": None}
    assert (sample.why["o212"], sample.why["load"]) == ("wide_band", "unsupported")


def test_six_are_asked_at_once_and_the_count_only_after_it_was_proven() -> None:
    subject = drive()
    subject.sample()
    subject.sample()
    grouped = [request for request in requests(subject.elm) if request[:2] == "01" and len(request) > 13]
    assert len(grouped[0]) == 14
    assert any(len(request) == 15 for request in grouped)


@pytest.mark.parametrize("works", [1, 2, 3])
def test_a_car_that_answers_only_part_of_a_group_is_asked_in_smaller_ones(works: int) -> None:
    subject = drive()
    subject.elm.max_pids = works
    assert subject.sample().why == {}
    began = len(subject.elm.said)
    assert subject.sample().why == {}
    assert max(len(request) for request in requests(subject.elm, began)) <= 2 + 2 * works + 1


def test_a_group_that_silences_the_adapter_is_given_up() -> None:
    class Deaf(FakeElm):
        def _values(self, asked: bytes) -> bytes:
            return b"" if len(asked) > 2 else super()._values(asked)

    subject = Drive(Deaf(FakeClock(), whole_car()))
    sample = subject.until(lambda sample: not sample.why, 12)
    assert len(sample.values) == 36


def test_an_older_bus_is_asked_one_by_one() -> None:
    class Older(FakeElm):
        def _values(self, asked: bytes) -> bytes:
            said = super()._values(asked)
            lines = [line for line in said.decode().split("\r") if line.startswith("7E8")]
            return "".join(f"{older_line('486B10', bytes.fromhex(line[5:]))}\r" for line in lines).encode() + b"\r>"

    subject = Drive(Older(FakeClock(), whole_car(), {"ATDPN": b"A3\r\r>"}))
    sample = subject.until(lambda sample: not sample.why, 5)
    assert sample.values["speed"] == 0x31
    assert {len(request) for request in requests(subject.elm) if request[:2] == "01"} <= {4, 5}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"NO DATA\r\r>", "no_data"),
        (b"7E8037F0112\r\r>", "negative_response"),
        (b"7E804410C1A\r\r>", "truncated"),
        (b"CAN ERROR\r\r>", "bus_error"),
        (b"BUFFER FULL\r\r>", "adapter_error"),
        (b"?\r\r>", "adapter_error"),
        (b"", "timeout"),
        (b"7E803410D32\r\r>", "timeout"),  # only another PID's answer came
    ],
)
def test_what_is_no_answer_has_its_reason_and_the_other_signal_its_value(said: bytes, why: str) -> None:
    subject = drive({0x0C: b"\x1a\xf8", 0x05: b"\x50"})
    assert subject.sample().why.keys() == ALL - {"rpm", "temp"}
    for command in ("010C", "010C1"):
        subject.elm.answers[command] = said
    sample = subject.sample(within_ms=1_500)
    assert sample.why["rpm"] == why
    assert sample.values["temp"] == 40


def test_a_code_without_a_meaning_is_out_of_range_and_no_freeze_code_is_no_data() -> None:
    subject = drive({0x03: b"\x03\x00", 0x02: b"\x00\x00", 0x0C: b"\x1a\xf8"})
    why = subject.sample().why
    assert (why["fuel_status"], why["dtc_ff"]) == ("out_of_range", "no_data")


def test_of_two_ecus_the_engine_counts_whatever_the_order() -> None:
    subject = drive(
        _0100=b"7E906410000180000\r7E8064100001800 00\r\r>",
        _010C0D=b"7E904410C0000\r7E806410C1AF80D32\r\r>",
    )
    sample = subject.sample()
    assert sample.values == {"rpm": 1726.0, "speed": 50}


def test_what_only_the_second_ecu_has_is_taken_from_it() -> None:
    subject = drive(_0100=b"7E8064100001000 00\r7E906410000080000\r\r>", _010C0D=b"7E804410C1AF8\r7E903410D32\r\r>")
    assert subject.sample().values == {"rpm": 1726.0, "speed": 50}


def test_the_answer_of_the_last_request_is_never_taken_for_the_next() -> None:
    subject = drive({0x0C: b"\x1a\xf8"})
    subject.sample()
    subject.sample()
    subject.elm.answers["010C1"] = b""  # the answer comes too late …
    subject.elm.send_later(2_100, b"7E804410C0004\r\r>")
    assert subject.sample(1_000).why["rpm"] == "timeout"
    del subject.elm.answers["010C1"]
    sample = subject.sample()  # … while the adapter is asked for its name
    assert sample.values["rpm"] == 1726.0


def test_a_missing_prompt_and_two_prompts_cost_no_value() -> None:
    subject = drive({0x0C: b"\x1a\xf8"})
    subject.sample()
    subject.sample()
    subject.elm.answers["010C1"] = b"7E804410C0004\r"
    assert subject.sample(1_000).values["rpm"] == 1.0
    subject.elm.answers["010C1"] = b"7E804410C0008\r\r>\r\r>"
    assert subject.sample(1_000).values["rpm"] == 2.0
    assert subject.sample(1_000).values["rpm"] == 2.0


def test_a_silent_adapter_costs_one_deadline_and_then_climbs_the_ladder() -> None:
    subject = drive()
    subject.sample()
    subject.sample()
    subject.elm.is_silent = True
    began_ms, said = subject.clock.at_ms, len(subject.elm.said)
    assert "timeout" in subject.until(lambda sample: bool(sample.why), 2).why.values()
    sample = subject.until(lambda sample: not sample.values)
    assert set(sample.why.values()) <= {"timeout", "adapter_error"}
    subject.until(lambda _: not subject.elm.is_open, 10)
    ladder = [command for command in subject.elm.said[said:] if command.startswith("AT")]
    assert ladder[:4] == ["ATI", "ATI", "ATWS", "ATZ"]
    assert subject.clock.at_ms - began_ms < 10_000
    assert not subject.car.state().connected
    assert subject.car.state().trouble


@pytest.mark.parametrize("seconds_away", [3, 4, 5, 6, 7, 30])
def test_an_adapter_that_is_back_is_read_within_5_s(seconds_away: int) -> None:
    subject = drive()
    subject.sample()
    subject.elm.is_silent = True
    for _ in range(seconds_away):
        subject.sample()
    subject.elm.is_silent = False
    assert subject.until(lambda sample: "rpm" in sample.values, 6).why == {}


def test_an_unplugged_adapter_is_told_at_once_and_read_again_within_5_s() -> None:
    subject = drive()
    subject.sample()
    subject.elm.is_unplugged = True
    sample = subject.sample()
    assert set(sample.why.values()) == {"adapter_error"}
    assert sample.why.keys() == ALL
    assert "unplugged" in subject.car.state().trouble
    for _ in range(20):
        subject.sample()
    subject.elm.is_unplugged = False
    assert subject.until(lambda sample: bool(sample.values), 5).why == {}


def test_a_car_that_is_switched_off_is_looked_for_until_it_is_back() -> None:
    subject = drive()
    subject.sample()
    pids, subject.elm.pids = subject.elm.pids, {}
    subject.elm.answers["0100"] = b"UNABLE TO CONNECT\r\r>"
    sample = subject.until(lambda sample: set(sample.why.values()) == {"bus_error"}, 5)
    assert sample.why.keys() == ALL
    assert subject.car.state().trouble == "UNABLE TO CONNECT"
    assert subject.elm.is_open
    del subject.elm.answers["0100"]
    subject.elm.pids = {**pids, 0x1C: b"\x07"}
    sample = subject.until(lambda sample: bool(sample.values), 5)
    assert sample.values["obd_standard"] == "eobd_and_obd2"  # asked again: it might be another car


def test_a_reset_in_the_middle_sets_the_adapter_up_again() -> None:
    subject = drive({0x0C: b"\x1a\xf8"})
    subject.sample()
    subject.elm.answers["010C1"] = b"LV RESET\r\rELM327 v1.5\r\r>"
    said = len(subject.elm.said)
    assert subject.sample().values["rpm"] == 1726.0
    assert subject.elm.said[said:][:3] == ["010C1", "ATWS", "ATE0"]
    assert subject.car.state().rejected == {"adapter_error": 1}


def test_a_slow_search_goes_on_over_several_calls() -> None:
    subject = drive({0x0C: b"\x1a\xf8"})

    def search() -> bytes:
        subject.elm.send_later(6_000, b"\r7E8064100001000 00\r\r>")
        return b"SEARCHING..."

    subject.elm.answers["0100"] = search
    sample = subject.until(lambda sample: bool(sample.values), 9)
    assert sample.values == {"rpm": 1726.0}
    assert subject.elm.said.count("0100") == 1


def test_a_value_that_was_not_asked_again_in_time_becomes_stale() -> None:
    subject = drive(takes_ms=80)
    subject.until(lambda sample: len(sample.values) == 36)
    for _ in range(2):
        values = subject.sample().measured_ms
    subject.clock.at_ms += 3_500
    sample = subject.car.sample(subject.clock.at_ms)  # no time to ask anything
    assert sample.why["rpm"] == "stale"
    assert sample.measured_ms["temp"] == values["temp"]
    assert "obd_standard" in sample.values  # tier O holds as long as the connection does


def test_a_pass_with_less_time_than_it_needs_asks_everything_in_turn() -> None:
    subject = drive(takes_ms=400)
    began_ms = subject.clock.at_ms
    subject.until(lambda sample: len(sample.values) > 20, 30)
    for _ in range(20):
        subject.sample(within_ms=500)
    pids = _pids([request for request in requests(subject.elm) if request[:2] == "01"])
    assert {signal.pid for signal in OBD_SIGNALS} <= set(pids)
    assert subject.clock.at_ms > began_ms


def test_measure_now_asks_again_and_has_a_reason_for_the_rest() -> None:
    subject = drive({0x0C: b"\x1a\xf8", 0x0D: b"\x00"})
    subject.sample()
    subject.elm.pids = {0x0D: b"\x00"}
    sample = subject.car.measure_now(("rpm", "speed", "load", "location"), subject.clock.at_ms + 900)
    assert sample.values == {"speed": 0}
    assert sample.why == {"rpm": "no_data", "load": "unsupported", "location": "unsupported"}


def test_measure_now_asks_what_it_is_told_on_an_adapter_that_is_behind_too() -> None:
    subject = drive(takes_ms=150)
    subject.until(lambda sample: len(sample.values) == 36)
    subject.sample(within_ms=300)
    began = len(subject.elm.said)
    sample = subject.car.measure_now(("obd_standard",), subject.clock.at_ms + 900)
    assert sample.why == {}
    asked = requests(subject.elm, began)
    assert asked[0].startswith("011C")
    assert len(asked) == 1


def test_measure_now_without_a_car_has_reasons_only() -> None:
    subject = drive()
    subject.elm.is_unplugged = True
    sample = subject.car.measure_now(("rpm", "speed"), subject.clock.at_ms + 900)
    assert sample.why == {"rpm": "adapter_error", "speed": "adapter_error"}


def codes(subject: Drive) -> tuple[Dtc, ...]:
    subject.sample()
    return subject.car.read_dtcs(subject.clock.at_ms + 3_000).codes


def test_codes_of_every_ecu_and_status_are_read() -> None:
    subject = drive(_03=b"7E8064302042001 71\r7E9024300\r\r>", _07=b"7E8044701C100\r\r>", _0A=b"7E8024A00\r\r>")
    assert codes(subject) == (
        Dtc("P0171", "stored", "7E8"),
        Dtc("P0420", "stored", "7E8"),
        Dtc("U0100", "pending", "7E8"),
    )


def test_a_list_over_several_frames_is_whole() -> None:
    subject = drive(_03=b"7E81008430304200171\r7E821C1000000000000\r\r>")
    assert [code.code for code in codes(subject)] == ["P0171", "P0420", "U0100"]


@pytest.mark.parametrize(
    "said",
    [
        b"7E8064303042001 71\r\r>",  # counts three, has two
        b"7E81008430304200171\r\r>",  # a hole
        b"7E8044301 04\r\r>",  # half a code
        b"7E80143\r\r>",
        b"7E8037F0322\r\r>",
        b"7E8037F0378\r\r>",
        b"7E8024300\rBUFFER FULL\r\r>",
        b"7E8024300\r7E90\xb3\r\r>",
        b"CAN ERROR\r\r>",
        b"7E8024300\r",
        b"",
    ],
)
def test_codes_that_are_not_whole_are_not_concluded_from(said: bytes) -> None:
    subject = drive(_03=said)
    with pytest.raises(CarAwayError):
        codes(subject)


def test_silence_to_mode_03_is_believed_when_the_count_is_zero_and_not_when_it_is_not() -> None:
    pids = whole_car()
    assert codes(drive(pids)) == ()
    with pytest.raises(CarAwayError, match="2 codes"):
        codes(drive({**pids, 0x01: b"\x82\x07\x25\x00"}))


def test_an_ecu_that_answered_before_and_is_missing_now_is_a_missing_part() -> None:
    subject = drive(_03=b"7E8024300\r7E904430101 71\r\r>")
    assert len(codes(subject)) == 1
    subject.elm.answers["03"] = b"7E8024300\r\r>"
    with pytest.raises(CarAwayError, match="7E9"):
        codes(subject)


def test_padding_on_an_older_bus_is_no_code() -> None:
    answers = {
        "ATDPN": b"A3\r\r>",
        "0100": answer(older_line("486B10", bytes.fromhex("410000180000"))),
        "03": answer(
            older_line("486B10", bytes.fromhex("43042001710000")),
            older_line("486B10", bytes.fromhex("43C10000000000")),
            older_line("486B11", bytes.fromhex("43000000000000")),
        ),
    }
    subject = Drive(FakeElm(FakeClock(), {}, answers))
    assert [(code.code, code.ecu) for code in codes(subject)] == [("P0171", "10"), ("P0420", "10"), ("U0100", "10")]


def test_the_freeze_frame_has_its_code_and_what_was_measured_then() -> None:
    subject = drive(
        _020200=b"7E8054202000420\r\r>",
        _020400=b"7E80442040080\r\r>",
        _020C00=b"7E805420C001AF8\r\r>",
        _020D00=b"7E804420D0032\r\r>",
    )
    subject.sample()
    frame = subject.car.read_dtcs(subject.clock.at_ms + 3_000).freeze_frame
    assert frame == {"dtc_ff": "P0420", "load": pytest.approx(50.2, abs=0.1), "rpm": 1726.0, "speed": 50}


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (b"7E80144\r\r>", "cleared"),
        (b"7E80144\r7E90144\r\r>", "cleared"),
        (b"7E8037F0422\r\r>", "refused"),
        (b"7E80144\r7E9037F0422\r\r>", "refused"),
        (b"7E8037F0478\r7E80144\r\r>", "cleared"),
        (b"7E8037F0478\r\r>", "unknown"),
        (b"NO DATA\r\r>", "unknown"),
        (b"?\r\r>", "unknown"),
        (b"", "unknown"),
    ],
)
def test_clearing_is_sent_once_and_its_outcome_is_never_guessed(said: bytes, outcome: str) -> None:
    subject = drive(_04=said)
    subject.sample()
    assert subject.car.clear_dtcs(subject.clock.at_ms + 2_000) == outcome
    subject.sample()
    subject.sample()
    assert subject.elm.said.count("04") == 1
    # A bare CR would make the adapter repeat its last command.
    assert "" not in subject.elm.said


def test_without_a_car_nothing_is_cleared() -> None:
    subject = drive()
    subject.elm.is_unplugged = True
    assert subject.car.clear_dtcs(subject.clock.at_ms + 2_000) == "unknown"
    assert subject.elm.said == []


@pytest.mark.parametrize(
    ("said", "vin", "why"),
    [
        (b"7E8101449020131 5A5A\r7E8215643 4152 3539 54\r7E82230313937393830\r\r>", "1ZZVCAR59T0197980", ""),
        (b"7E81013490201315A5A\r7E82156434152353954\r7E82230313937393800\r\r>", None, "truncated"),
        (b"7E81014490201315A5A\r7E82230313937393830\r\r>", None, "truncated"),
        (b"7E81014490201315A49\r7E82156434152353954\r7E82230313937393830\r\r>", None, "out_of_range"),
        (b"7E8037F0911\r\r>", None, "negative_response"),
        (b"NO DATA\r\r>", None, "no_data"),
    ],
)
def test_the_vin_is_whole_or_has_a_reason(said: bytes, vin: str | None, why: str) -> None:
    subject = drive(_0902=said)
    subject.sample()
    assert (subject.car.state().vin, subject.car.state().vin_why) == (vin, why)


def test_the_voltage_is_asked_every_5_s_and_while_no_car_answers() -> None:
    subject = drive()
    subject.sample()
    subject.elm.answers["ATRV"] = b"14.2V\r\r>"
    for _ in range(31):
        subject.sample()
    assert subject.car.state().voltage_v == 14.2
    assert 6 <= subject.elm.said.count("ATRV") <= 8
    subject.elm.pids, subject.elm.answers["0100"] = {}, b"UNABLE TO CONNECT\r\r>"
    subject.elm.answers["ATRV"] = b"11.9V\r\r>"
    subject.until(lambda _: subject.car.state().voltage_v == 11.9, 8)


def test_an_adapter_that_babbles_something_new_every_second_does_not_fill_the_log() -> None:
    subject = drive({0x0C: b"\x1a\xf8"})
    subject.sample()
    lines: list[object] = []
    observer = cast("ILogObserver", lines.append)
    globalLogPublisher.addObserver(observer)
    try:
        for second in range(500):
            subject.elm.answers["010C1"] = subject.elm.answers["010C"] = f"WHAT {second} {'x' * 999}\r\r>".encode()
            subject.sample()
            assert len(subject.car.state().trouble) <= 200
    finally:
        globalLogPublisher.removeObserver(observer)
    assert 0 < len(lines) <= 32


def test_close_lets_go_and_the_next_sample_opens_again() -> None:
    subject = drive()
    subject.sample()
    subject.car.close()
    assert not subject.elm.is_open
    assert not subject.car.state().connected
    assert subject.sample().why == {}


def test_the_configured_bus_is_set_and_a_clone_that_lacks_comfort_is_used() -> None:
    subject = Drive(FakeElm(FakeClock(), whole_car(), {"ATL0": b"?\r\r>", "ATS0": b"?\r\r>", "ATWS": b"?\r\r>"}), "6")
    assert subject.sample().why == {}
    assert "ATSP6" in subject.elm.said
    assert "ATZ" in subject.elm.said
