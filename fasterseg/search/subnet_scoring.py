"""`SubnetScorer`: how good the networks inside a supernet are, on held-out training pictures.

The batch-norm statistics that training leaves in a supernet are of a mixture of networks and fit
none of them: without new ones the scores of good and bad networks look alike (slimmable networks,
Yu and Huang, ICCV 2019). So every network gets its own before it is scored.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from torch import Tensor, distributed, nn

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import Plan, plan
from fasterseg.datasets import DatasetSpec, Pair, spaced
from fasterseg.errors import UsageError
from fasterseg.metrics import ConfusionMatrix
from fasterseg.nn.network import upsample
from fasterseg.preprocess import Geometry
from fasterseg.search.data import read_pair, to_input
from fasterseg.search.distributed import Group
from fasterseg.types import Size

if TYPE_CHECKING:
    from fasterseg.search.supernet import SuperNet

RECALIBRATION: Final = 48
"""Training pictures that the statistics of a network are taken from."""

BATCH: Final = 8
"""Pictures that are run at once."""


@dataclass(frozen=True, slots=True)
class _Truth:
    """Labels of one picture, and how it was fitted to the size of the networks.

    Attributes:
        rows: (h * w,) int64, the true class times the number of classes: where the row of the
            confusion matrix begins. Ignored pixels have a row of their own behind the last class.
        geometry: from the picture to the network and back.
    """

    rows: Tensor
    geometry: Geometry


class SubnetScorer:
    """Scores networks of a supernet, the same network always the same.

    Pictures are read and fitted once, as a deployed engine does it, and stay in host memory.
    Predictions are brought back to the size of the labels before they are counted.

    Args:
        supernet: plain batch norms, as the averaged one of a training has them; it is left as it
            was, bit for bit.
        spec: the data set.
        held_out: pairs that networks are scored on; no supernet was trained on them.
        calibration: pairs that statistics may be taken from: those the supernet was trained on.
        size: the frames' size of the deployed networks.
        recalibration: how many of `calibration` are taken, evenly spaced.
        batch: pictures at once, at least 2.
        precision: "fp32", or "bf16" (autocast).
        device: "cpu" or "cuda", where the supernet is.
        group: processes that divide the networks among them.

    Attributes:
        key: SHA-256 (hex) of everything scores depend on: weights, pictures, size, precision.

    Raises:
        SourceError: a picture or label cannot be read.
        UsageError: there are too few pictures, or none with a labelled pixel.
    """

    def __init__(
        self,
        supernet: SuperNet,
        spec: DatasetSpec,
        held_out: Sequence[Pair],
        calibration: Sequence[Pair],
        size: Size,
        *,
        recalibration: int = RECALIBRATION,
        batch: int = BATCH,
        precision: Literal["fp32", "bf16"] = "fp32",
        device: str = "cpu",
        group: Group | None = None,
    ) -> None:
        if not held_out or min(len(calibration), recalibration) < 2:
            raise UsageError(
                f"{len(held_out)} held-out pictures and {min(len(calibration), recalibration)} for "
                "batch-norm statistics cannot tell networks apart; 1 and 2 are the least that "
                "works, and 50 of each a sensible number"
            )
        self.supernet = supernet
        self.size = size
        self.classes = len(spec.labels)
        self._bf16 = precision == "bf16"
        self._device = device
        self._group = group or Group()
        self._batch = batch
        chosen = spaced(calibration, recalibration)
        self._calibration, _ = self._read(spec, chosen)
        self._held_out, self._truths = self._read(spec, held_out)
        if not any((truth.rows < self.classes**2).any() for truth in self._truths):
            raise UsageError(f"no labelled pixel in {len(held_out)} held-out pictures")
        self.key = self._hash()

    def _read(self, spec: DatasetSpec, pairs: Sequence[Pair]) -> tuple[list[Tensor], list[_Truth]]:
        """Batches of fitted pictures, (N, H, W, 3) uint8 BGR, and the labels of each picture."""
        fitted, truths = [], []
        for pair in pairs:
            image, labels = read_pair(spec, pair)
            geometry = Geometry(Size(*labels.shape), self.size)
            fitted.append(geometry.forward(image))
            classes = np.minimum(labels.ravel(), self.classes).astype(np.int64)
            truths.append(_Truth(torch.from_numpy(classes * self.classes), geometry))
        # Even parts: in a last batch of one picture, a map of one pixel would have no variance.
        parts = np.array_split(np.stack(fitted), max(1, len(fitted) // self._batch))
        return [torch.from_numpy(part) for part in parts], truths

    def _hash(self) -> str:
        digest = hashlib.sha256(f"{self.size} {self._bf16} {self._batch}".encode())
        tensors: dict[str, Tensor] = dict(self.supernet.state_dict())
        tensors |= {f"calibration {i}": images for i, images in enumerate(self._calibration)}
        tensors |= {f"held-out {i}": images for i, images in enumerate(self._held_out)}
        tensors |= {f"labels {i}": truth.rows for i, truth in enumerate(self._truths)}
        for name, tensor in tensors.items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
        return digest.hexdigest()

    @torch.no_grad()
    def __call__(self, genotypes: Sequence[Genotype]) -> list[float]:
        """Score networks; in a group every process asks for the same ones and gets all scores.

        Args:
            genotypes: networks of the supernet's space.

        Returns:
            mIoU of each in [0, 1], in the order given.

        Raises:
            UsageError: the processes ask for different networks.
        """
        assert all(genotype.num_classes == self.classes for genotype in genotypes)
        if not self._group.same([genotype.digest() for genotype in genotypes]):
            raise UsageError(
                "the processes of this search ask for different networks, so they went on from "
                "different files; its folder must be one that all machines see"
            )
        rank, world = self._group.rank, self._group.world
        with _borrowed(self.supernet) as norms:
            own = [self._score(genotype, norms) for genotype in genotypes[rank::world]]
        parts = _gathered(self._group, own)
        return [parts[i % world][i // world] for i in range(len(genotypes))]

    def _score(self, genotype: Genotype, norms: _Norms) -> float:
        network = plan(genotype, self.size)
        with norms.renewed():
            for images in self._calibration:
                self._logits8(network, images)
        counts = torch.zeros((self.classes + 1) * self.classes, dtype=torch.int64)
        truths = iter(self._truths)
        for images in self._held_out:
            logits = upsample(self._logits8(network, images).float(), self.size)
            for prediction in logits.argmax(1).to(torch.uint8).cpu():
                counts += self._counted(prediction, next(truths))
        square = counts[: self.classes**2].view(self.classes, self.classes)
        return ConfusionMatrix.from_counts(square.numpy()).miou

    def _logits8(self, network: Plan, images: Tensor) -> Tensor:
        x = to_input(images.to(self._device))
        with torch.autocast(self._device, torch.bfloat16, enabled=self._bf16):
            return self.supernet.logits8(network, x)

    def _counted(self, prediction: Tensor, truth: _Truth) -> Tensor:
        """Flat confusion matrix of one picture, ignored pixels in the last row."""
        labels = torch.from_numpy(truth.geometry.inverse(prediction.numpy()))
        cells = truth.rows + labels.flatten()
        return torch.bincount(cells, minlength=(self.classes + 1) * self.classes)


class _Norms:
    """The batch norms of a network while it is borrowed."""

    def __init__(self, norms: Sequence[nn.BatchNorm2d]) -> None:
        self._norms = norms
        self._met: set[nn.Module] = set()

    def begin_anew(self, norm: nn.Module, _: Any) -> None:
        """Forget the statistics of a norm when it is first met."""
        if norm.training and norm not in self._met:
            assert isinstance(norm, nn.BatchNorm2d)
            norm.reset_running_stats()
            self._met.add(norm)

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """What runs meanwhile leaves its own statistics in the norms it uses."""
        self._met.clear()
        try:
            for norm in self._norms:
                norm.train()
            yield
        finally:
            for norm in self._norms:
                norm.eval()


@contextlib.contextmanager
def _borrowed(network: nn.Module) -> Iterator[_Norms]:
    """The network in eval mode; modes, momenta and statistics are put back at the end."""
    modes = [(module, module.training) for module in network.modules()]
    norms = [module for module, _ in modes if isinstance(module, nn.BatchNorm2d)]
    assert not any(isinstance(module, nn.SyncBatchNorm) for module, _ in modes)
    momenta = [norm.momentum for norm in norms]
    kept = [{name: b.clone() for name, b in norm.named_buffers()} for norm in norms]
    state = _Norms(norms)
    hooks = [norm.register_forward_pre_hook(state.begin_anew) for norm in norms]
    network.eval()
    try:
        for norm in norms:
            # Every batch counts the same, however many there are.
            norm.momentum = None
        yield state
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum, buffers in zip(norms, momenta, kept, strict=True):
            norm.momentum = momentum
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])
        for module, training in modes:
            module.training = training


def _gathered(group: Group, value: list[float]) -> list[list[float]]:
    """What every process holds, in order of their ranks."""
    if group.world == 1:
        return [value]
    gathered: list[Any] = [None] * group.world
    distributed.all_gather_object(gathered, value)
    return gathered
