"""The operators' commands against a driving car: what programs get, what people get, and errors in one line."""

import ast
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.cloud.sqlite_archive import SqliteArchive
from components.cloud.sqlite_registry import Registry
from components.console.fleet import Fleet
from components.console.node import free_port
from components.keyfile import make_key, read_key_file, write_key_file
from components.wire.signals import BY_KEY
from components.wire.times import iso_ms, minute_id
from tests.commands import odograph
from tests.journey_fleet import ENVIRONMENT, access, lines, one_line, told
from tests.journey_tap import Tapped
from tests.waiting import PATIENCE_S, until
from tests.wamp_peer import Peer

STATUS = {
    "device", "version", "at", "uptime_s", "session", "clock", "recorder", "car", "gps", "sim", "outbox", "uplink",
    "power",
}  # fmt: skip
MINUTE = {"id", "device", "account", "vehicle", "driver", "session", "start", "period_s", "clock", "identity"}


@pytest.fixture
def fleet(tapped: Tapped) -> Fleet:
    return tapped.fleet


def test_programs_get_json_with_the_keys_that_are_documented(fleet: Fleet) -> None:
    asked = access(fleet)
    status = told("status", "car_01", *asked)
    assert status.keys() >= STATUS
    assert status["car"]["connected"] is True
    assert status["car"]["vin"] == fleet.cars[0].hello["vin"]
    codes = told("dtcs", "car_01", "--refresh", *asked)
    assert codes.keys() == {"device", "at", "dtcs"}
    (device,) = [one for one in told("devices", *asked) if one["id"] == "car_01"]
    assert device.keys() >= {"id", "state", "account", "vehicle", "driver", "latest"}
    assert (device["state"], device["account"]) == ("active", "demo")
    latest = told("latest", "car_01", *asked)
    assert latest.keys() >= MINUTE | {"summary", "dtcs", "gaps"}
    for reading in lines("minutes", "car_01", "--readings", *asked)[0]["readings"]:
        assert reading.keys() == {"at", "age_ms", "why", *BY_KEY}
    since, until = latest["start"], "2100-01-01T00:00:00Z"
    found = lines("minutes", "car_01", "--since", since, "--until", until, *asked)
    assert found
    assert min(one["start"] for one in found) >= since
    assert lines("minutes", "car_01", "--until", "2000-01-01", *asked) == []


def test_people_get_tables(fleet: Fleet) -> None:
    for words, wanted in {
        ("status", "car_01"): "connected",
        ("dtcs", "car_01"): "codes as of",
        ("devices",): "virtual-car",
        ("latest", "car_01"): "5 s",
        ("minutes", "car_01"): "P0171",
    }.items():
        shown = odograph(*words, *access(fleet))
        assert (shown.returncode, shown.stderr) == (0, ""), words
        assert wanted in shown.stdout


def test_the_router_and_the_archive_itself_tell_the_same_minutes(fleet: Fleet) -> None:
    by_archive = lines("minutes", "car_01", "--readings", "--archive", f"sqlite:{fleet.home.path}/archive.db")
    by_router = lines("minutes", "car_01", "--readings", *access(fleet))
    assert by_router[: len(by_archive)] == by_archive


def test_autobahns_own_command_line_gets_the_cars_status(fleet: Fleet) -> None:
    wamp = Path(sys.executable).with_name("wamp")
    command = [str(wamp), "--url", fleet.urls.devices, "--realm", "odograph", "--authid", "admin"]
    called = subprocess.run(
        [*command, "--max-failures", "1", "call", "odograph.device.car_01.status"],
        env={**ENVIRONMENT, "WAMP_PRIVATE_KEY": read_key_file(fleet.home.admin_key).private_key},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert ast.literal_eval(called.stdout.removeprefix("result: ")).keys() >= STATUS


def test_a_router_that_is_away_is_said_in_one_line(fleet: Fleet) -> None:
    away = f"ws://127.0.0.1:{free_port()}/ws"
    line = one_line(odograph("devices", "--router", away, "--key", fleet.home.admin_key), 1)
    assert line == f"the router at {away} cannot be reached: is it started? (cd router && crossbar start)"
    assert one_line(odograph("devices", "--router", "http://here", "--key", fleet.home.admin_key), 2)


def test_a_wrong_key_file_is_said_in_one_line(fleet: Fleet, tmp_path: Path) -> None:
    admin = read_key_file(fleet.home.admin_key)
    for name, key in {
        "open": admin,
        "stranger": make_key("stranger", "admin"),
        "forged": make_key("admin", "admin"),
    }.items():
        write_key_file(tmp_path / name, key)
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "words").write_text("not toml at all")
    (tmp_path / "words").chmod(0o600)
    cases = {
        "missing": (2, "does not exist"),
        "open": (2, "can be read or written by others: run: chmod 600"),
        "words": (2, "words"),
        "stranger": (1, "the router does not know stranger by this key"),
        "forged": (1, "the router does not know admin by this key"),
    }
    for name, (code, words) in cases.items():
        assert words in one_line(odograph("devices", *access(fleet, tmp_path / name)), code)


def test_a_device_that_is_unknown_or_away_is_said_in_one_line(fleet: Fleet) -> None:
    for command in ("status", "dtcs", "clear-dtcs"):
        line = one_line(odograph(command, "car_77", *access(fleet)), 1)
        assert "car_77" in line
        assert "connected" in line
        assert one_line(odograph(command, "Car 77!", *access(fleet)), 2)
    assert "car_77 has no packet yet" in one_line(odograph("latest", "car_77", *access(fleet)), 1)
    assert lines("minutes", "car_77", *access(fleet)) == []


def test_a_device_that_never_answers_is_given_up(fleet: Fleet) -> None:
    key = make_key("car_mute", "device")
    with Registry.open(fleet.home.registry, write=True) as registry:
        registry.add_device("car_mute", key.public_key, 1)

    async def never(**_: object) -> None:
        await Peer.forever()

    with Peer(fleet.urls.devices, key) as peer:
        peer.register("odograph.device.car_mute.status", never)
        program = "import components.console.ask as a, sys; a._ANSWER_S = 2\n"
        program += "from components.console.__main__ import run; sys.exit(run(sys.argv[1:]))"

        def gives_up() -> bool:
            """On a busy machine it may give up the router before it has asked for the car."""
            asked = subprocess.run(
                [sys.executable, "-c", program, "status", "car_mute", *access(fleet)],
                capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=ENVIRONMENT,
            )  # fmt: skip
            words = f"car_mute does not answer: no answer from {fleet.urls.devices} within 2 s"
            return words in one_line(asked, 1)

        until(gives_up)


def test_minutes_come_in_pages_and_none_is_lost_between_them(fleet: Fleet) -> None:
    """Many packets of another device, put straight into the archive that the persister serves."""
    assert fleet.persister is not None
    assert fleet.persister.end() == 0
    with closing(SqliteArchive(fleet.home.path / "archive.db")) as archive:
        (first, *_) = archive.minutes("car_01")
        start_ms = first.start_ms - 86_400_000
        made = []
        for n in range(150):
            # Two sessions in every other period, so that pages end between packets of one start, too.
            session = f"{n % 4 // 3:016x}"
            at_ms = start_ms + (n - n % 4 // 3) * 5_000
            start = iso_ms(at_ms)
            id_ = f"car_old/{session}/{minute_id(at_ms)}"
            form = {**first.packet, "device": "car_old", "session": session, "start": start, "id": id_}
            made.append(replace(first, id=id_, device="car_old", session=session, start_ms=at_ms, packet=form))
        archive.insert(made)
        archive.mark_fed([one.id for one in made])
        wanted = [one.id for one in archive.minutes("car_old")]
    fleet.start_persister()
    asked = access(fleet)
    until(lambda: odograph("devices", *asked).returncode == 0, "a persister")
    found: list[Any] = lines("minutes", "car_old", *asked)
    assert len(wanted) == 150
    assert [one["id"] for one in found] == wanted
    since = found[75]["start"]
    later = [one["id"] for one in lines("minutes", "car_old", "--since", since, *asked)]
    assert later == [one["id"] for one in found if one["start"] >= since]


def test_output_that_nobody_reads_any_more_is_no_trouble(fleet: Fleet) -> None:
    command = Fleet.odograph("minutes", "car_01", "--readings", "--json", "--archive")
    command += [f"sqlite:{fleet.home.path}/archive.db"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        os.read(process.stdout.fileno(), 10)
        process.stdout.close()
        assert process.stderr.read() == b""
