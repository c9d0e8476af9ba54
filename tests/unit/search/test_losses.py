from __future__ import annotations

import json
import zlib
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from fasterseg.nn.network import upsample  # noqa: E402
from fasterseg.search.losses import (  # noqa: E402
    SegmentationLoss,
    channel_divergence,
    class_weights,
    divergence,
    ohem_cross_entropy,
)
from fasterseg.search.settings import LossSettings  # noqa: E402
from fasterseg.types import Size  # noqa: E402
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


def test_channel_divergence_equals_the_formula() -> None:
    random = torch.Generator().manual_seed(3)
    student = torch.randn(2, 3, 4, 5, generator=random, dtype=torch.float64)
    teacher = torch.randn(2, 3, 4, 5, generator=random, dtype=torch.float64)
    temperature = 4.0
    expected = 0.0
    for n in range(2):
        for c in range(3):
            p = (teacher[n, c].flatten() / temperature).softmax(0)
            q = (student[n, c].flatten() / temperature).softmax(0)
            expected += float((p * (p / q).log()).sum())
    value = channel_divergence(student, teacher, temperature).item()
    assert value == pytest.approx(expected * temperature**2 / 6, rel=1e-5)


def test_channel_divergence_looks_at_places_and_not_at_levels() -> None:
    student = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    levels = torch.tensor([5.0, -2.0, 0.5]).view(1, 3, 1, 1)
    assert channel_divergence(student, student + levels, 1.0).item() == pytest.approx(0, abs=1e-6)
    assert divergence(student, student + levels).item() > 0.01
    moved = student.roll(1, dims=3)
    assert channel_divergence(student, moved, 1.0).item() > 0.1


def test_temperature_softens_both_sides_and_keeps_the_size_of_gradients() -> None:
    student, _ = random_case(1)
    teacher, _ = random_case(2)
    softened = divergence(student / 3, teacher / 3).item() * 9
    assert divergence(student, teacher, 3.0).item() == pytest.approx(softened, rel=1e-5)


@pytest.mark.parametrize("kind", ["kl", "channel"])
def test_the_kind_of_distillation_is_the_one_asked_for(kind: str) -> None:
    settings = replace(PLAIN, aux=0, distill=2.0, distill_kind=kind, distill_temperature=2.0)  # type: ignore[arg-type]
    student = torch.randn(1, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    teacher = torch.randn(1, 5, 2, 2, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(1, 16, 16, dtype=torch.int64)
    terms = SegmentationLoss(settings)({"head": student}, labels, teacher)
    if kind == "channel":
        expected = channel_divergence(student, teacher, 2.0)
    else:
        size = Size(16, 16)
        expected = divergence(upsample(student, size), upsample(teacher, size), 2.0)
    assert terms["distill"].item() == pytest.approx(2 * expected.item(), rel=1e-6)


def mean_of(known: Tensor, own: Tensor) -> Tensor:
    """What `Group.mean` gives in each of two processes, whatever its own count is."""
    assert own.shape == known.shape
    return known


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    """Each process divides by the mean count, and gradients are averaged over processes."""
    logits, labels = random_case(4)
    labels[0, 3:] = 255
    weights = torch.tensor([0.5, 1.0, 2.0, 1.5, 0.7])
    for chosen in (None, weights):
        whole = ohem_cross_entropy(logits, labels, 1.0, 0, class_weights=chosen)
        counts = []
        parts = [(logits[i : i + 1], labels[i : i + 1]) for i in range(2)]
        for _, ids in parts:
            valid = ids[ids != 255]
            counts.append(float(len(valid) if chosen is None else chosen[valid].sum()))
        mean = partial(mean_of, torch.tensor(sum(counts) / 2))
        values = [
            ohem_cross_entropy(x, ids, 1.0, 0, class_weights=chosen, mean=mean) for x, ids in parts
        ]
        assert sum(v.item() for v in values) / 2 == pytest.approx(whole.item(), rel=1e-5)
