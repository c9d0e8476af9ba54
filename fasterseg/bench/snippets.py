"""What a table is measured with: operators in sessions like those of engines, and engines.

Inputs stay where they are: no copies are timed. On a GPU, times are those of its own clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.arch.single import Single
from fasterseg.errors import UnknownNameError, UnsupportedError
from fasterseg.graph.emit import EmitOptions, emit
from fasterseg.graph.inlining import plain
from fasterseg.graph.ranges import Ranges
from fasterseg.graph.signature import OUTPUT_NAMES
from fasterseg.graph.single import emit_single
from fasterseg.graph.stand_in import stand_in_ranges
from fasterseg.graph.weights import weights_sha256
from fasterseg.registry import resolve, unknown
from fasterseg.runtime.base import ENGINES, Device, DeviceTimed, Engine
from fasterseg.runtime.model import Model, generic_labels
from fasterseg.runtime.onnxrt import open_session
from fasterseg.runtime.request import FROM_PLAN
from fasterseg.runtime.store import describe, onnx_bytes
from fasterseg.runtime.tail import LOGITS_SCALE, Finish
from fasterseg.types import Precision, Size

SNIPPETS: Final[Mapping[str, str]] = {
    "onnxruntime": "fasterseg.bench.snippets:OnnxRuntimeSnippet",
    "openvino": "fasterseg.bench.snippets:OpenVinoSnippet",
    "torch": "fasterseg.nn.snippet:open_snippet",
}
"""Backend -> what runs single operators as its engines do: (single, options, device, threads,
precision) -> `Snippet`."""

NETWORKS: Final[Mapping[str, str]] = {"torch": "fasterseg.nn.snippet:open_network"}
"""Backend that is built from a plan -> what builds it for a table: (plan, weights, spec, device,
threads) -> `Engine`."""

_TYPES: Final[Mapping[str, type[np.generic]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "f32": np.float32,
    "f16": np.float16,
    "u8": np.uint8,
}
_SEED: Final = 0


class Snippet(Protocol):
    """An operator that is ready to run; one on a GPU is `DeviceTimed` as well."""

    def run(self) -> None:
        """Run once on the inputs it was given at the start; returns when the work is done."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


Opener = Callable[[Single, EmitOptions], Snippet]
"""(Operator, precision and batch of its network) -> one that is ready to run."""


class OnnxRuntimeSnippet:
    """A graph in a session opened with the options of `OnnxRuntimeEngine`.

    One that ends at the logits is finished as engines are.
    """

    def __init__(
        self,
        single: Single,
        options: EmitOptions,
        device: str,
        threads: int | None,
        precision: Precision = "fp32",
    ) -> None:
        """Open a session and make its inputs: noise, the same every time.

        Raises:
            UnsupportedError: the device is a GPU, where inputs would be copied in every run.
            EngineError: ONNX Runtime does not take the model.
        """
        if device != "cpu":
            raise UnsupportedError(
                "onnxruntime measures single operators on the CPU only; use --device cpu"
            )
        model = emit_single(single, options)
        self._session = open_session(model.SerializeToString(), device, threads)
        self._binding = self._session.io_binding()
        random = np.random.default_rng(_SEED)
        self._inputs = {
            value.name: _noise(random, _TYPES[value.type], value.shape)
            for value in self._session.get_inputs()
        }
        for name, array in self._inputs.items():
            self._binding.bind_cpu_input(name, array)
        outputs = self._session.get_outputs()
        for value in outputs:
            self._binding.bind_output(value.name, device)
        self._finish = _finish_of([value.name for value in outputs], threads)

    def run(self) -> None:
        """Run once; see `Snippet.run`."""
        self._session.run_with_iobinding(self._binding)
        if self._finish is not None:
            self._finish(self._binding.get_outputs()[0].numpy())

    def close(self) -> None:
        """Release the session."""
        del self._binding, self._session


class OpenVinoSnippet:
    """A graph compiled with the settings of `OpenVinoEngine`; finished as engines are."""

    def __init__(
        self,
        single: Single,
        options: EmitOptions,
        device: str,
        threads: int | None,
        precision: Precision = "fp32",
    ) -> None:
        """Compile it and make its inputs.

        Raises:
            DeviceUnavailableError: the CPU does not compute in that precision.
            EngineError: OpenVINO does not take the model.
        """
        from fasterseg.runtime.openvino_graph import Settings, compile_graph

        backend = resolve(ENGINES, "engine", "openvino")
        backend.resolve_device(device)
        model = emit_single(single, options)
        data, _ = plain(model.SerializeToString(), "the operator")
        properties = Settings(threads=threads).properties(precision)
        compiled = compile_graph(data, properties, "the operator", keep=False)
        self._request = compiled.create_infer_request()
        random = np.random.default_rng(_SEED)
        for index, port in enumerate(compiled.inputs):
            kind = _TYPES[port.get_element_type().get_type_name()]
            tensor = self._request.get_input_tensor(index)
            tensor.data[:] = _noise(random, kind, list(port.shape))
        names = [port.get_any_name() for port in compiled.outputs]
        self._finish = _finish_of(names, threads)

    def run(self) -> None:
        """Run once; see `Snippet.run`."""
        self._request.infer()
        if self._finish is not None:
            self._finish(self._request.get_output_tensor(0).data)

    def close(self) -> None:
        """Release the graph."""
        del self._request


def _finish_of(
    outputs: Sequence[str], threads: int | None
) -> Callable[[NDArray[np.float32]], object] | None:
    """What a graph of the last operator is finished by where it ends at the logits."""
    if OUTPUT_NAMES["logits8"] not in outputs:
        return None
    finish = Finish(threads)

    def run(logits: NDArray[np.float32]) -> object:
        return finish(logits, Size(LOGITS_SCALE * logits.shape[2], LOGITS_SCALE * logits.shape[3]))

    return run


def _noise(
    random: np.random.Generator, dtype: type[np.generic], shape: list[int]
) -> NDArray[np.generic]:
    if dtype is np.uint8:
        return random.integers(0, 256, shape, np.uint8)
    # What a ReLU leaves, as in the midst of a network.
    return np.maximum(random.standard_normal(shape, np.float32), 0).astype(dtype)


def snippet_opener(
    backend: str, device: str, threads: int | None, precision: Precision = "fp32"
) -> Opener:
    """What opens operators in a backend, to be computed in a precision.

    Raises:
        UnknownNameError: single operators cannot be run by it.
        MissingExtraError: its package is not installed.
    """
    if backend not in SNIPPETS:
        raise UnknownNameError(unknown("engine for single operators", backend, SNIPPETS))
    # The engine first: what its package is called is for it to say.
    resolve(ENGINES, "engine", backend)
    kind = resolve(SNIPPETS, "engine", backend)

    def open_one(single: Single, options: EmitOptions) -> Snippet:
        snippet: Snippet = kind(single, options, device, threads, precision)
        return snippet

    return open_one


def network_opener(
    backend: str,
    device: Device,
    threads: int | None,
    size: Size,
    options: EmitOptions,
    precision: Precision | None = None,
) -> Callable[[Genotype], Any]:
    """What opens whole networks, with seeded weights, as `--engine` does but past the cache.

    Args:
        backend: one of `SNIPPETS`.
        device: "cpu" or "cuda".
        threads: CPU threads of the engine; None: the runtime's default.
        size: of the frames.
        options: stage, precision and batch; in int8, ranges are stand-ins.
        precision: what it is computed in, where that is not what is written.
    """
    kind = resolve(ENGINES, "engine", backend)
    other = {} if precision in (None, options.precision) else {"precision": precision}

    def unnamed(genotype: Genotype) -> Model:
        labels = generic_labels(genotype.num_classes)
        return Model(genotype.name, genotype, labels, size, weights=None)

    def build_one(genotype: Genotype) -> Any:
        model, network = unnamed(genotype), plan(genotype, size)
        spec = replace(describe(model, size, options), precision=precision or options.precision)
        build = resolve(NETWORKS, "engine", backend)
        engine: Any = build(network, model.load_weights(network), spec, device, threads)
        is_timed = isinstance(engine, DeviceTimed)
        return (DeviceNet if is_timed else CalledNet)(engine)

    def open_one(genotype: Genotype) -> Any:
        model = unnamed(genotype)
        ranges = _stand_in(model, size) if options.precision == "int8" else None
        return kind.open(onnx_bytes(model, size, options, ranges), device, threads, **other)

    return build_one if backend in FROM_PLAN else open_one


class CalledNet:
    """A network that takes its frames with every call, from where they lie.

    Args:
        engine: on the CPU.

    Attributes:
        tail: of the engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.tail = engine.tail
        self._frames: NDArray[np.uint8] | None = None

    def bind(self, frames: NDArray[np.uint8]) -> None:
        """Take one batch for `run_bound`; (N, H, W, 3) uint8, BGR."""
        self._frames = frames

    def run_bound(self) -> None:
        """Frames to labels; returns when the work is done."""
        assert self._frames is not None, "bound before"
        self._engine.run(self._frames)

    def close(self) -> None:
        """Release the engine."""
        self._engine.close()


class DeviceNet(CalledNet):
    """A network that is timed by its device's own clock, on a batch that lies there.

    Args:
        engine: a `DeviceTimed` one.
    """

    def bind(self, frames: NDArray[np.uint8]) -> None:
        """Bring one batch to the device, and run it once."""
        super().bind(frames)
        self.run_bound()

    def time_on_device(self, iterations: int) -> Sequence[float]:
        """Milliseconds of each run; see `runtime.base.DeviceTimed`."""
        assert isinstance(self._engine, DeviceTimed), "made of such an engine"
        return self._engine.time_on_device(iterations)


def _stand_in(model: Model, size: Size) -> Ranges:
    """Ranges that nobody measured, for times that do not depend on them."""
    network = plan(model.genotype, size)
    weights = model.load_weights(network)
    graph = emit(network, weights, EmitOptions("logits8", inline=True)).graph
    return stand_in_ranges(graph, weights_sha256(network, weights))
