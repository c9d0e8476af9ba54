"""Which training pictures a run uses for what: divided by their names, the same in every stage."""

from __future__ import annotations

from collections.abc import Sequence

from fasterseg.datasets import Pair
from fasterseg.retarget.stage_context import SPLIT, Run, write_json
from fasterseg.retarget.stages import key_of
from fasterseg.search.split import Part, TrainSplit, split_train


def split_of(run: Run) -> TrainSplit:
    """The parts of the train split; nothing is read but file names.

    Raises:
        SourceError: the split cannot be listed.
        UsageError: it has too few pictures.
    """
    shares = run.settings.split
    # Evolution has no logits: these pictures then train weights, too.
    architecture = shares.architecture if run.settings.method == "fasterseg" else 0.0
    return split_train(_pairs(run), shares.held_out, architecture)


def pairs_of(run: Run, part: Part) -> list[Pair]:
    """The training pairs of one part."""
    return split_of(run).select(_pairs(run), part)


def split_source(run: Run) -> dict[str, str]:
    """What stages that read pictures depend on."""
    return {"training pictures": key_of(split_of(run).to_json())}


def store_split(run: Run) -> None:
    """Write the split into the run's folder, for people and for later stages elsewhere."""
    if run.group.leads:
        write_json(run.path(SPLIT), split_of(run).to_json())


def _pairs(run: Run) -> Sequence[Pair]:
    return run.spec.pairs(run.root, "train")
