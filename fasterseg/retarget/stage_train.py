"""The stage `train`: the chosen networks and those they are compared with, by one recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.datasets import spaced
from fasterseg.retarget.settings import SEARCHED
from fasterseg.retarget.stage_context import (
    COMPARISON,
    SEARCH,
    SUPERNET,
    TEACHER,
    TRAINED,
    Run,
    Stage,
    digest_of,
    read_json,
    write_json,
)
from fasterseg.retarget.stage_fidelity import fidelity, supernet_scores
from fasterseg.retarget.stage_judge import Counts, difference, judge, miou, store_counts
from fasterseg.retarget.stage_judge import stored_counts as stored
from fasterseg.retarget.stage_training import final_file, proceed
from fasterseg.runtime.model import resolve_model
from fasterseg.search.subnets import contains

if TYPE_CHECKING:
    from fasterseg.nn.network import Network
    from fasterseg.search.settings import TrainSettings
    from fasterseg.search.trainer import Trainer

FOLDER: Final = "train"


@dataclass(frozen=True, slots=True)
class Arm:
    """One network that is trained.

    Attributes:
        name: of the network, the same for each of its seeds.
        how: "searched", "given", "random" or "teacher".
        genotype: its architecture.
        seed: of the training.
        folder: of its results, under `train/`.
        inherits: whether it begins with weights of the supernet.
    """

    name: str
    how: str
    genotype: Genotype
    seed: int
    folder: str
    inherits: bool


def arms_of(run: Run) -> list[Arm]:
    """What is to be trained, in order: whatever is compared is trained before the next seed."""
    chosen = [(name, SEARCHED, g) for name, g in chosen_of(run)]
    released = [
        (name, "given", resolve_model(name).genotype.with_classes(len(run.spec.labels)))
        for name in run.settings.train.compare
    ]
    drawn = read_json(run.path(COMPARISON)) if run.path(COMPARISON).exists() else {"networks": []}
    random = [
        (f"random-{number}", "random", Genotype.from_json(entry["genotype"], COMPARISON))
        for number, entry in enumerate(drawn["networks"], start=1)
    ]
    teacher = [("teacher", "teacher", _genotype(run.path(TEACHER)))] if _finds_teacher(run) else []
    wanted = [*teacher, *chosen, *released, *random]
    return [_arm(run, *entry, seed) for seed in run.settings.train.seeds for entry in wanted]


def chosen_of(run: Run) -> list[tuple[str, Genotype]]:
    """Name and architecture of the chosen network of each target, the first target's first."""
    targets = read_json(run.path(SEARCH))["targets"]
    names = [SEARCHED, *(f"{SEARCHED}-{target['target_ms']:g}ms" for target in targets[1:])]
    files = [target["file"] for target in targets]
    return [(name, _genotype(run.path(file))) for name, file in zip(names, files, strict=True)]


def _arm(run: Run, name: str, how: str, genotype: Genotype, seed: int) -> Arm:
    settings = run.settings.train
    folder = name if len(settings.seeds) == 1 else f"{name}-seed{seed}"
    evolves = run.settings.method == "evolve"
    inherits = settings.inherit and evolves and not contains(run.space, genotype)
    return Arm(name, how, genotype, seed, folder.replace("/", "_"), inherits)


def _genotype(path: Path) -> Genotype:
    return Genotype.from_json(read_json(path), str(path))


def _finds_teacher(run: Run) -> bool:
    return run.settings.train.teacher == SEARCHED and run.settings.method == "fasterseg"


def arm_trainer(run: Run, arm: Arm, folder: Path) -> Trainer:
    """The training of one network, at its beginning.

    Raises:
        UsageError: the teacher is untrained, or of other classes.
        SourceError: pictures cannot be read.
    """
    from fasterseg.search.data import make_samples
    from fasterseg.search.learner import Learner
    from fasterseg.search.trainer import Trainer

    settings = training_of(run, arm)
    samples = make_samples(run.spec, run.root, settings, run.device, run.tell)
    teacher = _teacher_model(run, arm)
    learner = Learner.of(
        arm.genotype,
        settings,
        samples.shares,
        device=run.device,
        group=run.group,
        start=_inherited(run, arm, settings) if arm.inherits else None,
        teacher=run.hooks.teacher(teacher, run.spec) if teacher and run.hooks.teacher else None,
    )
    provenance: dict[str, Any] = {
        "init": {"supernet": digest_of(final_file(run.path(SUPERNET)))} if arm.inherits else None,
        "teacher": {"sha256": resolve_model(teacher).source_sha256} if teacher else None,
    }
    return Trainer(
        settings,
        {"genotype": arm.genotype.to_json()},
        samples,
        folder,
        learner=learner,
        device=run.device,
        group=run.group,
        provenance=provenance,
    )


def training_of(run: Run, arm: Arm) -> TrainSettings:
    """The settings of one training."""
    settings = run.settings.train.training(run.spec.name, arm.seed)
    return dataclasses.replace(settings, role="teacher" if arm.how == "teacher" else "student")


def _teacher_model(run: Run, arm: Arm) -> str:
    """Name or folder of the model that teaches an arm; empty where none does."""
    if arm.how == "teacher":
        return ""
    if _finds_teacher(run):
        settings = run.settings.train
        suffix = "" if len(settings.seeds) == 1 else f"-seed{arm.seed}"
        folder = run.path(FOLDER) / f"teacher{suffix}"
        scored = stored(folder)
        if scored is not None and not miou(scored) > 0:
            run.hooks.warn("the searched teacher gets nothing right; students do without it")
            return ""
        return str(folder)
    # Method evolve searches no teacher.
    named = run.settings.train.teacher
    return "" if named == SEARCHED else named


def _inherited(run: Run, arm: Arm, settings: TrainSettings) -> Mapping[str, Any]:
    from fasterseg.retarget.stage_supernet import load_supernet

    shape = plan(arm.genotype, settings.crop_size)
    weights: Mapping[str, Any] = load_supernet(run).extract(shape)
    return weights


def train_arm(run: Run, arm: Arm) -> bool:
    """Train one network and judge it, unless that is done; False where it was asked to stop."""
    from fasterseg.search.scoring import evaluate

    folder = run.path(FOLDER) / arm.folder
    if run.group.share(stored(folder) is not None):
        return True
    run.tell(f"train/{arm.folder}: {'with inherited weights' if arm.inherits else 'from scratch'}")
    trainer = arm_trainer(run, arm, folder)
    looked_at = spaced(run.spec.pairs(run.root, "val"), trainer.settings.evaluate_frames)

    def score(network: Network) -> Any:
        return evaluate(network, run.spec, looked_at)

    def publish() -> None:
        run.hooks.publish(trainer, run.spec)

    if not proceed(trainer, run.spec, run.hooks, evaluate=score, publish=publish):
        return False
    if run.group.leads:
        store_counts(folder, judge(run, trainer.average))  # type: ignore[arg-type]
    run.group.share(None)
    return True


def summary(run: Run, arms: Sequence[Arm], scores: Mapping[str, float]) -> dict[str, Any]:
    """What was trained and how it compares, as JSON values.

    Args:
        run: its trainings are done.
        arms: all of them.
        scores: digest -> mIoU in the supernet, of those that are in it.
    """
    counts: dict[Arm, Counts] = {}
    for arm in arms:
        found = stored(run.path(FOLDER) / arm.folder)
        assert found is not None
        counts[arm] = found
    entries = [
        {
            "name": arm.name,
            "how": arm.how,
            "folder": f"{FOLDER}/{arm.folder}",
            "seed": arm.seed,
            "digest": arm.genotype.digest(),
            "inherits": arm.inherits,
            "miou": round(miou(counts[arm]), 3),
            "supernet_miou": scores.get(arm.genotype.digest()),
        }
        for arm in arms
    ]
    return {
        "judged_on": run.settings.train.judged_on,
        "pictures": len(next(iter(counts.values()))),
        "arms": entries,
        "differences": list(_differences(counts)),
        "fidelity": fidelity(scores, entries),
    }


def _differences(counts: Mapping[Arm, Counts]) -> Sequence[dict[str, Any]]:
    """The first target's network against every other one, and against all random ones."""
    ours = [arm for arm in counts if arm.name == SEARCHED]
    others: dict[str, list[Arm]] = {}
    for arm in counts:
        if arm.how in ("given", "random"):
            others.setdefault(arm.name, []).append(arm)
    if random := [arm for arm in counts if arm.how == "random"]:
        others["all random"] = random
    return [
        {
            "of": SEARCHED,
            "to": name,
            "inherits": [ours[0].inherits, theirs[0].inherits],
            **difference([counts[arm] for arm in ours], [counts[arm] for arm in theirs]),
        }
        for name, theirs in others.items()
    ]


def _settings(run: Run) -> dict[str, Any]:
    settings = run.settings
    first = settings.train.training(run.spec.name, 0).to_json()
    return {"dataset": run.dataset, "train": dataclasses.asdict(settings.train), "training": first}


def _sources(run: Run) -> dict[str, str]:
    names = [SEARCH, COMPARISON, TEACHER]
    return {name: digest_of(run.path(name)) for name in names}


def _work(run: Run) -> bool:
    arms = arms_of(run)
    for arm in arms:
        if not train_arm(run, arm):
            return False
    scores = supernet_scores(run, [arm.genotype for arm in arms])
    if run.group.leads:
        write_json(run.path(TRAINED), summary(run, arms, scores))
        for line in lines_of(read_json(run.path(TRAINED))):
            run.tell(line)
    run.group.share(None)
    return True


def lines_of(trained: Mapping[str, Any]) -> list[str]:
    """What `train.json` says, for people."""
    lines = [
        f"  {arm['name']} (seed {arm['seed']}): {arm['miou']:.2f} % mIoU on {trained['judged_on']}"
        for arm in trained["arms"]
    ]
    lines += [
        f"  {d['of']} against {d['to']}: {d['mean']:+.2f} points, 95 % interval "
        f"{d['low']:+.2f} to {d['high']:+.2f}"
        + ("" if d["inherits"][0] == d["inherits"][1] else " (one of them began from scratch)")
        for d in trained["differences"]
    ]
    return [*lines, *_fidelity_lines(trained["fidelity"])]


def _fidelity_lines(told: Mapping[str, Any]) -> list[str]:
    if told["tau"] is None:
        return []
    return [
        f"  supernet and training order {told['networks']} networks with Kendall's tau "
        f"{told['tau']:.2f}"
    ]


TRAIN: Final = Stage(_settings, _sources, _work, (FOLDER, TRAINED))
