"""Notes on stderr for people and for machines, and the edge where errors end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import typer

from fasterseg.cli.options import (
    DebugOption,
    LogFormat,
    LogFormatOption,
    draws_progress,
    exit_code_of,
    new_app,
    note,
)
from fasterseg.errors import SourceError

app = new_app("A program.")


@app.command()
def work(
    how: str, log_format: LogFormatOption = LogFormat.TEXT, debug: DebugOption = False
) -> None:
    """Do what it is told."""
    note("begun", frames=3)
    if how == "warn":
        note("careful", "warning")
    elif how == "fail":
        raise SourceError("no such file. Give another")
    elif how == "fault":
        raise ZeroDivisionError("division by zero")
    elif how == "full":
        raise OSError(28, "No space left on device")
    elif how == "stop":
        raise KeyboardInterrupt
    elif how == "exit":
        raise typer.Exit(5)


@app.command()
def other() -> None:
    """Make the program one of several commands."""


Captured = pytest.CaptureFixture[str]


def lines(capsys: Captured, *arguments: str) -> tuple[int, list[dict[str, object]]]:
    """Exit code, and the notes of a run with `--log-format json`."""
    code = exit_code_of(app, [*arguments, "--log-format", "json"])
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, [json.loads(line) for line in captured.err.splitlines()]


def test_machines_get_one_object_a_line_with_the_time(capsys: Captured) -> None:
    code, told = lines(capsys, "work", "warn")
    assert code == 0
    assert [(line["level"], line["message"]) for line in told] == [
        ("info", "begun"),
        ("warning", "careful"),
    ]
    assert told[0]["frames"] == 3
    time = datetime.fromisoformat(str(told[0]["time"]))
    assert time.utcoffset() is not None
    assert abs((datetime.now(time.tzinfo) - time).total_seconds()) < 60


def test_people_get_the_message_and_how_much_it_matters(capsys: Captured) -> None:
    assert exit_code_of(app, ["work", "warn"]) == 0
    assert capsys.readouterr().err == "begun\nwarning: careful\n"


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("fail", 3, "no such file"),
        ("fault", 1, "fault of fasterseg"),
        ("full", 1, "No space left"),
        ("stop", 130, "interrupted"),
        ("exit", 5, "begun"),
    ],
)
def test_machines_get_the_exit_code_with_the_reason(
    capsys: Captured, how: str, code: int, message: str
) -> None:
    actual, told = lines(capsys, "work", how)
    assert actual == code
    assert message in str(told[-1]["message"])
    if how != "exit":
        assert told[-1]["exit_code"] == code
    assert "traceback" not in told[-1]


def test_debug_puts_the_traceback_into_the_line(capsys: Captured) -> None:
    _, told = lines(capsys, "work", "fault", "--debug")
    assert "ZeroDivisionError" in str(told[-1]["traceback"])


@pytest.mark.parametrize(
    "arguments", [["--unknown"], ["work"], ["work", "x", "--unknown"], ["nothing"]]
)
def test_wrong_options_are_told_in_the_format_asked_for(
    capsys: Captured, arguments: list[str]
) -> None:
    code, told = lines(capsys, *arguments)
    assert code == 2
    assert [line["level"] for line in told] == ["error"]
    assert told[0]["exit_code"] == 2


@pytest.mark.parametrize("arguments", [["--log-format", "xml"], ["--log-format"]])
def test_an_unknown_format_is_refused_as_text(capsys: Captured, arguments: list[str]) -> None:
    assert exit_code_of(app, ["work", "warn", *arguments]) == 2
    assert "--log-format" in capsys.readouterr().err


def test_the_format_of_one_run_is_not_that_of_the_next(capsys: Captured) -> None:
    assert exit_code_of(app, ["work", "warn", "--log-format=json"]) == 0
    assert capsys.readouterr().err.startswith("{")
    assert exit_code_of(app, ["work", "warn"]) == 0
    assert capsys.readouterr().err.startswith("begun")


def test_notes_without_anybody_to_read_them_are_dropped(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", None)
    note("unheard")
    assert not draws_progress()
    assert capsys.readouterr().out == ""


def test_a_terminal_that_is_gone_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, _: str) -> int:
            raise OSError(5, "Input/output error")

        def flush(self) -> None: ...

    monkeypatch.setattr("sys.stderr", Gone())
    note("unheard")


def test_every_command_takes_the_log_format() -> None:
    from typer.main import get_command

    from fasterseg.cli import search
    from fasterseg.cli.main import app as umbrella

    def leaves(command: Any) -> Iterator[Any]:
        inner = getattr(command, "commands", {})
        yield from (leaf for each in inner.values() for leaf in leaves(each))
        if not inner or getattr(command, "invoke_without_command", False):
            yield command

    for program in (umbrella, search.app):
        for command in leaves(get_command(program)):
            options = {option for parameter in command.params for option in parameter.opts}
            assert {"--log-format", "--debug"} <= options, command.name
