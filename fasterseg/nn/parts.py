"""A few nodes of a plan on maps that are fed: by the fast path's launches, or by the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import Tensor

from fasterseg.arch.operators import OpSpec, expand
from fasterseg.arch.plan import Node
from fasterseg.arch.single import Single
from fasterseg.graph.weights import Weights
from fasterseg.nn.blocks import Block
from fasterseg.nn.folded import LaunchArrays, launch_arrays
from fasterseg.nn.fused import DTYPES, Variant, call_of, cudnn_mode
from fasterseg.nn.launches import KernelLaunches, TorchLaunches
from fasterseg.nn.network import upsample
from fasterseg.nn.schedule import Launch, Schedule, ScheduleBuilder, held_channels
from fasterseg.preprocess import MEAN, STD
from fasterseg.runtime.kernels import KernelLibrary
from fasterseg.types import Precision

_SEED: Final = 0

Values = dict[int, Tensor]


class FusedPart:
    """The nodes of a `Single` as launches of the fast path.

    Args:
        single: what is run; what it reads is noise, laid out as other launches leave it.
        weights: of its plan.
        precision: of maps and weights.
        device: "cuda", or "cpu" for tests.
        batch: frames of the network that it stands for.
        variant: how networks are run; on one lane, not compiled.
        kernels: our kernels; None leaves all to torch.
    """

    def __init__(
        self,
        single: Single,
        weights: Weights,
        precision: Precision,
        device: str,
        batch: int,
        *,
        variant: Variant,
        kernels: KernelLibrary | None = None,
    ) -> None:
        assert variant.lanes == 1, "side by side, nothing is timed alone"
        assert not variant.compiled, "only whole networks are compiled"
        placed, dtype = torch.device(device), DTYPES[precision]
        self._search, self._exact = variant.search, precision == "fp32"
        self._does = TorchLaunches(dtype, placed)
        if kernels is not None:
            resizes = variant.resize == "kernel"
            self._does = KernelLaunches(dtype, placed, kernels, resizes=resizes)
        feeds = _Feeds(batch, dtype, placed)
        self._frames = feeds.frames(single.spec) if single.reads_frames else None
        self._out = torch.empty((batch, *single.plan.size), dtype=torch.uint8, device=placed)
        # What inside and around both hold cancels, and no graph of them is ever empty.
        self._mark = torch.zeros(1, device=placed) if single.part != "alone" else None
        self._classes = single.spec.in_channels
        order, self._ends = _schedule(single, zoomed=variant.zoomed)
        arrays = launch_arrays(order, weights, dtype, self._does.bias_type, placed)
        count = len(single.fed)
        specs = [single.plan.nodes[node].spec for node in single.fed]
        self._fed: Values = {
            index: feeds.map(spec, held_channels(spec.in_channels))
            for index, spec in enumerate(specs)
        }
        self._steps = [
            (launch, self._step(launch, arrays[launch.id]), order.freed[launch.id])
            for launch in order.launches[count:]
        ]
        if placed.type == "cuda":
            # Copies ran on another stream than the launches will.
            torch.cuda.synchronize(placed)

    @torch.no_grad()
    def run(self) -> list[Tensor]:
        """Enqueue it on torch's current stream; gives what its last nodes make."""
        values = dict(self._fed)
        with cudnn_mode(search=self._search, exact=self._exact):
            if self._mark is not None:
                self._mark.zero_()
            for launch, step, freed in self._steps:
                values[launch.id] = step(values)
                for value in freed:
                    if value not in self._ends:
                        del values[value]
        return [values[end] for end in self._ends]

    def _step(self, launch: Launch, arrays: LaunchArrays) -> Callable[[Values], Tensor]:
        """A launch as a function of the values made before it."""
        if launch.kind == "normalize":
            return self._normalize
        if launch.kind == "tail":
            return lambda values: self._tail(values[launch.inputs[0]])
        call = call_of(self._does, launch, arrays)
        return lambda values: call([values[source] for source in launch.inputs])

    def _normalize(self, values: Values) -> Tensor:
        assert self._frames is not None, "fed to what reads them"
        return self._does.normalize(self._frames)

    def _tail(self, logits: Tensor) -> Tensor:
        self._does.tail(logits, self._classes, self._out)
        return self._out


def _schedule(single: Single, *, zoomed: bool) -> tuple[Schedule, tuple[int, ...]]:
    """The launches of a part, behind one that stands for each map that is fed; and its ends."""
    build = ScheduleBuilder(zoomed)
    for node in (single.plan.nodes[index] for index in single.fed):
        build.values[node.id] = len(build.launches)
        build.launches.append(_given(node, len(build.launches)))
    for node in single.plan.nodes:
        if node.id not in build.values:
            build.add_node(node)
    ends = tuple(build.values[end] for end in single.ends)
    return Schedule(single.plan, tuple(build.launches), 1), ends


def _given(node: Node, value: int) -> Launch:
    """What stands for a map that is there already."""
    channels, size = node.spec.in_channels, node.spec.size
    return Launch(value, "normalize", node.role, "fed", (), 0, (), channels, channels, size, size)


class ReferencePart:
    """The nodes of a `Single` as the reference runs them, in fp32 on the CPU.

    Args:
        single: what is run; what it reads is noise.
        weights: of its plan.
        batch: frames of the network that it stands for.
    """

    def __init__(self, single: Single, weights: Weights, batch: int) -> None:
        self._single = single
        feeds = _Feeds(batch, torch.float32, torch.device("cpu"))
        nodes = single.plan.nodes
        self._fed: Values = {index: feeds.map(nodes[index].spec) for index in single.fed}
        self._frames = feeds.frames(single.spec) if single.reads_frames else None
        self._blocks = {
            node.id: _block(node, weights)
            for node in nodes
            if node.id not in self._fed and node.spec.op not in ("input", "output")
        }
        self._mean, self._std = torch.tensor([MEAN, STD]).view(2, 1, 3, 1, 1) * 255

    @torch.no_grad()
    def run(self) -> list[Tensor]:
        """Run it; gives what its last nodes make."""
        values = dict(self._fed)
        for node in self._single.plan.nodes:
            if node.id not in values:
                values[node.id] = self._made(node, values)
        return [values[end] for end in self._single.ends]

    def _made(self, node: Node, values: Values) -> Tensor:
        if node.spec.op == "input":
            assert self._frames is not None, "fed to what reads them"
            rgb = self._frames.permute(0, 3, 1, 2).flip(1).float()
            made: Tensor = (rgb - self._mean) / self._std
        elif node.spec.op == "output":
            full = upsample(values[node.inputs[0]], self._single.plan.size)
            made = full.argmax(dim=1).to(torch.uint8)
        else:
            made = self._blocks[node.id](*(values[source] for source in node.inputs))
        return made


def _block(node: Node, weights: Weights) -> Block:
    """The block of a node, with its weights."""
    block = Block(node.spec).eval()
    state = block.state_dict()
    for layer in expand(node.spec):
        for name in layer.parameter_shapes:
            array = np.array(weights[f"{node.role}.{name}"], np.float32)
            state[name].copy_(torch.from_numpy(array))
    return block


class _Feeds:
    """Noise as a network has it in its midst, what a ReLU leaves; the same every time."""

    def __init__(self, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        self._batch, self._dtype, self._device = batch, dtype, device
        self._random = torch.Generator().manual_seed(_SEED)

    def map(self, spec: OpSpec, held: int | None = None) -> Tensor:
        """What an operator reads.

        Args:
            spec: the operator.
            held: channels in memory, which is channels_last then; those beyond its own are 0.
        """
        shape = (self._batch, spec.in_channels, *spec.size)
        own = torch.randn(shape, generator=self._random).relu_().to(self._dtype)
        if held is not None:
            spare = torch.zeros((self._batch, held - spec.in_channels, *spec.size), dtype=own.dtype)
            own = torch.cat([own, spare], dim=1).contiguous(memory_format=torch.channels_last)
        return own.to(self._device)

    def frames(self, spec: OpSpec) -> Tensor:
        """(N, H, W, 3) uint8, BGR."""
        shape = (self._batch, *spec.size, 3)
        values = torch.randint(0, 256, shape, dtype=torch.uint8, generator=self._random)
        return values.to(self._device)
