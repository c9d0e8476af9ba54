"""`SearchSpace`: what a search may choose from, and every operator such a network can hold.

How cells connect is not written down a second time here: a few genotypes that hold every
combination between them are planned, and the operators of their nodes collected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

from fasterseg.arch.genotype import Branch, Genotype, Rate, check_width
from fasterseg.arch.operators import CANDIDATES, OpSpec
from fasterseg.arch.plan import Plan, plan
from fasterseg.errors import ConfigError, UsageError
from fasterseg.types import Size

WIDTHS: Final = (4, 6, 8, 10, 12)
"""The widths of the paper, in twelfths."""

MINIMUM_LAYERS: Final = 3
"""One layer for each of the rates 1/8, 1/16 and 1/32."""

_LONG: Final[Mapping[Rate, tuple[Rate, ...]]] = {
    8: (8, 8, 8),
    16: (8, 8, 8, 16, 16),
    32: (8, 8, 8, 16, 16, 32, 32),
}
"""Final rate -> strides of a path with cells of stride 1 at every rate."""

_SHORT: Final[Mapping[Rate, tuple[Rate, ...]]] = {8: (8,), 16: (8, 16), 32: (8, 16, 32)}
"""Final rate -> strides of the shortest path: its first map at 1/8 is the stem's."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An operator with the maps it reads, which its key does not tell.

    Attributes:
        spec: the operator.
        sources: (channels, size) of each map it reads, in order; none for the input.
    """

    spec: OpSpec
    sources: tuple[tuple[int, Size], ...]


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The networks a search chooses from (FasterSeg, ICLR 2020, section 3).

    Attributes:
        layers: cells of a path before any are pruned, at least 3.
        ops: candidates of every cell, in the order of the operator logits.
        widths: candidates for the channels between cells, in twelfths (4 to 12), ascending.
        stem_widths: candidates for the stem, in twelfths, ascending; the paper's student has 8.
        head_widths: candidates for merges and heads, in twelfths, ascending.
        final_rates: the sets of branches a network may have, in branch order; a branch is named
            by the down-sampling rate of its last map.
        num_classes: classes of the head.

    Raises:
        ConfigError: a value is out of range, listed twice or missing.
    """

    layers: int = 16
    ops: tuple[str, ...] = CANDIDATES
    widths: tuple[int, ...] = WIDTHS
    stem_widths: tuple[int, ...] = (8,)
    head_widths: tuple[int, ...] = (8,)
    final_rates: tuple[tuple[Rate, ...], ...] = ((32, 16), (32, 8))
    num_classes: int = 19

    def __post_init__(self) -> None:
        if self.layers < MINIMUM_LAYERS:
            raise ConfigError(f"layers {self.layers} is below {MINIMUM_LAYERS}, one for each rate")
        check_ops(self.ops)
        for name in ("widths", "stem_widths", "head_widths"):
            check_widths(getattr(self, name), name)
        rates = {rate for branches in self.final_rates for rate in branches}
        if not self.final_rates or () in self.final_rates or rates - {8, 16, 32}:
            raise ConfigError(
                f"final_rates {self.final_rates} must list sets of branches such as (32, 16), "
                "each branch ending at rate 8, 16 or 32"
            )
        self.genotype((Branch(self.ops[:1], (8,), ()),))  # checks the number of classes

    def genotype(
        self,
        branches: tuple[Branch, ...],
        name: str = "searched",
        *,
        stem_width: int | None = None,
        head_width: int | None = None,
    ) -> Genotype:
        """The network of the space with these branches.

        Args:
            branches: in branch order.
            name: the network's name.
            stem_width: one of `stem_widths`; None: the narrowest.
            head_width: one of `head_widths`; None: the narrowest.

        Raises:
            ConfigError: the number of classes is out of range.
        """
        stem = self.stem_widths[0] if stem_width is None else stem_width
        head = self.head_widths[0] if head_width is None else head_width
        return Genotype(name, self.num_classes, stem, head, branches)

    def specs(self, size: Size) -> list[OpSpec]:
        """Every operator that a network of the space can hold at one input size.

        Training heads are not among them, nor is a strided skip on a map of odd height or width,
        since a network with one cannot be planned.

        Args:
            size: height and width of the engine's frames in pixels, each at least 64.

        Returns:
            Each operator once, ordered by key.

        Raises:
            UsageError: the size is below 64x64.
        """
        return [placed.spec for placed in self.operators(size)]

    def operators(self, size: Size) -> list[Placed]:
        """The operators of `specs`, in its order, each with the maps it reads.

        Raises:
            UsageError: the size is below 64x64.
        """
        return operators_of(plan(genotype, size) for genotype in self._covering(size))

    def _covering(self, size: Size) -> Iterator[Genotype]:
        """Networks that hold every operator, pair of widths and map size between them."""
        eighth = self._eighth(size)
        ends = list(product(self.stem_widths, self.head_widths))
        for op in self.ops:
            downs = list(self._downs(op, eighth))
            pairs = product(self.widths, repeat=2)
            for rates, down, pair in product(self.final_rates, downs, pairs):
                for paths in (_LONG, _SHORT):
                    branches = tuple(_branch(paths[r], op, down, pair) for r in rates)
                    for stem, head in ends:
                        yield self.genotype(branches, stem_width=stem, head_width=head)

    def _eighth(self, size: Size) -> Size:
        """Size of the maps at 1/8."""
        return plan(self.genotype((Branch(self.ops[:1], (8,), ()),)), size).logits_size

    def _downs(self, op: str, eighth: Size) -> Iterator[tuple[str, str]]:
        """Pairs of strided operators (at 1/8, at 1/16) that reach every size of coarser maps."""
        for first, sixteenth in self._halvings(op, eighth):
            for second, _ in self._halvings(op, sixteenth):
                yield first, second

    def _halvings(self, preferred: str, size: Size) -> list[tuple[str, Size]]:
        """An operator for each size that halving can give, the preferred one where it can."""
        found: dict[Size, str] = {}
        for op in (preferred, *self.ops):
            half = _half(op, size)
            if half is not None:
                found.setdefault(half, op)
        return [(op, half) for half, op in found.items()]


def operators_of(plans: Iterable[Plan]) -> list[Placed]:
    """Every operator of some networks once, ordered by key, with the maps it reads.

    Where one key stands at places that read different maps (of one pixel more or less), the
    place that comes first in order of its maps is given.
    """
    found: dict[OpSpec, tuple[tuple[int, Size], ...]] = {}
    for network in plans:
        for node in network.nodes:
            specs = [network.nodes[source].spec for source in node.inputs]
            sources = tuple((spec.out_channels, spec.output_size) for spec in specs)
            found[node.spec] = min(found.get(node.spec, sources), sources)
    return [Placed(spec, found[spec]) for spec in sorted(found, key=OpSpec.key)]


def check_ops(ops: tuple[str, ...]) -> None:
    """Refuse candidates that are unknown, listed twice or nothing but skip.

    Raises:
        ConfigError: they are.
    """
    if set(ops) - set(CANDIDATES) or len(set(ops)) != len(ops):
        raise ConfigError(f"ops {list(ops)} must be distinct ones of {', '.join(CANDIDATES)}")
    if not set(ops) - {"skip"}:
        raise ConfigError(f"ops {list(ops)} needs at least one operator other than skip")


def check_widths(widths: tuple[int, ...], name: str = "widths") -> None:
    """Refuse width candidates that are none, out of range or not ascending.

    Args:
        widths: in twelfths.
        name: of what they are candidates for, in messages.

    Raises:
        ConfigError: they are.
    """
    if not widths or list(widths) != sorted(set(widths)):
        raise ConfigError(f"{name} {list(widths)} must be ascending twelfths, such as 4, 8, 12")
    for width in widths:
        check_width(name.removesuffix("s"), width)


def _branch(
    strides: tuple[Rate, ...], op: str, down: tuple[str, str], pair: tuple[int, ...]
) -> Branch:
    """A path of one operator but for the strided cells; widths alternate between the pair."""
    following = (*strides[1:], strides[-1])
    ops = tuple(
        op if rate == after else down[0 if rate == 8 else 1]
        for rate, after in zip(strides, following, strict=True)
    )
    return Branch(ops, strides, tuple(pair[cell % 2] for cell in range(len(strides) - 1)))


def _half(op: str, size: Size) -> Size | None:
    """Size of the map behind a strided operator; None where the operator does not take it."""
    try:
        return OpSpec(op, 2, 2, 2, size.height, size.width).output_size
    except UsageError:
        return None
