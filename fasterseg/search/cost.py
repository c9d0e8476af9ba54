"""`ExpectedLatency`: what the network that logits stand for costs, differentiable in the logits.

The price of a derived network is a sum over its nodes (`LatencyTable.price`), so its expectation
is one over the choices that `derive` makes: the path of every branch, the operator of every cell,
the width of every tensor. Where all choices are certain it is the price of the derived network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fasterseg.arch.genotype import Rate
from fasterseg.arch.latency import LatencyTable
from fasterseg.arch.space import SearchSpace
from fasterseg.errors import UsageError
from fasterseg.search.cost_paths import Paths, common_cells
from fasterseg.search.cost_prices import Prices
from fasterseg.search.cost_pruning import Pruned, Pruning, Step, coincidences
from fasterseg.search.mixture_logits import without


@dataclass(frozen=True, slots=True)
class _Choices:
    """Probabilities and prices by place; a place is a cell together with its stride.

    Attributes:
        skip: (2 * places,) probability of skip: first as it is, then refused (0).
        width: (2 * places, W) of the tensor behind.
        before: (2 * places, W + 1) expected ms by the state before, where a cell follows.
        last: the same of the last cell, whose output has the head's width.
    """

    skip: Tensor
    width: Tensor
    before: Tensor
    last: Tensor


@dataclass(frozen=True, slots=True)
class _Walk:
    """The paths of one final rate, weighed.

    Attributes:
        weights: (P,) probability of each path.
        ms: (P,) expected price of the cells and fusions of each.
        own: (P, L) expected price of each layer's cell, if it is not the last one.
        follows: (P, L) probability that a cell is kept behind this layer.
        skip: (P, L) probability of skip if it is not refused.
        refused: (P, L) bool.
    """

    weights: Tensor
    ms: Tensor
    own: Tensor
    follows: Tensor
    skip: Tensor
    refused: Tensor


class ExpectedLatency:
    """Expected milliseconds of the networks of a space.

    What the expectation assumes: the choices are independent, given the logits. A path is as
    likely as the score that `derive` ranks it by. A skip of stride 1 costs nothing, and the map
    before it enters the next cell. Skips that `derive` would refuse at these logits (in strided
    cells, where a scale would lose all its cells, or the path become too short) are refused for
    certain; elsewhere they keep their probability. So the function jumps where that rule changes
    its mind, and is smooth everywhere else. Branches share cells as long as their paths and skips
    agree; cells that coincide behind the point where only one of them refused a skip count for
    the most likely choices only.

    Args:
        space: its first stem and head width are the network's.
        table: with a row for every operator; calibrated prices if it is.
        final_rates: sets of branches to price, of those of the space; None: all.
        ignore_skip: no cell is pruned; see `derive`.
        allow_upsample_mismatch: see `LatencyTable.price`.

    Raises:
        UsageError: the table does not fit (see `Prices`), a set is not of the space or repeats
            a rate, or there are too few layers.
        MissingLatencyError: rows are missing.
    """

    def __init__(
        self,
        space: SearchSpace,
        table: LatencyTable,
        final_rates: Sequence[tuple[Rate, ...]] | None = None,
        *,
        ignore_skip: bool = False,
        allow_upsample_mismatch: bool = False,
    ) -> None:
        self.sets = tuple(final_rates or space.final_rates)
        for rates in self.sets:
            if rates not in space.final_rates:
                raise UsageError(f"branches {rates} are not among {space.final_rates}")
            if len(set(rates)) < len(rates):
                raise UsageError(f"the set of branches {rates} repeats a rate")
        self.space = space
        self.prices = Prices(space, table, allow_upsample_mismatch)
        self._fixed = [self.prices.fixed(rates) for rates in self.sets]
        self._skip = space.ops.index("skip") if "skip" in space.ops else None
        wanted = sorted({rate for rates in self.sets for rate in rates})
        self._paths = {rate: Paths(space.layers, rate) for rate in wanted}
        self._pruning = Pruning(self._paths, self._skip, ignore_skip)
        self._common = {
            pair: common_cells(self._paths[pair[0]], self._paths[pair[1]])
            for rates in self.sets
            for pair in combinations(rates, 2)
        }
        self._lay_out()

    def _lay_out(self) -> None:
        """Where everything lies that only depends on the space."""
        layers, prices = self.space.layers, self.prices
        cells = [(layer, scale) for scale in range(3) for layer in range(scale, layers)]
        keep = [(cell, scale, scale) for cell, (_, scale) in enumerate(cells)]
        down = [
            (cell, scale, scale + 1)
            for cell, (layer, scale) in enumerate(cells)
            if scale < 2 and layer < layers - 1
        ]
        places = [*keep, *down]
        self._cell = torch.tensor([cell for cell, _, _ in places])
        self._leaving = torch.tensor([self._row(cells[cell][0] + 1, to) for cell, _, to in places])
        no_end = torch.zeros(*prices.down.shape[1:-1], 1, dtype=torch.float64)
        self._ms = torch.stack(
            [
                prices.keep[scale] if to == scale else torch.cat([prices.down[scale], no_end], -1)
                for _, scale, to in places
            ]
        )
        index = {(*cells[cell], to): place for place, (cell, _, to) in enumerate(places)}
        paths = [
            list(zip(path, stride, strict=True))
            for one in self._paths.values()
            for path, stride in zip(one.scales.tolist(), one.strided.tolist(), strict=True)
        ]
        self._place = torch.tensor(
            [
                [
                    index[layer, scale, scale + strided]
                    for layer, (scale, strided) in enumerate(path)
                ]
                for path in paths
            ]
        )
        self._fusions = torch.stack(
            [
                torch.stack([strided * prices.fuse[min(scale, 1)] for scale, strided in path])
                for path in paths
            ]
        )

    def _row(self, layer: int, scale: int) -> int:
        """Row, over all scales, of the width logits of what enters a cell; any behind the last."""
        layers = self.space.layers
        if layer == layers:
            return 0
        return (layers - 1) * scale + layer - max(scale, 1)

    def __call__(
        self, alpha: Sequence[Tensor], beta: Sequence[Tensor], ratio: Sequence[Tensor]
    ) -> Tensor:
        """Expected milliseconds of every set of branches.

        Args:
            alpha: operator logits per scale, shaped as in `ArchParameters`.
            beta: edge logits of scale 1 and 2.
            ratio: width logits per scale; a single column stands for the widest width.

        Returns:
            (sets,) float64 on the CPU.
        """
        alpha, beta, ratio = ([rows.double().cpu() for rows in one] for one in (alpha, beta, ratio))
        pruned = self._pruning([rows.detach().numpy() for rows in alpha])
        choices = self._choices(torch.cat(alpha), torch.cat(ratio))
        walks = self._walks(beta, choices, pruned)
        totals = [
            self._of_set(rates, walks, fixed) - self._chance(rates, walks, pruned, alpha, ratio)
            for rates, fixed in zip(self.sets, self._fixed, strict=True)
        ]
        return torch.stack(totals)

    def _choices(self, alpha: Tensor, ratio: Tensor) -> _Choices:
        widths = len(self.space.widths)
        if ratio.shape[1] == 1:
            ratio = functional.pad(ratio, (widths - 1, 0), value=-torch.inf)
        width = functional.softmax(ratio, dim=-1)[self._leaving]
        p = functional.softmax(alpha, dim=-1)
        skip, refusing = torch.zeros_like(p[:, 0]), p
        if self._skip is not None:
            skip, refusing = p[:, self._skip], functional.softmax(without(alpha, self._skip), -1)
        ops = torch.cat([p[self._cell], refusing[self._cell]])
        ms = torch.einsum("pw,pkaw->pka", width, self._ms[..., :widths]).repeat(2, 1, 1)
        end = self._ms[..., widths].repeat(2, 1, 1)
        return _Choices(
            skip=torch.cat([skip[self._cell], torch.zeros(len(self._cell), dtype=skip.dtype)]),
            width=width.repeat(2, 1),
            before=torch.einsum("pk,pka->pa", ops, ms),
            last=torch.einsum("pk,pka->pa", ops, end),
        )

    def _walks(
        self, beta: Sequence[Tensor], choices: _Choices, pruned: Mapping[Rate, Pruned]
    ) -> dict[Rate, _Walk]:
        """Expected prices along the paths of every rate."""
        # All rates at once: what takes time is the number of operations, not their size.
        refused = torch.from_numpy(np.concatenate([pruned[rate].refused for rate in self._paths]))
        at = self._place + len(self._cell) * refused
        skip, width = choices.skip[at], choices.width[at]
        before, last = choices.before[at], choices.last[at]
        ends = skip.flip(1).cumprod(1).flip(1)[:, 1:]
        ends = functional.pad(ends, (0, 1), value=1.0)
        cost = torch.lerp(before, last, ends[..., None]) + self._fusions
        ms = self._backwards(skip, width, cost)
        own = (self._states(skip, width) * before).sum(-1)
        of_rate = zip(
            *(
                torch.split(one, [len(paths.scales) for paths in self._paths.values()])
                for one in (ms, own, 1 - ends, choices.skip[self._place], refused)
            ),
            strict=True,
        )
        return {
            rate: _Walk(self._paths[rate].weights(beta), *parts)
            for rate, parts in zip(self._paths, of_rate, strict=True)
        }

    def _backwards(self, skip: Tensor, width: Tensor, cost: Tensor) -> Tensor:
        """(P,) expected price from the stem on, gathered from the last layer to the first."""
        value = torch.zeros_like(cost[:, 0])
        layers = zip(skip[..., None].unbind(1), width.unbind(1), cost.unbind(1), strict=True)
        for stays, widths, own in reversed(list(layers)):
            behind = (widths * value[:, :-1]).sum(-1, keepdim=True)
            value = own + torch.lerp(behind, value, stays)
        return value[:, -1]

    def _states(self, skip: Tensor, width: Tensor) -> Tensor:
        """(P, L, W + 1) probability of each state before the cells of a path."""
        state = torch.zeros(len(skip), width.shape[-1] + 1, dtype=skip.dtype)
        state[:, -1] = 1
        states = [state]
        left = functional.pad(width, (0, 1)).unbind(1)
        for stays, widths in zip(skip[..., None].unbind(1)[:-1], left[:-1], strict=True):
            states.append(torch.lerp(widths, states[-1], stays))
        return torch.stack(states, dim=1)

    def _of_set(self, rates: tuple[Rate, ...], walks: Mapping[Rate, _Walk], fixed: float) -> Tensor:
        """Prices of the branches, less what they share."""
        total = torch.tensor(fixed, dtype=torch.float64)
        for rate in rates:
            total = total + walks[rate].weights @ walks[rate].ms
        shared = {
            pair: self._agreement(walks[pair[0]], walks[pair[1]], self._common[pair])
            for pair in combinations(rates, 2)
        }
        for (rate, _), with_other in shared.items():
            total = total - (self._weighed(walks[rate]) * with_other).sum()
        if len(rates) == 3:
            both = shared[rates[0], rates[1]] * shared[rates[0], rates[2]]
            total = total + (self._weighed(walks[rates[0]]) * both).sum()
        return total

    def _weighed(self, walk: _Walk) -> Tensor:
        """(P, L) expected price of the cells that may be shared."""
        return walk.weights[:, None] * walk.own * walk.follows

    def _agreement(self, one: _Walk, other: _Walk, common: Tensor) -> Tensor:
        """(P, L) how likely the other rate's branch has the cells up to a layer in common."""
        agree = common * (other.weights[:, None] * other.follows)[None]
        differ = (one.refused[:, None] != other.refused[None]) & (common > 0)
        if differ.any():
            # Where only one branch refuses a skip, they go on together if it was none anyway.
            kept = torch.where(differ, 1 - one.skip[:, None], 1.0)
            earlier = functional.pad(kept, (1, -1), value=1.0).cumprod(-1)
            here = torch.where(differ & one.refused[:, None], kept, 1.0)
            agree = agree * earlier * here
        return agree.sum(1)

    def _chance(
        self,
        rates: tuple[Rate, ...],
        walks: Mapping[Rate, _Walk],
        pruned: Mapping[Rate, Pruned],
        alpha: Sequence[Tensor],
        ratio: Sequence[Tensor],
    ) -> Tensor:
        """Price of what the most likely branches share by coincidence, see the class."""
        likely = {rate: int(walks[rate].weights.detach().argmax()) for rate in rates}
        kept = {rate: pruned[rate].kept[likely[rate]] for rate in rates}
        if all(a == b for x, y in combinations(kept.values(), 2) for a, b in zip(x, y)):  # noqa: B905
            return torch.zeros((), dtype=torch.float64)
        steps = {rate: self._steps(rate, likely[rate], kept[rate], alpha, ratio) for rate in rates}
        ms = 0.0
        for found in coincidences([(kept[rate], steps[rate]) for rate in rates]):
            op, scale, to, width = found[-1]
            state = found[-2][-1] if len(found) > 1 else len(self.space.widths)
            prices = self.prices.keep if to == scale else self.prices.down
            ms += float(prices[scale, op, state, width])
        return ms * torch.stack([walks[rate].weights[likely[rate]] for rate in rates]).prod()

    def _steps(
        self,
        rate: Rate,
        path: int,
        kept: Sequence[int],
        alpha: Sequence[Tensor],
        ratio: Sequence[Tensor],
    ) -> list[Step]:
        """The most likely choices in the cells that are kept, but for the last."""
        scales = self._paths[rate].scales[path].tolist()
        widths = torch.cat(list(ratio))
        steps = []
        for layer in kept[:-1]:
            scale, to = scales[layer], scales[layer + 1]
            ops = alpha[scale][layer - scale]
            ops = ops if self._skip is None else without(ops, self._skip)
            width = widths[self._row(layer + 1, to)].argmax() if widths.shape[1] > 1 else -1
            steps.append((int(ops.argmax()), scale, to, int(width) % len(self.space.widths)))
        return steps
