from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fasterseg.arch.genotype import Genotype  # noqa: E402
from fasterseg.arch.plan import plan  # noqa: E402
from fasterseg.arch.space import SearchSpace  # noqa: E402
from fasterseg.datasets import DATASETS, DatasetSpec, Pair  # noqa: E402
from fasterseg.errors import UsageError  # noqa: E402
from fasterseg.labels import CAMVID  # noqa: E402
from fasterseg.metrics import ConfusionMatrix  # noqa: E402
from fasterseg.nn.network import Network  # noqa: E402
from fasterseg.nn.weights import from_arrays  # noqa: E402
from fasterseg.preprocess import Geometry  # noqa: E402
from fasterseg.search.data import to_input  # noqa: E402
from fasterseg.search.split import split_train  # noqa: E402
from fasterseg.search.subnet_scoring import SubnetScorer  # noqa: E402
from fasterseg.search.subnets import random_subnet  # noqa: E402
from fasterseg.search.supernet import SuperNet  # noqa: E402
from fasterseg.types import Size  # noqa: E402
from tests import tiny_data  # noqa: E402
from tests.shared import ROOT  # noqa: E402

pytestmark = pytest.mark.torch

SPEC = DATASETS["camvid"]
SPACE = SearchSpace(
    layers=4, widths=(4, 6), stem_widths=(4, 6), head_widths=(4,), num_classes=len(CAMVID)
)
SIZE = Size(64, 96)
"""Other than that of the pictures."""

MakeScorer = Callable[..., SubnetScorer]


def supernet() -> SuperNet:
    """Random weights, and statistics that fit no network."""
    torch.manual_seed(3)
    network = SuperNet(SPACE)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
            module.running_mean.fill_(1e3)
            module.num_batches_tracked.fill_(17)
    return network


def genotypes(count: int) -> list[Genotype]:
    rng = random.Random(5)
    return [random_subnet(SPACE, rng) for _ in range(count)]


def train_pairs(root: Path) -> list[Pair]:
    return SPEC.pairs(root, "train")


@pytest.fixture
def make_scorer(camvid_root: Path) -> MakeScorer:
    """Scores on two pictures, statistics from the other three."""
    pairs = train_pairs(camvid_root)

    def make(network: SuperNet | None = None, **options: Any) -> SubnetScorer:
        chosen = {"held_out": pairs[:2], "calibration": pairs[2:], "size": SIZE, "batch": 2}
        return SubnetScorer(network or supernet(), SPEC, **{**chosen, **options})

    return make


def by_hand(genotype: Genotype, root: Path) -> float:
    """The same through a network of its own: weights taken out, statistics of one batch, mIoU."""
    network = plan(genotype, SIZE)
    alone = Network(network)
    from_arrays(alone, supernet().extract(network))
    pairs = train_pairs(root)
    images = [Geometry(tiny_data.SIZE, SIZE).forward(SPEC.read_image(pair)) for pair in pairs]
    with torch.no_grad():
        for norm in alone.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.momentum = 1.0
        alone.train()(to_input(torch.from_numpy(np.stack(images[2:]))))
        alone.eval()
        matrix = ConfusionMatrix(len(CAMVID))
        for image, pair in zip(images[:2], pairs[:2], strict=True):
            logits = alone(to_input(torch.from_numpy(image[None])))
            labels = logits[0].argmax(0).numpy().astype(np.uint8)
            matrix.add(SPEC.read_label(pair), Geometry(tiny_data.SIZE, SIZE).inverse(labels))
    return matrix.miou


def test_a_score_is_that_of_the_network_by_itself(
    make_scorer: MakeScorer, camvid_root: Path
) -> None:
    scorer = make_scorer(batch=3)
    for genotype, score in zip(genotypes(3), scorer(genotypes(3)), strict=True):
        assert score == pytest.approx(by_hand(genotype, camvid_root), abs=2e-3)
        assert 0 < score < 1


def test_every_batch_counts_the_same_in_the_statistics(
    make_scorer: MakeScorer, camvid_root: Path
) -> None:
    pairs = train_pairs(camvid_root)
    [genotype] = genotypes(1)

    def mean(calibration: list[Pair]) -> Any:
        """Of the first norm, which no other one comes before, when pictures are scored."""
        network, found = supernet(), []

        def note(norm: Any, _: Any) -> None:
            if not norm.training:
                found.append(norm.running_mean.clone())

        for norm in network.get_submodule("stem.0").modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.register_forward_pre_hook(note)
        make_scorer(network, held_out=pairs[:1], calibration=calibration)([genotype])
        assert len(found) == 1
        return found[0]

    together = mean(pairs[1:5])
    torch.testing.assert_close(together, (mean(pairs[1:3]) + mean(pairs[3:5])) / 2)
    assert not torch.allclose(together, mean(pairs[1:3]))


def test_the_supernet_is_left_as_it_was_bit_for_bit(make_scorer: MakeScorer) -> None:
    network = supernet()
    network.train()
    network.get_submodule("stem.1").eval()
    modes = [module.training for module in network.modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    make_scorer(network)(genotypes(2))
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert [module.training for module in network.modules()] == modes
    for module in network.modules():
        assert not module._forward_pre_hooks
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.momentum == 0.1


def test_a_supernet_is_put_back_after_a_failure_too(
    make_scorer: MakeScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = supernet()
    scorer = make_scorer(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    run, calls = network.logits8, iter(range(9))

    def dies(*arguments: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return run(*arguments)

    monkeypatch.setattr(network, "logits8", dies)
    with pytest.raises(KeyboardInterrupt):
        scorer(genotypes(1))
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_statistics_of_the_training_have_no_say(make_scorer: MakeScorer) -> None:
    clean, spoilt = supernet(), supernet()
    for module in spoilt.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.fill_(float("nan"))
            module.running_var.fill_(1e9)
    assert make_scorer(spoilt)(genotypes(2)) == make_scorer(clean)(genotypes(2))


def test_neither_order_nor_company_changes_a_score(make_scorer: MakeScorer) -> None:
    scorer = make_scorer()
    nets = genotypes(4)
    together = scorer(nets)
    assert len(set(together)) > 1
    assert scorer(nets[::-1]) == together[::-1]
    assert [scorer([net])[0] for net in nets] == together


def test_scores_in_bf16_are_near_those_in_fp32(make_scorer: MakeScorer) -> None:
    exact, rounded = make_scorer(), make_scorer(precision="bf16")
    assert rounded(genotypes(2)) == pytest.approx(exact(genotypes(2)), abs=0.05)
    assert rounded.key != exact.key


def test_the_key_follows_everything_that_scores_depend_on(
    make_scorer: MakeScorer, camvid_root: Path
) -> None:
    other = supernet()
    with torch.no_grad():
        next(iter(other.parameters())).view(-1)[0] += 1e-3
    pairs = train_pairs(camvid_root)
    keys = [
        scorer.key
        for scorer in (
            make_scorer(),
            make_scorer(other),
            make_scorer(size=Size(64, 64)),
            make_scorer(held_out=pairs[1:3]),
            make_scorer(recalibration=2),
        )
    ]
    assert len(set(keys)) == len(keys)
    assert make_scorer().key == keys[0]


def test_too_few_pictures_are_refused(make_scorer: MakeScorer) -> None:
    with pytest.raises(UsageError, match="0 held-out pictures and 3 for batch-norm"):
        make_scorer(held_out=[])
    with pytest.raises(UsageError, match="2 held-out pictures and 1 for batch-norm"):
        make_scorer(recalibration=1)


def test_pictures_without_labels_are_refused(make_scorer: MakeScorer, camvid_root: Path) -> None:
    class Blank:
        def __getattr__(self, name: str) -> Any:
            return getattr(SPEC, name)

        def read_label(self, pair: Pair) -> Any:
            return np.full_like(SPEC.read_label(pair), 255)

    pairs = train_pairs(camvid_root)
    blank: DatasetSpec = Blank()  # type: ignore[assignment]
    with pytest.raises(UsageError, match="no labelled pixel in 2 held-out"):
        SubnetScorer(supernet(), blank, pairs[:2], pairs[2:], SIZE)


def test_a_search_reads_neither_val_nor_test(camvid_root: Path, tmp_path: Path) -> None:
    root = shutil.copytree(camvid_root, tmp_path / "camvid")
    for split in ("val", "test"):
        shutil.rmtree(root / split)
        shutil.rmtree(root / f"{split}annot")
        (root / f"{split}.txt").unlink()
    pairs = train_pairs(root)
    parts = split_train(pairs, 0.4, 0.0)
    scorer = SubnetScorer(
        supernet(), SPEC, parts.select(pairs, "held_out"), parts.select(pairs, "weights"), SIZE
    )
    assert 0 <= scorer(genotypes(1))[0] <= 1


PROGRAM = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from fasterseg.errors import UsageError
from fasterseg.search.distributed import joined
from tests.unit.search.test_subnet_scoring import *
with joined("cpu") as group:
    pairs = train_pairs(Path(sys.argv[1]))
    scorer = SubnetScorer(supernet(), SPEC, pairs[:2], pairs[2:], SIZE, batch=2, group=group)
    scores = scorer(genotypes(5))
    try:
        scorer(genotypes(3)[group.rank :])
        refused = False
    except UsageError:
        refused = True
    found = {"scores": scores, "same": group.same(scores), "refused": refused}
    if group.leads:
        Path(sys.argv[2]).write_text(json.dumps(found))
"""


def test_two_processes_share_the_work_and_agree_with_one(
    make_scorer: MakeScorer, camvid_root: Path, tmp_path: Path
) -> None:
    script, result = tmp_path / "score.py", tmp_path / "scores.json"
    script.write_text(PROGRAM, encoding="utf-8")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(script), str(camvid_root), str(result),
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = make_scorer()(genotypes(5))
    torch.set_num_threads(threads)
    found = json.loads(result.read_text(encoding="utf-8"))
    assert found == {"scores": expected, "same": True, "refused": True}
