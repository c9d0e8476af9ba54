"""Commands are run in-process, in an empty folder, with caches of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fasterseg.cli.main import app
from fasterseg.cli.options import exit_code_of


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, results, text for people."""

    code: int
    stdout: str
    stderr: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("infer", "x.mp4")`: run the umbrella program."""
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path / ".cache"))
    monkeypatch.setenv("FASTERSEG_HOME", str(tmp_path / ".home"))
    monkeypatch.chdir(tmp_path)

    def runner(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = exit_code_of(app, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return runner
