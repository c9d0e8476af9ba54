"""`OnnxRuntimeCudaEngine`: ONNX Runtime on a stream of our own, between buffers of our own.

A captured graph holds addresses and sizes. So a session captures only where the sizes of its
frames are fixed, and every pair of buffers gets a graph of its own, by a number of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fasterseg.errors import DeviceLostError
from fasterseg.registry import resolve
from fasterseg.runtime.base import EngineSpec, check_frames
from fasterseg.runtime.execution import Execution
from fasterseg.runtime.onnxrt import OnnxRuntimeEngine, check_signature, run_failure
from fasterseg.runtime.onnxrt_session import (
    ERRORS,
    CudaSettings,
    open_gpu_session,
    run_options,
)
from fasterseg.runtime.trt import PORTS

_Bound = tuple[onnxruntime.IOBinding, onnxruntime.RunOptions]


class BoundRuns:
    """Runs of a session between addresses on the GPU; see `runtime.execution.Work`.

    Args:
        session: opened on the stream that runs are enqueued on.
        spec: what it takes and gives: labels.
        numbers: of captured graphs, each used once: the session keeps what it has captured as
            long as it lives. None where it captures nothing.

    Attributes:
        shape: of the frames, (N, H, W, 3); None before `set_shape`.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        spec: EngineSpec,
        numbers: Iterator[int] | None,
    ) -> None:
        self._session, self._spec, self._numbers = session, spec, numbers
        self._taken = session.get_inputs()[0].name
        self._given = session.get_outputs()[0].name
        self._bound: dict[tuple[int, int], _Bound] = {}
        self._lost: str | None = None
        self.shape: tuple[int, ...] | None = None

    def set_shape(self, shape: tuple[int, ...]) -> None:
        """Make ready for batches of (N, H, W, 3); addresses bound before are forgotten."""
        self.release()
        self.shape = shape

    def enqueue(self, frames: int, labels: int, stream: int) -> None:
        """Run on device memory.

        Args:
            frames: address of (N, H, W, 3) uint8, BGR.
            labels: address of (N, H, W) uint8, written.
            stream: the session's own; it is no argument of a run.

        Raises:
            EngineError: the runtime or the GPU fails; after the GPU was lost, at once.
        """
        if self._lost is not None:
            raise DeviceLostError(self._lost)
        pair = (frames, labels)
        if pair not in self._bound:
            self._bound[pair] = self._bind(*pair)
        binding, options = self._bound[pair]
        try:
            self._session.run_with_iobinding(binding, options)
        except ERRORS as error:
            failure = run_failure(self._spec, "cuda", error)
            if isinstance(failure, DeviceLostError):
                self._lost = str(failure)
            raise failure from error

    def _bind(self, frames: int, labels: int) -> _Bound:
        assert self.shape is not None, "set before"
        binding = self._session.io_binding()
        binding.bind_input(self._taken, "cuda", 0, np.uint8, list(self.shape), frames)
        binding.bind_output(self._given, "cuda", 0, np.uint8, list(self.shape[:3]), labels)
        number = None if self._numbers is None else next(self._numbers)
        return binding, run_options(number, wait=False)

    def capturable(self, stream: int) -> bool:
        """No: ONNX Runtime captures by itself."""
        return False

    def release(self) -> None:
        """Forget the addresses; a shape must be set anew."""
        self._bound.clear()
        self.shape = None


class OnnxRuntimeCudaEngine(OnnxRuntimeEngine):
    """An ONNX file of ours in ONNX Runtime on a GPU, with buffers and a stream of our own.

    `submit` and `collect` are the two halves of `run`. ONNX Runtime waits for a captured graph
    before it returns, so with one the host does nothing else while the GPU works.

    Args:
        session: opened on `stream`.
        spec: what it takes and gives: labels.
        settings: it was opened with.
        cuda: `fasterseg.runtime.cuda`, or what stands for it in a test.
        stream: closed with the engine.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        spec: EngineSpec,
        settings: CudaSettings,
        cuda: Any,
        stream: Any,
    ) -> None:
        super().__init__(session, spec, "cuda", cuda=settings)
        self._stream = stream
        runs = BoundRuns(session, spec, self._graphs if settings.graph else None)
        self._execution = Execution(cuda, runs, stream)

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Classify one batch; see `runtime.base.Engine.run`."""
        self.submit(frames)
        return self.collect()

    def submit(self, frames: NDArray[np.uint8]) -> None:
        """Begin with a batch; see `Execution.submit`."""
        check_frames(self.spec, frames)
        self._open_session()
        self._execution.submit(frames)

    def collect(self) -> NDArray[np.uint8]:
        """Labels of the oldest batch on its way; see `Execution.collect`."""
        self._open_session()
        return self._known(self._execution.collect())

    def time_on_device(self, iterations: int) -> Sequence[float]:
        """Milliseconds of each run by the GPU's clock, without copies; run one batch before.

        From the moment the stream is ready for a run to the moment it is done: what the host
        takes to start ONNX Runtime is in it wherever the GPU has to wait for that.
        """
        self._open_session()
        return self._execution.time(iterations)

    def close(self) -> None:
        """Release the GPU's memory, the session before the stream it works on."""
        if self._session is None:
            return
        with ExitStack() as leaving:
            leaving.callback(self._stream.close)
            leaving.callback(self._let_go)
            self._execution.close()

    def _let_go(self) -> None:
        """Drop all that holds the session."""
        del self._execution
        super().close()


def open_on_stream(
    content: bytes, title: str, spec: EngineSpec, threads: int | None
) -> OnnxRuntimeCudaEngine:
    """Open an engine that gives labels, on a new stream.

    Args:
        content: of the ONNX file.
        title: names it in errors.
        spec: in it.
        threads: CPU threads of what is left to the host.

    Raises:
        MissingExtraError: cuda-python is not installed.
        EngineError, EngineMismatchError, DeviceUnavailableError: see `OnnxRuntimeEngine.open`.
    """
    cuda = resolve(PORTS, "port", "cuda")
    cuda.use_device()
    stream = cuda.Stream()
    try:
        session, settings = open_gpu_session(
            content, title, CudaSettings.of(spec), threads, stream.handle
        )
        check_signature(session, spec, title)
        return OnnxRuntimeCudaEngine(session, spec, settings, cuda, stream)
    except BaseException:
        stream.close()
        raise
