"""Steps of pretraining and co-search: what learns, what does not, and exact resumption."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from fasterseg.errors import ConfigError  # noqa: E402
from fasterseg.search.corecord import EpochRecorder  # noqa: E402
from fasterseg.search.cosearch import CoSearchLearner, PretrainLearner, make_learner  # noqa: E402
from fasterseg.search.cosettings import CoSearchSettings, MixtureSettings  # noqa: E402
from fasterseg.search.distributed import Group  # noqa: E402
from fasterseg.search.mixture import KINDS  # noqa: E402
from fasterseg.search.settings import OptimizerSettings  # noqa: E402
from fasterseg.search.trainer import Trainer  # noqa: E402
from tests.unit.search.mixture_kit import (  # noqa: E402
    MadeUpSamples,
    made_up_table,
    mixture_settings,
    tiny_space,
)

pytestmark = pytest.mark.torch

SEARCH = CoSearchSettings(target_ms=0.5, arch_lr=0.05)

CoSearch = PretrainLearner | CoSearchLearner

SMALL = tiny_space(final_rates=((16, 8),))
"""Without the scale that most weights are at."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def learner_of(settings: MixtureSettings) -> CoSearch:
    return make_learner(
        settings, settings.space, MadeUpSamples(1), MadeUpSamples(2), made_up_table(settings.space)
    )


def take_steps(learner: CoSearch, numbers: range) -> list[dict[str, float]]:
    values = []
    batches = MadeUpSamples(1).batches(2 * numbers.start)
    for number in numbers:
        values.append(learner.step(number, *next(batches), 0.02, 0.0))
    return values


def copied(learner: CoSearch) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in learner.network.state_dict().items()}


def moved(learner: CoSearch, before: dict[str, Tensor], prefix: str) -> bool:
    after = learner.network.state_dict()
    return any(not torch.equal(after[n], v) for n, v in before.items() if n.startswith(prefix))


def test_pretraining_trains_the_own_parts_of_both_and_no_logits() -> None:
    learner = learner_of(mixture_settings("pretrain"))
    before = copied(learner)
    values = take_steps(learner, range(2))
    assert {"total", "max", "min", "random_teacher", "random_student", "grad_norm"} == set(
        values[0]
    )
    parts = ("max", "min", "random_teacher", "random_student")
    assert values[0]["total"] == pytest.approx(sum(values[0][name] for name in parts))
    assert not moved(learner, before, "logits.")
    for kind in KINDS:
        for part in ("stem", "squeeze", "fuse", "ffm", "head"):
            assert moved(learner, before, f"own.{kind}.{part}."), (kind, part)


def test_in_the_original_the_students_own_parts_stay_random() -> None:
    learner = learner_of(mixture_settings("pretrain", cosearch=CoSearchSettings(original=True)))
    before = copied(learner)
    take_steps(learner, range(1))
    assert moved(learner, before, "own.teacher.")
    assert not moved(learner, before, "own.student.")


@pytest.mark.parametrize(
    "search", [SEARCH, replace(SEARCH, original=True), replace(SEARCH, estimator="reinmax")]
)
def test_a_search_moves_every_kind_of_logits_of_both_networks(search: CoSearchSettings) -> None:
    learner = learner_of(mixture_settings(cosearch=search))
    before = copied(learner)
    values = take_steps(learner, range(2))
    assert {"total", "teacher", "student", "max", "min", "logits_teacher", "logits_student",
            "latency_ms", "multiplier", "grad_norm"} == set(values[0])  # fmt: skip
    for name in ("alpha", "beta", "ratio"):
        for index in range(2 if name == "beta" else 3):
            assert moved(learner, before, f"logits.student.{name}.{index}"), (name, index)
    assert moved(learner, before, "logits.teacher.alpha")
    assert moved(learner, before, "logits.teacher.beta")
    # The teacher is at full width: there is nothing to choose.
    assert not moved(learner, before, "logits.teacher.ratio")
    assert moved(learner, before, "own.student.")
    assert moved(learner, before, "cells.")


def test_half_precision_gives_nearly_the_same_step() -> None:
    values = [
        take_steps(
            learner_of(mixture_settings(cosearch=SEARCH, space=SMALL, precision=precision)),
            range(1),
        )[0]
        for precision in ("fp32", "bf16")
    ]
    assert values[1] == pytest.approx(values[0], rel=0.1)
    assert values[1]["total"] != values[0]["total"]


def test_the_weights_optimiser_leaves_the_logits_alone() -> None:
    """Its decay would pull undecided logits together, and its rate is not theirs."""
    optimizer = OptimizerSettings(name="sgd", weight_decay=0.5, decay_all=True, warmup=0.0)
    learner = learner_of(
        mixture_settings(cosearch=replace(SEARCH, arch_lr=1e-12), optimizer=optimizer, space=SMALL)
    )
    before = copied(learner)
    take_steps(learner, range(1))
    for name, value in learner.network.state_dict().items():
        if name.startswith("logits."):
            assert torch.allclose(value, before[name], atol=1e-9)


@pytest.mark.parametrize("stage", ["pretrain", "search"])
def test_a_resumed_run_goes_on_to_the_same_bits(stage: str) -> None:
    settings = mixture_settings(stage, cosearch=SEARCH, space=SMALL)  # type: ignore[arg-type]
    whole = learner_of(settings)
    expected = take_steps(whole, range(2))
    first = learner_of(settings)
    take_steps(first, range(1))
    state = first.state()
    torch.rand(5)
    second = learner_of(settings)
    second.restore(state)
    assert take_steps(second, range(1, 2)) == expected[1:]
    theirs = second.network.state_dict()
    assert all(torch.equal(v, theirs[n]) for n, v in whole.network.state_dict().items())
    again = second.state()
    if isinstance(whole, CoSearchLearner):
        assert again["pull"] == whole.state()["pull"]


def test_the_logits_learn_from_pictures_of_their_own_by_the_number_of_the_step() -> None:
    settings = mixture_settings(cosearch=SEARCH, space=SMALL)
    architecture = MadeUpSamples(2)
    learner = make_learner(
        settings, settings.space, MadeUpSamples(1), architecture, made_up_table(settings.space)
    )
    take_steps(learner, range(2))
    take_steps(learner, range(3, 4))
    assert architecture.asked == [0, 2, 6]


@pytest.mark.filterwarnings("ignore:invalid value")
def test_numbers_that_are_not_finite_change_no_weight() -> None:
    learner = learner_of(mixture_settings(cosearch=SEARCH, space=SMALL))
    with torch.no_grad():
        learner.network.arch("student").alpha[0][0, 0] = torch.inf
    before = copied(learner)
    values = take_steps(learner, range(1))[0]
    assert not all(math.isfinite(value) for value in values.values())
    trained = {name for name, _ in learner.network.named_parameters()}
    kept = {name: before[name] for name in trained if not name.startswith("logits.")}
    assert not moved(learner, kept, "")


def test_the_temperature_falls_over_the_run() -> None:
    search = replace(SEARCH, temperature=4.0, final_temperature=0.25)
    learner = learner_of(mixture_settings(steps=4, cosearch=search, space=SMALL))
    assert [learner._temperature(number) for number in (0, 2, 4)] == [4.0, 1.0, 0.25]


def test_the_trainer_runs_a_search_and_every_epoch_is_noted_once(tmp_path: Path) -> None:
    settings = mixture_settings(steps=4, cosearch=SEARCH, space=SMALL)
    table = made_up_table(settings.space)

    def trainer_of() -> tuple[Trainer, EpochRecorder]:
        learner = make_learner(settings, settings.space, MadeUpSamples(1), MadeUpSamples(2), table)
        trainer = Trainer(
            settings.train, {"space": "tiny"}, MadeUpSamples(1), tmp_path, learner=learner
        )
        return trainer, EpochRecorder(learner, trainer.journal, table)

    def run(trainer: Trainer, recorder: EpochRecorder, until: int) -> None:
        trainer.run(before_step=lambda: note(recorder, trainer), stop=lambda: trainer.step >= until)
        recorder(trainer.step)

    run(*trainer_of(), 2)
    trainer, recorder = trainer_of()
    assert trainer.resume()
    run(trainer, recorder, 4)
    records = [record for record in trainer.journal.read() if "entropy" in record]
    assert [(record["step"], record["epoch"]) for record in records] == [(2, 1), (4, 2)]
    last = records[-1]
    assert last["latency_ms"] == last["predicted_ms"][last["set"]]
    assert set(last["entropy"]) == set(last["margin"]) == {"student", "teacher"}
    assert set(last["groups"]) == {
        "student.alpha", "student.beta", "student.ratio", "teacher.alpha", "teacher.beta",
    }  # fmt: skip
    assert len(last["logits"]["student"]["ratio"]) == 3
    json.dumps(last)


def note(recorder: EpochRecorder, trainer: Trainer) -> None:
    recorder(trainer.step)


def test_what_a_stage_lacks_is_named() -> None:
    settings = mixture_settings(cosearch=SEARCH, space=SMALL)
    samples = MadeUpSamples(1)
    with pytest.raises(ConfigError, match="second stream"):
        make_learner(settings, settings.space, samples)
    with pytest.raises(ConfigError, match="fasterseg-bench ops"):
        make_learner(settings, settings.space, samples, samples)
    with pytest.raises(ConfigError, match="one process"):
        make_learner(
            mixture_settings("pretrain"), settings.space, samples, group=Group(rank=0, world=2)
        )


def test_a_search_starts_from_a_pretrained_supernet() -> None:
    pretrained = learner_of(mixture_settings("pretrain", space=SMALL))
    take_steps(pretrained, range(1))
    settings = mixture_settings(cosearch=CoSearchSettings(), space=SMALL)
    start = pretrained.network.state_dict()
    learner = make_learner(
        settings, settings.space, MadeUpSamples(1), MadeUpSamples(2), start=start
    )
    assert all(torch.equal(v, start[n]) for n, v in learner.network.state_dict().items())
