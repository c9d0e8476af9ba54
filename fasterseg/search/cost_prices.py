"""Prices of every operator that a derived network can hold, as tensors over widths.

Prices are calibrated, so that those of a network's nodes add up to `LatencyTable.price`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import product
from typing import Final

import torch

from fasterseg.arch.genotype import Branch, Genotype, Rate
from fasterseg.arch.latency import Calibration, LatencyTable
from fasterseg.arch.operators import OpSpec, Stride
from fasterseg.arch.plan import plan
from fasterseg.arch.space import SearchSpace
from fasterseg.errors import MissingLatencyError, UsageError
from fasterseg.search.derive import RATES

DIVISOR: Final = 32
"""Of other sizes the coarser maps depend on the operators that made them."""


class Prices:
    """Calibrated milliseconds of nodes.

    A tensor that enters a cell is in one of W + 1 states: a width of the space, or the stem's
    output. One that leaves it is of a width, or the head's, behind the last cell.

    Args:
        space: its first stem and head width are the network's.
        table: with a row for every operator.
        allow_upsample_mismatch: see `LatencyTable.price`.

    Attributes:
        keep: (3, K, W + 1, W + 1) by scale, operator, state before and behind; of stride 1. Skip
            is free, for it is pruned.
        down: (2, K, W + 1, W) by scale, operator, state before, width behind; of stride 2.
        fuse: (2, W + 1) of the merge that reads the map before a strided cell, by its state.

    Raises:
        UsageError: the table's size does not divide by 32, or its resampling is not the network's.
        MissingLatencyError: rows are missing.
    """

    def __init__(
        self, space: SearchSpace, table: LatencyTable, allow_upsample_mismatch: bool = False
    ) -> None:
        if table.size.height % DIVISOR or table.size.width % DIVISOR:
            raise UsageError(
                f"{table.path} is for {table.size} (HxW): an expected latency needs sides that "
                f"divide by {DIVISOR}, or maps at 1/16 have no one size. Measure a table for such "
                'a size, or search with method = "evolve"'
            )
        self.space = space
        self.table = table
        self._finals = {RATES.index(rate) for rates in space.final_rates for rate in rates}
        self._fit = table.calibration or Calibration(1.0, 0.0, 0.0)
        specs = {spec for row in self._layout() for spec in row if spec is not None}
        _refuse_missing(table, specs)
        table.price(
            plan(_shortest(space, space.final_rates[0]), table.size), allow_upsample_mismatch
        )
        keep, down, fuse = (
            torch.tensor(
                [0.0 if spec is None else self.of(spec) for spec in row], dtype=torch.float64
            )
            for row in self._layout()
        )
        ops, states = len(space.ops), len(space.widths) + 1
        self.keep = keep.view(3, ops, states, states)
        self.down = down.view(2, ops, states, states - 1)
        self.fuse = fuse.view(2, states)

    def of(self, spec: OpSpec) -> float:
        """Milliseconds that one node adds to a network."""
        if spec.op in self.table.unpriced:
            return 0.0
        return self._fit.scale * self.table[spec] + self._fit.per_op_ms

    def fixed(self, final_rates: Sequence[Rate]) -> float:
        """Milliseconds of all that does not depend on the search: neither cells nor fusions.

        Raises:
            MissingLatencyError: rows are missing.
        """
        nodes = plan(_shortest(self.space, final_rates), self.table.size).nodes
        specs = [node.spec for node in nodes if not node.role.startswith(("cell.", "fuse."))]
        _refuse_missing(self.table, specs)
        return math.fsum(self.of(spec) for spec in specs) + self._fit.offset_ms

    def _layout(self) -> tuple[list[OpSpec | None], list[OpSpec | None], list[OpSpec | None]]:
        """What the entries of `keep`, `down` and `fuse` are the prices of."""
        space, head = self.space, self.space.head_widths[0]
        states = range(len(space.widths) + 1)
        keep = [
            self._cell(op, scale, into, 1, end)
            for scale, op, into in product(range(3), space.ops, states)
            # Only at a final scale is there a last cell.
            for end in (*space.widths, head if scale in self._finals else None)
        ]
        down = [
            self._cell(op, scale, into, 2, end)
            for scale, op, into in product(range(2), space.ops, states)
            for end in space.widths
        ]
        fuse = [self._fusion(scale, into) for scale, into in product(range(2), states)]
        return keep, down, fuse

    def _channels(self, scale: int, state: int) -> int | None:
        """Channels before a cell; None for the stem's output at a coarser scale."""
        if state < len(self.space.widths):
            return RATES[scale] * self.space.widths[state]
        return 8 * self.space.stem_widths[0] if scale == 0 else None

    def _cell(
        self, op: str, scale: int, state: int, stride: Stride, width: int | None
    ) -> OpSpec | None:
        channels = self._channels(scale, state)
        if op == "skip" or channels is None or width is None:
            return None
        if scale + stride - 1 > max(self._finals):
            return None
        height, columns = self.table.size
        rate = RATES[scale]
        out = rate * stride * width
        return OpSpec(op, channels, out, stride, height // rate, columns // rate)

    def _fusion(self, scale: int, state: int) -> OpSpec | None:
        channels = self._channels(scale, state)
        if channels is None or scale >= max(self._finals):
            return None
        height, columns = self.table.size
        rate = RATES[scale]
        squeezed = rate * self.space.head_widths[0]
        return OpSpec("fuse", squeezed + channels, squeezed, 1, height // rate, columns // rate)


def _shortest(space: SearchSpace, final_rates: Sequence[Rate]) -> Genotype:
    """A network with these branches, each as short as can be."""
    op = next(op for op in space.ops if op != "skip")
    strides = {rate: RATES[: RATES.index(rate) + 1] for rate in final_rates}
    branches = tuple(
        Branch(
            (op,) * len(strides[rate]), strides[rate], space.widths[:1] * (len(strides[rate]) - 1)
        )
        for rate in final_rates
    )
    return space.genotype(branches)


def _refuse_missing(table: LatencyTable, specs: Collection[OpSpec]) -> None:
    if missing := sorted(spec.key() for spec in table.missing(specs)):
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise MissingLatencyError(
            f"{table.path} has no row for {shown} ({len(missing)} of {len(specs)} operators of "
            "the space missing). Measure them on this device: fasterseg-bench ops --table "
            f"{table.path} --missing-only"
        )
