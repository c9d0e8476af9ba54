"""What a run will take, from a few of its steps."""

from __future__ import annotations

import resource
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import torch

from fasterseg.search.trainer import Trainer

STEPS: Final = 6


@dataclass(frozen=True, slots=True)
class Estimate:
    """Cost of a run.

    Attributes:
        step_s: seconds per step.
        images_per_s: training crops per second.
        total_s: seconds for all steps, without evaluations.
        memory_gib: of the process on a CPU, of torch on a GPU.
    """

    step_s: float
    images_per_s: float
    total_s: float
    memory_gib: float


def estimate(trainer: Trainer, steps: int = STEPS) -> Estimate:
    """Train some steps, 2 at least, and time the second half of them."""
    settings = trainer.settings
    with closing(trainer.samples.batches()) as batches:
        for index in range(steps):
            if index == steps // 2:
                started_at = time.perf_counter()
            # The losses come back as numbers, so a GPU has finished when this returns.
            trainer.train_step(*next(batches))
        step_s = (time.perf_counter() - started_at) / (steps - steps // 2)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if trainer.device == "cuda":
        memory = torch.cuda.max_memory_reserved()
    return Estimate(
        step_s=step_s,
        images_per_s=settings.batch / step_s,
        total_s=settings.steps * step_s,
        memory_gib=memory / 2**30,
    )
