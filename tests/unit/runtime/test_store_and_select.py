"""Engines are built once, found again by what they depend on, and chosen as asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fasterseg.errors import (
    EngineError,
    EngineMismatchError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from fasterseg.graph.emit import EmitOptions
from fasterseg.graph.precision import PROFILES, Profile
from fasterseg.graph.ranges import save_ranges
from fasterseg.runtime.model import Model, resolve_model
from fasterseg.runtime.select import EngineRequest, open_engine, reference_backend
from fasterseg.runtime.store import engine_key, engine_path, find_or_build, onnx_bytes
from fasterseg.types import Size
from tests.parity import street_like

pytestmark = pytest.mark.onnx

SIZE = Size(64, 96)
CAMVID = "fasterseg-camvid"


def request(**fields: object) -> EngineRequest:
    return dataclasses.replace(EngineRequest(device="cpu", size=SIZE, threads=1), **fields)  # type: ignore[arg-type]


def test_an_engine_is_built_once_and_announced() -> None:
    notes: list[str] = []
    model = resolve_model(CAMVID)
    path = find_or_build(model, SIZE, EmitOptions(), notes.append)
    assert isinstance(path, Path)
    stamp = path.stat().st_mtime_ns
    assert len(notes) == 1
    assert str(path) in notes[0]
    assert find_or_build(model, SIZE, EmitOptions(), notes.append) == path
    assert path.stat().st_mtime_ns == stamp
    assert len(notes) == 1


def test_the_key_holds_everything_the_file_depends_on(tmp_path: Path) -> None:
    model = resolve_model(CAMVID)
    keys = {
        engine_key(model, SIZE, EmitOptions()),
        engine_key(model, Size(96, 64), EmitOptions()),
        engine_key(model, SIZE, EmitOptions(precision="fp16")),
        engine_key(model, SIZE, EmitOptions(batch=2)),
        engine_key(model, SIZE, EmitOptions(dynamic=True)),
        engine_key(model, SIZE, EmitOptions("logits8")),
        engine_key(resolve_model("fasterseg-student"), SIZE, EmitOptions()),
        engine_key(dataclasses.replace(model, name="other"), SIZE, EmitOptions()),
        engine_key(model, SIZE, EmitOptions(precision="int8")),
        engine_key(model, SIZE, EmitOptions(precision="int8", profile="tensorrt")),
        engine_key(with_other_ranges(model, tmp_path), SIZE, EmitOptions(precision="int8")),
    }
    assert len(keys) == 11


def with_other_ranges(model: Model, folder: Path) -> Model:
    ranges = model.load_ranges()
    values = {**ranges.values, "input": (-3.0, 3.0)}
    save_ranges(folder / "x.ranges.json", dataclasses.replace(ranges, values=values))
    return dataclasses.replace(model, ranges=folder / "x.ranges.json")


def test_an_int8_engine_says_how_it_was_quantised() -> None:
    engine = open_engine(request(precision="int8"), SIZE, print)
    ranges = resolve_model(CAMVID).load_ranges()
    assert (engine.spec.precision, engine.spec.profile) == ("int8", "cpu")
    assert engine.spec.ranges_sha256 == ranges.sha256
    assert engine.spec.source_sha256 == resolve_model(CAMVID).source_sha256
    plain = open_engine(request(), SIZE, print).spec
    assert (plain.profile, plain.ranges_sha256) == (None, None)


@pytest.mark.parametrize("profile", PROFILES)
def test_int8_files_of_both_profiles_are_engines(tmp_path: Path, profile: Profile) -> None:
    file = tmp_path / "x.onnx"
    options = EmitOptions(precision="int8", profile=profile)
    file.write_bytes(onnx_bytes(resolve_model(CAMVID), SIZE, options))
    engine = open_engine(request(engine=str(file), precision="int8"), SIZE, print)
    assert engine.spec.profile == profile
    assert engine.run(street_like(SIZE)).shape == (1, *SIZE)


def test_the_same_model_gives_the_same_bytes() -> None:
    model = resolve_model(CAMVID)
    assert onnx_bytes(model, SIZE, EmitOptions()) == onnx_bytes(model, SIZE, EmitOptions())


def test_a_damaged_cache_entry_is_built_again() -> None:
    notes: list[str] = []
    asked = request(tail="graph")
    expected = open_engine(asked, SIZE, notes.append).run(street_like(SIZE)).copy()
    path = engine_path(resolve_model(CAMVID), SIZE, EmitOptions())
    path.write_bytes(path.read_bytes()[:1000])
    engine = open_engine(asked, SIZE, notes.append)
    assert any("damaged" in line for line in notes)
    assert np.array_equal(engine.run(street_like(SIZE)), expected)


def test_auto_says_what_it_chose_and_whether_weights_are_untrained() -> None:
    trained: list[str] = []
    open_engine(request(), SIZE, trained.append)
    assert not any("untrained" in line for line in trained)
    notes: list[str] = []
    engine = open_engine(request(model="fasterseg-student"), SIZE, notes.append)
    assert engine.backend == "onnxruntime"
    assert any("onnxruntime (auto) on cpu" in line and "64x96" in line for line in notes)
    assert any("untrained" in line for line in notes)


def test_default_size_is_the_training_height_and_the_sources_aspect() -> None:
    engine = open_engine(request(size=None), Size(720, 1280), print)
    assert engine.spec.size == Size(360, 640)


def test_precision_auto_is_fp32_on_a_cpu() -> None:
    assert open_engine(request(), SIZE, print).spec.precision == "fp32"
    assert open_engine(request(precision="fp16"), SIZE, print).spec.precision == "fp16"


@pytest.mark.parametrize("field", ["engine", "model"])
def test_an_engine_file_may_stand_for_engine_or_model(tmp_path: Path, field: str) -> None:
    file = tmp_path / "x.onnx"
    file.write_bytes(onnx_bytes(resolve_model(CAMVID), SIZE, EmitOptions()))
    engine = open_engine(request(size=None, **{field: str(file)}), Size(10, 10), print)
    assert engine.spec.size == SIZE


def test_a_dynamic_engine_file_takes_the_default_size(tmp_path: Path) -> None:
    file = tmp_path / "x.onnx"
    file.write_bytes(onnx_bytes(resolve_model(CAMVID), SIZE, EmitOptions(dynamic=True)))
    engine = open_engine(request(size=None, engine=str(file)), Size(720, 1280), print)
    assert engine.spec.size == Size(360, 640)
    assert engine.run(street_like(Size(360, 640))).shape == (1, 360, 640)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"engine": "tensorflow"}, UnknownNameError, "onnxruntime"),
        ({"device": "tpu"}, UsageError, "auto, cpu, cuda"),
        ({"precision": "fp8"}, UsageError, "fp16"),
        ({"precision": "bf16", "engine": "onnxruntime"}, UsageError, "--engine openvino"),
        ({"precision": "bf16", "engine": "torch"}, UsageError, "on cpu.*--device cuda"),
        (
            {"precision": "bf16", "engine": "openvino", "device": "cuda"},
            UsageError,
            "on cuda.*--engine torch",
        ),
        ({"precision": "int8", "engine": "torch"}, UsageError, "onnxruntime and openvino"),
        ({"tail": "cpu"}, UsageError, "auto, graph, native"),
        ({"tail": "native", "engine": "torch"}, UsageError, "onnxruntime and openvino"),
        ({"streams": 2}, UsageError, "--engine openvino"),
        ({"pin": True, "engine": "onnxruntime"}, UsageError, "--engine openvino"),
        ({"streams": 3, "engine": "openvino"}, UsageError, "2 frames at a time"),
        ({"streams": 2, "engine": "openvino"}, UsageError, "--threads 1 is too few"),
        (
            {"precision": "int8", "model": "fasterseg-teacher"},
            WeightsError,
            "fasterseg calibrate fasterseg-teacher --images",
        ),
        ({"model": "nothing"}, UnknownNameError, "fasterseg-camvid"),
        ({"engine": "missing.onnx"}, EngineError, "fasterseg export"),
        ({"size": Size(32, 2048)}, UsageError, "64x64"),
    ],
)
def test_wrong_requests_are_refused_with_what_is_possible(
    fields: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_engine(request(**fields), SIZE, print)


def test_a_file_that_is_no_engine_is_named(tmp_path: Path) -> None:
    file = tmp_path / "movie.mp4"
    file.write_bytes(b"x")
    with pytest.raises(EngineError, match=r"movie\.mp4 is no engine file"):
        open_engine(request(engine=str(file)), SIZE, print)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"size": Size(128, 128)}, "64x96"), ({"precision": "fp16"}, "fp32")],
)
def test_an_engine_file_that_does_not_fit_names_the_field(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    file = tmp_path / "x.onnx"
    file.write_bytes(onnx_bytes(resolve_model(CAMVID), SIZE, EmitOptions()))
    with pytest.raises(EngineMismatchError, match=message):
        open_engine(request(engine=str(file), **fields), SIZE, print)


@pytest.mark.parametrize(
    ("installed", "expected"),
    [({"torch", "onnxruntime"}, "torch"), ({"onnxruntime"}, "onnxruntime")],
)
def test_torch_is_the_reference_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], expected: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in installed or None)
    assert reference_backend() == expected
