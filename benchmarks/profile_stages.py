"""Every stage of a video timed alone: what it costs, and what an encoder makes of the frames."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Final

import av
import cv2
import earlier_pipeline as earlier
import numpy as np
from numpy.typing import NDArray

from fasterseg import overlay
from fasterseg.cores import usable_cores
from fasterseg.stream import sources_decoded
from fasterseg.stream.cores import shared_cores
from fasterseg.stream.pipeline import run_pipeline
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sinks import open_sinks
from fasterseg.stream.sinks_video import COMPACT, PLAYABLE, Encoding, VideoSink
from fasterseg.stream.sources import open_source
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Size

Image = NDArray[np.uint8]

SETTINGS: Final[dict[str, Encoding]] = {
    "small": COMPACT,
    "fast": PLAYABLE,
    **{
        f"{preset} crf {crf}": replace(PLAYABLE, options={"preset": preset, "crf": str(crf)})
        for preset, crf in (("superfast", 22), ("ultrafast", 20))
    },
}
"""Name -> H.264 settings that are compared; `small` and `fast` are those of `--h264`."""


@dataclass(frozen=True)
class Clip:
    """A clip and its first frames."""

    path: Path
    size: Size
    frames: int


def cpu_ms(steps: Iterable[object]) -> float:
    """CPU milliseconds of the process per step."""
    started = time.process_time()
    count = sum(1 for _ in steps)
    return (time.process_time() - started) / count * 1e3


def decode(clip: Clip) -> Iterator[Any]:
    """The frames of the clip."""
    with closing(open_source(str(clip.path), SourceOptions(limit=clip.frames))) as source:
        yield from source


def decode_by(clip: Clip, threads: int) -> Iterator[Image]:
    """The same pictures by so many decoder threads; 0: as many as FFmpeg likes."""
    convert = sources_decoded.Converter([])
    with av.open(str(clip.path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = "AUTO", threads
        for index, picture in enumerate(container.decode(stream)):
            if index == clip.frames:
                return
            yield convert(picture)


class Work:
    """The frames of a clip at every stage, so that each can be timed alone.

    Args:
        clip: the clip.
        segmenter: its engine runs once on every frame.
    """

    def __init__(self, clip: Clip, segmenter: Segmenter) -> None:
        self.clip = clip
        self._segmenter = segmenter
        segmenter.open(clip.size)
        self.frames: list[Any] = list(decode(clip))
        self._prepared = [segmenter.prepare(frame) for frame in self.frames]
        segmenter.infer(self._prepared[0])
        self._inferred: list[Any] = []
        self.engine_ms = cpu_ms(self._infer())
        self.results = [segmenter.finish(inferred) for inferred in self._inferred]
        painter = overlay.Painter(segmenter.labels, overlay.OverlayStyle())
        self.drawn = [painter(r.frame.image, r.mask).copy() for r in self.results]

    def _infer(self) -> Iterator[None]:
        for prepared in self._prepared:
            self._inferred.append(self._segmenter.infer(prepared))
            yield

    def stages(self, name: str) -> dict[str, float]:
        """Stage -> CPU milliseconds per frame, all but the engine's, by one route."""
        segmenter = self._segmenter
        scratch: Image | None = None
        quiet = shared_cores() if name == "now" else nullcontext()
        with earlier.route(name) as (encoding, new_painter), quiet:
            painter = new_painter(segmenter.labels, overlay.OverlayStyle())

            def convert() -> Iterator[None]:
                nonlocal scratch
                for image in self.drawn:
                    scratch = encoding.planes(image, scratch)
                    yield

            found = {
                "decode": cpu_ms(decode(self.clip)),
                "fit": cpu_ms(map(segmenter.prepare, self.frames)),
                "map back": cpu_ms(map(segmenter.finish, self._inferred)),
                "count": cpu_ms(result.pixel_counts() for result in self.results),
                "overlay": cpu_ms(painter(r.frame.image, r.mask) for r in self.results),
                "convert": cpu_ms(convert()),
            }
            written = self.encode(encoding)["cpu_ms"]
        return {**found, "encode": max(0.0, written - found["convert"])}

    def encode(self, encoding: Encoding) -> dict[str, float]:
        """CPU milliseconds per frame of writing the drawn frames, and the size of the file."""
        drawn = self.drawn
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "out.mp4"
            sink = VideoSink(path, Fraction(25), None, lambda r: drawn[r.frame.index], encoding)
            spent = cpu_ms(_written(sink, self.results))
            return {
                "cpu_ms": spent,
                "kb_per_frame": path.stat().st_size / len(drawn) / 1e3,
                **_quality(path, drawn),
            }


def _written(sink: VideoSink, results: Sequence[SegmentationResult]) -> Iterator[None]:
    for last, result in enumerate(results, start=1 - len(results)):
        sink.write(result)
        if last == 0:
            sink.close()
        yield


def _quality(path: Path, drawn: Sequence[Image]) -> dict[str, float]:
    """Mean PSNR and SSIM of the brightness of every third frame.

    Not every fourth: those may all be P-frames, which are better than the B-frames between them.
    """
    errors, similarities = [], []
    with av.open(str(path)) as container:
        for index, picture in enumerate(container.decode(video=0)):
            if index % 3:
                continue
            height = drawn[index].shape[0]
            wanted = PLAYABLE.planes(drawn[index], None)[:height].astype(np.float32)
            got = picture.to_ndarray()[:height].astype(np.float32)
            errors.append(float(np.square(wanted - got).mean()))
            similarities.append(_ssim(wanted, got))
    mean = max(sum(errors) / len(errors), 1e-9)
    return {
        "psnr_db": 10 * float(np.log10(255**2 / mean)),
        "ssim": sum(similarities) / len(similarities),
    }


def _ssim(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Mean structural similarity, 11x11 Gaussian window of 1.5 pixels."""

    def blur(plane: Any) -> Any:
        return cv2.GaussianBlur(plane, (11, 11), 1.5)

    mean_a, mean_b = blur(a), blur(b)
    spread = blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2
    shared = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * shared + c2)
    return float((top / ((mean_a**2 + mean_b**2 + c1) * (spread + c2))).mean())


def least(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Every figure's least value."""
    return {name: min(one[name] for one in rounds) for name in rounds[0]}


def threads_table(work: Work, rounds: int) -> dict[str, float]:
    """What numbers of threads cost in CPU milliseconds per frame."""
    found: dict[str, Callable[[], float]] = {}
    for count in (1, 2, 0):
        found[f"decode, decoder threads {count or 'auto'}"] = partial(_decode_ms, work.clip, count)
    for count in dict.fromkeys((1, usable_cores())):
        title = f"overlay by OpenCV and convert, OpenCV threads {count}"
        found[title] = partial(_opencv_ms, work, count)
    return {name: min(measure() for _ in range(rounds)) for name, measure in found.items()}


def _decode_ms(clip: Clip, threads: int) -> float:
    return cpu_ms(decode_by(clip, threads))


def _opencv_ms(work: Work, threads: int) -> float:
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        painter = earlier.Painter(work.results[0].labels, overlay.OverlayStyle())
        return cpu_ms(
            earlier.planes(painter(result.frame.image, result.mask)) for result in work.results
        )
    finally:
        cv2.setNumThreads(before)


def end_to_end(clip: Clip, segmenter: Segmenter, name: str) -> dict[str, float]:
    """Frames per second of the whole pipeline, and CPU milliseconds per frame."""
    with earlier.route(name), tempfile.TemporaryDirectory() as folder:
        source = open_source(str(clip.path), SourceOptions(limit=clip.frames))
        target = str(Path(folder) / "out.mp4")
        sinks = open_sinks(target, ["overlay"], source, segmenter.labels)
        started = time.process_time()
        summary = run_pipeline(source, segmenter, sinks)
        spent_ms = (time.process_time() - started) * 1e3
        return {"fps": summary.fps, "cpu_ms": spent_ms / summary.frames}
