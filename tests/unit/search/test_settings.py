from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from fasterseg.datasets import DATASETS
from fasterseg.errors import ConfigError, UnknownNameError
from fasterseg.runtime.model import resolve_model
from fasterseg.search.settings import (
    CONFIGS,
    OptimizerSettings,
    TrainSettings,
    differences,
    learning_rate,
    load_settings,
)

BASE = 'dataset = "camvid"\nimages = 100\ncrop = "64x96"\n'


def read(tmp_path: Path, text: str) -> TrainSettings:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load_settings(str(path))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda p: p.stem)
def test_packaged_configurations_name_things_that_exist(path: Path) -> None:
    settings = load_settings(path.stem)
    assert settings.dataset in DATASETS
    resolve_model(settings.student)
    resolve_model(settings.teacher)


def test_an_unknown_configuration_lists_the_packaged_ones() -> None:
    with pytest.raises(UnknownNameError, match="camvid-student"):
        load_settings("camvid-studnet")


def test_a_file_needs_only_data_length_and_crop(tmp_path: Path) -> None:
    settings = read(tmp_path, BASE)
    assert (settings.crop_size.height, settings.crop_size.width) == (64, 96)
    assert settings.steps == 9
    assert settings.loss.ohem == 0.7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE + "bach = 3\n", "unknown key 'bach'; did you mean 'batch'"),
        (BASE + "[loss]\nohme = 0.7\n", "unknown key 'ohme'"),
        (BASE + 'batch = "two"\n', "expected int"),
        (BASE + "batch = 0\n", "batch must be at least 1"),
        (BASE + "[augment]\nscale = [2.0, 1.0]\n", "augment.scale"),
        (BASE + "[optimizer]\nlr = 0\nwarmup = 1\n", "lr must be above 0; optimizer.warmup"),
        (BASE.replace("64x96", "64x90"), "must divide by 32"),
        (BASE.replace("64x96", "32x96"), "at least 64"),
        (BASE + 'precision = "fp8"\n', "'fp8' is not one of"),
    ],
)
def test_wrong_settings_are_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_differences_name_nested_keys(tmp_path: Path) -> None:
    old = read(tmp_path, BASE)
    new = replace(old, batch=3, loss=replace(old.loss, aux=0.4))
    assert differences(new.to_json(), old.to_json()) == ["batch: 12 -> 3", "loss.aux: 0.2 -> 0.4"]
    assert differences(old.to_json(), old.to_json()) == []


@pytest.mark.parametrize("schedule", ["poly", "cosine", "exponential"])
def test_the_learning_rate_rises_then_falls_to_its_final_share(schedule: str) -> None:
    settings = OptimizerSettings(lr=2.0, final=0.05, warmup=0.1, schedule=schedule)  # type: ignore[arg-type]
    rates = [learning_rate(settings, i / 100) for i in range(101)]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(1.0)
    assert max(rates) == pytest.approx(2.0)
    assert rates.index(max(rates)) == 10
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.1)


def test_without_warmup_the_run_starts_at_the_peak() -> None:
    assert learning_rate(OptimizerSettings(lr=1.0, warmup=0.0), 0.0) == 1.0
