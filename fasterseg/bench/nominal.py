"""A latency table by formula: of no device, always the same, for trials and where there is none.

An operator takes as long as its multiply-adds or the bytes it moves, whichever is longer, and a
fixed time on top:

    ms = 1000 * max(multiply-adds / macs_per_s, bytes / bytes_per_s) + operator_ms

Bytes are those of every step's input, output and parameters; a ReLU is part of the step before it.
What such a table says holds for no machine. It is a `TableFile` like those that are measured, so
whatever reads one reads this too, under the name "nominal".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import fasterseg
from fasterseg.arch.genotype import Genotype
from fasterseg.arch.operators import Layer, OpSpec, Relu, expand, macs
from fasterseg.arch.plan import plan
from fasterseg.arch.single import is_nothing
from fasterseg.arch.space import Placed, SearchSpace, operators_of
from fasterseg.bench.tables import STATISTICS, TableFile, Times
from fasterseg.bench.timing import TimingProtocol
from fasterseg.types import DeviceInfo, Precision, Size

FORMULA: Final = "formula"
"""Backend of such a table."""

NOT_MEASURED: Final = "nominal, nothing was measured"

DEVICE: Final = DeviceInfo("nominal", NOT_MEASURED, FORMULA, None, None, "none")
"""The device that is none."""

_BYTES: Final[dict[Precision, int]] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast the nominal device is; the defaults resemble one core of a server of 2023.

    Attributes:
        macs_per_s: multiply-adds a second.
        bytes_per_s: bytes moved a second.
        operator_ms: fixed time of every operator.
    """

    macs_per_s: float = 5e10
    bytes_per_s: float = 1e10
    operator_ms: float = 0.02


def nominal_table(
    space: SearchSpace,
    size: Size,
    path: Path,
    *,
    rates: Rates | None = None,
    precision: Precision = "fp32",
    also: Sequence[Genotype] = (),
) -> TableFile:
    """The table of the nominal device, complete; not saved.

    Args:
        space: what networks are made of.
        size: of the frames.
        path: where it will be saved.
        rates: how fast the device is.
        precision: of the operators; decides how many bytes they move.
        also: networks outside the space that are to have a price as well.

    Raises:
        UsageError: the size is too small.
    """
    rates = rates or Rates()
    wanted = [*space.operators(size), *operators_of(plan(one, size) for one in also)]
    return TableFile(
        path=path,
        device=DEVICE,
        backend=FORMULA,
        precision=precision,
        size=size,
        batch=1,
        protocol=TimingProtocol(NOT_MEASURED),
        statistic="p50",
        granularity="inside",
        conditions={"device": DEVICE.id, "threads": None, "tail": "graph", **asdict(rates)},
        space=space,
        draw=None,
        commit=f"fasterseg {fasterseg.__version__}",
        rows={placed.spec.key(): _row(placed, rates, precision) for placed in wanted},
    )


def is_nominal(file: TableFile) -> bool:
    """Whether a table is of the nominal device."""
    return file.device.id == DEVICE.id


def same_times(ms: float) -> Times:
    """One time for every statistic: a formula does not vary."""
    return {f"{statistic}_ms": ms for statistic in STATISTICS}


def operator_ms(spec: OpSpec, rates: Rates, precision: Precision) -> float:
    """What the formula gives for one operator, ms, to a hundredth of a microsecond."""
    if is_nothing(spec):
        return 0.0
    moved = sum(map(_elements, expand(spec))) * _BYTES[precision]
    busy_s = max(macs(spec) / rates.macs_per_s, moved / rates.bytes_per_s)
    return round(1e3 * busy_s + rates.operator_ms, 5)


def _elements(layer: Layer) -> int:
    if isinstance(layer.step, Relu):
        return 0
    moved = layer.in_channels * layer.in_size.pixels + layer.out_channels * layer.out_size.pixels
    return moved + layer.parameters


def _row(placed: Placed, rates: Rates, precision: Precision) -> dict[str, Any]:
    times = dict(same_times(operator_ms(placed.spec, rates, precision)))
    return {"inside": times, "alone": dict(times), "count": 0, "cov": 0.0}
