"""Random networks as fast as the chosen one, drawn and written down before any is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fasterseg.arch.genotype import Genotype
from fasterseg.bench.records import now
from fasterseg.errors import PerformanceError
from fasterseg.retarget.measured import TOLERANCE, Measurements, within_tolerance
from fasterseg.retarget.stage_context import COMPARISON, Run, write_json
from fasterseg.search.evolve import Price, equal_latency

_MOST: Final = 8
"""Networks that are drawn and measured for each one that is wanted, before it is given up."""


def draw_comparison(
    run: Run, price: Price, measurements: Measurements, chosen: Mapping[str, Any]
) -> None:
    """Draw by the run's seed, measure, keep those of equal measured latency; write them down.

    Those that the measurement rules out, and those beyond what is wanted, are written down as well.

    Args:
        run: whose `compare_random` says how many.
        price: predicted latency.
        measurements: of this device.
        chosen: entry of the chosen network in `search.json`.

    Raises:
        PerformanceError: too few are as fast, as measured.
        UsageError: too few are as fast, as predicted.
    """
    count = run.settings.train.compare_random
    drawn: list[Genotype] = []
    kept: list[str] = []
    wanted = count
    while len(kept) < count and wanted <= _MOST * count:
        drawn = equal_latency(
            run.space,
            price,
            chosen["predicted_ms"],
            wanted,
            run.settings.seed,
            taken=(chosen["chosen"],),
        )
        kept = _as_fast(run, measurements, drawn, chosen["measured_ms"])
        wanted += count
    if len(kept) < count:
        raise PerformanceError(
            f"{len(kept)} of {count} random networks take the measured "
            f"{chosen['measured_ms']:.3f} ms of the chosen one to within {TOLERANCE:.0%}, of "
            f"{len(drawn)} that were measured. Measure on an idle machine (--redo search), or "
            "compare with fewer: compare_random under [train]"
        )
    _write(run, drawn, kept[:count], measurements, chosen)


def _as_fast(
    run: Run, measurements: Measurements, drawn: Sequence[Genotype], ms: float
) -> list[str]:
    """Digests of the networks of equal measured latency, in the order in which they were drawn."""
    if not drawn:
        return []
    known = measurements(drawn)
    fitting = within_tolerance(known.values(), ms, run.settings.measure.statistic)
    digests = {one.genotype.digest() for one in fitting}
    return [genotype.digest() for genotype in drawn if genotype.digest() in digests]


def _write(
    run: Run,
    drawn: Sequence[Genotype],
    kept: Sequence[str],
    measurements: Measurements,
    chosen: Mapping[str, Any],
) -> None:
    statistic = run.settings.measure.statistic
    entries = [
        {
            "digest": genotype.digest(),
            "predicted_ms": measurements.known[genotype.digest()].predicted_ms,
            "measured_ms": measurements.known[genotype.digest()].ms(statistic),
            "genotype": genotype.to_json(),
        }
        for genotype in drawn
    ]
    data = {
        "drawn": now(),
        "seed": run.settings.seed,
        "statistic": statistic,
        "tolerance": TOLERANCE,
        "to": chosen["chosen"],
        "measured_ms": chosen["measured_ms"],
        "networks": [entry for entry in entries if entry["digest"] in kept],
        "ruled_out": [entry for entry in entries if entry["digest"] not in kept],
    }
    write_json(run.path(COMPARISON), data)
