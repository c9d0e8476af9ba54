"""Ranges are the extremes over all frames, and lie where the model finds them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.arch.plan import plan
from fasterseg.bench.accuracy import score
from fasterseg.datasets.known import DATASETS
from fasterseg.deploy.calibrate import calibrate, store_ranges
from fasterseg.errors import OutputExistsError, UsageError, WeightsError
from fasterseg.graph.ranges import load_ranges
from fasterseg.graph.weights import save_weights, seeded_weights
from fasterseg.labels import CAMVID
from fasterseg.preprocess import normalize
from fasterseg.runtime.model import ZOO, Model, add_model, resolve_model, write_model
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.types import Size
from tests.parity import random_genotype, street_like
from tests.shared import shared

pytestmark = pytest.mark.onnx

SIZE = Size(64, 96)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTERSEG_HOME", str(tmp_path / "home"))


def small_model() -> Model:
    """A random network of all operators with seeded weights."""
    return Model("small", random_genotype(5, num_classes=11), CAMVID, SIZE, None)


def frames(*seeds: int) -> Iterator[NDArray[np.uint8]]:
    return (street_like(SIZE, seed)[0] for seed in seeds)


def test_ranges_are_the_extremes_over_all_frames_in_any_order() -> None:
    model = small_model()
    both = calibrate(model, frames(1, 2), source="a test")
    swapped = calibrate(model, frames(2, 1), source="a test")
    alone = [calibrate(model, frames(seed), source="a test") for seed in (1, 2)]
    assert both.values == swapped.values
    assert both.frames_sha256 != swapped.frames_sha256
    for name, (low, high) in both.values.items():
        assert low == min(one.values[name][0] for one in alone)
        assert high == max(one.values[name][1] for one in alone)
    assert alone[0].values != alone[1].values


def test_the_inputs_range_is_that_of_the_normalised_pictures() -> None:
    ranges = calibrate(small_model(), frames(1, 2), source="a test")
    pictures = [normalize(street_like(SIZE, seed)) for seed in (1, 2)]
    low, high = ranges.values["input"]
    assert low == pytest.approx(min(float(x.min()) for x in pictures), rel=1e-6)
    assert high == pytest.approx(max(float(x.max()) for x in pictures), rel=1e-6)


@pytest.mark.torch
def test_ranges_are_those_of_the_torch_network() -> None:
    torch = pytest.importorskip("torch", reason="torch not installed")
    from fasterseg.nn.network import Network
    from fasterseg.nn.weights import from_arrays

    model = small_model()
    network = plan(model.genotype, SIZE)
    reference = Network(network).eval()
    from_arrays(reference, model.load_weights(network))
    tops: list[float] = []
    for name, module in reference.named_modules():
        if name.endswith("ffm"):
            module.register_forward_hook(
                lambda _module, _inputs, out: tops.append(float(out.max()))
            )
    with torch.inference_mode():
        reference(torch.from_numpy(normalize(street_like(SIZE, 1))))
    assert len(tops) == 1
    ranges = calibrate(model, frames(1), source="a test")
    assert ranges.values["ffm/2.relu"] == pytest.approx((0.0, tops[0]), rel=1e-4)


def test_frames_are_taken_one_at_a_time_and_fitted() -> None:
    seen: list[int] = []
    taken = 0

    def lazily() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        for seed in (1, 2, 3):
            assert seen == list(range(1, taken + 1))
            taken += 1
            yield street_like(Size(90, 120), seed)[0]

    ranges = calibrate(small_model(), lazily(), source="a test", size=SIZE, on_frame=seen.append)
    assert (ranges.frames, ranges.size, seen) == (3, "64x96", [1, 2, 3])


def test_nothing_to_measure_on_is_an_error() -> None:
    with pytest.raises(UsageError, match="--images"):
        calibrate(small_model(), [], source="a test")


def test_a_network_that_overflows_is_refused(tmp_path: Path) -> None:
    model = small_model()
    network = plan(model.genotype, SIZE)
    weights = {k: v * np.float32(1e20) for k, v in seeded_weights(network).items()}
    save_weights(tmp_path / "w.safetensors", weights)
    with pytest.raises(WeightsError, match="not finite"):
        calibrate(replace(model, weights=tmp_path / "w.safetensors"), frames(1), source="a test")


def int8_labels(name: str) -> NDArray[np.uint8]:
    request = EngineRequest(model=name, device="cpu", precision="int8", size=SIZE, threads=1)
    engine = open_engine(request, SIZE, print)
    assert engine.spec.precision == "int8"
    return engine.run(street_like(SIZE)).copy()


def test_a_models_folder_keeps_its_ranges_and_runs_int8(tmp_path: Path) -> None:
    model = small_model()
    folder = tmp_path / "run"
    write_model(folder, model, model.load_weights(plan(model.genotype, SIZE)), training={"x": 1})
    found = resolve_model(str(folder))
    with pytest.raises(WeightsError, match=r"fasterseg calibrate \S*run/model\.json --images"):
        found.load_ranges()
    ranges = calibrate(found, frames(0), source="a test")
    assert store_ranges(found, ranges) == folder / "ranges.json"
    assert resolve_model(str(folder)).load_ranges() == ranges
    card = json.loads((folder / "model.json").read_text())
    assert (card["ranges"], card["training"]) == ("ranges.json", {"x": 1})
    assert int8_labels(str(folder)).shape == (1, *SIZE)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        store_ranges(found, ranges)
    store_ranges(found, calibrate(found, frames(1), source="a test"), overwrite=True)
    assert resolve_model(str(folder)).load_ranges() != ranges


def test_new_weights_leave_old_ranges_behind(tmp_path: Path) -> None:
    model = small_model()
    network = plan(model.genotype, SIZE)
    write_model(tmp_path, model, seeded_weights(network, 0))
    ranges = calibrate(resolve_model(str(tmp_path)), frames(0), source="a test")
    write_model(tmp_path, model, seeded_weights(network, 0), ranges=ranges)
    assert int8_labels(str(tmp_path)).shape == (1, *SIZE)
    save_weights(tmp_path / "weights.safetensors", seeded_weights(network, 1))
    with pytest.raises(WeightsError, match="belong to weights"):
        int8_labels(str(tmp_path))
    write_model(tmp_path, model, seeded_weights(network, 1))
    assert resolve_model(str(tmp_path)).ranges is None


def test_an_imported_model_and_a_genotype_file_keep_theirs_too(tmp_path: Path) -> None:
    small = small_model()
    weights = small.load_weights(plan(small.genotype, SIZE))
    imported = add_model("mine", small.genotype, CAMVID, SIZE, weights, "a test")
    store_ranges(imported, calibrate(imported, frames(0), source="a test"))
    assert int8_labels("mine").shape == (1, *SIZE)

    shutil.copy(ZOO / "fasterseg-camvid.json", tmp_path / "net.json")
    bare = resolve_model(str(tmp_path / "net.json"))
    stored = store_ranges(bare, calibrate(bare, frames(0), source="a test", size=SIZE))
    assert stored == tmp_path / "net.ranges.json"
    assert int8_labels(str(tmp_path / "net.json")).shape == (1, *SIZE)


def test_a_model_of_the_package_is_not_written_to(tmp_path: Path) -> None:
    model = resolve_model("fasterseg-teacher")
    with pytest.raises(WeightsError, match=r"calibrate fasterseg-teacher --images PATH -o"):
        model.load_ranges()
    ranges = calibrate(small_model(), frames(0), source="a test")
    with pytest.raises(UsageError, match="-o FILE"):
        store_ranges(model, ranges)
    assert store_ranges(model, ranges, tmp_path / "x.ranges.json") == tmp_path / "x.ranges.json"
    assert load_ranges(tmp_path / "x.ranges.json") == ranges


def test_int8_loses_at_most_one_point_on_validation_frames() -> None:
    dataset = DATASETS["camvid"]
    pairs = dataset.pairs(shared("data/camvid"), "val")[::9]
    miou = {}
    for precision in ("fp32", "int8"):
        request = EngineRequest(device="cpu", precision=precision, size=Size(360, 480))
        engine = open_engine(request, Size(360, 480), print)
        miou[precision] = 100 * score(engine, dataset, "val", pairs).matrix.miou
    assert miou["int8"] >= miou["fp32"] - 1.0


def test_the_shipped_ranges_come_from_training_frames() -> None:
    ranges = resolve_model("fasterseg-camvid").load_ranges()
    assert ranges.frames >= 32
    assert "train" in ranges.source
    assert ranges.size == "360x480"
