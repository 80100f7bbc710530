"""What limited operators hear from the cloud: of their devices, of their account's time, and of nothing else."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cbor2
import pytest
from autobahn.wamp.exception import ApplicationError
from twisted.internet.defer import ensureDeferred

from components.cloud import wamp_fleet
from components.cloud.ports import StoredPacket
from components.cloud.sqlite_registry import Registry
from components.cloud.wamp_fleet import Fleet
from components.wire.times import iso_ms, parse_iso
from tests.edge_parts import InlineLane, as_lane
from tests.fake_stores import MemoryArchive

KEY = "ab" * 32
DENIED = "wamp.error.not_authorized"


def stored(device: str, minute: int, account: str) -> StoredPacket:
    id_, start_ms = f"{device}/{'0' * 16}/{minute}", minute * 60_000
    form = {"id": id_, "device": device, "start": iso_ms(start_ms)}
    return StoredPacket(id_, device, "0" * 16, start_ms, account, "", "", form, b"", id_, start_ms)


@dataclass
class Cloud:
    fleet: Fleet
    registry: Registry

    def ask(self, who: str | None, name: str, *arguments: object) -> Any:  # noqa: ANN401 - as the procedure answers
        """Return the answer, or the error's URI."""
        found: list[Any] = []
        details = cast("Any", SimpleNamespace(caller_authid=who))
        answer = ensureDeferred(getattr(self.fleet, name)(*arguments, details=details))
        answer.addCallbacks(found.append, lambda failure: found.append(failure.value))
        return found[0].error if isinstance(found[0], ApplicationError) else found[0]

    def minutes(self, who: str, device: str) -> Any:  # noqa: ANN401 - starts, or the error's URI
        found = self.ask(who, "minutes", device)
        return found if isinstance(found, str) else [one["packet"]["start"][14:16] for one in found["minutes"]]


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    archive = MemoryArchive()
    # car_sold was acme's for two minutes, and is other's since.
    archive.insert([stored("car_sold", n, "acme" if n < 2 else "other") for n in range(4)])
    archive.insert([stored("car_acme", 0, "acme"), stored("car_gone", 0, "acme")])
    with closing(Registry.create(tmp_path / "registry.db")) as registry:
        registry.add_device("car_acme", KEY, 1, account="acme")
        registry.add_device("car_sold", KEY, 1, account="other")
        registry.add_principal("adam", KEY, "admin", 1)
        registry.add_principal("anna", KEY, "viewer", 1, account="acme")
        registry.add_principal("otto", KEY, "viewer", 1, account="other")
        registry.add_principal("nina", KEY, "viewer", 1, devices=("car_sold",))
        registry.add_principal("late", KEY, "admin", 1, expires_ms=2)
        yield Cloud(Fleet(archive, registry, as_lane(InlineLane()), cast("Any", None)), registry)


def test_everybody_lists_the_devices_of_their_limits(cloud: Cloud) -> None:
    lists = {who: [one["id"] for one in cloud.ask(who, "devices")] for who in ("adam", "anna", "otto", "nina")}
    assert lists == {
        "adam": ["car_acme", "car_sold"], "anna": ["car_acme"], "otto": ["car_sold"], "nina": ["car_sold"],
    }  # fmt: skip


def test_who_is_limited_to_an_account_hears_nothing_of_what_a_car_did_for_the_account_before(cloud: Cloud) -> None:
    assert cloud.minutes("adam", "car_sold") == ["00", "01", "02", "03"]
    assert cloud.minutes("nina", "car_sold") == ["00", "01", "02", "03"]
    assert cloud.minutes("otto", "car_sold") == ["02", "03"]
    assert cloud.minutes("anna", "car_sold") == DENIED
    cloud.registry.set_device("car_sold", 2, account="acme")
    assert cloud.minutes("anna", "car_sold") == ["00", "01"]
    assert cloud.ask("anna", "latest", "car_sold")["packet"]["start"][14:16] == "01"
    (listed,) = [one for one in cloud.ask("anna", "devices") if one["id"] == "car_sold"]
    assert listed["latest"][14:16] == "01"
    assert cloud.minutes("otto", "car_sold") == DENIED


def test_a_device_whose_row_is_unsound_is_passed_over(cloud: Cloud) -> None:
    cloud.registry._connection.execute("UPDATE device SET notes = char(10) WHERE id = 'car_sold'")
    assert [one["id"] for one in cloud.ask("adam", "devices")] == ["car_acme"]


def test_what_is_outside_is_refused_whether_it_is_there_or_not(cloud: Cloud) -> None:
    for device in ("car_sold", "car_gone", "car_none"):
        for name in ("latest", "minutes"):
            assert cloud.ask("anna", name, device) == DENIED
    assert cloud.ask("adam", "latest", "car_none") is None
    assert cloud.minutes("adam", "car_gone") == ["00"]


@pytest.mark.parametrize("who", ["late", "nobody", "car_acme", None])
def test_who_is_no_operator_or_not_any_more_is_refused(cloud: Cloud, who: str | None) -> None:
    for name, *arguments in (("devices",), ("latest", "car_acme"), ("minutes", "car_acme")):
        assert cloud.ask(who, name, *arguments) == DENIED


def size(answer: object) -> int:
    return len(cbor2.dumps(answer))


def test_every_answer_fits_into_one_message(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    router = (Path(__file__).parents[2] / "router/.crossbar/config.yaml").read_text()
    assert f"max_message_size: {wamp_fleet._ANSWER_BYTES + 20_336} " in router  # WAMP's frame is smaller than that
    monkeypatch.setattr(wamp_fleet, "_ANSWER_BYTES", 2_500)
    long: dict[str, object] = {
        "dtcs": [{"code": "P0420"}] * 90,
        "gaps": [{"reason": "late"}] * 90,
        "lost": [{"count": 1}] * 990,
    }
    heavy: dict[str, object] = {"readings": {"columns": {"climb": {"v": [0.5] * 600}}}}
    light: dict[str, object] = {"period_s": 60}
    found: list[Any] = []
    pages, since_ms, after = 0, 1, ""
    for n, form in enumerate((light, heavy, light, long, heavy | long), 1):
        one = replace(stored("car_acme", n, "acme"), id=f"car_acme/{'0' * 16}/19700101T00{n:02}00Z")
        cast("MemoryArchive", cloud.fleet.archive).insert([replace(one, packet=form | {"start": iso_ms(one.start_ms)})])
    more = True
    while more:
        page = cloud.ask("adam", "minutes", "car_acme", since_ms, None, after)
        assert size(page) < 2_600
        found, pages, more = found + page["minutes"], pages + 1, page["more"]
        since_ms, after = parse_iso(found[-1]["packet"]["start"]), found[-1]["id"]
    assert [one["id"][-4] for one in found] == ["1", "2", "3", "4", "5"]
    assert pages > 1
    assert [one.get("left_out") for one in found] == [
        None, ["readings"], None, ["lost"], ["readings", "lost"],
    ]  # fmt: skip
    assert found[1]["packet"] == {"start": "1970-01-01T00:02:00.000Z"}
    assert size(cloud.ask("adam", "latest", "car_acme")) < 2_600


def test_a_fleet_of_any_size_is_listed_page_by_page(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wamp_fleet, "_ANSWER_BYTES", 20_000)
    for n in range(3):
        cloud.registry.add_device(f"car_{n}", KEY, 1, account="a" * 4096, vehicle="\u00e9" * 4096)
    found: list[str] = []
    pages = 0
    while page := cloud.ask("adam", "devices", found[-1] if found else ""):
        assert size(page) < 20_100
        found += [one["id"] for one in page]
        pages += 1
    assert found == ["car_0", "car_1", "car_2", "car_acme", "car_sold"]
    assert pages == 3
