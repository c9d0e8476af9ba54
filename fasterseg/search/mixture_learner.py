"""`MixtureLearner`: what pretraining of the mixture and co-search in it have in common."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasterseg.arch.space import SearchSpace
from fasterseg.errors import ConfigError
from fasterseg.nn.network import Network, initialize
from fasterseg.search.cosettings import MixtureSettings
from fasterseg.search.data import to_input
from fasterseg.search.distributed import Group
from fasterseg.search.learner import BaseLearner
from fasterseg.search.losses import class_weights, ohem_cross_entropy
from fasterseg.search.mixture import Kind, Mixture
from fasterseg.search.mixture_logits import Relaxed
from fasterseg.search.mixture_widths import (
    Widths,
    chosen_widths,
    equal_widths,
    gumbel_noise,
    random_widths,
)
from fasterseg.search.parameters import ArchParameters

LABEL_STRIDE: Final = 8
"""Predictions are at 1/8, and are judged on every eighth row and column of the labels."""

_DRAWS: Final = 16
"""More than the forward passes of a step, each of which draws by a seed of its own."""


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """One forward pass of a step.

    Attributes:
        name: of its loss.
        kind: whose stem, merges, heads and logits.
        widths: the widest or narrowest everywhere, drawn evenly, or chosen by the logits.
    """

    name: str
    kind: Kind
    widths: Literal["max", "min", "random", "chosen"]


class MixtureLearner(BaseLearner[Mixture]):
    """What pretraining and co-search have in common.

    Args:
        settings: of the run.
        space: what is searched, with the classes of the data set.
        shares: (C,) share of each class among the labelled pixels.
        device: "cpu" or "cuda".
        group: of one process.
        start: `state_dict` of a supernet to start from instead of random weights.

    Attributes:
        mixture: settings of the run.
        teacher: None: nothing is distilled here.

    Raises:
        ConfigError: there are several processes.
    """

    def __init__(
        self,
        settings: MixtureSettings,
        space: SearchSpace,
        shares: NDArray[np.float64],
        *,
        device: str = "cpu",
        group: Group | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        if group is not None and group.world > 1:
            raise ConfigError(
                'method = "fasterseg" runs in one process; start it without torchrun, or take '
                'method = "evolve", whose supernet trains in several'
            )
        train = settings.train
        network = Mixture(space, settings.cosearch.original)
        initialize(network, torch.Generator().manual_seed(train.seed))
        if start is not None:
            network.load_state_dict(start)
        average = copy.deepcopy(network) if train.ema > 0 else network
        super().__init__(train, network, average, device=device, group=group or Group())
        self.mixture = settings
        self.teacher: Network | None = None
        weights = torch.from_numpy(shares).float().to(device)
        self._class_weights = class_weights(weights, train.loss.balance)

    def parameters(self, kind: Kind) -> ArchParameters:
        """The logits of the teacher or the student, copied."""
        return self.network.arch(kind).parameters_taken()

    def choices(
        self, forward: ForwardPass, number: int, draw: int, learn: bool
    ) -> tuple[Relaxed, Widths]:
        """Probabilities and widths of a forward pass; the same arguments give the same.

        Args:
            forward: which pass.
            number: of the step.
            draw: 0 to 15, different for every pass of the step.
            learn: whether the gradient reaches the logits.
        """
        with torch.set_grad_enabled(learn):
            relaxed = self.network.arch(forward.kind).relaxed(self.network.refused)
            widths = self._widths(forward, number, draw)
        return relaxed, widths if learn else Widths(widths.twelfths)

    def _widths(self, forward: ForwardPass, number: int, draw: int) -> Widths:
        layers, candidates = self.network.space.layers, self.network.space.widths
        own = self.network.widths_of(forward.kind)
        seed = (self.settings.seed * self.settings.steps + number) * _DRAWS + draw
        generator = torch.Generator().manual_seed(seed)
        if forward.widths == "random":
            return random_widths(layers, candidates, generator)
        if forward.widths == "min":
            return equal_widths(layers, candidates[0])
        if forward.widths == "max" or len(own) == 1:
            return equal_widths(layers, candidates[-1])
        search = self.mixture.cosearch
        return chosen_widths(
            tuple(self.network.arch(forward.kind).ratio),
            own,
            noise=gumbel_noise(layers, len(own), generator),
            temperature=self._temperature(number),
            estimator=search.estimator,
        )

    def _temperature(self, number: int) -> float:
        search = self.mixture.cosearch
        fall = search.final_temperature / search.temperature
        return float(search.temperature * fall ** (number / self.settings.steps))

    def loss(
        self, x: Tensor, truth: Tensor, kind: Kind, relaxed: Relaxed, widths: Widths
    ) -> Tensor:
        """Sum over all predictions of a pass.

        Args:
            x: (N, 3, H, W) normalised RGB.
            truth: (N, H / 8, W / 8) int64 train ids.
            kind: whose stem, merges and heads.
            relaxed: probabilities.
            widths: of the tensors between cells.
        """
        with self.autocast():
            predictions = self.network.predictions(x, kind, relaxed, widths)
        settings = self.settings.loss
        least = int(settings.min_kept * truth.numel())
        losses = [
            ohem_cross_entropy(
                logits.float(), truth, settings.ohem, least, class_weights=self._class_weights
            )
            for logits in predictions.values()
        ]
        return torch.stack(losses).sum()

    def on_device(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Input of the supernet, and labels at the scale of its predictions."""
        x = to_input(images.to(self.device, non_blocking=True))
        truth = labels[:, ::LABEL_STRIDE, ::LABEL_STRIDE].to(self.device, non_blocking=True)
        return x, truth

    def learn_weights(
        self,
        passes: Sequence[ForwardPass],
        number: int,
        batch: tuple[Tensor, Tensor],
        decay: float,
    ) -> dict[str, float]:
        """A step of the weights alone; backward after each pass, so that one at a time is held."""
        x, truth = self.on_device(*batch)
        terms: dict[str, Tensor] = {}
        for draw, forward in enumerate(passes):
            relaxed, widths = self.choices(forward, number, draw, learn=False)
            loss = self.loss(x, truth, forward.kind, relaxed, widths)
            loss.backward()  # type: ignore[no-untyped-call]
            terms[forward.name] = loss.detach()
        return self.finish({"total": torch.stack(list(terms.values())).sum(), **terms}, decay)
