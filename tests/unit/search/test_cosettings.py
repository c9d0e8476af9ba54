"""Settings of the mixture: the paper's numbers, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fasterseg.arch.space import SearchSpace
from fasterseg.config import from_mapping
from fasterseg.errors import ConfigError, UnknownNameError
from fasterseg.search.cosettings import PACKAGED, CoSearchSettings, MixtureSettings, load_mixture
from fasterseg.search.settings import learning_rate, packaged


def test_the_paper_pretrains_for_twenty_epochs() -> None:
    settings = load_mixture("paper/pretrain")
    train = settings.train
    assert (settings.stage, settings.epochs, settings.steps_per_epoch) == ("pretrain", 20, 495)
    assert (train.batch, train.crop, train.steps) == (3, "256x512", 9900)
    assert int(train.loss.min_kept * 3 * 32 * 64) == 384
    assert_common(settings, lr=0.02)


def test_the_paper_searches_for_thirty_epochs() -> None:
    settings = load_mixture("paper/search")
    train, search = settings.train, settings.cosearch
    assert (settings.stage, settings.epochs, settings.steps_per_epoch) == ("search", 30, 743)
    assert (train.batch, train.crop, train.steps) == (2, "224x448", 22290)
    assert int(train.loss.min_kept * 2 * 28 * 56) == 196
    assert (search.arch_lr, search.betas, search.weight_decay) == (3e-4, (0.5, 0.999), 0.0)
    assert (search.latency_weight, search.fps_window) == (0.01, (155.0, 175.0))
    assert 155 < 1000 / search.target_ms < 175
    assert not search.original
    assert_common(settings, lr=0.01)


def assert_common(settings: MixtureSettings, lr: float) -> None:
    train, epochs = settings.train, settings.epochs
    optimizer = train.optimizer
    assert (optimizer.name, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.9, 5e-4)
    assert optimizer.clip == 5.0
    assert optimizer.decay_all
    for epoch in (0, 1, epochs - 1):
        inside = (epoch + 0.5) / epochs
        assert learning_rate(optimizer, inside) == pytest.approx(lr * 0.978**epoch)
    # Zooms 0.75, 1 and 1.25 of pictures at half size.
    assert train.augment.scales == (0.375, 0.5, 0.625)
    assert settings.space == SearchSpace()


def test_packaged_settings_of_supernets_are_not_trainings_of_networks() -> None:
    assert not set(PACKAGED) & set(packaged())
    with pytest.raises(UnknownNameError, match="paper/search"):
        load_mixture("paper/serach")


def test_settings_survive_the_way_through_json() -> None:
    for name in PACKAGED:
        settings = load_mixture(name)
        plain = json.loads(json.dumps(settings.to_json()))
        assert from_mapping(plain, MixtureSettings, "a record") == settings


def test_a_file_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "search.toml"
    file.write_text(PACKAGED["paper/search"].read_text() + "\ntargte_ms = 3.0\n")
    with pytest.raises(ConfigError, match="did you mean 'target_ms'"):
        load_mixture(str(file))


def test_values_out_of_range_are_named() -> None:
    settings = load_mixture("paper/search")
    with pytest.raises(ConfigError, match="epochs"):
        replace(settings, epochs=0)
    with pytest.raises(ConfigError, match='method = "evolve"'):
        replace(settings, space=SearchSpace(head_widths=(4, 8)))
    with pytest.raises(ConfigError, match=r"cosearch\.arch_lr.*cosearch\.fps_window"):
        CoSearchSettings(arch_lr=0, fps_window=(175, 155))


def test_epochs_end_after_their_steps() -> None:
    settings = load_mixture("paper/search")
    assert [settings.epoch(step) for step in (0, 742, 743, 22289, 22290)] == [0, 0, 1, 29, 30]
