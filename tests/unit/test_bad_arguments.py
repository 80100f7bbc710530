"""Evil command lines and evil answers: one line on standard error and an exit code, never a traceback."""

import json
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from components.cloud.ports import StoredPacket
from components.cloud.sqlite_archive import SqliteArchive
from components.console import operate, show
from components.console.__main__ import run
from components.virtual_car.recording import UnreadableRecordingError, load_recording
from components.wire.errors import BadInputError

ODD = {
    "no UTF-8": "\udcff", "a NUL": "a\0b", "an escape": "\x1b[31mred", "a line end": "car_one\n",
    "a megabyte": "x" * 10**6, "an override": "\u202egnp.exe",
}  # fmt: skip
COMMANDS = {
    "status": ("status", "{}"),
    "minutes": ("minutes", "{}", "--archive", "sqlite:x"),
    "archive": ("minutes", "car_one", "--archive", "{}"),
    "router": ("status", "car_one", "--router", "{}"),
    "key": ("status", "car_one", "--key", "{}"),
    "since": ("minutes", "car_one", "--since", "{}"),
    "add": ("device", "add", "car_one", "--pubkey", "ab" * 32, "--account", "{}"),
    "init": ("edge", "init", "--device", "car_one", "--server", "{}", "--home", "home"),
    "config": ("persist", "--config", "{}"),
    "command": ("{}",),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("odd", ODD)
def test_an_argument_that_nothing_could_take_is_one_line_and_exit_code_2(
    command: str, odd: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([part.replace("{}", ODD[odd]) for part in COMMANDS[command]]) == 2
    said = capsys.readouterr().err
    assert said.startswith("odograph: the argument ")
    assert len(said.splitlines()) == 1
    assert said.isascii() or "…" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "Car"), ("status", "car_one", "--router", "ws://a:99999"), ("status", "car_one", "--router", ""),
        ("minutes", "car_one", "--since", "2026-13-01"), ("minutes", "car_one", "--since", "9" * 30),
        ("minutes", "car_one", "--archive", "file:x"), ("minutes", "car_one", "--archive", "sqlite:"),
        ("minutes", "car_one", "--archive", "mongodb://"), ("minutes", "car_one", "--archive", "mongodb://h:99999/d"),
        ("persist", "--config", "/dev/null/x"), ("persist", "--config", "/"), ("edge", "--config", "/dev/zero"),
        ("feed", "tail", "--feed", "kafka://h:99999"), ("car", "--baud", "9" * 5_000), ("demo", "--for", "nan"),
    ],
)  # fmt: skip
def test_an_argument_out_of_form_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


ANSWERS: tuple[Any, ...] = (None, 5, "x", [], {}, [[]], {"device": {}}, [{"id": 1}], {"recorder": None}, {"dtcs": 5})


@pytest.mark.parametrize("view", [show.status, show.codes, show.devices, lambda one: show.minutes([one])])
def test_an_answer_of_another_shape_is_one_error(view: Any) -> None:  # noqa: ANN401 - one of show's
    for found in ANSWERS:
        try:
            operate._print(found, view, as_json=False)
        except BadInputError as error:
            assert error.code == "answer"  # noqa: PT017 - an empty list of devices is one


def test_what_a_car_says_commands_no_terminal_and_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    show.rows("\x1b]0;t\x07", ("a",), [("\x1b[2J[red]x[/nothing]",)])
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "[red]x[/nothing]" in said


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "{" * 100_000, "9" * 10_000, '{"minute":NaN}', "", "null", "[]", '{"minute":5,"readings":[]}',
     '{"minute":"2026-01-01T00:00:00Z","readings":[{"time":"2026-01-01T00:00:00Z","rpm":1e400}]}',
     '{"minute":"2026-01-01T00:00:00Z","readings":[{"time":"2026-01-01T00:00:00Z","rpm":"' + "x" * 10_000 + '"}]}',
     '{"minute":"2026-01-01T00:00:00Z","readings":[{"time":"9999-12-31T23:59:59-23:59"}]}'],
    ids=range(11),
)  # fmt: skip
def test_a_recording_that_is_none_is_one_short_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(text)
    with pytest.raises(UnreadableRecordingError) as caught:
        load_recording(path)
    assert len(str(caught.value)) < 1_000


def test_a_recording_without_end_is_not_read() -> None:
    with pytest.raises(UnreadableRecordingError, match="is not a file"):
        load_recording(Path("/dev/zero"))


MINUTE: Any = {"id": "b", "start": "2026-11-21T10:05:00.000Z", "packet": {}}
PAGES: tuple[Any, ...] = (
    None, [], {}, 5, "x", {"minutes": None, "more": False}, {"minutes": [{}], "more": False}, {"minutes": []},
    {"minutes": [], "more": True}, {"minutes": [MINUTE], "more": True}, {"minutes": [None], "more": True},
    {"minutes": [MINUTE | {"start": "now"}], "more": False},
)  # fmt: skip


PACKET = json.loads((Path(__file__).parents[2] / "schemas/examples/packet.v1.json").read_text())


def test_a_stored_packet_that_cannot_be_read_is_named_and_what_follows_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = SqliteArchive(tmp_path / "a.db")
    names = [f"car_one/{'0' * 16}/20261121T10050{n}Z" for n in range(3)]
    forms: tuple[Any, ...] = (PACKET, {}, PACKET)
    rows = (("car_one", "0" * 16, n * 60_000, "", "", "", form, b"", "", 0) for n, form in enumerate(forms))
    archive.insert([StoredPacket(name, *row) for name, row in zip(names, rows, strict=True)])
    archive.close()
    asked_for = ["minutes", "car_one", "--archive", f"sqlite:{tmp_path}/a.db"]
    assert run([*asked_for, "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["id"] for one in found] == names
    assert [one.get("left_out") for one in found] == [None, ["packet"], None]
    assert run(asked_for) == 0
    assert "1970-01-01T00:01:00.000Z" in capsys.readouterr().out


@pytest.mark.parametrize("answer", [{}, {"packet": {}}, {"packet": 5}, [], "x"])
def test_a_latest_packet_that_is_none_is_one_line(
    answer: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operate, "ask", lambda *_: answer)
    assert run(["latest", "car_one"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_was_left_out_of_an_answer_is_not_shown_as_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(show, "rows", lambda _title, _columns, lines: shown.extend(lines))
    minute = {key: PACKET[key] for key in ("start", "period_s", "session", "summary")} | {"dtcs": [], "gaps": []}
    show.minutes([minute, minute | {"left_out": ["readings", "lost", "gaps", "dtcs"]}])
    assert [line[-2:] for line in shown] == [("", "0"), ("?", "? lost")]


def asked(question: Callable[[Any], Any], answers: Iterator[Any]) -> Any:  # noqa: ANN401 - what the question returns
    async def call(*_: object) -> Any:  # noqa: ANN401 - whatever comes
        return next(answers)

    try:
        question(call).send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_is_none_or_never_the_last_is_told_as_such(page: object) -> None:
    with pytest.raises(BadInputError, match="not how an answer looks"):
        asked(operate._paging("car_one", None, None, lambda _one: None), repeat(page))
    if page:
        with pytest.raises(BadInputError, match="not how an answer looks"):
            asked(operate._every_device, repeat(page))


def test_pages_are_handed_on_as_they_come_and_put_together() -> None:
    taken: list[object] = []
    last = MINUTE | {"id": "c"}
    pages = [{"minutes": [MINUTE], "more": True}, {"minutes": [last], "more": False}]
    asked(operate._paging("car_one", None, None, taken.append), iter(pages))
    assert taken == [MINUTE, last]
    assert asked(operate._every_device, iter([[{"id": "a"}, {"id": "b"}], [{"id": "c"}], []])) == [
        {"id": "a"}, {"id": "b"}, {"id": "c"},
    ]  # fmt: skip
