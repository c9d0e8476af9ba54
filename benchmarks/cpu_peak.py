"""What the arithmetic units of this CPU can do at most, in GOP/s (a multiply-add counts as two).

    python benchmarks/cpu_peak.py [--threads 2] [--tries 200]

Needs a C++ compiler (c++ or $CXX). The best of many short tries counts, so that other programs
matter little; with two threads both cores must be free at once for a millisecond.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("cpu_peak.cpp")
TRIES: Final = 200


def peaks_gops(threads: int = 1, tries: int = TRIES) -> Mapping[str, float]:
    """Compile and run the loops.

    Args:
        threads: that compute at the same time.
        tries: the best of so many counts.

    Returns:
        "precision/instruction" -> 1e9 operations per second over all threads; what this CPU lacks
        is missing.

    Raises:
        RuntimeError: there is no compiler, or it fails.
    """
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        raise RuntimeError("no C++ compiler was found; install g++, or name one in $CXX")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "cpu_peak"
        command = [compiler, "-O2", "-std=c++17", "-pthread", str(SOURCE), "-o", str(program)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            raise RuntimeError(f"{compiler} failed:\n{built.stderr}")
        command = [str(program), str(threads), str(tries)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def best_of(peaks: Mapping[str, float], precision: str) -> float | None:
    """The highest peak of a precision; None where the CPU has no instruction for it."""
    values = [gops for name, gops in peaks.items() if name.split("/")[0] == precision]
    return max(values, default=None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tries", type=int, default=TRIES)
    given = parser.parse_args(arguments)
    try:
        peaks = peaks_gops(given.threads, given.tries)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    for name, gops in peaks.items():
        print(f"{name:28s} {gops:8.1f} GOP/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
