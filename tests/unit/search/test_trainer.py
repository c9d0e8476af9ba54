from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fasterseg.arch.genotype import Genotype  # noqa: E402
from fasterseg.datasets import DATASETS  # noqa: E402
from fasterseg.errors import ConfigError, OutputError  # noqa: E402
from fasterseg.metrics import ConfusionMatrix  # noqa: E402
from fasterseg.nn.network import Network  # noqa: E402
from fasterseg.nn.weights import to_arrays  # noqa: E402
from fasterseg.search import checkpoint  # noqa: E402
from fasterseg.search.journal import LOG, Progress  # noqa: E402
from fasterseg.search.learner import Learner  # noqa: E402
from fasterseg.search.scoring import evaluate  # noqa: E402
from fasterseg.search.settings import (  # noqa: E402
    AugmentSettings,
    LossSettings,
    OptimizerSettings,
    TrainSettings,
)
from fasterseg.search.trainer import (  # noqa: E402
    ROLLBACKS,
    Trainer,
    TrainingError,
)
from tests.unit.search.conftest import MakeSamples  # noqa: E402

pytestmark = pytest.mark.torch

MakeTrainer = Callable[..., Trainer]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Sums in the same order, whatever ran before in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_trainer(
    make_samples: MakeSamples, tiny_genotype: Genotype, tiny_settings: TrainSettings, tmp_path: Path
) -> MakeTrainer:
    def make(folder: str = "run", settings: TrainSettings = tiny_settings, **more: Any) -> Trainer:
        genotype = more.pop("genotype", tiny_genotype)
        of_learner = {key: more.pop(key) for key in ("start", "teacher") if key in more}
        samples = make_samples(settings)
        learner = Learner.of(genotype, settings, samples.shares, **of_learner)
        subject = {"genotype": genotype.to_json()}
        return Trainer(settings, subject, samples, tmp_path / folder, learner=learner, **more)

    return make


def stop_at(trainer: Trainer, step: int) -> Callable[[], bool]:
    return lambda: trainer.step >= step


def assert_same_weights(a: Trainer, b: Trainer) -> None:
    for one, other in ((a.network, b.network), (a.average, b.average)):
        theirs = other.state_dict()
        for name, value in one.state_dict().items():
            assert torch.equal(value, theirs[name]), name


def learner_of(trainer: Trainer) -> Learner:
    assert isinstance(trainer.learner, Learner)
    return trainer.learner


def log_of(trainer: Trainer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (trainer.folder / LOG).read_text().splitlines()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_in_two_parts_ends_with_the_same_bits(
    make_trainer: MakeTrainer, tiny_settings: TrainSettings, precision: str
) -> None:
    settings = replace(tiny_settings, precision=precision)  # type: ignore[arg-type]
    whole = make_trainer("whole", settings)
    assert whole.run()
    first = make_trainer("parts", settings)
    assert not first.run(stop=stop_at(first, 3))
    torch.rand(7)
    second = make_trainer("parts", settings)
    assert second.resume()
    assert second.step == 3
    assert second.run()
    assert_same_weights(whole, second)


def test_steps_after_the_last_checkpoint_are_done_again(make_trainer: MakeTrainer) -> None:
    whole = make_trainer("whole")
    whole.run()
    killed = make_trainer("killed")
    killed.run(stop=stop_at(killed, 2))
    # What a kill -9 leaves: steps that no checkpoint knows of.
    killed.train_step(*next(killed.samples.batches(4)))
    killed.journal.write({"step": 3})
    again = make_trainer("killed")
    again.resume()
    assert log_of(again) == []
    again.run()
    assert_same_weights(whole, again)


def test_the_same_seed_gives_the_same_run_and_another_one_does_not(
    make_trainer: MakeTrainer, tiny_settings: TrainSettings
) -> None:
    runs = [make_trainer(str(i)) for i in range(2)]
    runs.append(make_trainer("other", replace(tiny_settings, seed=5)))
    for trainer in runs:
        trainer.run(stop=stop_at(trainer, 2))
    assert_same_weights(runs[0], runs[1])
    name = "head.project.weight"
    assert not torch.equal(runs[0].network.state_dict()[name], runs[2].network.state_dict()[name])


def test_training_learns(make_trainer: MakeTrainer, tiny_settings: TrainSettings) -> None:
    settings = replace(
        tiny_settings,
        images=80,
        optimizer=OptimizerSettings(lr=1e-2, warmup=0.0),
        loss=LossSettings(ohem=1.0),
        augment=replace(AugmentSettings(), scale=(1.0, 1.0), candidates=1),
    )
    trainer = make_trainer(settings=settings)
    losses = []
    batches = trainer.samples.batches()
    while not trainer.finished:
        values = trainer.train_step(*next(batches))
        assert values is not None
        losses.append(values["head"])
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_reports_scores_and_models_are_handed_out(
    make_trainer: MakeTrainer, camvid_root: Path
) -> None:
    spec = DATASETS["camvid"]
    pairs = spec.pairs(camvid_root, "val")
    reports: list[Progress] = []
    published: list[int] = []
    trainer = make_trainer()
    finished = trainer.run(
        report=reports.append,
        publish=lambda: published.append(trainer.step),
        evaluate=lambda network: evaluate(network, spec, pairs),
    )
    assert finished
    assert published == [0, 6]
    assert [(r.step, r.val_miou is not None) for r in reports] == [
        (3, True),
        (6, False),
        (6, True),
    ]
    records = log_of(trainer)
    assert [r["step"] for r in records] == [3, 6, 6]
    assert 0 <= records[-1]["val"]["miou"] <= 100
    assert len(records[-1]["val"]["per_class_iou"]) == 11
    assert {"total", "head", "aux.16", "aux.32", "lr", "images_per_s"} <= set(records[1])


def test_checkpoints_come_by_the_clock(
    make_trainer: MakeTrainer, tiny_settings: TrainSettings
) -> None:
    trainer = make_trainer(settings=replace(tiny_settings, checkpoint_minutes=1e-9))
    published: list[int] = []
    trainer.run(publish=lambda: published.append(trainer.step))
    assert published == [0, 1, 2, 3, 4, 5, 6, 6]


def test_the_average_follows_the_network_slowly(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    start = {k: v.clone() for k, v in trainer.average.state_dict().items()}
    trainer.run(stop=stop_at(trainer, 1))
    name = "head.project.weight"
    network, average = trainer.network.state_dict()[name], trainer.average.state_dict()[name]
    decay = 2 / 11
    torch.testing.assert_close(average, decay * start[name] + (1 - decay) * network)


def test_numbers_that_are_not_finite_roll_back_with_half_the_rate(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer()
    trainer.run(stop=stop_at(trainer, 2))
    rates: list[float] = []
    step = Trainer.train_step

    def poisoned(self: Trainer, *batch: Any) -> dict[str, float] | None:
        if self.step == 4 and self.position.rollbacks == 0:
            with torch.no_grad():
                self.network.get_parameter("head.project.bias").fill_(float("nan"))
        values = step(self, *batch)
        rates.append(learner_of(self).optimizer.param_groups[0]["lr"])
        return values

    monkeypatch.setattr(Trainer, "train_step", poisoned)
    assert trainer.run()
    assert trainer.position.rollbacks == 1
    assert rates[3] == pytest.approx(rates[0] / 2)
    assert "back to 2 with lr x 0.5" in log_of(trainer)[0]["note"]
    assert all(torch.isfinite(value).all() for value in trainer.average.state_dict().values())
    resumed = make_trainer()
    resumed.resume()
    assert (resumed.position.rollbacks, resumed.position.lr_factor) == (1, 0.5)


def test_a_run_that_keeps_diverging_is_given_up(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "train_step", lambda *_: None)
    trainer = make_trainer()
    with pytest.raises(TrainingError, match=r"Lower optimizer\.lr"):
        trainer.run()
    assert trainer.position.rollbacks == ROLLBACKS


def test_other_settings_are_refused_unless_accepted(
    make_trainer: MakeTrainer, tiny_settings: TrainSettings
) -> None:
    first = make_trainer()
    first.run(stop=stop_at(first, 2))
    changed = replace(tiny_settings, images=24, loss=LossSettings(aux=0.4))
    with pytest.raises(ConfigError, match=r"images: 12 -> 24; loss\.aux: 0\.2 -> 0\.4.*--accept"):
        make_trainer(settings=changed).resume()
    trainer = make_trainer(settings=changed)
    assert trainer.resume(accept_changes=True)
    assert trainer.step == 2
    assert not trainer.finished
    assert log_of(trainer)[-1]["note"].startswith("settings changed: images: 12 -> 24")


def test_another_batch_size_keeps_the_place_in_the_data(
    make_trainer: MakeTrainer, tiny_settings: TrainSettings
) -> None:
    first = make_trainer()
    first.run(stop=stop_at(first, 4))
    trainer = make_trainer(settings=replace(tiny_settings, batch=4))
    trainer.resume(accept_changes=True)
    assert (trainer.images, trainer.step) == (8, 2)


def test_another_architecture_is_refused(
    make_trainer: MakeTrainer, tiny_genotype: Genotype
) -> None:
    make_trainer().save()
    other = replace(tiny_genotype, num_classes=7)
    with pytest.raises(
        ConfigError, match=r"tiny \(11 classes\), not the architecture tiny \(7 classes\)"
    ):
        make_trainer(genotype=other).resume()


def test_a_checkpoint_of_an_earlier_version_goes_on(
    make_trainer: MakeTrainer, tiny_genotype: Genotype
) -> None:
    first = make_trainer()
    first.run(stop=stop_at(first, 2))
    state = checkpoint.load(checkpoint.found(first.folder)[-1])
    state["genotype"] = state.pop("subject")["genotype"]
    checkpoint.save(first.folder, 2, state)
    again = make_trainer()
    assert again.resume()
    assert again.step == 2
    with pytest.raises(
        ConfigError, match=r"tiny \(11 classes\), not the architecture tiny \(7 classes\)"
    ):
        make_trainer(genotype=replace(tiny_genotype, num_classes=7)).resume()


def test_a_run_of_something_else_is_refused(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.save()
    other = make_trainer()
    other.subject = {"space": {"layers": 6}}
    with pytest.raises(ConfigError, match=r"holds the architecture tiny .* not space [0-9a-f]{12}"):
        other.resume()


def test_without_checkpoints_there_is_nothing_to_resume(make_trainer: MakeTrainer) -> None:
    assert not make_trainer().resume()


def test_a_failing_write_stops_the_run_with_the_last_checkpoint_intact(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer()
    trainer.run(stop=stop_at(trainer, 2))

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        trainer.run()
    assert checkpoint.load(checkpoint.found(trainer.folder)[-1])["position"]["step"] == 2


def test_the_papers_optimiser_is_there(
    make_trainer: MakeTrainer, tiny_settings: TrainSettings
) -> None:
    sgd = OptimizerSettings(name="sgd", lr=0.01, schedule="exponential", warmup=0, decay_all=True)
    trainer = make_trainer(settings=replace(tiny_settings, optimizer=sgd))
    assert trainer.run()
    assert isinstance(learner_of(trainer).optimizer, torch.optim.SGD)


def test_a_teacher_takes_part_and_is_not_trained(make_trainer: MakeTrainer) -> None:
    teacher = make_trainer("teacher").network
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    trainer = make_trainer("student", teacher=teacher)
    values = trainer.train_step(*next(trainer.samples.batches()))
    assert values is not None
    assert values["distill"] >= 0
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def scores(**by_name: float) -> Callable[[Any], ConfusionMatrix]:
    """Evaluation that gives known scores to networks told apart by a mark on them."""

    def evaluate(network: Any) -> ConfusionMatrix:
        hits = round(100 * by_name[getattr(network, "mark", "student")])
        matrix = ConfusionMatrix(2)
        matrix.counts += np.array([[hits, 100 - hits], [0, 0]])
        return matrix

    return evaluate


def marked_teacher(make_trainer: MakeTrainer) -> Any:
    teacher = make_trainer("teacher").network
    teacher.mark = "teacher"  # type: ignore[assignment]
    return teacher


def test_a_teacher_below_its_student_is_refused_before_the_first_step(
    make_trainer: MakeTrainer, tiny_genotype: Genotype
) -> None:
    network = make_trainer("start").network
    assert isinstance(network, Network)
    trainer = make_trainer(
        teacher=marked_teacher(make_trainer),
        start=to_arrays(network),
        provenance={"init": {"model": "a", "sha256": "1"}},
    )
    with pytest.raises(ConfigError, match=r"teacher scores .* the network it should teach"):
        trainer.run(evaluate=scores(teacher=0.4, student=0.5))
    assert trainer.step == 0


def test_distillation_ends_when_the_student_has_caught_up(
    make_trainer: MakeTrainer, camvid_root: Path
) -> None:
    trainer = make_trainer(teacher=marked_teacher(make_trainer))
    trainer.run(stop=stop_at(trainer, 4), evaluate=scores(teacher=0.5, student=0.5))
    assert trainer.learner.teacher is None
    notes = [record["note"] for record in log_of(trainer) if "note" in record]
    assert any("distillation ends" in note for note in notes)
    resumed = make_trainer(teacher=marked_teacher(make_trainer))
    resumed.resume()
    assert resumed.learner.teacher is None, "a resumed run would distil again"


def test_a_better_teacher_goes_on_teaching(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(teacher=marked_teacher(make_trainer))
    trainer.run(evaluate=scores(teacher=0.6, student=0.5))
    assert trainer.learner.teacher is not None
    assert trainer.position.teacher_miou == pytest.approx(scores(student=0.6)(None).miou)


def test_a_checkpoint_knows_where_its_weights_came_from(make_trainer: MakeTrainer) -> None:
    origin = {"init": {"model": "a", "sha256": "1"}, "machine": "one"}
    first = make_trainer(provenance=origin)
    first.run(stop=stop_at(first, 2))
    again = make_trainer(provenance={**origin, "machine": "two"})
    assert again.resume()
    again.run(stop=stop_at(again, 3))
    history = checkpoint.load(checkpoint.found(again.folder)[-1])["position"]["history"]
    assert [(entry["step"], entry["machine"]) for entry in history] == [(0, "one"), (2, "two")]
    other = make_trainer(provenance={**origin, "init": {"model": "b", "sha256": "2"}})
    with pytest.raises(ConfigError, match=r"init\.model: a -> b"):
        other.resume()


def test_frozen_norms_keep_their_statistics(
    make_trainer: MakeTrainer, tiny_settings: TrainSettings
) -> None:
    for frozen in (False, True):
        trainer = make_trainer(str(frozen), replace(tiny_settings, frozen_norm=frozen))
        before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
        trainer.run(stop=stop_at(trainer, 2))
        after = trainer.network.state_dict()
        means = [name for name in before if name.endswith("running_mean")]
        assert means
        assert all(torch.equal(before[n], after[n]) for n in means) is frozen
        assert not torch.equal(before["head.project.weight"], after["head.project.weight"])
