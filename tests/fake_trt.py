"""Stands for the `tensorrt` module as `runtime.trt_surface` describes it; no TensorRT is tested.

The "engine" labels a pixel with its blue value modulo the number of classes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.fake_cuda import FakeCudart

Severity = Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])


def names(**values: Any) -> Any:
    """An enumeration: `.HALF.name` is "HALF"."""
    return SimpleNamespace(**{key: SimpleNamespace(name=key, value=v) for key, v in values.items()})


DataType = names(FLOAT=0, HALF=1, INT8=2, UINT8=3)
TensorIOMode = names(INPUT=1, OUTPUT=2)


class FakeContext:
    """Remembers shapes and addresses; its first run must not be captured, as in TensorRT."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.shape: tuple[int, ...] | None = None
        self.addresses: dict[str, int] = {}
        self.warm = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.warm = False
        if not self.engine.takes(tuple(shape)):
            self.engine.say("ERROR", f"shape {shape} is outside the profile")
            return False
        self.shape = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        assert self.shape is not None
        batch, height, width, _ = self.shape
        if name == "logits8":
            return (batch, self.engine.classes, -(-height // 8), -(-width // 8))
        return self.shape[:3] if name == "labels" else self.shape

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream: int) -> bool:
        cuda = self.engine.cuda
        self.engine.runs += 1
        if self.engine.broken or (stream in cuda.capturing and not self.warm):
            self.engine.say("ERROR", "enqueue failed: out of memory")
            return False
        self.warm = True
        addresses, shape, engine = dict(self.addresses), self.shape, self.engine
        assert shape is not None

        def work() -> None:
            cuda.now += 2.0
            frames = at(addresses["frames"], shape)
            if engine.output == "labels":
                at(addresses["labels"], shape[:3])[...] = frames[..., 0] % engine.classes
            else:
                blue = frames[:, ::8, ::8, 0] % engine.classes
                logits = np.eye(engine.classes, dtype=np.float32)[blue].transpose(0, 3, 1, 2)
                memory = at(addresses["logits8"], (*logits.shape, 4))
                memory.view(np.float32)[..., 0] = logits

        cuda.enqueue(stream, work)
        return True


def at(address: int, shape: Sequence[int]) -> Any:
    """The array that lies at an address."""
    block = (ctypes.c_uint8 * int(np.prod(shape))).from_address(address)
    return np.ctypeslib.as_array(block).reshape(tuple(shape))


class FakeEngine:
    """What a plan becomes."""

    def __init__(
        self,
        cuda: FakeCudart,
        say: Callable[[str, str], None],
        *,
        classes: int = 11,
        output: str = "labels",
        takes: Callable[[tuple[int, ...]], bool] = lambda shape: True,
        output_type: str | None = None,
    ) -> None:
        self.cuda, self.say, self.classes, self.output, self.takes = (
            cuda, say, classes, output, takes,
        )  # fmt: skip
        self.output_type = output_type or ("UINT8" if output == "labels" else "FLOAT")
        self.num_io_tensors = 2
        self.contexts: list[FakeContext] = []
        self.runs = 0
        self.broken = False
        self.capturable: bool | None = None

    def get_tensor_name(self, index: int) -> str:
        return ("frames", self.output)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode.INPUT if name == "frames" else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return DataType.UINT8 if name == "frames" else getattr(DataType, self.output_type)

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        return {"frames": (1, 8, 8, 3), "labels": (1, 8, 8)}.get(name, (1, 11, 1, 1))

    def create_execution_context(self) -> FakeContext:
        context = FakeContext(self)
        if self.capturable is not None:
            answer = self.capturable
            context.is_stream_capturable = lambda stream: answer  # type: ignore[attr-defined]
        self.contexts.append(context)
        return context

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(get_engine_information=lambda kind: '{"Layers": [], "Bindings": []}')


class FakeLogger:
    """Base of loggers."""

    def log(self, severity: Any, message: str) -> None:
        raise NotImplementedError


class FakeMonitor:
    """Base of progress monitors."""


class FakeApi:
    """The module, with a runtime that gives `engine` for every plan (None: it refuses)."""

    def __init__(self, cuda: FakeCudart, version: str = "10.16.1.11", **engine: Any) -> None:
        self.__version__ = version
        self.ILogger, self.IProgressMonitor = FakeLogger, FakeMonitor
        self.DataType, self.TensorIOMode = DataType, TensorIOMode
        self.LayerInformationFormat = names(JSON=1)
        self.cuda = cuda
        self.refuses: str | None = None
        self.engine: FakeEngine | None = None
        self._engine = engine
        self.runtimes: list[Any] = []

    def Runtime(self, logger: Any) -> Any:  # noqa: N802 - as in TensorRT
        def say(level: str, text: str) -> None:
            logger.log(Severity[level], text)

        def load(data: bytes) -> FakeEngine | None:
            if self.refuses is not None:
                say("ERROR", self.refuses)
                return None
            self.engine = FakeEngine(self.cuda, say, **self._engine)
            return self.engine

        self.runtimes.append(
            SimpleNamespace(deserialize_cuda_engine=load, engine_host_code_allowed=False)
        )
        return self.runtimes[-1]


class FakeBuilderApi(FakeApi):
    """The module with a builder: the ONNX it is given decides nothing, `network` does."""

    def __init__(self, cuda: FakeCudart, network: Any, version: str = "10.16.1.11") -> None:
        super().__init__(cuda, version)
        self.network = network
        self.parser_errors: list[Any] = []
        self.built: bytes | None = b"plan"
        self.says: list[tuple[str, str]] = []
        self.config = FakeConfig()
        self.builds = 0
        flags = ("TF32", "VERSION_COMPATIBLE")
        self.BuilderFlag = names(**dict.fromkeys(flags, 0))
        self.MemoryPoolType = names(WORKSPACE=0)
        self.ProfilingVerbosity = names(DETAILED=0)
        self.HardwareCompatibilityLevel = names(AMPERE_PLUS=0, SAME_COMPUTE_CAPABILITY=0, NONE=0)
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.creation_flags = 0

    def OnnxParser(self, network: Any, logger: Any) -> Any:  # noqa: N802
        return SimpleNamespace(
            parse=lambda data: not self.parser_errors,
            num_errors=len(self.parser_errors),
            get_error=lambda index: self.parser_errors[index],
        )

    def Builder(self, logger: Any) -> Any:  # noqa: N802
        def create(flags: int) -> Any:
            self.creation_flags = flags
            return self.network

        def build(network: Any, config: Any) -> bytes | None:
            self.builds += 1
            for level, text in self.says:
                logger.log(Severity[level], text)
            return self.built

        return SimpleNamespace(
            create_network=create,
            create_builder_config=lambda: self.config,
            build_serialized_network=build,
            create_optimization_profile=lambda: SimpleNamespace(
                set_shape=lambda *shapes: self.config.profiles.append(shapes)
            ),
        )


class FakeTimings:
    """A timing cache: a set of bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data

    def combine(self, other: FakeTimings, ignore: bool) -> bool:
        self.data += other.data
        return True


class FakeConfig:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.flags: set[str] = {"TF32"}
        self.pools: dict[str, int] = {}
        self.profiles: list[Any] = []
        self.timings = FakeTimings(b"")
        self.rejects_timings = False

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.pools[pool.name] = size

    def create_timing_cache(self, data: bytes) -> FakeTimings:
        return FakeTimings(data)

    def set_timing_cache(self, cache: FakeTimings, ignore: bool) -> bool:
        if self.rejects_timings and not ignore:
            return False
        self.timings = FakeTimings(cache.data + b"+measured")
        return True

    def get_timing_cache(self) -> FakeTimings:
        return self.timings

    def add_optimization_profile(self, profile: Any) -> int:
        return len(self.profiles) - 1
