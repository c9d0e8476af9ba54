"""A latency table begun or gone on with: what is asked for, what is there, do they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.arch.space import Placed, SearchSpace, operators_of
from fasterseg.bench import device as machine
from fasterseg.bench.draw import draw
from fasterseg.bench.records import current_commit
from fasterseg.bench.snippets import SNIPPETS
from fasterseg.bench.tables import (
    DEVICE_CLOCK,
    STATISTICS,
    TableFile,
    statistics_of,
    table_path,
)
from fasterseg.bench.timing import DEVICE_ROW, ROW
from fasterseg.config import load_toml
from fasterseg.errors import ConfigError, UnknownNameError, UsageError
from fasterseg.graph.stand_in import SOURCE as STAND_IN
from fasterseg.registry import resolve, unknown
from fasterseg.runtime.base import ENGINES
from fasterseg.runtime.tail import CHOOSING, GRAPH, TAILS, Finish, stage_for
from fasterseg.types import DeviceInfo, Precision, Size

_PRECISIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "onnxruntime": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "fp16", "bf16", "int8"),
    "torch": ("fp32", "fp16", "bf16"),
}
"""Backend -> precisions that single operators are written and computed in."""

CONDITIONS: Final[Mapping[str, str]] = {"torch": "fasterseg.nn.snippet:conditions"}
"""Backend with a last step of its own -> (device, precision) -> conditions of its tables: `tail`
and, where it has one, `clock` and what belongs to it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a table is to be of.

    Attributes:
        size: of the networks' frames.
        backend: engine that will deploy.
        precision: "auto" (fp32 on a CPU, fp16 on a GPU) or a precision.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads of the engine; None: the runtime's default.
        batch: frames per call.
        statistic: which statistic prices are.
        seed: of the networks drawn for the calibration.
        path: the table's file; None: the place under `root` that device and settings give.
        root: folder of tables.
        tail: where the row of the output does upsampling and argmax: "graph", "native", or
            "auto": as the table that is there, and in a new one as engines do.
    """

    size: Size
    backend: str = "onnxruntime"
    precision: str = "auto"
    device: str = "auto"
    threads: int | None = None
    batch: int = 1
    statistic: str = "p50"
    seed: int = 0
    path: Path | None = None
    root: Path = Path("benchmarks/tables")
    tail: str = "auto"

    def resolved(self) -> Request:
        """The same with nothing left to "auto".

        Raises:
            UnknownNameError: the backend or statistic is not known.
            UsageError: single operators are not written in the precision.
            DeviceUnavailableError: the device is not there.
            MissingExtraError: the backend's package is not installed.
        """
        if self.backend not in SNIPPETS:
            raise UnknownNameError(unknown("engine for latency tables", self.backend, SNIPPETS))
        if self.statistic not in STATISTICS:
            raise UnknownNameError(unknown("statistic", self.statistic, list(STATISTICS)))
        known = _PRECISIONS[self.backend]
        if self.precision not in ("auto", *known):
            raise UsageError(
                f"latency tables of {self.backend} are measured in {' or '.join(known)}, not in "
                f"{self.precision}"
            )
        if self.tail not in TAILS:
            raise UsageError(f"--tail {self.tail} is not one of {', '.join(TAILS)}")
        if self.tail != "auto" and self.backend not in CHOOSING:
            raise UsageError(
                f"engine {self.backend} has a last step of its own; --tail is for "
                f"{' and '.join(sorted(CHOOSING))}"
            )
        device = resolve(ENGINES, "engine", self.backend).resolve_device(self.device)
        chosen = "fp16" if device == "cuda" else "fp32"
        precision = chosen if self.precision == "auto" else self.precision
        return replace(self, device=device, precision=precision)

    def detect(self) -> DeviceInfo:
        """This machine, as the table describes it."""
        return machine.detect([self.backend], self.device)

    def path_on(self, device: DeviceInfo) -> Path:
        """The table's file."""
        return self.path or table_path(
            self.root, device.id, self.backend, self.precision, self.size
        )

    def settings(self) -> dict[str, Any]:
        """What a table must have been measured with, for `LatencyTable.check`."""
        return {
            "backend": self.backend,
            "precision": self.precision,
            "size": self.size,
            "batch": self.batch,
            "device": self.device,
            "threads": self.threads,
        }


def begin(request: Request, device: DeviceInfo, space: SearchSpace | None) -> TableFile:
    """A table without rows, with the networks of its calibration drawn; not saved yet.

    Args:
        request: resolved.
        device: this machine.
        space: what the rows will be for; None for single networks, which need no calibration.

    Raises:
        UsageError: the size is too small, the space too small for a draw, or the clock has no
            such statistic.
    """
    conditions = {
        "device": request.device,
        "threads": request.threads,
        **conditions_of(request, request.tail),
    }
    if request.precision == "int8":
        conditions["ranges"] = STAND_IN
    known = statistics_of(conditions)
    if request.statistic not in known:
        raise UsageError(
            f"{request.statistic} is CPU time, which a GPU's clock does not know; choose "
            f"--statistic {' or '.join(known)}"
        )
    networks = draw(space, request.size, request.seed).to_json() if space else None
    return TableFile(
        path=request.path_on(device),
        device=device,
        backend=request.backend,
        precision=cast("Precision", request.precision),
        size=request.size,
        batch=request.batch,
        protocol=DEVICE_ROW if conditions.get("clock") == DEVICE_CLOCK else ROW,
        statistic=request.statistic,
        granularity="inside",
        conditions=conditions,
        space=space,
        draw=networks,
        commit=current_commit(),
    )


def check_continues(file: TableFile, device: DeviceInfo, request: Request) -> None:
    """Refuse to add to a table rows that would not belong to it.

    Args:
        file: the table.
        device: this machine.
        request: resolved.

    Raises:
        UsageError: device, settings, tail, or the version of the engine's runtime differ.
        EngineError: its rows were finished by a kernel that is not here.
    """
    # A table keeps the tail it was begun with, unless another one is asked for.
    tail = request.tail if request.tail != "auto" else tail_asked(file)
    file.table().check(device.id, **request.settings(), **conditions_of(request, tail))
    old, new = (info.runtimes.get(file.backend) for info in (file.device, device))
    if old != new:
        raise UsageError(
            f"{file.path} was measured with {file.backend} {old}, installed is {new}; rows of two "
            "versions do not add up. Measure it anew: --overwrite"
        )


def request_of(file: TableFile) -> Request:
    """What a table was begun with."""
    return Request(
        size=file.size,
        backend=file.backend,
        precision=file.precision,
        device=str(file.conditions.get("device", "cpu")),
        threads=file.conditions.get("threads"),
        batch=file.batch,
        statistic=file.statistic,
        path=file.path,
        tail=tail_asked(file),
    )


def tail_asked(file: TableFile) -> str:
    """The tail that a table's rows were measured with, as it is asked for."""
    if file.backend not in CHOOSING:
        return "auto"
    return "graph" if file.conditions.get("tail", GRAPH) == GRAPH else "native"


def conditions_of(request: Request, tail: str) -> dict[str, Any]:
    """What rows depend on besides the settings of a request.

    Args:
        request: resolved.
        tail: "graph", "native" or "auto".

    Raises:
        UsageError: the backend does not compute in that precision on the device.
        EngineError: the native tail, and its library cannot be used.
    """
    if request.backend in CHOOSING:
        return {"tail": tail_name(tail, request.device)}
    found: dict[str, Any] = resolve(CONDITIONS, "engine", request.backend)(
        request.device, request.precision
    )
    return found


def tail_name(tail: str, device: str) -> str:
    """What does upsampling and argmax: "graph", or the kernel by its instruction set.

    Raises:
        UsageError: the native tail of a device that is no CPU.
        EngineError: the native tail, and its library cannot be used.
    """
    return GRAPH if stage_for(tail, device) == "labels" else Finish(None).name


def wanted_by(
    file: TableFile, space: SearchSpace | None, genotypes: Sequence[Genotype]
) -> list[Placed]:
    """The operators that a table is to hold.

    Args:
        file: the table; its own space where nothing else is asked for.
        space: the space asked for, None if none was.
        genotypes: networks asked for instead of a space.

    Raises:
        UsageError: another space than the table's: its drawn networks are of one.
    """
    if genotypes:
        return operators_of(plan(genotype, file.size) for genotype in genotypes)
    if space is not None and file.space is not None and space != file.space:
        raise UsageError(
            f"{file.path} is for another search space; give its own (or leave --space and "
            "--classes out), or measure it anew: --overwrite"
        )
    chosen = file.space or space
    if chosen is None:
        raise UsageError(
            f"{file.path} is for single networks; name them with --model, or give a --space"
        )
    return chosen.operators(file.size)


def space_from(path: Path | None, classes: int | None) -> SearchSpace | None:
    """The space that options ask for; None where they say nothing.

    Raises:
        ConfigError: the file cannot be read, or holds no search space.
    """
    if path is None and classes is None:
        return None
    space = load_toml(path, SearchSpace) if path else SearchSpace()
    if classes is None:
        return space
    try:
        return replace(space, num_classes=classes)
    except ConfigError as error:
        raise ConfigError(f"--classes {classes}: {error}") from error
