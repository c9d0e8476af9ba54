"""The fused network gives what the reference gives, by torch and by our kernels (emulated)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.arch.genotype import Branch, Genotype
from fasterseg.arch.plan import Plan, plan
from fasterseg.errors import UnsupportedError, UsageError, WeightsError
from fasterseg.graph.weights import Weights, balance_head, load_weights, seeded_weights
from fasterseg.preprocess import normalize
from fasterseg.runtime.kernels import KernelLibrary
from fasterseg.streets import images
from fasterseg.types import Precision, Size
from tests.parity import assert_meaningful, random_genotype, street_like
from tests.shared import ROOT, zoo_genotype
from tests.unit.cpp import toolchain

torch = pytest.importorskip("torch", reason="torch not installed")

from torch import Tensor  # noqa: E402 - needs torch

from fasterseg.nn.fused import FusedNetwork, Variant, cudnn_mode  # noqa: E402
from fasterseg.nn.lanes import Lanes  # noqa: E402
from fasterseg.nn.launches import TorchLaunches  # noqa: E402
from fasterseg.nn.network import Network, upsample  # noqa: E402
from fasterseg.nn.weights import from_arrays  # noqa: E402

pytestmark = pytest.mark.torch


@cache
def skips() -> Genotype:
    """Skips that do nothing, change channels, and halve the map."""
    branches = (
        Branch(("skip", "skip", "skip", "conv_downup"), (8, 8, 8, 16), (8, 6, 6)),
        Branch(("skip", "conv_2x", "skip"), (8, 8, 8), (8, 5)),
    )
    return Genotype("skips", 19, 8, 5, branches)


def genotypes() -> dict[str, Genotype]:
    zoo = {name: zoo_genotype(f"fasterseg-{name}") for name in ("student", "teacher")}
    return {**zoo, "skips": skips(), **{f"random-{n}": random_genotype(n) for n in range(4)}}


def batch(size: Size, count: int = 1) -> NDArray[np.uint8]:
    return np.concatenate([street_like(size, seed) for seed in range(count)])


def reference(of: Plan, weights: Weights, frames: NDArray[np.uint8]) -> Tensor:
    """Logits of the network as written, in float32."""
    network = Network(of)
    from_arrays(network, weights)
    with torch.no_grad():
        return network.eval().logits8(torch.from_numpy(normalize(frames)))


def off(logits: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest logit."""
    assert logits.shape == expected.shape
    return float((logits - expected).abs().max() / expected.abs().max())


def labels(network: FusedNetwork, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out = torch.full(frames.shape[:3], 255, dtype=torch.uint8)
    network.labels(torch.from_numpy(frames), out)
    return np.asarray(out.numpy())


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> KernelLibrary:
    """Our kernels on host memory; they are tested for undefined behaviour elsewhere."""
    folder = tmp_path_factory.mktemp("emulated")
    return KernelLibrary(toolchain.emulated(folder, "-fno-sanitize=undefined"))


# --- by torch


@pytest.mark.parametrize("name", sorted(genotypes()))
def test_logits_equal_the_references(name: str) -> None:
    frames = batch(Size(64, 128), 2)
    of = plan(genotypes()[name], Size(64, 128))
    weights = seeded_weights(of)
    expected = reference(of, weights, frames)
    for variant in (Variant(lanes=2), Variant(zoomed=True)):
        network = FusedNetwork(of, weights, "fp32", "cpu", variant=variant)
        got = network.logits8(torch.from_numpy(frames))
        assert got.dtype == torch.float32
        assert off(got, expected) <= 1e-4


@pytest.mark.parametrize(
    ("name", "size"),
    [("student", Size(65, 71)), ("student", Size(64, 64)), ("teacher", Size(79, 101))],
)
def test_odd_and_least_sizes(name: str, size: Size) -> None:
    frames = batch(size)
    of = plan(genotypes()[name], size)
    weights = seeded_weights(of)
    network = FusedNetwork(of, weights, "fp32", "cpu", variant=Variant())
    expected = reference(of, weights, frames)
    assert off(network.logits8(torch.from_numpy(frames)), expected) <= 1e-4
    whole = upsample(expected, size).argmax(dim=1).numpy()
    assert np.mean(labels(network, frames) == whole) >= 0.999


def test_labels_equal_the_references() -> None:
    frames = batch(Size(256, 512))
    of = plan(zoo_genotype("fasterseg-student"), Size(256, 512))
    weights = seeded_weights(of)
    weights = balance_head(weights, reference(of, weights, frames).numpy())
    network = FusedNetwork(of, weights, "fp32", "cpu", variant=Variant(lanes=2))
    assert network.tail == "torch"
    expected = upsample(reference(of, weights, frames), of.size).argmax(dim=1).numpy()
    assert_meaningful(expected, 19)
    assert np.mean(labels(network, frames) == expected) >= 0.9999


def test_training_heads_do_not_matter() -> None:
    of = plan(zoo_genotype("fasterseg-student"), Size(64, 96), aux_heads=True)
    weights, frames = seeded_weights(of), batch(Size(64, 96))
    network = FusedNetwork(of, weights, "fp32", "cpu", variant=Variant())
    expected = reference(of, weights, frames)
    assert off(network.logits8(torch.from_numpy(frames)), expected) <= 1e-4


@pytest.mark.parametrize(("precision", "limit"), [("fp16", 5e-3), ("bf16", 3e-2)])
def test_half_precisions_are_near(precision: Precision, limit: float, tiny_plan: Plan) -> None:
    weights, frames = seeded_weights(tiny_plan), batch(tiny_plan.size)
    network = FusedNetwork(tiny_plan, weights, precision, "cpu", variant=Variant())
    expected = reference(tiny_plan, weights, frames)
    assert 0 < off(network.logits8(torch.from_numpy(frames)), expected) <= limit


# --- by our kernels


class Counted:
    """The kernel library, counting calls."""

    def __init__(self, kernels: KernelLibrary) -> None:
        self._kernels, self.calls = kernels, dict[str, int]()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] = self.calls.get(name, 0) + 1
        return getattr(self._kernels, name)


@pytest.mark.parametrize(
    ("variant", "resizes", "zoomed"),
    [
        (Variant(lanes=2), True, 0),
        (Variant(zoomed=True), True, 4),
        (Variant(resize="torch"), False, 0),
    ],
)
def test_the_variants_kernels_give_the_same_in_fp16(
    variant: Variant,
    resizes: bool,
    zoomed: int,
    kernels: KernelLibrary,
    tiny_genotype: Genotype,
) -> None:
    of, counted = plan(tiny_genotype, Size(64, 64)), Counted(kernels)
    weights, frames = seeded_weights(of), batch(of.size, 2)
    library = cast("KernelLibrary", counted)
    network = FusedNetwork(of, weights, "fp16", "cpu", variant=variant, kernels=library)
    got = network.logits8(torch.from_numpy(frames))
    assert off(got, reference(of, weights, frames)) <= 5e-3
    expected = {"normalize_bgr": 1}
    if resizes:
        made = network.schedule.launches
        joined = [len(one.inputs) for one in made if one.kind == "join"]
        expected["resize"] = sum(one.kind == "resize" for one in made) + sum(joined)
    if zoomed:
        expected |= {"zoomed_conv": zoomed, "zoomed_conv_workspace": zoomed}
    assert counted.calls == expected


@pytest.mark.parametrize(("precision", "share"), [("fp32", 0.9999), ("fp16", 0.999)])
@pytest.mark.parametrize("size", [Size(128, 192), Size(123, 181)])
def test_kernels_give_the_trained_networks_labels(
    size: Size, precision: Precision, share: float, kernels: KernelLibrary
) -> None:
    of = plan(zoo_genotype("fasterseg-camvid"), size)
    weights = load_weights(ROOT / "fasterseg" / "zoo" / "fasterseg-camvid.safetensors", of)
    frames = np.ascontiguousarray([image for image, _ in images(1, 1, size)])
    network = FusedNetwork(of, weights, precision, "cpu", variant=Variant(lanes=2), kernels=kernels)
    assert network.tail == "kernel"
    expected = upsample(reference(of, weights, frames), size).argmax(dim=1).numpy()
    assert len(np.unique(expected)) >= 4
    assert np.mean(labels(network, frames) == expected) >= share


def test_bf16_takes_the_kernels_that_know_float32(kernels: KernelLibrary, tiny_plan: Plan) -> None:
    weights, frames = seeded_weights(tiny_plan), batch(tiny_plan.size)
    without, with_ones = (
        FusedNetwork(tiny_plan, weights, "bf16", "cpu", variant=Variant(zoomed=True), kernels=one)
        for one in (None, kernels)
    )
    assert np.mean(labels(without, frames) == labels(with_ones, frames)) >= 0.999


# --- launch by launch


def test_single_steps_are_the_launches_and_can_be_repeated(tiny_plan: Plan) -> None:
    frames = torch.from_numpy(batch(tiny_plan.size))
    weights = seeded_weights(tiny_plan)
    network = FusedNetwork(tiny_plan, weights, "fp32", "cpu", variant=Variant(lanes=2))
    before = network.logits8(frames)
    steps = network.single_steps(frames)
    assert tuple(launch for launch, _ in steps) == network.schedule.launches
    for _, step in [*steps, *reversed(steps)]:
        step()
    assert torch.equal(network.logits8(frames), before)


def test_a_pass_over_lanes_holds_what_they_share(
    tiny_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for streams: `tests/unit/nn/test_lanes.py` has the order."""
    from tests.unit.nn.test_lanes import Device, Event

    device = Device()
    monkeypatch.setattr(torch.cuda, "Stream", device.make)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", device.use)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: device.current)
    frames = torch.from_numpy(batch(tiny_plan.size))
    weights = seeded_weights(tiny_plan)
    network = FusedNetwork(tiny_plan, weights, "fp32", "cpu", variant=Variant(lanes=2))
    before = network.logits8(frames)
    network._lanes = Lanes(network.schedule, torch.device("cuda"))
    assert torch.equal(network.logits8(frames), before)
    assert len(device.streams) == 1


# --- cuDNN's fused call, by a stand-in


def like_cudnn(
    x: Tensor, weight: Tensor, bias: Tensor, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    assert (dilation, groups) == ((1, 1), 1)
    y = torch.nn.functional.conv2d(x.float(), weight.float(), bias.float(), stride, padding)
    made: Tensor = torch.relu(y).to(x.dtype)
    return made


def fusing(monkeypatch: pytest.MonkeyPatch, call: Callable[..., Tensor]) -> None:
    """As on a GPU: half precisions go to cuDNN."""
    monkeypatch.setattr(torch, "cudnn_convolution_relu", call)
    original = TorchLaunches.__init__

    def made(self: TorchLaunches, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self._fused = True

    monkeypatch.setattr(TorchLaunches, "__init__", made)


def test_convolutions_take_bias_and_relu_with_them(
    tiny_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def counted(*arguments: Any) -> Tensor:
        seen.append(arguments)
        return like_cudnn(*arguments)

    fusing(monkeypatch, counted)
    weights, frames = seeded_weights(tiny_plan), batch(tiny_plan.size)
    network = FusedNetwork(tiny_plan, weights, "fp16", "cpu", variant=Variant())
    got = network.logits8(torch.from_numpy(frames))
    assert off(got, reference(tiny_plan, weights, frames)) <= 5e-3
    whole = [one for one in network.schedule.launches if one.kind == "conv" and one.has_bias]
    assert len(seen) == len(whole) > 10
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x, *_ in seen)


def test_what_cudnn_cannot_fuse_is_asked_for_once(
    tiny_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refusing(*arguments: Any) -> Tensor:
        asked.append(arguments)
        raise RuntimeError("GET was unable to find an engine to execute this computation")

    fusing(monkeypatch, refusing)
    weights, frames = seeded_weights(tiny_plan), batch(tiny_plan.size)
    network = FusedNetwork(tiny_plan, weights, "fp16", "cpu", variant=Variant())
    first = network.logits8(torch.from_numpy(frames))
    assert off(first, reference(tiny_plan, weights, frames)) <= 5e-3
    times = len(asked)
    network.logits8(torch.from_numpy(frames))
    assert len(asked) == times == network.unfused > 0


def test_memory_that_runs_out_is_no_refusal(
    tiny_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    fusing(monkeypatch, full)
    network = FusedNetwork(tiny_plan, seeded_weights(tiny_plan), "fp16", "cpu", variant=Variant())
    with pytest.raises(torch.OutOfMemoryError):
        network.logits8(torch.from_numpy(batch(tiny_plan.size)))


# --- compiled


def compiled(tiny_plan: Plan, weights: Weights) -> FusedNetwork:
    variant = Variant(resize="torch", compiled=True)
    return FusedNetwork(tiny_plan, weights, "fp32", "cpu", variant=variant)


def test_all_between_the_ends_can_be_compiled_as_one(
    tiny_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, modes = torch.compile, []

    def traced(work: Callable[..., Any], *, mode: str, **options: Any) -> Any:
        modes.append(mode)
        return original(work, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", traced)
    weights, frames = seeded_weights(tiny_plan), batch(tiny_plan.size)
    network = compiled(tiny_plan, weights)
    expected = reference(tiny_plan, weights, frames)
    for _ in range(2):
        assert off(network.logits8(torch.from_numpy(frames)), expected) <= 1e-4
    assert modes == ["max-autotune-no-cudagraphs"]


def test_a_network_that_cannot_be_compiled_says_so(
    tiny_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        def call(x: Tensor) -> Tensor:
            raise RuntimeError("no triton\nsecond line")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    network = compiled(tiny_plan, seeded_weights(tiny_plan))
    with pytest.raises(UnsupportedError, match=r"\(no triton\); run it uncompiled"):
        network.logits8(torch.from_numpy(batch(tiny_plan.size)))


@pytest.mark.parametrize(
    "wrong",
    [{"lanes": 0}, {"compiled": True}, {"compiled": True, "resize": "torch", "lanes": 2}],
)
def test_variants_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="variant"):
        Variant(**wrong)


def test_names_tell_variants_apart() -> None:
    assert Variant().name == "lanes1"
    assert Variant(lanes=2, zoomed=True, search=False).name == "lanes2+zoomed+unsearched"
    assert Variant(resize="torch", compiled=True).name == "compiled"


# --- what is refused, what is left as it was


def test_other_precisions_and_weights_are_refused(tiny_plan: Plan) -> None:
    weights = seeded_weights(tiny_plan)
    with pytest.raises(UsageError, match="int8"):
        FusedNetwork(tiny_plan, weights, "int8", "cpu", variant=Variant())
    del weights["head.project.bias"]
    with pytest.raises(WeightsError, match=r"head\.project\.bias"):
        FusedNetwork(tiny_plan, weights, "fp32", "cpu", variant=Variant())


def test_settings_of_cudnn_come_back_after_an_error() -> None:
    cudnn: Any = torch.backends.cudnn

    def settings() -> tuple[Any, ...]:
        tf32 = cudnn.conv.fp32_precision if hasattr(cudnn, "conv") else cudnn.allow_tf32
        return cudnn.benchmark, tf32

    before = settings()

    def fail() -> None:
        with cudnn_mode(search=not before[0], exact=True):
            assert settings() in ((not before[0], "ieee"), (not before[0], False))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert settings() == before
