"""The stages of method fasterseg: `pretrain`, `cosearch`, and `derive` what was searched."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from fasterseg.bench.tables import TableFile
from fasterseg.retarget.measured import Measurements
from fasterseg.retarget.stage_comparison import draw_comparison
from fasterseg.retarget.stage_context import (
    COMPARISON,
    GENOTYPE,
    SEARCH,
    TABLE,
    TEACHER,
    Run,
    Stage,
    digest_of,
    write_json,
)
from fasterseg.retarget.stage_measure import load_table
from fasterseg.retarget.stage_mixture import MixtureRun, found_networks, last_record, watched
from fasterseg.retarget.stage_search import MEASURED, pricer, target_pricer
from fasterseg.retarget.stage_split import split_of, split_source, store_split
from fasterseg.retarget.stage_training import final_file, proceed

if TYPE_CHECKING:
    from fasterseg.search.cosettings import MixtureSettings

PRETRAINED: Final = "pretrain"
COSEARCHED: Final = "cosearch"


def _mixture_settings(run: Run, stage: str, target_ms: float = 0.0) -> MixtureSettings:
    settings = run.settings
    chosen = settings.pretrain if stage == PRETRAINED else settings.cosearch
    return chosen.mixture(run.space, run.spec.name, settings.seed, target_ms)


def pretraining(run: Run) -> MixtureRun:
    """The training of the weights at equal logits."""
    return _mixture(run, _mixture_settings(run, PRETRAINED))


def cosearching(run: Run) -> MixtureRun:
    """The training of logits and weights."""
    file = load_table(run)
    target_ms = run.settings.targets(target_pricer(run, file))[0]
    settings = _mixture_settings(run, COSEARCHED, target_ms)
    return _mixture(run, settings, start=run.path(PRETRAINED), table=file.table())


def _mixture(run: Run, settings: MixtureSettings, **options: Any) -> MixtureRun:
    return MixtureRun(
        settings,
        run.spec,
        run.root,
        split_of(run),
        run.device,
        run.group,
        tell=run.tell,
        **options,
    )


def _pretrain(run: Run) -> bool:
    store_split(run)
    return proceed(pretraining(run).trainer(run.path(PRETRAINED)), run.spec, run.hooks)


def _cosearch(run: Run) -> bool:
    from fasterseg.search.corecord import did_not_move

    mixture = cosearching(run)
    trainer = mixture.trainer(run.path(COSEARCHED))
    between = watched(mixture, trainer)
    if not proceed(trainer, run.spec, run.hooks, between=between):
        return False
    between()
    if warning := did_not_move(last_record(run.path(COSEARCHED))):
        run.hooks.warn(warning)
    return True


def _derive(run: Run) -> bool:
    mixture = cosearching(run)
    student, teacher, record = found_networks(mixture, run.path(COSEARCHED))
    write_json(run.path(TEACHER), teacher.to_json())
    write_json(run.path(GENOTYPE), student.to_json())
    file = TableFile.load(run.path(TABLE))
    measurements = Measurements(file, run.path(MEASURED), on_progress=run.hooks.measured)
    known = measurements([student])[student.digest()]
    measured_ms = known.ms(run.settings.measure.statistic)
    entry = {
        "target_ms": mixture.settings.cosearch.target_ms,
        "chosen": student.digest(),
        "how": "fasterseg",
        "file": GENOTYPE,
        "predicted_ms": known.predicted_ms,
        "measured_ms": measured_ms,
        "miou": record["miou"][record["set"]] / 100,
    }
    _tell(run, measured_ms, entry["target_ms"])
    draw_comparison(run, pricer(file), measurements, entry)
    summary = {
        "method": run.settings.method,
        "statistic": run.settings.measure.statistic,
        "seed": run.settings.seed,
        "entropy": record["entropy"]["student"],
        "targets": [entry],
        "pareto": [],
    }
    write_json(run.path(SEARCH), summary)
    return True


def _tell(run: Run, measured_ms: float, target_ms: float) -> None:
    run.tell(f"  student: {measured_ms:.3f} ms measured -> {run.path(GENOTYPE)}")
    if measured_ms > target_ms:
        run.hooks.warn(
            f"the derived network takes {measured_ms:.3f} ms, above the target of {target_ms:g}: "
            "this method's target is no hard cap; method evolve keeps it"
        )


def _pretrain_settings(run: Run) -> dict[str, Any]:
    return {
        "dataset": run.dataset,
        "split": asdict(run.settings.split),
        "pretrain": _mixture_settings(run, PRETRAINED).to_json(),
    }


def _cosearch_settings(run: Run) -> dict[str, Any]:
    settings = run.settings
    return {
        "dataset": run.dataset,
        "split": asdict(settings.split),
        "targets_ms": settings.targets_ms,
        "target_fps": settings.target_fps,
        "target_share": settings.target_share,
        "target_model": settings.target_model if settings.target_share else "",
        "cosearch": _mixture_settings(run, COSEARCHED).to_json(),
    }


def _derive_settings(run: Run) -> dict[str, Any]:
    return {
        "statistic": run.settings.measure.statistic,
        "compare_random": run.settings.train.compare_random,
    }


PRETRAIN: Final = Stage(_pretrain_settings, split_source, _pretrain, (PRETRAINED,))
COSEARCH: Final = Stage(
    _cosearch_settings,
    lambda run: {
        **split_source(run),
        TABLE: digest_of(run.path(TABLE)),
        "pretraining": digest_of(final_file(run.path(PRETRAINED))),
    },
    _cosearch,
    (COSEARCHED,),
)
DERIVE: Final = Stage(
    _derive_settings,
    lambda run: {"co-search": digest_of(final_file(run.path(COSEARCHED)))},
    _derive,
    (SEARCH, "genotype*.json", TEACHER, COMPARISON, MEASURED),
)
