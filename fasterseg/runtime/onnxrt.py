"""`OnnxRuntimeEngine`: runs our ONNX on a CPU or, through CUDA, on an NVIDIA GPU.

Where cuda-python is installed, engines on a GPU are those of `runtime.onnxrt_cuda`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fasterseg.errors import DeviceUnavailableError, EngineError, MissingExtraError, UsageError
from fasterseg.graph.precision import Profile
from fasterseg.registry import resolve
from fasterseg.runtime.base import Device, EngineSpec, check_frames, check_labels
from fasterseg.runtime.onnx_files import check_ends, read_content, spec_in, title_of
from fasterseg.runtime.onnxrt_session import (
    ERRORS,
    FIRST_GRAPH,
    CudaSettings,
    cuda_device_count,
    failure_on_gpu,
    open_gpu_session,
    open_session,
    provides,
    read_metadata,
    run_options,
)
from fasterseg.runtime.tail import GRAPH, Finish, finish_for, graph_ends
from fasterseg.types import Size

__all__ = ["OnnxRuntimeEngine", "cuda_device_count", "open_session", "provides"]

_LOG: Final = logging.getLogger(__name__)
ON_STREAM: Final[Mapping[str, str]] = {"cuda": "fasterseg.runtime.onnxrt_cuda:open_on_stream"}
"""What opens engines on a stream of our own; the package behind it is optional."""

_TYPE_NAMES: Final = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxRuntimeEngine:
    """An ONNX file of ours in ONNX Runtime; see `runtime.base.Engine`.

    A graph that ends at the 1/8 logits is finished here, by `runtime.tail.Finish`. On a GPU, frames
    and what the graph gives lie there, and a graph of fixed sizes is captured and launched as one.

    Args:
        session: opened on the device.
        spec: what it takes and gives.
        device: "cpu" or "cuda".
        finish: makes labels of logits; None where the graph does.
        cuda: what the session was opened with on a GPU.

    Attributes:
        captured: whether runs are launched as one CUDA graph; None on a CPU.
    """

    backend: Final = "onnxruntime"
    int8_profile: Final[Profile] = "cpu"

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        spec: EngineSpec,
        device: str,
        finish: Finish | None = None,
        cuda: CudaSettings | None = None,
    ) -> None:
        self.spec = spec
        self.device = device
        self.captured = cuda.graph if cuda else None
        self.tail = finish.name if finish else GRAPH
        self._finish = finish
        self._session: onnxruntime.InferenceSession | None = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name
        self._binding: onnxruntime.IOBinding | None = None
        self._bound_input: onnxruntime.OrtValue
        self._bound_output: onnxruntime.OrtValue
        self._bound_labels: NDArray[np.uint8]
        self._bound_options: onnxruntime.RunOptions | None = None
        self._graphs = itertools.count(FIRST_GRAPH)
        self._checked = False

    @classmethod
    def open(
        cls, source: Path | bytes, device: Device = "auto", threads: int | None = None
    ) -> OnnxRuntimeEngine:
        """Load an ONNX file that `fasterseg export` wrote.

        Args:
            source: the file, or its content.
            device: "cpu", "cuda", or "auto" (CUDA where a CUDA device answers).
            threads: CPU threads inside one call; None takes all cores.

        Raises:
            EngineError: the file is missing or not a readable ONNX model.
            EngineMismatchError: it carries no engine description, another network than the
                one described, or gives neither labels nor 1/8 logits.
            DeviceUnavailableError: the device is not there, or ONNX Runtime gave another one.
        """
        if cls.resolve_device(device) == "cuda":
            return _open_on_gpu(source, threads)
        session = open_session(source, "cpu", threads)
        spec = _spec_of(session, source)
        check_signature(session, spec, title_of(source))
        return cls(session, spec, "cpu", finish_for(spec, threads))

    @staticmethod
    def read_spec(source: Path) -> EngineSpec:
        """The description inside an ONNX file of ours, whatever it gives.

        Raises:
            EngineError: see `open`.
            EngineMismatchError: there is none.
        """
        return _spec_of(open_session(source, "cpu", threads=1), source)

    @staticmethod
    def resolve_device(device: Device) -> str:
        """Give "cpu" or "cuda"; "auto" is CUDA where a CUDA device answers.

        Raises:
            DeviceUnavailableError: "cuda" was asked for and no CUDA device answers.
        """
        if device == "cpu":
            return "cpu"
        count = cuda_device_count()
        if device == "cuda" and not count:
            raise DeviceUnavailableError(
                "no CUDA device answers on this machine (no NVIDIA driver, or no visible GPU). "
                "Check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu"
            )
        return "cuda" if count else "cpu"

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Classify one batch; see `runtime.base.Engine.run`."""
        check_frames(self.spec, frames)
        if self.device == "cpu":
            labels = self._run_on_cpu(frames)
        else:
            self.bind(frames)
            self.run_bound()
            labels = self.bound_labels()
        return self._known(labels)

    def _run_on_cpu(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        try:
            [given] = self._open_session().run([self._output], {self._input: frames})
        except ERRORS as error:
            raise run_failure(self.spec, self.device, error) from error
        return self._finished(given, frames.shape)

    def _known(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The labels, of which the very first are looked at: do they all have names?"""
        if not self._checked:
            check_labels(self.spec, labels)
            self._checked = True
        return labels

    def bind(self, frames: NDArray[np.uint8]) -> None:
        """Fix input and output buffers on the device, so that `run_bound` copies nothing."""
        check_frames(self.spec, frames)
        frames = np.ascontiguousarray(frames)
        fits = self._binding is not None and self._bound_input.shape() == list(frames.shape)
        try:
            if fits:
                self._bound_input.update_inplace(frames)
            else:
                self._bind_new(frames)
        except ERRORS as error:
            self._binding = None
            raise run_failure(self.spec, self.device, error) from error

    def _bind_new(self, frames: NDArray[np.uint8]) -> None:
        session = self._open_session()
        self._binding = None
        # Other buffers have other addresses, which a captured graph would not know.
        number = next(self._graphs) if self.captured else None
        self._bound_options = None if self.device == "cpu" else run_options(number, wait=True)
        self._bound_input = onnxruntime.OrtValue.ortvalue_from_numpy(frames, self.device, 0)
        shape, kind = graph_ends(self.spec, frames.shape)
        # On the CPU an array's own memory, so that what finishes the logits need not copy them.
        self._bound_output = (
            onnxruntime.OrtValue.ortvalue_from_numpy(np.empty(shape, kind), "cpu", 0)
            if self.device == "cpu"
            else onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, kind, self.device, 0)
        )
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(self._input, self._bound_input)
        self._binding.bind_ortvalue_output(self._output, self._bound_output)

    def run_bound(self) -> None:
        """Run once on the bound buffers, to the labels, and wait for the device."""
        if self._binding is None:
            raise UsageError("call bind(frames) before run_bound()")
        try:
            self._open_session().run_with_iobinding(self._binding, self._bound_options)
            self._binding.synchronize_outputs()
        except ERRORS as error:
            raise run_failure(self.spec, self.device, error) from error
        if self._finish is not None:
            self._bound_labels = self._finished(
                self._bound_output.numpy(), tuple(self._bound_input.shape())
            )

    def bound_labels(self) -> NDArray[np.uint8]:
        """(N, H, W) uint8 labels of the last `run_bound`, copied to the host."""
        if self._binding is None:
            raise UsageError("call bind(frames) before bound_labels()")
        if self._finish is not None:
            return self._bound_labels.copy()
        labels: NDArray[np.uint8] = self._binding.copy_outputs_to_cpu()[0]
        return labels

    def _finished(self, given: NDArray[Any], frames_shape: Sequence[int]) -> NDArray[np.uint8]:
        """What the graph gave, as labels."""
        if self._finish is None:
            return given
        return self._finish(given, Size(*frames_shape[1:3]))

    def close(self) -> None:
        """Release the session."""
        self._binding = None
        self._session = None

    def _open_session(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise UsageError(f"engine {self.spec.name} is closed; open it again with load_engine")
        return self._session


def _open_on_gpu(source: Path | bytes, threads: int | None) -> OnnxRuntimeEngine:
    """An engine on the GPU, on a stream of our own where there is what makes one."""
    content, title = read_content(source), title_of(source)
    # What suits the engine has to be known before its session is made.
    spec = spec_in(read_metadata(content, title), title)
    if spec.output == "labels":
        try:
            opener = resolve(ON_STREAM, "stream", "cuda")
            engine: OnnxRuntimeEngine = opener(content, title, spec, threads)
        except MissingExtraError as error:
            _LOG.info("frames go to the GPU through ONNX Runtime alone: %s", error)
        else:
            return engine
    session, settings = open_gpu_session(content, title, CudaSettings.of(spec), threads)
    check_signature(session, spec, title)
    return OnnxRuntimeEngine(session, spec, "cuda", finish_for(spec, threads), settings)


def run_failure(spec: EngineSpec, device: str, error: Exception) -> EngineError:
    """ONNX Runtime loads graphs that it then cannot run, and GPUs fail in ways of their own."""
    on_gpu = failure_on_gpu(f"engine {spec.name}", error) if device == "cuda" else None
    return on_gpu or EngineError(
        f"engine {spec.name} failed while running: {str(error).strip().splitlines()[0]}. If its "
        "file is damaged, export it again: fasterseg export MODEL -o FILE.onnx; if memory ran "
        "out, choose a smaller --size"
    )


def check_signature(session: onnxruntime.InferenceSession, spec: EngineSpec, title: str) -> None:
    """Refuse a graph that is not what its description says; see `onnx_files.check_ends`."""
    taken, given = (
        [
            (
                _TYPE_NAMES.get(value.type, value.type),
                [side if isinstance(side, int) else None for side in value.shape],
            )
            for value in values
        ]
        for values in (session.get_inputs(), session.get_outputs())
    )
    check_ends(spec, title, taken, given)


def _spec_of(session: onnxruntime.InferenceSession, source: Path | bytes) -> EngineSpec:
    return spec_in(session.get_modelmeta().custom_metadata_map, title_of(source))
