"""mIoU of every prediction of a mixture, from one pass over each picture."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fasterseg.datasets import DatasetSpec, Pair
from fasterseg.metrics import ConfusionMatrix
from fasterseg.nn.blocks import resize
from fasterseg.nn.network import Network
from fasterseg.search.coderived import inherited
from fasterseg.search.data import read_pair, to_input
from fasterseg.search.mixture import Kind, Mixture, set_name
from fasterseg.search.mixture_widths import chosen_widths
from fasterseg.types import Size

Bytes = NDArray[np.uint8]

Predict = Callable[[Tensor], Mapping[str, Tensor]]
"""(1, 3, H, W) normalised RGB -> name of a prediction -> logits at 1/8."""


class MixtureScorer:
    """Scores a supernet as it stands, at its most likely widths.

    Batch norms gather their statistics anew before every score, from the calibration pictures:
    those of training mix all the widths that were drawn.

    Args:
        spec: the data set.
        pairs: pictures to score on.
        calibration: pictures for the batch norms.
        size: that pictures are brought to, both sides divisible by 32.
        batch: pictures of a calibration pass.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        pairs: Sequence[Pair],
        calibration: Sequence[Pair],
        size: Size,
        batch: int = 4,
    ) -> None:
        self.spec = spec
        self.pairs = pairs
        self.calibration = calibration
        self.size = size
        self.batch = batch

    def mixture(self, net: Mixture, kind: Kind) -> dict[str, float]:
        """Score every prediction; the supernet is unchanged afterwards.

        Returns:
            Name of the prediction -> mIoU in [0, 1].

        Raises:
            SourceError: a picture or label cannot be read.
        """
        arch = net.arch(kind)
        relaxed = arch.relaxed(net.refused)
        widths = chosen_widths(tuple(arch.ratio), net.widths_of(kind))
        return self._scores(net, lambda x: net.predictions(x, kind, relaxed, widths))

    def derived(self, net: Mixture, kind: Kind) -> dict[str, float]:
        """Score the networks that are derived, with their weights in the supernet.

        Returns:
            Name of each set of branches of the space -> mIoU in [0, 1].

        Raises:
            SourceError: a picture or label cannot be read.
            UsageError: see `inherited`.
        """
        found = {}
        for rates in net.space.final_rates:
            network = inherited(net, kind, rates).to(next(net.parameters()).device)
            found[set_name(rates)] = self._scores(network, _head_of(network))["head"]
        return found

    @torch.no_grad()
    def _scores(self, net: nn.Module, predict: Predict) -> dict[str, float]:
        device = next(net.parameters()).device
        matrices: dict[str, ConfusionMatrix] = {}
        with restored_norms(net):
            self._recalibrate(net, predict, device)
            net.eval()
            for pair in self.pairs:
                x, truth = self._read(pair, device)
                for name, logits in predict(x[None]).items():
                    ids = resize(logits.float(), *truth.shape)[0].argmax(0)
                    matrix = matrices.setdefault(name, ConfusionMatrix(len(self.spec.labels)))
                    matrix.add(truth, ids.to(torch.uint8).cpu().numpy())
        return {name: matrix.miou for name, matrix in matrices.items()}

    def _recalibrate(self, net: nn.Module, predict: Predict, device: torch.device) -> None:
        net.eval()
        for module in norms_of(net):
            module.reset_running_stats()
            module.momentum = None
            module.train()
        pictures = [self._read(pair, device)[0] for pair in self.calibration]
        for first in range(0, len(pictures), self.batch):
            predict(torch.stack(pictures[first : first + self.batch]))

    def _read(self, pair: Pair, device: torch.device) -> tuple[Tensor, Bytes]:
        image, labels = read_pair(self.spec, pair)
        x = to_input(torch.from_numpy(image[None]).to(device))
        return functional.interpolate(x, tuple(self.size), mode="bilinear", antialias=True)[
            0
        ], labels


def _head_of(network: Network) -> Predict:
    return lambda x: {"head": network.logits8(x)}


def norms_of(net: nn.Module) -> Iterator[nn.modules.batchnorm._BatchNorm]:
    """Every batch norm of a module."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield module


@contextlib.contextmanager
def restored_norms(net: nn.Module) -> Iterator[None]:
    """Put back statistics and modes of a module and its batch norms afterwards."""
    training = net.training
    before = [
        (norm, norm.momentum, {name: value.clone() for name, value in norm.named_buffers()})
        for norm in norms_of(net)
    ]
    try:
        yield
    finally:
        net.train(training)
        for norm, momentum, buffers in before:
            norm.momentum = momentum
            for name, value in norm.named_buffers():
                value.copy_(buffers[name])
