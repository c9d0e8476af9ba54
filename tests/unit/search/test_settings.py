from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fasterseg.arch.genotype import Genotype
from fasterseg.config import from_mapping
from fasterseg.datasets import DATASETS
from fasterseg.errors import ConfigError, UnknownNameError
from fasterseg.runtime.model import resolve_model
from fasterseg.search.settings import (
    CONFIGS,
    OptimizerSettings,
    TrainSettings,
    differences,
    for_dataset,
    learning_rate,
    load_settings,
    packaged,
)
from tests.unit.search.conftest import MakeSamples

BASE = 'dataset = "camvid"\nimages = 100\ncrop = "64x96"\n'


def read(tmp_path: Path, text: str) -> TrainSettings:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load_settings(str(path))


@pytest.mark.parametrize("name", packaged())
def test_packaged_configurations_name_things_that_exist(name: str) -> None:
    settings = load_settings(name)
    assert for_dataset(settings, settings.dataset or "camvid").dataset in DATASETS
    resolve_model(settings.student)
    resolve_model(settings.teacher)
    assert settings.role == ("teacher" if "teacher" in name else "student")


def test_every_packaged_file_has_a_name() -> None:
    others = [*CONFIGS.glob("paper/pretrain.toml"), *CONFIGS.glob("paper/search.toml")]
    others += CONFIGS.glob("retarget/*.toml")
    assert len(packaged()) + len(others) == len(list(CONFIGS.rglob("*.toml")))
    assert {"camvid-student", "camvid-teacher", "camvid-distil", "finetune"} <= set(packaged())
    assert {"paper/teacher", "paper/student"} <= set(packaged())


def test_an_unknown_configuration_lists_the_packaged_ones() -> None:
    with pytest.raises(UnknownNameError, match="camvid-student") as raised:
        load_settings("camvid-studnet")
    assert "paper/teacher" in str(raised.value)


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
        (BASE + "[augment]\nscales = [1.0, 0]\n", "augment.scales must be zooms above 0"),
        (BASE + '[loss]\ndistill_kind = "cwd"\n', "'cwd' is not one of 'kl', 'channel'"),
        (BASE + "[loss]\ndistill_temperature = 0\n", "distill_temperature must be above 0"),
        (BASE + "[optimizer]\nstairs = -1\n", "optimizer.stairs must be 0 or more"),
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


def without(settings: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}


def test_keys_that_came_later_stand_at_their_defaults_in_earlier_runs(tmp_path: Path) -> None:
    now = read(tmp_path, BASE).to_json()
    before = without(now, "augment_on", "frozen_norm", "log_images", "role")
    for table, keys in {
        "augment": ["scales"],
        "loss": ["distill_kind", "distill_temperature"],
        "optimizer": ["stairs"],
    }.items():
        before[table] = without(before[table], *keys)
    assert differences(now, before) == []
    changed = {**now, "frozen_norm": True, "loss": {**now["loss"], "distill_kind": "channel"}}
    assert differences(changed, before) == [
        "frozen_norm: False -> True",
        "loss.distill_kind: kl -> channel",
    ]


def test_keys_that_are_gone_or_were_never_given_are_told(tmp_path: Path) -> None:
    now = read(tmp_path, BASE).to_json()
    assert differences(now, {**now, "colour": 3}) == ["colour: 3 -> None"]
    assert differences(now, without(now, "crop", "loss")) == ["crop: None -> 64x96"]


def test_settings_survive_the_way_through_json(tmp_path: Path) -> None:
    for name in packaged():
        settings = load_settings(name)
        plain = json.loads(json.dumps(settings.to_json()))
        assert from_mapping(plain, TrainSettings, "a card") == settings


def test_a_data_set_may_be_chosen_when_the_run_starts() -> None:
    open_ = load_settings("finetune")
    assert for_dataset(open_, "mine.toml").dataset == "mine.toml"
    with pytest.raises(ConfigError, match="--dataset NAME"):
        for_dataset(open_, None)
    fixed = load_settings("camvid-student")
    assert for_dataset(fixed, None) == fixed
    assert for_dataset(fixed, "mine.toml").dataset == "mine.toml"


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


def test_stairs_hold_the_rate_within_their_stretch() -> None:
    settings = OptimizerSettings(lr=1.0, final=0.25, warmup=0.0, schedule="exponential", stairs=2)
    rates = [learning_rate(settings, (step + 1) / 6) for step in range(6)]
    assert rates == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.5, 0.5])


PAPER_ROLES = ["teacher", "student"]


@pytest.mark.parametrize("role", PAPER_ROLES)
def test_the_papers_run_is_600_epochs_of_1000_batches_of_12(role: str) -> None:
    settings = load_settings(f"paper/{role}")
    assert settings.steps == 600 * 1000
    assert (settings.batch, settings.images) == (12, 600 * 1000 * 12)
    assert (settings.crop_size.height, settings.crop_size.width) == (512, 1024)
    assert (settings.dataset, settings.role, settings.seed) == ("cityscapes", role, 12345)
    assert (settings.student, settings.teacher) == ("fasterseg-student", "fasterseg-teacher")
    assert (settings.precision, settings.streets, settings.frozen_norm) == ("fp32", 0.0, False)
    assert (settings.evaluate_every, settings.evaluate_frames) == (10 * 1000 * 12, 0)


@pytest.mark.parametrize("role", PAPER_ROLES)
def test_the_papers_optimiser_is_plain_sgd(role: str) -> None:
    settings = load_settings(f"paper/{role}").optimizer
    assert (settings.name, settings.lr, settings.momentum) == ("sgd", 0.01, 0.9)
    assert (settings.weight_decay, settings.decay_all) == (5e-4, True)
    assert (settings.warmup, settings.clip) == (0.0, 0.0)


@pytest.mark.parametrize("role", PAPER_ROLES)
def test_the_papers_rate_falls_by_0_992_after_every_epoch(role: str) -> None:
    settings = load_settings(f"paper/{role}")
    for epoch in range(600):
        for step in (1000 * epoch, 1000 * epoch + 500, 1000 * epoch + 999):
            rate = learning_rate(settings.optimizer, (step + 1) / settings.steps)
            assert rate == pytest.approx(0.01 * 0.992**epoch, rel=1e-12), step


@pytest.mark.parametrize("role", PAPER_ROLES)
def test_the_papers_loss_keeps_a_sixteenth_of_the_pixels(role: str) -> None:
    settings = load_settings(f"paper/{role}")
    loss = settings.loss
    assert int(loss.min_kept * settings.batch * 512 * 1024) == 393216
    assert (loss.ohem, loss.aux, loss.aux_stride, loss.balance) == (0.7, 0.2, 1, 0.0)
    assert (loss.distill, loss.distill_kind, loss.distill_temperature) == (1.0, "kl", 1.0)


@pytest.mark.parametrize("role", PAPER_ROLES)
def test_the_papers_pictures_are_scaled_and_mirrored_only(role: str) -> None:
    augment = load_settings(f"paper/{role}").augment
    assert augment.scales == (0.75, 1.0, 1.25)
    assert (augment.flip, augment.candidates) == (0.5, 1)
    colours = (augment.brightness, augment.contrast, augment.gamma, augment.tint)
    assert (*colours, augment.saturation) == (0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.torch
def test_the_papers_result_is_the_last_step_not_an_average(
    make_samples: MakeSamples,
    tiny_genotype: Genotype,
    tiny_settings: TrainSettings,
    tmp_path: Path,
) -> None:
    torch = pytest.importorskip("torch")
    from fasterseg.search.learner import Learner
    from fasterseg.search.trainer import Trainer

    assert all(load_settings(f"paper/{role}").ema == 0.0 for role in PAPER_ROLES)
    settings = replace(tiny_settings, images=4, ema=0.0)
    samples = make_samples(settings)
    trainer = Trainer(
        settings,
        {"genotype": tiny_genotype.to_json()},
        samples,
        tmp_path,
        learner=Learner.of(tiny_genotype, settings, samples.shares),
    )
    trainer.run()
    last = trainer.network.state_dict()
    assert all(torch.equal(v, last[k]) for k, v in trainer.average.state_dict().items())
