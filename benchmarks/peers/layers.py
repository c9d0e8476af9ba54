"""A network as ONNX, operator by operator, that counts its multiply-adds and parameters meanwhile.

What the two peers share; no command. Batch norms that follow a convolution are folded into it, as
every runtime does; they are counted as the papers count them, two parameters a channel.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET: Final = 18


@dataclass(frozen=True)
class Map:
    """A map between two layers.

    Attributes:
        name: in the graph.
        channels: of it.
        height: rows at the size the network is counted at; the graph itself takes any size.
        width: columns.
    """

    name: str
    channels: int
    height: int
    width: int


class Network:
    """Writes a graph of free batch, height and width.

    Args:
        name: of the graph.
        size: height and width at which multiply-adds are counted.
        seed: of the random weights.
    """

    def __init__(self, name: str, size: tuple[int, int], seed: int = 0) -> None:
        self.macs = 0
        self.parameters = 0
        self._name = name
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[TensorProto] = []
        self.input = Map("picture", 3, *size)

    def conv(
        self,
        x: Map,
        channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        norm: bool = True,
        bias: bool = False,
        relu: bool = True,
    ) -> Map:
        """Convolution, with its batch norm (folded) and ReLU where there are some.

        Args:
            x: what it reads.
            channels: what it gives.
            kernel: rows and columns.
            stride: both ways.
            groups: of channels; as many as there are: depthwise.
            norm: a batch norm follows.
            bias: the convolution has one of its own.
            relu: a ReLU ends it.
        """
        per_group = x.channels // groups
        shape = (channels, per_group, kernel, kernel)
        weights = channels * per_group * kernel * kernel
        self.parameters += weights + channels * (2 * norm + bias)
        out = self._map("conv", channels, x, stride)
        self.macs += weights * out.height * out.width
        # Of this deviation the maps keep their magnitude through any number of layers.
        deviation = math.sqrt(2 / (per_group * kernel * kernel))
        self._node(
            "Conv",
            [
                x.name,
                self._array(self._random.normal(0, deviation, shape)),
                self._array(np.zeros(channels)),
            ],
            out,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[kernel // 2] * 4,
            group=groups,
        )
        return self.relu(out) if relu else out

    def norm(self, x: Map) -> Map:
        """A batch norm that no convolution comes before, and its ReLU."""
        self.parameters += 2 * x.channels
        out = self._map("norm", x.channels, x)
        ones, zeros = np.ones(x.channels), np.zeros(x.channels)
        constants = [self._array(values) for values in (ones, zeros, zeros, ones)]
        self._node("BatchNormalization", [x.name, *constants], out)
        return self.relu(out)

    def relu(self, x: Map) -> Map:
        """The ReLU of a map."""
        return self._one("Relu", x)

    def sigmoid(self, x: Map) -> Map:
        """The sigmoid of a map."""
        return self._one("Sigmoid", x)

    def add(self, x: Map, y: Map) -> Map:
        """The sum of two maps; one of them may be 1x1."""
        return self._two("Add", x, y)

    def multiply(self, x: Map, y: Map) -> Map:
        """The product of two maps; one of them may be 1x1."""
        return self._two("Mul", x, y)

    def concat(self, *maps: Map) -> Map:
        """Maps of one size, channel after channel."""
        out = self._map("concat", sum(m.channels for m in maps), maps[0])
        self._node("Concat", [m.name for m in maps], out, axis=1)
        return out

    def pool(self, x: Map, kernel: int, stride: int) -> Map:
        """Average pooling; the padding counts."""
        out = self._map("pool", x.channels, x, stride)
        self._node(
            "AveragePool",
            [x.name],
            out,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[kernel // 2] * 4,
            count_include_pad=1,
        )
        return out

    def pool_all(self, x: Map) -> Map:
        """The mean of a whole map."""
        out = Map(f"pool_all{len(self._nodes)}", x.channels, 1, 1)
        self._node("GlobalAveragePool", [x.name], out)
        return out

    def resize(self, x: Map, like: Map, mode: str = "linear") -> Map:
        """A map at the size of another."""
        out = self._map("resize", x.channels, like)
        name = out.name
        self._nodes += [
            helper.make_node("Shape", [x.name], [f"{name}.nc"], start=0, end=2),
            helper.make_node("Shape", [like.name], [f"{name}.hw"], start=2, end=4),
            helper.make_node("Concat", [f"{name}.nc", f"{name}.hw"], [f"{name}.sizes"], axis=0),
        ]
        self._node(
            "Resize",
            [x.name, "", "", f"{name}.sizes"],
            out,
            mode=mode,
            coordinate_transformation_mode="asymmetric" if mode == "nearest" else "half_pixel",
            **({"nearest_mode": "floor"} if mode == "nearest" else {}),
        )
        return out

    def linear(self, x: Map, outputs: int, *, bias: bool) -> Map:
        """A fully connected layer on a 1x1 map."""
        return self.conv(x, outputs, norm=False, bias=bias, relu=False)

    def model(self, logits: Map) -> onnx.ModelProto:
        """The finished file: normalised RGB (N, 3, H, W) float32 in, logits out."""
        free: list[str | int] = ["batch", 3, "height", "width"]
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [helper.make_tensor_value_info(self.input.name, TensorProto.FLOAT, free)],
            [
                helper.make_tensor_value_info(
                    logits.name, TensorProto.FLOAT, ["batch", logits.channels, "rows", "columns"]
                )
            ],
            self._weights,
        )
        made: onnx.ModelProto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9
        )
        return made

    def _map(self, kind: str, channels: int, like: Map, stride: int = 1) -> Map:
        height, width = (math.ceil(side / stride) for side in (like.height, like.width))
        return Map(f"{kind}{len(self._nodes)}", channels, height, width)

    def _array(self, values: NDArray[Any]) -> str:
        name = f"weights{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def _node(self, op: str, inputs: list[str], out: Map, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(op, inputs, [out.name], **attributes))

    def _one(self, op: str, x: Map) -> Map:
        out = self._map(op.lower(), x.channels, x)
        self._node(op, [x.name], out)
        return out

    def _two(self, op: str, x: Map, y: Map) -> Map:
        out = self._map(op.lower(), x.channels, x if x.height > 1 else y)
        self._node(op, [x.name, y.name], out)
        return out


def hold_against_paper(net: Network, parameters: float, macs: float) -> None:
    """Assert that parameters and multiply-adds are those of the paper, within 1 %."""
    for what, found, printed in (
        ("parameters", net.parameters, parameters),
        ("multiply-adds", net.macs, macs),
    ):
        assert abs(found / printed - 1) <= 0.01, f"{what}: {found:.4g}, the paper {printed:.4g}"


def write_file(
    about: str, title: str, default: str, counted_at: tuple[int, int], net: Network,
    model: onnx.ModelProto,
) -> int:  # fmt: skip
    """The command of a peer: write its file where `-o` says, and tell its counts."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=Path(default))
    output = parser.parse_args().output
    onnx.save(model, output)
    print(
        f"{output}: {title}, {net.parameters / 1e6:.2f} M parameters, "
        f"{net.macs / 1e9:.2f} G multiply-adds at {counted_at[0]}x{counted_at[1]}"
    )
    return 0
