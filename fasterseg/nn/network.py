"""`Network`: the modules of a plan; the forward pass walks the plan's nodes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import cast

import torch
from torch import Tensor, nn

from fasterseg.arch.plan import Node, Plan
from fasterseg.nn.blocks import Block, resize
from fasterseg.types import Size

SCALE = 8
"""The head's logits live at 1/8 of the input."""


class Network(nn.Module):
    """FasterSeg, built from a plan; runs at any input size from 64x64 up.

    The state dict's keys are `<role>.<array>` (`cell.3.0.conv1.weight`), as in weight files.

    Args:
        plan: channels and connections; its size does not matter here.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.nodes = tuple(n for n in plan.nodes if n.role not in ("input", "output"))
        for node in self.nodes:
            add_at(self, node.role, Block(node.spec))
        # Cached now: their lock would cut the graph of torch.compile in two (Python 3.11).
        assert plan.by_role, plan.last_use

    def block(self, role: str) -> Block:
        """The block of a role."""
        return cast("Block", self.get_submodule(role))

    def outputs(
        self,
        x: Tensor,
        roles: Collection[str],
        on_node: Callable[[Node, Tensor], None] | None = None,
    ) -> dict[str, Tensor]:
        """Run the network and keep the outputs of some nodes.

        Args:
            x: (N, 3, H, W) float, normalised RGB.
            roles: the nodes whose outputs are wanted; nodes after the last of them do not run.
            on_node: called with every node and its output as it is computed.

        Returns:
            Role -> (N, C, h, w) float at the node's own scale.
        """
        wanted = {self.plan.by_role[role].id for role in roles}
        maps: dict[int, Tensor] = {self.plan.by_role["input"].id: x}
        found: dict[str, Tensor] = {}
        for node in self.nodes:
            if node.id > max(wanted):
                break
            y = self.block(node.role)(*(maps[source] for source in node.inputs))
            maps[node.id] = y
            if on_node is not None:
                on_node(node, y)
            if node.id in wanted:
                found[node.role] = y
            for source in node.inputs:
                if self.plan.last_use[source] == node.id:
                    maps.pop(source, None)
        return found

    def logits8(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) normalised RGB -> (N, classes, ceil(H/8), ceil(W/8)) logits."""
        return self.outputs(x, ["head"])["head"]

    def forward(self, x: Tensor) -> Tensor:
        """Class logits at full size.

        Args:
            x: (N, 3, H, W) float, normalised RGB, H and W at least 64.

        Returns:
            (N, classes, H, W) float logits: the 1/8 logits, bilinear x8 with align_corners,
            cropped to the input's size (the original returns up to 7 columns more).
        """
        return upsample(self.logits8(x), Size(x.shape[2], x.shape[3]))


def add_at(parent: nn.Module, path: str, module: nn.Module) -> None:
    """Register a module under a dotted path ("cell.3.0"), so that keys need no translation."""
    *folders, name = path.split(".")
    for folder in folders:
        if folder not in parent._modules:
            parent.add_module(folder, nn.Module())
        parent = parent.get_submodule(folder)
    parent.add_module(name, module)


def upsample(logits: Tensor, size: Size, scale: int = SCALE) -> Tensor:
    """Bilinear to `scale` times the size of the logits, align_corners, cropped to `size`."""
    height, width = logits.shape[-2:]
    full = resize(logits, scale * height, scale * width)
    return full[:, :, : size.height, : size.width]


def initialize(network: nn.Module, generator: torch.Generator) -> None:
    """Kaiming normal (fan_in, ReLU) for convolutions, identity batch norm (spec section 1.1)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
