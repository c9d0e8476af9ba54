"""Operators as data: each is a row of primitive steps that everything else reads.

The torch block, the slimmable block, the emitted ONNX, the counts of parameters and
multiply-adds and the keys of latency tables are all derived from `OPERATORS` and `expand`
(FasterSeg, ICLR 2020, section 3.1; exact forms in the original code).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

from fasterseg.errors import ConfigError, UnknownNameError, UsageError
from fasterseg.registry import unknown
from fasterseg.types import Size

Stride = Literal[1, 2]


@dataclass(frozen=True, slots=True)
class Conv:
    """Convolution without bias, then batch norm; padding keeps the size.

    Attributes:
        kernel: side of the square kernel, 1 or 3.
        strided: whether this is the step that halves the map in a stride-2 operator
            (to the ceiling of the half).
        hidden: whether it gives the head's hidden channels instead of the output channels.
    """

    kernel: int
    strided: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Relu:
    """max(x, 0)."""


@dataclass(frozen=True, slots=True)
class Half:
    """Bilinear, align_corners, to (H // 2, W // 2)."""


@dataclass(frozen=True, slots=True)
class Restore:
    """Bilinear, align_corners, back to the operator's input size; left out with stride 2."""


@dataclass(frozen=True, slots=True)
class Resize:
    """Bilinear, align_corners: the first input is brought to the second input's size."""


@dataclass(frozen=True, slots=True)
class Concat:
    """Join all inputs along the channels, in order; a single input passes through."""


@dataclass(frozen=True, slots=True)
class Project:
    """1x1 convolution with bias and without batch norm, to the class logits."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing (stride 1, same channels), else 1x1 convolutions, batch norm and ReLU.

    Stride 2: two 1x1 stride-2 convolutions of half the output channels, the second on the map
    shifted by one pixel (rows and columns 1 to the end), joined, then batch norm and ReLU.
    Stride 1 with another number of channels: one 1x1 convolution, batch norm, ReLU.
    """


@dataclass(frozen=True, slots=True)
class Normalize:
    """uint8 BGR (N, H, W, 3) to normalised float RGB (N, 3, H, W)."""


@dataclass(frozen=True, slots=True)
class UpsampleArgmax:
    """Bilinear x8, align_corners, then the first class with the greatest logit."""

    scale: int = 8


Step = Conv | Relu | Half | Restore | Resize | Concat | Project | Skip | Normalize | UpsampleArgmax
Operator = tuple[Step, ...]

CANDIDATES: Final[tuple[str, ...]] = ("skip", "conv", "conv_downup", "conv_2x", "conv_2x_downup")
"""The operators a cell chooses from, in the order of the architecture parameter alpha."""

OPERATORS: Final[Mapping[str, Operator]] = {
    # the candidates; in the zoomed ones ("downup") the last ReLU follows the way back up
    "skip": (Skip(),),
    "conv": (Conv(3, strided=True), Relu()),
    "conv_downup": (Half(), Conv(3), Restore(), Relu()),
    "conv_2x": (Conv(3, strided=True), Relu(), Conv(3), Relu()),
    "conv_2x_downup": (Half(), Conv(3), Relu(), Conv(3), Restore(), Relu()),
    # the fixed parts, priced by the same rule
    "input": (Normalize(),),
    "squeeze": (Conv(1), Relu()),
    "fuse": (Resize(), Concat(), Conv(3), Relu()),
    "ffm": (Concat(), Conv(1), Relu()),
    "head": (Concat(), Conv(3, hidden=True), Relu(), Project()),
    "output": (UpsampleArgmax(),),
}


@dataclass(frozen=True, slots=True)
class OpSpec:
    """One operator with everything its cost depends on.

    Attributes:
        op: a key of `OPERATORS`.
        in_channels: channels of the input; of all inputs together where there are several.
        out_channels: channels of the output (classes for a head, 1 for the label map).
        stride: 2 halves the map.
        height: rows of the input in pixels (of the finer input for `fuse`).
        width: columns of the input in pixels.
    """

    op: str
    in_channels: int
    out_channels: int
    stride: Stride
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.op not in OPERATORS:
            raise UnknownNameError(unknown("operator", self.op, OPERATORS))

    @property
    def size(self) -> Size:
        """Height and width of the input."""
        return Size(self.height, self.width)

    @property
    def output_size(self) -> Size:
        """Height and width of the output.

        Strided convolutions give ceiling halves, zoomed operators floor halves.
        """
        return expand(self)[-1].out_size

    def key(self) -> str:
        """The key of a latency table's row, `op/CxHxW/C_out/sSTRIDE`."""
        return (
            f"{self.op}/{self.in_channels}x{self.height}x{self.width}"
            f"/{self.out_channels}/s{self.stride}"
        )


_KEY = re.compile(r"(\w+)/(\d+)x(\d+)x(\d+)/(\d+)/s([12])")


def parse_key(key: str) -> OpSpec:
    """Inverse of `OpSpec.key`.

    Raises:
        ConfigError: not such a key.
    """
    match = _KEY.fullmatch(key)
    if match is None or match[1] not in OPERATORS:
        raise ConfigError(f"'{key}' is not an operator key such as conv_2x/64x128x256/32/s1")
    channels, height, width, out, stride = (int(match[i]) for i in range(2, 7))
    return OpSpec(match[1], channels, out, cast("Stride", stride), height, width)


@dataclass(frozen=True, slots=True)
class Layer:
    """One step of an operator with its concrete channels and sizes.

    Attributes:
        step: the primitive.
        name: `conv1`, `conv2`, `project`, `skip`: prefix of the parameters; empty without any.
        in_channels: channels before the step.
        out_channels: channels after it.
        stride: 2 where this very step halves the map.
        in_size: map size before the step, pixels.
        out_size: map size after it, pixels.
    """

    step: Step
    name: str
    in_channels: int
    out_channels: int
    stride: Stride
    in_size: Size
    out_size: Size

    @property
    def parameters(self) -> int:
        """Trainable values: convolution weights, biases, batch norm scale and shift."""
        match self.step:
            case Conv(kernel=kernel):
                weights = kernel * kernel * self.in_channels * self.out_channels
                return weights + 2 * self.out_channels
            case Project():
                return self.in_channels * self.out_channels + self.out_channels
            case Skip() if not self.is_identity:
                return self.in_channels * self.out_channels + 2 * self.out_channels
            case _:
                return 0

    @property
    def macs(self) -> int:
        """Multiply-adds of the convolutions, batch 1 (one multiply-add counts once)."""
        match self.step:
            case Conv(kernel=kernel):
                per_pixel = kernel * kernel * self.in_channels * self.out_channels
            case Project():
                per_pixel = self.in_channels * self.out_channels
            case Skip() if not self.is_identity:
                per_pixel = self.in_channels * self.out_channels
            case _:
                per_pixel = 0
        return per_pixel * self.out_size.pixels

    @property
    def is_identity(self) -> bool:
        """Whether a skip changes nothing."""
        return self.stride == 1 and self.in_channels == self.out_channels

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name of each stored array, relative to the operator, -> its shape."""
        match self.step:
            case Conv(kernel=kernel):
                weight = (self.out_channels, self.in_channels, kernel, kernel)
                return {
                    f"{self.name}.weight": weight,
                    **batch_norm_shapes(self.name.replace("conv", "bn"), self.out_channels),
                }
            case Project():
                return {
                    "project.weight": (self.out_channels, self.in_channels, 1, 1),
                    "project.bias": (self.out_channels,),
                }
            case Skip() if not self.is_identity:
                convs = self.stride
                half = (self.out_channels // convs, self.in_channels, 1, 1)
                names = [f"conv{index + 1}.weight" for index in range(convs)]
                return dict.fromkeys(names, half) | batch_norm_shapes("bn", self.out_channels)
            case _:
                return {}


BATCH_NORM_LEAVES: Final = ("weight", "bias", "running_mean", "running_var")
BATCH_NORM_EPSILON: Final = 1e-5


def batch_norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays of one batch norm."""
    return {f"{name}.{leaf}": (channels,) for leaf in BATCH_NORM_LEAVES}


def hidden_channels(in_channels: int) -> int:
    """Channels between the two convolutions of a head: its input's, halved above 256."""
    return in_channels if in_channels <= 256 else in_channels // 2


def expand(spec: OpSpec) -> tuple[Layer, ...]:
    """The steps of an operator with concrete channels and sizes, in order.

    Raises:
        UsageError: the map is too small to be halved, or a strided skip meets an odd size.
    """
    layers: list[Layer] = []
    channels, size = spec.in_channels, spec.size
    convs = 0
    for step in OPERATORS[spec.op]:
        out_channels, out_size, name = channels, size, ""
        stride: Stride = 1
        match step:
            case Conv(strided=strided, hidden=hidden):
                convs += 1
                name = f"conv{convs}"
                out_channels = hidden_channels(channels) if hidden else spec.out_channels
                if strided and spec.stride == 2:
                    stride, out_size = 2, Size((size.height + 1) // 2, (size.width + 1) // 2)
            case Project():
                name, out_channels = "project", spec.out_channels
            case Skip():
                name, out_channels, stride = "skip", spec.out_channels, spec.stride
                if stride == 2:
                    out_size = _even_half(spec)
            case Half():
                out_size = Size(size.height // 2, size.width // 2)
                if 0 in out_size:
                    raise UsageError(f"{spec.key()}: a map of {size} cannot be halved")
            case Restore():
                if spec.stride == 2:
                    continue
                out_size = spec.size
            case UpsampleArgmax(scale=scale):
                out_channels = spec.out_channels
                out_size = Size(size.height * scale, size.width * scale)
            case Relu() | Resize() | Concat() | Normalize():
                pass
        layers.append(Layer(step, name, channels, out_channels, stride, size, out_size))
        channels, size = out_channels, out_size
    return tuple(layers)


def _even_half(spec: OpSpec) -> Size:
    if spec.height % 2 or spec.width % 2 or spec.out_channels % 2:
        raise UsageError(
            f"{spec.key()}: a skip with stride 2 needs an even height, an even width and an even "
            "number of output channels; choose a size that is a multiple of 32"
        )
    return Size(spec.height // 2, spec.width // 2)


def parameters(spec: OpSpec) -> int:
    """Trainable values of one operator."""
    return sum(layer.parameters for layer in expand(spec))


def macs(spec: OpSpec) -> int:
    """Multiply-adds of one operator's convolutions, batch 1."""
    return sum(layer.macs for layer in expand(spec))
