from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")

from fasterseg.arch.genotype import Genotype  # noqa: E402
from fasterseg.arch.plan import plan  # noqa: E402
from fasterseg.arch.space import SearchSpace  # noqa: E402
from fasterseg.nn.network import Network  # noqa: E402
from fasterseg.nn.weights import from_arrays  # noqa: E402
from fasterseg.search.subnets import largest, mutate, random_subnet, smallest  # noqa: E402
from fasterseg.search.supernet import SuperNet  # noqa: E402
from fasterseg.types import Size  # noqa: E402

pytestmark = pytest.mark.torch

SIZE = Size(64, 96)
SPACE = SearchSpace(
    layers=5,
    widths=(4, 6, 8),
    stem_widths=(4, 8),
    head_widths=(4, 6, 12),
    final_rates=((32, 16), (32, 8), (16,), (32, 16, 8)),
    num_classes=5,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def supernet() -> SuperNet:
    """In evaluation mode, with random norms: nothing is the identity."""
    module = SuperNet(SPACE).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.data.normal_(1.0, 0.1, generator=generator)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0.0, 0.1, generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=generator)
    return module


def drawn(count: int) -> list[Genotype]:
    rng = random.Random(1)
    ends = [largest(SPACE, rng), smallest(SPACE, rng)]
    return [*ends, *(random_subnet(SPACE, rng) for _ in range(count))]


def test_an_extracted_network_says_what_the_supernet_says(supernet: SuperNet) -> None:
    x = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    genotypes = drawn(10)
    assert {g.stem_width for g in genotypes} == {4, 8}
    assert {g.head_width for g in genotypes} == {4, 6, 12}
    assert {tuple(b.final_rate for b in g.branches) for g in genotypes} == set(SPACE.final_rates)
    for genotype in genotypes:
        laid_out = plan(genotype, SIZE)
        network = Network(laid_out).eval()
        from_arrays(network, supernet.extract(laid_out))
        with torch.inference_mode():
            ours, theirs = supernet.logits8(laid_out, x), network.logits8(x)
        assert tuple(ours.shape) == (2, 5, 8, 12)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_what_is_extracted_are_copies(supernet: SuperNet) -> None:
    laid_out = plan(drawn(0)[0], SIZE)
    before = supernet.extract(laid_out)
    for array in supernet.extract(laid_out).values():
        array[...] = 0
    after = supernet.extract(laid_out)
    assert all((before[name] == after[name]).all() for name in before)


def test_every_weight_is_used_by_some_network_to_the_full() -> None:
    # A slot, a width or a batch norm that no network reaches would be memory for nothing.
    space = SearchSpace(
        layers=4, ops=("skip", "conv", "conv_downup"), widths=(4, 6), stem_widths=(4, 6),
        head_widths=(4, 8), final_rates=((32, 16), (8,)), num_classes=3,
    )  # fmt: skip
    module = SuperNet(space).train()
    x = torch.randn(2, 3, 64, 64)
    rng = random.Random(3)
    genotype = largest(space, rng)
    for _ in range(120):
        genotype = mutate(space, genotype, rng, 0.4)
        module(x, plan(genotype, Size(64, 64))).square().mean().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None] == []
    for name, parameter in module.named_parameters():
        if parameter.ndim == 4 and parameter.grad is not None:
            assert (parameter.grad != 0).any(dim=3).any(dim=2).any(dim=0).all(), name


def test_branches_share_weights_wherever_they_have_the_same_slot() -> None:
    names = set(dict(SuperNet(SPACE).named_parameters()))
    slots = {name.split(".conv")[0] for name in names if name.startswith("cells.")}
    assert "cells.8.0" in slots
    assert "cells.8.down" in slots
    assert not any(name.startswith("cells.32.down") for name in names), "nothing is coarser"
    assert not any(".skip." in name for name in names)
    assert {name.split(".conv")[0] for name in names if name.startswith("fuse.")} == {
        "fuse.16.8", "fuse.32.8", "fuse.32.16",
    }  # fmt: skip


def test_only_slots_that_can_occur_are_there() -> None:
    space = SearchSpace(layers=4, ops=("skip", "conv"), final_rates=((32, 16),))
    names = {name.split(".conv.")[0] for name, _ in SuperNet(space).named_parameters()}
    cells = sorted(name.removeprefix("cells.") for name in names if name.startswith("cells."))
    # Both branches have all four layers; that to 1/32 has at most two cells at one rate.
    assert cells == ["16.0", "16.1", "16.2", "16.down", "32.0", "32.1", "8.0", "8.1", "8.down"]


def test_a_narrow_pass_leaves_the_statistics_of_wide_maps_alone() -> None:
    space = SearchSpace(layers=3, stem_widths=(4, 8), final_rates=((16,),), num_classes=3)
    module = SuperNet(space).train()
    wide = module.get_submodule("stem.2.conv2.norms.1")
    before = wide.get_buffer("running_mean").clone()
    module(torch.randn(2, 3, 64, 64), plan(smallest(space, random.Random(0)), Size(64, 64)))
    assert torch.equal(wide.get_buffer("running_mean"), before)
    narrow = module.get_submodule("stem.2.conv2.norms.0")
    assert not torch.equal(narrow.get_buffer("running_mean"), torch.zeros(32))
