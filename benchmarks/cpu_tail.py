"""CPU time of our CPU kernels: upsampling with argmax, blending, normalisation.

    python benchmarks/cpu_tail.py [--threads 1] [--classes 19] [-o record.json]

Each instruction set that this CPU has, at three sizes; the least CPU time of many runs, which
other programs hardly change.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from fasterseg import native
from fasterseg.bench.device import detect
from fasterseg.bench.records import current_commit, now
from fasterseg.cache import write_atomic
from fasterseg.preprocess import MEAN, STD
from fasterseg.types import Size

SIZES: Final = ("512x1024", "768x1536", "1024x2048")
INSTRUCTION_SETS: Final = ("avx512", "avx2", "neon", "baseline")
FORCE: Final = "FASTERSEG_NATIVE_ISA"
RUNS: Final = 60
GOAL_MS: Final = 2.0
"""For upsampling with argmax at 512x1024 on one core."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Time everything; exit code 6 where the goal is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("-o", "--output", type=Path, help="write the record here")
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    native.require()
    if given.only:
        print(json.dumps(_times(given.classes, given.threads)))
        return 0
    found = {isa: times for isa in INSTRUCTION_SETS if (times := _forced(isa, given))}
    print(
        f"{'':10s} {'size':10s} upsample_argmax  blend  normalize_bgr   CPU ms, {given.threads} thread(s)"
    )
    for isa, sizes in found.items():
        for size, times in sizes.items():
            row = "  ".join(f"{times[name]:8.2f}" for name in times)
            print(f"{isa:10s} {size:10s} {row}")
    if given.output:
        record = {
            "made": now(),
            "commit": current_commit(),
            "device": detect().to_json(),
            "classes": given.classes,
            "threads": given.threads,
            "cpu_ms": found,
        }
        write_atomic(given.output, (json.dumps(record, indent=1) + "\n").encode())
    best = next(iter(found.values()))["512x1024"]["upsample_argmax"]
    return 0 if best <= GOAL_MS else 6


def _forced(isa: str, given: argparse.Namespace) -> dict[str, dict[str, float]] | None:
    """The times with an instruction set, in a process of its own; None where the CPU lacks it."""
    command = [sys.executable, __file__, "--only", "--threads", str(given.threads)]
    ran = subprocess.run(
        [*command, "--classes", str(given.classes)],
        env={**os.environ, FORCE: isa},
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(ran.stdout) if ran.returncode == 0 else None


def _times(classes: int, threads: int) -> dict[str, dict[str, float]]:
    random = np.random.default_rng(0)
    found: dict[str, dict[str, float]] = {}
    for text in SIZES:
        size = Size.parse(text)
        logits = random.standard_normal((1, classes, size.height // 8, size.width // 8), np.float32)
        frames = random.integers(0, 256, (1, *size, 3), np.uint8)
        labels = np.empty((1, *size), np.uint8)
        planes = np.empty((1, 3, *size), np.float32)
        palette = random.integers(0, 256, (256, 3), np.uint8)
        out = np.empty_like(frames[0])
        runs = {
            "upsample_argmax": partial(native.upsample_argmax, logits, labels, threads=threads),
            "blend": partial(
                native.blend, frames[0], labels[0], palette, 0.5, out, threads=threads
            ),
            "normalize_bgr": partial(
                native.normalize_bgr, frames, MEAN, STD, planes, threads=threads
            ),
        }
        found[text] = {name: round(_least_ms(run), 3) for name, run in runs.items()}
    return found


def _least_ms(run: Callable[[], Any]) -> float:
    taken = []
    for _ in range(RUNS):
        begin = time.process_time_ns()
        run()
        taken.append(time.process_time_ns() - begin)
    return min(taken) / 1e6


if __name__ == "__main__":
    sys.exit(main())
