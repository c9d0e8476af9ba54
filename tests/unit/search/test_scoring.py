from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fasterseg.arch.plan import Plan  # noqa: E402
from fasterseg.datasets import DATASETS  # noqa: E402
from fasterseg.graph.weights import seeded_weights  # noqa: E402
from fasterseg.nn.network import Network  # noqa: E402
from fasterseg.nn.weights import from_arrays  # noqa: E402
from fasterseg.search.scoring import evaluate  # noqa: E402
from tests.tiny_data import COUNTS, SIZE  # noqa: E402

pytestmark = pytest.mark.torch

SPEC = DATASETS["camvid"]


def test_scores_count_every_labelled_pixel_at_the_pictures_size(
    camvid_root: Path, tiny_plan: Plan
) -> None:
    network = Network(tiny_plan)
    from_arrays(network, seeded_weights(tiny_plan))
    pairs = SPEC.pairs(camvid_root, "val")
    matrix = evaluate(network.train(), SPEC, pairs)
    labelled = sum(int((SPEC.read_label(pair) < 11).sum()) for pair in pairs)
    assert matrix.counts.sum() == labelled < COUNTS["val"] * SIZE.pixels
    assert not network.training
    assert np.array_equal(evaluate(network, SPEC, pairs).counts, matrix.counts)


def test_a_constant_network_scores_its_class_only(camvid_root: Path, tiny_plan: Plan) -> None:
    weights = {**seeded_weights(tiny_plan)}
    weights["head.project.weight"] = np.zeros_like(weights["head.project.weight"])
    weights["head.project.bias"] = np.eye(11, dtype=np.float32)[3]
    network = Network(tiny_plan)
    from_arrays(network, weights)
    matrix = evaluate(network, SPEC, SPEC.pairs(camvid_root, "val"))
    assert (matrix.counts.sum(0) > 0).nonzero()[0].tolist() == [3]
