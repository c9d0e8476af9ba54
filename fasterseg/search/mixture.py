"""`Mixture`: the paper's supernet, in which every choice of the search is a weighted sum.

Cells lie on a grid of layers and scales and serve two searched networks at once, the teacher and
the student; stem, merges and heads are each network's own (FasterSeg, ICLR 2020, section 3).

By default it is the relaxation of the network that `derive_genotype` makes of its logits: merges
read the maps that enter the strided cells, at their widths; every set of branches has its own FFM
and head; skip passes a map on unchanged, and strided cells do not choose it. `original=True` has
the structure of the original: merges read the last finer maps, heads read joined maps without an
FFM, and skip is always a convolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal, cast, get_args

from torch import Tensor, nn

from fasterseg.arch.genotype import MAXIMUM_WIDTH, Rate
from fasterseg.arch.space import SearchSpace
from fasterseg.errors import ConfigError
from fasterseg.nn.blocks import resize
from fasterseg.search.derive import RATES
from fasterseg.search.mixture_cells import Cell, MixedOp, OwnParts, fitted
from fasterseg.search.mixture_logits import ArchLogits, Relaxed, tap_weights
from fasterseg.search.mixture_widths import Widths, chosen_widths

Kind = Literal["teacher", "student"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

Edges = list[tuple[Tensor | None, Tensor]]
"""Maps that enter a cell, each with its share; None is all of it."""

DIVISOR: Final = 32
"""Operators round maps of other sizes differently, so that they could not be summed."""

_ORIGINAL_SETS: Final[tuple[tuple[Rate, ...], ...]] = ((8,), (16,), (32,), (8, 32), (16, 32))


def teacher_space(space: SearchSpace) -> SearchSpace:
    """The teacher's part of a space: its widest cells, and stem, merges and heads at full width."""
    full = (MAXIMUM_WIDTH,)
    return replace(space, widths=space.widths[-1:], stem_widths=full, head_widths=full)


def student_space(space: SearchSpace) -> SearchSpace:
    """The student's part of a space: stem and merges have one width here, the first."""
    return replace(space, stem_widths=space.stem_widths[:1], head_widths=space.head_widths[:1])


def set_name(rates: Sequence[int]) -> str:
    """Name of the prediction of some branches: "8", "16_32"."""
    return "_".join(str(rate) for rate in sorted(rates))


def prediction_sets(space: SearchSpace, original: bool) -> dict[str, tuple[Rate, ...]]:
    """Name of each prediction -> the final rates joined in it, in branch order."""
    if original:
        return {set_name(rates): rates for rates in _ORIGINAL_SETS}
    single: set[tuple[Rate, ...]] = {(rate,) for rates in space.final_rates for rate in rates}
    ordered = sorted(single | set(space.final_rates), key=lambda rates: (len(rates), sorted(rates)))
    return {set_name(rates): rates for rates in ordered}


class Mixture(nn.Module):
    """The supernet; see the module.

    Args:
        space: what is searched; its first stem and head width are the student's.
        original: the structure of the original.

    Attributes:
        sets: name of each prediction -> the final rates joined in it, in branch order.
        scales: how many scales the grid has.
        own: stem, merges and heads by kind.
        logits: architecture tensors by kind.
    """

    def __init__(self, space: SearchSpace, original: bool = False) -> None:
        super().__init__()
        self.space = space
        self.original = original
        self.sets = prediction_sets(space, original)
        self.scales = 1 + max(RATES.index(rate) for rates in self.sets.values() for rate in rates)
        spaces = {"teacher": teacher_space(space), "student": student_space(space)}
        heads = {one.head_widths[0] for one in spaces.values()}
        self.cells = nn.ModuleList(
            nn.ModuleList(self._cells(layer, heads)) for layer in range(space.layers)
        )
        self.own = nn.ModuleDict(
            {kind: OwnParts(one, self.sets, original) for kind, one in spaces.items()}
        )
        self.logits = nn.ModuleDict(
            {
                kind: ArchLogits(space.layers, len(space.ops), len(one.widths))
                for kind, one in spaces.items()
            }
        )

    def _cells(self, layer: int, heads: set[int]) -> list[Cell]:
        """The cells of a layer, one for each scale that is reached."""
        is_last = layer == self.space.layers - 1
        widths = sorted({*self.space.widths, *heads}) if is_last else self.space.widths
        return [
            Cell(
                self.space.ops, scale, widths,
                goes_down=not is_last and scale < self.scales - 1, original=self.original,
            )
            for scale in range(min(layer + 1, self.scales))
        ]  # fmt: skip

    @property
    def refused(self) -> int | None:
        """Column of the operator that strided cells do not choose; None where they may all."""
        ops = self.space.ops
        return ops.index("skip") if "skip" in ops and not self.original else None

    def widths_of(self, kind: Kind) -> tuple[int, ...]:
        """Candidate widths of cells, in twelfths; the teacher's are the widest."""
        return self.space.widths[-1:] if kind == "teacher" else self.space.widths

    def cell(self, layer: int, scale: int) -> Cell:
        """A place of the grid."""
        return cast("Cell", cast("nn.ModuleList", self.cells[layer])[scale])

    def parts(self, kind: Kind) -> OwnParts:
        """Stem, merges and heads of the teacher or the student."""
        return cast("OwnParts", self.own[kind])

    def arch(self, kind: Kind) -> ArchLogits:
        """Architecture tensors of the teacher or the student."""
        return cast("ArchLogits", self.logits[kind])

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the student's first set of branches at its most likely widths.

        Args:
            x: (N, 3, H, W) normalised RGB; brought to sides that divide by 32 inside.

        Returns:
            (N, classes, H, W) float.
        """
        size = x.shape[2:]
        fit = resize(x, *(DIVISOR * max(2, round(side / DIVISOR)) for side in size))
        arch = self.arch("student")
        widths = chosen_widths(tuple(arch.ratio), self.space.widths)
        predictions = self.predictions(fit, "student", arch.relaxed(self.refused), widths)
        logits = predictions[set_name(self.space.final_rates[0])]
        return resize(logits, *size)

    def predictions(
        self, x: Tensor, kind: Kind, relaxed: Relaxed, widths: Widths
    ) -> dict[str, Tensor]:
        """All predictions of one network, from one pass.

        Args:
            x: (N, 3, H, W) normalised RGB, H and W divisible by 32.
            kind: whose stem, merges and heads.
            relaxed: probabilities of operators and edges.
            widths: of the tensors between cells.

        Returns:
            Name of the prediction -> (N, classes, H / 8, W / 8) logits.

        Raises:
            ConfigError: the height or width does not divide by 32.
        """
        if x.shape[2] % DIVISOR or x.shape[3] % DIVISOR:
            raise ConfigError(
                f"pictures of {x.shape[2]}x{x.shape[3]} (HxW): both sides must divide by {DIVISOR} "
                "in this supernet, which sums maps of operators that round differently"
            )
        own = self.parts(kind)
        grid = _Pass(self, own, relaxed, widths)
        last = grid.run(own.stem(x))
        merged = {
            rate: own.merged(rate, last[scale], grid.taps(scale))
            for scale, rate in enumerate(RATES)
            if any(rate in rates for rates in self.sets.values())
        }
        return {
            name: own.predict(name, [merged[rate] for rate in rates])
            for name, rates in self.sets.items()
        }


class _Pass:
    """One forward pass over the grid.

    Args:
        net: the supernet.
        own: stem, merges and heads that are used.
        relaxed: probabilities of operators and edges.
        widths: of the tensors between cells.
    """

    def __init__(self, net: Mixture, own: OwnParts, relaxed: Relaxed, widths: Widths) -> None:
        self.net = net
        self.own = own
        self.relaxed = relaxed
        self.widths = widths
        self._entering: dict[tuple[int, int], Tensor] = {}
        self._last: dict[int, Tensor] = {}

    def run(self, stem: Tensor) -> dict[int, Tensor]:
        """Scale -> the map behind the last layer; every edge runs through its cell by itself."""
        keeps: dict[int, Tensor] = {}
        downs: dict[int, Tensor] = {}
        for layer in range(self.net.space.layers):
            edges: list[Edges] = [
                self._edges(layer, scale, keeps, downs) if layer else [(None, stem)]
                for scale in range(min(layer + 1, self.net.scales))
            ]
            keeps, downs = {}, {}
            for scale, into in enumerate(edges):
                self._entering[layer, scale] = _blended(into)
                cell, row = self.net.cell(layer, scale), layer - scale
                weights = self.relaxed.alpha[scale][row]
                keeps[scale] = self._through(cell.keep, weights, into, layer, (scale, scale))
                if cell.down is not None:
                    weights = self.relaxed.strided[scale][row]
                    downs[scale] = self._through(
                        cell.down, weights, into, layer, (scale, scale + 1)
                    )
        self._last = keeps
        return keeps

    def _edges(
        self, layer: int, scale: int, keeps: Mapping[int, Tensor], downs: Mapping[int, Tensor]
    ) -> Edges:
        if scale == 0:
            return [(None, keeps[0])]
        if layer == scale:
            return [(None, downs[scale - 1])]
        down, keep = self.relaxed.beta[scale - 1][layer - scale - 1].unbind()
        return [(down, downs[scale - 1]), (keep, keeps[scale])]

    def _through(
        self, mixed: MixedOp, weights: Tensor, edges: Edges, layer: int, scales: tuple[int, int]
    ) -> Tensor:
        """Each edge through an operator that leads from one scale to another; blended behind it."""
        scale, to = scales
        width, leaving = self.own.head_width, None
        if layer < self.net.space.layers - 1:
            width = self.widths.entering(layer + 1, to)
            leaving = self.widths.factor(layer + 1, to)
        for factor in (self.widths.factor(layer, scale), leaving):
            weights = weights if factor is None else weights * factor
        return _blended([(share, mixed(x, weights, width)) for share, x in edges])

    def taps(self, final: int) -> dict[int, Tensor]:
        """Rate -> the finer map that the merge of the branch ending at a scale reads there."""
        if self.net.original:
            return {RATES[scale]: self._last[scale] for scale in range(final)}
        weighed = tap_weights(self.relaxed.beta, self.net.space.layers, final)
        return {
            RATES[scale]: _blended(
                [
                    (share, fitted(self._entering[layer, scale], MAXIMUM_WIDTH * RATES[scale]))
                    for layer, share in shares.items()
                ]
            )
            for scale, shares in weighed.items()
        }


def _blended(edges: Edges) -> Tensor:
    """Maps by their shares."""
    maps = [x if share is None else share * x for share, x in edges]
    return sum(maps[1:], maps[0])
