"""What the stages of a run will take: time, memory and keys, from a few real steps of each."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fasterseg.retarget.stage_context import Hooks, Run
from fasterseg.retarget.stage_measure import estimate as estimate_measure
from fasterseg.retarget.stage_train import Arm, arm_trainer
from fasterseg.runtime.model import resolve_model
from fasterseg.search.subnets import random_subnet

if TYPE_CHECKING:
    from fasterseg.search.trainer import Trainer

STEPS: Final = 2
"""Steps of each training; the second one is timed."""

SCORED: Final = 2
"""Networks that are scored to know how long one takes; the first one is not timed."""


def estimate_stages(run: Run, names: Sequence[str]) -> list[str]:
    """A line for each stage, from steps on real pictures; the run's folder is left alone.

    Args:
        run: what is to be done.
        names: of the stages; those that take seconds have no line.

    Raises:
        FastersegError: whatever the stage itself would be refused for.
    """
    quiet = replace(run, hooks=Hooks())
    with tempfile.TemporaryDirectory() as folder:
        made = {name: _LINES[name](quiet, Path(folder) / name) for name in names if name in _LINES}
    return [f"{name}: {line}" for name, line in made.items()]


def _measure(run: Run, _: Path) -> str:
    cost = estimate_measure(run)
    nominal = run.settings.measure.clock == "nominal"
    return f"{cost.keys} keys (operators at {run.size}), {cost.todo} to measure; " + (
        "by formula, at once" if nominal else f"about {_duration(cost.seconds)}"
    )


def _supernet(run: Run, folder: Path) -> str:
    from fasterseg.retarget.stage_supernet import supernet_trainer

    return training_line(supernet_trainer(run, folder))


def training_line(trainer: Trainer) -> str:
    """Time and memory of a training, from a few of its steps."""
    from fasterseg.search.estimate import estimate

    cost = estimate(trainer, STEPS)
    settings = trainer.settings
    return (
        f"{trainer.samples.count} training pairs, {settings.steps} steps of {settings.batch}; "
        f"{cost.step_s * 1e3:.0f} ms per step ({cost.images_per_s:.1f} images/s), about "
        f"{_duration(cost.total_s)}; {cost.memory_gib:.1f} GiB on {trainer.device}"
    )


def _search(run: Run, _: Path) -> str:
    from fasterseg.retarget.stage_search import make_scorer
    from fasterseg.retarget.stage_supernet import new_supernet

    scorer = make_scorer(run, new_supernet(run))
    rng = random.Random(run.settings.seed)
    for _number in range(SCORED):
        begun = time.perf_counter()
        scorer([random_subnet(run.space, rng)])
        seconds = time.perf_counter() - begun
    targets = max(1, len(run.settings.targets_ms))
    evaluations = targets * (2 * run.settings.search.evaluations + len(run.space.ops))
    measured = targets * run.settings.search.top_k + run.settings.train.compare_random
    return (
        f"at most {evaluations} networks to score for {targets} "
        f"{'target' if targets == 1 else 'targets'} (evolution, random search, hand baselines), "
        f"{seconds:.2f} s each: about {_duration(seconds * evaluations / run.group.world)}; "
        f"{measured} whole networks to measure"
    )


def _train(run: Run, folder: Path) -> str:
    settings = run.settings.train
    nets = len(run.settings.targets_ms) or 1
    count = len(settings.seeds) * (nets + len(settings.compare) + settings.compare_random)
    # The chosen network is not known yet: one like it, or any of the space.
    given = [resolve_model(name).genotype for name in settings.compare]
    any_one = random_subnet(run.space, random.Random(run.settings.seed))
    genotype = given[0].with_classes(len(run.spec.labels)) if given else any_one
    arm = Arm("estimate", "given", genotype, settings.seeds[0], "estimate", inherits=False)
    # Its teacher, if any, is not trained yet either.
    untaught = replace(run.settings, train=replace(settings, teacher=""))
    trainer = arm_trainer(replace(run, settings=untaught), arm, folder)
    return f"{count} networks, each: {training_line(trainer)}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


_LINES: Final[Mapping[str, Callable[[Run, Path], str]]] = {
    "measure": _measure,
    "search": _search,
    "supernet": _supernet,
    "train": _train,
}
