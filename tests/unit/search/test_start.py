from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from fasterseg.arch.genotype import Genotype  # noqa: E402
from fasterseg.arch.plan import plan  # noqa: E402
from fasterseg.errors import ConfigError  # noqa: E402
from fasterseg.nn.network import Network, initialize  # noqa: E402
from fasterseg.nn.weights import to_arrays  # noqa: E402
from fasterseg.search.settings import OptimizerSettings  # noqa: E402
from fasterseg.search.start import make_optimizer, place, warm_start  # noqa: E402
from fasterseg.types import Size  # noqa: E402

pytestmark = pytest.mark.torch


def network_of(genotype: Genotype, seed: int = 0) -> Network:
    network = Network(plan(genotype, Size(64, 64), aux_heads=True))
    initialize(network, torch.Generator().manual_seed(seed))
    return network


def test_norms_and_biases_are_not_decayed(tiny_genotype: Genotype) -> None:
    network = network_of(tiny_genotype)
    decayed, others = make_optimizer(network, OptimizerSettings(weight_decay=0.1)).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert {p.ndim for p in decayed["params"]} == {4}
    assert {p.ndim for p in others["params"]} == {1}
    [everything] = make_optimizer(network, OptimizerSettings(decay_all=True)).param_groups
    assert len(everything["params"]) == len(list(network.parameters()))


def test_a_placed_network_computes_the_same_with_channels_last(tiny_genotype: Genotype) -> None:
    network = network_of(tiny_genotype).eval()
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    before = network(x)
    assert place(network, "cpu") is network
    weight = network.get_parameter("stem.1.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(x), before, atol=1e-4, rtol=1e-4)


def test_a_warm_start_takes_everything_of_the_same_architecture(tiny_genotype: Genotype) -> None:
    source, target = (network_of(tiny_genotype, seed) for seed in (1, 2))
    assert warm_start(target, to_arrays(source)) == []
    weights = source.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in target.state_dict().items())


def test_a_warm_start_keeps_a_random_head_for_other_classes(tiny_genotype: Genotype) -> None:
    source = network_of(replace(tiny_genotype, num_classes=19), seed=1)
    served = {n: w for n, w in to_arrays(source).items() if not n.startswith("aux.")}
    target = network_of(tiny_genotype, seed=2)
    left = warm_start(target, served)
    assert {name for name in left if not name.startswith("aux.")} == {
        "head.project.bias",
        "head.project.weight",
    }
    name = "stem.1.conv1.weight"
    assert torch.equal(target.state_dict()[name], torch.from_numpy(served[name]))


def test_a_warm_start_from_another_architecture_is_refused(tiny_genotype: Genotype) -> None:
    wide = network_of(replace(tiny_genotype, stem_width=8))
    with pytest.raises(ConfigError, match="another architecture"):
        warm_start(network_of(tiny_genotype), to_arrays(wide))
