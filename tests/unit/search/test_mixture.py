"""The supernet equals the original's, and by default the network that is derived from it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fasterseg.arch.operators import CANDIDATES  # noqa: E402
from fasterseg.arch.space import SearchSpace  # noqa: E402
from fasterseg.errors import ConfigError, UsageError  # noqa: E402
from fasterseg.nn.network import initialize, upsample  # noqa: E402
from fasterseg.search.coderived import derived, inherited, space_of  # noqa: E402
from fasterseg.search.mixture import KINDS, Kind, Mixture, set_name  # noqa: E402
from fasterseg.search.mixture_names import original_names  # noqa: E402
from fasterseg.search.mixture_widths import (  # noqa: E402
    Widths,
    chosen_widths,
    equal_widths,
    random_widths,
)
from fasterseg.search.parameters import ArchParameters  # noqa: E402
from fasterseg.types import Size  # noqa: E402
from tests.parity import fill, fixture_input, generator  # noqa: E402
from tests.shared import shared  # noqa: E402
from tests.unit.search.mixture_kit import sure_logits, tiny_space  # noqa: E402

pytestmark = pytest.mark.torch

PARAMETERS, ENTRIES = 252_057_316, 14_761
"""Of the original's supernet, its architecture tensors among them."""

ARCHITECTURE = 822


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def original() -> Mixture:
    """The original's supernet, without numbers."""
    with torch.device("meta"):
        return Mixture(SearchSpace(), original=True)


def test_the_supernet_has_the_size_of_the_originals(original: Mixture) -> None:
    # The original also stores a scale and a shift for each slimmable norm that it never uses.
    unused = [
        int([*norms.children()][-1].num_features)  # type: ignore[arg-type]
        for module in original.modules()
        for name, norms in module.named_children()
        if name == "norms"
    ]
    assert sum(one.numel() for one in original.parameters()) + 2 * sum(unused) == PARAMETERS
    assert len(original.state_dict()) + 2 * len(unused) == ENTRIES
    assert sum(one.numel() for one in original.logits.parameters()) == ARCHITECTURE


def test_original_names_are_unique_and_of_the_originals_grammar(original: Mixture) -> None:
    names = original_names(original)
    assert len(set(names.values())) == len(names) == len(original.state_dict())
    assert {
        "cells.0.0._op._ops.0.conv1.weight", "cells.14.1.downsample._ops.4.bn2.bn.4.running_var",
        "cells.3.0._op._ops.0.bn.bn.2.bias", "stem.1.2.conv2.weight", "stem.0.0.conv.0.weight",
        "refine32.1.3.conv.1.weight", "refine16.0.0.conv.0.weight", "head02.1.conv_1x1.bias",
        "head0.0.conv_3x3.bn.weight", "alpha_0_2", "beta_1_2", "ratio_1_0",
    } <= set(names.values())  # fmt: skip


def test_every_recorded_prediction_is_reproduced(original: Mixture) -> None:
    recorded = np.load(shared("reference/parity/supernet.npz"))
    net = fill_supernet(original)
    x = torch.from_numpy(fixture_input("input/1x3x64x128", (1, 3, 64, 128)))
    checked = 0
    for kind in KINDS:
        arch = net.arch(kind)
        widths = {
            "max": equal_widths(16, 12),
            "min": equal_widths(16, 4),
            "arch": chosen_widths(tuple(arch.ratio), net.widths_of(kind)),
        }
        for mode, drawn in widths.items():
            with torch.inference_mode():
                found = net.predictions(x, kind, arch.relaxed(net.refused), drawn)
            for name, logits in found.items():
                full = upsample(logits, Size(64, 128)).numpy()
                key = f"{kind}/{mode}/{name}"
                assert np.abs(full[:, :, ::8, ::8] - recorded[key]).max() <= 1e-4, key
                stats = [full.mean(), full.std(), np.abs(full).max()]
                assert stats == pytest.approx(recorded[f"{key}#stat"].tolist(), abs=1e-4)
                checked += 1
    assert checked == 30


def fill_supernet(net: Mixture) -> Mixture:
    """Fill by the rule of the fixtures; a gigabyte, hence only here."""
    net = net.to_empty(device="cpu").eval()
    names = original_names(net)
    for ours, tensor in net.state_dict().items():
        shape, theirs = tuple(tensor.shape), names[ours]
        values = fill(theirs, shape)
        if ours.startswith("logits."):
            noise = generator(f"lat-a/arch/{theirs}").standard_normal(shape)
            values = np.round(noise, 4).astype(np.float32)
        tensor.copy_(torch.from_numpy(np.asarray(values)))
    return net


def small(**changes: object) -> Mixture:
    """A supernet of five layers with numbers in it, batch norms included."""
    net = Mixture(tiny_space(**changes))
    source = torch.Generator().manual_seed(5)
    initialize(net, source)
    for name, tensor in net.state_dict().items():
        if "norms" in name or ".bn" in name:
            if name.endswith(("weight", "running_var")):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=source))
            elif name.endswith(("bias", "running_mean")):
                tensor.copy_(0.2 * torch.randn(tensor.shape, generator=source))
    return net.eval()


def sure(net: Mixture, kind: Kind, seed: int) -> ArchParameters:
    logits = sure_logits(space_of(net, kind), random.Random(seed))
    net.arch(kind).put(
        ArchParameters(
            *(
                tuple(rows.astype(np.float32) for rows in one)
                for one in (logits.alpha, logits.beta, logits.ratio)
            )
        )
    )
    return logits


@pytest.fixture(scope="module")
def without_skip() -> Mixture:
    """Skips change widths when they are pruned; without them nothing is approximate."""
    return small(
        ops=("conv", "conv_2x_downup"), final_rates=((32, 16), (32, 8), (16,), (8, 32, 16))
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_sure_logits_make_the_supernet_the_network_that_is_derived(
    without_skip: Mixture, kind: Kind, seed: int
) -> None:
    net = without_skip
    sure(net, kind, seed)
    arch = net.arch(kind)
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        widths = chosen_widths(tuple(arch.ratio), net.widths_of(kind))
        found = net.predictions(x, kind, arch.relaxed(net.refused), widths)
        for rates in net.space.final_rates:
            network = inherited(net, kind, rates).eval()
            assert network.plan.genotype == derived(net, kind, rates)
            assert torch.allclose(found[set_name(rates)], network.logits8(x), atol=1e-4)


def test_a_pruned_skip_passes_its_map_on() -> None:
    net = small(widths=(4,), final_rates=((8,),))
    arch = net.arch("student")
    with torch.no_grad():
        for rows in arch.alpha:
            rows.copy_(torch.tensor([0.0, 300.0, 150.0]).expand_as(rows))
        arch.alpha[0][2] = torch.tensor([300.0, 0.0, 150.0])
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        found = net.predictions(x, "student", arch.relaxed(net.refused), equal_widths(5, 4))
        network = inherited(net, "student", (8,)).eval()
        assert len(network.plan.genotype.branches[0].ops) == 4
        assert torch.allclose(found["8"], network.logits8(x), atol=1e-4)


def test_the_originals_supernet_hands_no_weights_on() -> None:
    net = Mixture(tiny_space(), original=True)
    with pytest.raises(UsageError, match="original = false"):
        inherited(net, "student", (32, 16))


def test_predictions_are_those_of_the_spaces_branches() -> None:
    assert [*small().sets] == ["8", "16", "32", "8_32", "16_32"]
    assert [*small(final_rates=((16, 8),)).sets] == ["8", "16", "8_16"]
    assert small(final_rates=((16, 8),)).scales == 2
    x = torch.randn(1, 3, 64, 96)
    net = small(final_rates=((16, 8),))
    relaxed = net.arch("teacher").relaxed(net.refused)
    shapes = [p.shape for p in net.predictions(x, "teacher", relaxed, equal_widths(5, 6)).values()]
    assert shapes == [(1, 4, 8, 12)] * 3
    assert net(x).shape == (1, 4, 64, 96)
    assert net(torch.randn(1, 3, 72, 100)).shape == (1, 4, 72, 100)


def test_strided_cells_never_choose_skip_and_weigh_the_others_as_before() -> None:
    arch = small().arch("student")
    with torch.no_grad():
        arch.alpha[0].copy_(torch.randn(5, 3))
    relaxed = arch.relaxed(skip=0)
    assert (relaxed.strided[0][:, 0] == 0).all()
    share = relaxed.alpha[0][:, 1] / relaxed.alpha[0][:, 2]
    assert torch.allclose(relaxed.strided[0][:, 1] / relaxed.strided[0][:, 2], share)


@pytest.mark.parametrize("space", [tiny_space(), tiny_space(ops=CANDIDATES)])
def test_the_loss_reaches_every_kind_of_logits(space: SearchSpace) -> None:
    net = Mixture(space)
    initialize(net, torch.Generator().manual_seed(1))
    arch = net.arch("student")
    widths = chosen_widths(tuple(arch.ratio), space.widths)
    x = torch.randn(2, 3, 64, 96)
    found = net.predictions(x, "student", arch.relaxed(net.refused), widths)
    torch.autograd.backward([logits.square().mean() for logits in found.values()])
    for rows in arch.parameters():
        assert rows.grad is not None
        assert float(rows.grad.abs().sum()) > 0


def test_pictures_that_do_not_divide_are_refused() -> None:
    net = small()
    relaxed = net.arch("student").relaxed(net.refused)
    with pytest.raises(ConfigError, match="divide by 32"):
        net.predictions(torch.zeros(1, 3, 72, 96), "student", relaxed, equal_widths(5, 4))


def test_random_widths_run_and_are_the_seeds() -> None:
    net = small()
    arch = net.arch("student")
    drawn = [random_widths(5, (4, 6), torch.Generator().manual_seed(n)) for n in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        outs = [net.predictions(x, "student", arch.relaxed(net.refused), w)["8"] for w in drawn]
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def layouts(widths: Widths) -> Iterator[int]:
    return (len(rows) for rows in widths.twelfths)


def test_noise_decides_and_the_most_likely_width_wins_without() -> None:
    ratio = [torch.zeros(rows, 3) for rows in (4, 4, 3)]
    ratio[1][2, 1] = 1.0
    likely = chosen_widths(ratio, (4, 6, 8))
    assert [*layouts(likely)] == [4, 4, 3]
    assert likely.twelfths[1] == (4, 4, 6, 4)
    noise = [torch.zeros(rows, 3) for rows in (4, 4, 3)]
    noise[0][:, 2] = 5.0
    assert chosen_widths(ratio, (4, 6, 8), noise=noise).twelfths[0] == (8,) * 4


@pytest.mark.parametrize("estimator", ["gumbel", "reinmax"])
def test_factors_are_one_and_carry_a_gradient(estimator: str) -> None:
    ratio = [torch.randn(rows, 3).requires_grad_() for rows in (4, 4, 3)]
    widths = chosen_widths(ratio, (4, 6, 8), estimator=estimator)  # type: ignore[arg-type]
    assert widths.factors is not None
    for factor, rows in zip(widths.factors, ratio, strict=True):
        assert torch.allclose(factor, torch.ones(len(rows)))
        torch.autograd.backward(factor.sum())
        assert rows.grad is not None
        assert (rows.grad.abs().sum(-1) > 0).all()
        assert rows.grad.sum(-1).abs().max() < 1e-5


def test_a_colder_softmax_is_steeper_near_a_tie() -> None:
    def slope(temperature: float) -> float:
        ratio = [torch.zeros(rows, 2).requires_grad_() for rows in (4, 4, 3)]
        factors = chosen_widths(ratio, (4, 6), temperature=temperature).factors
        assert factors is not None
        torch.autograd.backward(factors[0].sum())
        assert ratio[0].grad is not None
        return float(ratio[0].grad.abs().sum())

    slopes = [slope(temperature) for temperature in (2.0, 1.0, 0.5)]
    assert all(a < b for a, b in pairwise(slopes))
