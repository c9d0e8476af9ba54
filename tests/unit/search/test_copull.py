"""The pull on the student's latency: it reaches its target, and the original's window."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from fasterseg.arch.plan import plan  # noqa: E402
from fasterseg.search.copull import (  # noqa: E402
    NoPull,
    OriginalPull,
    Pull,
    TargetPull,
    make_pull,
)
from fasterseg.search.cosettings import CoSearchSettings  # noqa: E402
from fasterseg.search.cost import ExpectedLatency  # noqa: E402
from fasterseg.search.derive import derive_genotype  # noqa: E402
from fasterseg.search.mixture_logits import ArchLogits  # noqa: E402
from fasterseg.search.mixture_widths import chosen_widths  # noqa: E402
from tests.unit.search.mixture_kit import (  # noqa: E402
    made_up_table,
    sure_logits,
    tiny_space,
)

pytestmark = pytest.mark.torch

SPACE = tiny_space(layers=6)
TABLE = made_up_table(SPACE)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def logits() -> ArchLogits:
    return ArchLogits(SPACE.layers, len(SPACE.ops), len(SPACE.widths))


def expected_ms(arch: ArchLogits) -> float:
    groups = arch.groups()
    latency = ExpectedLatency(SPACE, TABLE)
    return float(latency(groups["alpha"], groups["beta"], groups["ratio"]).detach().max())


def descend(arch: ArchLogits, pull: Pull, steps: int, loss: float = 0.0) -> float:
    """Adam on the pull alone, or against a loss that wants every logit to be `loss`."""
    optimizer = torch.optim.Adam(arch.parameters(), lr=0.05, betas=(0.5, 0.999))
    figures: dict[str, float] = {}
    for _ in range(steps):
        relaxed = arch.relaxed(0)
        widths = chosen_widths(tuple(arch.ratio), SPACE.widths)
        slopes = {
            kind: [
                loss * (2 * torch.arange(one.shape[-1]) - 1.0 + 0 * one.detach()) for one in rows
            ]
            for kind, rows in arch.groups().items()
        }
        pulled, figures = pull(arch, relaxed, widths, slopes)
        for kind, rows in arch.groups().items():
            for one, slope in zip(rows, pulled[kind], strict=True):
                one.grad = slope
        optimizer.step()
    return figures["latency_ms"]


@pytest.mark.parametrize("penalty", ["lagrangian", "absolute"])
@pytest.mark.parametrize("share", [0.85, 1.1])
def test_the_pull_alone_drives_the_latency_to_its_target(penalty: str, share: float) -> None:
    arch = logits()
    target = share * expected_ms(arch)
    settings = CoSearchSettings(target_ms=target, penalty=penalty)  # type: ignore[arg-type]
    pull = make_pull(settings, SPACE, TABLE)
    assert isinstance(pull, TargetPull)
    descend(arch, pull, 150)
    assert expected_ms(arch) == pytest.approx(target, rel=0.02)


def test_the_multiplier_holds_the_target_against_a_loss_that_wants_more() -> None:
    """A fixed weight would settle where the two balance, wherever that is."""
    free = logits()
    descend(free, TargetPull(CoSearchSettings(target_ms=1e6, strength=1e-9), latency()), 150, -1.0)
    start = logits()
    target = 0.85 * expected_ms(start)
    assert expected_ms(free) > 1.1 * target
    arch = logits()
    pull = TargetPull(CoSearchSettings(target_ms=target, dual_rate=0.3), latency())
    descend(arch, pull, 400, -1.0)
    assert expected_ms(arch) < 1.05 * target
    assert pull.multiplier > 0


def latency() -> ExpectedLatency:
    return ExpectedLatency(SPACE, TABLE)


def test_the_slowest_set_of_branches_is_the_one_that_counts() -> None:
    arch = logits()
    pull = TargetPull(CoSearchSettings(target_ms=1.0), latency())
    groups = arch.groups()
    sets = latency()(groups["alpha"], groups["beta"], groups["ratio"])
    slopes = {kind: [torch.zeros_like(one) for one in rows] for kind, rows in groups.items()}
    widths = chosen_widths(tuple(arch.ratio), SPACE.widths)
    _, figures = pull(arch, arch.relaxed(0), widths, slopes)
    assert figures["latency_ms"] == pytest.approx(float(sets.detach().max()))
    assert len(sets) == 2
    assert float(sets.detach().min()) < float(sets.detach().max())


def test_each_kind_of_logits_feels_latency_at_the_scale_of_its_own_loss() -> None:
    arch = logits()
    pull = TargetPull(CoSearchSettings(target_ms=0.01, penalty="absolute"), latency())
    sizes = {"alpha": 1.0, "beta": 1e-3, "ratio": 50.0}
    slopes = {
        kind: [sizes[kind] * torch.randn_like(one) for one in rows]
        for kind, rows in arch.groups().items()
    }
    widths = chosen_widths(tuple(arch.ratio), SPACE.widths)
    pulled, _ = pull(arch, arch.relaxed(0), widths, slopes)
    for kind, rows in slopes.items():
        added = [a - b for a, b in zip(pulled[kind], rows, strict=True)]
        ratio = _norm(added) / _norm(rows)
        assert ratio == pytest.approx(1.0, rel=1e-3), kind


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.cat([one.detach().flatten() for one in tensors]).norm())


def test_the_originals_weight_follows_its_window_of_frame_rates() -> None:
    settings = CoSearchSettings(original=True, latency_weight=0.01)
    space = tiny_space(layers=9)
    table = made_up_table(space)
    parameters = sure_logits(space, random.Random(0))
    rates = [
        1000
        / table.price(plan(derive_genotype(parameters, s, space, original=True), table.size)).ms
        for s in space.final_rates
    ]
    slow, fast = min(rates), max(rates)
    windows = {
        (0.4 * slow, 0.9 * fast): 0.005,
        (1.1 * slow, 2 * fast): 0.02,
        (0.5 * slow, 2 * fast): 0.01,
        # One too slow and one fast enough: halving comes first.
        (slow, fast): 0.005,
    }
    for window, weight in windows.items():
        pull = OriginalPull(replace(settings, fps_window=window), space, table)
        pull.end_epoch(parameters)
        assert pull.weight == weight, window
        other = OriginalPull(settings, space, table)
        other.restore(pull.state())
        assert other.weight == weight


def test_without_a_target_latency_counts_for_nothing() -> None:
    pull = make_pull(CoSearchSettings(), SPACE, TABLE)
    assert isinstance(pull, NoPull)
    arch = logits()
    slopes = {kind: [torch.ones_like(one) for one in rows] for kind, rows in arch.groups().items()}
    widths = chosen_widths(tuple(arch.ratio), SPACE.widths)
    pulled, figures = pull(arch, arch.relaxed(0), widths, slopes)
    assert figures == {}
    assert all(pulled[kind][0] is slopes[kind][0] for kind in slopes)
    pull.end_epoch(arch.parameters_taken())
    pull.restore(pull.state())
