"""OpenVINO: the engine contract, the precision asked for or an error, its cache, two streams."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fasterseg.cache import entries
from fasterseg.cores import usable_cores
from fasterseg.deploy.fastest import INT8_FURTHER
from fasterseg.deploy.parity import LOGITS_MARGIN
from fasterseg.errors import (
    DeviceUnavailableError,
    EngineError,
    EngineMismatchError,
    MissingExtraError,
    UsageError,
)
from fasterseg.graph.emit import EmitOptions
from fasterseg.preprocess import normalize
from fasterseg.runtime.base import PIXEL_AGREEMENT, Engine, PipelinedEngine
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.runtime.store import onnx_bytes
from fasterseg.types import Size
from tests.contract.engine import SIZE, EngineContract
from tests.parity import run_onnx, street_like

pytestmark = pytest.mark.openvino

CAMVID = "fasterseg-camvid"
WIDE = Size(256, 512)
two_cores = pytest.mark.skipif(usable_cores() < 2, reason="OpenVINO takes no more than the cores")


def asked(**fields: Any) -> EngineRequest:
    return EngineRequest(**{"engine": "openvino", "size": SIZE, "threads": 1, **fields})


def opened(**fields: Any) -> Engine:
    request = asked(**fields)
    assert request.size is not None
    return open_engine(request, request.size, lambda _: None)


def has(kind: str) -> bool:
    from fasterseg.runtime.openvino_graph import capabilities

    return kind in capabilities()


class TestOpenVinoEngine(EngineContract):
    def open(self) -> Engine:
        return opened()


@two_cores
class TestOpenVinoStreams(EngineContract):
    def open(self) -> Engine:
        return opened(threads=2, streams=2)


@pytest.mark.parametrize("tail", ["graph", "auto"])
def test_fp32_labels_are_the_references(tail: str) -> None:
    frames = street_like(WIDE)
    model = resolve_model(CAMVID)
    graph = onnx.load_from_string(onnx_bytes(model, WIDE, EmitOptions("network")))
    logits = run_onnx(graph, input=normalize(frames)).astype(np.float32)
    expected = logits.argmax(axis=1)
    labels = opened(size=WIDE, tail=tail).run(frames)
    same = labels == expected
    best = np.partition(logits, -2, axis=1)
    decided = best[:, -1] - best[:, -2] > LOGITS_MARGIN
    assert same.mean() >= PIXEL_AGREEMENT["fp32"]
    assert same[decided].all()


def test_int8_is_as_near_to_fp32_as_the_same_integers_elsewhere() -> None:
    frames = street_like(WIDE)
    engine = opened(size=WIDE, precision="int8")
    assert (engine.spec.precision, engine.spec.profile) == ("int8", "cpu")
    other = opened(size=WIDE, precision="int8", engine="onnxruntime").run(frames).copy()
    exact = opened(size=WIDE).run(frames)
    labels = engine.run(frames)
    assert (labels == exact).mean() >= (other == exact).mean() - INT8_FURTHER
    assert (labels == other).mean() >= 0.99


def test_bf16_is_computed_where_the_cpu_can_and_refused_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if has("BF16"):
        engine = opened(size=WIDE, precision="bf16")
        assert engine.spec.precision == "bf16"
        exact = opened(size=WIDE).run(street_like(WIDE)).copy()
        labels = engine.run(street_like(WIDE))
        assert 0.98 <= (labels == exact).mean() < 1
    monkeypatch.setattr("fasterseg.runtime.openvino.capabilities", lambda: ("FP32", "INT8"))
    with pytest.raises(DeviceUnavailableError, match="--precision fp32 or int8"):
        opened(precision="bf16")


def test_another_precision_than_the_one_told_is_refused() -> None:
    from fasterseg.runtime import openvino_graph

    class Disobedient:
        """As if OpenVINO had kept its default, which is bf16 where the CPU has it."""

        def get_property(self, name: str) -> Any:
            return type("Kind", (), {"get_type_name": lambda _: "bf16"})()

    properties = openvino_graph.Settings().properties("fp32")
    with pytest.raises(DeviceUnavailableError, match=r"computes in bf16.*f32 was asked for"):
        openvino_graph._check_obeyed(Disobedient(), properties)


@two_cores
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_is_read_back_is_what_was_told(precision: str) -> None:
    engine: Any = opened(precision=precision, threads=2)
    read = engine._compiled.get_property
    assert read("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert (int(read("INFERENCE_NUM_THREADS")), int(read("NUM_STREAMS"))) == (2, 1)
    assert not read("ENABLE_CPU_PINNING")


def test_a_gpu_is_refused() -> None:
    with pytest.raises(DeviceUnavailableError, match="--device cpu"):
        opened(device="cuda")


def test_the_second_time_the_network_comes_out_of_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fasterseg.runtime import openvino_graph

    first = opened().run(street_like(SIZE)).copy()
    assert [entry.kind for entry in entries()].count("openvino") == 1

    class NoCompiler:
        def __getattr__(self, name: str) -> Any:
            assert name != "compile_model", "it was compiled again"
            return getattr(core, name)

    core = openvino_graph._core()
    monkeypatch.setattr(openvino_graph, "_core", NoCompiler)
    assert np.array_equal(opened().run(street_like(SIZE)), first)
    with pytest.raises(AssertionError, match="compiled again"):
        opened(precision="int8")


def test_a_damaged_entry_of_the_cache_is_made_again() -> None:
    expected = opened().run(street_like(SIZE)).copy()
    [blob] = [entry.path for entry in entries() if entry.kind == "openvino"]
    whole = blob.read_bytes()
    blob.write_bytes(whole[:1000])
    assert np.array_equal(opened().run(street_like(SIZE)), expected)
    assert blob.stat().st_size == len(whole)


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE", "/proc/nowhere")
    assert opened().run(street_like(SIZE)).shape == (1, *SIZE)


@two_cores
def test_two_streams_give_the_same_labels_in_order() -> None:
    frames = [street_like(SIZE, seed) for seed in range(4)]
    expected = [opened().run(batch).copy() for batch in frames]
    engine = opened(threads=2, streams=2)
    assert isinstance(engine, PipelinedEngine)
    assert not isinstance(opened(), PipelinedEngine)
    engine.submit(frames[0])
    for ahead, right in zip([*frames[1:], None], expected, strict=True):
        if ahead is not None:
            engine.submit(ahead)
        assert np.array_equal(engine.collect(), right)
    with pytest.raises(UsageError, match="submit one first"):
        engine.collect()
    engine.submit(frames[0])
    engine.submit(frames[1])
    with pytest.raises(UsageError, match="collect one first"):
        engine.submit(frames[2])
    engine.close()


def test_frames_need_not_lie_in_one_piece() -> None:
    engine = opened()
    frames = street_like(SIZE)
    mirrored = frames[:, :, ::-1]
    assert np.array_equal(engine.run(mirrored), engine.run(np.ascontiguousarray(mirrored)))


def test_bound_runs_equal_plain_runs() -> None:
    engine: Any = opened()
    expected = engine.run(street_like(SIZE, 1)).copy()
    engine.bind(street_like(SIZE, 1))
    engine.run_bound()
    assert np.array_equal(engine._first.labels, expected)


@pytest.mark.parametrize("options", [EmitOptions(), EmitOptions(dynamic=True)])
def test_an_onnx_file_runs_with_its_functions_expanded(
    tmp_path: Path, options: EmitOptions
) -> None:
    file = tmp_path / "engine.onnx"
    file.write_bytes(onnx_bytes(resolve_model(CAMVID), SIZE, options))
    engine = opened(model=str(file))
    assert (engine.backend, engine.tail) == ("openvino", "graph")
    expected = opened(engine="onnxruntime", tail="graph").run(street_like(SIZE))
    assert np.array_equal(engine.run(street_like(SIZE)), expected)


def test_files_that_are_no_engines_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.onnx"
    with pytest.raises(EngineError, match="does not exist"):
        opened(model=str(file))
    file.write_bytes(b"text")
    with pytest.raises(EngineError, match="no readable ONNX"):
        opened(model=str(file))
    file.write_bytes(onnx_bytes(resolve_model(CAMVID), SIZE, EmitOptions("network")))
    with pytest.raises(EngineMismatchError, match="gives logits"):
        opened(model=str(file))
    graph = onnx.load_from_string(onnx_bytes(resolve_model(CAMVID), SIZE, EmitOptions()))
    del graph.metadata_props[:]
    file.write_bytes(graph.SerializeToString())
    with pytest.raises(EngineMismatchError, match="no engine description"):
        opened(model=str(file))


def test_a_precision_the_file_is_not_in_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.onnx"
    file.write_bytes(onnx_bytes(resolve_model(CAMVID), SIZE, EmitOptions(precision="int8")))
    with pytest.raises(UsageError, match="int8 and cannot be computed in bf16"):
        opened(model=str(file), precision="bf16")


def test_without_the_package_the_line_that_installs_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "fasterseg.runtime.openvino", raising=False)
    monkeypatch.delitem(sys.modules, "fasterseg.runtime.openvino_graph", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'fasterseg\[openvino\]'"):
        opened()
