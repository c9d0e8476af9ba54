"""`OpenVinoEngine`: runs our ONNX in OpenVINO on a CPU, in exactly the precision asked for.

OpenVINO knows no model-local functions, so graphs are expanded first.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
from numpy.typing import NDArray

from fasterseg.cores import usable_cores
from fasterseg.errors import DeviceUnavailableError, EngineError, UsageError
from fasterseg.graph.inlining import plain
from fasterseg.graph.precision import Profile
from fasterseg.runtime.base import Device, EngineSpec, check_frames, check_labels
from fasterseg.runtime.onnx_files import check_ends, read_content, spec_in, title_of
from fasterseg.runtime.openvino_graph import Settings, capabilities, compile_graph, reason_of
from fasterseg.runtime.tail import GRAPH, Ends, Finish, finish_for
from fasterseg.types import Precision, Size

_TYPE_NAMES: Final = {"u8": "uint8", "f32": "float32"}


class OpenVinoEngine:
    """An ONNX file of ours in OpenVINO; see `runtime.base.Engine`.

    A graph that ends at the 1/8 logits is finished here, by `runtime.tail.Finish`.
    """

    backend: Final = "openvino"
    device: Final = "cpu"
    int8_profile: Final[Profile] = "cpu"

    def __init__(self, compiled: Any, spec: EngineSpec, settings: Settings) -> None:
        self.spec = spec
        self._compiled: Any = compiled
        threads = max(1, (settings.threads or usable_cores()) // settings.streams)
        self._lanes = [
            _Lane(compiled.create_infer_request(), finish_for(spec, threads))
            for _ in range(settings.streams)
        ]
        finish = self._lanes[0].finish
        self.tail = finish.name if finish else GRAPH
        self._checked = False

    @classmethod
    def open(
        cls,
        source: Path | bytes,
        device: Device = "auto",
        threads: int | None = None,
        *,
        precision: Precision | None = None,
        streams: int = 1,
        pin: bool = False,
    ) -> OpenVinoEngine:
        """Load an ONNX file that `fasterseg export` wrote.

        Args:
            source: the file, or its content (nothing is kept in the cache then).
            device: "cpu" or "auto".
            threads: CPU threads; None takes all cores.
            precision: "bf16" for an fp32 file that is to be computed so; None for the file's own.
            streams: frames computed at the same time (see `OpenVinoStreams`).
            pin: keep threads on their cores.

        Raises:
            EngineError: the file is missing or not a readable ONNX model, or OpenVINO computes
                otherwise than it was told.
            EngineMismatchError: it carries no engine description, another network than the
                one described, or gives neither labels nor 1/8 logits.
            DeviceUnavailableError: another device than the CPU, or one without that precision.
            UsageError: a precision that is not that of the file.
        """
        cls.resolve_device(device)
        settings = Settings(precision, threads, streams, pin)
        title = title_of(source)
        data, metadata = plain(read_content(source), title)
        spec = _in_precision(spec_in(metadata, title), settings, title)
        properties = settings.properties(spec.precision)
        compiled = compile_graph(data, properties, title, keep=isinstance(source, Path))
        check_ends(spec, title, _ends(compiled.inputs), _ends(compiled.outputs))
        return (OpenVinoStreams if streams > 1 else cls)(compiled, spec, settings)

    @staticmethod
    def resolve_device(device: Device) -> str:
        """Give "cpu".

        Raises:
            DeviceUnavailableError: "cuda" was asked for.
        """
        if device == "cuda":
            raise DeviceUnavailableError(
                "openvino runs on the CPU here: use --device cpu, or another --engine for the GPU"
            )
        return "cpu"

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Classify one batch; see `runtime.base.Engine.run`."""
        self.bind(frames)
        self.run_bound()
        labels = self._first.labels
        if not self._checked:
            check_labels(self.spec, labels)
            self._checked = True
        return labels

    def bind(self, frames: NDArray[np.uint8]) -> None:
        """Take one batch for `run_bound`; its memory is read where it is."""
        check_frames(self.spec, frames)
        self._first.take(frames)

    def run_bound(self) -> None:
        """Run once on the bound batch, to the labels."""
        lane = self._first
        try:
            lane.begin()
            lane.end()
        except RuntimeError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Release the network."""
        self._lanes = []
        self._compiled = None

    @property
    def _first(self) -> _Lane:
        if not self._lanes:
            raise UsageError(f"engine {self.spec.name} is closed; open it again with load_engine")
        return self._lanes[0]

    def _failure(self, error: RuntimeError) -> EngineError:
        return EngineError(
            f"engine {self.spec.name} failed while running: {reason_of(error)}. If its file is "
            "damaged, export it again: fasterseg export MODEL -o FILE.onnx; if memory ran out, "
            "choose a smaller --size"
        )


class OpenVinoStreams(OpenVinoEngine):
    """The same with a further stream: two frames at a time, each on half of the threads.

    See `runtime.base.PipelinedEngine`.
    """

    def __init__(self, compiled: Any, spec: EngineSpec, settings: Settings) -> None:
        super().__init__(compiled, spec, settings)
        self._free = deque(self._lanes)
        self._busy: deque[_Lane] = deque()

    def submit(self, frames: NDArray[np.uint8]) -> None:
        """Begin with a batch; at most two at a time.

        Raises:
            UsageError: the batch does not fit, or too many are on their way.
        """
        check_frames(self.spec, frames)
        if not self._lanes or not self._free:
            raise UsageError(
                f"engine {self.spec.name} is closed"
                if not self._lanes
                else f"{len(self._busy)} batches are on their way already; collect one first"
            )
        lane = self._free.popleft()
        lane.take(frames)
        lane.begin()
        self._busy.append(lane)

    def collect(self) -> NDArray[np.uint8]:
        """(N, H, W) uint8 labels of the oldest batch; valid until the next `submit`.

        Raises:
            UsageError: none is on its way.
        """
        if not self._busy:
            raise UsageError("no batch is on its way; submit one first")
        lane = self._busy.popleft()
        self._free.append(lane)
        try:
            lane.end()
        except RuntimeError as error:
            raise self._failure(error) from error
        return lane.labels

    def close(self) -> None:
        """Wait for what is on its way, and release the network."""
        while self._busy:
            self._busy.popleft().request.wait()
        self._free.clear()
        super().close()


class _Lane:
    """One request: a batch on its way through the network."""

    def __init__(self, request: Any, finish: Finish | None) -> None:
        self.request = request
        self.finish = finish
        self.labels: NDArray[np.uint8]
        self._size = Size(1, 1)
        self._tensor: Any = None

    def take(self, frames: NDArray[np.uint8]) -> None:
        # The tensor borrows the array's memory and keeps it alive.
        self._tensor = openvino.Tensor(np.ascontiguousarray(frames), shared_memory=True)
        self._size = Size(frames.shape[1], frames.shape[2])
        self.request.set_input_tensor(self._tensor)

    def begin(self) -> None:
        if self._tensor is None:
            raise UsageError("call bind(frames) before run_bound()")
        self.request.start_async()

    def end(self) -> None:
        self.request.wait()
        given = self.request.get_output_tensor(0).data
        self.labels = given if self.finish is None else self.finish(given, self._size)


def _in_precision(spec: EngineSpec, settings: Settings, title: str) -> EngineSpec:
    """The description of an engine that computes as asked for."""
    precision = settings.precision or spec.precision
    if precision != spec.precision and (precision, spec.precision) != ("bf16", "fp32"):
        raise UsageError(
            f"{title} is {spec.precision} and cannot be computed in {precision}. Export it again: "
            f"fasterseg export MODEL --precision {precision} -o FILE.onnx"
        )
    if precision == "bf16" and "BF16" not in capabilities():
        raise DeviceUnavailableError(
            "this CPU does not compute in bf16 (it takes AVX512_BF16 or AMX). Use --precision "
            "fp32 or int8"
        )
    return replace(spec, precision=precision)


def _ends(ports: Any) -> list[Ends]:
    """Types and shapes of a network's inputs or outputs."""
    found: list[Ends] = []
    for port in ports:
        name = port.get_element_type().get_type_name()
        sides = [side.get_length() if side.is_static else None for side in port.partial_shape]
        found.append((_TYPE_NAMES.get(name, name), sides))
    return found
