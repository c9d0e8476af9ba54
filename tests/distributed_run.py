"""Trains a few steps under torchrun and writes every loss; see unit/search/test_distributed.py.

Usage: torchrun ... tests/distributed_run.py JOB.json
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.config import from_mapping
from fasterseg.datasets import DATASETS
from fasterseg.graph.weights import seeded_weights
from fasterseg.search.data import Samples
from fasterseg.search.distributed import joined
from fasterseg.search.settings import TrainSettings
from fasterseg.search.trainer import Trainer


def run(job: dict[str, Any]) -> None:
    """Train until a step; the leader writes `losses.json` and `weights.pt`."""
    torch.set_num_threads(1)
    settings = from_mapping(job["settings"], TrainSettings, "job")
    genotype = Genotype.from_json(job["genotype"], "job")
    with joined("cpu") as group:
        samples = Samples(DATASETS["camvid"], Path(job["root"]), settings)
        # Random norms: with zero biases flat areas lie on the kink of every ReLU, and the last bit
        # of a sum decides about all of them.
        start = seeded_weights(plan(genotype, settings.crop_size), seed=1)
        trainer = Trainer(
            settings, genotype, samples, Path(job["folder"]), group=group, start=start
        )
        losses = record_losses(trainer)
        trainer.resume()
        trainer.run(stop=lambda: trainer.step >= job["until"])
        same = group.same([float(p.detach().sum()) for p in trainer.network.parameters()])
        if group.leads:
            folder = Path(job["folder"])
            summary = {"losses": losses, "world": group.world, "same": same}
            (folder / "losses.json").write_text(json.dumps(summary))
            torch.save(trainer.average.state_dict(), folder / "weights.pt")


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


def job(settings: TrainSettings, genotype: Genotype, root: Path, folder: Path) -> dict[str, Any]:
    """What `run` takes, as JSON values."""
    return {
        "settings": dataclasses.asdict(settings),
        "genotype": genotype.to_json(),
        "root": str(root),
        "folder": str(folder),
        "until": settings.steps,
    }


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text()))
