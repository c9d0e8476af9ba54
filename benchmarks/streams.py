"""Several streams on one engine, beside a process for each of them.

    python benchmarks/streams.py [--clip CLIP] [--streams 1,4,16] [-o record.json]

Two kinds of input, both through the sources of `fasterseg-infer`: `cameras` are MPEG-TS over HTTP
from this machine at 30 frames a second, which drop what comes too fast; `files` are the clip read
again and again, as fast as it goes. `shared` is what `--also` does: one process, one engine.
`processes` is a program for each input, at most `--processes` of them. Results go to a sink that
only notes how old each frame's picture was when its result was there.

Every case runs once per round, all begin when the last of their processes is ready, and the
middle round counts; ratios are of cases of one round, which share its weather. Memory is the
processes' proportional set size just before the end: pages that several processes share count
once. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from soak_parts import Camera
from soak_sender import prepare
from streams_part import Job

from fasterseg.bench.device import detect
from fasterseg.bench.records import current_commit, now
from fasterseg.cache import write_atomic
from fasterseg.stream.render import render_clip
from fasterseg.stream.sources import open_source
from fasterseg.types import LatencyStats, Size

SCHEMA: Final = 1
PART: Final = Path(__file__).with_name("streams_part.py")
FPS: Final = 30.0
CLIP_SIZE: Final = Size(360, 640)
CLIP_FRAMES: Final = 150
SEED: Final = 3
MOST_SENT: Final = 300
"""Frames of the clip that a camera sends, again and again."""
BEGIN_S: Final = 300.0
"""How long a process may take to choose and open its engine."""


@dataclass(frozen=True)
class Case:
    """What is measured: `source` is cameras or files, `way` shared or processes."""

    source: str
    way: str
    streams: int


@dataclass(frozen=True)
class Result:
    """One case in one round, over all of its processes.

    Attributes:
        fps: frames per second of each stream.
        dropped: frames that came faster than they were taken, of all streams.
        staleness_ms: age of each frame's picture when its result was there; empty for files.
        cpu_ms: CPU time per frame, of everything in these processes.
        memory_mib: see the module; None where the system does not tell.
    """

    fps: tuple[float, ...]
    dropped: int
    staleness_ms: tuple[float, ...]
    cpu_ms: float
    memory_mib: float | None

    @property
    def all_fps(self) -> float:
        """Frames per second of all streams together."""
        return sum(self.fps)


def measure(case: Case, uri: str, seconds: float, request: dict[str, Any]) -> Result:
    """One case, in processes of its own that begin together.

    Raises:
        RuntimeError: one of them failed.
    """
    groups = [case.streams] if case.way == "shared" else [1] * case.streams
    loop = 0 if case.source == "files" else 1
    with ExitStack() as stack:
        children = [
            stack.enter_context(_child(Job((uri,) * count, case.way, loop, seconds, request)))
            for count in groups
        ]
        for child in children:
            assert child.stdout is not None
            if child.stdout.readline() != "ready\n":
                raise RuntimeError(f"{case} does not begin; see above")
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        done = [json.loads(child.communicate(timeout=seconds + BEGIN_S)[0]) for child in children]
    memory = [one["memory_mib"] for one in done]
    frames = sum(sum(one["frames"]) for one in done)
    return Result(
        fps=tuple(
            count / seconds_
            for one in done
            for count, seconds_ in zip(one["frames"], one["seconds"], strict=True)
        ),
        dropped=sum(one["dropped"] for one in done),
        staleness_ms=tuple(age * 1e3 for one in done for age in one["staleness_s"]),
        cpu_ms=sum(one["cpu_s"] for one in done) / max(1, frames) * 1e3,
        memory_mib=None if None in memory else sum(memory),
    )


@contextmanager
def _child(job: Job) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(PART), json.dumps(asdict(job))],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def cases_of(streams: Sequence[int], most_processes: int) -> list[Case]:
    """In the order of a round: what is compared stands side by side."""
    return [
        Case(source, way, count)
        for source in ("cameras", "files")
        for count in streams
        for way in ("shared", "processes")
        if way == "shared" or count <= most_processes
    ]


def row_of(case: Case, results: Sequence[Result]) -> dict[str, Any]:
    """A case over all rounds: the round of middle rate, and staleness of all of them."""
    middle = sorted(results, key=lambda result: result.all_fps)[(len(results) - 1) // 2]
    ages = [age for result in results for age in result.staleness_ms]
    stale = LatencyStats.of(ages).to_json() | {"max_ms": round(max(ages), 4)} if ages else None
    known = [result.memory_mib for result in results if result.memory_mib is not None]
    return {
        **asdict(case),
        "fps": round(middle.all_fps, 3),
        "fps_of_rounds": [round(result.all_fps, 3) for result in results],
        "fps_by_stream": [round(fps, 3) for fps in middle.fps],
        "dropped": middle.dropped,
        "staleness": stale,
        "cpu_ms_per_frame": round(statistics.median(result.cpu_ms for result in results), 3),
        "memory_mib": round(max(known), 1) if known else None,
    }


def ratios_of(rounds: dict[Case, list[Result]]) -> list[dict[str, Any]]:
    """Shared over processes, round by round."""
    found = []
    for case, shared in rounds.items():
        apart = rounds.get(replace(case, way="processes"))
        if case.way != "shared" or apart is None:
            continue
        pairs = list(zip(shared, apart, strict=True))
        entry: dict[str, Any] = {"source": case.source, "streams": case.streams}
        entry["fps"] = _middle(one.all_fps / max(1e-9, other.all_fps) for one, other in pairs)
        entry["cpu_ms_per_frame"] = _middle(one.cpu_ms / other.cpu_ms for one, other in pairs)
        memory = [(one.memory_mib, other.memory_mib) for one, other in pairs]
        entry["memory"] = _middle(one / other for one, other in memory if one and other)
        found.append(entry)
    return found


def _middle(ratios: Iterable[float]) -> float | None:
    values = list(ratios)
    return round(statistics.median(values), 3) if values else None


def show(rows: Sequence[dict[str, Any]], ratios: Sequence[dict[str, Any]]) -> None:
    """Print a table for the README, and the ratios."""
    print(
        "| input | streams | run as | FPS, all | each | dropped | staleness p50 / p95 / max, ms "
        "| CPU ms a frame | memory, MiB |"
    )
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        each, stale, memory = row["fps_by_stream"], row["staleness"], row["memory_mib"]
        run_as = "one process" if row["way"] == "shared" else "a process each"
        spread = f"{min(each):.1f}" if len(each) == 1 else f"{min(each):.1f} to {max(each):.1f}"
        ages = (
            f"{stale['p50_ms']:.0f} / {stale['p95_ms']:.0f} / {stale['max_ms']:.0f}"
            if stale
            else "-"
        )
        print(
            f"| {row['source']} | {row['streams']} | {run_as} | {row['fps']:.1f} | {spread} | "
            f"{row['dropped']} | {ages} | {row['cpu_ms_per_frame']:.1f} | "
            f"{'-' if memory is None else f'{memory:.0f}'} |"
        )
    print()
    for ratio in ratios:
        print(
            f"{ratio['source']}, {ratio['streams']} streams, one process over a process each: "
            f"FPS x{ratio['fps']}, CPU time a frame x{ratio['cpu_ms_per_frame']}, memory "
            f"x{ratio['memory']}"
        )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clip", type=Path, help="a video; without it a street is rendered")
    parser.add_argument(
        "--clip-size", type=Size.parse, metavar="HxW", help="of the street, and of what is sent"
    )
    parser.add_argument("--streams", default="1,4,16", help="numbers of streams")
    parser.add_argument("--processes", type=int, default=4, help="a process each up to so many")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each case and round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", default="fasterseg-camvid")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--size", help="engine size HxW; default: by the clip's aspect")
    parser.add_argument("-o", "--output", type=Path, help="write the record here")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all cases and write the record."""
    given = parsed(arguments)
    streams = [int(part) for part in given.streams.split(",")]
    request = {
        name: getattr(given, name) for name in ("model", "engine", "device", "threads", "size")
    }
    cases = cases_of(streams, given.processes)
    rounds: dict[Case, list[Result]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        clip = given.clip or Path(name) / "street.mp4"
        if given.clip is None:
            render_clip(clip, SEED, CLIP_FRAMES, given.clip_size or CLIP_SIZE, FPS)
        with closing(open_source(str(clip))) as source:
            size = given.clip_size or source.size or CLIP_SIZE
        sent = Path(name) / "clip.ts"
        prepare(clip, sent, size, MOST_SENT)
        camera = Camera(sent, FPS)
        camera.start()
        stack.callback(camera.stop)
        uris = {"cameras": camera.url, "files": str(clip)}
        # Not measured: auto's choice and the engine's build are for all that follow.
        measure(Case("files", "shared", 1), uris["files"], 0.5, request)
        for number in range(given.rounds):
            for case in cases:
                result = measure(case, uris[case.source], given.seconds, request)
                rounds[case].append(result)
                print(f"round {number + 1}: {case}: {result.all_fps:.1f} FPS", file=sys.stderr)
    rows = [row_of(case, results) for case, results in rounds.items()]
    ratios = ratios_of(rounds)
    show(rows, ratios)
    if given.output:
        record = {
            "schema": SCHEMA,
            "created": now(),
            "commit": current_commit(),
            "device": detect().to_json(),
            "clip": given.clip.name if given.clip else f"street {SEED}",
            "clip_size": str(size),
            "camera_fps": FPS,
            "seconds": given.seconds,
            "request": request,
            "rows": rows,
            "ratios": ratios,
        }
        write_atomic(given.output, (json.dumps(record, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
