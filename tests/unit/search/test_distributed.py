from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from fasterseg.arch.genotype import Genotype  # noqa: E402
from fasterseg.arch.space import SearchSpace  # noqa: E402
from fasterseg.errors import ConfigError  # noqa: E402
from fasterseg.search.distributed import Group, joined  # noqa: E402
from fasterseg.search.settings import (  # noqa: E402
    AugmentSettings,
    LossSettings,
    OptimizerSettings,
    TrainSettings,
)
from tests.distributed_run import job  # noqa: E402
from tests.shared import ROOT  # noqa: E402

pytestmark = pytest.mark.torch

STEPS = 20


@pytest.fixture
def settings(tiny_settings: TrainSettings) -> TrainSettings:
    """Steps that do not depend on how the batch is cut: no OHEM, no statistics of a batch.

    Crops stay inside the pictures: in the flat colour around them, whole areas would lie on the
    kink of a ReLU and the last bit of a sum decide about all of them.
    """
    return replace(
        tiny_settings,
        images=4 * STEPS,
        batch=4,
        frozen_norm=True,
        augment=AugmentSettings(scale=(1.2, 2.0)),
        loss=LossSettings(ohem=1.0, balance=0.5),
        optimizer=OptimizerSettings(name="sgd", lr=2e-3, warmup=0.1),
    )


def torchrun(processes: int, work: dict[str, Any], **environment: str) -> dict[str, Any]:
    folder = Path(work["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(work))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", str(processes), str(ROOT / "tests/distributed_run.py"),
        str(folder / "job.json"),
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[:3000]
    summary: dict[str, Any] = json.loads((folder / "losses.json").read_text())
    return {**summary, "weights": torch.load(folder / "weights.pt", weights_only=True)}


def test_two_processes_do_what_one_does_with_the_whole_batch(
    settings: TrainSettings, tiny_genotype: Genotype, camvid_root: Path, tmp_path: Path
) -> None:
    two = torchrun(2, job(settings, tiny_genotype, camvid_root, tmp_path / "two"))
    one = torchrun(1, job(settings, tiny_genotype, camvid_root, tmp_path / "one"))
    assert (one["world"], two["world"]) == (1, 2)
    assert two["same"], "the processes ended with different weights"
    assert len(one["losses"]) == len(two["losses"]) == STEPS
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert one["losses"][-1] < one["losses"][0] - 0.05, "nothing was learnt, nothing compared"
    for name, value in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], value, atol=1e-5, rtol=1e-4)


def test_two_processes_draw_the_same_networks_and_do_what_one_does(
    settings: TrainSettings, camvid_root: Path, tmp_path: Path
) -> None:
    space = SearchSpace(
        layers=3, widths=(4, 6), stem_widths=(4, 6), head_widths=(4,),
        final_rates=((16,), (8,)), num_classes=11,
    )  # fmt: skip
    short = replace(settings, images=4 * 8)
    two = torchrun(2, job(short, space, camvid_root, tmp_path / "two"))
    one = torchrun(1, job(short, space, camvid_root, tmp_path / "one"))
    assert two["same"], "the processes ended with different weights"
    assert len(one["losses"]) == len(two["losses"]) == 8
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    for name, value in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], value, atol=1e-5, rtol=1e-4)


def test_a_run_of_one_process_goes_on_with_two(
    settings: TrainSettings, tiny_genotype: Genotype, camvid_root: Path, tmp_path: Path
) -> None:
    short = replace(settings, images=32)
    whole = torchrun(1, job(short, tiny_genotype, camvid_root, tmp_path / "whole"))
    parts = job(short, tiny_genotype, camvid_root, tmp_path / "parts")
    first = torchrun(1, {**parts, "until": 5})
    rest = torchrun(2, parts)
    losses = [*first["losses"], *rest["losses"]]
    assert (len(first["losses"]), len(losses)) == (5, 8)
    assert losses == pytest.approx(whole["losses"], abs=1e-5)


def test_a_lone_process_is_a_group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as group:
        assert group == Group()
        assert group.leads
        value = torch.ones(3)
        assert group.mean(value) is value
        assert group.any(True)
        assert group.same("x")
        assert group.share("x") == "x"
        module = torch.nn.Linear(1, 1)
        assert group.wrap(module, "cpu") is module


def test_a_batch_that_does_not_divide_says_which_would() -> None:
    assert Group(1, 3).part_of(12) == 4
    with pytest.raises(ConfigError, match="must divide by their number, 3; set it to 15"):
        Group(1, 3).part_of(13)
