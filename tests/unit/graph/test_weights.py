"""Weight files are strict, seeded weights are the same everywhere, folding keeps the function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fasterseg.arch.plan import plan
from fasterseg.errors import WeightsError
from fasterseg.graph.weights import (
    balance_head,
    check_weights,
    fold,
    load_weights,
    save_weights,
    seeded_weights,
    weights_sha256,
)
from fasterseg.types import Size
from tests.parity import small_plan
from tests.shared import zoo_genotype


def test_a_file_comes_back_as_written(tmp_path: Path) -> None:
    network = small_plan()
    weights = seeded_weights(network)
    save_weights(tmp_path / "w.safetensors", weights)
    back = load_weights(tmp_path / "w.safetensors", network)
    assert all(np.array_equal(back[name], weights[name]) for name in weights)


def test_half_precision_files_are_widened(tmp_path: Path) -> None:
    network = small_plan()
    weights = seeded_weights(network)
    save_weights(tmp_path / "w.safetensors", weights, np.float16)
    back = load_weights(tmp_path / "w.safetensors", network)
    name = "stem.0.conv1.weight"
    assert back[name].dtype == np.float32
    assert np.array_equal(back[name], weights[name].astype(np.float16).astype(np.float32))


def test_training_heads_in_a_file_do_not_disturb_inference(tmp_path: Path) -> None:
    genotype = zoo_genotype("fasterseg-student")
    size = Size(64, 64)
    save_weights(tmp_path / "w.safetensors", seeded_weights(plan(genotype, size, aux_heads=True)))
    network = plan(genotype, size)
    assert set(load_weights(tmp_path / "w.safetensors", network)) == set(network.parameter_shapes)


@pytest.mark.parametrize("content", [b"", b"text", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0notjson!"])
def test_files_that_are_not_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="models import"):
        load_weights(file, small_plan())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.safetensors"):
        load_weights(tmp_path / "nothing.safetensors", small_plan())


def test_all_problems_are_listed_at_once() -> None:
    network = small_plan()
    weights = dict(seeded_weights(network))
    del weights["ffm.conv1.weight"]
    weights["surplus"] = np.zeros(1, np.float32)
    weights["head.project.bias"] = np.zeros(3, np.float32)
    weights["stem.0.bn1.bias"] = np.full_like(weights["stem.0.bn1.bias"], np.nan)
    with pytest.raises(WeightsError) as caught:
        check_weights(weights, network, "weights.safetensors")
    for part in ("ffm.conv1.weight", "surplus", "(3,), not (11,)", "not finite"):
        assert part in str(caught.value)


def test_seeded_weights_are_fixed_for_ever() -> None:
    network = plan(zoo_genotype("fasterseg-camvid"), Size(64, 64))
    assert weights_sha256(network, seeded_weights(network, 0)) == (
        "c66fba48c5c446d19799166274138158a83fc44713080fbdf2ce115fdbab0b5f"
    )
    assert weights_sha256(network, seeded_weights(network, 1)) != weights_sha256(
        network, seeded_weights(network, 0)
    )


def test_weights_do_not_depend_on_the_planned_size() -> None:
    genotype = zoo_genotype("fasterseg-camvid")
    small = seeded_weights(plan(genotype, Size(64, 64)))
    large = seeded_weights(plan(genotype, Size(1024, 2048)))
    assert set(small) == set(large)
    assert all(np.array_equal(small[name], large[name]) for name in small)


def test_folding_equals_convolution_then_batch_norm() -> None:
    network = small_plan()
    weights = seeded_weights(network)
    weight, bias = fold(network, weights)["stem.0.conv1"]
    x = np.random.default_rng(0).standard_normal(weight.shape[1:])
    raw = (weights["stem.0.conv1.weight"] * x).sum(axis=(1, 2, 3))
    variance = weights["stem.0.bn1.running_var"] + 1e-5
    normed = (raw - weights["stem.0.bn1.running_mean"]) / np.sqrt(variance)
    expected = normed * weights["stem.0.bn1.weight"] + weights["stem.0.bn1.bias"]
    assert np.allclose((weight * x).sum(axis=(1, 2, 3)) + bias, expected, atol=1e-5)


def test_balancing_takes_the_class_means_off_the_bias() -> None:
    network = small_plan()
    weights = seeded_weights(network)
    logits = np.random.default_rng(0).standard_normal((1, 11, 4, 6)).astype(np.float32)
    shifted = balance_head(weights, logits)
    difference = weights["head.project.bias"] - shifted["head.project.bias"]
    assert np.allclose(difference, logits.mean(axis=(0, 2, 3)), atol=1e-6)
