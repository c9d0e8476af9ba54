"""Errors, rank correlation and the linear correction, against figures worked out by hand."""

from __future__ import annotations

import pytest

from fasterseg.bench.fit import (
    Priced,
    best_constant,
    fit,
    kendall_tau,
    left_out_error,
    predict,
    quality,
)
from fasterseg.errors import UsageError

NETS = [
    Priced(sum_ms, operators, 0.8 * sum_ms + 0.05 * operators + 2.0)
    for sum_ms, operators in [(10, 20), (14, 33), (22, 24), (31, 40), (45, 28), (52, 36)]
]


def test_quality_counts_shares_of_what_was_measured() -> None:
    found = quality([11.0, 18.0, 30.0, 40.0], [10.0, 20.0, 30.0, 50.0])
    assert found.mean == pytest.approx((0.1 + 0.1 + 0.0 + 0.2) / 4)
    assert found.within_10 == 0.75
    assert found.p90 == pytest.approx(0.17)
    assert found.tau == 1.0


@pytest.mark.parametrize(
    ("first", "second", "tau"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 3, 2, 4], 4 / 6),
        ([1, 1, 2, 3], [1, 2, 3, 4], 5 / (5 * 6) ** 0.5),
        ([5, 5, 5], [1, 2, 3], None),
    ],
)
def test_tau_is_kendalls_b(first: list[float], second: list[float], tau: float | None) -> None:
    assert kendall_tau(first, second) == pytest.approx(tau) if tau else tau is None


def test_a_fit_finds_the_correction_that_made_the_figures() -> None:
    found = fit(NETS)
    assert (found.scale, found.per_op_ms, found.offset_ms) == pytest.approx((0.8, 0.05, 2.0))
    assert predict(found, NETS) == pytest.approx([net.measured_ms for net in NETS])
    assert left_out_error(NETS) == pytest.approx(0.0, abs=1e-9)


def test_an_error_of_a_fit_counts_as_a_share() -> None:
    odd = [Priced(1.0, 1, 1.3), Priced(2.0, 1, 2.0), Priced(1000.0, 1, 1000.0)]
    nets = [*odd, Priced(100.0, 1, 100.0), Priced(500.0, 1, 500.0)]
    errors = [
        abs(guess / net.measured_ms - 1)
        for guess, net in zip(predict(fit(nets), nets), nets, strict=True)
    ]
    assert max(errors) < 0.2  # squared milliseconds would leave the first one 30 % off


def test_networks_of_equally_many_operators_are_fitted_too() -> None:
    nets = [Priced(float(n), 30, 2.0 * n + 1) for n in range(1, 8)]
    assert predict(fit(nets), nets) == pytest.approx([net.measured_ms for net in nets])


def test_too_few_networks_are_refused() -> None:
    with pytest.raises(UsageError, match="3 networks cannot settle 3"):
        fit(NETS[:3])


def test_the_best_constant_has_the_least_mean_share_of_error() -> None:
    assert best_constant([10.0, 11.0, 40.0]) == 11.0
    assert best_constant([10.0, 20.0, 20.0, 20.0]) == 20.0
