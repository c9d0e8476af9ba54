"""Time engines at sizes: the model alone and from host frames to labels, with label agreement."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fasterseg.bench import device as machine
from fasterseg.bench.records import BenchRecord, Cell, current_commit, now
from fasterseg.bench.timing import FULL, Clock, Samples, TimingProtocol, measure, measure_device
from fasterseg.errors import EngineError, EngineMismatchError, UsageError
from fasterseg.runtime.base import DeviceTimed, Engine, EngineSpec
from fasterseg.runtime.select import reference_backend
from fasterseg.types import DeviceInfo, LatencyStats, Size

Frames = NDArray[np.uint8]
Labelled = tuple[str, list[Frames]]
"""Hash of the weights, and class maps of some frames made with them."""

BATCHES: Final = 4
"""Different batches an engine is timed on, in turn."""

UNSTABLE_COV: Final = 0.1
BUSY_LOAD_PER_CORE: Final = 0.5
ONE_CLASS_SHARE: Final = 0.9

_SCENE_SEED: Final = 7
_SCENE_STEP: Final = 15


@runtime_checkable
class BoundEngine(Protocol):
    """An engine that can run on buffers fixed before, so that its own work can be timed alone."""

    def bind(self, frames: NDArray[np.uint8]) -> None:
        """Put one batch into the input buffer; may be called again, and is never timed."""
        ...

    def run_bound(self) -> None:
        """The work of `run` on the bound batch, tail included, no copies; returns when done."""
        ...


class Opener(Protocol):
    """Makes a ready engine; the caller closes it."""

    def __call__(self, engine: str, precision: str, device: str, size: Size) -> Engine:
        """Open a backend (or an engine file) for frames of `size`."""
        ...


@dataclass(frozen=True, slots=True)
class Suite:
    """What to measure: every engine at every size.

    Attributes:
        engines: backends or engine files.
        sizes: heights and widths of the frames.
        batch: frames per call.
        precision: "auto" or a precision, the same for all engines.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads asked for; None: the runtime's default.
        protocol: how times are taken.
        cpu_time: measure the process's CPU time as well.
    """

    engines: tuple[str, ...]
    sizes: tuple[Size, ...]
    batch: int = 1
    precision: str = "auto"
    device: str = "auto"
    threads: int | None = None
    protocol: TimingProtocol = FULL
    cpu_time: bool = False


def render_frames(size: Size, batch: int, count: int = BATCHES) -> list[Frames]:
    """Batches of rendered street scenes, all different; always the same ones.

    Returns:
        `count` arrays, uint8, (batch, H, W, 3), BGR.
    """
    from fasterseg.streets import StreetScene

    scene = StreetScene(_SCENE_SEED, size)
    images = [scene.frame(i * _SCENE_STEP)[0] for i in range(count * batch)]
    return [np.stack(images[i * batch : (i + 1) * batch]) for i in range(count)]


def bench_engine(
    engine: Engine,
    protocol: TimingProtocol,
    frames: Sequence[Frames],
    *,
    threads: int | None = None,
    cpu_time: bool = False,
    clock: Clock = time.perf_counter_ns,
) -> Cell:
    """Time one engine on one size.

    Args:
        engine: ready to run; it stays open.
        protocol: how much to run.
        frames: batches, each uint8, (N, H, W, 3), BGR, all of one shape; used in turn, so that
            no run sees the input of the run before.
        threads: what the engine was opened with, for the record.
        cpu_time: measure the process's CPU time of each `host_to_labels` run as well.
        clock: wall clock.

    Raises:
        ValueError: there are fewer than two batches.
        EngineError: the engine's device clock answers nonsense.
    """
    if len(frames) < 2:
        raise ValueError("give at least two batches: the input has to change between runs")
    memory_known = machine.reset_peak_memory()
    begin = clock()
    engine.run(frames[0])
    first_run_ms = (clock() - begin) / 1e6
    whole = measure(
        lambda i: engine.run(frames[i % len(frames)]),
        protocol,
        clock=clock,
        cpu_clock=time.process_time_ns if cpu_time else None,
    )
    samples, model_clock = _measure_model(engine, protocol, frames, clock)
    cell = Cell(
        engine=engine.backend,
        precision=engine.spec.precision,
        device=engine.device,
        size=Size(frames[0].shape[1], frames[0].shape[2]),
        batch=frames[0].shape[0],
        tail=engine.tail,
        threads=threads,
        host_to_labels=LatencyStats.of(whole.wall_ms),
        model=LatencyStats.of(samples.wall_ms) if samples else None,
        model_clock=model_clock,
        host_to_labels_cpu=LatencyStats.of(whole.cpu_ms) if whole.cpu_ms else None,
        peak_rss_mb=machine.peak_memory_mb() if memory_known else None,
        first_run_ms=round(first_run_ms, 4),
    )
    return replace(cell, warnings=_unstable(cell))


def _measure_model(
    engine: Engine, protocol: TimingProtocol, frames: Sequence[Frames], clock: Clock
) -> tuple[Samples | None, Literal["device", "host"] | None]:
    """The scope `model`, by the best clock the engine has."""
    if isinstance(engine, DeviceTimed):
        return measure_device(engine, protocol), "device"
    if not isinstance(engine, BoundEngine):
        return None, None
    bound = engine
    samples = measure(
        lambda _: bound.run_bound(),
        protocol,
        prepare=lambda i: bound.bind(frames[i % len(frames)]),
        clock=clock,
    )
    return samples, "host"


def _unstable(cell: Cell) -> tuple[str, ...]:
    scopes = {"model": cell.model, "host_to_labels": cell.host_to_labels}
    return tuple(
        f"unstable: {scope} varies by {stats.cov:.0%} (standard deviation over mean; limit "
        f"{UNSTABLE_COV:.0%}); stop other programs or lock the clocks, and measure again"
        for scope, stats in scopes.items()
        if stats is not None and stats.cov > UNSTABLE_COV
    )


def busy(load: float | None, cores: int) -> tuple[str, ...]:
    """A warning when other programs were running before the measurement, else nothing.

    Args:
        load: load average of the last minute, None where unknown.
        cores: logical cores this process may use.
    """
    if load is None or load <= BUSY_LOAD_PER_CORE * cores:
        return ()
    return (
        f"busy: the load average was {load} on {cores} cores before the measurement; stop other "
        "programs and measure again",
    )


def labels_of(engine: Engine, frames: Sequence[Frames]) -> list[Frames]:
    """The class maps of all batches, each a copy: engines reuse their output buffer."""
    return [engine.run(batch).copy() for batch in frames]


def with_agreement(cell: Cell, labels: Sequence[Frames], expected: Sequence[Frames]) -> Cell:
    """The cell with the share of all pixels of all frames whose label is the reference's.

    Args:
        cell: the engine's figures.
        labels: the engine's class maps.
        expected: those of the reference, for the same frames.

    Raises:
        EngineMismatchError: the class maps differ in number or shape.
    """
    if [maps.shape for maps in labels] != [maps.shape for maps in expected]:
        raise EngineMismatchError(
            f"{cell.engine} gives class maps of {labels[0].shape}, the reference gives "
            f"{expected[0].shape}; they are not engines of the same model and size"
        )
    pairs = zip(labels, expected, strict=True)
    equal = sum(int(np.count_nonzero(ours == theirs)) for ours, theirs in pairs)
    counts = np.bincount(np.concatenate([maps.ravel() for maps in expected]))
    total = int(counts.sum())
    share = float(counts.max()) / total
    warning = (
        f"weak agreement: one class holds {share:.0%} of the reference's pixels, so equal labels "
        "say little",
    )
    return replace(
        cell,
        label_agreement=equal / total,
        warnings=cell.warnings + (warning if share > ONE_CLASS_SHARE else ()),
    )


def run_suite(
    suite: Suite,
    opener: Opener,
    on_note: Callable[[str], None],
    *,
    render: Callable[[Size, int], list[Frames]] | None = None,
) -> BenchRecord:
    """Measure every engine at every size on this machine.

    Args:
        suite: what to measure.
        opener: makes the engines.
        on_note: gets one line per step.
        render: makes the input frames; default `render_frames`.

    Raises:
        UsageError: the engines are of different models or run on different devices.
        EngineError: an engine cannot be opened.
    """
    if not suite.engines or not suite.sizes:
        raise UsageError("nothing to measure: name at least one --engine and one --size")
    run = _Run(suite, opener, on_note)
    for size in suite.sizes:
        frames = (render or render_frames)(size, suite.batch)
        for engine in suite.engines:
            run.measure(engine, size, frames)
    return run.record()


@dataclass(slots=True)
class _Run:
    """A suite under way: the cells so far and what they share."""

    suite: Suite
    opener: Opener
    on_note: Callable[[str], None]
    cells: list[Cell] = field(default_factory=list)
    device: DeviceInfo | None = None
    spec: EngineSpec | None = None
    references: dict[Size, Labelled | None] = field(default_factory=dict)

    def measure(self, name: str, size: Size, frames: Sequence[Frames]) -> None:
        """Add one cell."""
        suite = self.suite
        step = f"[{len(self.cells) + 1}/{len(suite.engines) * len(suite.sizes)}]"
        self.on_note(f"{step} {name} {size}: opening")
        begin = time.perf_counter()
        with contextlib.closing(self.opener(name, suite.precision, suite.device, size)) as engine:
            build_s = time.perf_counter() - begin
            self.device = device = self._device_of(engine)
            self.on_note(
                f"{step} {engine.backend} {engine.spec.precision} {size} on {device.name}: "
                f"measuring, protocol {suite.protocol.name}"
            )
            cell = bench_engine(
                engine, suite.protocol, frames, threads=suite.threads, cpu_time=suite.cpu_time
            )
            self.device = machine.with_clocks(device)
            warnings = cell.warnings + busy(device.details["load_average"], machine.usable_cores())
            cell = replace(cell, build_s=round(build_s, 3), warnings=warnings)
            self.cells.append(self._compared(cell, engine, frames))

    def record(self) -> BenchRecord:
        """What was measured; call it after `measure`."""
        assert self.device is not None
        assert self.spec is not None
        return BenchRecord(
            device=self.device,
            protocol=self.suite.protocol,
            commit=current_commit(),
            created=now(),
            model=self.spec.name,
            trained=self.spec.trained,
            cells=tuple(self.cells),
        )

    def _device_of(self, engine: Engine) -> DeviceInfo:
        """The device of the record, which all cells have to share, as they do the model."""
        if self.device is None or self.spec is None:
            self.spec = engine.spec
            return machine.detect([engine.backend], engine.device)
        now_on = (engine.spec.name, engine.spec.trained, engine.device)
        before = (self.spec.name, self.spec.trained, self.cells[-1].device)
        if now_on != before:
            raise UsageError(
                "a record holds one model on one device: (model, trained, device) is "
                f"{now_on} for {engine.backend} and {before} for {self.cells[-1].engine}. "
                "Measure them in two runs, or name --device"
            )
        runtimes = {**self.device.runtimes, **machine.versions([engine.backend])}
        return replace(self.device, runtimes=runtimes)

    def _compared(self, cell: Cell, engine: Engine, frames: Sequence[Frames]) -> Cell:
        """The cell with its label agreement, where there is a reference of the same weights."""
        if (cell.engine, cell.precision, cell.device) == (reference_backend(), "fp32", "cpu"):
            return cell
        if cell.size not in self.references:
            self.references[cell.size] = self._reference(cell.size, frames)
        reference = self.references[cell.size]
        if reference is None:
            return cell
        source, expected = reference
        if source != engine.spec.source_sha256:
            self.on_note(f"no label agreement for {cell.engine}: other weights than the reference")
            return cell
        return with_agreement(cell, labels_of(engine, frames), expected)

    def _reference(self, size: Size, frames: Sequence[Frames]) -> Labelled | None:
        name, precision, device = reference_backend(), "fp32", "cpu"
        self.on_note(f"labels of the reference ({name} {precision} on {device}) at {size}")
        try:
            opened = self.opener(name, precision, device, size)
        except (EngineError, UsageError) as error:
            self.on_note(f"no label agreement at {size}: no reference engine ({error})")
            return None
        with contextlib.closing(opened) as engine:
            return engine.spec.source_sha256, labels_of(engine, frames)
