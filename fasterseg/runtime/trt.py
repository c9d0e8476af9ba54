"""`TensorRtEngine`, `TensorRtRtxEngine`: run a plan on an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import DeviceUnavailableError, EngineMismatchError, UsageError
from fasterseg.graph.precision import Profile
from fasterseg.registry import resolve
from fasterseg.runtime.base import CudaArray, Device, EngineSpec, check_frames, check_labels
from fasterseg.runtime.cuda_arrays import view_both
from fasterseg.runtime.driver import Gpu, require_gpu
from fasterseg.runtime.execution import Execution
from fasterseg.runtime.plan_files import Plan, PlanFacts, read_facts, read_plan
from fasterseg.runtime.plugins import PLUGINS, open_kernels, open_plugins, register
from fasterseg.runtime.trt_execution import Enqueuer, Names
from fasterseg.runtime.trt_log import Messages, new_logger
from fasterseg.runtime.trt_surface import Api, Context, CudaEngine, load_api, version_numbers
from fasterseg.runtime.trt_target import RTX, system_name

PORTS: Final[Mapping[str, str]] = {"cuda": "fasterseg.runtime.cuda:PORT"}
"""What moves frames to the GPU and back; the package behind it is optional."""

_TYPES: Final = {"labels": ("UINT8", 3), "logits8": ("FLOAT", 4)}


class TensorRtEngine:
    """A plan of ours in TensorRT; see `runtime.base.Engine`.

    `submit` and `collect` are the two halves of `run`: with two batches on their way, the host
    prepares one while the GPU works on the other.
    """

    backend: ClassVar[str] = "tensorrt"
    int8_profile: Final[Profile] = "tensorrt"

    def __init__(self, plan: Plan, api: Api, cuda: Any) -> None:
        self.spec: EngineSpec = plan.facts.spec
        self.facts = plan.facts
        self.device = "cuda"
        self.tail = _tail(plan.facts)
        self._api, self._cuda = api, cuda
        self._kernels = open_kernels() if self.tail == "kernel" else None
        self._messages = Messages()
        # Both are used by the engine for as long as it lives.
        self._logger = new_logger(api, self._messages)
        self._runtime = api.Runtime(self._logger)
        self._engine: CudaEngine | None = self._load(plan)
        self._names = _find_names(api, self._engine, plan)
        self._execution = Execution(cuda, self._new_enqueuer())
        self._foreign: Enqueuer | None = None
        self._checked = False

    @classmethod
    def open(
        cls, source: Path | Plan, device: Device = "auto", threads: int | None = None
    ) -> TensorRtEngine:
        """Load a plan that `fasterseg build` wrote.

        Args:
            source: the file, with its sidecar beside it, or both in memory.
            device: "cuda" or "auto".
            threads: not used; the work is on the GPU.

        Raises:
            EngineError: the file is missing or damaged, or cannot be loaded.
            EngineMismatchError: it was built for another runtime, GPU, system or plugin library,
                or has no description; the message names both sides.
            DeviceUnavailableError: there is no NVIDIA GPU.
            MissingExtraError: TensorRT, cuda-python or a library of ours is not installed.
        """
        plan = source if isinstance(source, Plan) else read_plan(source)
        # A runtime made without a driver crashes the process when it is used.
        cls.resolve_device(device)
        gpu = require_gpu(f"engine {cls.backend}")
        api = load_api(cls.backend)
        check_fit(plan.facts, cls.backend, api.__version__, gpu, plan.title)
        cuda = resolve(PORTS, "port", "cuda")
        cuda.use_device()
        return cls(plan, api, cuda)

    @staticmethod
    def read_spec(source: Path) -> EngineSpec:
        """The description beside a plan."""
        return read_facts(source).spec

    @classmethod
    def resolve_device(cls, device: Device) -> str:
        """Give "cuda".

        Raises:
            DeviceUnavailableError: "cpu" was asked for, or there is no NVIDIA GPU.
            MissingExtraError: there is one, and cuda-python is not installed.
        """
        if device == "cpu":
            raise DeviceUnavailableError(
                f"engine {cls.backend} runs on NVIDIA GPUs only; use --device cuda, or "
                "--engine onnxruntime --device cpu"
            )
        require_gpu(f"engine {cls.backend}")
        # Now, and not after minutes of building.
        resolve(PORTS, "port", "cuda")
        return "cuda"

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Classify one batch; see `runtime.base.Engine.run`."""
        self.submit(frames)
        return self.collect()

    def submit(self, frames: NDArray[np.uint8]) -> None:
        """Begin with a batch; see `Execution.submit`."""
        check_frames(self.spec, frames)
        self._open_engine()
        self._execution.submit(frames)

    def collect(self) -> NDArray[np.uint8]:
        """Labels of the oldest batch on its way; see `Execution.collect`."""
        self._open_engine()
        labels = self._execution.collect()
        if not self._checked:
            check_labels(self.spec, labels)
            self._checked = True
        return labels

    def run_on_device(self, frames: CudaArray, labels: CudaArray, stream: int) -> None:
        """Enqueue one batch between arrays on the GPU; returns at once.

        Args:
            frames: (N, H, W, 3) uint8, BGR, contiguous; PyCUDA, CuPy, torch or anything else with
                `__cuda_array_interface__`.
            labels: (N, H, W) uint8, written.
            stream: handle of the stream to work on, for instance `pycuda.driver.Stream().handle`.

        Raises:
            UsageError: the arrays do not fit the engine.
            EngineError: the runtime refuses.
        """
        engine = self._open_engine()
        taken, given = view_both(frames, labels, self.spec)
        if self._foreign is None:
            # A context of its own: the graphs of `run` stay as they were captured.
            self._foreign = self._new_enqueuer(engine)
        if taken.shape != self._foreign.shape:
            self._foreign.set_shape(taken.shape)
        for array in (taken, given):
            self._cuda.order_after(stream, array.stream)
        self._foreign.enqueue(taken.pointer, given.pointer, stream)

    def time_on_device(self, iterations: int) -> Sequence[float]:
        """Milliseconds of each run, without copies; run one batch before."""
        self._open_engine()
        return self._execution.time(iterations)

    @property
    def captured(self) -> bool | None:
        """Whether batches are launched as one CUDA graph; None before the first."""
        return self._execution.captured

    def inspect(self) -> str:
        """What TensorRT made of the network, as the engine inspector's JSON."""
        engine = self._open_engine()
        inspector = engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._api.LayerInformationFormat.JSON))

    def close(self) -> None:
        """Release the GPU's memory."""
        if self._engine is None:
            return
        self._execution.close()
        if self._foreign is not None:
            self._foreign.release()
        self._foreign = self._engine = None

    def _open_engine(self) -> CudaEngine:
        if self._engine is None:
            raise UsageError(f"engine {self.spec.name} is closed; open it again with load_engine")
        return self._engine

    def _load(self, plan: Plan) -> CudaEngine:
        if plan.facts.options.version_compatible:
            # Such a plan brings code that runs on the host; it was built here or chosen by name.
            self._runtime.engine_host_code_allowed = True
        elif plan.facts.spec.plugins:
            registry = self._runtime.get_plugin_registry()
            register(registry, open_plugins(), self._messages)
        self._messages.clear()
        engine = self._runtime.deserialize_cuda_engine(plan.data)
        if engine is None:
            raise EngineMismatchError(
                f"{plan.title} cannot be loaded by {plan.facts.backend} {self._api.__version__}: "
                f"{self._messages.last}. Build it again: {plan.facts.rebuild()}"
            )
        return engine

    def _new_enqueuer(self, engine: CudaEngine | None = None) -> Enqueuer:
        made: Context | None = (engine or self._open_engine()).create_execution_context()
        if made is None:
            raise EngineMismatchError(
                f"engine {self.spec.name} gives no execution context: {self._messages.last}. If "
                "memory ran out, choose a smaller --size; else build it again: "
                f"{self.facts.rebuild()}"
            )
        return Enqueuer(
            made,
            self._names,
            self._messages,
            kernels=self._kernels,
            new_buffer=self._cuda.DeviceBuffer,
            title=f"engine {self.spec.name}",
        )


class TensorRtRtxEngine(TensorRtEngine):
    """A plan of ours in TensorRT-RTX."""

    backend: ClassVar[str] = RTX


def check_fit(facts: PlanFacts, backend: str, version: str, gpu: Gpu, title: str) -> None:
    """Compare a plan with the machine before it is loaded: TensorRT itself would only say no.

    Raises:
        EngineMismatchError: the first field that differs, with both sides and what to do.
        MissingExtraError: it needs the plugin library, which is not there.
        ParityError: it was compared after its build, and failed.
    """

    def differs(field: str, built: str, here: str) -> EngineMismatchError:
        return EngineMismatchError(
            f"{title} does not fit this machine: {field} {built} when it was built, {here} here. "
            f"Build it again: {facts.rebuild()}"
        )

    if facts.backend != backend:
        raise differs("the engine was", facts.backend, f"{backend} was asked for")
    if facts.system != system_name():
        raise differs("the system was", facts.system, system_name())
    if not _version_fits(facts, version):
        raise differs(f"{backend} was", facts.version, version)
    if not _gpu_fits(facts, gpu):
        built = ", ".join(facts.targets) + (f" ({facts.spec.gpu})" if facts.spec.gpu else "")
        raise differs("the GPU was", built, f"{gpu.arch} ({gpu.name})")
    wanted = facts.spec.plugins.get(PLUGINS)
    if wanted is not None and not facts.options.version_compatible:
        library = open_plugins()
        if library.sha256 != wanted:
            raise differs(
                f"{PLUGINS} had the SHA-256",
                wanted[:16],
                f"{library.path} has {library.sha256[:16]}",
            )


def _version_fits(facts: PlanFacts, version: str) -> bool:
    if facts.options.version_compatible:
        return version_numbers(version) >= version_numbers(facts.version)
    return version == facts.version


def _gpu_fits(facts: PlanFacts, gpu: Gpu) -> bool:
    if facts.options.hardware == "ampere-plus":
        return gpu.capability >= (8, 0)
    return gpu.arch in facts.targets


def _tail(facts: PlanFacts) -> str:
    """Who upsamples and takes the best class."""
    if facts.spec.output == "logits8":
        return "kernel"
    return "plugin" if facts.spec.plugins else "graph"


def _find_names(api: Api, engine: CudaEngine, plan: Plan) -> Names:
    """The two tensors of the engine, of the types its description says."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    taken = [n for n in names if engine.get_tensor_mode(n) == api.TensorIOMode.INPUT]
    given = [n for n in names if engine.get_tensor_mode(n) == api.TensorIOMode.OUTPUT]
    spec = plan.facts.spec
    kind, rank = _TYPES.get(spec.output, ("", 0))
    found = [
        (engine.get_tensor_dtype(name).name, len(engine.get_tensor_shape(name)))
        for name in (*taken, *given)
    ]
    if len(taken) != 1 or found != [("UINT8", 4), (kind, rank)]:
        raise EngineMismatchError(
            f"{plan.title} takes {taken} and gives {given} of types {found}; its description says "
            f"uint8 frames and {spec.output}. Build it again: {plan.facts.rebuild()}"
        )
    return Names(taken[0], given[0], spec.num_classes if spec.output == "logits8" else None)
