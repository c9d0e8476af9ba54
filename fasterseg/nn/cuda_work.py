"""What the torch engine does with a batch on CUDA, and the ways in and out besides the host."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasterseg.errors import UsageError
from fasterseg.nn import cuda_port
from fasterseg.nn.cuda_errors import told
from fasterseg.nn.fused import FusedNetwork
from fasterseg.runtime.cuda_arrays import DeviceView
from fasterseg.runtime.execution import Execution
from fasterseg.types import Size

_RUNNING: Final = "running the network"


class TorchWork:
    """A network between addresses on the GPU; see `runtime.execution.Work`.

    Args:
        make: size of the frames -> the network for it, on the device.
    """

    def __init__(self, make: Callable[[Size], FusedNetwork]) -> None:
        self._make = make
        self._network: FusedNetwork | None = None
        self._tensors: dict[int, Tensor] = {}
        self.shape: tuple[int, ...] | None = None

    def network(self, size: Size) -> FusedNetwork:
        """The network for frames of a size; the last one is kept."""
        if self._network is None or self._network.plan.size != size:
            self._network = None
            with cuda_port.PREPARING, told("moving the network to the GPU"):
                self._network = self._make(size)
        return self._network

    def set_shape(self, shape: tuple[int, ...]) -> None:
        """Make ready for batches of (N, H, W, 3).

        Raises:
            UsageError: the network does not take frames of that size.
        """
        self.release()
        self.network(Size(shape[1], shape[2]))
        self.shape = shape

    def enqueue(self, frames: int, labels: int, stream: int) -> None:
        """Run between two addresses; see `runtime.execution.Work.enqueue`."""
        assert self.shape is not None, "set before"
        network = self.network(Size(self.shape[1], self.shape[2]))
        taken, given = self._at(frames, self.shape), self._at(labels, self.shape[:3])
        with cuda_port.PREPARING, told(_RUNNING), cuda_port.on(stream):
            network.labels(taken, given)

    def capturable(self, stream: int) -> bool:
        """Whether the work can be captured: torch's always can, once it has run."""
        return True

    def release(self) -> None:
        """Forget a shape and its buffers; the network stays."""
        self.shape = None
        self._tensors.clear()

    def close(self) -> None:
        """Give the network up, too."""
        self.release()
        self._network = None

    def _at(self, pointer: int, shape: tuple[int, ...]) -> Tensor:
        if pointer not in self._tensors:
            self._tensors[pointer] = cuda_port.tensor_at(pointer, shape)
        return self._tensors[pointer]


class TorchExecution(Execution):
    """An execution in torch's memory, which also works between arrays on the GPU.

    All of it goes to one stream, as the network and the graphs' shared memory ask for.

    Args:
        work: what is done.
    """

    def __init__(self, work: TorchWork) -> None:
        super().__init__(cuda_port, work)
        self._torch_work = work

    def run_between(self, frames: DeviceView, labels: DeviceView, stream: int) -> None:
        """Enqueue one batch between arrays on the GPU, as if on `stream`; returns at once.

        Args:
            frames: (N, H, W, 3) uint8, BGR.
            labels: (N, H, W) uint8, written.
            stream: handle; what it gets later finds the labels.

        Raises:
            UsageError: a batch of another shape is on its way.
            EngineError: the GPU or torch fails.
        """
        self._prepare(frames.shape)
        slot, own = self._slots[0], self._stream
        for producer in (stream, frames.stream, labels.stream):
            cuda_port.order_after(own.handle, producer)
        own.copy(slot.device_in.tensor, cuda_port.tensor_at(frames.pointer, frames.shape))
        self._launch(slot, "inner")
        own.copy(cuda_port.tensor_at(labels.pointer, labels.shape), slot.device_out.tensor)
        cuda_port.order_after(stream, own.handle)

    def logits(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The head's logits of a batch, step by step.

        Args:
            frames: (N, H, W, 3) uint8, BGR.

        Returns:
            (N, classes, ceil(H/8), ceil(W/8)) float32.

        Raises:
            EngineError: the GPU or torch fails.
        """
        size = Size(frames.shape[1], frames.shape[2])
        if self._pending and self._work.shape is not None and size != self._work.shape[1:3]:
            raise UsageError("a batch of another size is on its way; collect() it first")
        network = self._torch_work.network(size)
        with cuda_port.PREPARING, told(_RUNNING), cuda_port.on(self._stream.handle):
            given = torch.from_numpy(np.ascontiguousarray(frames)).to(cuda_port.DEVICE)
            return np.asarray(network.logits8(given).cpu().numpy())

    def close(self) -> None:
        """As of any execution; the network goes, too."""
        with ExitStack() as leaving:
            leaving.callback(self._torch_work.close)
            super().close()
