"""`Block`, `SlimmableBlock`, `SharedBlock`: the only torch interpreters of an operator's steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, product

import torch
from torch import Tensor, nn
from torch.nn import functional

from fasterseg.arch.operators import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_LEAVES,
    Concat,
    Conv,
    Half,
    Layer,
    Normalize,
    OpSpec,
    Project,
    Relu,
    Resize,
    Restore,
    Skip,
    Stride,
    UpsampleArgmax,
    expand,
    hidden_channels,
)


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear with align_corners: the only resampling inside the network."""
    if x.shape[-2:] == (height, width):
        return x
    return functional.interpolate(x, size=(height, width), mode="bilinear", align_corners=True)


class Block(nn.Module):
    """One operator with fixed widths.

    Parameters are named `conv1`, `bn1`, `conv2`, `bn2`, `project` (a skip: `conv1`, `conv2`,
    `bn`). Works at any map size, whatever the size in `spec`.

    Args:
        spec: the operator; "input" and "output" are not modules.
    """

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        self.spec = spec
        self.layers: tuple[Layer, ...] = expand(spec)
        for layer in self.layers:
            self._register(layer)

    def _register(self, layer: Layer) -> None:
        match layer.step:
            case Conv(kernel=kernel):
                self.add_module(layer.name, _conv(layer, layer.out_channels, kernel))
                self.add_module(layer.name.replace("conv", "bn"), _batch_norm(layer.out_channels))
            case Project():
                self.add_module(
                    layer.name, nn.Conv2d(layer.in_channels, layer.out_channels, kernel_size=1)
                )
            case Skip() if not layer.is_identity:
                for index in range(layer.stride):
                    conv = _conv(layer, layer.out_channels // layer.stride, kernel=1)
                    self.add_module(f"conv{index + 1}", conv)
                self.add_module("bn", _batch_norm(layer.out_channels))
            case _:
                pass

    def forward(self, *inputs: Tensor) -> Tensor:
        """Apply the steps.

        Args:
            inputs: (N, C_i, H_i, W_i) float maps, in the order of the node's inputs.

        Returns:
            (N, C_out, H, W) float map.
        """
        return _apply(self.layers, inputs, self._weighted)

    def _weighted(self, layer: Layer, x: Tensor) -> Tensor:
        if isinstance(layer.step, Skip):
            return self._skip(layer, x)
        y: Tensor = self.get_submodule(layer.name)(x)
        if isinstance(layer.step, Conv):
            y = self.get_submodule(layer.name.replace("conv", "bn"))(y)
        return y

    def _skip(self, layer: Layer, x: Tensor) -> Tensor:
        if layer.is_identity:
            return x
        if layer.stride == 2:
            shifted = self.get_submodule("conv2")(x[:, :, 1:, 1:])
            x = torch.cat([self.get_submodule("conv1")(x), shifted], dim=1)
        else:
            x = self.get_submodule("conv1")(x)
        return functional.relu(self.get_submodule("bn")(x))


def _apply(
    layers: Iterable[Layer], inputs: Sequence[Tensor], weighted: Callable[[Layer, Tensor], Tensor]
) -> Tensor:
    """The steps of an operator, those that hold weights by a function."""
    maps = list(inputs)
    height, width = inputs[-1].shape[-2:]
    for layer in layers:
        match layer.step:
            case Conv() | Project() | Skip():
                maps = [weighted(layer, maps[0])]
            case Relu():
                maps = [functional.relu(maps[0])]
            case Half():
                maps = [resize(maps[0], height // 2, width // 2)]
            case Restore():
                maps = [resize(maps[0], height, width)]
            case Resize():
                maps[0] = resize(maps[0], height, width)
            case Concat():
                maps = [torch.cat(maps, dim=1) if len(maps) > 1 else maps[0]]
            case Normalize() | UpsampleArgmax():
                raise AssertionError(f"{layer.step} is not part of a block")
    return maps[0]


def _conv(layer: Layer, out_channels: int, kernel: int) -> nn.Conv2d:
    pad = kernel // 2
    return nn.Conv2d(layer.in_channels, out_channels, kernel, layer.stride, pad, bias=False)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)


def divisible_by_8(channels: float) -> int:
    """Nearest multiple of 8, at least 8 and at least 0.9 of the argument (spec section 1.3)."""
    rounded = max(1, math.floor((channels + 4) / 8) * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _leading(weight: Tensor, rows: int, full: Sequence[int], used: Sequence[int]) -> Tensor:
    """The part of a convolution's weight that a narrower one has.

    Args:
        weight: (C_out, C_in, k, k).
        rows: output channels that are wanted.
        full: channels of each map of the joined input; their sum is C_in.
        used: leading channels that are there of each. Every map keeps its columns, however narrow
            the one before it is, so they are not just the leading ones.
    """
    if tuple(used[:-1]) == tuple(full[:-1]):
        return weight[:rows, : sum(used)]
    starts = accumulate(full[:-1], initial=0)
    parts = [weight[:rows, first : first + n] for first, n in zip(starts, used, strict=True)]
    return torch.cat(parts, dim=1)


@dataclass(frozen=True, slots=True)
class _Part:
    """What of its weights a step uses: convolutions side by side, then a norm or a bias."""

    weights: tuple[Tensor, ...]
    norm: nn.Module | None = None
    bias: Tensor | None = None


class SlimmableConv(nn.Module):
    """Convolution and batch norm whose leading channels serve every smaller number of them.

    One weight of the full size; one batch norm per number of output channels, because statistics
    of a narrow map are not those of a wide one (slimmable networks, Yu et al., ICLR 2019).

    Args:
        full: channels at full width of each map that is joined into the input.
        outs: the numbers of output channels that will be asked for.
        most: output channels at full width.
        kernel: 1 or 3.
    """

    def __init__(self, full: Sequence[int], outs: Sequence[int], most: int, kernel: int) -> None:
        super().__init__()
        self.full, self.outs = tuple(full), tuple(outs)
        self.conv = nn.Conv2d(sum(full), most, kernel, bias=False)
        self.norms = nn.ModuleList(_batch_norm(out) for out in self.outs)

    def part(self, used: Sequence[int], choice: int) -> _Part:
        """The part for so many channels of each source and a choice (index) of `outs`."""
        weight = _leading(self.conv.weight, self.outs[choice], self.full, used)
        return _Part((weight,), self.norms[choice])


class _Slimmable(nn.Module):
    """One operator at several numbers of channels; a `choice` is an index into `outs`.

    Args:
        spec: the operator at full width.
        sources: the numbers of channels that each input can have.
        outs: the numbers of output channels that will be asked for.
    """

    def __init__(self, spec: OpSpec, sources: Sequence[Sequence[int]], outs: Sequence[int]) -> None:
        super().__init__()
        self.spec = spec
        self.outs = tuple(outs)
        self.layers: tuple[Layer, ...] = expand(spec)
        joined = {sum(counts) for counts in product(*sources)}
        self._hidden = sorted({hidden_channels(count) for count in joined})
        full = [max(counts) for counts in sources]
        for layer in self.layers:
            full = self._register(layer, full)

    def _register(self, layer: Layer, full: list[int]) -> list[int]:
        """Make the modules of a step; gives the full channels of the map behind it."""
        match layer.step:
            case Conv(kernel=kernel, hidden=hidden):
                most = self._hidden[-1] if hidden else layer.out_channels
                outs = self._hidden if hidden else self.outs
                self.add_module(layer.name, SlimmableConv(full, outs, most, kernel))
                return [most]
            case Project():
                self.add_module(layer.name, nn.Conv2d(full[0], layer.out_channels, kernel_size=1))
            case Skip():
                # Always convolutions, identity or not: neighbours may run at other widths.
                half = layer.out_channels // layer.stride
                for index in range(layer.stride):
                    conv = nn.Conv2d(full[0], half, kernel_size=1, bias=False)
                    self.add_module(f"conv{index + 1}", conv)
                self.norms = nn.ModuleList(_batch_norm(out) for out in self.outs)
        return full

    def _parts(self, used: Sequence[int], choice: int) -> dict[str, _Part]:
        """Step -> what it uses, when so many channels of each input are there."""
        parts: dict[str, _Part] = {}
        for layer in self.layers:
            match layer.step:
                case Conv(hidden=hidden):
                    conv = self.get_submodule(layer.name)
                    assert isinstance(conv, SlimmableConv)
                    count = hidden_channels(sum(used)) if hidden else self.outs[choice]
                    index = conv.outs.index(count) if hidden else choice
                    parts[layer.name], used = conv.part(used, index), [count]
                case Project():
                    weight = self.get_parameter(f"{layer.name}.weight")[:, : used[0]]
                    bias = self.get_parameter(f"{layer.name}.bias")
                    parts[layer.name] = _Part((weight,), bias=bias)
                case Skip():
                    names = [f"conv{n + 1}.weight" for n in range(layer.stride)]
                    rows = self.outs[choice] // layer.stride
                    weights = tuple(self.get_parameter(n)[:rows, : used[0]] for n in names)
                    parts[layer.name] = _Part(weights, self.norms[choice])
        return parts

    def run(self, inputs: Sequence[Tensor], choice: int) -> Tensor:
        """Apply the steps; the inputs' own channels say how wide they are."""
        parts = self._parts([x.shape[1] for x in inputs], choice)
        return _apply(self.layers, inputs, lambda layer, x: _convolve(layer, x, parts[layer.name]))


def _convolve(layer: Layer, x: Tensor, part: _Part) -> Tensor:
    """A step with weights, by a part of them."""
    maps = [
        functional.conv2d(
            x[:, :, index:, index:] if index else x,
            weight,
            part.bias,
            stride=layer.stride,
            padding=weight.shape[-1] // 2,
        )
        for index, weight in enumerate(part.weights)
    ]
    y = torch.cat(maps, dim=1) if len(maps) > 1 else maps[0]
    if part.norm is not None:
        y = part.norm(y)
    return functional.relu(y) if isinstance(layer.step, Skip) else y


class SlimmableBlock(_Slimmable):
    """A candidate operator at widths that are twelfths of the full one (the paper's supernet).

    Args:
        spec: the operator at full width.
        widths: output widths in twelfths, ascending.
    """

    def __init__(self, spec: OpSpec, widths: Sequence[int]) -> None:
        outs = [divisible_by_8(spec.out_channels * width / 12) for width in widths]
        super().__init__(spec, [(spec.in_channels,)], outs)
        self.widths = tuple(widths)

    def forward(self, x: Tensor, width: int) -> Tensor:
        """Apply the steps at one output width (twelfths); the input's width is its channels."""
        return self.run([x], self.widths.index(width))


class SharedBlock(_Slimmable):
    """An operator at every number of channels that the networks of a space have in one place.

    Args:
        op: a key of `OPERATORS` but "input" and "output".
        stride: 1 or 2.
        sources: the numbers of channels that each input can have.
        outs: the numbers of output channels.
    """

    def __init__(
        self, op: str, stride: Stride, sources: Sequence[Iterable[int]], outs: Iterable[int]
    ) -> None:
        counts, ascending = [sorted(set(source)) for source in sources], sorted(set(outs))
        # The least size that every operator takes; blocks work at any.
        spec = OpSpec(op, sum(each[-1] for each in counts), ascending[-1], stride, 2, 2)
        super().__init__(spec, counts, ascending)

    def forward(self, inputs: Sequence[Tensor], out_channels: int) -> Tensor:
        """Apply the steps.

        Args:
            inputs: (N, C_i, H_i, W_i) float maps in the order of the node's inputs, each with the
                leading channels of its source.
            out_channels: one of `outs`.

        Returns:
            (N, out_channels, H, W) float map.
        """
        return self.run(inputs, self.outs.index(out_channels))

    def arrays(self, channels: Sequence[int], out_channels: int) -> dict[str, Tensor]:
        """Name -> tensor of the `Block` that it is for these channels; parts of its own tensors.

        Args:
            channels: of each input.
            out_channels: one of `outs`.
        """
        found: dict[str, Tensor] = {}
        for name, part in self._parts(channels, self.outs.index(out_channels)).items():
            convs = [f"conv{n + 1}" for n in range(len(part.weights))] if name == "skip" else [name]
            found |= {f"{c}.weight": w for c, w in zip(convs, part.weights, strict=True)}
            if part.bias is not None:
                found[f"{name}.bias"] = part.bias
            if part.norm is not None:
                norm = "bn" if name == "skip" else name.replace("conv", "bn")
                state = part.norm.state_dict(keep_vars=True)
                found |= {f"{norm}.{leaf}": state[leaf] for leaf in BATCH_NORM_LEAVES}
        return found
