"""What a run of `gpu.py` is about: device, cases, model, frames; nothing here imports torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from gpu_pack import Pack
from numpy.typing import NDArray

from fasterseg.arch.plan import Plan, plan
from fasterseg.bench.engines import render_frames
from fasterseg.bench.timing import FULL, QUICK, ROW, TimingProtocol
from fasterseg.preprocess import Geometry
from fasterseg.runtime.model import Model, resolve_model
from fasterseg.types import Precision, Size

ROOT: Final = Path(__file__).resolve().parents[1]
SOURCES: Final = ("fasterseg/**/*.py", "cpp_plugins/kernels/*")
"""What is measured. The scripts are not among them: after a change in how a step measures, it is
run again by `--fresh`."""

STUDENT: Final = "fasterseg-student"
"""The released network, 19 classes, which the goals are about; its weights here are random."""

TRIAL: Final = TimingProtocol("trial", warmup_runs=1, min_runs=2)
BATCHES: Final = 4
Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Case:
    """Frames per call and their size."""

    size: Size
    batch: int = 1

    @property
    def name(self) -> str:
        """`1024x2048`, `1024x2048-b8`."""
        return f"{self.size}-b{self.batch}" if self.batch > 1 else str(self.size)


CASES: Final = (Case(Size(1024, 2048)), Case(Size(512, 1024)), Case(Size(1024, 2048), 8))
TINY: Final = (Case(Size(64, 128)), Case(Size(64, 64)), Case(Size(64, 128), 2))
"""Of a trial, in the same order."""


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        device: "cuda", or "cpu" for a trial.
        folder: results and state.
        pack: what `make gpu-pack` made, None without one.
        model: whose weights are run.
        protocol: named timing protocol; a shorter one is taken where time runs out.
        commit: of the tree.
        seconds: a step may take; told to its process.
    """

    device: str
    folder: Path
    pack: Path | None
    model: str
    protocol: str
    commit: str
    seconds: float = 0.0

    def to_json(self) -> str:
        """One line for the process of a step; `from_json` is the inverse."""
        data = {**asdict(self), "folder": str(self.folder)}
        return json.dumps({**data, "pack": None if self.pack is None else str(self.pack)})

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Rebuild from `to_json`."""
        data = json.loads(text)
        pack = None if data["pack"] is None else Path(data["pack"])
        return cls(**{**data, "folder": Path(data["folder"]), "pack": pack})

    @property
    def trial(self) -> bool:
        """Whether this only proves that the steps run; nothing of it is a measurement."""
        return self.device == "cpu"

    @property
    def cases(self) -> tuple[Case, ...]:
        """What is measured."""
        return TINY if self.trial else CASES

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Of our engine, the fastest first."""
        return ("fp32",) if self.trial else ("fp16", "bf16", "fp32")

    @cached_property
    def packed(self) -> Pack | None:
        """The pack, checked; None without one."""
        return None if self.pack is None else Pack(self.pack)

    @cached_property
    def network(self) -> Model:
        """The model."""
        return resolve_model(self.model)

    def plan(self, size: Size, model: str | None = None) -> Plan:
        """The network, or another one, at a size."""
        return plan((resolve_model(model) if model else self.network).genotype, size)

    def frames(self, case: Case) -> list[Frames]:
        """Different batches for a case, (N, H, W, 3) uint8 BGR: real frames where there are any."""
        clip = self.packed.frames() if self.packed is not None else []
        if not clip:
            return render_frames(case.size, case.batch, BATCHES)
        fitted = [Geometry(Size(*image.shape[:2]), case.size).forward(image) for image in clip]
        count = max(BATCHES, len(fitted) // case.batch)
        # Where batches need more frames than there are, each begins at another one.
        step = max(1, min(case.batch, len(fitted) // count))
        return [
            np.stack([fitted[(index * step + k) % len(fitted)] for k in range(case.batch)])
            for index in range(count)
        ]

    def protocol_within(self, seconds: float, lanes: int) -> TimingProtocol:
        """The protocol asked for, or the longest that so many lanes can do in so much time."""
        if self.trial:
            return TRIAL
        order: Sequence[TimingProtocol] = (FULL, QUICK, ROW)
        wanted = [one for one in order if one.name == self.protocol] or [ROW]
        for one in order[order.index(wanted[0]) :]:
            # More than it wants: runs that do not count before each turn, and what lies between.
            if 1.3 * lanes * (one.warmup_s + one.min_s) <= seconds:
                return one
        return ROW


def source_digest(root: Path = ROOT) -> str:
    """Hash of the code that decides what a step does."""
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for path in sorted(root.glob(pattern)):
            if path.is_file():
                digest.update(path.relative_to(root).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """A value as JSON holds it: floats to seven digits, paths and sizes as text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Size | Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.7g}")
    return value
