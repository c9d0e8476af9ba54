"""What is noted of a search, what it is scored by, and the warning of one that decided nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fasterseg.datasets import DATASETS  # noqa: E402
from fasterseg.search.corecord import (  # noqa: E402
    EpochRecorder,
    decisions,
    did_not_move,
    entropy,
    margin,
    preferred_set,
)
from fasterseg.search.coscores import MixtureScorer, norms_of  # noqa: E402
from fasterseg.search.cosearch import make_learner  # noqa: E402
from fasterseg.search.cosettings import CoSearchSettings  # noqa: E402
from fasterseg.search.journal import Journal  # noqa: E402
from fasterseg.search.mixture_logits import ArchLogits  # noqa: E402
from fasterseg.types import Size  # noqa: E402
from tests.unit.search.mixture_kit import (  # noqa: E402
    MadeUpSamples,
    made_up_table,
    mixture_settings,
    sure_logits,
    tiny_space,
)

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_entropy_is_one_where_nothing_is_decided_and_zero_where_all_is() -> None:
    assert entropy(np.zeros((3, 5))) == pytest.approx(1)
    assert entropy(300 * np.eye(5)) == pytest.approx(0)
    half = np.array([[0.0, 0.0, -np.inf, -np.inf]])
    assert entropy(half) == pytest.approx(0.5)


def test_margin_is_the_distance_of_the_first_two() -> None:
    assert margin(np.array([[3.0, 1.0, 2.5], [0.0, 4.0, 1.0]])) == pytest.approx(1.75)


def test_a_search_that_did_not_move_is_told_loudly() -> None:
    start = {kind: ArchLogits(5, 3, 2).parameters_taken() for kind in ("teacher", "student")}
    message = did_not_move(decisions(start))
    assert message is not None
    assert "DID NOT DECIDE" in message
    assert "student 1.000" in message
    space = tiny_space()
    sure = {kind: sure_logits(space, random.Random(1)) for kind in start}
    assert did_not_move(decisions(sure)) is None
    mixed = did_not_move(decisions({**start, "student": sure["student"]}))
    assert mixed is not None
    assert "student" not in mixed


def test_the_preferred_set_is_the_best_that_meets_the_target() -> None:
    record = {"miou": {"8_32": 50.0, "16_32": 60.0}, "predicted_ms": {"8_32": 5.0, "16_32": 7.0}}
    sets = ["16_32", "8_32"]

    def preferred(**settings: object) -> str:
        return preferred_set(record, sets, CoSearchSettings(**settings))  # type: ignore[arg-type]

    assert preferred(target_ms=8.0) == "16_32"
    assert preferred(target_ms=6.0) == "8_32"
    assert preferred(target_ms=4.0) == "8_32"
    assert preferred() == "16_32"
    # 60 x (7 / 8.3) ** -0.07 against 50 x (5 / 8.3) ** -0.07
    assert preferred(original=True) == "16_32"
    assert preferred_set({}, sets, CoSearchSettings()) == "16_32"


def test_a_record_has_every_prediction_from_one_pass_and_leaves_the_supernet_alone(
    camvid_root: Path, tmp_path: Path
) -> None:
    space = tiny_space(num_classes=11, final_rates=((16, 8),))
    settings = mixture_settings("pretrain", space=space)
    learner = make_learner(settings, space, MadeUpSamples(1, classes=11))
    spec = DATASETS["camvid"]
    pairs = spec.pairs(camvid_root, "val")
    scorer = MixtureScorer(spec, pairs, spec.pairs(camvid_root, "train"), Size(64, 96))
    net = learner.network
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    stem = net.parts("student").stem
    calls: list[bool] = []
    handle = stem.register_forward_hook(lambda *_: calls.append(net.training))
    recorder = EpochRecorder(learner, Journal(tmp_path), made_up_table(space), scorer)
    record = recorder.describe()
    handle.remove()
    # Five pictures for the norms in two passes, then one pass for each of two pictures.
    assert len(calls) == 2 + len(pairs)
    assert set(record["miou"]) == set(record["teacher_miou"]) == {"8", "16", "8_16"}
    assert set(record["gap"]) == set(record["predicted_ms"]) == {"8_16"}
    assert all(0 <= value <= 100 for value in record["miou"].values())
    assert net.training
    assert all(norm.momentum == 0.1 and norm.training for norm in norms_of(net))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_norms_are_gathered_anew_before_a_score(camvid_root: Path) -> None:
    space = tiny_space(num_classes=11, final_rates=((16, 8),))
    learner = make_learner(
        mixture_settings("pretrain", space=space), space, MadeUpSamples(1, classes=11)
    )
    spec = DATASETS["camvid"]
    train = spec.pairs(camvid_root, "train")
    scorer = MixtureScorer(spec, train[:2], train, Size(64, 96))
    first = scorer.mixture(learner.network, "student")
    with torch.no_grad():
        for norm in norms_of(learner.network):
            norm.running_mean.fill_(7.0)  # type: ignore[union-attr]
    assert scorer.mixture(learner.network, "student") == first
