"""From architecture logits to a network: pure functions from `ArchParameters` to `Genotype`.

By default every branch is derived from the untouched logits, along the path that the logits
mean in the supernet. `original=True` repeats the derivation of the original code with its
oddities: the rates are derived one after the other on logits that each of them changes (the
edges are softmaxed once more, skips once refused stay refused), the way down to 1/16 starts a
layer early, and not every pair of layers can be chosen for 1/32.

In both, a cell whose best operator is skip is pruned; the tensor that entered it then enters the
next cell, whatever width that cell had been given for its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from fasterseg.arch.genotype import MAXIMUM_WIDTH, MINIMUM_WIDTH, Branch, Genotype, Rate
from fasterseg.arch.operators import CANDIDATES
from fasterseg.arch.space import SearchSpace, check_ops, check_widths
from fasterseg.errors import UsageError
from fasterseg.search.parameters import ArchParameters, Logits

RATES: Final[tuple[Rate, ...]] = (8, 16, 32)
"""Rate of each scale."""

Path = tuple[int, ...]
"""Scale of each layer, before pruning."""


def derive(
    parameters: ArchParameters,
    final_rate: Rate,
    *,
    widths: tuple[int, ...],
    ops: tuple[str, ...] = CANDIDATES,
    ignore_skip: bool = False,
    original: bool = False,
) -> Branch:
    """The branch that ends at a rate.

    Args:
        parameters: the logits; they are not changed.
        final_rate: 8, 16 or 32.
        widths: the candidates behind the columns of `parameters.ratio`, in twelfths. Logits of
            a single column mean the widest of them; in the original 12 with `ignore_skip`
            and 4 without.
        ops: the candidates behind the columns of `parameters.alpha`.
        ignore_skip: never choose skip; no cell is pruned then.
        original: repeat the original's derivation (see the module).

    Raises:
        ConfigError: `ops` or `widths` are no candidates.
        UsageError: they do not fit the logits, there is no such rate, or there are too few
            layers to reach it.
    """
    check_ops(ops)
    check_widths(widths)
    if len(ops) != parameters.num_ops:
        raise UsageError(f"{len(ops)} ops for logits of {parameters.num_ops} operators")
    if final_rate not in RATES:
        raise UsageError(f"final rate {final_rate} is not one of 8, 16, 32")
    choices = _Choices(ops, _width_choices(parameters, widths, ignore_skip, original), ignore_skip)
    scale = RATES.index(final_rate)
    if original:
        return _derive_in_sequence(parameters, scale, choices)
    path = likely_path(parameters, final_rate)
    branch, _ = _branch(parameters.alpha, parameters.ratio, path, choices)
    return branch


def likely_path(parameters: ArchParameters, final_rate: Rate) -> Path:
    """The path of the branch that ends at a rate.

    Raises:
        UsageError: there are too few layers to reach it.
    """
    beta = tuple(softmax(logits) for logits in parameters.beta)
    return _path(parameters.layers, _descents(beta, RATES.index(final_rate), original=False))


def derive_genotype(
    parameters: ArchParameters,
    final_rates: Sequence[Rate],
    space: SearchSpace,
    *,
    name: str = "searched",
    ignore_skip: bool = False,
    original: bool = False,
) -> Genotype:
    """The network with one derived branch for each final rate, in the given order.

    Args:
        parameters: the logits; they are not changed.
        final_rates: one of the sets of branches in `space.final_rates`.
        space: what the logits were learned over.
        name: the network's name.
        ignore_skip: see `derive`.
        original: see `derive`.

    Raises:
        UsageError: the space does not have this set of branches or this number of layers, or
            see `derive`.
    """
    if tuple(final_rates) not in space.final_rates:
        raise UsageError(f"branches {tuple(final_rates)} are not among {space.final_rates}")
    if parameters.layers != space.layers:
        raise UsageError(f"logits of {parameters.layers} layers, a space of {space.layers}")
    branches = tuple(
        derive(
            parameters,
            rate,
            widths=space.widths,
            ops=space.ops,
            ignore_skip=ignore_skip,
            original=original,
        )
        for rate in final_rates
    )
    return space.genotype(branches, name)


def softmax(logits: Logits) -> Logits:
    """Softmax over the last axis, in the logits' precision."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Logits = powers / powers.sum(axis=-1, keepdims=True)
    return result


@dataclass(frozen=True, slots=True)
class _Choices:
    """What the columns of the logits stand for."""

    ops: tuple[str, ...]
    widths: tuple[int, ...]
    ignore_skip: bool

    @property
    def skip(self) -> int | None:
        """Column of skip."""
        return self.ops.index("skip") if "skip" in self.ops else None


def _width_choices(
    parameters: ArchParameters, widths: tuple[int, ...], ignore_skip: bool, original: bool
) -> tuple[int, ...]:
    columns = parameters.num_widths
    if columns == 1 and original:
        return (MAXIMUM_WIDTH if ignore_skip else MINIMUM_WIDTH,)
    if columns == 1:
        return widths[-1:]
    if columns != len(widths):
        raise UsageError(f"{len(widths)} widths do not fit logits of {columns} widths")
    return widths


def _derive_in_sequence(parameters: ArchParameters, scale: int, choices: _Choices) -> Branch:
    """Derive 8, 16, 32 up to the scale, each from what the one before left of the logits."""
    alpha, beta = parameters.alpha, parameters.beta
    branches = []
    for last in range(scale + 1):
        beta = tuple(softmax(logits) for logits in beta)
        path = _path(parameters.layers, _descents(beta, last, original=True))
        branch, alpha = _branch(alpha, parameters.ratio, path, choices)
        branches.append(branch)
    return branches[-1]


def _path(layers: int, descents: Sequence[int]) -> Path:
    """Scale of each layer when the cells of the layers in `descents` are strided."""
    return tuple(sum(descent < layer for descent in descents) for layer in range(layers))


def _descents(beta: Sequence[Logits], scale: int, original: bool) -> tuple[int, ...]:
    """Layers whose cells are strided, for softmaxed edges.

    Row b of scale j weighs the edge into layer b + j + 1, so the strided cell is in layer b + j.

    Raises:
        UsageError: there are too few layers to reach the scale.
    """
    if scale == 0:
        return ()
    if scale == 1:
        # The first and the last row are no choice, as in the original (unlike for 1/32).
        down = beta[0][1:-1, 0]
        if down.size == 0:
            raise UsageError("too few layers for a branch at 1/16; it takes at least 5")
        row = 1 + int(down.argmax())
        return (row if original else row + 1,)
    first, second = _best_pair(beta, original)
    return (first + 1, second + 2)


def _best_pair(beta: Sequence[Logits], original: bool) -> tuple[int, int]:
    """Rows of scale 1 and 2 with the most probable edges down; the earliest of equals."""
    product = np.outer(beta[0][:, 0], beta[1][:, 0])
    first, second = np.indices(product.shape)
    if original:
        legal = (first >= 1) & (first <= second - 2) & (second < len(beta[1]) - 1)
    else:
        legal = first <= second
    if not legal.any():
        raise UsageError("too few layers for a branch at 1/32; it takes at least 4 (original: 8)")
    best = int(np.where(legal, product, -1).argmax())
    return int(first.flat[best]), int(second.flat[best])


def _branch(
    alpha: Sequence[Logits], ratio: Sequence[Logits], path: Path, choices: _Choices
) -> tuple[Branch, tuple[Logits, ...]]:
    """The pruned branch along a path, and the operator logits with the skips it refused."""
    alpha = tuple(logits.copy() for logits in alpha)
    cells = [alpha[scale][layer - scale] for layer, scale in enumerate(path)]  # views: writable
    kept = list(range(len(path)))
    if choices.skip is not None:
        kept = keep_layers(cells, path, choices.skip, choices.ignore_skip)
    branch = Branch(
        ops=tuple(choices.ops[cells[layer].argmax()] for layer in kept),
        strides=tuple(RATES[path[layer]] for layer in kept),
        widths=tuple(
            choices.widths[_entering(ratio, path, layer + 1).argmax()] for layer in kept[:-1]
        ),
    )
    return branch, alpha


def _entering(ratio: Sequence[Logits], path: Path, layer: int) -> Logits:
    """Width logits of the tensor that enters a layer, which is not the first."""
    scale = path[layer]
    row: Logits = ratio[scale][layer - max(scale, 1)]
    return row


def keep_layers(cells: Sequence[Logits], path: Path, skip: int, ignore_skip: bool) -> list[int]:
    """Layers of a path that are not pruned.

    Args:
        cells: operator logits of each layer's cell. Where one of these layers would have been a
            skip, its skip is refused: set to minus infinity.
        path: scale of each layer.
        skip: column of skip.
        ignore_skip: refuse every skip.
    """
    if ignore_skip:
        for cell in cells:
            cell[skip] = -np.inf
    prunable = _prunable(cells, path, skip)
    _protect_scales(cells, path, skip, prunable)
    # A third of the layers and two for each further scale stay, the least certain skips first.
    minimum = round(len(path) / 3) + 2 * path[-1]
    by_certainty = sorted(prunable, key=lambda layer: prunable[layer], reverse=True)
    pruned = set(by_certainty[: max(0, len(path) - minimum)])
    kept = []
    for layer, cell in enumerate(cells):
        if cell.argmax() == skip:
            if layer in pruned:
                continue
            cell[skip] = -np.inf
        kept.append(layer)
    return kept


def _prunable(cells: Sequence[Logits], path: Path, skip: int) -> dict[int, float]:
    """Layers of stride 1 whose best operator is skip -> its probability."""
    following = (*path[1:], path[-1])
    return {
        layer: float(softmax(cell)[skip])
        for layer, cell in enumerate(cells)
        if cell.argmax() == skip and path[layer] == following[layer]
    }


def _protect_scales(
    cells: Sequence[Logits], path: Path, skip: int, prunable: dict[int, float]
) -> None:
    """Where all cells behind a strided one would be pruned, refuse the least probable skip."""
    strided = [layer for layer in range(len(path) - 1) if path[layer] < path[layer + 1]]
    for start, end in pairwise([*strided, len(path)]):
        behind = range(start + 1, end)
        if behind and all(layer in prunable for layer in behind):
            weakest = min(reversed(behind), key=lambda layer: prunable[layer])
            cells[weakest][skip] = -np.inf
