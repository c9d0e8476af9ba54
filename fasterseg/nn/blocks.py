"""`Block` and `SlimmableBlock`: the only torch interpreters of an operator's steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fasterseg.arch.operators import (
    BATCH_NORM_EPSILON,
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
    UpsampleArgmax,
    expand,
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
        maps = list(inputs)
        height, width = inputs[-1].shape[-2:]
        for layer in self.layers:
            match layer.step:
                case Conv():
                    norm = layer.name.replace("conv", "bn")
                    maps = [self.get_submodule(norm)(self.get_submodule(layer.name)(maps[0]))]
                case Project():
                    maps = [self.get_submodule(layer.name)(maps[0])]
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
                case Skip():
                    maps = [self._skip(layer, maps[0])]
                case Normalize() | UpsampleArgmax():
                    raise AssertionError(f"{layer.step} is not part of a block")
        return maps[0]

    def _skip(self, layer: Layer, x: Tensor) -> Tensor:
        if layer.is_identity:
            return x
        if layer.stride == 2:
            shifted = self.get_submodule("conv2")(x[:, :, 1:, 1:])
            x = torch.cat([self.get_submodule("conv1")(x), shifted], dim=1)
        else:
            x = self.get_submodule("conv1")(x)
        return functional.relu(self.get_submodule("bn")(x))


def _conv(layer: Layer, out_channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(
        layer.in_channels,
        out_channels,
        kernel_size=kernel,
        stride=layer.stride,
        padding=kernel // 2,
        bias=False,
    )


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)


def divisible_by_8(channels: float) -> int:
    """Nearest multiple of 8, at least 8 and at least 0.9 of the argument (spec section 1.3)."""
    rounded = max(1, math.floor((channels + 4) / 8) * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class SlimmableConv(nn.Module):
    """Convolution and batch norm whose leading channels serve every narrower width.

    One weight of the full size; one batch norm per output width, because statistics of a
    narrow map are not those of a wide one (slimmable networks, Yu et al., ICLR 2019).

    Args:
        in_channels: at full width.
        out_channels: at full width.
        kernel: 1 or 3.
        stride: 1 or 2.
        widths: the output widths that will be asked for, in twelfths, ascending.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, widths: Sequence[int]
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norms = nn.ModuleList(
            _batch_norm(divisible_by_8(out_channels * width / 12)) for width in self.widths
        )

    def forward(self, x: Tensor, width: int) -> Tensor:
        """Convolve and normalise at one output width.

        Args:
            x: (N, C, H, W) with any leading part of the full input channels.
            width: output width in twelfths, one of `widths`.
        """
        norm = self.norms[self.widths.index(width)]
        weight = self.conv.weight[: norm.num_features, : x.shape[1]]
        padding = self.conv.padding
        assert isinstance(padding, tuple)
        y: Tensor = norm(functional.conv2d(x, weight, stride=self.stride, padding=padding))
        return y


class SlimmableBlock(nn.Module):
    """One candidate operator that runs at every width of the space (the supernet's cell).

    Args:
        spec: the operator at full width.
        widths: output widths in twelfths, ascending.
    """

    def __init__(self, spec: OpSpec, widths: Sequence[int]) -> None:
        super().__init__()
        self.spec = spec
        self.widths = tuple(widths)
        self.layers: tuple[Layer, ...] = expand(spec)
        for layer in self.layers:
            self._register(layer)

    def _register(self, layer: Layer) -> None:
        match layer.step:
            case Conv(kernel=kernel):
                conv = SlimmableConv(
                    layer.in_channels, layer.out_channels, kernel, layer.stride, self.widths
                )
                self.add_module(layer.name, conv)
            case Skip():
                # Always convolutions, identity or not: neighbours may run at other widths.
                for index in range(layer.stride):
                    half = layer.out_channels // layer.stride
                    conv1x1 = nn.Conv2d(layer.in_channels, half, kernel_size=1, bias=False)
                    self.add_module(f"conv{index + 1}", conv1x1)
                self.norms = nn.ModuleList(
                    _batch_norm(divisible_by_8(layer.out_channels * width / 12))
                    for width in self.widths
                )
            case _:
                pass

    def forward(self, x: Tensor, width: int) -> Tensor:
        """Apply the steps at one output width (twelfths); the input's width is its channels."""
        height, columns = x.shape[-2:]
        for layer in self.layers:
            match layer.step:
                case Conv():
                    x = self.get_submodule(layer.name)(x, width)
                case Relu():
                    x = functional.relu(x)
                case Half():
                    x = resize(x, height // 2, columns // 2)
                case Restore():
                    x = resize(x, height, columns)
                case Skip():
                    x = self._skip(layer, x, width)
                case _:
                    raise AssertionError(f"{layer.step} is not part of a candidate operator")
        return x

    def _skip(self, layer: Layer, x: Tensor, width: int) -> Tensor:
        norm = self.norms[self.widths.index(width)]
        channels = divisible_by_8(layer.out_channels // layer.stride * width / 12)
        maps = []
        for index in range(layer.stride):
            conv = self.get_submodule(f"conv{index + 1}")
            assert isinstance(conv, nn.Conv2d)
            weight = conv.weight[:channels, : x.shape[1]]
            maps.append(functional.conv2d(x[:, :, index:, index:], weight, stride=layer.stride))
        return functional.relu(norm(torch.cat(maps, dim=1)))
