"""`BenchRecord`: what was measured where, how and with what; stored once, never changed."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import fasterseg
from fasterseg.bench.timing import TimingProtocol
from fasterseg.cache import make_folder
from fasterseg.config import from_mapping
from fasterseg.errors import ConfigError, OutputError, UsageError
from fasterseg.types import DeviceInfo, LatencyStats, Precision, Size

SCHEMA: Final = 1
_DERIVED: Final = ("fps_model", "fps_host_to_labels", "cov_model", "cov_host_to_labels")

CellKey = tuple[str, Precision, Size, int, int | None]
"""Engine, precision, size, batch, threads: what makes two cells the same measurement."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One engine at one size. Times are per call, so of `batch` frames.

    Attributes:
        engine: backend ("onnxruntime").
        precision: numeric type inside the engine.
        device: "cpu" or "cuda", as obtained.
        size: height and width of the frames.
        batch: frames per call.
        tail: where upsampling and argmax are done.
        threads: CPU threads asked for; None: the runtime's default.
        host_to_labels: uint8 frames in host memory to uint8 labels in host memory, copies in.
        model: the engine's own work on frames already in its input buffer, no copies; None
            where the engine cannot be timed so.
        model_clock: whose clock `model` was read from.
        host_to_labels_cpu: CPU time of the whole process during `host_to_labels`, if asked for.
        label_agreement: share of all pixels with the reference's label, in [0, 1]; None for the
            reference itself or without one.
        peak_rss_mb: largest resident memory of the process meanwhile, MiB; None where unknown.
        build_s: seconds from the request to an engine ready to run.
        first_run_ms: milliseconds of the very first call.
        warnings: reasons not to trust the figures, in words.
    """

    engine: str
    precision: Precision
    device: str
    size: Size
    batch: int
    tail: str
    threads: int | None
    host_to_labels: LatencyStats
    model: LatencyStats | None = None
    model_clock: Literal["device", "host"] | None = None
    host_to_labels_cpu: LatencyStats | None = None
    label_agreement: float | None = None
    peak_rss_mb: float | None = None
    build_s: float | None = None
    first_run_ms: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def key(self) -> CellKey:
        """What makes two cells the same measurement."""
        return (self.engine, self.precision, self.size, self.batch, self.threads)

    @property
    def fps_host_to_labels(self) -> float:
        """Frames per second at the median of `host_to_labels`."""
        return 1000.0 * self.batch / self.host_to_labels.p50_ms

    @property
    def fps_model(self) -> float | None:
        """Frames per second at the median of `model`."""
        return 1000.0 * self.batch / self.model.p50_ms if self.model else None

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values, with FPS and coefficients of variation."""
        data: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in data.items():
            if isinstance(value, LatencyStats):
                data[name] = value.to_json()
        return {
            **data,
            "size": str(self.size),
            "warnings": list(self.warnings),
            "fps_model": _rounded(self.fps_model),
            "fps_host_to_labels": _rounded(self.fps_host_to_labels),
            "cov_model": _rounded(self.model.cov) if self.model else None,
            "cov_host_to_labels": _rounded(self.host_to_labels.cov),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str) -> Cell:
        """Rebuild from `to_json`; `where` names the cell in errors.

        Raises:
            ConfigError: a key is unknown or of the wrong type.
            UsageError: the size is not one.
            KeyError: there is no size.
        """
        plain = {key: value for key, value in data.items() if key not in _DERIVED}
        return from_mapping({**plain, "size": Size.parse(plain["size"])}, cls, where)


@dataclass(frozen=True, slots=True)
class BenchRecord:
    """Cells that share device, protocol, model and moment.

    Attributes:
        device: where it was measured.
        protocol: how times were taken.
        commit: git commit ("-dirty" when the package differs from it), or the installed version.
        created: ISO 8601, UTC.
        model: name of the model.
        trained: False for seeded random weights: times hold, labels mean nothing.
        cells: the figures.
        suite: what was run; part of the file's name.
    """

    device: DeviceInfo
    protocol: TimingProtocol
    commit: str
    created: str
    model: str
    trained: bool
    cells: tuple[Cell, ...]
    suite: str = "engines"

    def to_json(self) -> str:
        """Indented JSON; `from_json` is the inverse (schema in benchmarks/README.md)."""
        data = {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in _PLAIN},
            "protocol": self.protocol.to_json(),
            "device": self.device.to_json(),
            "cells": [cell.to_json() for cell in self.cells],
        }
        return json.dumps(data, indent=2)

    @classmethod
    def from_json(cls, text: str, where: str) -> BenchRecord:
        """Read a record; `where` names the file in errors.

        Raises:
            ConfigError: not a record, one of another schema, or a key is missing, unknown or of
                the wrong type.
        """
        data = _object(text, where)
        try:
            plain = from_mapping({key: data[key] for key in _PLAIN}, _Plain, where)
            device = from_mapping({**data["device"], "details": {}}, DeviceInfo, f"{where}: device")
            cells = tuple(
                Cell.from_json(cell, f"{where}: cells[{i}]") for i, cell in enumerate(data["cells"])
            )
            return cls(
                device=replace(device, details=dict(data["device"]["details"])),
                protocol=from_mapping(data["protocol"], TimingProtocol, f"{where}: protocol"),
                cells=cells,
                **asdict(plain),
            )
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{where} is not a benchmark record ({error!r})") from error

    @classmethod
    def load(cls, path: Path) -> BenchRecord:
        """Read a record from a file.

        Raises:
            ConfigError: see `from_json`, or the file cannot be read.
        """
        try:
            return cls.from_json(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {path}: {error}") from error

    def save(self, folder: Path) -> Path:
        """Store the record as `<device>/<date>-<suite>.json` in `folder`, beside earlier ones.

        A file that exists is never touched: the new one gets the next number.

        Returns:
            The path written.

        Raises:
            UsageError: the version of an engine's runtime is unknown.
            OutputError: it cannot be written.
        """
        unknown = sorted({cell.engine for cell in self.cells} - set(self.device.runtimes))
        if unknown:
            raise UsageError(
                f"the version of {', '.join(unknown)} is unknown, so the record would not say "
                "what was measured; install it as a package, or use --json FILE instead of --save"
            )
        target = make_folder(folder / self.device.id)
        stem = target / f"{self.created[:10]}-{self.suite}"
        for number in itertools.count(1):
            path = stem.with_name(f"{stem.name}{f'-{number}' if number > 1 else ''}.json")
            if _write_new(path, self.to_json() + "\n"):
                break
        return path


@dataclass(frozen=True, slots=True)
class CellRatio:
    """The same measurement in two records; ratios are of medians, the second over the first."""

    before: Cell
    after: Cell

    @property
    def host_to_labels(self) -> float:
        """Below 1: the second is faster."""
        return self.after.host_to_labels.p50_ms / self.before.host_to_labels.p50_ms

    @property
    def model(self) -> float | None:
        """Likewise; None unless both records have `model` from the same clock."""
        old, new = self.before, self.after
        if old.model is None or new.model is None or old.model_clock != new.model_clock:
            return None
        return new.model.p50_ms / old.model.p50_ms


def compare(before: BenchRecord, after: BenchRecord) -> list[CellRatio]:
    """Pair the cells two records share (same engine, precision, size, batch and threads).

    Raises:
        UsageError: device, protocol or precisions differ, or no cell is shared: the ratio would
            not be one of speed.
    """
    for name, old, new in (
        ("device", before.device.id, after.device.id),
        ("protocol", before.protocol, after.protocol),
        ("precision", _precisions(before), _precisions(after)),
    ):
        if old != new:
            raise UsageError(
                f"these records do not compare: {name} is {old} in the first and {new} in the "
                "second. Measure both with the same"
            )
    old_cells, new_cells = _by_key(before), _by_key(after)
    shared = [CellRatio(old_cells[key], new_cells[key]) for key in old_cells if key in new_cells]
    if not shared:
        raise UsageError(
            "these records share no cell of the same engine, precision, size, batch and threads; "
            "measure both with the same options"
        )
    return shared


def current_commit(root: Path | None = None) -> str:
    """Commit of the checkout the package runs from, "-dirty" when the package differs from it.

    Args:
        root: folder of the checkout; default: the one around the package.

    Returns:
        The commit, or "fasterseg <version>" outside a checkout.
    """
    root = root or Path(fasterseg.__file__).parents[1]
    # Only the package's own checkout: site-packages may lie inside a user's repository.
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    if commit is None:
        return f"fasterseg {fasterseg.__version__}"
    dirty = _git(root, "status", "--porcelain", "--", "fasterseg")
    return f"{commit}-dirty" if dirty else commit


def now() -> str:
    """This moment as a record stores it: ISO 8601, UTC, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write_new(path: Path, text: str) -> bool:
    """Write a file that must not exist; False when it does."""
    try:
        # Mode "x" and not a test before: two runs may end in the same moment.
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    return True


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _precisions(record: BenchRecord) -> str:
    return ", ".join(sorted({cell.precision for cell in record.cells}))


def _by_key(record: BenchRecord) -> dict[CellKey, Cell]:
    cells = {cell.key: cell for cell in record.cells}
    if len(cells) != len(record.cells):
        raise UsageError(
            f"the record of {record.created} holds the same engine, precision, size, batch and "
            "threads twice, so its cells cannot be told apart; measure them in two runs"
        )
    return cells


@dataclass(frozen=True, slots=True)
class _Plain:
    """The fields of `BenchRecord` that JSON holds as they are."""

    commit: str
    created: str
    model: str
    trained: bool
    suite: str


_PLAIN: Final = tuple(field.name for field in fields(_Plain))


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where} is not JSON: {error}") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(data, dict) or schema != SCHEMA:
        raise ConfigError(
            f"{where} is not a benchmark record of schema {SCHEMA} (found {schema}); write one "
            "with: fasterseg-bench --json FILE"
        )
    return data


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
