"""A model repository holds what was exported, refuses what cannot be served, and can be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from fasterseg.deploy.export import export_onnx
from fasterseg.deploy.triton import (
    Servable,
    Serving,
    model_name,
    servable_file,
    servable_model,
    write_repository,
)
from fasterseg.errors import (
    EngineError,
    EngineMismatchError,
    FastersegError,
    OutputExistsError,
    ParityError,
    UnsupportedError,
    UsageError,
)
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime.base import ParityVerdict
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.onnxrt import OnnxRuntimeEngine
from fasterseg.runtime.plan_files import BuildOptions, Plan, read_plan, with_parity, write_plan
from fasterseg.types import Size
from tests.plans import DATA, plan

pytestmark = pytest.mark.onnx

SIZE = Size(64, 96)


@pytest.fixture(scope="module")
def camvid() -> Servable:
    """The shipped model at a small size."""
    return servable_model(resolve_model("fasterseg-camvid"), SIZE)


def onnx_file(folder: Path, **options: Any) -> Path:
    file = folder / "x.onnx"
    return export_onnx(resolve_model("fasterseg-camvid"), SIZE, EmitOptions(**options), file)


def plan_file(folder: Path, made: Plan | None = None) -> Path:
    write_plan(folder / "x.engine", made or plan())
    return folder / "x.engine"


def test_folder_holds_model_configuration_classes_and_readme(
    camvid: Servable, tmp_path: Path
) -> None:
    folder = write_repository(camvid, tmp_path / "models")
    assert folder == tmp_path / "models" / "fasterseg-camvid"
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files == {"1/model.onnx", "config.pbtxt", "labels.txt", "README.md"}
    names = (folder / "labels.txt").read_text().splitlines()
    assert tuple(names) == camvid.spec.labels.classes


def test_model_file_is_an_engine_of_standard_operators(camvid: Servable, tmp_path: Path) -> None:
    file = write_repository(camvid, tmp_path) / "1" / "model.onnx"
    model = onnx.load(file)
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    assert OnnxRuntimeEngine.read_spec(file) == camvid.spec
    assert (camvid.spec.size, camvid.spec.batch) == (SIZE, None)


def test_dynamic_model_takes_any_size(tmp_path: Path) -> None:
    made = servable_model(resolve_model("fasterseg-camvid"), SIZE, dynamic=True)
    folder = write_repository(made, tmp_path)
    assert "dims: [ -1, -1, 3 ]" in (folder / "config.pbtxt").read_text()
    session = onnxruntime.InferenceSession(
        folder / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    frames = np.zeros((2, 80, 112, 3), np.uint8)
    assert session.run(None, {"frames": frames})[0].shape == (2, 80, 112)


def test_engine_file_is_served_without_its_functions(tmp_path: Path) -> None:
    made = servable_file(onnx_file(tmp_path, batch=2))
    assert made.spec.batch == 2
    assert not onnx.load_from_string(made.content).functions
    text = (write_repository(made, tmp_path / "models") / "config.pbtxt").read_text()
    assert "max_batch_size: 0\n" in text
    assert "dims: [ 2, 64, 96, 3 ]" in text
    assert "dynamic_batching" not in text


def test_plan_is_served_raw_with_its_description(tmp_path: Path) -> None:
    folder = write_repository(servable_file(plan_file(tmp_path)), tmp_path / "models")
    assert (folder / "1" / "model.plan").read_bytes() == DATA
    assert read_plan(folder / "1" / "model.plan").facts == plan().facts


def test_other_models_and_versions_are_left_alone(camvid: Servable, tmp_path: Path) -> None:
    kept = [tmp_path / "other" / "config.pbtxt", tmp_path / "net" / "2" / "model.onnx"]
    for file in kept:
        file.parent.mkdir(parents=True)
        file.write_text("mine")
    write_repository(camvid, tmp_path, name="net", overwrite=True)
    assert [file.read_text() for file in kept] == ["mine", "mine"]


def test_model_is_replaced_only_when_told(camvid: Servable, tmp_path: Path) -> None:
    plan_made = replace(servable_file(plan_file(tmp_path)), spec=camvid.spec)
    write_repository(plan_made, tmp_path / "models")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_repository(camvid, tmp_path / "models")
    folder = write_repository(camvid, tmp_path / "models", overwrite=True)
    assert [p.name for p in (folder / "1").iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("text", "name"),
    [("fasterseg-camvid", "fasterseg-camvid"), ("My net (v2)", "My-net-v2"), ("../a/b", "a-b"),
     ("line\nend$(x)", "line-end-x")],
)  # fmt: skip
def test_names_are_such_as_folders_and_addresses_take(text: str, name: str) -> None:
    assert model_name(text) == name


def test_a_name_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(UsageError, match="letters or digits"):
        model_name("…")


def test_repository_has_to_be_a_folder_of_models(camvid: Servable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        write_repository(camvid, tmp_path / "file")
    folder = write_repository(camvid, tmp_path)
    with pytest.raises(UsageError, match="repository above it"):
        write_repository(camvid, folder)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [({"stage": "logits8"}, UnsupportedError, "--stages"),
     ({"stage": "network"}, EngineMismatchError, "--stages")],
)  # fmt: skip
def test_graphs_that_give_logits_are_refused(
    tmp_path: Path, options: dict[str, Any], error: type[FastersegError], message: str
) -> None:
    with pytest.raises(error, match=message):
        servable_file(onnx_file(tmp_path, **options))


def test_files_that_are_no_engines_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no model")
    for name in ("x.onnx", "missing.onnx", "missing.engine"):
        with pytest.raises(EngineError):
            servable_file(tmp_path / name)
    (tmp_path / "alone.engine").write_bytes(DATA)
    with pytest.raises(EngineMismatchError, match="no description beside it"):
        servable_file(tmp_path / "alone.engine")


def test_plans_that_triton_cannot_run_or_nobody_should_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="tensorrt-rtx, which Triton"):
        servable_file(plan_file(tmp_path, plan(backend="tensorrt-rtx")))
    wrong = with_parity(plan().facts, ParityVerdict("torch", 0.5, 0.999, passed=False))
    with pytest.raises(ParityError, match=r"50\.0000%"):
        servable_file(plan_file(tmp_path, Plan(DATA, wrong)))


def test_a_plan_is_not_for_cpus(tmp_path: Path) -> None:
    made = servable_file(plan_file(tmp_path))
    with pytest.raises(UsageError, match="runs on a GPU"):
        write_repository(made, tmp_path / "models", Serving(device="cpu"))


def test_a_fixed_batch_is_not_changed(tmp_path: Path) -> None:
    made = servable_file(onnx_file(tmp_path, batch=2))
    write_repository(made, tmp_path / "models", Serving(max_batch=2))
    with pytest.raises(UsageError, match="takes 2 frames per call, --batch says 3"):
        write_repository(made, tmp_path / "more", Serving(max_batch=3))


def test_a_plan_of_free_sizes_keeps_to_what_it_was_built_for(tmp_path: Path) -> None:
    options = BuildOptions(dynamic=("64x64", "64x96", "128x192"), max_batch=6)
    emit = EmitOptions(precision="fp16", dynamic=True)
    made = servable_file(plan_file(tmp_path, plan(emit=emit, options=options)))
    text = (write_repository(made, tmp_path / "a") / "config.pbtxt").read_text()
    assert "max_batch_size: 6\n" in text
    text = (
        write_repository(made, tmp_path / "b", Serving(max_batch=2)) / "config.pbtxt"
    ).read_text()
    assert "max_batch_size: 2\n" in text
    with pytest.raises(UsageError, match="at most 6 frames"):
        write_repository(made, tmp_path / "c", Serving(max_batch=7))
