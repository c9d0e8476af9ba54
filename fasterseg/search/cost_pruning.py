"""Which skips of a path would be refused, by the rule of `derive`, and what coincides by chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fasterseg.arch.genotype import Rate
from fasterseg.search.cost_paths import Paths
from fasterseg.search.derive import keep_layers
from fasterseg.search.parameters import Logits


@dataclass(frozen=True, slots=True)
class Pruned:
    """The paths of one final rate under some logits.

    Attributes:
        refused: (P, L) bool, whether the cell does not choose skip: it is strided, or the path
            would become too short.
        kept: per path, the layers that are not pruned.
    """

    refused: NDArray[np.bool_]
    kept: tuple[tuple[int, ...], ...]


class Pruning:
    """Applies the rule of `derive` to every path; remembers the last answer.

    Args:
        paths: by final rate.
        skip: column of skip; None where it is no candidate.
        ignore_skip: see `derive`.
    """

    def __init__(self, paths: Mapping[Rate, Paths], skip: int | None, ignore_skip: bool) -> None:
        self._paths = paths
        self._skip = skip
        self._ignore = ignore_skip
        self._key = b"none yet"
        self._found: dict[Rate, Pruned] = {}

    def __call__(self, alpha: Sequence[Logits]) -> dict[Rate, Pruned]:
        """What is pruned by the operator logits of the three scales."""
        key = self._state(alpha)
        if key != self._key:
            self._key = key
            self._found = {rate: self._prune(one, alpha) for rate, one in self._paths.items()}
        return self._found

    def _state(self, alpha: Sequence[Logits]) -> bytes:
        """All that the rule looks at: the cells that are skips, and in which order of certainty."""
        if self._skip is None:
            return b""
        cells = np.concatenate(alpha)
        skips = cells.argmax(-1) == self._skip
        powers = np.exp(cells - cells.max(-1, keepdims=True))
        certainty = np.where(skips, powers[:, self._skip] / powers.sum(-1), 0)
        _, order = np.unique(certainty, return_inverse=True)
        return bytes(skips.tobytes() + order.astype(np.int32).tobytes())

    def _prune(self, paths: Paths, alpha: Sequence[Logits]) -> Pruned:
        refused = paths.strided | self._ignore
        kept = []
        for index, path in enumerate(paths.scales.tolist()):
            if self._skip is None:
                kept.append(tuple(range(len(path))))
                continue
            cells = [alpha[scale][layer - scale].copy() for layer, scale in enumerate(path)]
            kept.append(tuple(keep_layers(cells, tuple(path), self._skip, self._ignore)))
            refused[index] |= [bool(np.isneginf(cell[self._skip])) for cell in cells]
        return Pruned(refused, tuple(kept))


Step = tuple[int, int, int, int]
"""Column of the operator, scale before, scale behind, column of the width behind a cell."""


def coincidences(branches: Sequence[tuple[tuple[int, ...], Sequence[Step]]]) -> list[list[Step]]:
    """Cells that branches share although they come from different layers.

    Args:
        branches: for each, the layers that are kept and what stands in them, without the last.

    Returns:
        For each such cell, the steps up to it.
    """
    found: list[list[Step]] = []
    owners: dict[tuple[Step, ...], list[tuple[int, ...]]] = {}
    for layers, steps in branches:
        for end in range(1, len(steps) + 1):
            known = owners.setdefault(tuple(steps[:end]), [])
            if known and layers[:end] not in known:
                found.append(list(steps[:end]))
            known.append(layers[:end])
    return found
