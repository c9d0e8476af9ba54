"""Every CPU engine in turn in one run, uint8 frame in, full-size labels out, and what that says.

    python benchmarks/cpu_engines.py [--save] [--threads 1] [--size 512x1024 ...] [--protocol quick]

The original's way (torch, eager, fp32, full-size logits and argmax), ONNX Runtime and OpenVINO, with
upsampling and argmax in the graph and in our kernel. On one thread the CPU time of the process
counts, which other programs hardly change; it is put beside the arithmetic peak of this CPU
(cpu_peak.py). With more threads it is wall time, and wants an idle machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cpu_peak import best_of, peaks_gops

from fasterseg.arch.plan import plan
from fasterseg.bench.cells import Cell
from fasterseg.bench.engines import run_suite
from fasterseg.bench.interleave import ratio
from fasterseg.bench.records import BenchRecord
from fasterseg.bench.suite import Candidate, Suite
from fasterseg.bench.timing import PROTOCOLS
from fasterseg.cli.bench import access_to
from fasterseg.runtime.model import resolve_model
from fasterseg.types import Precision, Size

MODEL: Final = "fasterseg-camvid"
RESULTS: Final = Path("benchmarks/results")

CHOSEN: Final[Sequence[tuple[str, Precision, str]]] = (
    ("torch", "fp32", "auto"),
    ("onnxruntime", "fp32", "graph"),
    ("onnxruntime", "fp32", "native"),
    ("onnxruntime", "int8", "native"),
    ("openvino", "fp32", "native"),
    ("openvino", "bf16", "native"),
    ("openvino", "int8", "graph"),
    ("openvino", "int8", "native"),
)
"""Engine, precision, tail; the first is the original's way, the last is what is held against it."""

GRAPH_RATIO: Final = 4.0
EAGER_RATIO: Final = 7.0
CPU_MS: Final[Mapping[str, float]] = {"512x1024": 39.0, "1024x2048": 155.0}
WALL_MS: Final[Mapping[str, float]] = {"512x1024": 21.0, "1024x2048": 80.0}
PEAK_SHARE: Final = 0.75


@dataclass(frozen=True)
class CpuSuite(Suite):
    """The engines above in place of every combination."""

    def candidates(self) -> list[Candidate]:
        """All there is to measure, in order."""
        return [
            Candidate(engine, precision, "cpu", size, tail=tail)
            for size in self.sizes
            for engine, precision, tail in CHOSEN
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and say what was reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", action="append", metavar="HxW", help="give it again for more")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--protocol", default="quick", choices=sorted(PROTOCOLS))
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results")
    parser.add_argument("--record", type=Path, help="only say what this record holds")
    given = parser.parse_args(arguments)
    record = BenchRecord.load(given.record) if given.record else measure(given)
    threads = next(cell.threads for cell in record.cells) or 1
    peak_gops = best_of(peaks_gops(threads), "int8")
    print("\n".join(["", *lines(record, peak_gops)]))
    return 0


def measure(given: argparse.Namespace) -> BenchRecord:
    """Run everything in turn."""
    suite = CpuSuite(
        engines=tuple(dict.fromkeys(engine for engine, _, _ in CHOSEN)),
        sizes=tuple(Size.parse(size) for size in given.size or CPU_MS),
        precisions=tuple(dict.fromkeys(precision for _, precision, _ in CHOSEN)),
        protocol=PROTOCOLS[given.protocol],
        threads=given.threads,
        cpu_time=True,
        device="cpu",
        interleave=True,
    )
    record = run_suite(suite, access_to(MODEL, suite, None), lambda line: print(line, flush=True))
    if given.save:
        print(f"saved {record.save(RESULTS)}")
    return record


def lines(record: BenchRecord, peak_gops: float | None) -> Iterator[str]:
    """A row for each engine, then what the last one of each size reaches."""
    for size in dict.fromkeys(str(cell.size) for cell in record.cells):
        cells = [cell for cell in record.cells if str(cell.size) == size]
        yield f"{size}  {'engine':34s} CPU ms p50    min  wall p50   times the time of the last"
        for cell in cells:
            cpu, wall = cell.host_to_labels_cpu, cell.host_to_labels
            assert cpu is not None
            yield (
                f"{'':9s}  {_title(cell):34s} {cpu.p50_ms:10.1f} {cpu.min_ms:6.1f} "
                f"{wall.p50_ms:9.1f}   {_ratio(cell, cells[-1]):.2f}"
            )
        yield from _verdicts(cells, size, peak_gops)


def _ratio(cell: Cell, base: Cell) -> float:
    """How many times as long a cell takes: CPU time on one thread, else wall time by rounds."""
    cpu, base_cpu = cell.host_to_labels_cpu, base.host_to_labels_cpu
    if cell.threads == 1 and cpu is not None and base_cpu is not None:
        return cpu.p50_ms / base_cpu.p50_ms
    return ratio(cell.rounds_ms["host_to_labels"], base.rounds_ms["host_to_labels"]).p50


def _title(cell: Cell) -> str:
    return f"{cell.engine} {cell.precision}, tail {cell.tail}"


def _verdicts(cells: Sequence[Cell], size: str, peak_gops: float | None) -> Iterator[str]:
    last = cells[-1]
    eager, graph = cells[0], cells[1]
    for name, base, goal in (
        ("eager torch", eager, EAGER_RATIO),
        ("ONNX Runtime", graph, GRAPH_RATIO),
    ):
        found = _ratio(base, last)
        yield _verdict(f"faster than {name} fp32", found, goal, "x", found >= goal)
    cpu = last.host_to_labels_cpu
    assert cpu is not None
    alone = last.threads == 1
    took_ms, goals = (cpu.min_ms, CPU_MS) if alone else (last.host_to_labels.p50_ms, WALL_MS)
    if size in goals:
        what = "CPU time, least" if alone else "wall time, median"
        yield _verdict(
            f"{what}, {last.threads} thread(s)", took_ms, goals[size], "ms", took_ms <= goals[size]
        )
    if peak_gops is not None:
        gops = 2 * plan(resolve_model(MODEL).genotype, Size.parse(size)).macs / took_ms / 1e6
        share = gops / peak_gops
        name = f"share of the int8 peak ({gops:.0f} of {peak_gops:.0f} GOP/s), tail included"
        yield _verdict(name, share, PEAK_SHARE, "", share >= PEAK_SHARE)


def _verdict(what: str, value: float, goal: float, unit: str, kept: bool) -> str:
    return f"  {'reached' if kept else 'MISSED '}  {what}: {value:.2f} {unit} (goal {goal:g})"


if __name__ == "__main__":
    sys.exit(main())
