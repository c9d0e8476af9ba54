"""What is noted of a co-search after every epoch, and whether it has decided anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from fasterseg.arch.latency import LatencyTable
from fasterseg.arch.plan import plan
from fasterseg.search.coderived import derived
from fasterseg.search.coscores import MixtureScorer
from fasterseg.search.cosettings import CoSearchSettings
from fasterseg.search.derive import softmax
from fasterseg.search.journal import Journal
from fasterseg.search.mixture import KINDS, set_name
from fasterseg.search.mixture_learner import MixtureLearner
from fasterseg.search.parameters import ArchParameters, Logits

UNMOVED: Final = 0.95
"""Mean normalised entropy of logits above which a search has decided nothing."""

Record = dict[str, Any]


def entropy(logits: Logits) -> float:
    """Mean over the rows of the entropy of their softmax, 1 where it is uniform."""
    p = softmax(np.asarray(logits, np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(p > 0, p * np.log(p), 0).sum(-1)
    return float(-bits.mean() / np.log(logits.shape[-1]))


def margin(logits: Logits) -> float:
    """Mean over the rows of the distance from the greatest logit to the second."""
    ordered = np.sort(np.asarray(logits, np.float64), axis=-1)
    return float((ordered[:, -1] - ordered[:, -2]).mean())


def decisions(parameters: Mapping[str, ArchParameters]) -> Record:
    """How far the logits have moved.

    Args:
        parameters: logits of "teacher" and "student".

    Returns:
        "entropy" and "margin" by network, means over its choices, and "groups": both for each kind
        of logits, "student.alpha". Kinds with a single candidate are left out.
    """
    record: Record = {"entropy": {}, "margin": {}, "groups": {}}
    for name in sorted(parameters):
        rows = []
        for kind in ("alpha", "beta", "ratio"):
            tensors = [one for one in getattr(parameters[name], kind) if one.size]
            if tensors[0].shape[-1] < 2:
                continue
            group = np.concatenate(tensors)
            rows.append((len(group), entropy(group), margin(group)))
            record["groups"][f"{name}.{kind}"] = {
                "entropy": round(rows[-1][1], 5),
                "margin": round(rows[-1][2], 5),
            }
        counts = np.array([count for count, *_ in rows], float)
        for column, figure in enumerate(("entropy", "margin"), start=1):
            mean = np.average([row[column] for row in rows], weights=counts)
            record[figure][name] = round(float(mean), 5)
    return record


def did_not_move(record: Mapping[str, Any]) -> str | None:
    """A loud warning where a search has decided nothing, else None.

    Args:
        record: of an epoch, with "entropy".
    """
    unmoved = {name: value for name, value in record["entropy"].items() if value > UNMOVED}
    if not unmoved:
        return None
    which = " and ".join(f"{name} {value:.3f}" for name, value in unmoved.items())
    return (
        f"THE SEARCH DID NOT DECIDE: the mean entropy of its logits is {which} (1 is undecided, "
        f"above {UNMOVED:g} counts as unmoved). What is derived from them is little better than "
        "drawn by lot. Search for longer, raise cosearch.arch_lr (3e-3 .. 1e-2 for short runs) or "
        "lower cosearch.final_temperature"
    )


class EpochRecorder:
    """Notes every epoch of a run in its journal, once, whatever was killed in between.

    A record holds "step", "epoch", what `decisions` gives, "latency_ms" of the set of branches
    that is preferred ("set"), "predicted_ms" of all of them, by the table, and the logits. With a
    scorer also "miou" of the student's predictions and "teacher_miou" in percent, and "gap": by how
    much the derived networks differ from the mixture, in points.

    Args:
        learner: of the run.
        journal: of the run.
        table: of the device, or None.
        scorer: scores the supernet on pictures that it has not learned from, or None.
    """

    def __init__(
        self,
        learner: MixtureLearner,
        journal: Journal,
        table: LatencyTable | None = None,
        scorer: MixtureScorer | None = None,
    ) -> None:
        self.learner = learner
        self.journal = journal
        self.table = table
        self.scorer = scorer

    def __call__(self, step: int) -> Record | None:
        """Note an epoch if one is over after so many steps; gives the record, also a known one.

        Raises:
            OutputError: the journal cannot be written.
            SourceError: a picture or label cannot be read.
        """
        settings = self.learner.mixture
        epoch = settings.epoch(step)
        ends = step == settings.train.steps or (
            epoch < settings.epochs and step % settings.steps_per_epoch == 0
        )
        if epoch == 0 or not ends:
            return None
        for known in self.journal.read():
            if known.get("epoch") == epoch:
                return known
        record = {"step": step, "epoch": epoch, **self.describe()}
        self.journal.write(record)
        return record

    def describe(self) -> Record:
        """The record of the supernet as it stands."""
        net = self.learner.network
        parameters: dict[str, ArchParameters] = {
            kind: self.learner.parameters(kind) for kind in KINDS
        }
        record = decisions(parameters)
        if self.scorer is not None:
            record |= self._scores()
        sets = {set_name(rates): rates for rates in net.space.final_rates}
        if self.table is not None:
            size = self.table.size
            record["predicted_ms"] = {
                name: self.table.price(
                    plan(derived(net, "student", rates), size), allow_upsample_mismatch=True
                ).ms
                for name, rates in sets.items()
            }
        record["set"] = preferred_set(record, [*sets], self.learner.mixture.cosearch)
        if self.table is not None:
            record["latency_ms"] = record["predicted_ms"][record["set"]]
        record["logits"] = {
            name: {
                kind: [np.round(rows, 6).tolist() for rows in getattr(one, kind)]
                for kind in ("alpha", "beta", "ratio")
            }
            for name, one in parameters.items()
        }
        return record

    def _scores(self) -> Record:
        assert self.scorer is not None
        net = self.learner.average
        student, teacher = (_percent(self.scorer.mixture(net, kind)) for kind in reversed(KINDS))
        record: Record = {"miou": student, "teacher_miou": teacher}
        if not net.original:
            apart = _percent(self.scorer.derived(net, "student"))
            record["gap"] = {name: round(abs(student[name] - apart[name]), 3) for name in apart}
        return record


def _percent(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(100 * score, 3) for name, score in scores.items()}


def preferred_set(record: Mapping[str, Any], sets: list[str], settings: CoSearchSettings) -> str:
    """The set of branches to hand out.

    The best mIoU among those that are predicted to meet the target, the fastest where none does.
    In the original the greatest mIoU x (ms / base) ** -0.07, the first of equals.

    Args:
        record: with "miou" and "predicted_ms" where they are known; without both the first.
        sets: names of the sets.
        settings: of the search.
    """
    miou, ms = record.get("miou"), record.get("predicted_ms")
    if miou is None or ms is None:
        return sets[0]
    if settings.original:
        return max(sets, key=lambda name: miou[name] * (ms[name] / settings.base_ms) ** -0.07)
    meeting = [name for name in sets if not settings.target_ms or ms[name] <= settings.target_ms]
    if meeting:
        return max(meeting, key=lambda name: miou[name])
    return min(sets, key=lambda name: ms[name])
