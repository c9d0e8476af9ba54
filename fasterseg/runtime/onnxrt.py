"""`OnnxRuntimeEngine`: runs our ONNX on a CPU or, through CUDA, on an NVIDIA GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as binding

from fasterseg.errors import DeviceUnavailableError, EngineError, UsageError
from fasterseg.graph.precision import Profile
from fasterseg.runtime.base import Device, EngineSpec, check_frames, check_labels
from fasterseg.runtime.onnx_files import check_ends, read_content, spec_in, title_of
from fasterseg.runtime.tail import GRAPH, Finish, finish_for, graph_ends
from fasterseg.types import Size

_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_CPU_FACTS: Final = Path("/proc/cpuinfo")
_TYPE_NAMES: Final = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
_QUIET: Final = 3  # errors only: fallbacks are checked for and raised, not logged
# ONNX Runtime's errors have no common base class of their own.
_ERRORS: Final = (
    binding.Fail,
    binding.InvalidArgument,
    binding.InvalidGraph,
    binding.InvalidProtobuf,
    binding.NoSuchFile,
    binding.NotImplemented,
    binding.RuntimeException,
)


class OnnxRuntimeEngine:
    """An ONNX file of ours in ONNX Runtime; see `runtime.base.Engine`.

    A graph that ends at the 1/8 logits is finished here, by `runtime.tail.Finish`.
    """

    backend: Final = "onnxruntime"
    int8_profile: Final[Profile] = "cpu"

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        spec: EngineSpec,
        device: str,
        finish: Finish | None = None,
    ) -> None:
        self.spec = spec
        self.device = device
        self.tail = finish.name if finish else GRAPH
        self._finish = finish
        self._session: onnxruntime.InferenceSession | None = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name
        self._binding: onnxruntime.IOBinding | None = None
        self._bound_input: onnxruntime.OrtValue
        self._bound_output: onnxruntime.OrtValue
        self._bound_labels: NDArray[np.uint8]
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
        resolved = cls.resolve_device(device)
        session = open_session(source, resolved, threads)
        spec = _spec_of(session, source)
        _check_signature(session, spec, title_of(source))
        return cls(session, spec, resolved, finish_for(spec, threads))

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
        session = self._open_session()
        try:
            [given] = session.run([self._output], {self._input: frames})
        except _ERRORS as error:
            raise _run_failure(self.spec, error) from error
        labels = self._finished(given, frames.shape)
        if not self._checked:
            check_labels(self.spec, labels)
            self._checked = True
        return labels

    def bind(self, frames: NDArray[np.uint8]) -> None:
        """Fix input and output buffers on the device, so that `run_bound` copies nothing."""
        check_frames(self.spec, frames)
        frames = np.ascontiguousarray(frames)
        if self._binding is not None and self._bound_input.shape() == list(frames.shape):
            self._bound_input.update_inplace(frames)
            return
        session = self._open_session()
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
            self._open_session().run_with_iobinding(self._binding)
        except _ERRORS as error:
            raise _run_failure(self.spec, error) from error
        self._binding.synchronize_outputs()
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


def _run_failure(spec: EngineSpec, error: Exception) -> EngineError:
    """ONNX Runtime loads graphs that it then cannot run, and devices run out of memory."""
    return EngineError(
        f"engine {spec.name} failed while running: {str(error).strip().splitlines()[0]}. If its "
        "file is damaged, export it again: fasterseg export MODEL -o FILE.onnx; if memory ran "
        "out, choose a smaller --size"
    )


def _check_signature(session: onnxruntime.InferenceSession, spec: EngineSpec, title: str) -> None:
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


def open_session(
    source: Path | bytes, device: str, threads: int | None = None
) -> onnxruntime.InferenceSession:
    """A session on exactly the device asked for.

    Args:
        source: an ONNX file, or its content.
        device: "cpu" or "cuda".
        threads: CPU threads inside one call; None takes all cores.

    Raises:
        EngineError: the file is missing or not a readable ONNX model.
        DeviceUnavailableError: this ONNX Runtime has no such device, or gave another one.
    """
    content = read_content(source)
    wanted = _PROVIDERS[device]
    if not provides(device):
        raise DeviceUnavailableError(
            f"this ONNX Runtime ({onnxruntime.__version__}) has no {wanted}. Install one that "
            "does: pip install onnxruntime-gpu (and remove the package onnxruntime), or use "
            "--device cpu"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    # Waiting threads that spin take the cores from decoding and encoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if _int8_products_saturate():
        options.add_session_config_entry("session.x64quantprecision", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(content, sess_options=options, providers=[wanted])
    except _ERRORS as error:
        raise EngineError(
            f"ONNX Runtime cannot load {title_of(source)}: {str(error).strip().splitlines()[0]}. "
            "Export it again: fasterseg export MODEL -o FILE.onnx"
        ) from error
    # ONNX Runtime answers a missing GPU with the CPU and a log line; a wrong benchmark follows.
    if session.get_providers()[0] != wanted:
        raise DeviceUnavailableError(
            f"ONNX Runtime was asked for {wanted} and gave {session.get_providers()[0]}: the CUDA "
            "or cuDNN libraries are missing. Install them: "
            "pip install 'onnxruntime-gpu[cuda,cudnn]', or use --device cpu"
        )
    return session


def _int8_products_saturate(facts: Path = _CPU_FACTS) -> bool:
    """Whether this is an x86 CPU before VNNI, where sums of two products overflow 16 bits.

    ONNX Runtime then has a slower, exact way, which it also takes where it is not needed.
    """
    try:
        flags = facts.read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx2" in flags and "_vnni" not in flags


def provides(device: str) -> bool:
    """Whether this build of ONNX Runtime has a provider for "cpu" or "cuda"."""
    return _PROVIDERS[device] in onnxruntime.get_available_providers()


def cuda_device_count() -> int:
    """Number of CUDA devices the driver reports; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
