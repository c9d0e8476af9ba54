"""The compiled kernels on a GPU: against the definitions, the emulation and torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch not installed")

from fasterseg.preprocess import normalize  # noqa: E402
from fasterseg.runtime.kernels import (  # noqa: E402
    KernelLibrary,
    Layout,
    Resize,
    Type,
    UpsampleArgmax,
    ZoomedConv,
)
from tests.gpu.conftest import CudaMemory  # noqa: E402
from tests.unit.cpp import toolchain  # noqa: E402
from tests.unit.cpp.calls import (  # noqa: E402
    Around,
    Array,
    Colours,
    HostMemory,
    assert_labels,
    assert_maps,
    assert_rounded,
    convolutions,
    normalize_bgr,
    resize,
    resize_reference,
    upsample_argmax,
    zoomed_conv,
    zoomed_reference,
)

pytestmark = [pytest.mark.gpu, pytest.mark.torch]

VARIANTS = [(count, stride) for count in (1, 2) for stride in (1, 2)]


def logits_of(*shape: int, dtype: type[np.generic] = np.float32, seed: int = 0) -> Array:
    return (2 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


# --- normalize_bgr


@pytest.mark.parametrize("kind", list(Type))
@pytest.mark.parametrize(
    ("layout", "channels"),
    [(Layout.NCHW, 3), (Layout.NHWC, 3), (Layout.NHWC, 4), (Layout.NHWC, 8)],
)
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 5, 7), (2, 33, 34), (1, 720, 1280)])
def test_normalisation_equals_the_reference_bit_for_bit(
    kernels: KernelLibrary, memory: CudaMemory, size: tuple[int, int, int],
    layout: Layout, channels: int, kind: Type,
) -> None:  # fmt: skip
    frames = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    got = normalize_bgr(kernels, memory, frames, kind, layout, channels)
    expected = normalize(frames).astype(np.float16 if kind is Type.FP16 else np.float32)
    if layout is Layout.NHWC:
        np.testing.assert_array_equal(got[..., :3], expected.transpose(0, 2, 3, 1))
        assert (got[..., 3:] == 0).all()
    else:
        np.testing.assert_array_equal(got, expected)


# --- upsample_argmax


@pytest.mark.parametrize("height", [1, 2, 3, 7, 8, 9, 31])
@pytest.mark.parametrize("width", [1, 2, 15, 16, 17, 18, 61])
def test_labels_are_exact_at_any_size(
    kernels: KernelLibrary, memory: CudaMemory, height: int, width: int
) -> None:
    logits = logits_of(2, 19, height, width)
    for size in ((8 * height, 8 * width), (8 * height - 5, 8 * width - 7)):
        labels, _ = upsample_argmax(kernels, memory, logits, size)
        assert_labels(labels, logits, size)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("classes", [1, 11, 19, 32, 33, 127])
def test_labels_are_exact_for_any_number_of_classes(
    kernels: KernelLibrary, memory: CudaMemory, classes: int, layout: Layout,
    dtype: type[np.generic],
) -> None:  # fmt: skip
    logits = logits_of(2, classes, 13, 21, dtype=dtype)
    spare = 5 if layout is Layout.NHWC else 0
    labels, _ = upsample_argmax(kernels, memory, logits, (104, 168), layout, spare)
    assert_labels(labels, logits, (104, 168))


def test_first_of_equal_classes_wins(kernels: KernelLibrary, memory: CudaMemory) -> None:
    three = logits_of(1, 3, 20, 40)
    labels, _ = upsample_argmax(kernels, memory, np.repeat(three, 9, axis=1), (160, 320))
    assert set(np.unique(labels)) == {0, 9, 18}
    equal = np.zeros((1, 19, 5, 5), np.float16)
    assert (upsample_argmax(kernels, memory, equal, (40, 40))[0] == 0).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_labels_equal_torch_at_full_size(
    kernels: KernelLibrary, memory: CudaMemory, dtype: type[np.generic]
) -> None:
    logits = logits_of(1, 19, 128, 256, dtype=dtype)
    labels, _ = upsample_argmax(kernels, memory, logits, (1024, 2048))
    full = torch.nn.functional.interpolate(
        torch.from_numpy(logits).cuda().double(), scale_factor=8, mode="bilinear",
        align_corners=True,
    )  # fmt: skip
    top = full.topk(2, dim=1)
    clear = (top.values[:, 0] - top.values[:, 1]).cpu().numpy() > 1e-4
    expected = top.indices[:, 0].cpu().numpy()
    assert clear.mean() > 0.999
    assert (labels[clear] == expected[clear]).all()


def test_gpu_and_emulation_agree_bit_for_bit(
    kernels: KernelLibrary, memory: CudaMemory, tmp_path: Path
) -> None:
    emulated = KernelLibrary(toolchain.emulated(tmp_path))
    logits = logits_of(1, 40, 11, 37, dtype=np.float16)
    on_gpu, _ = upsample_argmax(kernels, memory, logits, (88, 296))
    on_cpu, _ = upsample_argmax(emulated, HostMemory(), logits, (88, 296))
    np.testing.assert_array_equal(on_gpu, on_cpu)


def test_overlay_blends_the_palette_over_the_frames(
    kernels: KernelLibrary, memory: CudaMemory
) -> None:
    random = np.random.default_rng(1)
    palette = random.integers(0, 256, (19, 3), dtype=np.uint8)
    frames = random.integers(0, 256, (2, 61, 135, 3), dtype=np.uint8)
    labels, overlay = upsample_argmax(
        *(kernels, memory, logits_of(2, 19, 8, 17), (61, 135)),
        colours=Colours(palette, 0.4, frames),
    )
    assert overlay is not None
    exact = frames * (1 - np.float32(0.4)) + palette[labels] * np.float32(0.4)
    assert np.abs(overlay - exact).max() <= 0.5 + 1e-3


# --- zoomed_conv


@pytest.mark.parametrize(("count", "stride"), VARIANTS)
@pytest.mark.parametrize("size", [(2, 2), (3, 5), (17, 33), (31, 2), (40, 70), (45, 61)])
@pytest.mark.parametrize("channels", [(8, 8), (40, 24), (64, 72)])
def test_maps_are_right_at_any_size(
    kernels: KernelLibrary, memory: CudaMemory, channels: tuple[int, int], size: tuple[int, int],
    count: int, stride: int,
) -> None:  # fmt: skip
    random = np.random.default_rng(size)
    maps = random.standard_normal((2, *size, channels[0])).astype(np.float16)
    convs = convolutions(random, *channels, count)
    got = zoomed_conv(kernels, memory, maps, convs, stride)
    assert_maps(got, zoomed_reference(maps, convs, stride))


STUDENT = [
    (32, 32, 128, 256, 2, 1), (32, 128, 128, 256, 1, 2), (128, 64, 64, 128, 2, 1),
    (64, 128, 64, 128, 2, 2), (128, 256, 32, 64, 2, 1), (64, 192, 64, 128, 2, 1),
    (192, 128, 64, 128, 2, 1),
]  # fmt: skip
"""In and out channels, height, width, convolutions, stride of the student at 1024x2048."""


@pytest.mark.parametrize("cell", STUDENT, ids=str)
def test_cells_of_the_student_are_right_and_repeatable(
    kernels: KernelLibrary, memory: CudaMemory, cell: tuple[int, ...]
) -> None:
    in_channels, out_channels, height, width, count, stride = cell
    random = np.random.default_rng(cell)
    maps = random.standard_normal((1, height, width, in_channels)).astype(np.float16)
    convs = convolutions(random, in_channels, out_channels, count)
    got = zoomed_conv(kernels, memory, maps, convs, stride)
    assert_maps(got, zoomed_reference(maps, convs, stride))
    # A result that moves between runs is a race.
    for _ in range(5):
        np.testing.assert_array_equal(zoomed_conv(kernels, memory, maps, convs, stride), got)


# --- resize


@pytest.mark.parametrize(
    "target", [(1, 1), (5, 7), (8, 18), (15, 37), (16, 36), (17, 36), (31, 71), (48, 108)], ids=str
)
@pytest.mark.parametrize("channels", [8, 40, 72])
@pytest.mark.parametrize("batch", [1, 24])
def test_resized_maps_are_right_at_any_size(
    kernels: KernelLibrary, memory: CudaMemory, batch: int, channels: int, target: tuple[int, int]
) -> None:
    random = np.random.default_rng(target)
    maps = random.standard_normal((batch, 16, 36, channels)).astype(np.float16)
    bias = random.standard_normal(channels).astype(np.float32)
    around = Around((8, 0), (16, 24))
    for biases, relu in ((None, False), (bias, True)):
        got = resize(kernels, memory, maps, target, biases, relu, around)
        assert_rounded(got, resize_reference(maps, target, biases, relu), scale=10)


RESIZES = [
    (32, (128, 256), (64, 128)), (32, (64, 128), (128, 256)), (64, (32, 64), (64, 128)),
    (128, (32, 64), (16, 32)), (192, (32, 64), (64, 128)), (128, (32, 64), (64, 128)),
    (128, (64, 128), (128, 256)), (64, (128, 256), (128, 256)),
]  # fmt: skip
"""Channels, rows and columns before and after, of the student at 1024x2048; the last is a copy."""


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("case", RESIZES, ids=str)
def test_resizes_of_the_student_equal_torch_and_repeat(
    kernels: KernelLibrary, case: tuple[int, tuple[int, int], tuple[int, int]], batch: int
) -> None:
    channels, size, target = case
    maps = torch.randn(batch, *size, channels, device="cuda").half()
    bias = torch.randn(channels, device="cuda")
    output = torch.full((batch, *target, channels), float("nan"), device="cuda").half()
    arguments = Resize(
        input=maps.data_ptr(), bias=bias.data_ptr(), output=output.data_ptr(), batch=batch,
        in_height=size[0], in_width=size[1], out_height=target[0], out_width=target[1],
        channels=channels, in_pitch=channels, out_pitch=channels, relu=1,
    )  # fmt: skip
    stream = torch.cuda.current_stream().cuda_stream
    kernels.resize(arguments, stream)
    first = output.clone()
    ends = [0, batch - 1]
    exact = torch.nn.functional.interpolate(
        maps[ends].permute(0, 3, 1, 2).double(), target, mode="bilinear", align_corners=True
    )
    exact = torch.relu(exact + bias.double()[:, None, None]).permute(0, 2, 3, 1)
    assert_rounded(first[ends].cpu().numpy(), exact.cpu().numpy(), scale=10)
    assert bool(torch.isfinite(first).all())
    # A result that moves between runs is a race.
    for _ in range(5):
        output.fill_(float("nan"))
        kernels.resize(arguments, stream)
        assert torch.equal(output, first)


def test_copy_into_a_joined_map_keeps_every_bit(kernels: KernelLibrary, memory: CudaMemory) -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 16, (2, 33, 65, 24)).astype(np.uint16)
    maps = bits.view(np.float16)
    got = resize(kernels, memory, maps, (33, 65), around=Around((0, 8), (40, 0)))
    np.testing.assert_array_equal(got.view(np.uint16), bits)


def test_resize_on_gpu_and_in_emulation_agree_bit_for_bit(
    kernels: KernelLibrary, memory: CudaMemory, tmp_path: Path
) -> None:
    emulated = KernelLibrary(toolchain.emulated(tmp_path))
    random = np.random.default_rng(0)
    bias = random.standard_normal(16).astype(np.float32)
    for batch in (1, 48):
        maps = random.standard_normal((batch, 11, 37, 16)).astype(np.float16)
        for target in ((7, 9), (22, 74), (31, 71)):
            on_gpu = resize(kernels, memory, maps, target, bias, relu=True)
            on_cpu = resize(emulated, HostMemory(), maps, target, bias, relu=True)
            np.testing.assert_array_equal(on_gpu.view(np.uint16), on_cpu.view(np.uint16))


# --- streams and graphs


def captured(enqueue: Callable[[int], None]) -> Any:
    """A graph of what `enqueue` puts on a stream; enqueued once before, to load the code."""
    stream = torch.cuda.Stream()
    enqueue(stream.cuda_stream)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        enqueue(stream.cuda_stream)
    return graph


def test_tail_runs_under_stream_capture(kernels: KernelLibrary) -> None:
    logits = torch.randn(1, 19, 16, 32, device="cuda", dtype=torch.float16)
    labels = torch.full((1, 128, 256), 255, device="cuda", dtype=torch.uint8)
    arguments = UpsampleArgmax(
        logits=logits.data_ptr(), labels=labels.data_ptr(), batch=1, height=16, width=32,
        out_height=128, out_width=256, classes=19, pitch=19, type=Type.FP16, layout=Layout.NCHW,
    )  # fmt: skip
    graph = captured(lambda stream: kernels.upsample_argmax(arguments, stream))
    logits.copy_(torch.randn_like(logits))
    labels.fill_(255)
    graph.replay()
    torch.cuda.synchronize()
    assert_labels(labels.cpu().numpy(), logits.cpu().numpy(), (128, 256))


def test_zoomed_convolution_runs_under_stream_capture(kernels: KernelLibrary) -> None:
    random = np.random.default_rng(0)
    convs = convolutions(random, 16, 40, 2)
    maps = torch.zeros(1, 20, 30, 16, device="cuda", dtype=torch.float16)
    held = [torch.from_numpy(array).cuda() for conv in convs for array in conv]
    output = torch.full((1, 20, 30, 40), float("nan"), device="cuda", dtype=torch.float16)
    workspace = torch.empty(10 * 15 * 40, device="cuda", dtype=torch.float16)
    arguments = ZoomedConv(
        input=maps.data_ptr(), output=output.data_ptr(), workspace=workspace.data_ptr(),
        workspace_bytes=2 * workspace.numel(), batch=1, height=20, width=30, in_channels=16,
        out_channels=40, stride=1, weight1=held[0].data_ptr(), bias1=held[1].data_ptr(),
        weight2=held[2].data_ptr(), bias2=held[3].data_ptr(),
    )  # fmt: skip
    graph = captured(lambda stream: kernels.zoomed_conv(arguments, stream))
    maps.copy_(torch.from_numpy(random.standard_normal((1, 20, 30, 16)).astype(np.float16)))
    graph.replay()
    torch.cuda.synchronize()
    assert_maps(output.cpu().numpy(), zoomed_reference(maps.cpu().numpy(), convs, 1))


def test_resize_runs_under_stream_capture(kernels: KernelLibrary) -> None:
    maps = torch.zeros(1, 16, 32, 16, device="cuda", dtype=torch.float16)
    output = torch.full((1, 32, 64, 40), float("nan"), device="cuda", dtype=torch.float16)
    arguments = Resize(
        input=maps.data_ptr(), output=output.data_ptr() + 2 * 24, batch=1, in_height=16,
        in_width=32, out_height=32, out_width=64, channels=16, in_pitch=16, out_pitch=40,
    )  # fmt: skip
    graph = captured(lambda stream: kernels.resize(arguments, stream))
    maps.copy_(torch.randn_like(maps))
    graph.replay()
    torch.cuda.synchronize()
    got = output.cpu().numpy()
    assert_rounded(got[..., 24:], resize_reference(maps.cpu().numpy(), (32, 64)), scale=10)
    assert np.isnan(got[..., :24]).all()
