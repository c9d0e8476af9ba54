"""What a table is measured with: operators in sessions like those of engines, and engines.

Inputs stay where they are: no copies are timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fasterseg.arch.genotype import Genotype
from fasterseg.errors import UnknownNameError, UnsupportedError
from fasterseg.graph.emit import EmitOptions
from fasterseg.registry import resolve, unknown
from fasterseg.runtime.base import ENGINES, Device
from fasterseg.runtime.model import Model, generic_labels
from fasterseg.runtime.onnxrt import open_session
from fasterseg.runtime.store import onnx_bytes
from fasterseg.types import Size

SNIPPETS: Final[Mapping[str, str]] = {
    "onnxruntime": "fasterseg.bench.snippets:OnnxRuntimeSnippet",
}
"""Backend -> class that runs graphs through the sessions of its engines."""

_TYPES: Final[Mapping[str, type[np.generic]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}
_SEED: Final = 0


class Snippet(Protocol):
    """A graph that is ready to run."""

    def run(self) -> None:
        """Run once on the inputs it was given at the start; returns when the work is done."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


Opener = Callable[[bytes], Snippet]
"""ONNX model -> a graph that is ready to run."""


class OnnxRuntimeSnippet:
    """A graph in a session opened with the options of `OnnxRuntimeEngine`."""

    def __init__(self, model: bytes, device: str, threads: int | None) -> None:
        """Open a session and make its inputs: noise, the same every time.

        Raises:
            UnsupportedError: the device is a GPU, where inputs would be copied in every run.
            EngineError: ONNX Runtime does not take the model.
        """
        if device != "cpu":
            raise UnsupportedError(
                "onnxruntime measures single operators on the CPU only; use --device cpu"
            )
        self._session = open_session(model, device, threads)
        self._binding = self._session.io_binding()
        random = np.random.default_rng(_SEED)
        self._inputs = {
            value.name: _noise(random, _TYPES[value.type], value.shape)
            for value in self._session.get_inputs()
        }
        for name, array in self._inputs.items():
            self._binding.bind_cpu_input(name, array)
        for value in self._session.get_outputs():
            self._binding.bind_output(value.name, device)

    def run(self) -> None:
        """Run once; see `Snippet.run`."""
        self._session.run_with_iobinding(self._binding)

    def close(self) -> None:
        """Release the session."""
        del self._binding, self._session


def _noise(
    random: np.random.Generator, dtype: type[np.generic], shape: list[int]
) -> NDArray[np.generic]:
    if dtype is np.uint8:
        return random.integers(0, 256, shape, np.uint8)
    # What a ReLU leaves, as in the midst of a network.
    return np.maximum(random.standard_normal(shape, np.float32), 0).astype(dtype)


def snippet_opener(backend: str, device: str, threads: int | None) -> Opener:
    """What opens graphs in a backend.

    Raises:
        UnknownNameError: single operators cannot be run by it.
        MissingExtraError: its package is not installed.
    """
    if backend not in SNIPPETS:
        raise UnknownNameError(unknown("engine for single operators", backend, SNIPPETS))
    kind = resolve(SNIPPETS, "engine", backend)

    def open_one(model: bytes) -> Snippet:
        snippet: Snippet = kind(model, device, threads)
        return snippet

    return open_one


def network_opener(
    backend: str, device: Device, threads: int | None, size: Size, options: EmitOptions
) -> Callable[[Genotype], Any]:
    """What opens whole networks, with seeded weights, as `--engine` does but past the cache.

    Args:
        backend: one of `SNIPPETS`.
        device: "cpu" or "cuda".
        threads: CPU threads of the engine; None: the runtime's default.
        size: of the frames.
        options: precision and batch.
    """
    kind = resolve(ENGINES, "engine", backend)

    def open_one(genotype: Genotype) -> Any:
        labels = generic_labels(genotype.num_classes)
        model = Model(genotype.name, genotype, labels, size, weights=None)
        return kind.open(onnx_bytes(model, size, options), device, threads)

    return open_one
