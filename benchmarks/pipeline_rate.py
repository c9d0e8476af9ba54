"""How close the pipeline comes to what its stages allow.

    python benchmarks/pipeline_rate.py [CLIP] [--size HxW] [--json FILE]
    python benchmarks/pipeline_rate.py --memory

Two stand-in engines take the place of a network, so that the pipeline is measured and nothing
else. `busy` keeps one core at work for a while, as a CPU engine does; `sleeping` waits, as one
does for a GPU. The work of each thread is first timed alone on the same frames; the rate end to
end (decoded clip in, H.264 overlay out) is compared with

    busy:      min(1 / slowest thread alone, cores / CPU time of all stages)   goal: 0.9 of it
    sleeping:  1 / slowest thread alone                                        goal: 0.9 of it

Run it on an idle machine: the bound is timed before the rate it judges. `--memory` shows how much
the process grows over an input ten times as long. Exit code 6 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import PerformanceError
from fasterseg.labels import CAMVID
from fasterseg.runtime.base import EngineSpec
from fasterseg.stream.pipeline import Progress, run_pipeline
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sinks import open_sinks
from fasterseg.stream.sources import open_source
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Size

GOAL: Final = 0.9
MEMORY_GOAL_MIB: Final = 16.0
TRAIN_SIZE: Final = Size(360, 480)
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class StandIn:
    """An engine that only takes time; its ids follow the blue channel.

    Args:
        size: size of the frames it takes.
        busy_ms: milliseconds of work on one core, without the interpreter's lock.
        sleep_ms: milliseconds asleep.
    """

    def __init__(self, size: Size, busy_ms: float = 0.0, sleep_ms: float = 0.0) -> None:
        self.spec = EngineSpec(
            name="stand-in", labels=CAMVID, size=size, batch=1, precision="fp32", output="labels",
            genotype=None, train_size=TRAIN_SIZE, trained=False,
        )  # fmt: skip
        self.backend = "stand-in"
        self.device = "cpu"
        self.tail = "none"
        self._sleep_s = sleep_ms / 1e3
        self._matrix = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float64)
        self._rounds = round(busy_ms / _milliseconds(self._round, 20)) if busy_ms else 0

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(1, H, W, 3) uint8 BGR -> (1, H, W) uint8."""
        for _ in range(self._rounds):
            self._round()
        time.sleep(self._sleep_s)
        return np.asarray(cv2.LUT(frames[0, :, :, 0], _TABLE), np.uint8)[None]

    def close(self) -> None:
        """Nothing to release."""

    def _round(self) -> None:
        cv2.pow(self._matrix, 1.5)


_TABLE: Final = (np.arange(256) * len(CAMVID) // 256).astype(np.uint8)


@dataclass(frozen=True)
class Stage:
    """Cost of one stage alone, per frame."""

    name: str
    wall_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Rate:
    """End to end against its bound, frames per second."""

    engine: str
    stages: list[Stage]
    end_to_end_fps: float
    bound_fps: float
    bound_by: str
    cores_fps: float
    cores_busy: float

    @property
    def share(self) -> float:
        """What the pipeline makes of the bound."""
        return self.end_to_end_fps / self.bound_fps


def _milliseconds(work: Callable[[], object], times: int) -> float:
    work()
    started = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - started) / times * 1e3


def write_clip(path: Path, size: Size, frames: int) -> None:
    """A clip of smooth random pictures that drift and fade into each other."""
    generator = np.random.default_rng(0)
    coarse = (size.height // 24 + 1, size.width // 24 + 1, 3)
    shape = (size.width, size.height)
    pictures = [
        cv2.resize(generator.integers(0, 256, coarse, np.uint8), shape, interpolation=2)
        for _ in range(4)
    ]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30), options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = size.width, size.height, "yuv420p"
        for index in range(frames):
            phase, share = divmod(index / 60, 1.0)
            a, b = (pictures[(int(phase) + i) % len(pictures)] for i in range(2))
            image = np.roll(cv2.addWeighted(a, 1 - share, b, share, 0), index * 3, axis=1)
            frame = av.VideoFrame.from_ndarray(np.asarray(image, np.uint8), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def timed(name: str, steps: Iterable[object]) -> Stage:
    """Exhaust `steps`, one per frame."""
    started, cpu = time.perf_counter(), time.process_time()
    count = sum(1 for _ in steps)
    wall_ms = (time.perf_counter() - started) / count * 1e3
    return Stage(name, wall_ms, (time.process_time() - cpu) / count * 1e3)


def stages_alone(clip: Path, folder: Path, new: Callable[[Size], StandIn]) -> list[Stage]:
    """Each thread's work, one after the other; frames are kept by the hundred only."""
    with Segmenter(new) as segmenter:
        source = open_source(str(clip))
        assert source.size is not None
        segmenter.open(source.size)
        stages = [timed("decode", source)]
        source.close()
        source = open_source(str(clip), SourceOptions(limit=100))
        frames = list(source)
        stages.append(timed("prepare", map(segmenter.prepare, frames)))
        prepared = [segmenter.prepare(frame) for frame in frames]
        stages.append(timed("engine", map(segmenter.infer, prepared)))
        inferred = [segmenter.infer(one) for one in prepared]
        stages.append(timed("finish", map(segmenter.finish, inferred)))
        results = [segmenter.finish(one) for one in inferred]
        sinks = open_sinks(str(folder / "alone.mp4"), ["overlay"], source, CAMVID, overwrite=True)

        def write() -> Iterable[None]:
            for result in results:
                sinks[0].write(result)
                yield
            sinks[0].close()

        stages.append(timed("write", write()))
        source.close()
    return stages


def threads_of(stages: list[Stage]) -> dict[str, float]:
    """Wall milliseconds per frame of each of the pipeline's three threads."""
    wall = {stage.name: stage.wall_ms for stage in stages}
    return {
        "reader": wall["decode"] + wall["prepare"],
        "engine": wall["engine"],
        "writer": wall["finish"] + wall["write"],
    }


def end_to_end(clip: Path, folder: Path, new: Callable[[Size], StandIn]) -> tuple[float, float]:
    """Frames per second, and cores that this process kept busy meanwhile."""
    with Segmenter(new) as segmenter:
        source = open_source(str(clip))
        sinks = open_sinks(str(folder / "whole.mp4"), ["overlay"], source, CAMVID, overwrite=True)
        cpu_s = time.process_time()
        summary = run_pipeline(source, segmenter, sinks)
        return summary.fps, (time.process_time() - cpu_s) / summary.seconds


def measure(engine: str, clip: Path, folder: Path, engine_ms: float) -> Rate:
    def new(source: Size) -> StandIn:
        size = Size(TRAIN_SIZE.height, round(TRAIN_SIZE.height * source.width / source.height))
        busy, asleep = (engine_ms, 0.0) if engine == "busy" else (0.0, engine_ms)
        return StandIn(Size(size.height, size.width // 8 * 8), busy, asleep)

    stages = stages_alone(clip, folder, new)
    threads = threads_of(stages)
    slowest = max(threads, key=lambda name: threads[name])
    cores = len(os.sched_getaffinity(0))
    cores_fps = cores * 1e3 / sum(stage.cpu_ms for stage in stages)
    bound_fps, bound_by = 1e3 / threads[slowest], f"slowest thread: {slowest}"
    if engine == "busy" and cores_fps < bound_fps:
        bound_fps, bound_by = cores_fps, f"{cores} cores"
    reached_fps, cores_busy = end_to_end(clip, folder, new)
    return Rate(engine, stages, reached_fps, bound_fps, bound_by, cores_fps, cores_busy)


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def memory_growth(folder: Path, size: Size, frames: int) -> dict[str, float]:
    """Resident memory after `frames` frames and after ten times as many, MiB."""
    clip = folder / "long.mp4"
    write_clip(clip, size, 10 * frames)
    seen: dict[int, float] = {}

    def look(progress: Progress) -> None:
        if progress.frames % frames == 0:
            seen[progress.frames] = resident_mib()

    with Segmenter(lambda _: StandIn(Size(360, 640))) as segmenter:
        source = open_source(str(clip))
        sinks = open_sinks(str(folder / "x"), ["overlay", "stats"], source, CAMVID)
        run_pipeline(source, segmenter, sinks, on_frame=look)
    return {
        "frames": frames,
        "resident_mib": seen[frames],
        "resident_after_10x_mib": seen[10 * frames],
        "growth_mib": seen[10 * frames] - seen[frames],
    }


def show(rate: Rate) -> None:
    for stage in rate.stages:
        print(f"  {stage.name:8} {stage.wall_ms:8.2f} ms wall {stage.cpu_ms:8.2f} ms CPU, alone")
    print(
        f"{rate.engine}: {rate.end_to_end_fps:.1f} FPS end to end, bound {rate.bound_fps:.1f} FPS "
        f"({rate.bound_by}): {rate.share:.3f} of it (goal {GOAL}); all cores at work would give "
        f"{rate.cores_fps:.1f} FPS, {rate.cores_busy:.2f} were\n"
    )


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clip", nargs="?", type=Path, help="a video; without it one is rendered")
    parser.add_argument("--size", type=Size.parse, default=Size(720, 1280), metavar="HxW")
    parser.add_argument("--frames", type=int, default=300, help="frames of the rendered clip")
    parser.add_argument("--busy-ms", type=float, default=25.0, help="work of the busy engine")
    parser.add_argument("--sleep-ms", type=float, default=20.0, help="wait of the sleeping one")
    parser.add_argument("--repeats", type=int, default=3, help="the median of so many counts")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of rate")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser.parse_args()


def main() -> int:
    arguments = parsed_arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.memory:
            growth = memory_growth(folder, arguments.size, arguments.frames)
            record: object = growth
            passed = growth["growth_mib"] <= MEMORY_GOAL_MIB
            print(json.dumps(growth), f"(goal: growth <= {MEMORY_GOAL_MIB:.0f} MiB)")
        else:
            clip = arguments.clip or folder / "clip.mp4"
            if arguments.clip is None:
                write_clip(clip, arguments.size, arguments.frames)
            rates = []
            for engine, cost in (("busy", arguments.busy_ms), ("sleeping", arguments.sleep_ms)):
                tries = [measure(engine, clip, folder, cost) for _ in range(arguments.repeats)]
                rates.append(sorted(tries, key=lambda rate: rate.share)[len(tries) // 2])
                show(rates[-1])
            record = [{**asdict(rate), "share": rate.share} for rate in rates]
            passed = all(rate.share >= GOAL for rate in rates)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if passed else PerformanceError.exit_code


if __name__ == "__main__":
    sys.exit(main())
