"""Whatever stands where an engine file should: a clear error, its remedy, exit code 4."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from fasterseg.errors import EngineError, EngineMismatchError, FastersegError
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime import store
from fasterseg.runtime.base import METADATA_KEY
from fasterseg.runtime.model import generic_labels, resolve_model
from fasterseg.runtime.onnxrt import OnnxRuntimeEngine
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.runtime.store import engine_path, find_or_build, onnx_bytes
from fasterseg.types import Size
from tests.parity import street_like
from tests.shared import ROOT

pytestmark = pytest.mark.onnx

SIZE = Size(64, 96)
CAMVID = "fasterseg-camvid"


def engine_bytes(options: EmitOptions | None = None, model: str = CAMVID) -> bytes:
    return onnx_bytes(resolve_model(model), SIZE, options or EmitOptions())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "engine.onnx"
    path.write_bytes(engine_bytes())
    return path


def request(path: Path | str, **fields: object) -> EngineRequest:
    asked = EngineRequest(engine=str(path), device="cpu", threads=1)
    return dataclasses.replace(asked, **fields)  # type: ignore[arg-type]


def refused(path: Path | str, **fields: object) -> str:
    """The message of a refusal that has exit code 4 and says what to do."""
    with pytest.raises(EngineError) as caught:
        open_engine(request(path, **fields), SIZE, print)
    assert caught.value.exit_code == 4
    return str(caught.value)


def with_spec(file: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change the description inside a file."""
    model = onnx.load(file)
    entry = next(e for e in model.metadata_props if e.key == METADATA_KEY)
    spec = json.loads(entry.value)
    change(spec)
    entry.value = json.dumps(spec)
    onnx.save(model, file)


def test_a_folder_is_no_engine(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").mkdir()
    assert "is no file but a folder" in refused(tmp_path / "x.onnx")


def test_a_pipe_is_no_engine_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.onnx")
    assert "is no file" in refused(tmp_path / "x.onnx")


def test_a_file_that_may_not_be_read_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", deny)
    told = refused(file)
    assert "Permission denied" in told
    assert "engine.onnx" in told


@pytest.mark.parametrize("name", ["x" * 300 + ".onnx", "y" * 5000 + ".onnx", "a\0b.onnx"])
def test_names_that_no_file_can_have_are_refused(name: str) -> None:
    assert "cannot read engine" in refused(name)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_names_that_are_neither_file_nor_backend_are_unknown(name: str) -> None:
    with pytest.raises(FastersegError, match="unknown engine"):
        open_engine(request(name), SIZE, print)


def test_a_name_that_is_no_text_leads_to_its_file(file: Path) -> None:
    odd = file.with_name(os.fsdecode(b"m\xfcller.onnx"))
    file.rename(odd)
    assert open_engine(request(odd), SIZE, print).run(street_like(SIZE)).shape == (1, *SIZE)


def test_a_file_beyond_what_onnx_can_be_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    with path.open("wb") as huge:
        huge.truncate(3 << 30)
    assert "2 GiB" in refused(path)


@pytest.mark.parametrize(
    ("share", "flip"), [(0.0, False), (0.01, False), (0.5, False), (0.999, False), (1.0, True)]
)
def test_damaged_files_are_refused(file: Path, share: float, flip: bool) -> None:
    data = file.read_bytes()
    cut = bytearray(data[: int(len(data) * share)])
    if flip:
        cut[:64] = bytes(64)
    file.write_bytes(cut)
    assert "fasterseg export" in refused(file)


def test_a_file_that_vanishes_between_check_and_open_is_missing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def late(path: Path) -> bytes:
        path.unlink()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", late)
    assert "does not exist" in refused(file)


def test_an_engine_of_other_classes_than_the_model_asked_for_is_refused(file: Path) -> None:
    told = refused(file, model="fasterseg-student")
    assert "11 classes of camvid" in told
    assert "fasterseg-student has 19" in told
    assert "Leave --model out" in told


def test_an_engine_alone_says_which_model_it_is(tmp_path: Path) -> None:
    path = tmp_path / "student.onnx"
    path.write_bytes(engine_bytes(model="fasterseg-student"))
    assert open_engine(request(path), SIZE, print).spec.num_classes == 19
    assert open_engine(request(path, model="fasterseg-student"), SIZE, print).spec.trained is False


def test_an_engine_of_another_batch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(engine_bytes(EmitOptions(batch=2)))
    told = refused(path)
    assert "2 frames per call, not 1" in told
    assert "--batch 1" in told
    engine = open_engine(request(path, batch=2), SIZE, print)
    assert engine.run(np.concatenate([street_like(SIZE)] * 2)).shape == (2, *SIZE)


def test_a_newer_schema_asks_for_an_upgrade(file: Path) -> None:
    with_spec(file, lambda spec: spec.update(schema=2))
    assert "Upgrade: pip install -U fasterseg" in refused(file)


def test_names_for_other_classes_than_the_networks_are_refused(file: Path) -> None:
    with_spec(
        file, lambda spec: spec.update(labels=resolve_model("fasterseg-student").labels.to_json())
    )
    told = refused(file)
    assert "11 classes and names for 19" in told


def test_a_foreign_network_with_too_few_names_is_found_out_by_its_first_frame(
    file: Path,
) -> None:
    with_spec(file, lambda spec: spec.update(genotype=None, labels=generic_labels(1).to_json()))
    engine = open_engine(request(file), SIZE, print)
    with pytest.raises(EngineMismatchError, match=r"gave class \d+, its description has 1"):
        engine.run(street_like(SIZE))


@pytest.mark.parametrize(
    "change", [{"size": "64x64"}, {"size": None}, {"batch": 2}, {"batch": None}]
)
def test_a_description_of_another_graph_is_refused(file: Path, change: dict[str, object]) -> None:
    with_spec(file, lambda spec: spec.update(change))
    told = refused(file, batch=change.get("batch") or 1)
    assert "its description says" in told


def test_a_graph_of_another_kind_is_refused(file: Path) -> None:
    helper = onnx.helper
    value = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 3]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.metadata_props.extend(onnx.load(file).metadata_props)
    onnx.save(model, file)
    assert "float32" in refused(file)


def test_an_engine_may_be_bytes() -> None:
    engine = OnnxRuntimeEngine.open(engine_bytes(), "cpu", threads=1)
    assert engine.run(street_like(SIZE)).shape == (1, *SIZE)
    with pytest.raises(EngineError, match="cannot load the engine"):
        OnnxRuntimeEngine.open(b"text", "cpu")


@pytest.mark.parametrize("step", ["mkdir", "replace"])
def test_a_cache_that_cannot_be_written_gives_the_engine_itself(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    notes: list[str] = []
    monkeypatch.setattr(Path, step, refuse)
    model = resolve_model(CAMVID)
    assert find_or_build(model, SIZE, EmitOptions(), notes.append) == engine_bytes()
    assert len(notes) == 1
    assert "Read-only file system" in notes[0]
    assert "for this run only" in notes[0]


def test_an_engine_in_a_read_only_cache_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resolve_model(CAMVID)
    path = find_or_build(model, SIZE, EmitOptions(), print)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(os, "utime", refuse)
    assert find_or_build(model, SIZE, EmitOptions(), print) == path


def test_a_damaged_entry_of_a_read_only_cache_is_replaced_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = EngineRequest(device="cpu", size=SIZE, threads=1, tail="graph")
    expected = open_engine(asked, SIZE, print).run(street_like(SIZE)).copy()
    path = engine_path(resolve_model(CAMVID), SIZE, EmitOptions())
    path.write_bytes(b"rotten")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    notes: list[str] = []
    engine = open_engine(asked, SIZE, notes.append)
    assert np.array_equal(engine.run(street_like(SIZE)), expected)
    assert [part in " ".join(notes) for part in ("damaged", "for this run only")] == [True, True]


def test_what_is_no_engine_however_often_it_is_built_ends_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "onnx_bytes", lambda *_: b"never right")
    with pytest.raises(EngineError, match="cannot load"):
        open_engine(EngineRequest(device="cpu", size=SIZE), SIZE, print)


BUILD = """
import sys
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.onnxrt import OnnxRuntimeEngine
from fasterseg.runtime.store import find_or_build
from fasterseg.types import Size

print("ready", flush=True)
sys.stdin.readline()
path = find_or_build(resolve_model("fasterseg-camvid"), Size(64, 96), EmitOptions(), print)
assert OnnxRuntimeEngine.open(path, "cpu", threads=1).spec.size == Size(64, 96)
print(path)
"""


def test_two_processes_build_one_engine_once(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert told[0][-1] == told[1][-1]
    built = [line for lines in told for line in lines if line.startswith("built engine")]
    assert len(built) == 1
    names = {path.suffix for path in Path(told[0][-1]).parent.iterdir()}
    assert names == {".onnx", ".lock"}
