"""Where upsampling and argmax are done: chosen, recorded, and the same labels everywhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasterseg import native
from fasterseg.errors import EngineError, EngineMismatchError, MissingExtraError, UsageError
from fasterseg.graph.emit import EmitOptions, emit
from fasterseg.preprocess import normalize
from fasterseg.runtime.base import METADATA_KEY, Engine
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.onnxrt import OnnxRuntimeEngine
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.runtime.store import describe, onnx_bytes
from fasterseg.runtime.tail import Finish, stage_for
from fasterseg.types import Size
from tests.parity import assert_meaningful, balanced, run_onnx, small_plan, street_like

pytestmark = pytest.mark.onnx

CAMVID = "fasterseg-camvid"
SIZE = Size(92, 148)
"""Neither side a multiple of 8: the last step crops."""

MARGIN = 1e-5
"""Of the two greatest logits, beyond which native labels must be the graph's."""


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a compiler."""

    def require() -> None:
        raise MissingExtraError("the CPU kernels are missing. Build them: make native")

    monkeypatch.setattr(native, "info", lambda: None)
    monkeypatch.setattr(native, "require", require)


def opened(**fields: Any) -> Engine:
    request = EngineRequest(**{"device": "cpu", "size": SIZE, "threads": 1, **fields})
    return open_engine(request, SIZE, lambda _: None)


def exported(folder: Path, **options: Any) -> str:
    file = folder / "engine.onnx"
    file.write_bytes(onnx_bytes(resolve_model(CAMVID), SIZE, EmitOptions(**options)))
    return str(file)


def test_auto_is_native_where_there_is_a_kernel_and_the_graph_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native, "info", lambda: native.NativeInfo(Path("x.so"), "avx2", "1"))
    assert stage_for("auto", "cpu") == "logits8"
    assert stage_for("graph", "cpu") == "labels"
    assert stage_for("auto", "cuda") == "labels"
    monkeypatch.setattr(native, "info", lambda: None)
    assert stage_for("auto", "cpu") == "labels"


def test_native_on_a_gpu_is_refused() -> None:
    with pytest.raises(UsageError, match="--tail graph"):
        stage_for("native", "cuda")


@pytest.mark.usefixtures("no_library")
def test_native_without_a_library_is_an_error_and_auto_does_without() -> None:
    with pytest.raises(EngineError, match="make native"):
        opened(tail="native")
    assert opened().tail == "graph"


def test_the_engine_says_which_instruction_set_finishes() -> None:
    found = native.info()
    if found is None:
        pytest.skip("the CPU kernels are not built: make native")
    assert opened(tail="native").tail == opened().tail == f"native-{found.isa}"
    assert opened(tail="graph").tail == "graph"


def test_labels_are_the_graphs_wherever_the_logits_decide(tmp_path: Path) -> None:
    """With balanced random weights, where many classes take part; and with a crop."""
    network = small_plan(size=Size(252, 524))
    frames = street_like(network.size)
    weights = balanced(network, frames)
    full = run_onnx(emit(network, weights, EmitOptions("network")), input=normalized(frames))
    best = np.partition(full.astype(np.float32), -2, axis=1)
    decided = best[:, -1] - best[:, -2] > MARGIN
    model = dataclasses.replace(resolve_model(CAMVID), genotype=network.genotype)
    spec = describe(model, network.size, EmitOptions("logits8"))
    metadata = {METADATA_KEY: spec.to_json()}
    core = emit(network, weights, EmitOptions("logits8"), metadata).SerializeToString()
    labels = OnnxRuntimeEngine.open(core, "cpu", 1).run(frames)
    expected = full.argmax(axis=1)
    assert_meaningful(expected, network.genotype.num_classes)
    assert np.array_equal(labels[decided], expected[decided])
    assert decided.mean() > 0.999


def normalized(frames: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, Any]:
    return np.asarray(normalize(frames), np.float32)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_shipped_model_gives_the_same_labels_by_both(precision: str) -> None:
    frames = street_like(SIZE)
    graph = opened(precision=precision, tail="graph").run(frames).copy()
    file = onnx_bytes(resolve_model(CAMVID), SIZE, EmitOptions("logits8", precision))  # type: ignore[arg-type]
    labels = OnnxRuntimeEngine.open(file, "cpu", 1).run(frames)
    assert (labels == graph).mean() > 0.9999


@pytest.mark.usefixtures("no_library")
def test_a_file_that_ends_at_its_logits_is_finished_without_a_library_too(tmp_path: Path) -> None:
    engine = opened(engine=exported(tmp_path, stage="logits8"))
    assert engine.tail == "numpy"
    frames = street_like(SIZE)
    assert (engine.run(frames) == opened(tail="graph").run(frames)).mean() > 0.9999


def test_bound_runs_are_finished_too(tmp_path: Path) -> None:
    engine = OnnxRuntimeEngine.open(Path(exported(tmp_path, stage="logits8")), "cpu", 1)
    for seed in range(2):
        expected = engine.run(street_like(SIZE, seed)).copy()
        engine.bind(street_like(SIZE, seed))
        engine.run_bound()
        assert np.array_equal(engine.bound_labels(), expected)


def test_a_dynamic_file_of_logits_takes_any_size(tmp_path: Path) -> None:
    file = exported(tmp_path, stage="logits8", dynamic=True)
    engine = OnnxRuntimeEngine.open(Path(file), "cpu", 1)
    for size in (Size(64, 96), Size(100, 76)):
        assert engine.run(street_like(size)).shape == (1, *size)


@pytest.mark.parametrize(
    ("stage", "tail", "message"),
    [("labels", "native", "--stages logits8"), ("logits8", "graph", "without --stages")],
)
def test_a_file_keeps_the_tail_it_was_made_with(
    tmp_path: Path, stage: str, tail: str, message: str
) -> None:
    with pytest.raises(EngineMismatchError, match=message):
        opened(engine=exported(tmp_path, stage=stage), tail=tail)
    assert opened(engine=exported(tmp_path, stage=stage)).run(street_like(SIZE)).shape[0] == 1


def test_a_batch_has_its_own_labels_each() -> None:
    finish = Finish(threads=1)
    logits = np.random.default_rng(0).standard_normal((2, 5, 4, 6)).astype(np.float32)
    both = finish(logits, Size(30, 45)).copy()
    for index in range(2):
        assert np.array_equal(finish(logits[index : index + 1], Size(30, 45))[0], both[index])
    assert not np.array_equal(both[0], both[1])
