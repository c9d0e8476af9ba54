"""Trains a few steps under torchrun and writes every loss; see unit/search/test_distributed.py.

Usage: torchrun ... tests/distributed_run.py JOB.json
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.arch.space import SearchSpace
from fasterseg.config import from_mapping
from fasterseg.datasets import DATASETS
from fasterseg.graph.weights import seeded_weights
from fasterseg.search.data import Samples
from fasterseg.search.distributed import Group, joined
from fasterseg.search.learner import Learner
from fasterseg.search.settings import TrainSettings
from fasterseg.search.super_learner import SuperNetLearner
from fasterseg.search.trainer import Trainer


def run(job: dict[str, Any]) -> None:
    """Train until a step; the leader writes `losses.json` and `weights.pt`."""
    torch.set_num_threads(1)
    settings = from_mapping(job["settings"], TrainSettings, "job")
    with joined("cpu") as group:
        samples = Samples(DATASETS["camvid"], Path(job["root"]), settings)
        subject = job["subject"]
        learner = make_learner(subject, settings, samples.shares, group)
        folder = Path(job["folder"])
        trainer = Trainer(settings, subject, samples, folder, learner=learner, group=group)
        losses = record_losses(trainer)
        trainer.resume()
        trainer.run(stop=lambda: trainer.step >= job["until"])
        same = group.same([float(p.detach().sum()) for p in trainer.network.parameters()])
        if group.leads:
            summary = {"losses": losses, "world": group.world, "same": same}
            (folder / "losses.json").write_text(json.dumps(summary))
            torch.save(trainer.average.state_dict(), folder / "weights.pt")


def make_learner(
    subject: dict[str, Any], settings: TrainSettings, shares: NDArray[np.float64], group: Group
) -> Learner | SuperNetLearner:
    """The learner of a genotype or of a space, with random norms.

    With zero biases flat areas lie on the kink of every ReLU, and the last bit of a sum decides
    about all of them.
    """
    if "genotype" in subject:
        genotype = Genotype.from_json(subject["genotype"], "job")
        start = seeded_weights(plan(genotype, settings.crop_size), seed=1)
        return Learner.of(genotype, settings, shares, group=group, start=start)
    space = from_mapping(subject["space"], SearchSpace, "job")
    learner = SuperNetLearner(settings, space, shares, group=group)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in learner.network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    learner.average.load_state_dict(learner.network.state_dict())
    return learner


def record_losses(trainer: Trainer) -> list[float]:
    """A list that gets the total loss of every step."""
    losses: list[float] = []
    step = trainer.train_step

    def recorded(images: torch.Tensor, labels: torch.Tensor) -> dict[str, float] | None:
        values = step(images, labels)
        assert values is not None
        losses.append(values["total"])
        return values

    trainer.train_step = recorded  # type: ignore[method-assign]
    return losses


def job(
    settings: TrainSettings, trained: Genotype | SearchSpace, root: Path, folder: Path
) -> dict[str, Any]:
    """What `run` takes, as JSON values."""
    kind = "genotype" if isinstance(trained, Genotype) else "space"
    return {
        "settings": dataclasses.asdict(settings),
        "subject": {kind: dataclasses.asdict(trained)},
        "root": str(root),
        "folder": str(folder),
        "until": settings.steps,
    }


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text()))
    # Once, with all of its work done, torch aborted a process while the interpreter ended
    # ("terminate called without an active exception"). How Python ends is not what is tested.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
