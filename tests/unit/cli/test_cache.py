"""`fasterseg cache` as users type it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fasterseg.cache import entries, entry_path, write_atomic
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.onnx


@pytest.fixture
def filled(run: Run, tmp_path: Path) -> Path:
    """The cache with two engines, the 64x96 one last used 40 days ago."""
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((64, 96, 3), np.uint8))
    for size in ("64x96", "96x128"):
        assert run("infer", "x.png", "null:", "--size", size, "-q").code == 0
    old = next(entry for entry in entries() if "64x96" in entry.path.name)
    os.utime(old.path, (old.used - 40 * 86400, old.used - 40 * 86400))
    return tmp_path / ".cache"


def test_list_shows_size_age_and_last_use(run: Run, filled: Path) -> None:
    outcome = run("cache", "list")
    assert outcome.code == 0
    rows = outcome.stdout.splitlines()
    assert len(rows) == 3
    assert "96x128" in rows[1]
    assert "just now" in rows[1]
    assert "40 d ago" in rows[2]
    assert "MB" in rows[2]
    assert "2 engines" in outcome.stderr
    assert "4.0 GB" in outcome.stderr
    assert str(filled) in outcome.stderr


def test_streets_of_trainings_are_counted_and_cleared(run: Run, filled: Path) -> None:
    for number in range(3):
        write_atomic(entry_path("streets", f"street_{number}", f"{number:016x}", ".png"), b"x")
    outcome = run("cache", "list")
    assert len(outcome.stdout.splitlines()) == 3, "streets have no lines of their own"
    assert "2 engines and 3 rendered streets" in outcome.stderr
    assert "removed 2 engines and 3 rendered streets" in run("cache", "clear").stderr
    assert "0 engines" in run("cache", "list").stderr


def test_list_as_json(run: Run, filled: Path) -> None:
    facts = json.loads(run("cache", "list", "--json").stdout)
    assert facts["path"] == str(filled)
    assert facts["limit"] == 4 << 30
    assert [Path(entry["path"]).exists() for entry in facts["entries"]] == [True, True]
    assert facts["entries"][0]["bytes"] > 1_000_000
    assert facts["entries"][0]["used"] > facts["entries"][1]["used"]


def test_using_an_engine_makes_it_the_last_used_one(run: Run, filled: Path) -> None:
    assert run("infer", "x.png", "null:", "--size", "64x96", "-q").code == 0
    assert "64x96" in run("cache", "list").stdout.splitlines()[1]


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ([], []),
        (["--older-than", "30"], ["96x128"]),
        (["--older-than", "50"], ["96x128", "64x96"]),
        (["--limit", "14M"], ["96x128"]),
        (["--limit", "1G"], ["96x128", "64x96"]),
        (["--limit", "0"], []),
    ],
)
def test_clear_removes_all_the_old_or_as_many_as_it_takes(
    run: Run, filled: Path, arguments: list[str], left: list[str]
) -> None:
    outcome = run("cache", "clear", *arguments)
    assert outcome.code == 0, outcome.stderr
    assert f"removed {2 - len(left)} engine" in outcome.stderr
    names = run("cache", "list").stdout.splitlines()[1:]
    assert len(names) == len(left)
    assert all(size in name for size, name in zip(left, names, strict=True))


def test_an_empty_cache_lists_nothing(run: Run, tmp_path: Path) -> None:
    outcome = run("cache", "list")
    assert (outcome.code, outcome.stdout) == (0, "")
    assert "0 engines" in outcome.stderr
    assert run("cache", "clear").code == 0
    assert not (tmp_path / ".cache").exists()


def test_path_prints_the_folder(run: Run, tmp_path: Path) -> None:
    assert run("cache", "path").stdout == f"{tmp_path / '.cache'}\n"


@pytest.mark.parametrize("arguments", [("--limit", "much"), ("--older-than", "-1")])
def test_values_that_are_none_are_refused(run: Run, arguments: tuple[str, str]) -> None:
    assert run("cache", "clear", *arguments).code == 2


def test_the_limit_of_the_environment_is_kept_by_building(
    run: Run, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE_LIMIT", "1M")
    assert run("infer", "x.png", "null:", "--size", "64x64", "-q").code == 0
    names = [entry.path.name for entry in entries()]
    assert len(names) == 1
    assert "64x64" in names[0]


def test_a_cache_that_cannot_be_written_costs_a_note_not_the_run(
    run: Run, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE", "/proc/nowhere")
    outcome = run("infer", "x.png", "out.png", "--size", "64x96")
    assert outcome.code == 0, outcome.stderr
    assert "engine cache is not usable" in outcome.stderr
    assert (tmp_path / "out.png").exists()
