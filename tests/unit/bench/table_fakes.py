"""A machine whose time is made up: graphs and networks that take what a formula says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.single import Single
from fasterseg.arch.space import SearchSpace
from fasterseg.bench.begin import Request, begin
from fasterseg.bench.ops import Clocks, Progress
from fasterseg.bench.tables import TableFile
from fasterseg.graph.emit import EmitOptions
from fasterseg.graph.single import emit_single
from fasterseg.types import DeviceInfo, Size

SIZE = Size(64, 128)
SPACE = SearchSpace(
    layers=4, ops=("conv", "skip"), widths=(4, 6), stem_widths=(4,), head_widths=(4,), num_classes=5
)
DEVICE = DeviceInfo("box-2c", "Box", "x86_64", None, None, "Linux", {"onnxruntime": "1.0"})
OVERHEAD_NS = 1_000_000


@dataclass
class Machine:
    """Clocks that only runs move, and how many there were.

    Attributes:
        noise: what each run takes in times of its due.
    """

    wall_ns: int = 0
    cpu_ns: int = 0
    runs: int = 0
    opened: int = 0
    noise: Callable[[int], float] = field(default=lambda run: 1.0)

    def spend(self, due_ns: float) -> None:
        """One run: twice as much CPU time as wall time, as on two busy threads."""
        spent = int(due_ns * self.noise(self.runs))
        self.runs += 1
        self.wall_ns += spent
        self.cpu_ns += 2 * spent

    @property
    def clocks(self) -> Clocks:
        """Its clocks."""
        return Clocks(wall=lambda: self.wall_ns, cpu=lambda: self.cpu_ns)

    def open_graph(self, single: Single, options: EmitOptions) -> FakeGraph:
        """A graph that takes a fixed overhead and something for every node."""
        self.opened += 1
        return FakeGraph(self, len(emit_single(single, options).graph.node) * 100_000)


@dataclass
class FakeGraph:
    """A snippet that moves the clocks."""

    machine: Machine
    due_ns: int

    def run(self) -> None:
        """Move the clocks."""
        self.machine.spend(OVERHEAD_NS + self.due_ns)

    def close(self) -> None:
        """Nothing to release."""


@dataclass
class FakeNet:
    """A network that moves the clocks."""

    machine: Machine
    due_ms: float
    tail: str = "graph"

    def bind(self, frames: NDArray[np.uint8]) -> None:
        """Anything will do."""

    def run_bound(self) -> None:
        """Move the clocks."""
        self.machine.spend(1e6 * self.due_ms)

    def close(self) -> None:
        """Nothing to release."""


class Opened:
    """Opens networks that take what a formula says."""

    def __init__(self, machine: Machine, due_ms: Callable[[Genotype], float]) -> None:
        self.machine = machine
        self.due_ms = due_ms
        self.digests: list[str] = []
        self.tail = "graph"

    def __call__(self, genotype: Genotype) -> FakeNet:
        self.digests.append(genotype.digest())
        return FakeNet(self.machine, self.due_ms(genotype), self.tail)


def new_table(path: Path, space: SearchSpace | None = SPACE) -> TableFile:
    """A table without rows."""
    request = Request(SIZE, "onnxruntime", "fp32", "cpu", threads=1, path=path, tail="graph")
    return begin(request, DEVICE, space)


def ignore(progress: Progress) -> None:
    """Somebody who does not look."""
