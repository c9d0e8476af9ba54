"""Parts of the supernet of the mixture: weighed operators, cells, and each network's own parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from fasterseg.arch.genotype import MAXIMUM_WIDTH
from fasterseg.arch.operators import OpSpec, Stride
from fasterseg.arch.space import SearchSpace
from fasterseg.nn.blocks import Block, SlimmableBlock
from fasterseg.search.derive import RATES

_NOMINAL: Final = 64
"""Height and width that blocks are described at; they run at any."""


class MixedOp(nn.Module):
    """The candidates of one cell, weighed.

    Args:
        ops: candidate operators.
        in_channels: at full width.
        out_channels: at full width.
        stride: 1 or 2.
        widths: output widths that will be asked for, in twelfths, ascending.
        original: skip is a convolution, whatever the stride.
    """

    def __init__(
        self,
        ops: Sequence[str],
        in_channels: int,
        out_channels: int,
        stride: Stride,
        widths: Sequence[int],
        *,
        original: bool,
    ) -> None:
        super().__init__()
        self.ops = tuple(ops)
        self.stride = stride
        self.channels_per_twelfth = out_channels // MAXIMUM_WIDTH
        self.blocks = nn.ModuleDict()
        for op in ops:
            if op != "skip" or original:
                spec = OpSpec(op, in_channels, out_channels, stride, _NOMINAL, _NOMINAL)
                self.blocks[op] = SlimmableBlock(spec, widths)

    def forward(self, x: Tensor, weights: Tensor, width: int) -> Tensor:
        """Sum of the candidates' outputs.

        Args:
            x: (N, C, H, W) with any leading part of the full input channels.
            weights: (K,) of the candidates.
            width: of the output, in twelfths.
        """
        terms: list[Tensor] = []
        for op, weight in zip(self.ops, weights.unbind(), strict=True):
            if op in self.blocks:
                terms.append(weight * self.blocks[op](x, width))
            elif self.stride == 1:
                terms.append(weight * fitted(x, width * self.channels_per_twelfth))
        return sum(terms[1:], terms[0])


def fitted(x: Tensor, channels: int) -> Tensor:
    """The leading channels of a map, zeros behind where it has fewer."""
    return functional.pad(x[:, :channels], (0, 0, 0, 0, 0, max(0, channels - x.shape[1])))


class Cell(nn.Module):
    """A place of the grid: an operator that stays at its scale, and one that goes down.

    Args:
        ops: candidate operators.
        scale: 0, 1, 2 for maps at 1/8, 1/16, 1/32.
        widths: that the outputs may have, in twelfths, ascending.
        goes_down: whether there is a coarser cell behind it.
        original: see `MixedOp`.
    """

    def __init__(
        self,
        ops: Sequence[str],
        scale: int,
        widths: Sequence[int],
        *,
        goes_down: bool,
        original: bool,
    ) -> None:
        super().__init__()
        full = MAXIMUM_WIDTH * RATES[scale]
        self.keep = MixedOp(ops, full, full, 1, widths, original=original)
        self.down: MixedOp | None = None
        if goes_down:
            self.down = MixedOp(ops, full, 2 * full, 2, widths, original=original)


class OwnParts(nn.Module):
    """What a searched network does not share: stem, merges, FFMs and heads.

    Args:
        space: the first of its stem and head widths are taken.
        sets: name of each prediction -> the rates joined in it.
        original: the structure of the original; see `mixture.Mixture`.
    """

    def __init__(
        self, space: SearchSpace, sets: Mapping[str, tuple[int, ...]], original: bool
    ) -> None:
        super().__init__()
        self.stem_width, self.head_width = space.stem_widths[0], space.head_widths[0]
        stem, head = 8 * self.stem_width, self.head_width
        self.stem = nn.Sequential(
            _block("conv", 3, stem // 2, 2),
            _block("conv_2x", stem // 2, stem, 2),
            _block("conv_2x", stem, stem, 2),
        )
        self.squeeze, self.fuse = nn.ModuleDict(), nn.ModuleDict()
        for final in sorted({rate for rates in sets.values() for rate in rates}):
            rate = final // 2
            while rate >= 8:
                name = f"{final}_{rate}"
                tap = rate * (head if original else MAXIMUM_WIDTH)
                self.squeeze[name] = _block("squeeze", 2 * rate * head, rate * head)
                self.fuse[name] = _block("fuse", rate * head + tap, rate * head)
                rate //= 2
        self.ffm, self.head = nn.ModuleDict(), nn.ModuleDict()
        for name, rates in sets.items():
            channels = 8 * head * len(rates)
            if not original:
                self.ffm[name] = _block("ffm", channels, channels)
            self.head[name] = _block("head", channels, space.num_classes)

    def merged(self, final: int, last: Tensor, taps: Mapping[int, Tensor]) -> Tensor:
        """A branch's last map brought back to 1/8; `taps` are finer maps by rate."""
        rate, x = final, last
        while rate > 8:
            rate //= 2
            x = self.fuse[f"{final}_{rate}"](self.squeeze[f"{final}_{rate}"](x), taps[rate])
        return x

    def predict(self, name: str, maps: Sequence[Tensor]) -> Tensor:
        """Logits at 1/8 from merged maps, in branch order."""
        if name in self.ffm:
            maps = [self.ffm[name](*maps)]
        logits: Tensor = self.head[name](*maps)
        return logits


def _block(op: str, in_channels: int, out_channels: int, stride: Stride = 1) -> Block:
    return Block(OpSpec(op, in_channels, out_channels, stride, _NOMINAL, _NOMINAL))
