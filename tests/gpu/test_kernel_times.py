"""Each kernel's time beside its floor and beside torch: `pytest -m bench -s tests/gpu`.

Times are of a replayed CUDA graph of many launches, divided by their number, the median of
several replays. Inputs stay in the second-level cache, as they do between the layers of a network.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch not installed")

from fasterseg.preprocess import MEAN, STD  # noqa: E402
from fasterseg.runtime.kernels import (  # noqa: E402
    KernelLibrary,
    Layout,
    NormalizeBgr,
    Resize,
    Type,
    UpsampleArgmax,
    ZoomedConv,
)
from tests.gpu.test_kernels import RESIZES, STUDENT, captured  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.torch, pytest.mark.bench]

LAUNCHES = 50
REPLAYS = 31
BYTES_PER_US = 4.3e6
FLOP_PER_US = 790e6
"""Ceilings measured on an H200 of a driver of series 580: device copy, large bf16 product."""


def microseconds(enqueue: Callable[[int], None]) -> float:
    def many(stream: int) -> None:
        for _ in range(LAUNCHES):
            enqueue(stream)

    graph = captured(many)
    times: list[float] = []
    for _ in range(REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000 / LAUNCHES)
    return float(statistics.median(times))


def on_stream(work: Callable[[], object]) -> Callable[[int], None]:
    def enqueue(stream: int) -> None:
        with torch.cuda.stream(torch.cuda.ExternalStream(stream)):
            work()

    return enqueue


def report(name: str, ours: float, floor: float, theirs: float) -> None:
    print(
        f"\n{name}: {ours:.2f} us, floor {floor:.2f} us ({floor / ours:.0%}), torch {theirs:.2f} us"
    )
    assert ours < theirs


@pytest.mark.parametrize("size", [(512, 1024), (1024, 2048)], ids=str)
def test_tail_is_faster_than_torch(kernels: KernelLibrary, size: tuple[int, int]) -> None:
    height, width = (side // 8 for side in size)
    # Smooth as a trained network's: the number of classes that compete in a cell sets the time.
    coarse = torch.randn(1, 19, height // 8, width // 8, device="cuda") * 5
    logits = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").half()
    labels = torch.empty(1, *size, device="cuda", dtype=torch.uint8)
    noise = torch.randn_like(logits)

    def time_of(values: Any) -> float:
        arguments = UpsampleArgmax(
            logits=values.data_ptr(), labels=labels.data_ptr(), batch=1, height=height, width=width,
            out_height=size[0], out_width=size[1], classes=19, type=Type.FP16, layout=Layout.NCHW,
        )  # fmt: skip
        return microseconds(lambda stream: kernels.upsample_argmax(arguments, stream))

    def by_torch() -> None:
        full = torch.nn.functional.interpolate(
            logits.float(), scale_factor=8, mode="bilinear", align_corners=True
        )
        labels.copy_(full.argmax(1))

    floor = (logits.numel() * 2 + labels.numel()) / BYTES_PER_US
    theirs = microseconds(on_stream(by_torch))
    report(f"upsample_argmax {size}, smooth", time_of(logits), floor, theirs)
    report(f"upsample_argmax {size}, noise", time_of(noise), floor, theirs)


@pytest.mark.parametrize("layout", list(Layout), ids=str)
def test_normalisation_is_faster_than_torch(kernels: KernelLibrary, layout: Layout) -> None:
    frames = torch.randint(0, 256, (1, 1024, 2048, 3), device="cuda", dtype=torch.uint8)
    channels = 3 if layout is Layout.NCHW else 8
    output = torch.empty(channels * 1024 * 2048, device="cuda", dtype=torch.float16)
    three = type(NormalizeBgr().mean)
    arguments = NormalizeBgr(
        frames=frames.data_ptr(), output=output.data_ptr(), batch=1, height=1024, width=2048,
        type=Type.FP16, layout=layout, channels=channels, mean=three(*MEAN), std=three(*STD),
    )  # fmt: skip
    mean, std = (torch.tensor(values, device="cuda") for values in (MEAN, STD))

    def by_torch() -> object:
        scaled = (frames.flip(-1).float() / 255 - mean) / std
        return scaled.permute(0, 3, 1, 2).to(torch.float16, memory_format=torch.contiguous_format)

    floor = (frames.numel() + output.numel() * 2) / BYTES_PER_US
    ours = microseconds(lambda stream: kernels.normalize_bgr(arguments, stream))
    report(f"normalize_bgr {layout.name}", ours, floor, microseconds(on_stream(by_torch)))


@pytest.mark.parametrize("cell", STUDENT, ids=str)
def test_zoomed_convolution_is_faster_than_torch(
    kernels: KernelLibrary, cell: tuple[int, ...]
) -> None:
    in_channels, out_channels, height, width, count, stride = cell
    half = {"device": "cuda", "dtype": torch.float16}
    maps = torch.randn(1, height, width, in_channels, **half)
    weights = [
        torch.randn(out_channels, 3, 3, channels, **half) / 3 / channels**0.5
        for channels in (in_channels, out_channels)[:count]
    ]
    biases = [torch.randn(out_channels, device="cuda") for _ in weights]
    shrink = 1 if stride == 1 else 2
    output = torch.empty(1, height // shrink, width // shrink, out_channels, **half)
    arguments = ZoomedConv(
        input=maps.data_ptr(), output=output.data_ptr(), batch=1, height=height, width=width,
        in_channels=in_channels, out_channels=out_channels, stride=stride,
    )  # fmt: skip
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True), start=1):
        setattr(arguments, f"weight{number}", weight.data_ptr())
        setattr(arguments, f"bias{number}", bias.data_ptr())
    size = kernels.zoomed_conv_workspace(arguments)
    workspace = torch.empty(max(size, 16), device="cuda", dtype=torch.uint8)
    arguments.workspace, arguments.workspace_bytes = workspace.data_ptr(), size
    planes = maps.permute(0, 3, 1, 2)
    theirs_weights = [weight.permute(0, 3, 1, 2) for weight in weights]
    theirs_biases = [bias.half() for bias in biases]

    def by_torch() -> None:
        resize = torch.nn.functional.interpolate
        options = {"mode": "bilinear", "align_corners": True}
        x = resize(planes, (height // 2, width // 2), **options)
        for number, (weight, bias) in enumerate(zip(theirs_weights, theirs_biases, strict=True)):
            x = torch.nn.functional.conv2d(torch.relu(x) if number else x, weight, bias, padding=1)
        torch.relu(resize(x, (height, width), **options) if stride == 1 else x)

    pixels = (height // 2) * (width // 2)
    flop = 2 * 9 * pixels * out_channels * (in_channels + out_channels * (count - 1))
    moved = 2 * (maps.numel() + output.numel() + sum(weight.numel() for weight in weights))
    floor = max(flop / FLOP_PER_US, moved / BYTES_PER_US)
    ours = microseconds(lambda stream: kernels.zoomed_conv(arguments, stream))
    assert np.isfinite(output.float().cpu().numpy()).all()
    report(f"zoomed_conv {cell}", ours, floor, microseconds(on_stream(by_torch)))


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("case", RESIZES, ids=str)
def test_resize_is_faster_than_torch(
    kernels: KernelLibrary, case: tuple[int, tuple[int, int], tuple[int, int]], batch: int
) -> None:
    channels, size, target = case
    half = {"device": "cuda", "dtype": torch.float16}
    maps = torch.randn(batch, *size, channels, **half)
    joined = torch.empty(batch, *target, 2 * channels, **half)
    bias = torch.randn(channels, device="cuda")
    arguments = Resize(
        input=maps.data_ptr(), bias=bias.data_ptr(), output=joined.data_ptr() + 2 * channels,
        batch=batch, in_height=size[0], in_width=size[1], out_height=target[0],
        out_width=target[1], channels=channels, in_pitch=channels, out_pitch=2 * channels, relu=1,
    )  # fmt: skip
    planes, slice_ = maps.permute(0, 3, 1, 2), joined.permute(0, 3, 1, 2)[:, channels:]
    shift = bias.half()[:, None, None]

    def by_torch() -> None:
        resize = torch.nn.functional.interpolate
        larger = resize(planes, target, mode="bilinear", align_corners=True)
        torch.relu_(larger.add_(shift))
        slice_.copy_(larger)

    def by_torch_copy() -> None:
        slice_.copy_(torch.relu(planes + shift))

    floor = 2 * (maps.numel() + batch * target[0] * target[1] * channels) / BYTES_PER_US
    ours = microseconds(lambda stream: kernels.resize(arguments, stream))
    assert bool(torch.isfinite(slice_).all())
    theirs = microseconds(on_stream(by_torch_copy if size == target else by_torch))
    report(f"resize {case} batch {batch}", ours, floor, theirs)
