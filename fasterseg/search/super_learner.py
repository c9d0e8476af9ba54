"""`SuperNetLearner`: trains all networks of a space at once, a few of them in every step."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.arch.space import SearchSpace
from fasterseg.errors import ConfigError
from fasterseg.nn.blocks import resize
from fasterseg.nn.network import SCALE, Network, initialize
from fasterseg.search.data import to_input
from fasterseg.search.distributed import Group
from fasterseg.search.learner import BaseLearner
from fasterseg.search.losses import class_weights, divergence, ohem_cross_entropy
from fasterseg.search.settings import TrainSettings
from fasterseg.search.subnets import fair_subnets, largest, smallest
from fasterseg.search.supernet import SuperNet

LABEL_STRIDE: Final = 2
"""Labels are compared on every n-th row and column.

At 2 that costs 1 % of the largest network's pass on a CPU, at 1 it costs 6 %; at 8 it would be
free, but poles and signs are thinner than that.
"""


class SuperNetLearner(BaseLearner[SuperNet]):
    """Sandwich rule with in-place distillation (BigNAS, Yu et al., ECCV 2020).

    A step trains the largest network on the labels, then the smallest and some random ones, each
    operator of a slot in its turn, on what the largest said; each goes backward by itself, so that
    memory holds one network's maps. Of the settings' losses it takes `ohem`, `min_kept` and
    `balance`; there are no training heads.

    Args:
        settings: of the run; with `ema` 0 there is no second copy of the weights.
        space: of the networks.
        shares: (C,) share of each class among the labelled pixels.
        random_subnets: random networks per step.
        distill: share of the divergence from the largest network in the losses of the others, in
            [0, 1]; the labels have the rest.
        device: "cpu" or "cuda".
        group: the processes that share the steps; all sample the same networks.

    Attributes:
        teacher: None; the largest network teaches.

    Raises:
        ConfigError: `random_subnets` or `distill` is out of range.
    """

    def __init__(
        self,
        settings: TrainSettings,
        space: SearchSpace,
        shares: NDArray[np.float64],
        *,
        random_subnets: int = 2,
        distill: float = 1.0,
        device: str = "cpu",
        group: Group | None = None,
    ) -> None:
        if random_subnets < 0 or not 0 <= distill <= 1:
            raise ConfigError(
                f"random_subnets = {random_subnets} must be 0 or more, distill = {distill} a share "
                "in [0, 1]"
            )
        self.space = space
        self.random_subnets = random_subnets
        self.distill = distill
        self.teacher: Network | None = None
        torch.manual_seed(settings.seed)
        network = SuperNet(space)
        initialize(network, torch.Generator().manual_seed(settings.seed))
        average = copy.deepcopy(network) if settings.ema > 0 else network
        super().__init__(settings, network, average, device=device, group=group or Group())
        self._weights = class_weights(
            torch.from_numpy(shares).float().to(device), settings.loss.balance
        )
        self._model = self.group.wrap(self.network, device, partly_used=True)

    def subnets(self, number: int) -> list[tuple[str, Genotype]]:
        """The networks of a step with the names of their losses, the largest first."""
        seed = self.settings.seed
        chosen = fair_subnets(self.space, seed, number, self.random_subnets)
        return [
            ("largest", largest(self.space, random.Random(f"{seed}/largest/{number}"))),
            ("smallest", smallest(self.space, random.Random(f"{seed}/smallest/{number}"))),
            *(("random", genotype) for genotype in chosen),
        ]

    def step(
        self, number: int, images: Tensor, labels: Tensor, lr: float, decay: float
    ) -> dict[str, float]:
        """One step; see `Learning.step`.

        Returns:
            "largest", "smallest" and "random" (their mean), "total" (the mean over all networks)
            and "grad_norm".

        Raises:
            ConfigError: the processes of the group drew different networks.
        """
        subnets = self.subnets(number)
        self._check_agreement(number, [genotype for _, genotype in subnets])
        self.begin(lr)
        x = to_input(images.to(self.device, non_blocking=True))
        truth = labels.to(self.device, non_blocking=True)
        taught: Tensor | None = None
        losses: dict[str, list[Tensor]] = {}
        for name, genotype in subnets:
            with self.autocast():
                logits = self._model(x, plan(genotype, self.settings.crop_size))
            loss = self._loss(logits, truth, taught)
            (loss / len(subnets)).backward()  # type: ignore[no-untyped-call]
            losses.setdefault(name, []).append(loss.detach())
            taught = logits.detach() if taught is None else taught
        return self.finish(_summed_up(losses), decay)

    def _check_agreement(self, number: int, genotypes: Sequence[Genotype]) -> None:
        if not self.group.same([genotype.digest() for genotype in genotypes]):
            raise ConfigError(
                f"the processes drew different networks for step {number}; start all of them with "
                "the same version, settings, seed and space"
            )

    def _loss(self, logits: Tensor, labels: Tensor, taught: Tensor | None) -> Tensor:
        """Of the labels for the largest network, of what it said for the others."""
        if taught is None:
            return self._cross_entropy(logits, labels)
        # `divergence` is a mean over the classes, too; cross entropy is one over the pixels alone.
        loss = self.distill * logits.shape[1] * divergence(logits, taught)
        if self.distill < 1:
            loss = loss + (1 - self.distill) * self._cross_entropy(logits, labels)
        return loss

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        height, width = (side * SCALE // LABEL_STRIDE for side in logits.shape[-2:])
        truth = thinned(labels, height, width)
        settings = self.settings.loss
        return ohem_cross_entropy(
            resize(logits.float(), height, width),
            truth,
            settings.ohem,
            int(settings.min_kept * truth.numel()),
            class_weights=self._weights,
            mean=self.group.mean,
        )


def _summed_up(losses: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    """The mean over all networks, then that of each kind."""
    everything = [loss for of_kind in losses.values() for loss in of_kind]
    means = {name: torch.stack(list(of_kind)).mean() for name, of_kind in losses.items()}
    return {"total": torch.stack(everything).mean(), **means}


def thinned(labels: Tensor, height: int, width: int) -> Tensor:
    """The labels under the grid that align_corners lays over them.

    Args:
        labels: (N, H, W) int64.
        height: rows wanted, at most H.
        width: columns wanted, at most W.

    Returns:
        (N, height, width) int64: at each point of the grid the nearest pixel's.
    """
    rows, columns = (
        torch.linspace(0, have - 1, want, device=labels.device).round().long()
        for have, want in zip(labels.shape[1:], (height, width), strict=True)
    )
    return labels[:, rows[:, None], columns]
