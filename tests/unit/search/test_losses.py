from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from fasterseg.search.losses import (  # noqa: E402
    SegmentationLoss,
    class_weights,
    divergence,
    ohem_cross_entropy,
)
from fasterseg.search.settings import LossSettings  # noqa: E402
from tests.shared import shared  # noqa: E402

pytestmark = pytest.mark.torch

REFERENCE = "reference/parity/loss-metric.json"
PLAIN = LossSettings(ohem=1.0, aux=0.2)


def generator(key: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))


def reference_inputs(case: dict[str, Any], salt: str) -> tuple[Tensor, Tensor]:
    """Logits and labels by the rule in the reference file."""
    n, h, w = case["size"]
    name = f"{n}x{h}x{w}"
    logits = generator(f"{salt}loss/logits/{name}").standard_normal((n, 19, h, w)) * case["scale"]
    labels = generator(f"{salt}loss/labels/{name}").integers(0, 19, (n, h, w))
    ignored = generator(f"{salt}loss/ignore/{name}").random((n, h, w)) < case["ignore_fraction"]
    labels[ignored] = 255
    return torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(labels)


@pytest.mark.parametrize("index", range(5))
def test_cross_entropy_equals_the_reference(index: int) -> None:
    data = json.loads(shared(REFERENCE).read_text())
    case = data["cases"][index]
    logits, labels = reference_inputs(case, data["salt"])
    logits.requires_grad_()
    plain = ohem_cross_entropy(logits, labels, 1.0, 0)
    assert plain.item() == pytest.approx(case["plain_ce"], rel=1e-5)
    hard = ohem_cross_entropy(logits, labels, case["ohem_thresh"], case["min_kept"])
    assert hard.item() == pytest.approx(case["ohem_ce"], rel=1e-5)
    torch.autograd.backward(hard)
    assert logits.grad is not None
    assert logits.grad.abs().sum().item() == pytest.approx(case["ohem_grad_abs_sum"], rel=1e-5)
    touched = int((logits.grad.abs().sum(1) > 0).sum())
    assert touched == case["ohem_grad_nonzero_pixels"]


@pytest.mark.parametrize("index", range(5))
def test_divergence_equals_the_reference(index: int) -> None:
    data = json.loads(shared(REFERENCE).read_text())
    case = data["cases"][index]
    student, _ = reference_inputs(case, data["salt"])
    name = "x".join(map(str, case["size"]))
    noise = generator(f"{data['salt']}loss/teacher/{name}").standard_normal(student.shape)
    teacher = torch.from_numpy((noise * case["scale"]).astype(np.float32))
    expected = pytest.approx(case["kl_mean_reduction"], rel=1e-5)
    assert divergence(student, teacher).item() == expected


def random_case(seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 5, 8, 8, generator=random)
    labels = torch.randint(0, 5, (2, 8, 8), generator=random)
    labels[:, 0] = 255
    return logits, labels


def test_only_hard_pixels_get_a_gradient() -> None:
    logits, labels = random_case()
    logits[0, :, 5, 5] = torch.tensor([9.0, 0, 0, 0, 0])
    labels[0, 5, 5] = 0
    logits.requires_grad_()
    torch.autograd.backward(ohem_cross_entropy(logits, labels, 0.7, 0))
    assert logits.grad is not None
    assert logits.grad[0, :, 5, 5].abs().sum() == 0
    assert logits.grad[0, :, 4, 4].abs().sum() > 0
    assert logits.grad[:, :, 0].abs().sum() == 0


def test_enough_pixels_are_kept_when_all_are_easy() -> None:
    labels = torch.randint(0, 5, (1, 8, 8), generator=torch.Generator().manual_seed(1))
    logits = 20.0 * functional.one_hot(labels, 5).permute(0, 3, 1, 2).float()
    logits = logits + 0.1 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    logits.requires_grad_()
    torch.autograd.backward(ohem_cross_entropy(logits, labels, 0.7, 10))
    assert logits.grad is not None
    # Probabilities this near to 1 tie in float32, so a few more than asked for may be kept.
    assert int((logits.grad.abs().sum(1) > 0).sum()) >= 10


def test_a_batch_without_labels_costs_nothing() -> None:
    logits, labels = random_case()
    logits.requires_grad_()
    for weights in (None, torch.ones(5)):
        loss = ohem_cross_entropy(logits, torch.full_like(labels, 255), 0.7, 4, 255, weights)
        torch.autograd.backward(loss)
        assert loss.item() == 0


def test_class_weights_scale_the_mean_as_in_torch() -> None:
    logits, labels = random_case()
    weights = torch.tensor([1.0, 2.0, 3.0, 0.5, 0.1])
    ours = ohem_cross_entropy(logits, labels, 1.0, 0, 255, weights)
    theirs = functional.cross_entropy(logits, labels, weights, ignore_index=255)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_balanced_weights_average_one_over_the_pixels() -> None:
    shares = torch.tensor([0.7, 0.25, 0.05, 0.0])
    weights = class_weights(shares, 0.5)
    assert weights is not None
    assert (weights * shares).sum().item() == pytest.approx(1)
    assert (weights[2] / weights[0]).item() == pytest.approx((0.7 / 0.05) ** 0.5)
    assert weights[3] == 1
    assert class_weights(shares, 0.0) is None


def heads() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(3)
    sizes = {"head": 8, "aux.16": 4, "aux.32": 2}
    return {role: torch.randn(1, 5, side, side, generator=random) for role, side in sizes.items()}


def test_training_heads_weigh_a_fifth_and_are_judged_at_full_size() -> None:
    outputs = heads()
    labels = torch.randint(0, 5, (1, 64, 64), generator=torch.Generator().manual_seed(4))
    terms = SegmentationLoss(PLAIN)(outputs, labels)
    grown = functional.interpolate(outputs["aux.16"], (64, 64), mode="bilinear", align_corners=True)
    expected = 0.2 * functional.cross_entropy(grown, labels)
    assert terms["aux.16"].item() == pytest.approx(expected.item(), rel=1e-5)
    parts = terms["head"] + terms["aux.16"] + terms["aux.32"]
    assert terms["total"].item() == pytest.approx(parts.item(), rel=1e-6)


def test_coarser_judging_of_the_training_heads_is_close() -> None:
    outputs = heads()
    labels = torch.zeros(1, 64, 64, dtype=torch.int64)
    labels[:, 32:] = 1
    full = SegmentationLoss(PLAIN)(outputs, labels)
    half = SegmentationLoss(LossSettings(ohem=1.0, aux_stride=2))(outputs, labels)
    assert half["head"] == full["head"]
    for role in ("aux.16", "aux.32"):
        assert half[role].item() == pytest.approx(full[role].item(), rel=0.05)


def test_without_weight_the_training_heads_are_not_asked_for() -> None:
    assert SegmentationLoss(LossSettings(aux=0.0)).roles == ("head",)
    assert SegmentationLoss(PLAIN).roles == ("head", "aux.16", "aux.32")


def test_a_teacher_adds_its_divergence_and_none_from_itself() -> None:
    outputs, labels = heads(), torch.zeros(1, 64, 64, dtype=torch.int64)
    loss = SegmentationLoss(LossSettings(ohem=1.0, distill=2.0))
    assert loss(outputs, labels, outputs["head"])["distill"].item() == pytest.approx(0, abs=1e-7)
    other = heads()["head"].flip(1)
    terms = loss(outputs, labels, other)
    grow = {"size": (64, 64), "mode": "bilinear", "align_corners": True}
    expected = 2 * divergence(
        functional.interpolate(outputs["head"], **grow),  # type: ignore[arg-type]
        functional.interpolate(other, **grow),  # type: ignore[arg-type]
    )
    assert terms["distill"].item() == pytest.approx(expected.item(), rel=1e-5)
