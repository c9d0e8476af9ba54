from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from fasterseg.arch.genotype import Genotype
from fasterseg.errors import ConfigError
from fasterseg.runtime.model import resolve_model
from fasterseg.search.settings import load_settings, packaged
from tests.unit.benchmarks.conftest import NAME, files_of, write_run

pytestmark = [pytest.mark.onnx, pytest.mark.torch]

LR = 2e-3


@pytest.fixture
def slow_script(shipping: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script; a speed of two crops in a minute, and no picture of the curves."""
    module = importlib.import_module("train_more")
    monkeypatch.setattr(module, "measured_rate", lambda *_: 2 / 60)
    monkeypatch.setattr(shipping, "draw_curves", lambda *_: False)
    monkeypatch.setattr("fasterseg.plots.curves", lambda *_: None)
    return module


@pytest.fixture
def script(slow_script: Any, tiny_genotype: Genotype, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same with a training that is over at once."""

    def train(arguments: list[str]) -> None:
        write_run(Path(arguments[arguments.index("--output") + 1]), tiny_genotype, seed=1)

    monkeypatch.setattr(slow_script, "train", train)
    return slow_script


def scores(monkeypatch: pytest.MonkeyPatch, script: Any, before: float, after: float) -> None:
    """Let the shipped model and the chunk's have these scores on val."""

    def evaluate(shop: Any, model: str, root: Path, split: str) -> dict[str, float]:
        assert split == "val"
        return {"miou": before if model == NAME else after}

    monkeypatch.setattr(script, "evaluate", evaluate)


def training_of(shop: Any) -> Any:
    return json.loads(shop.file(".training.json").read_text())


def test_a_gain_replaces_what_ships_and_is_tested(
    slow_script: Any, shipped: Any, camvid_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = slow_script
    before = files_of(shipped.zoo)
    tests_before = json.loads(shipped.file(".record.json").read_text())["test_log"]
    scores(monkeypatch, script, 30.0, 30.001)
    assert script.train_more(shipped, camvid_root, 2.0, ("--device", "cpu"))
    after, training = files_of(shipped.zoo), training_of(shipped)
    changed = {name for name in after if after[name] != before[name]}
    kinds = (".safetensors", ".ranges.json", ".record.json", ".md", ".training.json")
    assert changed == {"index.json", *(f"{NAME}{kind}" for kind in kinds)}
    assert training["images"] == 8 + 4
    first, chunk = training["chunks"]
    assert (first["images"], chunk["images"], chunk["kept"]) == (8, 4, True)
    assert (chunk["val_before"], chunk["val_after"]) == (30.0, 30.001)
    record = json.loads(shipped.file(".record.json").read_text())
    assert record["sha256"] == training["sha256"]
    assert [run["training"]["images"] for run in record["runs"]] == [8, 4]
    assert record["test_log"][: len(tests_before)] == tests_before
    assert len(record["test_log"]) == 2 * len(tests_before)
    assert record["test_log"][-1]["source_sha256"] == resolve_model(NAME).source_sha256
    assert "gone on with 1 times" in shipped.file(".md").read_text()
    assert not (shipped.work / "chunk").exists()


def test_without_a_gain_the_zoo_stays_and_the_attempt_is_noted(
    script: Any, shipped: Any, camvid_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(shipped.zoo)
    scores(monkeypatch, script, 30.0, 30.0)
    assert not script.train_more(shipped, camvid_root, 1.0)
    after, training = files_of(shipped.zoo), training_of(shipped)
    assert {n for n in after if after[n] != before[n]} == {f"{NAME}.training.json"}
    assert training["images"] == 8
    assert training["chunks"][1]["kept"] is False
    assert script.current_chunk(shipped, training) is None


def test_the_chunk_starts_from_what_ships(
    script: Any, shipped: Any, camvid_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def train(arguments: list[str]) -> None:
        seen.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "train", train)
    with pytest.raises(KeyboardInterrupt):
        script.train_more(shipped, camvid_root, 2.0)
    assert seen[0][seen[0].index("--init") + 1] == NAME
    settings = load_settings(seen[0][1])
    assert (settings.images, settings.seed) == (4, 1 + 1)
    assert settings.optimizer.lr == pytest.approx(script.peak_rate(LR, 8, 4), rel=1e-3)


def test_a_stopped_chunk_goes_on_as_it_was_begun(
    script: Any, shipped: Any, camvid_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = script.train
    scored: list[int] = []
    scores(monkeypatch, script, 30.0, 20.0)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        script.train_more(shipped, camvid_root, 2.0)
    begun = (shipped.work / "chunk.toml").read_text()

    def checked(arguments: list[str]) -> None:
        assert Path(arguments[1]).read_text() == begun
        scored.append(load_settings(arguments[1]).images)
        train(arguments)

    monkeypatch.setattr(script, "train", checked)
    script.train_more(shipped, camvid_root, 1000.0)
    assert scored == [4]
    assert training_of(shipped)["chunks"][1]["images"] == 4


def test_a_kill_after_the_verdict_does_not_judge_twice(
    script: Any, shipped: Any, camvid_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(monkeypatch, script, 30.0, 20.0)

    def killed(shop: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(script, "drop", killed)
        with pytest.raises(KeyboardInterrupt):
            script.train_more(shipped, camvid_root, 1.0)
    training = training_of(shipped)
    assert len(training["chunks"]) == 2
    assert (shipped.work / "chunk.json").exists()
    assert script.current_chunk(shipped, training) is None
    assert not (shipped.work / "chunk.json").exists()


def test_a_kill_while_a_gain_is_put_in_place_is_made_good(
    shipping: Any, script: Any, shipped: Any, camvid_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(monkeypatch, script, 30.0, 40.0)

    def killed(shop: Any) -> None:
        raise KeyboardInterrupt

    calls = iter((shipping.finish, killed))
    with monkeypatch.context() as patch:
        patch.setattr(script, "finish", lambda shop: next(calls)(shop))
        with pytest.raises(KeyboardInterrupt):
            script.train_more(shipped, camvid_root, 1.0)
    assert len(training_of(shipped)["chunks"]) == 1
    scores(monkeypatch, script, 50.0, 40.0)
    script.train_more(shipped, camvid_root, 1.0)
    assert [chunk["kept"] for chunk in training_of(shipped)["chunks"]] == [True, True, False]


def test_a_training_that_fails_ends_the_script_with_its_exit_code(
    slow_script: Any, shipped: Any, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        slow_script.train_more(shipped, tmp_path / "nowhere", 1.0)
    assert ended.value.code not in (None, 0)
    assert len(training_of(shipped)["chunks"]) == 1
    assert (shipped.work / "chunk.json").exists()


def test_a_wrong_folder_is_told(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["train_more.py", "--root", str(tmp_path)])
    with pytest.raises(SystemExit):
        script.main()
    assert "is not CamVid: it has no train.txt" in capsys.readouterr().err


def test_a_chunk_of_weights_that_no_longer_ship_is_refused(
    script: Any, shipped: Any, camvid_root: Path
) -> None:
    training = training_of(shipped)
    script.begin(shipped, training, camvid_root, 1.0, ())
    with pytest.raises(ConfigError, match="Start another one: rm -r"):
        script.current_chunk(shipped, {**training, "sha256": "another"})


def test_the_speed_is_measured_by_a_dry_run(shipped: Any, camvid_root: Path) -> None:
    script = importlib.import_module("train_more")
    rate = script.measured_rate(shipped, training_of(shipped), camvid_root, ("--device", "cpu"))
    assert rate > 0
    assert list(shipped.work.iterdir()) == []


def test_the_peak_rate_falls_with_what_was_seen_and_for_short_chunks() -> None:
    rate = importlib.import_module("train_more").peak_rate
    assert rate(LR, 0, 1000) == LR
    assert rate(LR, 150_000, 150_000) == pytest.approx(LR / 2)
    assert rate(LR, 150_000, 10**9) == pytest.approx(LR / 2)
    assert rate(LR, 150_000, 150_000 // 4) == pytest.approx(LR / 4)
    peaks = [rate(LR, seen, 60_000) for seen in range(0, 10**6, 50_000)]
    assert peaks == sorted(peaks, reverse=True)


@pytest.mark.parametrize("name", packaged())
def test_settings_survive_the_way_through_toml(name: str, tmp_path: Path) -> None:
    settings, path = load_settings(name), tmp_path / "settings.toml"
    path.write_text(importlib.import_module("train_more").to_toml(settings.to_json()))
    assert load_settings(str(path)) == settings
