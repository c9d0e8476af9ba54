"""What we call of the `tensorrt` Python API: one surface for TensorRT 10.x, 11.x and RTX.

The wheels carry no type stubs, so it is written down here by hand; a test holds it against the
bindings of 10.16, 11.4 and TensorRT-RTX 1.7. Methods are written as what they take and give.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, Protocol, cast

from fasterseg.errors import EngineError, MissingExtraError

Shape = Sequence[int]


class Tensor(Protocol):
    """`ITensor`."""

    name: str
    dtype: Any
    shape: Shape


class Layer(Protocol):
    """`ILayer`."""

    name: str
    type: Any
    num_inputs: int
    num_outputs: int

    get_input: Callable[[int], Tensor | None]
    get_output: Callable[[int], Tensor | None]


class Network(Protocol):
    """`INetworkDefinition`."""

    num_layers: int
    num_inputs: int
    num_outputs: int

    get_layer: Callable[[int], Layer]
    get_input: Callable[[int], Tensor]
    get_output: Callable[[int], Tensor]


class ParserError(Protocol):
    """`ParserError`."""

    desc: Callable[[], str]
    node: Callable[[], int]
    node_name: Callable[[], str]
    node_operator: Callable[[], str]


class Parser(Protocol):
    """`OnnxParser`."""

    num_errors: int

    parse: Callable[[bytes], bool]
    get_error: Callable[[int], ParserError]


class HostMemory(Protocol):
    """`IHostMemory`, readable as a buffer."""

    nbytes: int

    __buffer__: Callable[[int], memoryview]


class TimingCache(Protocol):
    """`ITimingCache`."""

    serialize: Callable[[], HostMemory]
    combine: Callable[[TimingCache, bool], bool]


class Profile(Protocol):
    """`IOptimizationProfile`."""

    set_shape: Callable[[str, Shape, Shape, Shape], None]


class Config(Protocol):
    """`IBuilderConfig`; what only RTX has is in `RtxConfig`."""

    builder_optimization_level: int
    hardware_compatibility_level: Any
    max_aux_streams: int
    plugins_to_serialize: list[str]
    profiling_verbosity: Any
    progress_monitor: Any

    add_optimization_profile: Callable[[Profile], int]
    clear_flag: Callable[[Any], None]
    create_timing_cache: Callable[[bytes], TimingCache]
    get_timing_cache: Callable[[], TimingCache]
    set_flag: Callable[[Any], None]
    set_memory_pool_limit: Callable[[Any, int], None]
    set_timing_cache: Callable[[TimingCache, bool], bool]


class RtxConfig(Config, Protocol):
    """`IBuilderConfig` of TensorRT-RTX."""

    num_compute_capabilities: int

    set_compute_capability: Callable[[Any, int], bool]


class Registry(Protocol):
    """`IPluginRegistry`."""

    load_library: Callable[[str], Any]
    get_creator: Callable[[str, str, str], Any]


class Builder(Protocol):
    """`Builder`."""

    build_serialized_network: Callable[[Network, Config], HostMemory | None]
    create_builder_config: Callable[[], Config]
    create_network: Callable[[int], Network]
    create_optimization_profile: Callable[[], Profile]
    get_plugin_registry: Callable[[], Registry]


class Context(Protocol):
    """`IExecutionContext`; `is_stream_capturable` is RTX's alone and asked for with getattr."""

    execute_async_v3: Callable[[int], bool]
    get_tensor_shape: Callable[[str], Shape]
    set_input_shape: Callable[[str, Shape], bool]
    set_tensor_address: Callable[[str, int], bool]


class Inspector(Protocol):
    """`EngineInspector`."""

    get_engine_information: Callable[[Any], str]


class CudaEngine(Protocol):
    """`ICudaEngine`."""

    num_io_tensors: int

    create_engine_inspector: Callable[[], Inspector]
    create_execution_context: Callable[[], Context | None]
    get_tensor_dtype: Callable[[str], Any]
    get_tensor_mode: Callable[[str], Any]
    get_tensor_name: Callable[[int], str]
    get_tensor_profile_shape: Callable[[str, int], list[Shape]]
    get_tensor_shape: Callable[[str], Shape]


class Runtime(Protocol):
    """`Runtime`."""

    engine_host_code_allowed: bool

    deserialize_cuda_engine: Callable[[bytes], CudaEngine | None]
    get_plugin_registry: Callable[[], Registry]


class Api(Protocol):
    """The module: `tensorrt` or `tensorrt_rtx`."""

    __version__: str
    Builder: Callable[[Any], Builder]
    OnnxParser: Callable[[Network, Any], Parser]
    Runtime: Callable[[Any], Runtime]
    ILogger: Any
    IProgressMonitor: Any
    BuilderFlag: Any
    DataType: Any
    HardwareCompatibilityLevel: Any
    LayerInformationFormat: Any
    LayerType: Any
    MemoryPoolType: Any
    NetworkDefinitionCreationFlag: Any
    ProfilingVerbosity: Any
    TensorIOMode: Any


CLASSES: Final[Mapping[str, type]] = {
    "Builder": Builder,
    "EngineInspector": Inspector,
    "IBuilderConfig": Config,
    "ICudaEngine": CudaEngine,
    "IExecutionContext": Context,
    "IHostMemory": HostMemory,
    "ILayer": Layer,
    "INetworkDefinition": Network,
    "IOptimizationProfile": Profile,
    "IPluginRegistry": Registry,
    "ITensor": Tensor,
    "ITimingCache": TimingCache,
    "OnnxParser": Parser,
    "ParserError": ParserError,
    "Runtime": Runtime,
}
"""Name in the module -> what we use of it."""

MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "BuilderFlag": ("TF32", "VERSION_COMPATIBLE"),
    "DataType": ("FLOAT", "HALF", "INT8", "UINT8"),
    "HardwareCompatibilityLevel": ("AMPERE_PLUS", "NONE", "SAME_COMPUTE_CAPABILITY"),
    "LayerInformationFormat": ("JSON",),
    "LayerType": ("CONVOLUTION", "DEQUANTIZE", "PLUGIN_V3", "QUANTIZE"),
    "MemoryPoolType": ("WORKSPACE",),
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
    "ProfilingVerbosity": ("DETAILED",),
    "TensorIOMode": ("INPUT", "OUTPUT"),
}
"""Enumeration -> the members we name."""

BACKENDS: Final[Mapping[str, str]] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Name of the engine -> package that it is made of; also the extra that installs it."""

OLDEST: Final = (10, 13)
"""TensorRT from which on the parser handles plugins beside local functions as we use them."""


def load_api(backend: str) -> Api:
    """Import the package behind a backend.

    Args:
        backend: "tensorrt" or "tensorrt-rtx".

    Raises:
        MissingExtraError: it is not installed.
        EngineError: it is installed and cannot be loaded, or is too old.
    """
    try:
        is_rtx = BACKENDS[backend] == "tensorrt_rtx"
        module = import_module("tensorrt_rtx") if is_rtx else import_module("tensorrt")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"engine {backend} needs the package '{BACKENDS[backend]}', which is not installed. "
            f"Install it: pip install 'fasterseg[{backend}]'"
        ) from error
    except (ImportError, OSError) as error:
        raise EngineError(
            f"the package '{BACKENDS[backend]}' is installed and cannot be loaded: {error}. "
            f"Install it again: pip install --force-reinstall {BACKENDS[backend]}"
        ) from error
    api = cast("Api", module)
    if backend == "tensorrt" and version_numbers(api.__version__) < OLDEST:
        raise EngineError(
            f"TensorRT {api.__version__} is installed, {'.'.join(map(str, OLDEST))} or newer is "
            "needed. Upgrade it: pip install -U 'fasterseg[tensorrt]'"
        )
    return api


def version_numbers(version: str) -> tuple[int, ...]:
    """`"10.16.1.11"` -> (10, 16, 1, 11)."""
    return tuple(int(number) for number in re.findall(r"\d+", version))
