"""`Learning`: what the training loop drives; `Learner`: a network of one architecture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import Plan, plan
from fasterseg.nn.network import Network, initialize
from fasterseg.search.data import to_input
from fasterseg.search.distributed import Group
from fasterseg.search.losses import SegmentationLoss, class_weights
from fasterseg.search.settings import TrainSettings
from fasterseg.search.start import freeze_norms, make_optimizer, place, warm_start

Trained = TypeVar("Trained", bound=nn.Module)


class Learning(Protocol):
    """What a step of training changes, whatever is trained.

    Attributes:
        teacher: trained network to distil from; None where nothing is distilled (any more).
    """

    teacher: Network | None

    @property
    def network(self) -> nn.Module:
        """What is trained."""

    @property
    def average(self) -> nn.Module:
        """Exponential average of its weights; what is handed out and scored."""

    def step(
        self, number: int, images: Tensor, labels: Tensor, lr: float, decay: float
    ) -> dict[str, float]:
        """One step of the optimiser and of the average, unless a number is not finite.

        Args:
            number: of the step, from 0; all that is drawn in a step follows from it.
            images: (N, H, W, 3) uint8 BGR, this process's part of the batch.
            labels: (N, H, W) int64 train ids.
            lr: learning rate.
            decay: of the average.

        Returns:
            "total", its terms and "grad_norm", means over the group. Where one of them is not
            finite no weight has changed, but batch norms may have: the caller rolls back.
        """

    def state(self) -> dict[str, Any]:
        """Everything that the next steps depend on."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""


class BaseLearner(Generic[Trained]):
    """Weights, their average and their optimiser: what learners have in common.

    Args:
        settings: of the run.
        network: what is trained, initialised.
        average: begins with the same weights; may be the network itself where `settings.ema` is 0.
        device: "cpu" or "cuda".
        group: the processes that share the steps.

    Attributes:
        network: what is trained.
        average: exponential average of its weights; what is handed out.
        optimizer: of the network.
    """

    def __init__(
        self,
        settings: TrainSettings,
        network: Trained,
        average: Trained,
        *,
        device: str,
        group: Group,
    ) -> None:
        self.settings = settings
        self.device = device
        self.group = group
        self.average = average if average is network else place(average, device).eval()
        if group.world > 1 and device == "cuda" and not settings.frozen_norm:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        self.network = place(network, device)
        self.optimizer = make_optimizer(self.network, settings.optimizer)

    def begin(self, lr: float) -> None:
        """Make ready for the forward passes of a step."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()
        if self.settings.frozen_norm:
            freeze_norms(self.network)
        self.optimizer.zero_grad(set_to_none=True)

    def autocast(self) -> torch.autocast:
        """The precision of forward passes."""
        enabled = self.settings.precision == "bf16"
        return torch.autocast(self.device, torch.bfloat16, enabled=enabled)

    def finish(self, terms: Mapping[str, Tensor], decay: float) -> dict[str, float]:
        """Clip the gradients and step, if they and the terms are finite.

        Args:
            terms: scalars to report.
            decay: of the average.

        Returns:
            The terms and "grad_norm", means over the group.
        """
        clip = self.settings.optimizer.clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        values = self._read({**terms, "grad_norm": norm})
        if all(math.isfinite(value) for value in values.values()):
            self.optimizer.step()
            if self.average is not self.network:
                self._follow(decay)
        return values

    def _read(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """Numbers that every process of the group agrees on, read in one go."""
        together = torch.stack([value.detach().float() for value in terms.values()])
        return dict(zip(terms, self.group.mean(together).tolist(), strict=True))

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        ours, theirs = self.average.state_dict(), self.network.state_dict()
        floating = [name for name, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [ours[name] for name in floating], [theirs[name] for name in floating], 1 - decay
        )
        for name in ours.keys() - set(floating):
            ours[name].copy_(theirs[name])

    def state(self) -> dict[str, Any]:
        """Weights, averaged weights and the optimiser's moments."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


class _Heads(nn.Module):
    """Some heads of a network as a module of its own, which is what gets wrapped for a group."""

    def __init__(self, network: Network, roles: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.roles = roles

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.network.outputs(x, self.roles)


class Learner(BaseLearner[Network]):
    """A network of one architecture in training.

    Args:
        settings: of the run.
        plan: of the network, with training heads if the loss looks at them.
        shares: (C,) share of each class among the labelled pixels.
        device: "cpu" or "cuda".
        group: the processes that share the steps.
        start: weights to start from instead of random ones; see `warm_start`.
        teacher: trained network to distil from, or None.

    Attributes:
        teacher: None where nothing is distilled (any more).
    """

    def __init__(
        self,
        settings: TrainSettings,
        plan: Plan,
        shares: NDArray[np.float64],
        *,
        device: str = "cpu",
        group: Group | None = None,
        start: Mapping[str, NDArray[np.float32]] | None = None,
        teacher: Network | None = None,
    ) -> None:
        torch.manual_seed(settings.seed)
        network, average = Network(plan), Network(plan)
        initialize(network, torch.Generator().manual_seed(settings.seed))
        if start is not None:
            warm_start(network, start)
        average.load_state_dict(network.state_dict())
        super().__init__(settings, network, average, device=device, group=group or Group())
        self.teacher = teacher.to(device).eval() if teacher is not None else None
        weights = class_weights(torch.from_numpy(shares).float().to(device), settings.loss.balance)
        self._loss = SegmentationLoss(settings.loss, weights, mean=self.group.mean)
        self._heads = self.group.wrap(_Heads(self.network, self._loss.roles), device)

    @classmethod
    def of(
        cls,
        genotype: Genotype,
        settings: TrainSettings,
        shares: NDArray[np.float64],
        *,
        device: str = "cpu",
        group: Group | None = None,
        start: Mapping[str, NDArray[np.float32]] | None = None,
        teacher: Network | None = None,
    ) -> Learner:
        """The learner of a genotype with the classes of the data set; arguments as above."""
        shape = plan(genotype, settings.crop_size, aux_heads=settings.loss.aux > 0)
        return cls(
            settings, shape, shares, device=device, group=group, start=start, teacher=teacher
        )

    def step(
        self, number: int, images: Tensor, labels: Tensor, lr: float, decay: float
    ) -> dict[str, float]:
        """One step; see `Learning.step`."""
        self.begin(lr)
        x = to_input(images.to(self.device, non_blocking=True))
        with self.autocast():
            outputs = self._heads(x)
        truth = labels.to(self.device, non_blocking=True)
        terms = self._loss(outputs, truth, self._teach(x))
        terms["total"].backward()  # type: ignore[no-untyped-call]
        return self.finish(terms, decay)

    @torch.no_grad()
    def _teach(self, x: Tensor) -> Tensor | None:
        if self.teacher is None:
            return None
        with self.autocast():
            return self.teacher.logits8(x)
