"""Does a search keep its target? Quick searches at several targets and seeds, each net timed anew.

    python benchmarks/search_constraint.py RUN --data CamVid/ [--config camvid-cpu] [-o record.json]

RUN is the output folder of `fasterseg-search run`, whose supernet and latency table are used. Every
search scores few networks on few pictures: what is tried here is the latency of the network that is
chosen, not its accuracy. In the end all chosen networks are measured once more, in one session and
in another order than before, and held against the target, the floor and their prediction. The
command goes on where it was stopped; the same folder of work must be given (--work).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from fasterseg.arch.genotype import Genotype
from fasterseg.bench.records import current_commit, now
from fasterseg.bench.tables import TableFile
from fasterseg.cache import write_atomic
from fasterseg.datasets import dataset
from fasterseg.retarget.measured import Measurements
from fasterseg.retarget.settings import RetargetSettings, load_run
from fasterseg.retarget.stage_context import SEARCH, TABLE, Hooks, Run, read_json
from fasterseg.retarget.stage_search import target_pricer
from fasterseg.retarget.stages import run_stages
from fasterseg.search.distributed import Group
from fasterseg.search.evolve import EvolveSettings

SHARES: Final = (0.6, 0.7, 0.8, 0.9, 1.0)
"""Targets as shares of the predicted latency of the released student."""

SEEDS: Final = (1, 2, 3, 4)
MOST: Final = 1.02
LEAST: Final = 0.85
PREDICTED: Final = 0.08

QUICK: Final = EvolveSettings(
    population=6, generations=2, parents=3, top_k=4, headroom=0.02, frames=4, recalibration=4,
    precision="bf16",
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One search, and what its network took afterwards.

    Attributes:
        target_ms: what the network may take.
        seed: of the search.
        digest: of the chosen network.
        predicted_ms: by the calibrated table.
        measured_ms: when it was chosen.
        again_ms: measured anew.
    """

    target_ms: float
    seed: int
    digest: str
    predicted_ms: float
    measured_ms: float
    again_ms: float

    @property
    def faults(self) -> list[str]:
        """What it should have kept and did not."""
        share = self.again_ms / self.target_ms
        error = abs(self.predicted_ms / self.again_ms - 1)
        checks = (
            (share <= MOST, f"{share:.3f} of the target"),
            (share >= LEAST, f"only {share:.3f} of the target"),
            (error <= PREDICTED, f"predicted {error:.1%} off"),
        )
        return [fault for kept, fault in checks if not kept]


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, measure again, and say what held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run with its supernet trained")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--config", default="camvid-cpu", help="settings of that run")
    parser.add_argument("--work", type=Path, default=Path("constraint"), help="for the searches")
    parser.add_argument("-o", "--output", type=Path, help="write the record here")
    given = parser.parse_args(arguments)
    settings = load_run(given.config)
    file = TableFile.load(given.run / TABLE)
    price = target_pricer(_run(given, settings, given.run), file)
    released_ms = price(settings.target_model)
    targets_ms = tuple(round(share * released_ms, 3) for share in SHARES)
    chosen = []
    for seed in SEEDS:
        chosen += [(seed, found) for found in _search(given, settings, targets_ms, seed)]
        print(f"seed {seed}: done", file=sys.stderr)
    trials = _measured_again(file, chosen)
    print("\n".join(lines(trials)))
    if given.output:
        write_atomic(given.output, _record(file, trials).encode())
    return 0 if all(not trial.faults for trial in trials) else 6


def _run(given: argparse.Namespace, settings: RetargetSettings, folder: Path) -> Run:
    spec = dataset(settings.dataset)
    hooks = Hooks(note=lambda line: print(f"  {line}", file=sys.stderr))
    return Run(
        folder, settings, spec, given.data, "cpu", Group(), hooks,
        table=given.run / TABLE, weights=given.run,
    )  # fmt: skip


def _search(
    given: argparse.Namespace, settings: RetargetSettings, targets_ms: tuple[float, ...], seed: int
) -> list[dict[str, Any]]:
    """What the searches of one seed chose."""
    folder = given.work / f"seed{seed}"
    train = replace(settings.train, compare_random=0)
    quick = replace(
        settings,
        targets_ms=targets_ms,
        target_share=None,
        search=replace(QUICK, seed=seed),
        train=train,
    )
    run_stages(_run(given, quick, folder), ["measure", "supernet", "search"])
    found: list[dict[str, Any]] = read_json(folder / SEARCH)["targets"]
    return [{**one, "genotype": read_json(folder / one["file"])} for one in found]


def _measured_again(file: TableFile, chosen: Sequence[tuple[int, dict[str, Any]]]) -> list[Trial]:
    genotypes = [Genotype.from_json(found["genotype"]) for _, found in chosen]
    times = Measurements(file)(list({g.digest(): g for g in genotypes}.values()), passes=1)
    return [
        Trial(
            target_ms=found["target_ms"],
            seed=seed,
            digest=genotype.digest(),
            predicted_ms=found["predicted_ms"],
            measured_ms=found["measured_ms"],
            again_ms=times[genotype.digest()].ms(file.statistic),
        )
        for genotype, (seed, found) in zip(genotypes, chosen, strict=True)
    ]


def lines(trials: Sequence[Trial]) -> Iterator[str]:
    """A row for each search, and how many kept everything."""
    yield "target ms  seed  predicted  measured  again  again/target"
    for trial in trials:
        yield (
            f"{trial.target_ms:9.2f}  {trial.seed:4d}  {trial.predicted_ms:9.2f}  "
            f"{trial.measured_ms:8.2f}  {trial.again_ms:5.2f}  "
            f"{trial.again_ms / trial.target_ms:12.3f}  {'; '.join(trial.faults)}"
        )
    kept = sum(not trial.faults for trial in trials)
    yield (
        f"{kept} of {len(trials)} keep all three: measured again at most {MOST:g} and at least "
        f"{LEAST:g} of the target, within {PREDICTED:.0%} of the prediction"
    )


def _record(file: TableFile, trials: Sequence[Trial]) -> str:
    record = {
        "made": now(),
        "commit": current_commit(),
        "device": file.device.to_json(),
        "statistic": file.statistic,
        "table": {"measured_on": file.measured_on, "report": file.report},
        "search": asdict(QUICK),
        "trials": [{**asdict(trial), "faults": trial.faults} for trial in trials],
    }
    return json.dumps(record, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
