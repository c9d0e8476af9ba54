"""Where upsampling and argmax are done: in the graph, or after it by the CPU kernels.

Inside stock runtimes the last step costs a fifth to a third of the network; the kernels of
`cpp_plugins/cpu` need a twentieth of that and give the same labels. So engines on the CPU run the
graph up to its 1/8 logits where there is a compiled kernel, and all of it where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fasterseg import native
from fasterseg.cores import usable_cores
from fasterseg.errors import EngineMismatchError, UsageError
from fasterseg.runtime.base import EngineSpec
from fasterseg.types import Size

Tail = Literal["auto", "graph", "native"]
TAILS: Final[tuple[Tail, ...]] = get_args(Tail)

GRAPH: Final = "graph"
"""Name of the tail of engines that leave it to their graph."""

LOGITS_SCALE: Final = 8
"""How much smaller than the frames the logits of a core graph are."""

CHOOSING: Final = frozenset({"onnxruntime", "openvino"})
"""Backends that leave the choice; the others finish as they always do."""


def stage_for(tail: str, device: str) -> Literal["labels", "logits8"]:
    """How far the graph of an engine has to go.

    Args:
        tail: "native", "graph", or "auto": native where there is a compiled kernel.
        device: "cpu" or "cuda", where the logits would have to be copied from.

    Raises:
        UsageError: the native tail of an engine that is not on the CPU.
        EngineError: the native tail, and its library cannot be used.
    """
    if tail == GRAPH or (device != "cpu" and tail == "auto"):
        return "labels"
    if device != "cpu":
        raise UsageError(f"--tail native finishes on the CPU, not on {device}; use --tail graph")
    if tail == "native":
        native.require()
        return "logits8"
    return "labels" if native.info() is None else "logits8"


def check_file(title: str, spec: EngineSpec, tail: str) -> None:
    """Refuse a tail that an engine file cannot have: its graph ends where it was made to end.

    Raises:
        EngineMismatchError: the file has the other tail.
        EngineError: the native tail, and its library cannot be used.
    """
    if tail == "native" and spec.output == "labels":
        raise EngineMismatchError(
            f"{title} has upsampling and argmax inside, --tail native needs a graph that ends at "
            "the logits. Leave --tail out, or export it so: --stages logits8"
        )
    if tail == GRAPH and spec.output != "labels":
        raise EngineMismatchError(
            f"{title} ends at its logits, --tail graph needs one that gives labels. Leave --tail "
            "out, or export it without --stages"
        )
    if tail == "native":
        native.require()


Ends = tuple[str, list[int | None]]
"""Element type and shape of what goes into a graph or comes out of it; None: a free side."""


def expected_ends(spec: EngineSpec, title: str) -> tuple[Ends, Ends]:
    """What the graph of an engine file takes and gives, if it is what its description says.

    Raises:
        EngineMismatchError: a graph of that kind is no engine.
    """
    size = spec.size or (None, None)
    taken: Ends = ("uint8", [spec.batch, *size, 3])
    if spec.output == "labels":
        return taken, ("uint8", [spec.batch, *size])
    if spec.output == "logits8":
        eighth = [None if side is None else -(-side // LOGITS_SCALE) for side in size]
        return taken, ("float32", [spec.batch, spec.num_classes, *eighth])
    raise EngineMismatchError(
        f"{title} gives {spec.output}, an engine gives labels. Export it without --stages"
    )


def graph_ends(
    spec: EngineSpec, frames_shape: Sequence[int]
) -> tuple[tuple[int, ...], type[np.generic]]:
    """Shape and type of what the graph of an engine gives for frames of a shape (N, H, W, 3)."""
    batch, height, width = frames_shape[:3]
    if spec.output == "labels":
        return (batch, height, width), np.uint8
    eighth = (-(-height // LOGITS_SCALE), -(-width // LOGITS_SCALE))
    return (batch, spec.num_classes, *eighth), np.float32


class Finish:
    """Logits at 1/8 -> labels of the frames' size, by the compiled kernel or, without it, NumPy.

    Args:
        threads: CPU threads; None takes all cores.

    Attributes:
        name: "native-" and the instruction set, or "numpy".
    """

    def __init__(self, threads: int | None) -> None:
        found = native.info()
        self.name = f"native-{found.isa}" if found is not None else "numpy"
        self._threads = threads or usable_cores()
        self._has_library = found is not None
        self._labels = np.empty((0, 0, 0), np.uint8)

    def __call__(self, logits: NDArray[np.float32], size: Size) -> NDArray[np.uint8]:
        """Give the labels of a batch; the buffer is used again by the next call.

        Args:
            logits: float32, (N, classes, ceil(H/8), ceil(W/8)).
            size: H and W.
        """
        shape = (logits.shape[0], *size)
        if self._labels.shape != shape:
            self._labels = np.empty(shape, np.uint8)
        logits = np.ascontiguousarray(logits)
        if self._has_library:
            native.upsample_argmax(logits, self._labels, threads=self._threads)
        else:
            native.numpy_upsample_argmax(logits, self._labels)
        return self._labels


def finish_for(spec: EngineSpec, threads: int | None) -> Finish | None:
    """What finishes the graph of a file; None where it gives labels itself."""
    return None if spec.output == "labels" else Finish(threads)
