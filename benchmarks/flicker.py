"""What `--smooth` does: flicker, mIoU, delay and time, without it and with it.

    python benchmarks/flicker.py --streets 3,7 --listed FRAMES.txt CLIP... [-o record.json]
    python benchmarks/flicker.py --streets 3 --variant follow=none --variant frames=3,tolerance=2
    python benchmarks/flicker.py --standing 3 --noise 12 --size 512x1024

The engine runs once over each clip; every variant then smooths the very same class maps. Rendered
streets (and one picture of them with fresh noise, as a standing camera sees it) have exact labels
of every frame, FRAMES.txt lists a picture and its class map on each line, videos have none.

flicker        share of compared pixels whose label changes although the picture does not; those
               counted by `fasterseg-infer --smooth`, motion followed as the variant does
compared       share of all pixels that could be compared
unexplained    share of pixels whose true class is that of the frame before and whose label is
               not: knows nothing of pictures and motion, needs labels of every frame
mIoU           of all frames; the interval of the difference is a bootstrap over blocks of 10
mended, spoilt share of pixels whose label is right only with smoothing, and only without it
delay          frames from the first right label without smoothing to that with it, where the true
               class changes and stays; mean, and the share that is still wrong 8 frames later
ms             CPU time of smoothing a frame, one thread

Exit code 5 where the default loses mIoU beyond its interval.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from flicker_variants import OPTIONS, variant
from numpy.typing import NDArray

import fasterseg
from fasterseg.bench.device import detect
from fasterseg.bench.records import current_commit, now
from fasterseg.cache import write_atomic
from fasterseg.errors import ParityError
from fasterseg.metrics import ConfusionMatrix
from fasterseg.stream.smoothing import Smoother, SmoothOptions
from fasterseg.stream.sources import open_source
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.stream.stages import Inferred
from fasterseg.streets import StreetScene
from fasterseg.types import Frame, Size

Array = NDArray[np.uint8]

FPS: Final = 15.0
HORIZON: Final = 8
"""Frames for which a true class has to stay, and in which it has to be found."""

BLOCK: Final = 10
RESAMPLES: Final = 400


@dataclass(frozen=True)
class Clip:
    """Frames, and the true class maps where they are known."""

    name: str
    frames: list[Frame]
    truths: list[Array] | None


@dataclass(frozen=True)
class Seen:
    """A clip and what the engine said about it; truths at the engine's size."""

    name: str
    inferred: list[Inferred]
    truths: list[Array] | None


def noisy(image: Array, sigma: float, seed: tuple[int, int]) -> Array:
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def street(seed: int, given: argparse.Namespace, *, standing: bool = False) -> Clip:
    """A drive through a rendered street, or one picture of it, with the noise of a sensor."""
    scene = StreetScene(seed, given.frame_size, FPS)
    frames, truths = [], []
    for index in range(given.skip, given.skip + given.limit):
        image, truth = scene.frame(given.skip if standing else index)
        frames.append(Frame(noisy(image, given.noise, (seed, index)), index, index / FPS))
        truths.append(truth)
    return Clip(f"{'standing' if standing else 'street'} {seed}", frames, truths)


def listed(path: Path, given: argparse.Namespace) -> Clip:
    """Pictures with class maps, by a text file of their paths."""
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    frames, truths = [], []
    for index, row in list(enumerate(rows))[given.skip : given.skip + given.limit]:
        image, truth = (path.parent / name for name in row[-2:])
        frames.append(Frame(_read(image, cv2.IMREAD_COLOR), index, index / FPS))
        truths.append(_read(truth, cv2.IMREAD_GRAYSCALE))
    return Clip(path.stem, frames, truths)


def video(uri: str, given: argparse.Namespace) -> Clip:
    source = open_source(uri, SourceOptions(limit=given.skip + given.limit))
    return Clip(source.stem, list(source)[given.skip :], None)


def clips(given: argparse.Namespace) -> Iterator[Clip]:
    yield from (street(seed, given) for seed in given.streets)
    yield from (street(seed, given, standing=True) for seed in given.standing)
    yield from (listed(path, given) for path in given.listed)
    yield from (video(uri, given) for uri in given.videos)


def _read(path: Path, flags: int) -> Array:
    image = cv2.imread(str(path), flags)
    if image is None:
        raise SystemExit(f"cannot read {path}")
    return np.asarray(image, np.uint8)


def see(clip: Clip, segmenter: fasterseg.Segmenter) -> Seen:
    """Run the engine over a clip."""
    segmenter.open(clip.frames[0].size)
    inferred = [segmenter.infer(segmenter.prepare(frame)) for frame in clip.frames]
    size = Size(*inferred[0].mask.shape)
    truths = clip.truths and [
        np.asarray(
            cv2.resize(t, (size.width, size.height), interpolation=cv2.INTER_NEAREST_EXACT),
            np.uint8,
        )
        for t in clip.truths
    ]
    return Seen(clip.name, inferred, truths)


def measured(seen: Seen, smoother: Smoother) -> dict[str, Any]:
    """Every figure of one variant on one clip."""
    results, ms = [], []
    for one in seen.inferred:
        started = time.thread_time()
        results.append(smoother.smooth(one))
        ms.append((time.thread_time() - started) * 1e3)
    row: dict[str, Any] = {"flicker": smoother.flicker.to_json()}
    # The first frame has nothing before it and costs next to nothing.
    row["cpu_ms"] = {"p50": float(np.median(ms[1:])), "p90": float(np.percentile(ms[1:], 90))}
    if seen.truths is not None:
        truths, raw = np.stack(seen.truths), np.stack([one.mask for one in seen.inferred])
        classes = len(seen.inferred[0].labels)
        row |= against_truth(truths, raw, np.stack(results), classes)
    return row


def against_truth(truth: Array, raw: Array, smooth: Array, classes: int) -> dict[str, Any]:
    """Figures that need labels of every frame; all arrays (frames, H, W)."""
    stays = (truth[1:] == truth[:-1]) & (truth[1:] < classes)
    known = truth < classes
    counts = {name: _counts(truth, maps, classes) for name, maps in _both(raw, smooth)}
    miou = {name: 100 * _miou(each.sum(0)) for name, each in counts.items()}
    return {
        "unexplained": {
            name: float((maps[1:] != maps[:-1])[stays].mean()) for name, maps in _both(raw, smooth)
        },
        "miou": {**miou, "difference": miou["with"] - miou["without"]},
        "miou_interval": _interval(counts["without"], counts["with"]),
        "mended": float(((smooth == truth) & (raw != truth))[known].mean()),
        "spoilt": float(((smooth != truth) & (raw == truth))[known].mean()),
        "delay": delay(truth, raw, smooth, classes),
    }


def _both(raw: Array, smooth: Array) -> tuple[tuple[str, Array], tuple[str, Array]]:
    return ("without", raw), ("with", smooth)


def _counts(truth: Array, maps: Array, classes: int) -> NDArray[np.int64]:
    """(frames, C, C) confusion counts."""
    each = []
    for one, other in zip(truth, maps, strict=True):
        matrix = ConfusionMatrix(classes)
        matrix.add(one, other)
        each.append(matrix.counts)
    return np.stack(each)


def _miou(counts: NDArray[np.int64]) -> float:
    return ConfusionMatrix.from_counts(counts).miou


def _interval(without: NDArray[np.int64], with_: NDArray[np.int64]) -> list[float]:
    """95 % interval of the difference in points; neighbouring frames are drawn together."""
    starts = range(0, len(without), BLOCK)
    blocks = [[each[at : at + BLOCK].sum(0) for at in starts] for each in (without, with_)]
    random = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        drawn = random.integers(0, len(starts), len(starts))
        before, after = (_miou(np.sum([each[i] for i in drawn], axis=0)) for each in blocks)
        found.append(100 * (after - before))
    return [float(np.percentile(found, share)) for share in (2.5, 97.5)]


def delay(truth: Array, raw: Array, smooth: Array, classes: int) -> dict[str, float | int]:
    """How much later a new true class is found."""
    later, lost = [0.0], 0
    events = 0
    for at in range(1, len(truth) - HORIZON + 1):
        new = (truth[at] != truth[at - 1]) & (truth[at] < classes)
        new &= (truth[at : at + HORIZON] == truth[at]).all(0)
        wanted = truth[at][new]
        first, second = (_first(maps[at : at + HORIZON, new] == wanted) for maps in (raw, smooth))
        found = first < HORIZON
        events += int(found.sum())
        lost += int((found & (second == HORIZON)).sum())
        both = found & (second < HORIZON)
        later.append(float((second - first)[both].sum()))
    reached = max(1, events - lost)
    return {"changes": events, "frames": sum(later) / reached, "lost": lost / max(1, events)}


def _first(right: NDArray[np.bool_]) -> NDArray[np.intp]:
    """First frame that is right, of (frames, n); their number where none is."""
    return np.where(right.any(0), right.argmax(0), len(right))


def show(clip: str, name: str, row: dict[str, Any]) -> None:
    """A line for people."""
    flicker = row["flicker"]
    rates = (
        "nothing compared"
        if flicker["without"] is None
        else f"{flicker['without']:6.2%} -> {flicker['with']:6.2%} of {flicker['compared']:4.0%}"
    )
    text = f"{clip[:24]:24} {name[:26]:26} flicker {rates}"
    if "miou" in row:
        low, high = row["miou_interval"]
        text += (
            f"  unexplained {row['unexplained']['without']:.2%} -> {row['unexplained']['with']:.2%}"
            f"  mIoU {row['miou']['without']:.2f} {row['miou']['difference']:+.2f} "
            f"({low:+.2f} to {high:+.2f})  "
            f"mended {row['mended']:.2%}, spoilt {row['spoilt']:.2%}  "
            f"delay {row['delay']['frames']:+.2f}, {row['delay']['lost']:.1%} lost"
        )
    print(f"{text}  {row['cpu_ms']['p50']:.1f} ms", flush=True)


def seeds(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="*", help="clips without labels")
    parser.add_argument("--streets", type=seeds, default=[], help="seeds of rendered drives")
    parser.add_argument("--standing", type=seeds, default=[], help="seeds of standing cameras")
    parser.add_argument("--listed", type=Path, nargs="*", default=[], help="pictures with labels")
    parser.add_argument("--variant", action="append", default=[], help=f"name=value of {OPTIONS}")
    parser.add_argument("--noise", type=float, default=6.0, help="of rendered streets, grey levels")
    parser.add_argument("--skip", type=int, default=0, help="frames of each clip left out first")
    parser.add_argument("--limit", type=int, default=60, help="frames of each clip")
    parser.add_argument("--frame-size", type=Size.parse, default=Size(360, 640), metavar="HxW")
    parser.add_argument("--size", help="engine size, HxW; default: by the frames")
    parser.add_argument("--model", default="fasterseg-camvid")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, help="write the record here")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; see above."""
    given = parsed(arguments)
    cv2.setNumThreads(1)
    rows: list[dict[str, Any]] = []
    with fasterseg.load(
        given.model, given.engine, size=given.size, threads=given.threads
    ) as segmenter:
        for clip in clips(given):
            seen = see(clip, segmenter)
            for name in ("", *given.variant):
                row = measured(seen, variant(name)())
                size = str(Size(*seen.inferred[0].mask.shape))
                facts = {"clip": clip.name, "frames": len(clip.frames), "engine_size": size}
                rows.append({**facts, "variant": name or "default", **row})
                show(clip.name, name or "default", row)
    if given.output is not None:
        write_atomic(given.output, (json.dumps(record(given, rows), indent=1) + "\n").encode())
    loses = [row for row in rows if row["variant"] == "default" and "miou" in row]
    return ParityError.exit_code if any(row["miou_interval"][1] < 0 for row in loses) else 0


def record(given: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "made": now(),
        "commit": current_commit(),
        "device": detect(["onnxruntime", "opencv-python-headless"]).to_json(),
        "model": given.model,
        "engine": given.engine,
        "noise": given.noise,
        "skip": given.skip,
        "default": asdict(SmoothOptions()),
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
