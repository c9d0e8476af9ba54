"""Losses: hard-pixel cross entropy over the three heads, and the divergences from a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from fasterseg.nn.network import upsample
from fasterseg.search.settings import LossSettings
from fasterseg.types import Size

HEAD_SCALES: Final[Mapping[str, int]] = {"head": 8, "aux.16": 16, "aux.32": 32}
"""Role of a head -> how much coarser than the input its logits are."""

MOST_PROCESSES: Final = 1 << 16
"""One labelled pixel among this many processes still counts as one."""

Mean = Callable[[Tensor], Tensor]
"""Mean of a number over the processes of a run."""


def alone(value: Tensor) -> Tensor:
    """The `Mean` of a lone process."""
    return value


def ohem_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    threshold: float,
    min_kept: int,
    ignore_id: int = 255,
    class_weights: Tensor | None = None,
    mean: Mean = alone,
) -> Tensor:
    """Cross entropy over hard pixels only (spec section 6.3; Shrivastava et al., CVPR 2016).

    Hard are the pixels whose true class has a probability of at most `threshold`; if these are
    fewer than `min_kept`, the limit rises until that many are kept. Batches with fewer valid
    pixels than `min_kept` count all of them. Several processes each select among their own pixels,
    and each divides by the mean number kept, so that averaged gradients are those of one batch.

    Args:
        logits: (N, C, H, W) float.
        labels: (N, H, W) int64 train ids.
        threshold: in (0, 1]; 1 keeps every pixel.
        min_kept: number of pixels of the batch.
        ignore_id: label of pixels without class.
        class_weights: (C,) or None.
        mean: over the processes that share the batch.

    Returns:
        Scalar: the (weighted) mean over the kept pixels; 0 where nothing is labelled.
    """
    log_p = functional.log_softmax(logits, dim=1)
    if threshold < 1:
        labels = _hard_labels(log_p.detach(), labels, threshold, min_kept, ignore_id)
    total = functional.nll_loss(
        log_p, labels, class_weights, ignore_index=ignore_id, reduction="sum"
    )
    valid = labels != ignore_id
    if class_weights is None:
        return total / mean(valid.sum().float()).clamp(min=1 / MOST_PROCESSES)
    weight = mean(class_weights[labels[valid]].sum())
    return total / weight.clamp(min=torch.finfo(weight.dtype).tiny)


def _hard_labels(
    log_p: Tensor, labels: Tensor, threshold: float, min_kept: int, ignore_id: int
) -> Tensor:
    """The labels with all but the hard pixels ignored."""
    valid = labels != ignore_id
    if min_kept >= int(valid.sum()):
        return labels
    index = labels.masked_fill(~valid, 0).unsqueeze(1)
    p = log_p.gather(1, index).squeeze(1).exp().masked_fill(~valid, 1.0)
    limit = threshold
    if min_kept > 0 and int((p <= threshold).sum()) < min_kept:
        limit = max(threshold, float(p.flatten().kthvalue(min_kept).values))
    return labels.masked_fill(p > limit, ignore_id)


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) in fp32, the mean over all N * C * H * W elements as in the original.

    Args:
        student: (N, C, H, W) logits.
        teacher: the same, without gradient.
        temperature: both are divided by it, and the loss multiplied by its square (Hinton et al.,
            2015), so that gradients keep their size; 1 is the original's.
    """
    student_log = functional.log_softmax(student.float() / temperature, dim=1)
    teacher_log = functional.log_softmax(teacher.detach().float() / temperature, dim=1)
    total = functional.kl_div(student_log, teacher_log, reduction="sum", log_target=True)
    return total * temperature**2 / student.numel()


def channel_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Channel-wise distillation of logits in fp32 (Shu et al., ICCV 2021, equation 4).

    Each class map is a distribution over positions; what counts is where a class is looked for,
    not how high its logits are.

    Args:
        student: (N, C, h, w) logits.
        teacher: the same, without gradient.
        temperature: above 0; the higher, the wider the region that counts.

    Returns:
        Scalar: temperature ** 2 x KL(teacher || student), the mean over the N * C maps.
    """
    student_log = functional.log_softmax(student.float().flatten(2) / temperature, dim=2)
    teacher_log = functional.log_softmax(teacher.detach().float().flatten(2) / temperature, dim=2)
    total = functional.kl_div(student_log, teacher_log, reduction="sum", log_target=True)
    maps = student.shape[0] * student.shape[1]
    return total * temperature**2 / maps


def class_weights(shares: Tensor, balance: float) -> Tensor | None:
    """Weights `share ** -balance` whose mean over the labelled pixels is 1.

    Args:
        shares: (C,) share of the pixels of each class; absent classes weigh 1.
        balance: 0 for none.
    """
    if balance == 0:
        return None
    weights = shares.clamp(min=1e-12) ** -balance
    weights = weights / (weights * shares).sum()
    return torch.where(shares > 0, weights, torch.ones_like(weights))


@dataclass(frozen=True)
class SegmentationLoss:
    """The sum that training minimises.

    Attributes:
        settings: weights of its terms.
        weights: (C,) of the classes, or None.
        ignore_id: label of pixels without class.
        mean: over the processes that share a batch.
    """

    settings: LossSettings
    weights: Tensor | None = None
    ignore_id: int = 255
    mean: Mean = alone

    @property
    def roles(self) -> tuple[str, ...]:
        """The heads that it looks at."""
        return tuple(HEAD_SCALES) if self.settings.aux > 0 else ("head",)

    def __call__(
        self, outputs: Mapping[str, Tensor], labels: Tensor, teacher: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the terms.

        Args:
            outputs: head -> (N, C, h, w) logits at its own scale.
            labels: (N, H, W) int64 train ids.
            teacher: (N, C, h8, w8) logits of the teacher's main head.

        Returns:
            Scalars: "total" and its terms, each already weighted.
        """
        full = _grown(outputs["head"], "head", labels)
        terms = {"head": self._cross_entropy(full, labels)}
        stride = self.settings.aux_stride
        coarse = labels[:, ::stride, ::stride]
        for role in outputs:
            if role != "head":
                logits = _grown(outputs[role], role, coarse, stride)
                terms[role] = self.settings.aux * self._cross_entropy(logits, coarse)
        if teacher is not None:
            terms["distill"] = self.settings.distill * self._divergence(outputs, full, teacher)
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def _divergence(self, outputs: Mapping[str, Tensor], full: Tensor, teacher: Tensor) -> Tensor:
        temperature = self.settings.distill_temperature
        if self.settings.distill_kind == "channel":
            return channel_divergence(outputs["head"], teacher, temperature)
        size = Size(full.shape[2], full.shape[3])
        against = upsample(teacher.float(), size, HEAD_SCALES["head"])
        return divergence(full, against, temperature)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return ohem_cross_entropy(
            logits,
            labels,
            self.settings.ohem,
            int(self.settings.min_kept * labels.numel()),
            self.ignore_id,
            self.weights,
            self.mean,
        )


def _grown(logits: Tensor, role: str, labels: Tensor, stride: int = 1) -> Tensor:
    """Logits of a head in fp32, at the size of the labels it is judged on."""
    size = Size(labels.shape[1], labels.shape[2])
    return upsample(logits.float(), size, HEAD_SCALES[role] // stride)
