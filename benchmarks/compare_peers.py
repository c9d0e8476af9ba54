"""FasterSeg against STDC1-Seg and DDRNet-23-slim, in turn in one run, and what that says.

    python benchmarks/compare_peers.py [--save] [--protocol quick] [--size HxW ...]

The peers are written from their papers (`peers/`) with random weights: times hold, labels mean
nothing. All networks run in ONNX Runtime fp32 behind the same boundary. A network that is as
accurate at a smaller input may win although it is slower at the same one, so times are also put
beside the accuracy that each paper printed at the input it printed it for. Published frame rates
of other hardware are not used.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fasterseg.bench.cells import Cell
from fasterseg.bench.interleave import Ratio, ratio
from fasterseg.bench.records import BenchRecord

PEERS: Final = {"STDC1-Seg": "stdc", "DDRNet-23-slim": "ddrnet"}
"""Name -> script in `peers/`."""

SIZES: Final = ("512x1024", "768x1536", "1024x2048")
OURS: Final = "FasterSeg"


@dataclass(frozen=True)
class Published:
    """Accuracy on Cityscapes as its authors printed it.

    Attributes:
        name: in tables.
        network: FasterSeg or one of `PEERS`.
        size: of its input.
        val: mIoU on the validation images, percent.
        test: on the test images.
    """

    name: str
    network: str
    size: str
    val: float
    test: float


ACCURACIES: Final = (
    Published("FasterSeg", OURS, "1024x2048", 73.1, 71.5),
    Published("STDC1-Seg50", "STDC1-Seg", "512x1024", 72.2, 71.9),
    Published("STDC1-Seg75", "STDC1-Seg", "768x1536", 74.5, 75.3),
    Published("DDRNet-23-slim", "DDRNet-23-slim", "1024x2048", 77.8, 77.4),
)
"""At the inputs they were printed for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and say in words who wins what."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", action="append", metavar="HxW", help="give it again for more")
    parser.add_argument("--protocol", default="full", help="full, quick or row")
    parser.add_argument("--threads", type=int, help="CPU threads; default: all cores")
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results")
    parser.add_argument("--record", type=Path, help="only say what this record holds")
    given = parser.parse_args(arguments)
    record = BenchRecord.load(given.record) if given.record else measure(given)
    print("\n".join(["", *verdicts(record)]))
    return 0


def measure(given: argparse.Namespace) -> BenchRecord:
    """Write the peers and run everything in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "fasterseg", "bench", "--model", "fasterseg-student"]
        command += ["--interleave", "--cpu-time", "--engine", "onnxruntime", "--precision", "fp32"]
        command += ["--device", "cpu", "--protocol", given.protocol]
        command += ["--json", str(folder / "record.json")]
        for peer, script in PEERS.items():
            file = folder / f"{script}.onnx"
            path = Path(__file__).parent / "peers" / f"{script}.py"
            subprocess.run([sys.executable, str(path), "-o", str(file)], check=True)
            command += ["--peer", f"{file}:{peer}"]
        for size in given.size or SIZES:
            command += ["--size", size]
        command += ["--threads", str(given.threads)] if given.threads else []
        command += ["--save"] if given.save else []
        subprocess.run(command, check=True)
        return BenchRecord.load(folder / "record.json")


def verdicts(record: BenchRecord) -> Iterator[str]:
    """Lines that say which network is faster: at the same input, and at equal accuracy."""
    cells = {(cell.peer or OURS, str(cell.size)): cell for cell in record.cells}
    for (name, size), cell in cells.items():
        base = cells.get((OURS, size))
        if name != OURS and base is not None:
            yield f"At {size}: {_sentence(name, OURS, _ratio(cell, base))}"
    ours = ACCURACIES[0]
    base = cells.get((ours.network, ours.size))
    for published in ACCURACIES[1:]:
        other = cells.get((published.network, published.size))
        if base is None or other is None:
            continue
        title = f"{published.name} at {published.size} (mIoU {published.val} val, {published.test} test)"
        mine = f"{ours.name} at {ours.size} ({ours.val} val, {ours.test} test)"
        yield f"At published accuracy: {_sentence(title, mine, _ratio(other, base))}"


def _ratio(cell: Cell, base: Cell) -> Ratio:
    return ratio(cell.rounds_ms["host_to_labels"], base.rounds_ms["host_to_labels"])


def _sentence(name: str, base: str, found: Ratio) -> str:
    """Who is faster, and whether the rounds agree on it."""
    figures = f"{found.p50:.2f} times the time, {found.p10:.2f} to {found.p90:.2f} over the rounds"
    if found.p10 > 1:
        return f"{name} is slower than {base}: {figures}."
    if found.p90 < 1:
        return f"{name} is FASTER than {base}: {figures}."
    return f"{name} and {base} cannot be told apart: {figures}."


if __name__ == "__main__":
    sys.exit(main())
