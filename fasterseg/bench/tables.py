"""`TableFile`: a latency table while it is measured, with everything it takes to believe it.

`arch.latency.LatencyTable` reads the same file and takes from it what prices need.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from fasterseg.arch.latency import SCHEMA, Calibration, LatencyTable
from fasterseg.arch.operators import OpSpec
from fasterseg.arch.space import SearchSpace
from fasterseg.bench.timing import TimingProtocol
from fasterseg.cache import write_atomic
from fasterseg.config import from_mapping, parse_json
from fasterseg.errors import ConfigError, UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime.tail import CHOOSING, GRAPH
from fasterseg.types import DeviceInfo, Precision, Size

Granularity = Literal["inside", "alone"]
GRANULARITIES: Final[tuple[Granularity, ...]] = get_args(Granularity)
"""Where an operator was timed: between others, whose time is taken off, or in a graph of its own.
"""

Statistic = Literal["p50", "min", "cpu_p50", "cpu_min"]
STATISTICS: Final[tuple[Statistic, ...]] = get_args(Statistic)
"""Median or least, of wall time or of the CPU time of the whole process."""

ON_DEVICE: Final[tuple[Statistic, ...]] = ("p50", "min")
"""Those that a device's own clock has; it knows nothing of CPU time."""

DEVICE_CLOCK: Final = "device"
"""Condition `clock` of tables whose times are those of a GPU's own clock."""

Times = Mapping[str, float]
"""`<statistic>_ms` -> milliseconds, for every statistic that the clock has."""


@dataclass
class TableFile:
    """The content of a table's file; `save` after every change that must outlive a kill.

    Attributes:
        path: the file.
        device: what it is measured on, as it was when the table was begun.
        backend: engine that runs the operators.
        precision: of the operators.
        size: of the network's frames.
        batch: frames per call.
        protocol: how rows are timed.
        statistic: which statistic prices are.
        granularity: which of the two times of a row prices are.
        conditions: `threads` asked for (None: the runtime's default), `device`, `tail`; in int8
            `ranges`, where they came from. `clock` is "device" where times are a GPU's own, and
            then `variant` says how networks are run and `repeats` how often operators are, for
            one time.
        space: what the rows are for; None where they are for single networks.
        draw: networks for the calibration (`bench.draw.Draw.to_json`), fixed before the first row.
        commit: of the code that began the table.
        measured_on: date of the last row, ISO 8601.
        runs: one entry for each time rows or networks were measured: when, load, commit.
        rows: operator key -> times, count, cov, and which run.
        nets: digest -> times of the whole network, one entry for each pass.
        calibration: what the prices are corrected by, if fitted.
        report: how good predictions are, if tried.
    """

    path: Path
    device: DeviceInfo
    backend: str
    precision: Precision
    size: Size
    batch: int
    protocol: TimingProtocol
    statistic: Statistic
    granularity: Granularity
    conditions: dict[str, Any]
    space: SearchSpace | None
    draw: dict[str, Any] | None
    commit: str
    measured_on: str = ""
    runs: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    nets: dict[str, list[Times]] = field(default_factory=dict)
    calibration: Calibration | None = None
    report: dict[str, Any] | None = None

    def times(self, granularity: Granularity, statistic: Statistic) -> dict[str, float]:
        """Operator key -> milliseconds, at another granularity or by another statistic."""
        return {key: row[granularity][f"{statistic}_ms"] for key, row in self.rows.items()}

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """Those that its times have."""
        return statistics_of(self.conditions)

    def emit_options(self) -> EmitOptions:
        """How graphs are written for this table: as the engine would be, up to its tail."""
        stage: Literal["labels", "logits8"] = "labels"
        if self.backend in CHOOSING and self.conditions.get("tail", GRAPH) != GRAPH:
            stage = "logits8"
        precision: Precision = "fp32" if self.precision == "bf16" else self.precision
        return EmitOptions(stage, precision, self.batch)

    def missing(self, specs: list[OpSpec]) -> list[OpSpec]:
        """Operators without a row."""
        return [spec for spec in specs if spec.key() not in self.rows]

    def table(self) -> LatencyTable:
        """What searches and predictions read."""
        return LatencyTable.from_json(self._to_json(), str(self.path))

    def save(self) -> None:
        """Write the file; whoever reads it meanwhile sees the old content or the new.

        Raises:
            OutputError: it cannot be written.
        """
        write_atomic(self.path, _text(self._to_json()).encode())

    def _to_json(self) -> dict[str, Any]:
        price = f"{self.statistic}_ms"
        rows = {
            key: {price: row[self.granularity][price], **row}
            for key, row in sorted(self.rows.items())
        }
        return {
            "schema": SCHEMA,
            "device": self.device.to_json(),
            "backend": self.backend,
            "precision": self.precision,
            "size": str(self.size),
            "batch": self.batch,
            "protocol": {**self.protocol.to_json(), "granularity": self.granularity},
            "statistic": self.statistic,
            "upsample": "bilinear",
            "unpriced": [],
            "conditions": self.conditions,
            "commit": self.commit,
            "measured_on": self.measured_on,
            "space": asdict(self.space) if self.space else None,
            "draw": self.draw,
            "calibration": asdict(self.calibration) if self.calibration else None,
            "report": self.report,
            "runs": self.runs,
            "nets": self.nets,
            "rows": rows,
        }

    @classmethod
    def load(cls, path: Path) -> TableFile:
        """Read a table that `fasterseg-bench ops` wrote.

        Raises:
            ConfigError: the file cannot be read, was cut off, or holds something else.
        """
        table = LatencyTable.load(path)
        data = parse_json(path.read_text(encoding="utf-8"))
        try:
            return cls._from_json(path, table, data)
        except (KeyError, TypeError, AttributeError, OverflowError, UsageError) as error:
            raise ConfigError(
                f"{path} is a latency table, but none that fasterseg-bench ops wrote, so it "
                f"cannot be added to ({error}). Measure another: fasterseg-bench ops --table FILE"
            ) from error

    @classmethod
    def _from_json(cls, path: Path, table: LatencyTable, data: Mapping[str, Any]) -> TableFile:
        protocol = dict(data["protocol"])
        granularity, statistic = protocol.pop("granularity"), data["statistic"]
        known = statistics_of(table.conditions)
        if granularity not in GRANULARITIES or statistic not in known:
            raise ConfigError(f"granularity {granularity}, statistic {statistic}")
        price = f"{statistic}_ms"
        rows = {
            key: {name: value for name, value in row.items() if name != price}
            for key, row in data["rows"].items()
        }
        for row in rows.values():
            for where in GRANULARITIES:
                _check_times(row[where], known)
        for passes in data["nets"].values():
            for times in passes:
                _check_times(times, known)
        space = data["space"]
        return cls(
            path=path,
            device=table.device,
            backend=table.backend,
            precision=table.precision,
            size=table.size,
            batch=table.batch,
            protocol=from_mapping(protocol, TimingProtocol, "protocol"),
            statistic=statistic,
            granularity=granularity,
            conditions=dict(table.conditions),
            space=from_mapping(space, SearchSpace, "space") if space else None,
            draw=data["draw"],
            commit=table.commit,
            measured_on=table.measured_on,
            runs=list(data["runs"]),
            rows=rows,
            nets={digest: list(passes) for digest, passes in data["nets"].items()},
            calibration=table.calibration,
            report=data["report"],
        )


def table_path(root: Path, device_id: str, backend: str, precision: str, size: Size) -> Path:
    """Where a table is kept: `<root>/<device>/<backend>-<precision>-<HxW>.json`."""
    return root / device_id / f"{backend}-{precision}-{size}.json"


def statistics_of(conditions: Mapping[str, Any]) -> tuple[Statistic, ...]:
    """The statistics that times taken under some conditions have."""
    return ON_DEVICE if conditions.get("clock") == DEVICE_CLOCK else STATISTICS


def _check_times(times: Mapping[str, Any], statistics: Sequence[Statistic]) -> None:
    for statistic in statistics:
        if not math.isfinite(times[f"{statistic}_ms"]):
            raise ConfigError(f"{statistic}_ms is {times[f'{statistic}_ms']}")


def _text(data: Mapping[str, Any]) -> str:
    """JSON with one line for each row and each network, so that changes can be read."""
    large = ("nets", "rows")
    head = json.dumps({k: v for k, v in data.items() if k not in large}, indent=1)
    parts = [head.removesuffix("\n}")]
    for name in large:
        lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in data[name].items())
        parts.append(f' "{name}": {{\n{lines}\n }}' if lines else f' "{name}": {{}}')
    return ",\n".join(parts) + "\n}\n"
