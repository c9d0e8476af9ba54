"""A box left alone: `fasterseg-infer` at full rate for so long, from a camera that drops out.

    python benchmarks/soak.py --minutes 30 -o record.json [--clip FILE]

A child serves a live stream on 127.0.0.1 (MPEG-TS over HTTP) faster than the engine can take it, so
that the engine is always busy and frames are dropped; it is killed and started again every five
minutes (four times in a shorter run). The program writes an overlay video, statistics and JSON
lines (into a pipe that is read here: their number has no limit) and shows a live page, with one
viewer that takes every picture and one that never reads; /metrics and /snapshot.png are asked for
with every sample. Frames are small, so that very many of them pass and the video stays small.

Every five seconds memory, file descriptors by kind, threads and CPU time are read from /proc. At
the end comes SIGINT, and then the checks: exit code, files, the account of frames, memory,
descriptors and threads flat after the first third, no process left. Exit code 1 where one fails.
Records of a device are kept in `results/<device>/soak/`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import av
from soak_judge import Check, account_checks, is_judged, output_checks, series_checks, thinned
from soak_parts import FACTS, LINES, STATS, VIDEO, Camera, Program
from soak_sender import prepare
from soak_watch import (
    Lines,
    Reading,
    Staring,
    asked,
    get,
    is_png,
    sample_of,
    session_members,
)

from fasterseg.bench.device import detect
from fasterseg.bench.records import current_commit, now
from fasterseg.cache import write_atomic
from fasterseg.errors import FastersegError
from fasterseg.interrupts import INTERRUPTED
from fasterseg.stream.render import render_clip
from fasterseg.types import Size

SCHEMA: Final = 1
FRAME: Final = Size(96, 160)
CLIP_FRAMES: Final = 1000
SAMPLE_S: Final = 5.0
VIEWERS: Final = 2
OUTAGE_EVERY_S: Final = 300.0
MOST_POINTS: Final = 400
TOLD: Final = ("pss_mib", "fps", "staleness_s")
"""Series whose trend is shown though it may be anything."""


class Soak:
    """One run, and what was seen of it."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.series: dict[str, list[Any]] = {"t_s": []}
        self.polls = self.snapshots = self.metrics = 0
        self._folder = folder
        self._arguments = arguments
        self._seconds = arguments.minutes * 60

    def run(self) -> dict[str, Any]:
        """Everything; the record."""
        folder, given = self._folder, self._arguments
        frames = prepare(given.clip or self._rendered(), folder / "clip.ts", FRAME, CLIP_FRAMES)
        camera = Camera(folder / "clip.ts", given.fps)
        lines = Lines(folder / LINES)
        os.mkfifo(folder / LINES)
        with ExitStack() as stack:
            stack.callback(camera.stop)
            camera.start()
            lines.start()
            options = ("--size", str(given.size), "--engine", given.engine)
            program = Program(camera.url, folder, options)
            stack.callback(program.kill)
            url = program.page()
            reading, staring = Reading(url), Staring(url)
            stack.callback(staring.close)
            reading.start()
            staring.again()
            self._watch(program, camera, staring, url)
            # Those who look stay to the end: it must not wait for them.
            failures = reading.failures
            reading.leave()
            began_s = time.monotonic()
            code = program.interrupt()
            ended_s = time.monotonic() - began_s
            members = session_members(program.id)
        lines.join(10)
        checks = [
            Check("exit code is that of an interrupted run", code == INTERRUPTED, str(code)),
            Check("no process is left", not members, f"{len(members)} of its session"),
            *self._page_checks(reading, failures, staring),
            *self._file_checks(lines, camera.kills),
        ]
        return {
            **self._about(program, frames),
            "end_s": round(ended_s, 2),
            "viewers": {"pictures": reading.pictures, "unread_opened": staring.opened},
            **self._judged(checks),
            "series": {n: thinned(values, MOST_POINTS) for n, values in self.series.items()},
        }

    def _about(self, program: Program, frames: int) -> dict[str, Any]:
        given = self._arguments
        return {
            "schema": SCHEMA,
            "created": now(),
            "commit": current_commit(),
            "device": asdict(detect()),
            "minutes": given.minutes,
            "arguments": ["CAMERA", *program.arguments[1:]],
            "camera": {
                "fps": given.fps,
                "size": str(FRAME),
                "frames": frames,
                "clip": given.clip.name if given.clip else "rendered street",
            },
            "video_bytes": _size(self._folder / VIDEO),
            "facts": self._facts(),
            # A record is read elsewhere.
            "told": ends_of(program.told.replace(f"{self._folder}/", "").splitlines()),
        }

    def _judged(self, checks: list[Check]) -> dict[str, Any]:
        """All checks, and the trends behind those of the series."""
        told = {name: v for name, v in self.series.items() if is_judged(name) or name in TOLD}
        judged, trends = series_checks(self.series["t_s"], told)
        return {
            "checks": [asdict(check) for check in (*checks, *judged)],
            "trends": {n: {k: round(v, 3) for k, v in t.items()} for n, t in trends.items()},
        }

    def _rendered(self) -> Path:
        clip = self._folder / "street.mp4"
        # Slow, so that neighbouring frames differ as little as those of a fast camera.
        render_clip(clip, 7, CLIP_FRAMES, FRAME, 100.0)
        return clip

    def _watch(self, program: Program, camera: Camera, staring: Staring, url: str) -> None:
        """Sample until the time is over, or the program is."""
        every_s = min(OUTAGE_EVERY_S, self._seconds / 4)
        began_s = time.monotonic()
        next_outage_s, next_minute_s = every_s, 60.0
        while program.runs and (at_s := time.monotonic() - began_s) < self._seconds:
            if self._viewers(program, url, at_s) < VIEWERS:
                staring.again()
            if next_outage_s <= at_s < self._seconds - every_s / 2:
                next_outage_s += every_s
                camera.drop_out()
            if at_s >= next_minute_s:
                next_minute_s += 60.0
                print(self._line(), file=sys.stderr, flush=True)
            due_s = SAMPLE_S * (1 + at_s // SAMPLE_S)
            time.sleep(max(0.0, began_s + due_s - time.monotonic()))

    def _viewers(self, program: Program, url: str, at_s: float) -> float:
        """Keep a sample; how many viewers the page has, as far as it says."""
        try:
            seen = sample_of(program.id)
        except OSError:
            # It has just ended; why is in its exit code.
            return VIEWERS
        measured = asked(url)
        self.polls += 1
        self.metrics += bool(measured)
        self.snapshots += is_png(*get(url, "/snapshot.png"))
        values = {"t_s": at_s, **seen, **measured}
        count = len(self.series["t_s"])
        for name in {**self.series, **values}:
            column = self.series.setdefault(name, [None] * count)
            value = values.get(name)
            column.append(None if value is None else round(value, 4))
        return measured.get("viewers", VIEWERS)

    def _line(self) -> str:
        latest = {name: values[-1] for name, values in self.series.items()}
        shown = ("t_s", "frames", "fps", "dropped", "reconnects", "rss_mib", "threads")
        return ", ".join(f"{name} {latest.get(name)}" for name in shown)

    def _page_checks(self, reading: Reading, failures: int, staring: Staring) -> list[Check]:
        polls = f"{{}} of {self.polls} polls"
        looked = reading.pictures > 0 and failures == 0
        return [
            Check("/metrics always answered", 0 < self.metrics == self.polls,
                  polls.format(self.metrics)),
            Check("/snapshot.png was always a picture", 0 < self.snapshots == self.polls,
                  polls.format(self.snapshots)),
            Check("the viewer that reads was served", looked,
                  f"{reading.pictures} pictures, {failures} connections lost"),
            Check("one that never reads was there", staring.opened > 0,
                  f"{staring.opened} connections"),
        ]  # fmt: skip

    def _file_checks(self, lines: Lines, kills: int) -> list[Check]:
        folder = self._folder
        expected = {VIDEO, LINES, STATS, FACTS, "clip.ts", "street.mp4", "cache", "stderr.txt"}
        surplus = sorted({path.name for path in folder.iterdir()} - expected)
        found = [
            Check("no other file is left", not surplus, ", ".join(surplus) or "none"),
            Check("every line is whole and in order", not lines.faults, "; ".join(lines.faults)),
        ]
        facts = self._facts()
        if facts is None:
            return [*found, Check("the account is told", False, "no facts.json")]
        stats = json.loads((folder / STATS).read_text()) if (folder / STATS).exists() else {}
        held = {
            "video": frames_of(folder / VIDEO),
            "JSON lines": lines.count,
            "statistics": stats.get("frames"),
        }
        processed = facts["live"]["processed"]
        return [*found, *account_checks(facts, kills), *output_checks(processed, held)]

    def _facts(self) -> dict[str, Any] | None:
        path = self._folder / FACTS
        return json.loads(path.read_text()) if path.exists() else None


def frames_of(video: Path) -> int | None:
    """Frames that can be decoded; None where it does not play."""
    try:
        with av.open(str(video)) as container:
            container.streams.video[0].thread_type = "AUTO"
            return sum(1 for _ in container.decode(video=0))
    except (av.error.FFmpegError, IndexError):
        return None


def ends_of(lines: list[str], most: int = 40) -> list[str]:
    """The first and the last lines of many."""
    half = most // 2
    return lines if len(lines) <= most else [*lines[:half], "...", *lines[-half:]]


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None


def show(record: dict[str, Any]) -> None:
    """The record as tables."""
    facts = record["facts"]
    if facts is not None:
        live = facts["live"]
        print(
            f"{facts['frames']} frames in {facts['seconds'] / 60:.1f} minutes: "
            f"{facts['end_to_end_fps']:.1f} FPS, staleness at most "
            f"{live['max_staleness_s'] * 1e3:.0f} ms"
        )
        print(next((line for line in record["told"] if line.startswith("engine:")), ""))
    print(f"\n{'':22} {'first third':>12} {'last third':>12} {'per hour':>12}   95 % interval")
    for name, one in record["trends"].items():
        print(
            f"{name:22} {one['first']:12.2f} {one['last']:12.2f} {one['per_hour']:+12.2f}   "
            f"{one['low']:+.2f} to {one['high']:+.2f}"
        )
    print()
    for check in record["checks"]:
        print(f"{'ok  ' if check['passed'] else 'FAIL'} {check['name']}: {check['found']}")


def parsed_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("-o", "--output", type=Path, help="write the record there")
    parser.add_argument(
        "--clip", type=Path, help="what the camera shows; default: a rendered street"
    )
    parser.add_argument("--fps", type=float, default=500.0, help="frames a second that it sends")
    parser.add_argument("--size", type=Size.parse, default=Size(64, 96), metavar="HxW")
    parser.add_argument("--engine", default="auto")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parsed_arguments(argv)
    folder = Path(tempfile.mkdtemp(prefix="fasterseg-soak-"))
    try:
        record = Soak(folder, arguments).run()
        if arguments.output is not None:
            write_atomic(arguments.output, (json.dumps(record, indent=1) + "\n").encode())
    except (RuntimeError, FastersegError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder)
    show(record)
    return 0 if all(check["passed"] for check in record["checks"]) else 1


if __name__ == "__main__":
    sys.exit(main())
