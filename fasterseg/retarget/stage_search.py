"""The stage `search`: evolution beside chance and hand, the best ones measured, one chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.bench.tables import TableFile
from fasterseg.retarget.choose import Chosen, choose
from fasterseg.retarget.measured import Measurements
from fasterseg.retarget.stage_comparison import draw_comparison
from fasterseg.retarget.stage_context import (
    COMPARISON,
    GENOTYPE,
    SEARCH,
    TABLE,
    Run,
    Stage,
    write_json,
)
from fasterseg.retarget.stage_context import digest_of as digest
from fasterseg.retarget.stage_measure import load_table
from fasterseg.retarget.stage_split import pairs_of, split_source
from fasterseg.retarget.stage_supernet import load_supernet, supernet_source
from fasterseg.runtime.model import resolve_model
from fasterseg.search.evolve import (
    Evolution,
    Price,
    evolve,
    hand_baselines,
    pareto,
    random_search,
)
from fasterseg.search.ledger import Ledger
from fasterseg.search.pareto import Scored, best_first

if TYPE_CHECKING:
    from fasterseg.search.subnet_scoring import SubnetScorer
    from fasterseg.search.supernet import SuperNet

LEDGER: Final = "search/scored.jsonl"
MEASURED: Final = "search/measured.json"


def pricer(file: TableFile) -> Price:
    """Predicted latency of networks, each computed once."""
    table = file.table()

    @lru_cache(maxsize=1 << 16)
    def price(genotype: Genotype) -> float:
        return table.price(plan(genotype, file.size)).ms

    return price


def target_pricer(run: Run, file: TableFile) -> Callable[[str], float]:
    """Predicted latency of models by name, with the classes of the run."""
    price = pricer(file)
    return lambda name: price(resolve_model(name).genotype.with_classes(len(run.spec.labels)))


def make_scorer(run: Run, supernet: SuperNet) -> SubnetScorer:
    """What scores networks of a supernet on held-out training pictures."""
    from fasterseg.search.subnet_scoring import SubnetScorer

    return SubnetScorer(
        supernet,
        run.spec,
        pairs_of(run, "held_out"),
        pairs_of(run, "weights"),
        run.size,
        device=run.device,
        group=run.group,
    )


class _Search:
    """What the targets of a run share: prices, scores and measurements."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.file = load_table(run)
        self.price = pricer(self.file)
        scorer = make_scorer(run, load_supernet(run))
        self.ledger = Ledger(run.path(LEDGER), scorer.key, writes=run.group.leads)
        self.measurements = Measurements(
            self.file, run.path(MEASURED) if run.group.leads else None, on_progress=self._told
        )
        self._scorer = scorer
        self._done = 0

    def _told(self, progress: Any) -> None:
        self.run.hooks.measured(progress)
        self.run.check_alone()

    def score(self, genotypes: Sequence[Genotype]) -> list[float]:
        """MIoU of networks in [0, 1]; the run can be stopped before."""
        self.run.check()
        scores = self._scorer(genotypes)
        self._done += len(genotypes)
        self.run.tell(f"  {self._done} networks scored, the last {max(scores):.2%} at best")
        return scores

    def reach(self, target_ms: float) -> dict[str, Any]:
        """Search for one target: what was found, and what was chosen, as JSON values."""
        settings = self.run.settings.search
        shared = (self.run.space, self.price, self.score, target_ms)
        found = evolve(*shared, settings, self.ledger)
        chance = random_search(*shared, settings, self.ledger)
        hand = hand_baselines(*shared, self.ledger)
        self._tell(target_ms, found, chance, hand)
        chosen = self.run.group.share(
            self._choose([*found.scored, *chance.scored, *hand], found.floor, target_ms)
        )
        assert chosen is not None
        return {
            **chosen.to_json(),
            "how": chosen.scored.how,
            "genotype": chosen.scored.genotype.to_json(),
            "evolve": found.to_json(),
            "random": chance.to_json(),
            "hand": [{"digest": one.digest, "ms": one.ms, "miou": one.miou} for one in hand],
        }

    def _choose(self, scored: Sequence[Scored], floor: float, target_ms: float) -> Chosen | None:
        """The leader measures, and the others wait."""
        if not self.run.group.leads:
            return None
        settings = self.run.settings
        return choose(
            scored,
            self.measurements,
            target_ms,
            settings.measure.statistic,
            headroom=settings.search.headroom,
            floor=floor,
            first=settings.search.top_k,
        )

    def _tell(
        self, target_ms: float, found: Evolution, chance: Evolution, hand: Sequence[Scored]
    ) -> None:
        best = best_first(hand)[0].miou if hand else float("nan")
        self.run.tell(
            f"  at most {target_ms:g} ms: evolution {found.best.miou:.2%} ({found.evaluations} "
            f"networks), random search {chance.best.miou:.2%} ({chance.evaluations}), one operator "
            f"everywhere {best:.2%}"
        )
        if found.note:
            self.run.tell(f"  {found.note}")


def genotype_name(targets: Sequence[float], number: int) -> str:
    """File of the network of a target: the first one's has the plain name."""
    return GENOTYPE if number == 0 else f"genotype-{targets[number]:g}ms.json"


def _settings(run: Run) -> dict[str, Any]:
    settings = run.settings
    return {
        "size": settings.size,
        "statistic": settings.measure.statistic,
        "targets_ms": settings.targets_ms,
        "target_fps": settings.target_fps,
        "target_share": settings.target_share,
        "target_model": settings.target_model if settings.target_share else "",
        "search": asdict(settings.search),
        "compare_random": settings.train.compare_random,
    }


def _sources(run: Run) -> dict[str, str]:
    return {TABLE: digest(run.path(TABLE)), **supernet_source(run), **split_source(run)}


def _work(run: Run) -> bool:
    search = _Search(run)
    targets = run.settings.targets(target_pricer(run, search.file))
    results = []
    for number, target_ms in enumerate(targets):
        result = search.reach(target_ms)
        genotype = result.pop("genotype")
        name = genotype_name(targets, number)
        if run.group.leads:
            write_json(run.path(name), genotype)
        results.append({**result, "file": name})
        run.tell(
            f"  chosen: {result['chosen'][:12]}, {result['measured_ms']:.3f} ms measured, "
            f"{result['predicted_ms']:.3f} predicted -> {run.path(name)}"
        )
    if run.group.leads:
        draw_comparison(run, search.price, search.measurements, results[0])
        front = pareto(search.ledger.scored)
        summary = {
            "method": run.settings.method,
            "statistic": run.settings.measure.statistic,
            "seed": run.settings.seed,
            "targets": results,
            "pareto": [{"digest": p.digest, "ms": p.ms, "miou": p.miou} for p in front],
        }
        write_json(run.path(SEARCH), summary)
    run.group.share(None)
    return True


EVOLVE: Final = Stage(_settings, _sources, _work, (SEARCH, "genotype*.json", COMPARISON, MEASURED))
