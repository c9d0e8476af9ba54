"""ONNX Runtime: the engine contract, the device asked for or an error, files that are none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from fasterseg.errors import DeviceUnavailableError, EngineError, EngineMismatchError, UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime import onnxrt_session
from fasterseg.runtime.base import METADATA_KEY, Engine
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.onnxrt import OnnxRuntimeEngine, cuda_device_count
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.runtime.store import onnx_bytes
from tests.contract.engine import SIZE, EngineContract
from tests.parity import street_like
from tests.shared import ROOT

pytestmark = pytest.mark.onnx


class TestOnnxRuntimeEngine(EngineContract):
    def open(self) -> Engine:
        return open_engine(EngineRequest(device="cpu", size=SIZE), SIZE, print)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "engine.onnx"
    path.write_bytes(onnx_bytes(resolve_model("fasterseg-camvid"), SIZE, EmitOptions()))
    return path


def test_bound_runs_equal_plain_runs(file: Path) -> None:
    engine = OnnxRuntimeEngine.open(file, "cpu", threads=1)
    frames = street_like(SIZE)
    expected = engine.run(frames).copy()
    engine.bind(frames)
    engine.run_bound()
    assert np.array_equal(engine.bound_labels(), expected)
    engine.bind(street_like(SIZE, 1))
    engine.run_bound()
    assert np.array_equal(engine.bound_labels(), engine.run(street_like(SIZE, 1)))


def test_a_bound_run_without_bind_is_an_error(file: Path) -> None:
    with pytest.raises(UsageError, match="bind"):
        OnnxRuntimeEngine.open(file, "cpu").run_bound()


@pytest.mark.skipif(cuda_device_count() > 0, reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_an_error_not_a_cpu(file: Path) -> None:
    with pytest.raises(DeviceUnavailableError, match="--device cpu"):
        OnnxRuntimeEngine.open(file, "cuda")


def test_a_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="fasterseg export"):
        OnnxRuntimeEngine.open(tmp_path / "none.onnx", "cpu")


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\x09" * 40])
def test_files_that_are_no_onnx_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineError):
        OnnxRuntimeEngine.open(path, "cpu")


def test_a_truncated_engine_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(EngineError, match="fasterseg export"):
        OnnxRuntimeEngine.open(file, "cpu")


def test_an_onnx_file_without_a_description_is_refused(file: Path) -> None:
    model = onnx.load(file)
    del model.metadata_props[:]
    onnx.save(model, file)
    with pytest.raises(EngineMismatchError, match="carries no engine description"):
        OnnxRuntimeEngine.open(file, "cpu")


def test_a_file_that_gives_logits_is_no_engine(tmp_path: Path) -> None:
    path = tmp_path / "bare.onnx"
    options = EmitOptions("network")
    path.write_bytes(onnx_bytes(resolve_model("fasterseg-camvid"), SIZE, options))
    with pytest.raises(EngineMismatchError, match="gives logits"):
        OnnxRuntimeEngine.open(path, "cpu")
    assert OnnxRuntimeEngine.read_spec(path).output == "logits"


def test_the_description_is_readable_with_onnx_alone(file: Path) -> None:
    assert METADATA_KEY in {entry.key for entry in onnx.load(file).metadata_props}


def test_a_graph_that_loads_and_cannot_run_is_told_as_one(file: Path) -> None:
    # Found by fuzzing: shapes that only meet when the graph runs.
    model = onnx.load(file)
    convolution = next(
        n for n in model.graph.node if n.op_type == "Conv" and n.name.startswith("fuse.")
    )
    next(a for a in convolution.attribute if a.name == "kernel_shape").ints[0] = 2**40
    onnx.save(model, file)
    with pytest.raises(EngineError, match="fasterseg export"):
        OnnxRuntimeEngine.open(file, "cpu").run(street_like(SIZE))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : sse4_2 avx2", True),
        ("flags : avx2 avx512f avx512_vnni", False),
        ("flags : avx2 avx_vnni", False),
        ("Features : asimd asimddp", False),
    ],
)
def test_exact_int8_products_are_asked_for_where_they_would_overflow(
    tmp_path: Path, flags: str, expected: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(flags)
    assert onnxrt_session._int8_products_saturate(tmp_path / "cpuinfo") is expected
    assert onnxrt_session._int8_products_saturate(tmp_path / "none") is False


def test_nothing_is_reported_to_the_makers_of_the_runtime(file: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    program = (
        "import sys; from pathlib import Path\n"
        "from fasterseg.runtime.onnxrt import OnnxRuntimeEngine\n"
        "OnnxRuntimeEngine.open(Path(sys.argv[1]), 'cpu', threads=1).close()"
    )
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", program, str(file)], env=environment, check=True)
    # Its reports, and a number for the machine, are kept in the home folder until they are sent.
    assert not [path for path in home.rglob("*") if path.is_file()]
