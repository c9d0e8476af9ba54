"""Several processes that train one network, started by torchrun: what they must agree on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from fasterseg.errors import ConfigError, UsageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Group:
    """This process among those of a run; a lone process is a group of one.

    Attributes:
        rank: number of this process; 0 leads: it alone evaluates, writes and prints.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def part_of(self, batch: int) -> int:
        """Crops of a step that this process computes.

        Raises:
            ConfigError: the batch does not divide evenly.
        """
        if batch % self.world:
            raise ConfigError(
                f"batch = {batch} counts the crops of a step over all processes and must divide "
                f"by their number, {self.world}; set it to {self.world * (batch // self.world + 1)}"
            )
        return batch // self.world

    def mean(self, value: Tensor) -> Tensor:
        """Mean over the processes, without gradient; the same tensor in a group of one."""
        if self.world == 1:
            return value
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total / self.world

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag if self.world == 1 else any(self._gather(flag))

    def same(self, value: object) -> bool:
        """Whether every process holds an equal value."""
        return self.world == 1 or all(other == value for other in self._gather(value))

    def _gather(self, value: T) -> list[T]:
        gathered: list[Any] = [None] * self.world
        distributed.all_gather_object(gathered, value)
        return gathered

    def share(self, value: T) -> T:
        """The leader's value, in every process."""
        if self.world == 1:
            return value
        values: list[Any] = [value]
        distributed.broadcast_object_list(values)
        shared: T = values[0]
        return shared

    def wrap(self, module: nn.Module, device: str, partly_used: bool = False) -> nn.Module:
        """The module, its gradients averaged over the processes at every backward pass.

        Args:
            module: on the device.
            device: "cpu" or "cuda".
            partly_used: whether a forward pass may leave out parameters, the same ones everywhere.
        """
        if self.world == 1:
            return module
        ids = [torch.cuda.current_device()] if device == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=partly_used)


@contextlib.contextmanager
def joined(device: str) -> Iterator[Group]:
    """Join the processes that torchrun started; without torchrun a group of one.

    Each process of a machine takes the GPU of its local rank.

    Args:
        device: "cpu" (gloo) or "cuda" (NCCL).

    Raises:
        UsageError: there are more processes on this machine than GPUs.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Group()
        return
    if device == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"process {local} of this machine finds {torch.cuda.device_count()} GPUs; start "
                "as many as there are: torchrun --nproc-per-node"
            )
        torch.cuda.set_device(local)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Group(distributed.get_rank(), world)
    finally:
        distributed.destroy_process_group()
