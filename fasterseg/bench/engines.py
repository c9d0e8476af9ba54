"""Engines at sizes, with peers, batches and streams: one record."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fasterseg.bench import device as machine
from fasterseg.bench.agreement import labels_of, with_agreement
from fasterseg.bench.cells import Cell, Scope
from fasterseg.bench.interleave import Turns, interleave
from fasterseg.bench.networks import BareNetwork, layer_times
from fasterseg.bench.peers import BACKEND, PeerFile
from fasterseg.bench.records import BenchRecord, current_commit, now
from fasterseg.bench.scopes import bench_engine, busy, cell_of, first_run_ms, lanes_of
from fasterseg.bench.streams import SharedEngine, bench_streams
from fasterseg.bench.suite import Access, Candidate, Suite
from fasterseg.cores import usable_cores
from fasterseg.errors import EngineError, UsageError
from fasterseg.runtime.base import Engine, EngineSpec
from fasterseg.runtime.select import reference_backend
from fasterseg.runtime.tail import CHOOSING, GRAPH
from fasterseg.types import DeviceInfo, Size

Frames = NDArray[np.uint8]
Labelled = tuple[str, list[Frames]]
"""Hash of the weights, and class maps of some frames made with them."""

BATCHES: Final = 4
"""Different batches an engine is timed on, in turn."""

_SCENE_SEED: Final = 7
_SCENE_STEP: Final = 15


def render_frames(size: Size, batch: int, count: int = BATCHES) -> list[Frames]:
    """Batches of rendered street scenes, all different; always the same ones.

    Returns:
        `count` arrays, uint8, (batch, H, W, 3), BGR.
    """
    from fasterseg.streets import StreetScene

    scene = StreetScene(_SCENE_SEED, size)
    images = [scene.frame(i * _SCENE_STEP)[0] for i in range(count * batch)]
    return [np.stack(images[i * batch : (i + 1) * batch]) for i in range(count)]


def run_suite(
    suite: Suite,
    access: Access,
    on_note: Callable[[str], None],
    *,
    render: Callable[[Size, int], list[Frames]] | None = None,
) -> BenchRecord:
    """Measure everything in a suite on this machine.

    Args:
        suite: what to measure.
        access: how to get at it.
        on_note: gets one line per step.
        render: makes the input frames; default `render_frames`.

    Raises:
        UsageError: the engines are of different models or run on different devices, or a peer
            does not fit.
        EngineError: an engine cannot be opened.
    """
    candidates = _possible(suite, access, on_note)
    run = _Run(suite, access, on_note, render or render_frames, len(candidates))
    # Before anything is measured: a wrong file must not cost what was measured until then.
    run.check_peers(candidates)
    if suite.interleave:
        run.measure_in_turn(candidates)
    else:
        for candidate in candidates:
            run.measure(candidate)
    return run.record()


def _possible(suite: Suite, access: Access, on_note: Callable[[str], None]) -> list[Candidate]:
    """The candidates, without precisions that only some of the engines have."""
    found = []
    for candidate in suite.candidates():
        try:
            if access.check is not None and candidate.peer is None:
                access.check(candidate)
        except UsageError as error:
            several = (suite.precisions, suite.engines, suite.tails)
            if sum(len(choice) > 1 for choice in several) < 2:
                raise
            on_note(f"left out: {candidate} ({error})")
            continue
        found.append(candidate)
    return found


@dataclass(slots=True)
class _Opened:
    """A candidate ready to be measured."""

    candidate: Candidate
    engine: Engine
    build_s: float
    frames: list[Frames]
    network: BareNetwork | None
    shared: SharedEngine | None


@dataclass(slots=True)
class _Run:
    """A suite under way: the cells so far and what they share."""

    suite: Suite
    access: Access
    on_note: Callable[[str], None]
    render: Callable[[Size, int], list[Frames]]
    total: int
    cells: list[Cell] = field(default_factory=list)
    device: DeviceInfo | None = None
    spec: EngineSpec | None = None
    obtained: str = ""
    files: dict[str, PeerFile] = field(default_factory=dict)
    frames: dict[tuple[Size, int], list[Frames]] = field(default_factory=dict)
    references: dict[tuple[Size, int], Labelled | None] = field(default_factory=dict)

    def check_peers(self, candidates: Sequence[Candidate]) -> None:
        """Read the peers' files, and see that they fit what is asked of them."""
        self.files = {peer.name: PeerFile(peer) for peer in self.suite.peers}
        for candidate in candidates:
            if candidate.peer is not None:
                self.files[candidate.peer].network(candidate.size, candidate.engine_batch)

    def measure(self, candidate: Candidate) -> None:
        """Add one cell, measured alone."""
        suite = self.suite
        with contextlib.ExitStack() as stack:
            opened = self._open(candidate, stack, f"[{len(self.cells) + 1}/{self.total}]")
            cell = (
                bench_engine(
                    opened.engine,
                    suite.protocol,
                    opened.frames,
                    threads=suite.threads,
                    cpu_time=suite.cpu_time,
                    network=opened.network,
                )
                if candidate.streams == 1 and candidate.share is None
                else self._streamed(opened, stack)
            )
            self._add(opened, cell)

    def measure_in_turn(self, candidates: Sequence[Candidate]) -> None:
        """Add all cells, measured in turn with every engine open."""
        suite = self.suite
        with contextlib.ExitStack() as stack:
            all_opened = [
                self._open(candidate, stack, f"[{number}/{self.total}]")
                for number, candidate in enumerate(candidates, start=1)
            ]
            firsts = [first_run_ms(opened.engine, opened.frames[0]) for opened in all_opened]
            lanes = [
                lanes_of(o.engine, o.frames, network=o.network, cpu_time=suite.cpu_time)
                for o in all_opened
            ]
            flat = [(i, scope) for i, own in enumerate(lanes) for scope in own]
            self.on_note(f"measuring {len(flat)} scopes in turn, protocol {suite.protocol.name}")
            turns = interleave([lanes[i][scope] for i, scope in flat], suite.protocol)
            times: list[dict[Scope, Turns]] = [{} for _ in lanes]
            for (i, scope), turn in zip(flat, turns, strict=True):
                times[i][scope] = turn
            for opened, first_ms, own in zip(all_opened, firsts, times, strict=True):
                cell = cell_of(opened.engine, opened.frames[0], own, threads=suite.threads)
                self._add(opened, replace(cell, first_run_ms=first_ms))

    def record(self) -> BenchRecord:
        """What was measured; call it after measuring."""
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
            suite="peers" if self.suite.peers else "engines",
        )

    def _open(self, candidate: Candidate, stack: contextlib.ExitStack, step: str) -> _Opened:
        self.on_note(f"{step} {candidate}: opening")
        begin = time.perf_counter()
        engine = stack.enter_context(contextlib.closing(self._engine(candidate)))
        build_s = time.perf_counter() - begin
        shared = None
        if candidate.share is not None:
            assert self.access.sharer is not None
            shared = self.access.sharer(engine, candidate.share)
            engine = stack.enter_context(contextlib.closing(shared)).open()
        self.device = self._device_of(candidate, engine)
        key = (candidate.size, candidate.batch)
        if key not in self.frames:
            self.frames[key] = self.render(*key)
        if not self.suite.interleave:
            self.on_note(
                f"{step} {engine.backend} {engine.spec.precision} {candidate.size} on "
                f"{self.device.name}: measuring, protocol {self.suite.protocol.name}"
            )
        network = self._network(candidate, engine) if self.suite.peers else None
        return _Opened(candidate, engine, round(build_s, 3), self.frames[key], network, shared)

    def _engine(self, candidate: Candidate) -> Engine:
        if candidate.peer is None:
            return self.access.opener(candidate)
        file, threads = self.files[candidate.peer], self.suite.threads
        return file.open(candidate.size, candidate.engine_batch, candidate.device, threads)

    def _network(self, candidate: Candidate, engine: Engine) -> BareNetwork | None:
        """The same network without what the boundary adds, where ONNX Runtime runs it here."""
        if engine.device != "cpu":
            self.on_note(f"no network-only time for {candidate}: it is measured on the CPU alone")
            return None
        if candidate.peer is not None:
            file = self.files[candidate.peer]
            graph = file.graph(candidate.size, candidate.batch, whole=False)
        else:
            found = self._graph(candidate, engine, "logits8")
            if found is None:
                self.on_note(f"no network-only time for {candidate}: no ONNX ends at its logits")
                return None
            graph = found
        return BareNetwork(graph, self.suite.threads)

    def _graph(
        self, candidate: Candidate, engine: Engine, stage: Literal["labels", "logits8"]
    ) -> bytes | None:
        if candidate.peer is not None:
            return self.files[candidate.peer].graph(candidate.size, candidate.batch, whole=True)
        graphs = self.access.graphs
        if engine.backend != BACKEND:
            return None
        return None if graphs is None else graphs(candidate, engine.spec.precision, stage)

    def _streamed(self, opened: _Opened, stack: contextlib.ExitStack) -> Cell:
        """The cell of several calls at the same time, on engines of their own or on one."""
        suite, candidate, shared = self.suite, opened.candidate, opened.shared
        first_ms = first_run_ms(opened.engine, opened.frames[0])
        engines = [opened.engine]
        for _ in range(candidate.streams - 1):
            more = self._engine(candidate) if shared is None else shared.open()
            engines.append(stack.enter_context(contextlib.closing(more)))
        cell = bench_streams(
            engines, opened.frames, suite.protocol, threads=suite.threads, shared=shared
        )
        return replace(cell, first_run_ms=first_ms)

    def _add(self, opened: _Opened, cell: Cell) -> None:
        """Keep a cell, with what is not a time of the engine alone."""
        candidate, engine = opened.candidate, opened.engine
        assert self.device is not None
        load = self.device.details["load_average"]
        self.device = machine.with_clocks(self.device)
        cell = replace(
            cell,
            peer=candidate.peer,
            build_s=opened.build_s,
            warnings=(*cell.warnings, *busy(load, usable_cores())),
        )
        if candidate.peer is None:
            cell = self._compared(cell, opened)
        if self.suite.per_layer and engine.device == "cpu":
            stage: Literal["labels", "logits8"] = (
                "labels" if candidate.peer or engine.tail == GRAPH else "logits8"
            )
            graph = self._graph(candidate, engine, stage)
            if graph is not None:
                layers = layer_times(graph, opened.frames, threads=self.suite.threads)
                cell = replace(cell, layers=layers)
        if self.access.film is not None and candidate.is_single:
            self.on_note(f"{candidate}: end to end")
            film = self.access.film(engine)
            cell = replace(cell, end_to_end=film, warnings=(*cell.warnings, *film.warnings()))
        self.cells.append(cell)

    def _device_of(self, candidate: Candidate, engine: Engine) -> DeviceInfo:
        """The device of the record, which all cells have to share, as they do the model."""
        if self.device is None:
            self.device = machine.detect([engine.backend], engine.device)
            self.obtained = engine.device
        if candidate.peer is None and self.spec is None:
            self.spec = engine.spec
        ours = engine.spec if candidate.peer is None else self.spec
        assert ours is not None
        assert self.spec is not None
        now_on = (ours.name, ours.trained, engine.device)
        before = (self.spec.name, self.spec.trained, self.obtained)
        if now_on != before:
            raise UsageError(
                "a record holds one model on one device: (model, trained, device) is "
                f"{now_on} for {engine.backend} and {before} for what came before. "
                "Measure them in two runs, or name --device"
            )
        runtimes = {**self.device.runtimes, **machine.versions([engine.backend])}
        return replace(self.device, runtimes=runtimes)

    def _compared(self, cell: Cell, opened: _Opened) -> Cell:
        """The cell with its label agreement, where there is a reference of the same weights."""
        backend, is_fp32 = reference_backend(), (cell.precision, cell.device) == ("fp32", "cpu")
        own_tail = cell.tail == GRAPH or backend not in CHOOSING
        if cell.engine == backend and is_fp32 and own_tail:
            return cell
        key = (cell.size, cell.batch)
        if key not in self.references:
            self.references[key] = self._reference(opened)
        reference = self.references[key]
        if reference is None:
            return cell
        source, expected = reference
        spec = opened.engine.spec
        if source != spec.source_sha256:
            self.on_note(f"no label agreement for {cell.engine}: other weights than the reference")
            return cell
        labels = labels_of(opened.engine, opened.frames)
        limits = self.access.limits
        return with_agreement(cell, labels, expected, limits=limits, trained=spec.trained)

    def _reference(self, opened: _Opened) -> Labelled | None:
        backend = reference_backend()
        tail = GRAPH if backend in CHOOSING else "auto"
        asked = replace(
            opened.candidate, engine=backend, precision="fp32", device="cpu", streams=1, tail=tail,
            share=None,
        )  # fmt: skip
        self.on_note(f"labels of the reference: {asked}")
        try:
            engine = self.access.opener(asked)
        except (EngineError, UsageError) as error:
            self.on_note(f"no label agreement at {asked.size}: no reference engine ({error})")
            return None
        with contextlib.closing(engine):
            return engine.spec.source_sha256, labels_of(engine, opened.frames)
