"""`CudaEngine`: the fast path of torch on an NVIDIA GPU, one CUDA graph a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from fasterseg.arch.plan import Plan
from fasterseg.arch.plan import plan as lay_out
from fasterseg.errors import (
    DeviceLostError,
    EngineError,
    MissingExtraError,
    UnsupportedError,
    UsageError,
)
from fasterseg.graph.weights import Weights
from fasterseg.nn import cuda_port
from fasterseg.nn.cuda_work import TorchExecution, TorchWork
from fasterseg.nn.fused import FusedNetwork, Variant
from fasterseg.nn.tuning import Question, candidates, choose, facts
from fasterseg.runtime.base import CudaArray, EngineSpec, check_frames, check_labels
from fasterseg.runtime.cuda_arrays import view_both
from fasterseg.runtime.kernels import BUILD, KernelLibrary
from fasterseg.runtime.plugins import open_kernels
from fasterseg.types import Size

_BF16_FROM: Final = (8, 0)


class CudaEngine:
    """A plan's launches, captured; see `runtime.base.Engine`.

    A batch costs the host one copy into pinned memory and the launch of one graph. `submit` and
    `collect` are the two halves of `run`: with two batches on their way, the host prepares one
    while the GPU works on the other. One thread at a time may use an engine; several engines may
    be used by a thread each.

    Args:
        make: size of the frames -> the network for it, on the device.
        spec: what the engine is to say of itself.
        size: of the frames that it is made ready for.

    Attributes:
        variant: how the network is run.
    """

    backend: Final = "torch"
    device: Final = "cuda"

    def __init__(self, make: Callable[[Size], FusedNetwork], spec: EngineSpec, size: Size) -> None:
        self.spec = spec
        work = TorchWork(make)
        network = work.network(size)
        self.variant: Variant = network.variant
        self.tail: str = network.tail
        self._execution: TorchExecution | None = TorchExecution(work)
        self._lost: DeviceLostError | None = None
        self._checked = False

    @classmethod
    def build(
        cls,
        plan: Plan,
        weights: Weights,
        spec: EngineSpec,
        *,
        plugins: str = "auto",
        tuned: bool = True,
        on_note: Callable[[str], None] = lambda line: None,
    ) -> CudaEngine:
        """Make the engine of a plan.

        Args:
            plan: the network.
            weights: fitting it.
            spec: what the engine is to say of itself; its precision is "fp16", "bf16" or "fp32".
            plugins: "auto": our kernels, where their library is found; "off": torch alone.
            tuned: take the fastest variant, measured now or remembered (see `nn.tuning`); False
                takes the first one.
            on_note: gets lines for people: kernels that are not there, what was chosen.

        Raises:
            WeightsError: the weights do not fit.
            UnsupportedError: the GPU does not compute in the precision.
            EngineError: memory ran out, or the GPU fails.
        """
        _check_precision(spec)
        kernels = None if plugins == "off" else _kernels(on_note)
        branches = len(plan.genotype.branches)
        variants = candidates(spec.precision, kernels is not None, branches=branches)

        def open_one(variant: Variant) -> CudaEngine:
            return cls.of(variant, plan, weights, spec, kernels)

        if not tuned:
            return open_one(variants[0])
        question = Question(
            variants=variants,
            open_one=open_one,
            precision=spec.precision,
            size=plan.size,
            batch=spec.batch or 1,
            facts=facts(plan, kernels),
            title=spec.name,
        )
        return open_one(choose(question, on_note))

    @classmethod
    def of(
        cls,
        variant: Variant,
        plan: Plan,
        weights: Weights,
        spec: EngineSpec,
        kernels: KernelLibrary | None,
    ) -> CudaEngine:
        """Make the engine of a plan that runs it in one way; see `build`.

        Args:
            variant: how to run the network.
            plan: the network.
            weights: fitting it.
            spec: what the engine is to say of itself.
            kernels: ours; None leaves all to torch.
        """

        def make(size: Size) -> FusedNetwork:
            network = plan if size == plan.size else lay_out(plan.genotype, size)
            return FusedNetwork(
                network, weights, spec.precision, cuda_port.DEVICE, variant=variant, kernels=kernels
            )

        return cls(make, spec, plan.size)

    @property
    def captured(self) -> bool | None:
        """Whether batches are launched as one CUDA graph; None before the first."""
        return None if self._execution is None else self._execution.captured

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Classify one batch; see `runtime.base.Engine.run`."""
        self.submit(frames)
        return self.collect()

    def submit(self, frames: NDArray[np.uint8]) -> None:
        """Begin with a batch; see `runtime.execution.Execution.submit`."""
        check_frames(self.spec, frames)
        with self._use() as execution:
            execution.submit(frames)

    def collect(self) -> NDArray[np.uint8]:
        """Labels of the oldest batch on its way; see `runtime.execution.Execution.collect`."""
        with self._use() as execution:
            labels = execution.collect()
        if not self._checked:
            check_labels(self.spec, labels)
            self._checked = True
        return labels

    def run_on_device(self, frames: CudaArray, labels: CudaArray, stream: int) -> None:
        """Enqueue one batch between arrays on the GPU; returns at once.

        Args:
            frames: (N, H, W, 3) uint8, BGR, contiguous; torch, CuPy, PyCUDA or anything else with
                `__cuda_array_interface__`.
            labels: (N, H, W) uint8, written.
            stream: handle of the stream to work on, for instance
                `torch.cuda.current_stream().cuda_stream`.

        Raises:
            UsageError: the arrays do not fit the engine.
            EngineError: the GPU or torch fails.
        """
        taken, given = view_both(frames, labels, self.spec)
        with self._use() as execution:
            execution.run_between(taken, given, stream)

    def run_logits(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The head's logits, not captured; see `runtime.base.LogitsEngine`."""
        check_frames(self.spec, frames)
        with self._use() as execution:
            return execution.logits(frames)

    def time_on_device(self, iterations: int) -> Sequence[float]:
        """Milliseconds of each run, without copies; run one batch before."""
        with self._use() as execution:
            return execution.time(iterations)

    def close(self) -> None:
        """Release the GPU's memory."""
        execution, self._execution = self._execution, None
        if execution is None:
            return
        # A lost device takes nothing back.
        with contextlib.suppress(DeviceLostError), ExitStack() as leaving:
            leaving.callback(cuda_port.give_back)
            execution.close()

    @contextlib.contextmanager
    def _use(self) -> Iterator[TorchExecution]:
        """The execution, if it can be used; remembers that the device was lost."""
        if self._execution is None:
            raise UsageError(f"engine {self.spec.name} is closed; open it again")
        if self._lost is not None:
            raise DeviceLostError(str(self._lost))
        try:
            yield self._execution
        except DeviceLostError as error:
            self._lost = error
            raise


def _check_precision(spec: EngineSpec) -> None:
    """Refuse bf16 where the GPU has none; torch would compute something else in its place."""
    major, minor = torch.cuda.get_device_capability()
    if spec.precision == "bf16" and (major, minor) < _BF16_FROM:
        raise UnsupportedError(
            f"{torch.cuda.get_device_name()} (sm_{major}{minor}) does not compute in bf16; GPUs "
            f"from sm_{_BF16_FROM[0]}{_BF16_FROM[1]} on do. Use --precision fp16"
        )


def _kernels(on_note: Callable[[str], None]) -> KernelLibrary | None:
    """Our kernels, where they can be used; their absence is no error."""
    try:
        return open_kernels()
    except MissingExtraError:
        on_note(
            f"note: our CUDA kernels are not built ({BUILD} builds them); torch's own take their "
            "place: the same labels, later"
        )
    except EngineError as error:
        on_note(f"our CUDA kernels are left out: {error}")
    return None
