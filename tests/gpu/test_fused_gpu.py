"""The fused network on a GPU: every variant's labels, captured or not, with nothing waited for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.arch.plan import Plan, plan
from fasterseg.graph.weights import Weights, load_weights, seeded_weights
from fasterseg.preprocess import normalize
from fasterseg.runtime.kernels import KernelLibrary
from fasterseg.streets import images
from fasterseg.types import Precision, Size
from tests.parity import random_genotype, street_like
from tests.shared import ROOT, zoo_genotype

torch = pytest.importorskip("torch", reason="torch not installed")

from torch import Tensor  # noqa: E402 - needs torch

from fasterseg.nn.fused import FusedNetwork, Variant  # noqa: E402
from fasterseg.nn.network import Network, upsample  # noqa: E402
from fasterseg.nn.tuning import candidates  # noqa: E402
from fasterseg.nn.weights import from_arrays  # noqa: E402
from fasterseg.runtime.base import PIXEL_AGREEMENT  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.torch]

SIZE = Size(256, 512)
CASES = [
    (precision, with_kernels, variant)
    for precision in ("fp16", "bf16", "fp32")
    for with_kernels in (True, False)
    for variant in candidates(precision, with_kernels)
]


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that torch hands out holds NaN, so that what is read without being written shows."""
    blocks = [torch.full((size,), float("nan"), device="cuda") for size in [1 << 24] * 16]
    del blocks
    yield
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


@cache
def trained(size: Size = SIZE) -> tuple[Plan, Weights]:
    of = plan(zoo_genotype("fasterseg-camvid"), size)
    return of, load_weights(ROOT / "fasterseg" / "zoo" / "fasterseg-camvid.safetensors", of)


@cache
def streets(count: int = 2, size: Size = SIZE) -> NDArray[np.uint8]:
    return np.ascontiguousarray([image for image, _ in images(0, count, size)])


@cache
def reference(count: int = 2, size: Size = SIZE) -> NDArray[np.int64]:
    """Labels of the network as written, in float32 on the CPU."""
    of, weights = trained(size)
    network = Network(of)
    from_arrays(network, weights)
    with torch.no_grad():
        logits = network.eval().logits8(torch.from_numpy(normalize(streets(count, size))))
        return np.asarray(upsample(logits, size).argmax(dim=1).numpy())


def opened(
    precision: Precision, variant: Variant, kernels: KernelLibrary | None, size: Size = SIZE
) -> FusedNetwork:
    return FusedNetwork(*trained(size), precision, "cuda", variant=variant, kernels=kernels)


def placed(frames: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Frames on the GPU, and a place for their labels."""
    given = torch.from_numpy(frames).cuda()
    return given, torch.full(given.shape[:3], 255, dtype=torch.uint8, device="cuda")


def share(labels: Tensor, expected: NDArray[Any]) -> float:
    return float(np.mean(labels.cpu().numpy() == expected))


@pytest.mark.parametrize(
    ("precision", "with_kernels", "variant"),
    CASES,
    ids=[f"{one[0]}-{'ours' if one[1] else 'torch'}-{one[2].name}" for one in CASES],
)
def test_labels_equal_the_references(
    precision: Precision, with_kernels: bool, variant: Variant, kernels: KernelLibrary
) -> None:
    network = opened(precision, variant, kernels if with_kernels else None)
    frames, out = placed(streets())
    # Twice: the second pass takes memory that the first one used.
    for _ in range(2):
        out.fill_(255)
        network.labels(frames, out)
        assert share(out, reference()) >= PIXEL_AGREEMENT[precision]


@pytest.mark.parametrize("size", [Size(263, 517), Size(65, 71)])
def test_odd_sizes(size: Size, kernels: KernelLibrary) -> None:
    frames, out = placed(streets(1, size))
    opened("fp32", Variant(lanes=2), kernels, size).labels(frames, out)
    assert share(out, reference(1, size)) >= 0.9999


@pytest.mark.parametrize("seed", range(6))
def test_all_operators(seed: int, kernels: KernelLibrary) -> None:
    of = plan(random_genotype(seed), Size(128, 192))
    weights, frames = seeded_weights(of), street_like(of.size)
    network = Network(of)
    from_arrays(network, weights)
    with torch.no_grad():
        expected = network.eval().logits8(torch.from_numpy(normalize(frames)))
    limits: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}
    for precision, limit in limits.items():
        for zoomed in (False, True):
            made = FusedNetwork(
                of, weights, precision, "cuda",
                variant=Variant(lanes=3, zoomed=zoomed), kernels=kernels,
            )  # fmt: skip
            got = made.logits8(torch.from_numpy(frames).cuda()).cpu()
            assert float((got - expected).abs().max() / expected.abs().max()) <= limit


@pytest.mark.parametrize("with_kernels", [True, False])
@pytest.mark.parametrize("lanes", [1, 2])
def test_nothing_is_waited_for(lanes: int, with_kernels: bool, kernels: KernelLibrary) -> None:
    resize: Any = "kernel" if with_kernels else "torch"
    variant = Variant(lanes=lanes, resize=resize)
    network = opened("fp16", variant, kernels if with_kernels else None)
    frames, out = placed(streets())
    network.labels(frames, out)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        network.labels(frames, out)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert share(out, reference()) >= PIXEL_AGREEMENT["fp16"]


@pytest.mark.parametrize("zoomed", [False, True])
@pytest.mark.parametrize("lanes", [1, 2])
def test_replays_follow_the_frames(lanes: int, zoomed: bool, kernels: KernelLibrary) -> None:
    network = opened("fp16", Variant(lanes=lanes, zoomed=zoomed), kernels)
    pictures = [torch.from_numpy(one[None].copy()).cuda() for one in streets()]
    frames, out = placed(streets()[:1].copy())
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    expected = []
    with torch.cuda.stream(stream):
        for picture in pictures:
            network.labels(picture, out)
            expected.append(out.clone())
    with torch.cuda.graph(graph, stream=stream):
        network.labels(frames, out)
    with torch.cuda.stream(stream):
        different = [torch.zeros((), device="cuda", dtype=torch.int64)] * 2
        for turn in range(100):
            frames.copy_(pictures[turn % 2])
            out.fill_(255)
            graph.replay()
            different[turn % 2] = different[turn % 2] + (out != expected[turn % 2]).sum()
    torch.cuda.synchronize()
    for total in different:
        assert int(total) <= 50 * SIZE.pixels * 1e-4


def test_single_steps_can_be_timed(kernels: KernelLibrary) -> None:
    network = opened("fp16", Variant(lanes=2), kernels)
    frames, _ = placed(streets())
    steps = network.single_steps(frames)
    assert tuple(launch for launch, _ in steps) == network.schedule.launches
    for _, step in steps:
        step()
    torch.cuda.synchronize()


@pytest.mark.slow
def test_a_compiled_network_gives_the_same(kernels: KernelLibrary) -> None:
    network = opened("fp16", Variant(resize="torch", compiled=True), kernels)
    frames, out = placed(streets())
    network.labels(frames, out)
    assert share(out, reference()) >= PIXEL_AGREEMENT["fp16"]
