"""Every path that `derive` can choose for a branch, and how likely the edges make it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fasterseg.arch.genotype import Rate
from fasterseg.errors import UsageError
from fasterseg.search.derive import RATES


class Paths:
    """The paths of one final rate, in the order in which `derive` prefers equals.

    Args:
        layers: of the supernet.
        rate: final rate.

    Attributes:
        scales: (P, L) scale of each layer.

    Raises:
        UsageError: there are too few layers to reach the rate.
    """

    def __init__(self, layers: int, rate: Rate) -> None:
        self.layers = layers
        self.scale = RATES.index(rate)
        # Row b of the edges into scale j belongs to layer b + j + 1; see `ArchParameters`.
        rows: list[tuple[int, ...]] = [()]
        if self.scale == 1:
            rows = [(row,) for row in range(1, layers - 3)]
        elif self.scale == 2:
            rows = [(i, j) for i in range(layers - 2) for j in range(layers - 3) if i <= j]
        if not rows:
            raise UsageError(f"{layers} layers are too few for a branch at 1/{rate}")
        self._rows = torch.tensor(rows, dtype=torch.long).reshape(len(rows), self.scale)
        descents = np.array(rows, int).reshape(len(rows), self.scale) + 1 + np.arange(self.scale)
        self.scales: NDArray[np.int64] = (
            (np.arange(layers)[None, :, None] > descents[:, None, :]).sum(-1).astype(np.int64)
        )

    @cached_property
    def strided(self) -> NDArray[np.bool_]:
        """(P, L) whether the cell of a layer leads to a coarser scale."""
        following = np.concatenate([self.scales[:, 1:], self.scales[:, -1:]], axis=1)
        strided: NDArray[np.bool_] = following > self.scales
        return strided

    def weights(self, beta: Sequence[Tensor]) -> Tensor:
        """(P,) probability of each path, in proportion to what `derive` ranks them by.

        Args:
            beta: edge logits of scale 1 and 2.
        """
        score = torch.zeros(len(self._rows), dtype=beta[0].dtype)
        for place in range(self.scale):
            down = functional.log_softmax(beta[place], dim=-1)[:, 0]
            score = score + down[self._rows[:, place]]
        return functional.softmax(score, dim=0)


def common_cells(a: Paths, b: Paths) -> Tensor:
    """(Pa, Pb, L) 1 where two paths have had the same cells so far, with the same stride."""
    layers = a.layers
    same = a.scales[:, None, :] == b.scales[None, :, :]
    until = np.where(same.all(-1), layers, same.argmin(-1))
    common = np.arange(layers)[None, None, :] <= until[..., None] - 2
    return torch.from_numpy(common.astype(np.float64))
