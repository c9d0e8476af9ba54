"""`LatencyTable`: milliseconds per operator on one device, and the price of a plan under it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from fasterseg.arch.operators import OPERATORS, OpSpec, parse_key
from fasterseg.arch.plan import Plan
from fasterseg.config import from_mapping, parse_json
from fasterseg.errors import ConfigError, MissingLatencyError, UsageError
from fasterseg.types import DeviceInfo, Precision, Size

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Calibration:
    """Linear correction of table sums: ms = scale * sum + per_op_ms * operators + offset_ms."""

    scale: float
    per_op_ms: float
    offset_ms: float


@dataclass(frozen=True, slots=True)
class Price:
    """Latency of a plan under a table.

    Attributes:
        ms: milliseconds, batch 1.
        left_out: kinds the table declares unpriced -> nodes of that kind in the plan.
    """

    ms: float
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Measured milliseconds per operator; it never measures and never writes by itself.

    Attributes:
        device: what it was measured on.
        backend: engine that ran the operators ("onnxruntime", "tensorrt 5.1").
        precision: precision of the operators.
        size: network input size the rows belong to.
        batch: batch size.
        protocol: how rows were timed, in words or as fields.
        statistic: which statistic of the samples `rows` holds ("p50" or "mean").
        upsample: resampling of the resizes that were timed.
        unpriced: kinds of node or step the table has no rows for.
        commit: commit of fasterseg, or origin of a foreign table.
        measured_on: ISO date, empty where the origin states none.
        rows: operator key -> milliseconds.
        calibration: correction against whole networks, if fitted.
        conditions: what else a row depends on: `threads` asked for, `device`, `tail`; empty in a
            foreign table.
        path: file it was read from, for messages.
    """

    device: DeviceInfo
    backend: str
    precision: Precision
    size: Size
    batch: int
    protocol: Mapping[str, Any]
    statistic: str
    upsample: str
    unpriced: frozenset[str]
    commit: str
    measured_on: str
    rows: Mapping[str, float]
    calibration: Calibration | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)
    path: str = "latency table"

    def __getitem__(self, spec: OpSpec) -> float:
        """Milliseconds of one operator.

        Raises:
            MissingLatencyError: there is no row; the message names the measuring command.
        """
        key = spec.key()
        if key not in self.rows:
            raise MissingLatencyError(self._missing_message([key], total=1))
        return self.rows[key]

    def missing(self, specs: Iterable[OpSpec]) -> list[OpSpec]:
        """The operators among `specs` without a row, unpriced kinds aside."""
        return [
            spec for spec in specs if spec.op not in self.unpriced and spec.key() not in self.rows
        ]

    def check(self, device_id: str, **wanted: Any) -> None:
        """Refuse to be used for anything but what was measured.

        Args:
            device_id: of the device that latencies are wanted for.
            **wanted: fields of the table or of its conditions (`backend`, `precision`, `size`,
                `batch`, `threads`, ...) and the values they must have.

        Raises:
            UsageError: one differs; the message names it and the measuring command.
        """
        facts = {**self.conditions, **{name: getattr(self, name) for name in _CHECKED}}
        pairs: list[tuple[str, Any, Any]] = [("device", self.device.id, device_id)]
        pairs += [(name, facts.get(name), value) for name, value in wanted.items()]
        for name, found, value in pairs:
            if found != value:
                raise UsageError(
                    f"{self.path} was measured with {name} {_shown(found)}, and is asked for "
                    f"{name} {_shown(value)}; its latencies would be wrong there. Measure a table "
                    "with what you use: fasterseg-bench ops --size HxW --engine NAME"
                )

    def price(self, plan: Plan, allow_upsample_mismatch: bool = False) -> Price:
        """Sum the rows of a plan's nodes, each shared cell once, and calibrate the sum.

        Args:
            plan: the network at the table's size.
            allow_upsample_mismatch: accept a table whose resizes were timed with another
                resampling than the network's.

        Raises:
            UsageError: the table's size or resampling is not the plan's.
            MissingLatencyError: rows are missing.
        """
        if plan.size != self.size:
            raise UsageError(
                f"{self.path} was measured for {self.size}, the network is planned at {plan.size} "
                f"(HxW); plan it at {self.size} or measure a table for {plan.size}"
            )
        if plan.genotype.upsample != self.upsample and not allow_upsample_mismatch:
            raise UsageError(
                f"{self.path} was timed with {self.upsample} resizes, {plan.genotype.name} runs "
                f"{plan.genotype.upsample} ones; pass allow_upsample_mismatch=True to price it "
                "all the same"
            )
        specs = [node.spec for node in plan.nodes]
        if missing := self.missing(specs):
            keys = [spec.key() for spec in missing]
            raise MissingLatencyError(self._missing_message(keys, total=len(specs)))
        left_out: Counter[str] = Counter()
        priced: list[float] = []
        for spec in specs:
            left_out.update(self._left_out(spec))
            if spec.op not in self.unpriced:
                priced.append(self[spec])
        return Price(ms=self._calibrated(priced), left_out=dict(left_out))

    def _left_out(self, spec: OpSpec) -> list[str]:
        """The operator itself where it is unpriced, else its unpriced steps."""
        if spec.op in self.unpriced:
            return [spec.op]
        steps = (type(step).__name__.lower() for step in OPERATORS[spec.op])
        return [step for step in steps if step in self.unpriced]

    def _calibrated(self, priced: list[float]) -> float:
        total = math.fsum(priced)
        if self.calibration is None:
            return total
        fit = self.calibration
        return fit.scale * total + fit.per_op_ms * len(priced) + fit.offset_ms

    def _missing_message(self, keys: list[str], total: int) -> str:
        shown = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
        return (
            f"{self.path} has no row for {shown} ({len(keys)} of {total} operators missing). "
            f"Measure them on this device: fasterseg-bench ops --table {self.path} --missing-only"
        )

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; `load` reads them back."""
        data = asdict(self)
        del data["path"]
        if not self.conditions:
            del data["conditions"]
        return {
            "schema": SCHEMA,
            **data,
            "size": str(self.size),
            "unpriced": sorted(self.unpriced),
            "rows": {key: {f"{self.statistic}_ms": ms} for key, ms in sorted(self.rows.items())},
        }

    @classmethod
    def load(cls, path: Path) -> LatencyTable:
        """Read a table.

        Raises:
            ConfigError: the file cannot be read, is not a table, or is of a newer schema.
        """
        try:
            data = parse_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise ConfigError(
                f"{path} is not JSON: {error}. It was cut off or edited; restore it, or remove it "
                f"and measure again: fasterseg-bench ops --table {path}"
            ) from error
        return cls.from_json(data, str(path))

    @classmethod
    def from_json(cls, data: Any, path: str) -> LatencyTable:
        """Read the content of a table file; `path` names it in messages.

        Raises:
            ConfigError: see `load`.
        """
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise ConfigError(
                f"{path} is not a latency table of schema {SCHEMA}; measure one with: "
                "fasterseg-bench ops --table FILE"
            )
        try:
            return cls._from_json(data, path)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ConfigError(f"{path}: not a latency table ({error!r})") from error

    @classmethod
    def _from_json(cls, data: Mapping[str, Any], path: str) -> LatencyTable:
        statistic = str(data["statistic"])
        for key in data["rows"]:
            parse_key(key)
        calibration = data.get("calibration")
        return cls(
            device=from_mapping(data["device"], DeviceInfo, f"{path}: device"),
            backend=str(data["backend"]),
            precision=data["precision"],
            size=Size.parse(data["size"]),
            batch=int(data["batch"]),
            protocol=dict(data["protocol"]),
            statistic=statistic,
            upsample=str(data["upsample"]),
            unpriced=frozenset(data["unpriced"]),
            commit=str(data["commit"]),
            measured_on=str(data["measured_on"]),
            rows={
                key: _milliseconds(row[f"{statistic}_ms"], f"{path}: {key}")
                for key, row in data["rows"].items()
            },
            calibration=(
                from_mapping(calibration, Calibration, f"{path}: calibration")
                if calibration
                else None
            ),
            conditions=dict(data.get("conditions", {})),
            path=path,
        )

    def with_rows(self, rows: Mapping[str, float]) -> LatencyTable:
        """The same table with further or other rows."""
        return replace(self, rows={**self.rows, **rows})


_CHECKED: Final = ("backend", "precision", "size", "batch", "upsample")


def _milliseconds(value: Any, where: str) -> float:
    ms = float(value)
    if not (math.isfinite(ms) and ms >= 0):
        raise ConfigError(f"{where} is {value} ms, which no measurement gives; measure it again")
    return ms


def _shown(value: Any) -> str:
    """A value for people: no threads asked for are the runtime's default."""
    return "default" if value is None else str(value)
