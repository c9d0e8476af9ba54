"""Every stage of a training, through the programs, on rendered streets: small, but all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from fasterseg.runtime.model import resolve_model
from tests.shared import ROOT
from tests.tiny_data import own_dataset

pytestmark = pytest.mark.torch

CONFIG = """
dataset = "yard.toml"
images = 8
crop = "64x96"
batch = 4
precision = "bf16"
evaluate_every = 4
evaluate_frames = 2
log_images = 1
"""


@pytest.fixture(scope="module")
def folder(workshop: Path) -> Path:
    """A data set of three classes, a configuration, and what the runs leave."""
    own_dataset(workshop, train=6, val=2)
    (workshop / "smoke.toml").write_text(CONFIG)
    channel = '[loss]\ndistill_kind = "channel"\ndistill_temperature = 4.0\n'
    (workshop / "channel.toml").write_text(CONFIG + channel)
    return workshop


def program(folder: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> str:
    """Run `python -m fasterseg ...` in a folder; gives what it printed, both streams."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "fasterseg", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def train(folder: Path, output: str, *options: str, config: str = "smoke.toml") -> str:
    common = ("--output", output, "--device", "cpu", "--threads", "1")
    return program(folder, "search", "train", config, *common, *options)


def log_of(folder: Path, run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / run / "log.jsonl").read_text().splitlines()]


def test_teacher_then_student_then_both_kinds_of_distillation(folder: Path) -> None:
    assert "step 2 of 2, finished" in train(folder, "teacher", "--role", "teacher")
    taught = resolve_model(str(folder / "teacher"))
    assert taught.genotype.name == resolve_model("fasterseg-teacher").genotype.name
    for config in ("smoke.toml", "channel.toml"):
        run = f"student-{config.removesuffix('.toml')}"
        printed = train(folder, run, "--teacher", "teacher", config=config)
        assert "step 2 of 2, finished" in printed
        records = log_of(folder, run)
        assert any("teacher: " in record.get("note", "") for record in records)
        assert any(record.get("distill", 0) > 0 for record in records)


def test_a_stopped_run_goes_on_and_says_so(folder: Path) -> None:
    assert "step 0 of 2, stopped" in train(folder, "resumed", "--minutes", "0")
    assert "going on from step 0 of 2" in train(folder, "resumed")
    card = json.loads((folder / "resumed/model.json").read_text())
    assert card["training"]["step"] == 2
    assert card["training"]["history"][0]["versions"]["torch"]


def test_two_processes_train_one_network(folder: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = ("search", "train", "smoke.toml", "--output", "two", "--device", "cpu")
    printed = program(folder, *command, launcher=launcher)
    assert printed.count("step 2 of 2, finished") == 1, "only the leader speaks"
    assert resolve_model(str(folder / "two")).trained
    card = json.loads((folder / "two/model.json").read_text())
    assert card["training"]["history"][0]["processes"] == 2


def test_an_own_data_set_from_the_check_to_the_picture(folder: Path) -> None:
    """The guide of the README, smaller: six commands at most, no glue between them."""
    program(folder, "search", "data", "check", "--dataset", "yard.toml")
    printed = program(
        folder, "search", "train", "finetune", "--dataset", "yard.toml",
        "--init", "fasterseg-camvid", "--output", "mine", "--images", "16", "--device", "cpu",
    )  # fmt: skip
    assert "finished" in printed
    accuracy = ("bench", "accuracy", "--dataset", "yard.toml", "--model", "mine", "--split", "val")
    program(folder, *accuracy, "--json", "accuracy.json")
    score = json.loads((folder / "accuracy.json").read_text())
    assert set(score["per_class_iou"]) == set(resolve_model(str(folder / "mine")).labels.classes)
    assert 0 < score["miou"] <= 100
    picture = sorted((folder / "yard/images/val").iterdir())[0]
    program(folder, "infer", str(picture), "out.png", "--model", "mine")
    made, source = (np.asarray(cv2.imread(str(p))) for p in (folder / "out.png", picture))
    assert made.shape == source.shape
    assert (made != source).any()


def test_what_a_run_leaves_is_there_to_look_at(folder: Path) -> None:
    train(folder, "look")
    from fasterseg.search.board import available

    assert (folder / "look/curves.png").is_file()
    assert available()
    assert list((folder / "look/tensorboard").iterdir())
