"""Whether the supernet ranks networks as training on their own does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fasterseg.arch.genotype import Genotype
from fasterseg.bench.fit import kendall_tau
from fasterseg.retarget.stage_context import Run
from fasterseg.retarget.stage_search import make_scorer
from fasterseg.search.subnets import contains


def supernet_scores(run: Run, genotypes: Sequence[Genotype]) -> dict[str, float]:
    """Scores as the search gives them, of those networks that are in the supernet.

    Args:
        run: its supernet is trained.
        genotypes: networks, of the space or not.

    Returns:
        Digest -> mIoU in percent on held-out training pictures; empty where no supernet chooses.
    """
    if run.settings.method != "evolve":
        return {}
    inside = {one.digest(): one for one in genotypes if not contains(run.space, one)}
    if not inside:
        return {}
    from fasterseg.retarget.stage_supernet import load_supernet

    scores = make_scorer(run, load_supernet(run))(list(inside.values()))
    return {digest: round(100 * score, 3) for digest, score in zip(inside, scores, strict=True)}


def fidelity(scores: Mapping[str, float], trained: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How far the order of the supernet's scores is that of the trained networks.

    Args:
        scores: digest -> mIoU in the supernet.
        trained: entries with `digest` and `miou`; several of a network (seeds) count as their
            mean.

    Returns:
        "networks", their number, and "tau", Kendall's; None for fewer than three networks, or
        where all are alike.
    """
    mious: dict[str, list[float]] = {}
    for entry in trained:
        if entry["digest"] in scores:
            mious.setdefault(entry["digest"], []).append(entry["miou"])
    means = [sum(values) / len(values) for values in mious.values()]
    tau = kendall_tau([scores[digest] for digest in mious], means) if len(means) > 2 else None
    return {"networks": len(means), "tau": None if tau is None else round(tau, 3)}
