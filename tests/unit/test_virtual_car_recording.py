"""A recorded minute, replayed: which row is in force, what is supported, and what is said of a file that is no use."""

import json
from pathlib import Path

import pytest

from components.virtual_car.car import Options, VirtualCar
from components.virtual_car.codes import CodeMemory
from components.virtual_car.identity import identity_of
from components.virtual_car.moment import Place
from components.virtual_car.recording import Recording, UnreadableRecordingError, load_recording
from components.virtual_car.vehicle_bus import two_unit_bus

SHARED = Path(__file__).resolve().parents[2] / "../shared/data/real_minute.json"


def reading(time: str, **values: object) -> dict[str, object]:
    return {"time": f"2017-05-26T00:36:{time}Z", **values}


def recording(tmp_path: Path, *readings: object, minute: object = "2017-05-26T00:36:00Z") -> Path:
    path = tmp_path / "minute.json"
    path.write_text(json.dumps({"minute": minute, "readings": list(readings)}))
    return path


@pytest.fixture
def three_rows(tmp_path: Path) -> Recording:
    point = {"location": {"type": "Point", "coordinates": [8.5, 47.25]}, "heading": 90.5, "altitude": 410.0}
    return load_recording(
        recording(
            tmp_path,
            reading("00.887", rpm=1266, speed=49, temp=90.6, maf=None, gear=2, fuel_status_raw="0200", **point),
            reading("20.5", rpm=None, speed=50, temp=90.6, maf=None, speed_mph_as_recorded=31.0),
            reading("59.453", rpm=800, speed=0, temp=None, maf=None, climb=0.1, gps_speed=3.8, **point),
        )
    )


@pytest.mark.parametrize(
    ("elapsed_s", "row"),
    [
        (0.0, 2),
        (0.886999, 2),
        (0.887, 0),
        (20.499, 0),
        (20.5, 1),
        (59.453, 2),
        (60.0, 2),
        (60.887, 0),
        (86_400.887, 0),
        (86_420.4999, 0),
    ],
)
def test_a_row_is_in_force_from_its_offset_until_the_next(three_rows: Recording, elapsed_s: float, row: int) -> None:
    assert three_rows.index_at(elapsed_s) == row
    assert three_rows.at(elapsed_s) is three_rows.rows[row].moment


def test_the_receiver_has_news_exactly_when_a_row_begins(three_rows: Recording) -> None:
    instants = [0.0]
    for _ in range(3 * 24 * 60):
        instants.append(three_rows.next_fix_s(instants[-1]))
    assert instants[:5] == [0.0, 0.887, 20.5, 59.453, 60.887]
    assert [three_rows.index_at(instant) for instant in instants[1:]] == [0, 1, 2] * (24 * 60)


def test_supported_is_what_has_a_value_in_at_least_one_row(three_rows: Recording) -> None:
    assert three_rows.supported == {"rpm", "speed", "temp"}


def test_the_bus_carries_the_recorded_values_and_is_silent_where_there_is_none(three_rows: Recording) -> None:
    bus = two_unit_bus(three_rows.supported, CodeMemory(), identity_of(0))

    def ask(elapsed_s: float, request: str) -> list[str]:
        answers = bus.ask(0x7E0, bytes.fromhex(request), three_rows.at(elapsed_s))
        return [answer.hex() for _, answer in answers]

    assert ask(1.0, "010C0D0510") == ["410c13c80d310583"]
    assert ask(21.0, "010C0D0510") == ["410d320583"]
    assert ask(21.0, "010C") == []
    assert ask(21.0, "0101") == []
    assert ask(21.0, "0100") == ["410008180000"]


def test_the_place_is_the_recorded_one(three_rows: Recording) -> None:
    assert three_rows.at(1.0).place == Place(47.25, 8.5, 410.0, 90.5, None, None)
    assert three_rows.at(30.0).place is None
    assert three_rows.at(59.9).place == Place(47.25, 8.5, 410.0, 90.5, 0.1, 3.8)


@pytest.mark.parametrize(
    ("readings", "minute", "fault"),
    [
        ((), "2017-05-26T00:36:00Z", "readings: wanted a list"),
        ((3,), "2017-05-26T00:36:00Z", r"readings\[0\]: is not an object"),
        ((reading("01"),), None, "minute: wanted an ISO 8601 time"),
        ((reading("01"),), "2017-05-26T00:36:00", "minute: has no time zone"),
        ((reading("01"),), "2017-05-26T00:35:00Z", r"readings\[0\].time: is not within 60 s"),
        ((reading("02"), reading("01")), "2017-05-26T00:36:00Z", r"readings\[1\].time: is not later"),
        ((reading("01", rpm="fast"),), "2017-05-26T00:36:00Z", r"readings\[0\].rpm: wanted a number"),
        ((reading("01", rpm=20_000),), "2017-05-26T00:36:00Z", r"readings\[0\].rpm: 20000 is outside 0..16383.75"),
        ((reading("01", maf=float("nan")),), "2017-05-26T00:36:00Z", r"readings\[0\].maf"),
        ((reading("01", location=7),), "2017-05-26T00:36:00Z", r"readings\[0\].location: wanted a GeoJSON"),
        (
            (reading("01", location={"type": "Point", "coordinates": [8, 91]}),),
            "2017-05-26T00:36:00Z",
            r"readings\[0\].location.coordinates",
        ),
        ((reading("01", heading="north"),), "2017-05-26T00:36:00Z", r"readings\[0\].heading: wanted a number"),
    ],
)
def test_a_fault_is_named_with_its_place(
    tmp_path: Path, readings: tuple[object, ...], minute: object, fault: str
) -> None:
    path = recording(tmp_path, *readings, minute=minute)
    with pytest.raises(UnreadableRecordingError, match=fault) as caught:
        load_recording(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_no_file_and_no_json_are_named_too(tmp_path: Path) -> None:
    with pytest.raises(UnreadableRecordingError, match="does not exist"):
        load_recording(tmp_path / "nothing.json")
    path = tmp_path / "text.json"
    path.write_text("{")
    with pytest.raises(UnreadableRecordingError, match="is not JSON"):
        VirtualCar(Options(replay=path))
    path.write_text("[]")
    with pytest.raises(UnreadableRecordingError, match="the document is not an object"):
        load_recording(path)


@pytest.mark.skipif(not SHARED.exists(), reason=f"no recorded minute at {SHARED}")
def test_the_real_minute_can_be_replayed() -> None:
    real = load_recording(SHARED)
    assert len(real.rows) == 58
    assert (real.rows[0].offset_ms, real.rows[-1].offset_ms) == (887, 59_453)
    assert real.supported == {
        "load", "rpm", "timing_advance", "short_term_fuel_trim_1", "long_term_fuel_trim_1",
        "throttle_pos", "speed", "temp", "intake_air_temp", "maf",
    }  # fmt: skip
    assert all(row.moment.place for row in real.rows)
