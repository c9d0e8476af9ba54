"""Every CPU engine in turn in one run, uint8 frame in, full-size labels out, and what that says.

    python benchmarks/cpu_engines.py [--save] [--threads 1] [--size 512x1024 ...] [--protocol quick]

The original's way (torch, eager, fp32, planes one after the other in memory, full-size logits and
argmax), our torch engine (the same, but channels last), ONNX Runtime and OpenVINO, with upsampling
and argmax in the graph and in our kernel. A model without trained weights (`--model
fasterseg-student`, 19 classes) has int8 with stand-in ranges: times hold, labels mean nothing.

On one thread the CPU time of the process
counts, which other programs hardly change; it is put beside the arithmetic peak of this CPU
(cpu_peak.py). With more threads it is wall time, and wants an idle machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from cpu_peak import best_of, peaks_gops
from numpy.typing import NDArray
from torch import Tensor

from fasterseg.arch.plan import plan
from fasterseg.bench.cells import Cell
from fasterseg.bench.engines import run_suite
from fasterseg.bench.interleave import ratio
from fasterseg.bench.records import BenchRecord
from fasterseg.bench.snippets import network_opener
from fasterseg.bench.suite import Candidate, Suite
from fasterseg.bench.timing import PROTOCOLS
from fasterseg.cli.bench import access_to
from fasterseg.graph.emit import EmitOptions
from fasterseg.nn.engine import TorchEngine
from fasterseg.runtime.base import Engine
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.store import describe
from fasterseg.runtime.tail import stage_for
from fasterseg.types import Precision, Size

MODEL: Final = "fasterseg-camvid"
PLANES: Final = "torch-planes"
RESULTS: Final = Path("benchmarks/results")

CHOSEN: Final[Sequence[tuple[str, Precision, str]]] = (
    ("torch", "fp32", PLANES),
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


class OriginalsWay(TorchEngine):
    """The network in eager PyTorch on planes, as the original's programs feed it.

    In records it is "torch" with the tail "torch-planes".
    """

    tail = PLANES  # type: ignore[misc]

    def _logits8(self, frames: NDArray[np.uint8]) -> Tensor:
        assert self._network is not None
        rgb = torch.from_numpy(frames).permute(0, 3, 1, 2).flip(1).float()
        return self._network.logits8(((rgb - self._mean) / self._std).contiguous())


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
    parser.add_argument("--model", default=MODEL)
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
    usual = access_to(given.model, suite, None)
    access = replace(usual, opener=_opener(given.model, suite, usual.opener), check=lambda _: None)
    record = run_suite(suite, access, lambda line: print(line, flush=True))
    if given.save:
        print(f"saved {record.save(RESULTS)}")
    return record


def _opener(
    name: str, suite: Suite, usual: Callable[[Candidate], Engine]
) -> Callable[[Candidate], Engine]:
    """Opens candidates as `--engine` does; the original's way, and int8 without ranges, besides."""
    model = resolve_model(name)

    def open_one(candidate: Candidate) -> Engine:
        if candidate.tail == PLANES:
            spec = describe(model, candidate.size, EmitOptions())
            network = plan(model.genotype, candidate.size)
            return OriginalsWay.build(
                network, model.load_weights(network), spec, "cpu", suite.threads
            )
        if candidate.precision == "int8" and not model.trained:
            stage = stage_for(candidate.tail, "cpu")
            options = EmitOptions(stage, "int8")
            opened: Engine = network_opener(
                candidate.engine, "cpu", suite.threads, candidate.size, options, "int8"
            )(model.genotype)
            return opened
        return usual(candidate)

    return open_one


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
        yield from _verdicts(cells, record.model, size, peak_gops)


def _ratio(cell: Cell, base: Cell) -> float:
    """How many times as long a cell takes: CPU time on one thread, else wall time by rounds."""
    cpu, base_cpu = cell.host_to_labels_cpu, base.host_to_labels_cpu
    if cell.threads == 1 and cpu is not None and base_cpu is not None:
        return cpu.p50_ms / base_cpu.p50_ms
    return ratio(cell.rounds_ms["host_to_labels"], base.rounds_ms["host_to_labels"]).p50


def _cell(cells: Sequence[Cell], engine: str, tail: str) -> Cell | None:
    """The fp32 cell of an engine."""
    wanted = (engine, "fp32", tail)
    return next((c for c in cells if (c.engine, c.precision, c.tail) == wanted), None)


def _title(cell: Cell) -> str:
    return f"{cell.engine} {cell.precision}, tail {cell.tail}"


def _verdicts(
    cells: Sequence[Cell], model: str, size: str, peak_gops: float | None
) -> Iterator[str]:
    last = cells[-1]
    for name, base, goal in (
        ("the original's way", _cell(cells, "torch", PLANES), EAGER_RATIO),
        (
            "ONNX Runtime fp32, tail in the graph,",
            _cell(cells, "onnxruntime", "graph"),
            GRAPH_RATIO,
        ),
    ):
        if base is not None:
            found = _ratio(base, last)
            yield _verdict(f"faster than {name} by", found, goal, "x", found >= goal)
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
        gops = 2 * plan(resolve_model(model).genotype, Size.parse(size)).macs / took_ms / 1e6
        share = gops / peak_gops
        name = f"share of the int8 peak ({gops:.0f} of {peak_gops:.0f} GOP/s), tail included"
        yield _verdict(name, share, PEAK_SHARE, "", share >= PEAK_SHARE)


def _verdict(what: str, value: float, goal: float, unit: str, kept: bool) -> str:
    return f"  {'reached' if kept else 'MISSED '}  {what}: {value:.2f} {unit} (goal {goal:g})"


if __name__ == "__main__":
    sys.exit(main())
