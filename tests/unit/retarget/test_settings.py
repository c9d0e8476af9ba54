"""Settings of a run: what the file says, what the command line says, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fasterseg.errors import ConfigError, UnknownNameError
from fasterseg.retarget.settings import load_run, packaged_runs
from fasterseg.runtime.model import resolve_model
from fasterseg.search.subnets import contains

MINE = """
dataset = "camvid"
size = "360x480"
targets_ms = [12, 20.5]

[supernet]
images = 100
crop = "64x96"

[train.overrides]
images = 24
[train.overrides.optimizer]
lr = 1e-3
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


@pytest.mark.parametrize("name", ["camvid-cpu", "cityscapes-gpu", "smoke"])
def test_packaged_runs_are_read(name: str) -> None:
    assert name in packaged_runs()
    settings = load_run(name)
    assert settings.train.training("camvid", 3).seed == 3
    assert settings.space.space(11).num_classes == 11


def test_the_released_student_is_in_the_spaces_it_is_compared_in() -> None:
    for name in ("camvid-cpu", "cityscapes-gpu"):
        settings = load_run(name)
        for model in settings.train.compare:
            genotype = resolve_model(model).genotype
            assert contains(settings.space.space(genotype.num_classes), genotype) == []


def test_one_seed_reaches_every_stage(mine: Path) -> None:
    settings = load_run(str(mine), {"seed": 7})
    assert settings.supernet is not None
    assert (settings.supernet.seed, settings.search.seed) == (7, 7)


def test_a_seed_or_data_set_of_a_stage_alone_is_refused(mine: Path) -> None:
    mine.write_text(MINE.replace("images = 100", "images = 100\nseed = 3"))
    with pytest.raises(ConfigError, match=r"\[supernet\] has a seed"):
        load_run(str(mine))


def test_targets_of_the_command_line_take_the_place_of_the_files(mine: Path) -> None:
    assert load_run(str(mine)).targets(lambda _: 0.0) == (12.0, 20.5)
    by_rate = load_run(str(mine), {"target_fps": 40.0})
    assert by_rate.targets(lambda _: 0.0) == (25.0,)
    by_share = load_run("camvid-cpu")
    assert by_share.targets(lambda model: {"fasterseg-camvid": 10.0}[model]) == (8.5,)
    again = load_run("camvid-cpu", {"targets_ms": [7.0]})
    assert again.targets(lambda _: 0.0) == (7.0,)


def test_a_run_needs_one_kind_of_target(mine: Path) -> None:
    mine.write_text(MINE.replace("targets_ms = [12, 20.5]\n", ""))
    with pytest.raises(ConfigError, match="--target-latency-ms"):
        load_run(str(mine))
    with pytest.raises(ConfigError, match="one kind of target"):
        load_run(str(mine), {"target_fps": 30.0, "targets_ms": [12.0]})
    with pytest.raises(ConfigError, match="above 0"):
        load_run(str(mine), {"targets_ms": [-1.0]})


def test_unknown_keys_are_refused_with_their_place(mine: Path) -> None:
    mine.write_text(MINE.replace("images = 100", "imges = 100"))
    with pytest.raises(ConfigError, match="supernet: unknown key 'imges'; did you mean 'images'"):
        load_run(str(mine))
    with pytest.raises(ConfigError, match="unknown key 'colour'"):
        load_run("smoke", {"colour": "red"})


def test_a_space_file_replaces_the_space(mine: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text('layers = 8\nops = ["conv"]\nwidths = [4, 8]\nnum_classes = 5\n')
    settings = load_run(str(mine), space=space)
    assert settings.space.space(11).widths == (4, 8)
    assert settings.space.space(11).num_classes == 11


def test_one_recipe_trains_all_with_its_overrides(mine: Path) -> None:
    settings = load_run(str(mine)).train.training("mine", 5)
    assert (settings.dataset, settings.seed, settings.images) == ("mine", 5, 24)
    assert settings.optimizer.lr == 1e-3
    assert settings.optimizer.weight_decay == 0.02, "the recipe's own"
    mine.write_text(MINE.replace("lr = 1e-3", "rate = 1e-3"))
    with pytest.raises(ConfigError, match="unknown key 'rate'"):
        load_run(str(mine)).train.training("mine", 5)


def test_unknown_runs_list_the_packaged_ones() -> None:
    with pytest.raises(UnknownNameError, match="camvid-cpu, cityscapes-gpu, smoke"):
        load_run("camvid")


def test_evolution_without_a_supernet_is_refused(mine: Path) -> None:
    mine.write_text(MINE.split("[supernet]")[0])
    with pytest.raises(ConfigError, match=r"\[supernet\]"):
        load_run(str(mine))
