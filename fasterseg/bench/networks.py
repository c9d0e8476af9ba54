"""ONNX graphs below the engine boundary: the bare network alone, and its single operators."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.bench.cells import LayerTime
from fasterseg.preprocess import normalize

Frames = NDArray[np.uint8]
_TYPES: Final = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_WARM_UP: Final = 3
_SUFFIX: Final = "_kernel_time"


class BareNetwork:
    """A graph in ONNX Runtime from its own input to its own output, on bound buffers.

    Args:
        graph: an ONNX model; takes frames (N, H, W, 3) uint8 BGR or a picture (N, 3, H, W).
        threads: CPU threads inside one call; None takes all cores.
    """

    def __init__(self, graph: bytes, threads: int | None = None) -> None:
        self._session = _open(graph, threads)
        self._binding = self._session.io_binding()
        self._binding.bind_output(self._session.get_outputs()[0].name, "cpu")
        self._input = self._session.get_inputs()[0]

    def bind(self, frames: Frames) -> None:
        """Take one batch, in the form the graph wants; never timed."""
        self._binding.bind_cpu_input(self._input.name, as_input(frames, self._input))

    def run(self) -> None:
        """The network, up to its logits."""
        self._session.run_with_iobinding(self._binding)


def as_input(frames: Frames, taken: Any) -> NDArray[Any]:
    """Frames as a session's input wants them.

    Args:
        frames: (N, H, W, 3) uint8 BGR.
        taken: input of a session: its `type` and `shape` are read.

    Returns:
        The frames themselves, or (N, 3, H, W): normalised, or their bytes.
    """
    kind = _TYPES.get(taken.type)
    if kind is not None:
        return np.ascontiguousarray(normalize(frames).astype(kind))
    planes_first = taken.shape[1] == 3
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2) if planes_first else frames)


def layer_times(
    graph: bytes, frames: Sequence[Frames], *, runs: int = 20, threads: int | None = None
) -> tuple[LayerTime, ...]:
    """Time of every operator of a graph, by ONNX Runtime's profiler on the CPU.

    The profiler costs time itself, so the sum is above that of an unobserved run.

    Args:
        graph: an ONNX model; takes what `BareNetwork` does.
        frames: batches, used in turn.
        runs: of which means are taken, after some that are not.
        threads: CPU threads inside one call.

    Returns:
        Means, in the order in which the operators run.
    """
    with tempfile.TemporaryDirectory() as folder:

        def observe(options: Any) -> None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "layers")

        session = _open(graph, threads, observe)
        taken = session.get_inputs()[0]
        for index in range(_WARM_UP + runs):
            batch = as_input(frames[index % len(frames)], taken)
            session.run(None, {taken.name: batch})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return parse_profile(events, _WARM_UP)


def parse_profile(events: Sequence[dict[str, Any]], warm_up: int) -> tuple[LayerTime, ...]:
    """Mean time of every operator in the events of ONNX Runtime's profiler.

    Args:
        events: of its JSON file.
        warm_up: the first runs, which are left out.
    """
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            key = (name.removesuffix(_SUFFIX), event["args"]["op_name"])
            times[key].append(event["dur"] / 1e3)
    return tuple(
        LayerTime(name, op, round(float(np.mean(ms[warm_up:])), 5))
        for (name, op), ms in times.items()
        if len(ms) > warm_up
    )


def _open(graph: bytes, threads: int | None, change: Callable[[Any], None] | None = None) -> Any:
    """A session on the CPU, with the options engines have and then some."""
    from fasterseg.runtime.onnxrt import open_session

    session = open_session(graph, "cpu", threads)
    if change is None:
        return session
    options = session.get_session_options()
    change(options)
    return type(session)(graph, sess_options=options, providers=session.get_providers())
