"""mIoU of a torch network on pairs of a data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fasterseg.datasets import DatasetSpec, Pair
from fasterseg.metrics import ConfusionMatrix
from fasterseg.nn.network import Network
from fasterseg.search.data import read_pair, to_input

Evaluation = Callable[[Any], ConfusionMatrix]
"""Scores a network (whatever module is trained) on pictures of its own choice."""


@torch.inference_mode()
def evaluate(network: Network, spec: DatasetSpec, pairs: Sequence[Pair]) -> ConfusionMatrix:
    """Score a network on whole pictures at their own size, in fp32; it is left in eval mode.

    Raises:
        SourceError: a picture or label cannot be read.
    """
    device = next(network.parameters()).device
    matrix = ConfusionMatrix(len(spec.labels))
    network.eval()
    for pair in pairs:
        image, labels = read_pair(spec, pair)
        logits = network(to_input(torch.from_numpy(image[None]).to(device)))
        matrix.add(labels, logits[0].argmax(0).to(torch.uint8).cpu().numpy())
    return matrix


def in_percent(matrix: ConfusionMatrix) -> dict[str, Any]:
    """`miou`, `pixel_accuracy` and `per_class_iou` in percent; None for classes that are absent."""
    return {
        "miou": round(100 * matrix.miou, 3),
        "pixel_accuracy": round(100 * matrix.pixel_accuracy, 3),
        "per_class_iou": [
            None if math.isnan(iou) else round(100 * float(iou), 2) for iou in matrix.per_class_iou
        ],
    }
