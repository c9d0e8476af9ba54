"""The stages of a run with stages that do next to nothing: order, keys, redoing, going on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from fasterseg.datasets import streets
from fasterseg.errors import ConfigError, FastersegError, UnknownNameError, UsageError
from fasterseg.retarget import stages
from fasterseg.retarget.settings import RetargetSettings, load_run
from fasterseg.retarget.stage_context import HaltedError, Hooks, Run, Stage, digest_of
from fasterseg.retarget.stages import Records, chosen_stages, run_stages
from fasterseg.search.distributed import Group

pytestmark = pytest.mark.torch

HERE = __name__
calls: list[str] = []
fails: dict[str, FastersegError] = {}


def work(name: str, result: str) -> Callable[[Run], bool]:
    def done(run: Run) -> bool:
        calls.append(name)
        if name in fails:
            raise fails[name]
        run.path(result).write_text(f"{name} of seed {run.settings.seed}")
        return True

    return done


FIRST = Stage(
    lambda run: {"size": run.settings.size}, lambda _: {}, work("first", "one.txt"), ("one.txt",)
)
SECOND = Stage(
    lambda run: {"seed": run.settings.seed},
    lambda run: {"one.txt": digest_of(run.path("one.txt"))},
    work("second", "two.txt"),
    ("two.txt", "parts*"),
)
LAST = Stage(
    lambda _: {},
    lambda run: {"two.txt": digest_of(run.path("two.txt"))},
    work("last", "three.txt"),
    ("three.txt",),
    always=True,
)
OTHER = Stage(lambda _: {}, lambda _: {}, work("other", "other.txt"), ("other.txt",))


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = {"first": "FIRST", "second": "SECOND", "last": "LAST", "other": "OTHER"}
    registry = {name: f"{HERE}:{attribute}" for name, attribute in names.items()}
    monkeypatch.setattr(stages, "STAGES", registry)
    order = {"first": (), "other": (), "second": ("first",), "last": ("second",)}
    monkeypatch.setattr(stages, "METHODS", {"evolve": order})
    calls.clear()
    fails.clear()
    yield
    calls.clear()


Go = Callable[..., bool]


@pytest.fixture
def go(tmp_path: Path) -> Go:
    """Runs the stages in a folder; options change the settings."""

    def run(
        *only: str, redo: tuple[str, ...] = (), hooks: Hooks | None = None, **changes: Any
    ) -> bool:
        calls.clear()
        settings: RetargetSettings = load_run("smoke", changes)
        this = Run(tmp_path, settings, streets(), Path(), "cpu", Group(), hooks or Hooks())
        return run_stages(this, chosen_stages("evolve", only, ()), redo)

    return run


def test_what_is_done_is_not_done_again(go: Go, tmp_path: Path) -> None:
    assert go()
    assert calls == ["first", "other", "second", "last"]
    assert go()
    assert calls == []
    record = Records.load(tmp_path).stages["second"]
    assert {"key", "inputs", "begun", "finished", "seconds"} <= record.keys()
    assert json.loads((tmp_path / "settings.json").read_text())["size"] == "96x128"


def test_changed_settings_are_refused_by_name_before_anything_is_done(go: Go) -> None:
    go()
    with pytest.raises(ConfigError, match=r"seed: 1 -> 2.*--redo second"):
        go(seed=2)
    assert calls == []


def test_a_redone_stage_is_forgotten_with_what_follows_from_it(go: Go, tmp_path: Path) -> None:
    go()
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "old").write_text("of the old seed")
    assert go(redo=("second",), seed=2)
    assert calls == ["second", "last"]
    assert not (tmp_path / "parts").exists()
    assert (tmp_path / "two.txt").read_text() == "second of seed 2"


def test_results_changed_by_hand_are_noticed(go: Go, tmp_path: Path) -> None:
    go()
    (tmp_path / "one.txt").write_text("edited")
    with pytest.raises(ConfigError, match=r"stage second of other inputs \(one.txt is another"):
        go()


def test_a_quick_stage_is_done_anew_where_its_inputs_changed(go: Go, tmp_path: Path) -> None:
    go()
    (tmp_path / "two.txt").write_text("edited")
    assert go()
    assert calls == ["last"]


def test_a_stage_needs_those_before_it(go: Go, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="second needs first"):
        go("second")
    go("first")
    assert go("second")
    assert calls == ["second"]


@pytest.mark.parametrize(
    "text", ["[]", '{"search": "done"}', pytest.param("[" * 100_000, id="deep")]
)
def test_a_file_that_holds_no_records_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "stages.json").write_text(text)
    with pytest.raises(ConfigError, match=r"stages\.json .*choose another --output"):
        Records.load(tmp_path)


def test_unknown_stages_list_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="known: first, last, other, second"):
        chosen_stages("evolve", ["thrid"], ())
    assert chosen_stages("evolve", (), ["other", "last"]) == ["first", "second"]


def test_a_stage_that_was_stopped_or_failed_goes_on(go: Go, tmp_path: Path) -> None:
    told: list[str] = []
    fails["second"] = HaltedError("stop")
    assert not go(hooks=Hooks(note=told.append))
    assert calls == ["first", "other", "second"]
    assert "second: stopped; the same command goes on" in told
    assert not Records.load(tmp_path).done("second")
    fails["second"] = UsageError("no")
    with pytest.raises(UsageError, match="no"):
        go()
    fails.clear()
    assert go(hooks=Hooks(note=told.append))
    assert calls == ["second", "last"]
    assert "second: goes on" in told


def test_a_stage_that_failed_at_once_takes_other_settings(go: Go, tmp_path: Path) -> None:
    fails["second"] = UsageError("no such seed")
    with pytest.raises(UsageError):
        go(seed=2)
    fails.clear()
    assert go(seed=3)
    assert (tmp_path / "two.txt").read_text() == "second of seed 3"
