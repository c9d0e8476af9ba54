"""Single operators run as the torch engine runs them, for latency tables; and whole networks.

On a GPU an operator goes through the launches of the fast path, some dozen times in one CUDA
graph, and is timed by the GPU's clock: what it takes to start a graph is then next to nothing.
On a CPU its blocks are those of the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final, cast

import torch

from fasterseg.arch.plan import Plan
from fasterseg.arch.single import Single
from fasterseg.errors import MissingExtraError, UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.graph.weights import Weights, seeded_weights
from fasterseg.nn import cuda_port
from fasterseg.nn.cuda_engine import CudaEngine
from fasterseg.nn.cuda_errors import told
from fasterseg.nn.engine import TorchEngine
from fasterseg.nn.fused import Variant
from fasterseg.nn.parts import FusedPart, ReferencePart
from fasterseg.runtime.base import EngineSpec
from fasterseg.runtime.kernels import KernelLibrary
from fasterseg.runtime.plugins import open_kernels
from fasterseg.types import Precision

REPEATS: Final = 32
"""Runs of an operator in one graph: to launch a graph takes the host longer than most operators
take the GPU."""


def conditions(device: str, precision: Precision) -> dict[str, Any]:
    """What a table of this engine depends on; see `bench.begin.CONDITIONS`.

    Args:
        device: "cpu" or "cuda".
        precision: of its rows.

    Raises:
        UsageError: a precision that the reference is not meant for.
    """
    if device == "cuda":
        kernels = _kernels()
        tail = "torch" if kernels is None else "kernel"
        name = serial(precision, kernels).name
        return {"tail": tail, "clock": "device", "variant": name, "repeats": REPEATS}
    if precision != "fp32":
        raise UsageError(
            f"engine torch is the reference on a CPU, and its tables are fp32, not {precision}; "
            "leave --precision out, or take --engine openvino"
        )
    return {"tail": TorchEngine.tail}


def serial(precision: Precision, kernels: KernelLibrary | None) -> Variant:
    """How the networks of a table are run: one launch after the other, as their prices add up."""
    ours = kernels is not None and precision == "fp16"
    return Variant(resize="kernel" if ours else "torch")


def open_network(
    plan: Plan, weights: Weights, spec: EngineSpec, device: str, threads: int | None
) -> TorchEngine | CudaEngine:
    """A whole network as the rows of a table were timed.

    Args:
        plan: the network.
        weights: fitting it.
        spec: what the engine is to say of itself.
        device: "cpu" or "cuda".
        threads: CPU threads of torch, for the whole process; None leaves them.

    Raises:
        EngineError: see `CudaEngine.of`.
    """
    if device == "cuda":
        kernels = _kernels()
        return CudaEngine.of(serial(spec.precision, kernels), plan, weights, spec, kernels)
    return TorchEngine.build(plan, weights, spec, device, threads)


def open_snippet(
    single: Single,
    options: EmitOptions,
    device: str,
    threads: int | None,
    precision: Precision,
) -> TorchSnippet:
    """One operator, ready to run; see `bench.snippets.SNIPPETS`.

    Args:
        single: what is run.
        options: the batch of the network that it stands for is taken from them.
        device: "cpu" or "cuda".
        threads: CPU threads of torch, for the whole process; None leaves them.
        precision: of maps and weights.

    Raises:
        EngineError: the GPU's memory runs out, or it fails.
    """
    weights = seeded_weights(single.plan)
    if device == "cpu":
        if threads is not None:
            torch.set_num_threads(threads)
        return TorchSnippet(ReferencePart(single, weights, options.batch).run)
    kernels = _kernels()
    variant = serial(precision, kernels)
    with cuda_port.PREPARING, told("moving an operator to the GPU"):
        part = FusedPart(
            single,
            weights,
            precision,
            cuda_port.DEVICE,
            options.batch,
            variant=variant,
            kernels=kernels,
        )
    return CudaSnippet(part.run)


def _kernels() -> KernelLibrary | None:
    try:
        return open_kernels()
    except MissingExtraError:
        return None


class TorchSnippet:
    """An operator on the CPU; see `bench.snippets.Snippet`.

    Args:
        work: runs it once, and gives what it makes.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self._work: Callable[[], object] | None = work

    @torch.inference_mode()
    def run(self) -> None:
        """Run once; returns when the work is done."""
        assert self._work is not None, "used before it is closed"
        self._work()

    def close(self) -> None:
        """Let its maps and weights go."""
        self._work = None


class CudaSnippet(TorchSnippet):
    """An operator in a CUDA graph, timed by the GPU; `runtime.base.DeviceTimed`.

    Args:
        work: enqueues it on torch's current stream.

    Raises:
        EngineError: memory runs out, the GPU fails, or the work cannot be captured.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(work)
        self._owned = ExitStack()
        try:
            self._stream = cuda_port.Stream()
            self._owned.callback(self._stream.close)
            self._graph = self._captured(work)
            self._owned.callback(self._graph.close)
        except BaseException:
            self.close()
            raise

    def _captured(self, work: Callable[[], object]) -> cuda_port.Graph:
        with cuda_port.PREPARING:
            # Libraries find out what they need, and take it, outside of captures only.
            with told("running an operator"), cuda_port.on(self._stream.handle):
                work()
            self._stream.synchronize()
            with self._stream.capture():
                for _ in range(REPEATS):
                    work()
        return cast("cuda_port.Graph", self._stream.graph)

    def run(self) -> None:
        """Run as often as the graph holds it; returns when the work is done."""
        self._graph.launch(self._stream.handle)
        self._stream.synchronize()

    def time_on_device(self, iterations: int) -> Sequence[float]:
        """Milliseconds of one run of the operator, a mean over each of so many graphs.

        All are enqueued before the first is over, so that the GPU waits for the host only once.
        """
        handle = self._stream.handle
        with ExitStack() as taken:
            points = [cuda_port.Event(timing=True) for _ in range(iterations + 1)]
            for point in points:
                taken.callback(point.close)
            points[0].record(handle)
            for point in points[1:]:
                self._graph.launch(handle)
                point.record(handle)
            self._stream.synchronize()
            pairs = zip(points[1:], points[:-1], strict=True)
            return [end.ms_since(start) / REPEATS for end, start in pairs]

    def close(self) -> None:
        """Give the GPU's memory back, of the graph too."""
        with ExitStack() as leaving:
            leaving.callback(cuda_port.give_back)
            leaving.callback(super().close)
            leaving.callback(self._owned.close)
            if hasattr(self, "_stream"):
                self._stream.synchronize()
