"""`Segmenter`: frames of any size in, class maps of the same size out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import UsageError
from fasterseg.labels import LabelSet
from fasterseg.preprocess import Fit, Geometry, check_image, check_orientation, engine_size
from fasterseg.runtime.base import Engine, PipelinedEngine
from fasterseg.runtime.model import DEFAULT_MODEL, resolve_model
from fasterseg.runtime.select import EngineRequest, check_request, engine_file, open_engine
from fasterseg.stream.batching import SharedStream
from fasterseg.stream.in_flight import infer_each
from fasterseg.stream.readahead import ReadAhead
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.smoothing import Smoother, SmoothOptions, refuse_still
from fasterseg.stream.sources import open_source
from fasterseg.stream.sources_options import Drop, SourceOptions
from fasterseg.stream.stages import Begun, Inferred, Prepared
from fasterseg.types import Frame, Size, StageTimes

_LOG: Final = logging.getLogger("fasterseg")
MAX_ENGINES: Final = 4
"""Engines a segmenter keeps open; the one unused for longest is closed first."""


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """An engine and the frame size it was asked for."""

    engine: Engine
    asked_for: Size

    def size_for(self, source: Size) -> Size:
        """Size this engine takes frames of `source` at."""
        spec = self.engine.spec
        return spec.size or engine_size(source, spec.train_size or source)

    def serves(self, source: Size) -> bool:
        """Whether frames of `source` need no other engine.

        They need one where the size follows from the source's shape and would come out
        different; an engine of free size, and one whose size was forced, serve all.
        """
        spec = self.engine.spec
        if spec.size is None or spec.train_size is None:
            return True
        forced = spec.size != engine_size(self.asked_for, spec.train_size)
        return forced or spec.size == engine_size(source, spec.train_size)


class Segmenter:
    """Segments single images and streams with the engines a factory makes.

    `prepare` may run in one thread beside `infer` and `finish` in others; everything else
    belongs to one thread at a time.

    Args:
        engine_factory: size of the source's frames -> engine for them. Called when the first
            frame arrives, and again for a frame whose shape asks for an engine of another size.
            The segmenter closes what it gets.
        fit: how frames are fitted to the engine's size.
        smooth: how the class maps of streams are smoothed; None: they are not.
    """

    def __init__(
        self,
        engine_factory: Callable[[Size], Engine],
        fit: Fit = "stretch",
        smooth: SmoothOptions | None = None,
    ) -> None:
        self._factory = engine_factory
        self._fit: Fit = fit
        self._smooth = smooth
        # Replaced, never changed: another thread may be reading it. Used last comes last.
        self._opened: tuple[_Opened, ...] = ()

    @property
    def labels(self) -> LabelSet:
        """Classes of the model.

        Raises:
            UsageError: no engine is open yet.
        """
        if not self._opened:
            raise UsageError(
                "the labels are known once an engine is open: call open(Size(height, width)) "
                "with the size of your frames, or segment a frame, first"
            )
        return self._opened[-1].engine.spec.labels

    def open(self, source: Size) -> Engine:
        """The engine for frames of this size, made now if there is none."""
        return self._for(source).engine

    def prepare(self, frame: Frame) -> Prepared:
        """Fit a frame to the engine, if there is one for its size yet."""
        opened = self._find(frame.size)
        if opened is None:
            return Prepared(frame, None, 0.0)
        started = time.perf_counter()
        batch = self._geometry(opened, frame.size).forward(frame.image)[None]
        return Prepared(frame, batch, (time.perf_counter() - started) * 1e3)

    def await_turn(self, prepared: Prepared) -> None:
        """Wait until the engine would take such a frame next, where it is shared with others."""
        engine = self._for(prepared.frame.size).engine
        if isinstance(engine, SharedStream):
            engine.await_turn()

    def infer(self, prepared: Prepared) -> Inferred:
        """Run the engine on one prepared frame."""
        return self.end(self.begin(prepared))

    def begin(self, prepared: Prepared) -> Begun:
        """Send a prepared frame on its way, where the engine works ahead; at most two at a time."""
        frame = prepared.frame
        opened = self._for(frame.size)
        geometry = self._geometry(opened, frame.size)
        if prepared.batch is None or prepared.batch.shape[1:3] != geometry.engine:
            prepared = self.prepare(frame)
            assert prepared.batch is not None
        started = time.perf_counter()
        on_its_way = isinstance(opened.engine, PipelinedEngine)
        if isinstance(opened.engine, PipelinedEngine):
            opened.engine.submit(prepared.batch)
        begin_ms = (time.perf_counter() - started) * 1e3
        return Begun(prepared, opened.engine, geometry, begin_ms, on_its_way)

    def end(self, begun: Begun) -> Inferred:
        """What the engine says about a frame; those that were begun first come first."""
        engine, prepared = begun.engine, begun.prepared
        assert prepared.batch is not None
        started = time.perf_counter()
        if isinstance(engine, PipelinedEngine):
            mask = engine.collect()[0].copy()
        else:
            mask = engine.run(prepared.batch)[0].copy()
        engine_ms = begun.begin_ms + (time.perf_counter() - started) * 1e3
        times = StageTimes(prepared.frame.decode_ms, prepared.prepare_ms, engine_ms)
        labels, picture = engine.spec.labels, prepared.batch[0]
        return Inferred(prepared.frame, picture, mask, labels, begun.geometry, times)

    def smoother(self) -> Smoother | None:
        """What smooths the class maps of one stream, where that was asked for."""
        return None if self._smooth is None else Smoother(self._smooth)

    def finish(self, inferred: Inferred, smoother: Smoother | None = None) -> SegmentationResult:
        """Map the class map back to the frame's size.

        Args:
            inferred: what the engine said about a frame.
            smoother: of the stream whose next frame it is; None: the class map is left as it is.
        """
        started = time.perf_counter()
        mask = inferred.mask if smoother is None else smoother.smooth(inferred)
        mask = inferred.geometry.inverse(mask)
        inferred.times.finish_ms = (time.perf_counter() - started) * 1e3
        flicker = None if smoother is None else smoother.flicker
        return SegmentationResult(mask, inferred.labels, inferred.frame, inferred.times, flicker)

    def __call__(self, image: NDArray[np.uint8]) -> SegmentationResult:
        """Segment one image.

        Args:
            image: (H, W, 3) uint8, BGR, values in [0, 255].

        Raises:
            UsageError: another shape or type.
        """
        check_image(image)
        frame = Frame(np.ascontiguousarray(image), index=0, timestamp_s=0.0)
        self.open(frame.size)
        return self.finish(self.infer(self.prepare(frame)))

    def stream(
        self,
        uri: str | Path,
        *,
        stride: int = 1,
        limit: int | None = None,
        start_s: float = 0.0,
        loop: int = 1,
        drop: Drop = "auto",
        reconnect_attempts: int | None = None,
        smooth: bool = False,
    ) -> Iterator[SegmentationResult]:
        """Segment a source frame by frame, reading ahead in a thread.

        Everything is closed when the generator ends, is closed, or is forgotten.

        Args:
            uri: image, folder, pattern, video, URL or camera; see `open_source`.
            stride: take every n-th frame.
            limit: take at most so many frames.
            start_s: begin with the first frame at or after so many seconds.
            loop: read a file so many times; 0: for ever.
            drop: which frames of a live source are given up; see `DROPS`.
            reconnect_attempts: how often in a row a live source that was lost is opened again;
                -1: for ever; None: the kind of source decides.
            smooth: let labels flicker less from frame to frame; `result.flicker` says how much.

        Yields:
            One result per frame, in order.

        Raises:
            SourceError: the source cannot be opened or was lost.
            UsageError: a value that cannot be right.
        """
        options = SourceOptions(
            stride=stride,
            limit=limit,
            start_s=start_s,
            loop=loop,
            drop=drop,
            reconnect_attempts=reconnect_attempts,
        )
        with closing(open_source(str(uri), options)) as source:
            smoother = Smoother() if smooth else self.smoother()
            if smoother is not None:
                refuse_still(source)
            if source.size is not None:
                self.open(source.size)
            with (
                ReadAhead(source, self.prepare) as reader,
                closing(infer_each(self, reader, ahead=not source.live)) as inferred,
            ):
                yield from (self.finish(one, smoother) for one in inferred)

    def close(self) -> None:
        """Close all engines."""
        opened, self._opened = self._opened, ()
        _close_unused(opened, ())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _find(self, source: Size) -> _Opened | None:
        return next((opened for opened in self._opened if opened.serves(source)), None)

    def _for(self, source: Size) -> _Opened:
        """The engine for frames of this size; remembers that it was used last."""
        found = self._find(source)
        if found is None:
            found = _Opened(self._factory(source), source)
        others = tuple(opened for opened in self._opened if opened is not found)
        kept = (*others, found)[-MAX_ENGINES:]
        self._opened = kept
        _close_unused(others, kept)
        return found

    def _geometry(self, opened: _Opened, source: Size) -> Geometry:
        return Geometry(source, opened.size_for(source), self._fit)


def _close_unused(candidates: tuple[_Opened, ...], kept: tuple[_Opened, ...]) -> None:
    """Close engines that are no longer kept; a factory may have given one of them twice."""
    in_use = {id(opened.engine) for opened in kept}
    for engine in {id(opened.engine): opened.engine for opened in candidates}.values():
        if id(engine) not in in_use:
            engine.close()


def load(
    model: str = DEFAULT_MODEL,
    engine: str = "auto",
    *,
    size: Size | str | None = None,
    precision: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    fit: Fit = "stretch",
) -> Segmenter:
    """A segmenter for a model by name: `fasterseg.load()`.

    The engine is opened with the first frame, because its default size follows the frame's
    aspect; names and values are checked here.

    Args:
        model: name (`fasterseg models list`), genotype `.json` or engine `.onnx`.
        engine: "auto", a backend ("onnxruntime", "torch"), or an engine file.
        size: engine size, `Size(height, width)` or "HxW"; by default the model's training
            height and the frame's aspect.
        precision: "auto" (fp32 on a CPU, fp16 on a GPU), "fp32", "fp16" or "int8".
        device: "auto", "cpu" or "cuda"; the one named or an error.
        threads: CPU threads of the engine; None takes all cores.
        fit: how frames are fitted to the engine, "stretch" or "letterbox".

    Raises:
        UsageError: a value that cannot be right.
        UnknownNameError: no such model or engine; the message lists the known ones.
        EngineError: the engine file is none, or (with the first frame) cannot be used.
    """
    request = EngineRequest(
        model=model,
        engine=engine,
        precision=precision,
        device=device,
        size=Size.parse(size) if isinstance(size, str) else size,
        threads=threads,
    )
    check_request(request)
    if engine_file(request) is None:
        resolve_model(model)

    def open_for(source: Size) -> Engine:
        if request.size is not None:
            check_orientation(request.size, source)
        opened = open_engine(request, source, _LOG.info)
        if not opened.spec.trained:
            _LOG.warning("%s has untrained weights; its class maps mean nothing", opened.spec.name)
        return opened

    return Segmenter(open_for, fit)
