"""What TensorRT does with a batch: one execution context, and the last step where it is ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fasterseg.errors import EngineError, UsageError
from fasterseg.runtime.kernels import KernelLibrary, Layout, Type, UpsampleArgmax
from fasterseg.runtime.trt_log import Messages
from fasterseg.runtime.trt_surface import Context


@dataclass(frozen=True, slots=True)
class Names:
    """Tensors of the engine.

    Attributes:
        frames: its input, uint8 (N, H, W, 3).
        result: its output: uint8 labels (N, H, W), or float32 logits at 1/8.
        classes: of the logits, None where it gives labels.
    """

    frames: str
    result: str
    classes: int | None = None


class Enqueuer:
    """Puts one batch on a stream; see `runtime.execution.Work`.

    Args:
        context: of the engine; used by nobody else.
        names: its tensors.
        messages: what its runtime says.
        kernels: needed where the engine gives logits.
        new_buffer: (shape, type) -> device memory (`cuda.DeviceBuffer`).
        title: of the engine, for errors.
    """

    def __init__(
        self,
        context: Context,
        names: Names,
        messages: Messages,
        *,
        kernels: KernelLibrary | None,
        new_buffer: Callable[[Sequence[int], str], Any],
        title: str,
    ) -> None:
        self._context, self._names, self._messages = context, names, messages
        self._kernels, self._new_buffer, self._title = kernels, new_buffer, title
        self._logits: Any = None
        self.shape: tuple[int, ...] | None = None

    def set_shape(self, shape: tuple[int, ...]) -> None:
        """Make ready for batches of (N, H, W, 3).

        Raises:
            UsageError: the engine does not take them.
        """
        self._messages.clear()
        if not self._context.set_input_shape(self._names.frames, shape):
            raise UsageError(
                f"{self._title} does not take frames of {shape} (N, H, W, 3): "
                f"{self._messages.last}. Build it for them: fasterseg build --min-size --max-size"
            )
        self.release()
        if self._names.classes is not None:
            logits = tuple(self._context.get_tensor_shape(self._names.result))
            self._logits = self._new_buffer(logits, "<f4")
        self.shape = shape

    def enqueue(self, frames: int, labels: int, stream: int) -> None:
        """Run on device memory.

        Args:
            frames: address of (N, H, W, 3) uint8, BGR.
            labels: address of (N, H, W) uint8.
            stream: handle.

        Raises:
            EngineError: the runtime refuses.
        """
        self._messages.clear()
        result = labels if self._logits is None else self._logits.pointer
        context = self._context
        if not (
            context.set_tensor_address(self._names.frames, frames)
            and context.set_tensor_address(self._names.result, result)
            and context.execute_async_v3(stream)
        ):
            raise EngineError(
                f"{self._title} failed while running: {self._messages.last}. If memory ran out, "
                "choose a smaller --size or --batch; if it is damaged, build it again: "
                "fasterseg build"
            )
        if self._logits is not None:
            self._finish(labels, stream)

    def _finish(self, labels: int, stream: int) -> None:
        assert self._kernels is not None, "an engine of logits is opened with the kernels"
        assert self.shape is not None, "set before"
        batch, classes, height, width = self._logits.shape
        self._kernels.upsample_argmax(
            UpsampleArgmax(
                logits=self._logits.pointer,
                labels=labels,
                batch=batch,
                height=height,
                width=width,
                out_height=self.shape[1],
                out_width=self.shape[2],
                classes=classes,
                pitch=classes,
                type=Type.FP32,
                layout=Layout.NCHW,
            ),
            stream,
        )

    def capturable(self, stream: int) -> bool:
        """Whether the work can be captured; TensorRT always says yes, RTX is asked."""
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is None or bool(ask(stream))

    def release(self) -> None:
        """Give back the memory of the logits; a shape must be set anew."""
        self.shape = None
        if self._logits is not None:
            self._logits.close()
            self._logits = None
