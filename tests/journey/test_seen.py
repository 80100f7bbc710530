"""Agent and persister as whole processes, seen from outside: by a service manager, Prometheus, a reader of logs."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.console.fleet import Fleet, Process
from components.console.node import Node, free_port
from components.edge.spool_view import SpoolView
from tests.journey_fleet import access, descendants_of, more_receipts, running_fleet, told
from tests.service_manager import Manager
from tests.waiting import until


@dataclass
class Seen:
    """A fleet whose agent and persister are watched by a service manager each, and serve metrics."""

    fleet: Fleet
    ports: dict[str, int] = field(default_factory=dict)
    managers: dict[str, Manager] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)

    def get(self, end: str, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[end]}/{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def numbers(self, end: str) -> Mapping[tuple[str, ...], float]:
        """By name, without its `odograph_`, and labels in the order of their names."""
        families = text_string_to_metric_families(self.get(end, "metrics")[1])
        samples = [sample for family in families for sample in family.samples]
        return {(one.name.removeprefix("odograph_"), *one.labels.values()): one.value for one in samples}

    def log(self, end: str) -> str:
        return self.processes[end].log.read_text()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    home = tmp_path_factory.mktemp("seen") / "home"
    with running_fleet(home, start=False) as fleet, ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        # Each with a service manager of its own, which Fleet.start knows nothing of.
        fleet.node = fleet._stack.enter_context(Node(home / "router", fleet.urls))
        fleet.cars.append(car := fleet._start_car(1))
        one = Seen(fleet)
        configs = {"persist": fleet.home.config, "edge": car.config}
        for end, config in configs.items():
            one.ports[end] = free_port()
            config.write_text(f'{config.read_text()}\n[metrics]\nlisten = "127.0.0.1:{one.ports[end]}"\n')
            one.managers[end] = stack.enter_context(Manager(str(home / f"{end}.notify")))
            for key, value in one.managers[end].environment(watchdog_s=4).items():
                patch.setenv(key, value)
            command = Fleet.odograph(end, "--config", str(config), "--log-level", "debug")
            one.processes[end] = fleet.start_process(f"seen-{end}", command)
        fleet.persister, car.agent = one.processes["persist"], one.processes["edge"]
        for end, manager in one.managers.items():
            assert until(manager.heard, f"a word of {end}")[0] == "READY=1\nWATCHDOG=1"
        more_receipts(car)
        yield one


def test_a_loop_that_works_keeps_its_watchdog_fed(seen: Seen) -> None:
    for end, manager in seen.managers.items():
        assert set(until(manager.heard, f"a second word of {end}")) == {"WATCHDOG=1"}


def test_metrics_tell_what_the_stores_hold(seen: Seen) -> None:
    until(lambda: seen.numbers("edge")["car_connected",] and seen.numbers("edge")["readings_total", "kept"] >= 5)
    edge, cloud = seen.numbers("edge"), seen.numbers("persist")
    stored = cloud["packets_total", "", "stored"]
    assert stored >= 1
    assert edge["receipts_total", "stored"] >= 1
    assert edge["readings_total", "lost"] == 0
    assert edge["router_connected",] == cloud["router_connected",] == 1
    assert edge["oldest_unsent_age_seconds",] < 60
    assert cloud["store_up", "archive"] == cloud["store_up", "feed"] == 1
    until(lambda: seen.numbers("persist")["fed_packets_total",] >= stored, "what is stored is fed")
    for end in seen.ports:
        for path in ("healthz", "readyz"):
            until(lambda end=end, path=path: seen.get(end, path) == (200, "ok\n"), f"{path} of {end}")  # type: ignore[misc]


def test_the_logs_of_both_ends_tell_the_life_of_a_packet_under_one_id(seen: Seen) -> None:
    (car,) = seen.fleet.cars
    newest = max(one.id for one in SpoolView(car.spool).packets() if one.state == "receipted")

    def names(end: str) -> list[str]:
        return re.findall(rf"packet (\w+) packet={re.escape(newest)}(?= |$)", seen.log(end), re.MULTILINE)

    until(lambda: {"made", "published", "receipted"} <= set(names("edge")), "the edge's lines")
    until(lambda: {"stored", "fed"} <= set(names("persist")), "the persister's lines")
    assert names("persist").count("stored") == 1


def test_no_private_key_is_in_a_log_a_command_line_an_answer_or_a_core_and_no_log_names_a_person(seen: Seen) -> None:
    home = seen.fleet.home.path
    keys = {line for path in home.rglob("*") if path.is_file() for line in secrets_of(path)}
    # Device, persister and first operator, the server's Ed25519 key, and the many lines of its RSA key.
    assert len(keys) > 20
    (car,) = seen.fleet.cars
    status = told("status", car.device, *access(seen.fleet))
    people = {status["car"]["vin"], status["sim"]["iccid"], status["sim"]["imei"]}
    assert all(isinstance(one, str) and len(one) >= 15 for one in people)
    processes = descendants_of("")
    assert {process.popen.pid for process in seen.processes.values()} <= processes.keys()
    answers = [str(status), *(seen.get(end, "metrics")[1] for end in seen.ports)]
    assert not [text for text in (*processes.values(), *answers) if any(key in text for key in keys)]
    assert not [text for text in answers[1:] if any(one in text for one in people)]
    logs = {path: path.read_text("utf-8", "replace") for path in home.rglob("*.log")}
    assert {path.name for path in logs} >= {"seen-edge.log", "seen-persist.log"}
    assert not [path for path, text in logs.items() if any(one in text for one in keys | people)]
    for process in seen.processes.values():
        limits = Path(f"/proc/{process.popen.pid}/limits").read_text()
        assert re.search(r"^Max core file size\s+0\s+0\s", limits, re.MULTILINE)


def secrets_of(path: Path) -> list[str]:
    """Return what in a file of keys nobody else may see; nothing of any other file."""
    text = path.read_text() if path.suffix in {".key", ".ed25519", ".pem"} else ""
    found = re.findall(r"private_key = \"(\w{64})\"", text) + re.findall(r"^[0-9a-f]{64}$", text, re.MULTILINE)
    return found + (re.findall(r"^[\w+/=]{40,}$", text, re.MULTILINE) if "PRIVATE KEY" in text else [])


def test_an_agent_without_a_router_is_healthy_and_not_ready(seen: Seen) -> None:
    assert seen.fleet.node is not None
    seen.fleet.node.kill()
    until(lambda: seen.get("edge", "readyz") == (503, "no session with the router\n"), "not ready")
    until(lambda: seen.get("edge", "healthz") == (200, "ok\n"), "healthy")
    assert seen.numbers("edge")["router_connected",] == 0


def test_who_is_told_to_end_tells_its_service_manager(seen: Seen) -> None:
    for end, manager in seen.managers.items():
        manager.heard()
        seen.processes[end].popen.terminate()
        until(lambda manager=manager: "STOPPING=1" in manager.heard(), f"the last word of {end}")  # type: ignore[misc]
