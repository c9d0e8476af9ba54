"""A network at the start of a run: where its weights come from and lie, and its optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fasterseg.errors import ConfigError
from fasterseg.nn.network import Network
from fasterseg.search.settings import OptimizerSettings

Placed = TypeVar("Placed", bound=nn.Module)


def place(network: Placed, device: str) -> Placed:
    """Move a network to a device, in place, its convolutions channels last in memory."""
    for parameter in (*network.parameters(), *network.buffers()):
        parameter.data = parameter.data.to(device)
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def make_optimizer(network: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """AdamW or SGD; norms and biases are not decayed unless asked for."""
    decayed = [p for p in network.parameters() if p.ndim > 1 or settings.decay_all]
    others = [p for p in network.parameters() if p.ndim <= 1 and not settings.decay_all]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.999))


def warm_start(network: Network, weights: Mapping[str, NDArray[np.float32]]) -> list[str]:
    """Put weights into a network; what predicts classes stays random where their number differs.

    Args:
        network: initialised.
        weights: by name, as in `nn.weights.to_arrays`; training heads may be missing.

    Returns:
        Names that were not taken.

    Raises:
        ConfigError: the weights are of another architecture.
    """
    state = network.state_dict()
    optional = {name for name in state if name.startswith(("aux.", "head.project."))}
    wanted = {name for name in state if not name.endswith("num_batches_tracked")}
    fitting = {
        name: torch.from_numpy(np.array(array, np.float32))
        for name, array in weights.items()
        if name in state and array.shape == tuple(state[name].shape)
    }
    left = sorted(wanted - set(fitting))
    if foreign := [name for name in left if name not in optional]:
        raise ConfigError(
            f"the weights to start from are of another architecture: {len(foreign)} arrays do "
            f"not fit, among them {', '.join(foreign[:4])}"
        )
    network.load_state_dict(fitting, strict=False)
    return left


def freeze_norms(network: nn.Module) -> None:
    """Keep the statistics of batch norms as they are, in a network in training mode."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
