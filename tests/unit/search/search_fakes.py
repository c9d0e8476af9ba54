"""A space, a price and a score that cost nothing: sums over the cells of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.space import SearchSpace

SPACE: Final = SearchSpace(
    layers=8, widths=(4, 6, 8, 10, 12), stem_widths=(4, 8), head_widths=(4, 8), num_classes=11
)
_MS: Final = {"conv": 0.10, "conv_downup": 0.06, "conv_2x": 0.22, "conv_2x_downup": 0.12}
_GAIN: Final = {8: "conv_2x_downup", 16: "conv_2x", 32: "conv"}


def price(genotype: Genotype) -> float:
    """Milliseconds: every cell costs its operator's rate times its width."""
    total = 0.2 * genotype.stem_width + 0.1 * genotype.head_width
    for branch in genotype.branches:
        widths = (*branch.widths, genotype.head_width)
        total += sum(_MS[op] * width for op, width in zip(branch.ops, widths, strict=True))
    return total


def quality(genotype: Genotype) -> float:
    """A separable score: each rate likes one operator, and width pays less and less."""
    total = 0.0
    for branch in genotype.branches:
        widths = (*branch.widths, genotype.head_width)
        for op, rate, width in zip(branch.ops, branch.strides, widths, strict=True):
            total += (1.5 if op == _GAIN[rate] else 0.5) * width**0.5
    return total / 100


class Scorer:
    """Scores by `quality`, and notes what it was asked for; dies after so many if told."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.digests: list[str] = []
        self.calls = 0
        self._dies_after = dies_after

    def __call__(self, genotypes: Sequence[Genotype]) -> list[float]:
        self.calls += 1
        scores = []
        for genotype in genotypes:
            if len(self.digests) == self._dies_after:
                raise KeyboardInterrupt
            self.digests.append(genotype.digest())
            scores.append(quality(genotype))
        return scores
