"""Floors: the least time that a GPU's arithmetic and memory need for each layer of a plan.

A layer takes at least its multiply-adds over the rate of the matrix units, and at least its bytes
over the bandwidth of the memory; its floor is the greater of the two, and that of a network is the
sum over its layers. Nothing that runs layer by layer is faster; what keeps maps on the chip
between layers may be.

Batch norm, bias and ReLU are part of their convolution, joining maps is free, the first
convolution reads the uint8 frame, the last step reads logits at 1/8 and writes uint8 labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fasterseg.arch.operators import (
    OPERATORS,
    Conv,
    Half,
    Layer,
    Project,
    Resize,
    Restore,
    Skip,
    expand,
)
from fasterseg.arch.plan import Node, Plan
from fasterseg.types import Size

Mode = Literal["pass", "fold"]
"""Whether a resize inside the network is a pass of its own over the memory, or folded into what
reads its result."""

MODES: Final[tuple[Mode, ...]] = ("pass", "fold")
TAIL: Final = "tail"

_FRAME_CHANNELS: Final = 3
_BIAS_BYTES: Final = 4
_LANES: Final = 64
"""Output channels that matrix units work on at once; with fewer, lanes idle."""

_DEPTH: Final = 16
"""Products that one matrix instruction sums up; a sum is filled up to a multiple of it."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a GPU reaches at best; the defaults are what one H200 was seen to do.

    Attributes:
        tensor_tflops: rate of a large matrix product, 1e12 operations a second.
        memory_tb_s: bytes read plus bytes written by a large copy, 1e12 bytes a second.
    """

    tensor_tflops: float = 790.0
    memory_tb_s: float = 4.3


@dataclass(frozen=True, slots=True)
class Floor:
    """The least work and time of one layer, of the whole batch.

    Attributes:
        role: of the plan's node.
        step: "conv1", "conv2", "project" or "skip" (the parameters' prefix), "half", "restore",
            "resize", or `TAIL` for upsampling and argmax.
        in_channels: channels that it reads.
        out_channels: channels that it writes.
        out_size: of the map that it writes, pixels.
        flop: two for each multiply-add of a convolution; resizing is not counted.
        moved_bytes: each input read once, each output written once, weights included.
        tensor_us: least time of the matrix units, microseconds.
        lanes_us: likewise, where idle lanes (few channels) cost as much as busy ones.
        memory_us: least time of the memory, microseconds.
    """

    role: str
    step: str
    in_channels: int
    out_channels: int
    out_size: Size
    flop: int
    moved_bytes: int
    tensor_us: float
    lanes_us: float
    memory_us: float

    @property
    def us(self) -> float:
        """The floor, microseconds."""
        return max(self.tensor_us, self.memory_us)

    @property
    def bound(self) -> Literal["tensor", "memory"]:
        """What sets it."""
        return "tensor" if self.tensor_us > self.memory_us else "memory"


def floors(
    plan: Plan,
    mode: Mode = "pass",
    *,
    batch: int = 1,
    ceilings: Ceilings | None = None,
    value_bytes: int = 2,
) -> tuple[Floor, ...]:
    """The floor of every layer, in the plan's order.

    Args:
        plan: the network at its size.
        mode: "pass": every resize inside the network is a layer of its own. "fold": it is done
            while its reader loads. A convolution behind a growing resize then reads the small
            map; one behind a shrinking resize the large map.
        batch: frames per call.
        ceilings: of the GPU.
        value_bytes: of a value in maps and weights; 2 is fp16 and bf16.
    """
    walk = _Walk(plan, mode, batch, ceilings or Ceilings(), value_bytes)
    return tuple(floor for node in plan.nodes for floor in walk.floors(node))


def total_us(layers: Sequence[Floor]) -> float:
    """The floor of a network that runs layer by layer, microseconds."""
    return math.fsum(layer.us for layer in layers)


def by_role(layers: Sequence[Floor]) -> Mapping[str, float]:
    """Role -> microseconds of all its layers."""
    sums: dict[str, float] = {}
    for layer in layers:
        sums[layer.role] = sums.get(layer.role, 0.0) + layer.us
    return sums


@dataclass(frozen=True, slots=True)
class _Walk:
    """What the layers of a plan have in common."""

    plan: Plan
    mode: Mode
    batch: int
    ceilings: Ceilings
    value_bytes: int

    def floors(self, node: Node) -> Iterator[Floor]:
        """What a node does, in order."""
        if node.role == "output":
            yield self._tail(node)
            return
        is_first = True
        for layer in expand(node.spec):
            step = layer.step
            if isinstance(step, Half | Restore | Resize) and self.mode == "pass":
                yield from self._resize(node, layer)
            elif isinstance(step, Conv | Project) or (
                isinstance(step, Skip) and not layer.is_identity
            ):
                yield self._convolution(node, layer, is_first)
                is_first = False

    def _tail(self, node: Node) -> Floor:
        classes, size = node.spec.in_channels, self.plan.size
        logits = self._map(classes, node.spec.size)
        return self._floor(node.role, TAIL, (classes, 1), size, read=logits, written=size.pixels)

    def _convolution(self, node: Node, layer: Layer, is_first: bool) -> Floor:
        own = self._map(layer.in_channels, layer.in_size)
        return self._floor(
            node.role,
            layer.name,
            (layer.in_channels, layer.out_channels),
            layer.out_size,
            read=self._read(node, layer) if is_first else own,
            written=self._map(layer.out_channels, layer.out_size),
            layer=layer,
        )

    def _read(self, node: Node, layer: Layer) -> int:
        """Bytes that the first convolution of a node reads."""
        sources = [self.plan.nodes[source] for source in node.inputs]
        if sources[0].role == "input":
            return _FRAME_CHANNELS * self.plan.size.pixels
        if self.mode == "pass":
            return self._map(layer.in_channels, layer.in_size)
        if isinstance(OPERATORS[node.spec.op][0], Half):
            return self._map(node.spec.in_channels, node.spec.size)
        return sum(self._left_by(source) for source in sources)

    def _left_by(self, node: Node) -> int:
        """Bytes of the map that a node stores where growing it is left to its readers."""
        restored = [step for step in expand(node.spec) if isinstance(step.step, Restore)]
        size = restored[0].in_size if restored else node.spec.output_size
        return self._map(node.spec.out_channels, size)

    def _resize(self, node: Node, layer: Layer) -> Iterator[Floor]:
        channels, before = layer.in_channels, layer.in_size
        if isinstance(layer.step, Resize):
            coarse = self.plan.nodes[node.inputs[0]].spec
            channels, before = coarse.out_channels, coarse.output_size
        if before != layer.out_size:
            yield self._floor(
                node.role,
                type(layer.step).__name__.lower(),
                (channels, channels),
                layer.out_size,
                read=self._map(channels, before),
                written=self._map(channels, layer.out_size),
            )

    def _floor(
        self,
        role: str,
        step: str,
        channels: tuple[int, int],
        size: Size,
        *,
        read: int,
        written: int,
        layer: Layer | None = None,
    ) -> Floor:
        """A layer that reads and writes so many bytes a frame, and its own weights once."""
        flop, idle, weights = 0, 1.0, 0
        if layer is not None:
            flop, idle = 2 * layer.macs * self.batch, _idle(layer)
            weights = _weights(layer) * self.value_bytes + _BIAS_BYTES * layer.out_channels
        moved = self.batch * (read + written) + weights
        tensor_us = flop / (self.ceilings.tensor_tflops * 1e6)
        return Floor(
            role=role,
            step=step,
            in_channels=channels[0],
            out_channels=channels[1],
            out_size=size,
            flop=flop,
            moved_bytes=moved,
            tensor_us=tensor_us,
            lanes_us=tensor_us * idle,
            memory_us=moved / (self.ceilings.memory_tb_s * 1e6),
        )

    def _map(self, channels: int, size: Size) -> int:
        return channels * size.pixels * self.value_bytes


def _weights(layer: Layer) -> int:
    """Weights of a convolution, its bias apart."""
    return layer.macs // layer.out_size.pixels


def _idle(layer: Layer) -> float:
    """How many times the work of a layer its matrix units are occupied with."""
    depth = _weights(layer) // layer.out_channels
    filled = math.ceil(depth / _DEPTH) * _DEPTH * math.ceil(layer.out_channels / _LANES) * _LANES
    return filled / (depth * layer.out_channels)
