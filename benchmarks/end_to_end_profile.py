"""Where the CPU time of a video goes: decode, fit, engine, map back, count, overlay, convert, encode.

    python benchmarks/end_to_end_profile.py [CLIP ...] [--sizes HxW,...] [--engine E] [--json FILE]

CPU milliseconds of the whole process per frame of every stage, by two routes in one run, turn by
turn: `now` as the package does it, and `before` as it did before the stages around the engine were
made faster (OpenCV overlays in new arrays, one-step mapping back, libx264 veryfast, helper threads
of OpenCV and swscale). Each stage counts its fastest round, so the table holds on a busy machine.
Then, for each clip, what the H.264 settings and thread counts cost and give, and the rate end to
end (decoded clip in, H.264 overlay out), which needs an idle machine.

Without CLIP two streets are rendered, 720x1280 and 1080x1920. The engine size
`default` follows from the clip.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

from earlier_pipeline import ROUTES
from profile_stages import SETTINGS, Clip, Work, end_to_end, least, threads_table

import fasterseg
from fasterseg import native
from fasterseg.bench.device import detect
from fasterseg.bench.records import current_commit, now
from fasterseg.cache import write_atomic
from fasterseg.runtime.model import DEFAULT_MODEL
from fasterseg.stream.render import render_clip
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sources import open_source
from fasterseg.types import Size

SCHEMA: Final = 1
RENDERED: Final = (Size(720, 1280), Size(1080, 1920))
DEFAULT_SIZE: Final = Size(0, 0)


def profile(clip: Clip, size: Size, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything about one clip at one engine size."""

    def load(threads: int | None) -> Segmenter:
        return fasterseg.load(
            arguments.model,
            arguments.engine,
            precision=arguments.precision,
            size=None if size == DEFAULT_SIZE else size,
            threads=threads,
        )

    with load(1) as segmenter:
        work = Work(clip, segmenter)
        engine = segmenter.open(clip.size)
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in ROUTES}
        for _ in range(arguments.rounds):
            for name in ROUTES:
                rounds[name].append(work.stages(name))
        stages = {name: least(rounds[name]) for name in ROUTES}
        found: dict[str, Any] = {
            "clip": clip.path.name,
            "clip_size": str(clip.size),
            "frames": clip.frames,
            "engine": engine.backend,
            "precision": engine.spec.precision,
            "tail": engine.tail,
            "engine_size": str(engine.spec.size),
            "engine_ms": work.engine_ms,
            "stages_ms": stages,
            "without_engine_ms": {name: sum(stages[name].values()) for name in ROUTES},
        }
        if arguments.settings:
            found["h264"] = {
                name: least_cpu(partial(work.encode, encoding), arguments.rounds)
                for name, encoding in SETTINGS.items()
            }
            found["threads_ms"] = threads_table(work, arguments.rounds)
    with load(arguments.threads) as segmenter:
        segmenter.open(clip.size)
        found["end_to_end"] = {name: end_to_end(clip, segmenter, name) for name in ROUTES}
    return found


def least_cpu(measure: Callable[[], dict[str, float]], rounds: int) -> dict[str, float]:
    """The cheapest of several rounds."""
    return min((measure() for _ in range(rounds)), key=lambda one: one["cpu_ms"])


def show(found: dict[str, Any]) -> None:
    """One profile as tables."""
    print(
        f"\n{found['clip']} {found['clip_size']}, {found['engine']} {found['precision']} "
        f"{found['engine_size']}, {found['frames']} frames; CPU ms per frame"
    )
    print(f"  {'stage':10}" + "".join(f"{name:>9}" for name in ROUTES))
    rows = {
        name: [found["stages_ms"][r][name] for r in ROUTES] for name in found["stages_ms"]["now"]
    }
    rows["engine"] = [found["engine_ms"]] * 2
    rows["all"] = [sum(values[i] for values in rows.values()) for i in range(2)]
    for name, values in rows.items():
        print(f"  {name:10}" + "".join(f"{value:9.2f}" for value in values))
    for name, one in found.get("h264", {}).items():
        print(
            f"  h264 {name:18} {one['cpu_ms']:7.2f} ms {one['kb_per_frame']:7.1f} kB a frame "
            f"{one['psnr_db']:6.2f} dB SSIM {one['ssim']:.4f}"
        )
    for name, value in found.get("threads_ms", {}).items():
        print(f"  {name:52} {value:7.2f} ms")
    for name, one in found["end_to_end"].items():
        print(f"  end to end {name:7} {one['fps']:6.1f} FPS, {one['cpu_ms']:7.2f} CPU ms per frame")


def clip_of(path: Path, frames: int) -> Clip:
    """A clip, as far as it is used."""
    with closing(open_source(str(path))) as source:
        assert source.size is not None
        count = source.frame_count or frames
        return Clip(path, source.size, min(frames, count))


def parsed_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP")
    parser.add_argument("--sizes", default="360x640,512x1024,default", help="engine sizes, HxW,...")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, help="of the engine, end to end; default: all cores")
    parser.add_argument("--frames", type=int, default=30, help="of every clip, from its beginning")
    parser.add_argument("--rounds", type=int, default=3, help="the least of so many counts")
    parser.add_argument(
        "--no-settings",
        dest="settings",
        action="store_false",
        help="routes only: no H.264 settings",
    )
    parser.add_argument("--json", type=Path, help="write the record there")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Profile every clip at every size."""
    arguments = parsed_arguments(argv)
    profiles = []
    with tempfile.TemporaryDirectory() as folder:
        for path in arguments.clips or rendered(Path(folder), arguments.frames):
            clip = clip_of(path, arguments.frames)
            for text in arguments.sizes.split(","):
                size = DEFAULT_SIZE if text == "default" else Size.parse(text)
                profiles.append(profile(clip, size, arguments))
                show(profiles[-1])
    kernels = native.info()
    record = {
        "schema": SCHEMA,
        "created": now(),
        "commit": current_commit(),
        "device": asdict(detect()),
        "native": kernels.isa if kernels else None,
        "profiles": profiles,
    }
    if arguments.json is not None:
        write_atomic(arguments.json, (json.dumps(record, indent=1) + "\n").encode())
    return 0


def rendered(folder: Path, frames: int) -> Iterator[Path]:
    """A street in every size."""
    for size in RENDERED:
        path = folder / f"street-{size}.mp4"
        render_clip(path, 3, frames, size, 30.0)
        yield path


if __name__ == "__main__":
    sys.exit(main())
