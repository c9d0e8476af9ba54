"""The expected latency is the price of the derived network where nothing is in doubt."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from fasterseg.arch.latency import Calibration, LatencyTable  # noqa: E402
from fasterseg.arch.plan import plan  # noqa: E402
from fasterseg.arch.space import SearchSpace  # noqa: E402
from fasterseg.errors import MissingLatencyError, UsageError  # noqa: E402
from fasterseg.search.cost import ExpectedLatency  # noqa: E402
from fasterseg.search.derive import derive_genotype  # noqa: E402
from fasterseg.search.parameters import ArchParameters  # noqa: E402
from fasterseg.types import Size  # noqa: E402
from tests.shared import ROOT  # noqa: E402
from tests.unit.search.mixture_kit import (  # noqa: E402
    SURE,
    all_sets,
    made_up_table,
    sure_logits,
    tensors,
    tiny_space,
)

pytestmark = pytest.mark.torch

CALIBRATED = Calibration(scale=0.9, per_op_ms=0.03, offset_ms=0.4)

SPACES = {
    "paper": (SearchSpace(final_rates=all_sets()), 12),
    "wide_ends": (SearchSpace(layers=9, stem_widths=(6,), head_widths=(10,)), 40),
    # Few layers and candidates: skips crowd, and branches coincide by chance.
    "eight": (tiny_space(layers=8, ops=("skip", "conv", "conv_2x"), final_rates=all_sets()), 80),
    "skip_last": (tiny_space(layers=6, ops=("conv", "skip"), final_rates=all_sets()), 80),
    "one_width": (tiny_space(layers=10, widths=(6,), final_rates=all_sets()), 60),
    "other_ends": (tiny_space(layers=7, widths=(5, 7), stem_widths=(9,), head_widths=(11,)), 20),
    "no_skip": (tiny_space(layers=7, ops=("conv", "conv_2x"), final_rates=all_sets()), 20),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors of this size only lose by threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def price(table: LatencyTable, genotype_of: ArchParameters, space: SearchSpace) -> list[float]:
    return [
        table.price(plan(derive_genotype(genotype_of, rates, space), table.size)).ms
        for rates in space.final_rates
    ]


def expected(latency: ExpectedLatency, logits: ArchParameters) -> list[float]:
    return [float(ms) for ms in latency(*tensors(logits))]


@pytest.mark.parametrize("name", SPACES)
def test_sure_logits_cost_what_their_network_costs(name: str) -> None:
    space, count = SPACES[name]
    table = made_up_table(space, Size(128, 192), calibration=CALIBRATED)
    latency = ExpectedLatency(space, table)
    draw = random.Random(name)
    for _ in range(count):
        logits = sure_logits(space, draw, skips=draw.choice([0, 0.4, 0.8]))
        assert expected(latency, logits) == pytest.approx(price(table, logits, space), rel=1e-9)


def test_coincidences_of_pruned_branches_are_met_in_these_tests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space, count = SPACES["eight"]
    table = made_up_table(space, Size(128, 192))
    latency = ExpectedLatency(space, table)
    nothing = lambda *_: torch.zeros((), dtype=torch.float64)  # noqa: E731
    monkeypatch.setattr(latency, "_chance", nothing)
    draw = random.Random("eight")
    for _ in range(count):
        logits = sure_logits(space, draw, skips=draw.choice([0, 0.4, 0.8]))
        if expected(latency, logits) != pytest.approx(price(table, logits, space), rel=1e-9):
            return
    pytest.fail("no branches coincide by chance")


def test_refusing_every_skip_is_priced_too() -> None:
    space = tiny_space(layers=8)
    table = made_up_table(space)
    latency = ExpectedLatency(space, table, ignore_skip=True)
    logits = sure_logits(space, random.Random(1), skips=0.8)
    for rates, ms in zip(space.final_rates, expected(latency, logits), strict=True):
        genotype = derive_genotype(logits, rates, space, ignore_skip=True)
        assert ms == pytest.approx(table.price(plan(genotype, table.size)).ms, rel=1e-9)


def test_a_single_column_of_widths_stands_for_the_widest() -> None:
    space = tiny_space(layers=8)
    table = made_up_table(space)
    alpha, beta, ratio = tensors(sure_logits(space, random.Random(1)))
    single = [rows[:, :1] * 0 for rows in ratio]
    widest = [torch.tensor([0.0, SURE]).double().repeat(len(rows), 1) for rows in ratio]
    latency = ExpectedLatency(space, table)
    assert torch.equal(latency(alpha, beta, single), latency(alpha, beta, widest))


def random_logits(space: SearchSpace, seed: int, scale: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    layers, ops, widths = space.layers, len(space.ops), len(space.widths)
    shapes = [(layers - scale, ops) for scale in range(3)]
    shapes += [(layers - 2, 2), (layers - 3, 2)]
    shapes += [(layers - 1, widths), (layers - 1, widths), (layers - 2, widths)]
    return [
        (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
        for shape in shapes
    ]


@pytest.mark.parametrize(("seed", "scale"), [(3, 0.5), (4, 2.0), (11, 4.0)])
def test_gradients_are_those_of_finite_differences(seed: int, scale: float) -> None:
    space = tiny_space(layers=6, final_rates=((32, 16), (32, 8), (32, 16, 8)))
    latency = ExpectedLatency(space, made_up_table(space, calibration=CALIBRATED))
    logits = random_logits(space, seed, scale)
    assert torch.autograd.gradcheck(
        lambda *flat: latency(flat[:3], flat[3:5], flat[5:]),
        logits,
        eps=1e-6,
        atol=1e-7,
        fast_mode=True,
    )


def test_more_of_a_cheaper_choice_costs_less() -> None:
    space = tiny_space(layers=6)
    table = made_up_table(space)
    logits = random_logits(space, 0, 0.1)
    latency = ExpectedLatency(space, table)
    torch.autograd.backward(latency(logits[:3], logits[3:5], logits[5:]).sum())
    for rows in logits[5:]:
        assert rows.grad is not None
        # Row sums are zero behind a softmax; the narrow width must be the way down.
        assert (rows.grad[:, 0] <= 0).all()
        assert rows.grad.abs().sum() > 0


def test_the_original_table_prices_the_papers_space() -> None:
    table = LatencyTable.load(
        ROOT / "benchmarks/tables/gtx1080ti-original/tensorrt5.1-fp32-1024x2048.json"
    )
    space = SearchSpace()
    latency = ExpectedLatency(space, table, allow_upsample_mismatch=True)
    logits = sure_logits(space, random.Random(7))
    for rates, ms in zip(space.final_rates, expected(latency, logits), strict=True):
        network = plan(derive_genotype(logits, rates, space), table.size)
        assert ms == pytest.approx(table.price(network, True).ms, rel=1e-9)
    with pytest.raises(UsageError, match="nearest"):
        ExpectedLatency(space, table)


def test_a_call_takes_milliseconds() -> None:
    space = SearchSpace()
    latency = ExpectedLatency(space, made_up_table(space, Size(352, 480)))
    logits = random_logits(space, 0, 1.0)
    seconds = []
    for _ in range(8):
        begun = time.perf_counter()
        latency(logits[:3], logits[3:5], logits[5:])
        seconds.append(time.perf_counter() - begun)
    # 2 to 4 ms on an idle core; the bound leaves room for a busy one.
    assert min(seconds) < 0.02


def test_what_cannot_be_priced_is_refused() -> None:
    space = tiny_space()
    table = made_up_table(space)
    missing = next(key for key in table.rows if key.startswith("conv/32x"))
    poorer = replace(table, rows={key: ms for key, ms in table.rows.items() if key != missing})
    with pytest.raises(MissingLatencyError, match=r"1 of \d+ operators.*--missing-only"):
        ExpectedLatency(space, poorer)
    with pytest.raises(UsageError, match="divide by 32"):
        ExpectedLatency(space, made_up_table(space, Size(72, 96)))
    with pytest.raises(UsageError, match="not among"):
        ExpectedLatency(space, table, [(16, 8)])
    twice = tiny_space(final_rates=((32, 32),))
    with pytest.raises(UsageError, match="repeats a rate"):
        ExpectedLatency(twice, made_up_table(twice))
    short = tiny_space(layers=4, final_rates=((16,),))
    with pytest.raises(UsageError, match="too few"):
        ExpectedLatency(short, made_up_table(short))
