"""Whether an engine's labels are the reference's: a fast wrong engine has to be called wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.bench.cells import Cell
from fasterseg.errors import EngineMismatchError
from fasterseg.runtime.base import Engine
from fasterseg.types import Precision

Frames = NDArray[np.uint8]

ONE_CLASS_SHARE: Final = 0.9
GROSS: Final = 0.9
"""Whatever the precision: an engine of trained weights that labels more than a tenth of the
pixels otherwise than the reference is not the same model any more."""


def labels_of(engine: Engine, frames: Sequence[Frames]) -> list[Frames]:
    """The class maps of all batches, each a copy: engines reuse their output buffer."""
    return [engine.run(batch).copy() for batch in frames]


def with_agreement(
    cell: Cell,
    labels: Sequence[Frames],
    expected: Sequence[Frames],
    *,
    limits: Mapping[Precision, float] | None = None,
    trained: bool = True,
) -> Cell:
    """The cell with the share of all pixels of all frames whose label is the reference's.

    Args:
        cell: the engine's figures.
        labels: the engine's class maps.
        expected: those of the reference, for the same frames.
        limits: precision -> share below which the engine is wrong.
        trained: whether the weights are; random ones decide by margins so small that only fp32
            can be judged by its labels.

    Raises:
        EngineMismatchError: the class maps differ in number or shape.
    """
    if [maps.shape for maps in labels] != [maps.shape for maps in expected]:
        raise EngineMismatchError(
            f"{cell.engine} gives class maps of {labels[0].shape}, the reference gives "
            f"{expected[0].shape}; they are not engines of the same model and size"
        )
    pairs = zip(labels, expected, strict=True)
    equal = sum(int(np.count_nonzero(ours == theirs)) for ours, theirs in pairs)
    counts = np.bincount(np.concatenate([maps.ravel() for maps in expected]))
    total = int(counts.sum())
    share = float(counts.max()) / total
    warnings = list(cell.warnings)
    if share > ONE_CLASS_SHARE:
        warnings.append(
            f"weak agreement: one class holds {share:.0%} of the reference's pixels, so equal "
            "labels say little"
        )
    agreement = equal / total
    cell = replace(cell, label_agreement=agreement)
    if not trained and cell.precision != "fp32":
        return replace(cell, warnings=tuple(warnings))
    limit = max(GROSS, (limits or {}).get(cell.precision, 0.0))
    wrong = agreement < limit
    if wrong:
        warnings.append(
            f"WRONG: {agreement:.3%} of the labels are the reference's, {limit:.3%} have to be; "
            "its speed means nothing. Find the layer where it parts: fasterseg verify --layers"
        )
    return replace(cell, verdict="wrong" if wrong else "ok", warnings=tuple(warnings))
