"""The expected latency of the supernet as the original code computes it, oddities included.

Only `original = true` uses it, and the tests that hold it against recorded values; `cost` is the
price of the network that is derived. Known defects, kept on purpose: the edges of the coarsest
scale weigh those of all others, a total is read after it has been updated, branches do not share
what they share, merges and heads are free, and conv_2x_downup has the price of conv_2x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, cast

import torch
from torch import Tensor

from fasterseg.arch.latency import LatencyTable
from fasterseg.arch.operators import OpSpec, Stride
from fasterseg.arch.space import SearchSpace
from fasterseg.search.mixture_widths import Widths

SCALES: Final = 3


class OriginalLatency:
    """Expected milliseconds of a supernet; see the module.

    Args:
        space: its first stem and head width are the architecture's.
        table: with a row for every operator and pair of widths.

    Attributes:
        stem_ms: of the stem.

    Raises:
        MissingLatencyError: a row is missing when it is first asked for.
    """

    def __init__(self, space: SearchSpace, table: LatencyTable) -> None:
        self.space = space
        self.table = table
        self.stem_width, self.head_width = space.stem_widths[0], space.head_widths[0]
        self.height, self.columns = table.size.height // 8, table.size.width // 8
        stem = 8 * self.stem_width
        height, columns = table.size
        self.stem_ms = (
            table[OpSpec("conv", 3, stem // 2, 2, height, columns)]
            + table[OpSpec("conv_2x", stem // 2, stem, 2, height // 2, columns // 2)]
            + table[OpSpec("conv_2x", stem, stem, 2, height // 4, columns // 4)]
        )
        self._rows: dict[tuple[int, int, int, int], Tensor] = {}

    def __call__(
        self, alpha: Sequence[Tensor], beta: Sequence[Tensor], widths: Widths | None
    ) -> Tensor:
        """Expected milliseconds.

        Args:
            alpha: operator probabilities per scale, (L - j, K).
            beta: edge probabilities, (L - 2, 2) and (L - 3, 2).
            widths: of the tensors between cells; None takes the widest everywhere.
        """
        layers = self.space.layers
        zero = alpha[0].new_zeros(())
        totals = [[zero + self.stem_ms, zero], [zero, zero], [zero, zero]]
        for layer in range(layers):
            edges = self._leaked_edges(beta, layer)
            for scale in range(min(layer, SCALES - 1) + 1):
                keep, down = self._cell(alpha, widths, layer, scale)
                total = totals[scale]
                if scale == 0:
                    total[0] = total[0] + keep
                    total[1] = total[0] + down if layer < layers - 1 else total[1]
                    continue
                finer = totals[scale - 1][1]
                for which, own in enumerate((keep, down)):
                    if which == 1 and scale == SCALES - 1:
                        continue
                    # The total just updated is read again for the way down.
                    before = finer if layer == scale else edges[1] * total[0] + edges[0] * finer
                    total[which] = before + own
        return totals[0][0] + totals[1][0] + totals[2][0]

    def _leaked_edges(self, beta: Sequence[Tensor], layer: int) -> Tensor:
        """The row of 1/32 serves every scale; at layer 2 its index is -1, the last row."""
        return beta[1][layer - 3 if layer >= 2 else 0]

    def _cell(
        self, alpha: Sequence[Tensor], widths: Widths | None, layer: int, scale: int
    ) -> tuple[Tensor, Tensor]:
        """Expected milliseconds of a cell's operator that stays at its scale, and goes down."""
        weights = alpha[scale][layer - scale]
        last = layer == self.space.layers - 1
        keep = self._mixed(weights, widths, (layer, scale), scale, last)
        if last or scale == SCALES - 1:
            return keep, weights.new_zeros(())
        return keep, self._mixed(weights, widths, (layer, scale), scale + 1, last)

    def _mixed(
        self, weights: Tensor, widths: Widths | None, cell: tuple[int, int], to: int, last: bool
    ) -> Tensor:
        layer, scale = cell
        widest = self.space.widths[-1]
        into = self.stem_width
        if layer > 0:
            into = widest if widths is None else widths.entering(layer, scale)
        out = self.head_width
        if not last:
            out = widest if widths is None else widths.entering(layer + 1, to)
        cost = (weights * self._prices(scale, to, into, out).to(weights)).sum()
        if widths is not None:
            for factor in (
                widths.factor(layer, scale),
                None if last else widths.factor(layer + 1, to),
            ):
                cost = cost if factor is None else cost * factor
        return cost

    def _prices(self, scale: int, to: int, into: int, out: int) -> Tensor:
        """(K,) milliseconds of the candidates at one place."""
        key = (scale, to, into, out)
        if key not in self._rows:
            stride = cast("Stride", 1 + to - scale)
            height, columns = self.height >> scale, self.columns >> scale
            rate, rate_after = 8 << scale, 8 << to
            specs = [
                OpSpec(op, rate * into, rate_after * out, stride, height, columns)
                for op in self.space.ops
            ]
            self._rows[key] = torch.tensor([self._price(spec) for spec in specs])
        return self._rows[key]

    def _price(self, spec: OpSpec) -> float:
        if spec.op == "conv_2x_downup":
            spec = replace(spec, op="conv_2x")
        return self.table[spec]


def regulariser(
    latency: OriginalLatency, alpha: Sequence[Tensor], beta: Sequence[Tensor], widths: Widths | None
) -> Tensor:
    """What the original adds to the loss, times its weight: each kind of logits alone, weighed.

    Args:
        latency: of the architecture.
        alpha: operator probabilities.
        beta: edge probabilities.
        widths: chosen by logits; None where there is only one width.
    """
    by_operators = latency(alpha, uniform(beta), None)
    by_edges = latency(uniform(alpha), beta, None)
    if widths is None:
        return by_operators / 500 + by_edges * (499 / 500)
    by_widths = latency(uniform(alpha), uniform(beta), widths)
    return by_operators / 500 + by_edges * (497 / 500) + by_widths * (2 / 500)


def uniform(rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The choices that the original takes where a kind of logits is switched off."""
    return tuple(torch.full_like(row, 1 / row.shape[-1]) for row in rows)
