"""The stage `supernet`: one network that holds all of the space, trained once for any device."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fasterseg.cache import write_atomic
from fasterseg.errors import UsageError
from fasterseg.retarget.stage_context import SPLIT, SUPERNET, Run, Stage, digest_of, plain
from fasterseg.retarget.stage_split import pairs_of, split_source, store_split
from fasterseg.retarget.stage_training import final_file, final_state, proceed

if TYPE_CHECKING:
    from fasterseg.retarget.settings import SupernetSettings
    from fasterseg.search.supernet import SuperNet
    from fasterseg.search.trainer import Trainer


def supernet_trainer(run: Run, folder: Path) -> Trainer:
    """The training of the supernet, at its beginning.

    Raises:
        SourceError: pictures cannot be read.
        UsageError: there are too few.
    """
    from fasterseg.search.data import make_samples
    from fasterseg.search.super_learner import SuperNetLearner
    from fasterseg.search.trainer import Trainer

    settings = supernet_settings(run)
    pairs = pairs_of(run, "weights")
    samples = make_samples(run.spec, run.root, settings, run.device, run.tell, pairs=pairs)
    learner = SuperNetLearner(
        settings,
        run.space,
        samples.shares,
        random_subnets=settings.random_subnets,
        distill=settings.distill,
        device=run.device,
        group=run.group,
    )
    return Trainer(
        settings,
        {"space": plain(asdict(run.space))},
        samples,
        folder,
        learner=learner,
        device=run.device,
        group=run.group,
    )


def supernet_settings(run: Run) -> SupernetSettings:
    """The settings of the training, which method evolve cannot be without."""
    assert run.settings.supernet is not None
    return replace(run.settings.supernet, dataset=run.spec.name)


def load_supernet(run: Run) -> SuperNet:
    """The trained supernet (its averaged weights), in eval mode.

    Raises:
        ConfigError: there is none.
        WeightsError: its file is damaged.
    """
    network = new_supernet(run)
    network.load_state_dict(final_state(run.path(SUPERNET))["average"])
    return network.eval()


def new_supernet(run: Run) -> SuperNet:
    """A supernet of the run's space with any weights, where the run trains."""
    from fasterseg.search.supernet import SuperNet

    return SuperNet(run.space).to(run.device)


def supernet_source(run: Run) -> dict[str, str]:
    """What stages that read the supernet depend on."""
    return {"supernet": digest_of(final_file(run.path(SUPERNET)))}


def _settings(run: Run) -> dict[str, Any]:
    return {
        "dataset": run.dataset,
        "space": asdict(run.space),
        "supernet": supernet_settings(run).to_json(),
        "split": asdict(run.settings.split),
    }


def _sources(run: Run) -> dict[str, str]:
    given = digest_of(final_file(run.weights / SUPERNET)) if run.weights else ""
    return {**split_source(run), "--supernet": given}


def _work(run: Run) -> bool:
    store_split(run)
    if run.weights is None:
        return proceed(supernet_trainer(run, run.path(SUPERNET)), run.spec, run.hooks)
    if run.group.leads:
        _take(run, run.weights)
    run.group.share(None)
    return True


def _take(run: Run, folder: Path) -> None:
    """The supernet of another run, if it has seen the same pictures and is of the same space."""
    from fasterseg.search.checkpoint import subject_of

    if digest_of(folder / SPLIT) != digest_of(run.path(SPLIT)):
        raise UsageError(
            f"the supernet of {folder} was trained on other pictures (see its {SPLIT}), so its "
            "scores on the held-out ones of this run would be too good. Train one: leave out "
            "--supernet"
        )
    subject = subject_of(final_state(folder / SUPERNET))
    if subject != {"space": plain(asdict(run.space))}:
        raise UsageError(
            f"the supernet of {folder} is of another search space than these settings; give the "
            "same [space], or train one: leave out --supernet"
        )
    source = final_file(folder / SUPERNET)
    write_atomic(run.path(SUPERNET) / source.name, source.read_bytes())


TRAIN_SUPERNET: Final = Stage(_settings, _sources, _work, (SUPERNET,))
