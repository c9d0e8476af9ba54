"""What each launch of a schedule does to tensors: by torch, or by our CUDA kernels.

Maps are (N, C, H, W) tensors in channels_last memory, C a multiple of 8 (`nn.schedule.MULTIPLE`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from fasterseg.nn.blocks import resize as bilinear
from fasterseg.nn.network import upsample
from fasterseg.nn.schedule import MULTIPLE, Kind
from fasterseg.preprocess import MEAN, STD
from fasterseg.runtime.kernels import (
    KernelLibrary,
    Layout,
    NormalizeBgr,
    Resize,
    Type,
    UpsampleArgmax,
    ZoomedConv,
)
from fasterseg.types import Size

_KINDS: Final = {torch.float16: Type.FP16, torch.float32: Type.FP32}


class TorchLaunches:
    """Launches as calls of torch, on its current stream.

    Args:
        dtype: of maps and weights.
        device: where they lie.
        fused: whether a convolution takes bias and ReLU with it in one call of cuDNN, where that
            can (CUDA, fp16 and bf16; fp32 is for exactness, not speed).

    Attributes:
        refused: sizes for which it was found that it cannot.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, *, fused: bool = True) -> None:
        self._dtype = dtype
        values = torch.tensor([MEAN, STD], dtype=torch.float32) * 255
        self._mean, self._std = values.to(device)
        on_cuda = device.type == "cuda"
        # CPUs sum half precision in half precision.
        self._wide = not on_cuda and dtype != torch.float32
        self._fused = (
            fused
            and on_cuda
            and dtype != torch.float32
            and hasattr(torch, "cudnn_convolution_relu")
        )
        self.refused: set[tuple[object, ...]] = set()

    def bias_type(self, kind: Kind) -> torch.dtype:
        """Type of the biases that launches of a kind take."""
        return self._dtype

    def normalize(self, frames: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 BGR -> (N, 8, H, W) normalised RGB and zeros."""
        rgb = (frames.flip(-1).float() - self._mean) / self._std
        held = functional.pad(rgb.to(self._dtype), (0, MULTIPLE - rgb.shape[-1]))
        return held.permute(0, 3, 1, 2)

    def convolve(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, relu: bool
    ) -> Tensor:
        """Convolution that keeps the size but for its stride (none at the border of a 2x2 one).

        Args:
            x: (N, C_in, H, W).
            weight: (C_out, C_in, k, k), channels_last.
            bias: (C_out,) or None.
            stride: 1 or 2.
            relu: whether a ReLU follows.
        """
        side = weight.shape[-1]
        strides, padding = (stride, stride), ((side - 1) // 2,) * 2
        if self._fused and relu and bias is not None:
            key = (x.shape, weight.shape, stride)
            if key not in self.refused:
                try:
                    return torch.cudnn_convolution_relu(
                        x, weight, bias, strides, padding, (1, 1), 1
                    )
                except torch.OutOfMemoryError:
                    raise
                except RuntimeError:
                    # cuDNN has no such fused engine for these sizes. A lost device ends up here
                    # too, and fails again below.
                    self.refused.add(key)
        if self._wide:
            x, weight = x.float(), weight.float()
            bias = None if bias is None else bias.float()
        y = functional.conv2d(x, weight, bias, strides, padding)
        return self._held(torch.relu_(y) if relu else y)

    def resize(self, x: Tensor, size: Size, bias: Tensor | None, relu: bool) -> Tensor:
        """Bilinear, align_corners; then bias and ReLU where wanted."""
        y = bilinear(x.float() if self._wide else x, *size)
        if bias is not None:
            y = y + bias.view(1, -1, 1, 1)
        return self._held(torch.relu(y) if relu else y)

    def join(self, maps: Sequence[Tensor], size: Size) -> Tensor:
        """Maps side by side along the channels, each brought to `size`."""
        brought = [self.resize(x, size, None, relu=False) for x in maps]
        return self._held(torch.cat(brought, dim=1))

    def project(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """1x1 convolution with bias: one matrix product over all pixels (but in fp32).

        Args:
            x: (N, C, H, W).
            weight: (classes, C, 1, 1), classes padded to a multiple of 8.
            bias: (classes,).
        """
        if self._wide or self._dtype == torch.float32:
            # One switch (cuDNN's) then keeps TF32 out of everything.
            return self.convolve(x, weight, bias, 1, relu=False)
        pixels = x.permute(0, 2, 3, 1)
        rows = pixels.reshape(-1, pixels.shape[-1])
        logits = torch.addmm(bias, rows, weight.flatten(1).t())
        return logits.view(*pixels.shape[:3], -1).permute(0, 3, 1, 2)

    def zoomed(
        self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], stride: int
    ) -> Tensor:
        """A zoomed cell, step by step.

        Args:
            x: (N, C_in, H, W).
            weights: of its one or two 3x3 convolutions.
            biases: theirs.
            stride: 1, or 2: no way back.
        """
        height, width = x.shape[-2:]
        y = self.resize(x, Size(height // 2, width // 2), None, relu=False)
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            y = self.convolve(y, weight, bias, 1, relu=True)
        if stride == 2:
            return self.convolve(y, weights[-1], biases[-1], 1, relu=True)
        y = self.convolve(y, weights[-1], None, 1, relu=False)
        return self.resize(y, Size(height, width), biases[-1], relu=True)

    def _held(self, y: Tensor) -> Tensor:
        """A map as the next launch reads it; maps of one pixel do not tell torch their layout."""
        return y.to(self._dtype).contiguous(memory_format=torch.channels_last)

    def tail(self, logits: Tensor, classes: int, out: Tensor) -> None:
        """Logits at 1/8, (N, classes and more, h, w), to (N, H, W) uint8 labels in `out`."""
        size = Size(out.shape[1], out.shape[2])
        out.copy_(upsample(logits[:, :classes].float(), size).argmax(dim=1))


class KernelLaunches(TorchLaunches):
    """The same with our kernels where they can: what reads or writes memory only, and the tail.

    Args:
        dtype: of maps and weights.
        device: where they lie.
        kernels: the compiled library; for the CPU, its emulation.
        resizes: whether resizes and joins are ours too; in fp16 alone.
        fused: as in `TorchLaunches`.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        device: torch.device,
        kernels: KernelLibrary,
        *,
        resizes: bool = True,
        fused: bool = True,
    ) -> None:
        super().__init__(dtype, device, fused=fused)
        self._kernels, self._device = kernels, device
        self._zooms = dtype == torch.float16
        self._resizes = resizes and self._zooms

    def bias_type(self, kind: Kind) -> torch.dtype:
        """Type of the biases that launches of a kind take; float32 for those that are ours."""
        ours = (kind == "resize" and self._resizes) or (kind == "zoomed" and self._zooms)
        return torch.float32 if ours else self._dtype

    @property
    def _stream(self) -> int:
        """Handle of torch's current stream."""
        if self._device.type != "cuda":
            return 0
        return int(torch.cuda.current_stream(self._device).cuda_stream)

    def _empty(self, batch: int, channels: int, size: Size) -> Tensor:
        """A map of values yet to be written."""
        return torch.empty(
            (batch, channels, *size),
            dtype=self._dtype,
            device=self._device,
            memory_format=torch.channels_last,
        )

    def normalize(self, frames: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 BGR -> (N, 8, H, W) normalised RGB and zeros."""
        batch, height, width, _ = frames.shape
        # What the kernel has no type for is computed in float32 and rounded by torch.
        dtype = self._dtype if self._dtype in _KINDS else torch.float32
        held = torch.empty((batch, height, width, MULTIPLE), dtype=dtype, device=self._device)
        arguments = NormalizeBgr(
            frames=frames.data_ptr(),
            output=held.data_ptr(),
            batch=batch,
            height=height,
            width=width,
            type=_KINDS[dtype],
            layout=Layout.NHWC,
            channels=MULTIPLE,
        )
        arguments.mean[:], arguments.std[:] = MEAN, STD
        self._kernels.normalize_bgr(arguments, self._stream)
        return held.to(self._dtype).permute(0, 3, 1, 2)

    def resize(self, x: Tensor, size: Size, bias: Tensor | None, relu: bool) -> Tensor:
        """Bilinear, align_corners; then bias and ReLU where wanted, all in one."""
        if not self._resizes:
            return super().resize(x, size, bias, relu)
        out = self._empty(x.shape[0], x.shape[1], size)
        self._lay(x, out, 0, bias, relu)
        return out

    def join(self, maps: Sequence[Tensor], size: Size) -> Tensor:
        """Maps side by side along the channels, each resized straight into its place."""
        if not self._resizes:
            return super().join(maps, size)
        out = self._empty(maps[0].shape[0], sum(x.shape[1] for x in maps), size)
        first = 0
        for x in maps:
            self._lay(x, out, first, None, relu=False)
            first += x.shape[1]
        return out

    def _lay(self, x: Tensor, out: Tensor, first: int, bias: Tensor | None, relu: bool) -> None:
        """Resize a map into the channels of another from `first` on."""
        arguments = Resize(
            input=_pointer(x),
            bias=None if bias is None else bias.data_ptr(),
            output=_pointer(out) + first * out.element_size(),
            batch=x.shape[0],
            in_height=x.shape[2],
            in_width=x.shape[3],
            out_height=out.shape[2],
            out_width=out.shape[3],
            channels=x.shape[1],
            in_pitch=x.shape[1],
            out_pitch=out.shape[1],
            relu=int(relu),
        )
        self._kernels.resize(arguments, self._stream)

    def zoomed(
        self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], stride: int
    ) -> Tensor:
        """A zoomed cell, in fp16 as one call."""
        if not self._zooms:
            return super().zoomed(x, weights, biases, stride)
        batch, channels, height, width = x.shape
        size = Size(height, width) if stride == 1 else Size(height // 2, width // 2)
        out = self._empty(batch, weights[0].shape[0], size)
        arguments = ZoomedConv(
            input=_pointer(x),
            output=_pointer(out),
            batch=batch,
            height=height,
            width=width,
            in_channels=channels,
            out_channels=out.shape[1],
            stride=stride,
        )
        for number, (weight, bias) in enumerate(zip(weights, biases, strict=True), start=1):
            setattr(arguments, f"weight{number}", _pointer(weight))
            setattr(arguments, f"bias{number}", bias.data_ptr())
        arguments.workspace_bytes = self._kernels.zoomed_conv_workspace(arguments)
        workspace = torch.empty(
            (arguments.workspace_bytes,), dtype=torch.uint8, device=self._device
        )
        if arguments.workspace_bytes:
            arguments.workspace = workspace.data_ptr()
        self._kernels.zoomed_conv(arguments, self._stream)
        return out

    def tail(self, logits: Tensor, classes: int, out: Tensor) -> None:
        """Logits at 1/8, (N, classes and more, h, w), to (N, H, W) uint8 labels in `out`."""
        if logits.dtype not in _KINDS:
            logits = logits.float()
        batch, pitch, height, width = logits.shape
        self._kernels.upsample_argmax(
            UpsampleArgmax(
                logits=_pointer(logits),
                labels=out.data_ptr(),
                batch=batch,
                height=height,
                width=width,
                out_height=out.shape[1],
                out_width=out.shape[2],
                classes=classes,
                pitch=pitch,
                type=_KINDS[logits.dtype],
                layout=Layout.NHWC,
            ),
            self._stream,
        )


def _pointer(x: Tensor) -> int:
    """Address of a map; its values must lie as the kernels read them."""
    assert x.is_contiguous(memory_format=torch.channels_last), x.stride()
    return int(x.data_ptr())
