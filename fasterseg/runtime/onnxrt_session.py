"""Sessions of ONNX Runtime on exactly the device asked for, and what their errors mean."""

from __future__ import annotations

import ctypes
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as binding

from fasterseg.errors import (
    DeviceLostError,
    DeviceUnavailableError,
    EngineError,
    UnsupportedError,
)
from fasterseg.runtime.base import EngineSpec
from fasterseg.runtime.onnx_files import read_content, title_of

_LOG: Final = logging.getLogger(__name__)
_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_CPU_FACTS: Final = Path("/proc/cpuinfo")
_QUIET: Final = 3  # errors only: fallbacks are checked for and raised, not logged
# ONNX Runtime's errors have no common base class of their own.
ERRORS: Final[tuple[type[Exception], ...]] = (
    binding.EPFail,
    binding.Fail,
    binding.InvalidArgument,
    binding.InvalidGraph,
    binding.InvalidProtobuf,
    binding.NoSuchFile,
    binding.NotImplemented,
    binding.RuntimeException,
    RuntimeError,  # what went wrong before there was a status, as in making a provider
)
"""What loading and running raises."""

Search = Literal["EXHAUSTIVE", "HEURISTIC", "DEFAULT"]
"""How cuDNN's algorithms are chosen: by trying them, by a guess, or one for all."""

GRAPH_ID: Final = "gpu_graph_id"
NO_WAIT: Final = "disable_synchronize_execution_providers"
FIRST_GRAPH: Final = 1
"""Number of the first captured graph; 0 is kept by ONNX Runtime, -1 means none."""

_OUT_OF_MEMORY: Final = re.compile(r"out of memory|failed to allocate memory|ALLOC_FAILED", re.I)
_NO_KERNEL: Final = re.compile(r"no kernel image|CUDNN_STATUS_(NOT_SUPPORTED_)?ARCH_MISMATCH", re.I)
_NO_DRIVER: Final = re.compile(
    r"CUDA (failure|error) (35|100)\b|insufficient driver|no CUDA-capable"
)
_LOST: Final = re.compile(
    r"illegal (memory access|instruction)|misaligned address|launch failure|launch timed out|"
    r"device-side assert|uncorrectable|context is destroyed|hardware stack error|GPU is lost",
    re.I,
)
"""After these no call of the process reaches the GPU again."""

_CUDA: Final = re.compile(r"\bCU(DA|DNN|BLAS)\w* (failure|error)", re.I)


@dataclass(frozen=True, slots=True)
class CudaSettings:
    """How a session works on the GPU.

    Attributes:
        nhwc: convolutions on channels-last maps, which tensor cores want.
        fuse: convolution and bias in one kernel of cuDNN.
        graph: the whole run captured once and launched as one; needs fixed sizes.
        search: how cuDNN's algorithms are chosen.
    """

    nhwc: bool
    fuse: bool
    graph: bool
    search: Search = "EXHAUSTIVE"

    @classmethod
    def of(cls, spec: EngineSpec) -> CudaSettings:
        """What suits an engine.

        In fp32 the layout stays as it is and nothing is fused: both go through cuDNN's graphs,
        which may round to TF32 whatever is asked for.
        """
        is_half = spec.precision == "fp16"
        is_fixed = spec.size is not None and spec.batch is not None
        return cls(nhwc=is_half, fuse=is_half, graph=is_fixed)

    def provider(self, stream: int | None = None) -> dict[str, str]:
        """Options of the CUDA execution provider.

        Args:
            stream: handle of the stream to work on; None: one of ONNX Runtime's own.
        """
        options = {
            "device_id": "0",
            "cudnn_conv_algo_search": self.search,
            "cudnn_conv_use_max_workspace": "1",
            "prefer_nhwc": _flag(self.nhwc),
            "fuse_conv_bias": _flag(self.fuse),
            "enable_cuda_graph": _flag(self.graph),
            # fp32 means fp32: labels are compared with those of the reference.
            "use_tf32": "0",
        }
        if stream is not None:
            options["user_compute_stream"] = str(stream)
        return options


def _flag(value: bool) -> str:
    return "1" if value else "0"


def run_options(graph: int | None, *, wait: bool) -> onnxruntime.RunOptions:
    """Options of runs on one pair of buffers.

    Args:
        graph: number of the captured graph that knows their addresses, None without graphs.
        wait: come back only when the GPU is done. A captured graph is always waited for.
    """
    options = onnxruntime.RunOptions()
    if graph is not None:
        options.add_run_config_entry(GRAPH_ID, str(graph))
    if not wait:
        options.add_run_config_entry(NO_WAIT, "1")
    return options


def failure_on_gpu(title: str, error: Exception) -> EngineError | None:
    """What an error of ONNX Runtime means where it comes from the GPU; None where it does not.

    Args:
        title: of the engine, for the message.
        error: as it was raised.
    """
    text = str(error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    if _OUT_OF_MEMORY.search(text):
        return EngineError(
            f"{title}: the GPU's memory ran out ({line}). Choose a smaller --size or --batch, or "
            "close what else uses the GPU (nvidia-smi lists it)"
        )
    if _NO_KERNEL.search(text):
        return UnsupportedError(
            f"{title}: this ONNX Runtime ({onnxruntime.__version__}) has no kernels for this GPU "
            f"({line}). Install one that does: pip install -U onnxruntime-gpu, or use another "
            "engine: --engine torch"
        )
    if _NO_DRIVER.search(text):
        return DeviceUnavailableError(
            f"{title}: CUDA has no device for us ({line}). Check nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, or use --device cpu"
        )
    if _LOST.search(text):
        return DeviceLostError(
            f"{title}: the GPU failed ({line}). What was computed is lost, and this process cannot "
            "use the GPU any more; start again, and if it stays, look at dmesg and update the "
            "driver"
        )
    if _CUDA.search(text):
        return EngineError(
            f"{title}: CUDA failed ({line}). What was computed is lost; start again, and if it "
            "stays, update the driver, or use another engine: --engine torch"
        )
    return None


def open_session(
    source: Path | bytes,
    device: str,
    threads: int | None = None,
    provider: Mapping[str, str] | None = None,
    *,
    title: str | None = None,
) -> onnxruntime.InferenceSession:
    """A session on exactly the device asked for.

    Args:
        source: an ONNX file, or its content.
        device: "cpu" or "cuda".
        threads: CPU threads inside one call; None takes all cores.
        provider: options of the device's execution provider.
        title: names the file in errors; None: its own name.

    Raises:
        EngineError: the file is missing or not a readable ONNX model.
        DeviceUnavailableError: this ONNX Runtime has no such device, or gave another one.
    """
    content, title = read_content(source), title or title_of(source)
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
    session = _session(content, title, options, device, provider or {})
    # A missing library it answers with the CPU and a log line; a wrong benchmark follows.
    if session.get_providers()[0] != wanted:
        raise DeviceUnavailableError(
            f"ONNX Runtime was asked for {wanted} and gave {session.get_providers()[0]}: the CUDA "
            "or cuDNN libraries are missing. Install them: "
            "pip install 'onnxruntime-gpu[cuda,cudnn]', or use --device cpu"
        )
    return session


def open_gpu_session(
    content: bytes,
    title: str,
    settings: CudaSettings,
    threads: int | None = None,
    stream: int | None = None,
) -> tuple[onnxruntime.InferenceSession, CudaSettings]:
    """A session on the GPU, captured where its graph can be.

    Args:
        content: of the ONNX file.
        title: names it in errors.
        settings: as they are wished.
        threads: CPU threads of what is left to the host.
        stream: handle of the stream to work on; None: one of ONNX Runtime's own.

    Returns:
        The session, and the settings it has: without a captured graph where ONNX Runtime refused
        one, which a warning tells.

    Raises:
        EngineError, DeviceUnavailableError: see `open_session`.
    """

    def opened(chosen: CudaSettings) -> onnxruntime.InferenceSession:
        return open_session(content, "cuda", threads, chosen.provider(stream), title=title)

    if not settings.graph:
        return opened(settings), settings
    try:
        return opened(settings), settings
    except (DeviceUnavailableError, UnsupportedError):
        raise
    except EngineError as error:
        eager = replace(settings, graph=False)
        session = opened(eager)
        reason = str(error.__cause__ or error).strip()
        _LOG.warning("no CUDA graph, every step is launched by itself: %s", reason)
        return session, eager


def read_metadata(content: bytes, title: str) -> Mapping[str, str]:
    """Metadata properties of an ONNX file; nothing is made ready to run.

    Raises:
        EngineError: it is not a readable ONNX model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = _session(content, title, options, "cpu", {})
    found: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    return found


def _session(
    content: bytes,
    title: str,
    options: onnxruntime.SessionOptions,
    device: str,
    provider: Mapping[str, str],
) -> onnxruntime.InferenceSession:
    wanted = (_PROVIDERS[device], dict(provider))
    try:
        # The fallback it has is the CPU, and a line on stdout.
        return onnxruntime.InferenceSession(content, options, [wanted], enable_fallback=0)
    except ERRORS as error:
        on_gpu = failure_on_gpu(title, error) if device == "cuda" else None
        raise on_gpu or EngineError(
            f"ONNX Runtime cannot load {title}: {str(error).strip().splitlines()[0]}. "
            "Export it again: fasterseg export MODEL -o FILE.onnx"
        ) from error


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
