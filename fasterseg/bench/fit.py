"""How good predictions of latencies are: errors, rank correlation, and the linear correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from fasterseg.arch.latency import Calibration
from fasterseg.errors import UsageError

WITHIN: Final = 0.10
_TERMS: Final = 3


@dataclass(frozen=True, slots=True)
class Quality:
    """Predictions against measurements; errors are shares of the measured value.

    Attributes:
        mean: mean absolute error.
        p90: 90th percentile of the absolute errors.
        within_10: share of networks whose error is at most 10 %.
        tau: Kendall's tau-b; None where all predictions are equal.
    """

    mean: float
    p90: float
    within_10: float
    tau: float | None

    def to_json(self) -> dict[str, Any]:
        """The fields, rounded."""
        return {
            name: None if value is None else round(value, 4) for name, value in asdict(self).items()
        }


def quality(predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> Quality:
    """Compare predictions with measurements of the same networks."""
    errors = errors_of(predicted_ms, measured_ms)
    return Quality(
        mean=math.fsum(errors) / len(errors),
        p90=float(np.percentile(errors, 90)),
        within_10=sum(error <= WITHIN for error in errors) / len(errors),
        tau=kendall_tau(predicted_ms, measured_ms),
    )


def errors_of(predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> list[float]:
    """Absolute errors as shares of the measured value."""
    pairs = zip(predicted_ms, measured_ms, strict=True)
    return [abs(guess - truth) / truth for guess, truth in pairs]


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b: 1 for the same order, -1 for the reverse; None where one is constant."""
    agree = ties_first = ties_second = 0
    count = len(first)
    for i in range(count):
        for j in range(i):
            a, b = first[i] - first[j], second[i] - second[j]
            agree += (a * b > 0) - (a * b < 0)
            ties_first += a == 0
            ties_second += b == 0
    pairs = count * (count - 1) // 2
    scale = math.sqrt((pairs - ties_first) * (pairs - ties_second))
    return agree / scale if scale else None


@dataclass(frozen=True, slots=True)
class Priced:
    """One network: what its rows add up to, and what it took.

    Attributes:
        sum_ms: sum of the rows of its operators.
        operators: number of them.
        measured_ms: the whole network.
    """

    sum_ms: float
    operators: int
    measured_ms: float


def fit(nets: Sequence[Priced]) -> Calibration:
    """The correction with the least squared relative error.

    Raises:
        UsageError: there are too few networks.
    """
    if len(nets) <= _TERMS:
        raise UsageError(f"{len(nets)} networks cannot settle {_TERMS} numbers; measure more")
    terms = np.array([[net.sum_ms, net.operators, 1.0] for net in nets])
    measured = np.array([net.measured_ms for net in nets])
    # Divided by what was measured, so that an error counts as a share of it.
    solution, *_ = np.linalg.lstsq(terms / measured[:, None], np.ones(len(nets)), rcond=None)
    scale, per_op, offset = (float(value) for value in solution)
    return Calibration(scale, per_op, offset)


def predict(calibration: Calibration, nets: Sequence[Priced]) -> list[float]:
    """Corrected latencies, ms, as `LatencyTable.price` gives them."""
    return [
        calibration.scale * net.sum_ms
        + calibration.per_op_ms * net.operators
        + calibration.offset_ms
        for net in nets
    ]


def left_out_error(nets: Sequence[Priced]) -> float:
    """Mean error over networks, each predicted by a fit to all the others."""
    errors = []
    for index, net in enumerate(nets):
        others = [*nets[:index], *nets[index + 1 :]]
        [guess] = predict(fit(others), [net])
        errors += errors_of([guess], [net.measured_ms])
    return math.fsum(errors) / len(errors)


def best_constant(measured_ms: Sequence[float]) -> float:
    """The one figure with the least mean relative error: it is one of the measured ones."""
    return min(measured_ms, key=lambda guess: sum(abs(guess - ms) / ms for ms in measured_ms))
