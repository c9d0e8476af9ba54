"""`OnnxRuntimeEngine`: runs our ONNX on a CPU or, through CUDA, on an NVIDIA GPU."""

from __future__ import annotations

import ctypes
import stat
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as binding

from fasterseg.errors import DeviceUnavailableError, EngineError, EngineMismatchError, UsageError
from fasterseg.graph.precision import Profile
from fasterseg.runtime.base import METADATA_KEY, Device, EngineSpec, check_frames, check_labels

_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_LARGEST: Final = (2 << 30) - 1
_CPU_FACTS: Final = Path("/proc/cpuinfo")
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
    """An ONNX file of ours in ONNX Runtime; see `runtime.base.Engine`."""

    backend: Final = "onnxruntime"
    tail: Final = "graph"
    int8_profile: Final[Profile] = "cpu"

    def __init__(
        self, session: onnxruntime.InferenceSession, spec: EngineSpec, device: str
    ) -> None:
        self.spec = spec
        self.device = device
        self._session: onnxruntime.InferenceSession | None = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name
        self._binding: onnxruntime.IOBinding | None = None
        self._bound_input: onnxruntime.OrtValue
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
                one described, or gives no labels.
            DeviceUnavailableError: the device is not there, or ONNX Runtime gave another one.
        """
        resolved = cls.resolve_device(device)
        session = open_session(source, resolved, threads)
        spec = _spec_of(session, source)
        if spec.output != "labels":
            raise EngineMismatchError(
                f"{_title(source)} gives {spec.output}, an engine gives labels. Export it without "
                "--stages"
            )
        _check_signature(session, spec, _title(source))
        return cls(session, spec, resolved)

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
        labels: NDArray[np.uint8]
        try:
            [labels] = session.run([self._output], {self._input: frames})
        except _ERRORS as error:
            raise _run_failure(self.spec, error) from error
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
        labels = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            frames.shape[:3], np.uint8, self.device, 0
        )
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(self._input, self._bound_input)
        self._binding.bind_ortvalue_output(self._output, labels)

    def run_bound(self) -> None:
        """Run once on the bound buffers and wait for the device."""
        if self._binding is None:
            raise UsageError("call bind(frames) before run_bound()")
        try:
            self._open_session().run_with_iobinding(self._binding)
        except _ERRORS as error:
            raise _run_failure(self.spec, error) from error
        self._binding.synchronize_outputs()

    def bound_labels(self) -> NDArray[np.uint8]:
        """(N, H, W) uint8 labels of the last `run_bound`, copied to the host."""
        if self._binding is None:
            raise UsageError("call bind(frames) before bound_labels()")
        labels: NDArray[np.uint8] = self._binding.copy_outputs_to_cpu()[0]
        return labels

    def close(self) -> None:
        """Release the session."""
        self._binding = None
        self._session = None

    def _open_session(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise UsageError(f"engine {self.spec.name} is closed; open it again with load_engine")
        return self._session


def _title(source: Path | bytes) -> str:
    return str(source) if isinstance(source, Path) else "the engine"


def _run_failure(spec: EngineSpec, error: Exception) -> EngineError:
    """ONNX Runtime loads graphs that it then cannot run, and devices run out of memory."""
    return EngineError(
        f"engine {spec.name} failed while running: {str(error).strip().splitlines()[0]}. If its "
        "file is damaged, export it again: fasterseg export MODEL -o FILE.onnx; if memory ran "
        "out, choose a smaller --size"
    )


def _spec_of(session: onnxruntime.InferenceSession, source: Path | bytes) -> EngineSpec:
    metadata = session.get_modelmeta().custom_metadata_map
    if METADATA_KEY not in metadata:
        raise EngineMismatchError(
            f"{_title(source)} carries no engine description, so its classes, colour order and "
            "mean are unknown. Export it with: fasterseg export MODEL -o FILE.onnx"
        )
    return EngineSpec.from_json(metadata[METADATA_KEY], _title(source))


def _check_signature(session: onnxruntime.InferenceSession, spec: EngineSpec, title: str) -> None:
    """Refuse a graph that is not what its description says."""
    size = spec.size or (None, None)
    frames = ("tensor(uint8)", [spec.batch, *size, 3])
    for kind, values, (element, shape) in (
        ("takes", session.get_inputs(), frames),
        ("gives", session.get_outputs(), (frames[0], frames[1][:3])),
    ):
        found = [
            (value.type, [n if isinstance(n, int) else None for n in value.shape])
            for value in values
        ]
        if found != [(element, shape)]:
            raise EngineMismatchError(
                f"{title} {kind} {found}, but its description says {[(element, shape)]}. "
                "Export it again: fasterseg export MODEL -o FILE.onnx"
            )


def _content(source: Path | bytes) -> bytes:
    """The file, read here: ONNX Runtime takes no file name that is not text."""
    if isinstance(source, bytes):
        return source
    try:
        facts = source.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise EngineError(
                f"engine {source} is no file but a folder or a device; give the .onnx"
            )
        if facts.st_size > _LARGEST:
            raise EngineError(
                f"engine {source} is larger than ONNX files can be (2 GiB). Export it again: "
                "fasterseg export MODEL -o FILE.onnx"
            )
        return source.read_bytes()
    except FileNotFoundError:
        raise EngineError(
            f"engine {source} does not exist. Make one: fasterseg export MODEL -o {source}"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EngineError(
            f"cannot read engine {source}: {reason}. Mend its path or permissions, or make "
            "another: fasterseg export MODEL -o FILE.onnx"
        ) from error


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
    content = _content(source)
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
            f"ONNX Runtime cannot load {_title(source)}: {str(error).strip().splitlines()[0]}. "
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
