"""ONNX Runtime on a GPU, the host's side: what it is asked for, what is bound, and until when.

The GPU is `tests.fake_cuda`, its sessions are those of `fake_onnxrt`.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as binding

from fasterseg.arch.genotype import Branch, Genotype
from fasterseg.errors import (
    DeviceLostError,
    DeviceUnavailableError,
    EngineError,
    UnsupportedError,
    UsageError,
)
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime import onnxrt
from fasterseg.runtime.base import DeviceTimed, PipelinedEngine
from fasterseg.runtime.model import Model, generic_labels
from fasterseg.runtime.onnxrt import OnnxRuntimeEngine
from fasterseg.runtime.onnxrt_session import CudaSettings, failure_on_gpu
from fasterseg.runtime.store import onnx_bytes
from fasterseg.types import Size
from tests.fake_cuda import FakeCudart, fake_port
from tests.parity import street_like
from tests.unit.runtime.fake_onnxrt import CUDA, FakeOrt, FakeValue

pytestmark = pytest.mark.onnx

SIZE = Size(64, 96)
OTHER = Size(64, 128)
OUT_OF_MEMORY = "Failed to allocate memory for requested buffer of size 8388608"
LOST = "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; expr=cudaMemcpy"


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """The engines of these tests, by name."""
    tiny = Genotype("tiny", 5, 4, 4, (Branch(("conv", "conv_downup"), (8, 16), (4,)),))
    model = Model(tiny.name, tiny, generic_labels(5), SIZE, weights=None)
    options = {
        "fp32": EmitOptions(),
        "fp16": EmitOptions(precision="fp16"),
        "dynamic": EmitOptions(dynamic=True),
        "logits8": EmitOptions("logits8"),
    }
    return {name: onnx_bytes(model, SIZE, one) for name, one in options.items()}


@pytest.fixture
def ort(monkeypatch: pytest.MonkeyPatch) -> FakeOrt:
    """A build of ONNX Runtime with a CUDA provider, on a machine with a GPU."""
    fake = FakeOrt()
    monkeypatch.setattr(onnxruntime, "InferenceSession", fake.session)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "OrtValue", FakeValue)
    monkeypatch.setattr(onnxrt, "cuda_device_count", lambda: 1)
    monkeypatch.setitem(sys.modules, "cuda", None)  # no cuda-python, unless a test brings it
    return fake


@pytest.fixture
def cudart(ort: FakeOrt) -> Iterator[FakeCudart]:
    """The same with cuda-python."""
    with fake_port() as (_, fake):
        ort.enqueue = fake.enqueue
        yield fake


def expected(content: bytes, frames: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return OnnxRuntimeEngine.open(content, "cpu", threads=1).run(frames).copy()


def opened(content: bytes) -> Any:
    return OnnxRuntimeEngine.open(content, "cuda", threads=1)


# --- what a session is opened with ---------------------------------------------------------------


def test_half_precision_is_channels_last_and_fused_and_fp32_is_neither_nor_tf32(
    ort: FakeOrt, contents: dict[str, bytes]
) -> None:
    for name, flag in (("fp16", "1"), ("fp32", "0")):
        opened(contents[name]).close()
        options = ort.opened[-1]
        assert options["prefer_nhwc"] == options["fuse_conv_bias"] == flag
        assert options["use_tf32"] == "0"
        assert options["cudnn_conv_algo_search"] == "EXHAUSTIVE"
        assert options["enable_cuda_graph"] == "1"
        assert "user_compute_stream" not in options


def test_a_graph_is_captured_only_where_sizes_are_fixed(
    ort: FakeOrt, contents: dict[str, bytes]
) -> None:
    fixed, free = opened(contents["fp32"]), opened(contents["dynamic"])
    assert [options["enable_cuda_graph"] for options in ort.opened] == ["1", "0"]
    assert (fixed.captured, free.captured) == (True, False)
    spec = fixed.spec
    assert not CudaSettings.of(replace(spec, batch=None)).graph
    assert not CudaSettings.of(replace(spec, size=None)).graph


def test_a_refused_graph_is_told_and_the_engine_runs_without(
    ort: FakeOrt, contents: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    reason = "This session cannot use the graph capture feature as requested by the user"
    ort.refuse = lambda o: binding.Fail(reason) if o["enable_cuda_graph"] == "1" else None
    with caplog.at_level(logging.WARNING):
        engine = opened(contents["fp32"])
    assert [options["enable_cuda_graph"] for options in ort.opened] == ["1", "0"]
    assert engine.captured is False
    assert f"no CUDA graph, every step is launched by itself: {reason}" in caplog.text
    engine.run(street_like(SIZE))
    assert ort.runs == [{}]


def test_missing_libraries_are_an_error_and_no_cpu(
    ort: FakeOrt, contents: dict[str, bytes]
) -> None:
    ort.given = "CPUExecutionProvider"
    with pytest.raises(DeviceUnavailableError, match=r"onnxruntime-gpu\[cuda,cudnn\]"):
        opened(contents["fp32"])
    assert len(ort.opened) == 1  # not tried again without a graph, which would not help


def test_a_build_without_the_provider_is_an_error(
    ort: FakeOrt, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceUnavailableError, match="pip install onnxruntime-gpu"):
        opened(contents["fp32"])


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (RuntimeError(OUT_OF_MEMORY), EngineError, "smaller --size"),
        (binding.Fail("CUDA failure 2: out of memory ; GPU=0"), EngineError, "smaller --size"),
        (
            binding.Fail("CUDA failure 209: no kernel image is available for execution"),
            UnsupportedError,
            "no kernels for this GPU",
        ),
        (RuntimeError("CUDA failure 35: driver too old"), DeviceUnavailableError, "nvidia-smi"),
        (binding.EPFail(LOST), DeviceLostError, "What was computed is lost"),
        (binding.Fail("CUDNN failure 3000: NOT_SUPPORTED ; GPU=0"), EngineError, "CUDA failed"),
    ],
)
def test_errors_of_the_gpu_have_types_and_remedies(
    ort: FakeOrt,
    contents: dict[str, bytes],
    error: Exception,
    kind: type[EngineError],
    message: str,
) -> None:
    ort.refuse = lambda options: error
    with pytest.raises(kind, match=message):
        opened(contents["fp32"])
    assert type(failure_on_gpu("x", error)) is kind
    assert failure_on_gpu("x", binding.Fail("invalid model")) is None


# --- without cuda-python -------------------------------------------------------------------------


def test_without_cuda_python_frames_and_labels_lie_on_the_gpu(
    ort: FakeOrt, contents: dict[str, bytes]
) -> None:
    engine = opened(contents["fp32"])
    before = FakeValue.taken
    for seed in range(3):
        frames = street_like(SIZE, seed)
        assert np.array_equal(engine.run(frames), expected(contents["fp32"], frames))
    assert FakeValue.taken - before == 2, "input and output are taken once"
    assert len(ort.bindings) == 1
    assert ort.runs == [{"gpu_graph_id": "1"}] * 3
    assert not isinstance(engine, DeviceTimed)


def test_another_shape_is_bound_anew(ort: FakeOrt, contents: dict[str, bytes]) -> None:
    engine = opened(contents["dynamic"])
    for size in (SIZE, OTHER, SIZE):
        frames = street_like(size)
        assert np.array_equal(engine.run(frames), expected(contents["dynamic"], frames))
    assert len(ort.bindings) == 3
    assert ort.runs == [{}] * 3


def test_logits_are_finished_on_the_host(ort: FakeOrt, contents: dict[str, bytes]) -> None:
    engine = opened(contents["logits8"])
    frames = street_like(SIZE)
    assert np.array_equal(engine.run(frames), expected(contents["logits8"], frames))
    assert engine.tail != "graph"


def test_memory_that_runs_out_while_binding_says_what_helps(
    ort: FakeOrt, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(contents["fp32"])

    def refuse(*_: object) -> None:
        raise RuntimeError(OUT_OF_MEMORY)

    with monkeypatch.context() as patch:
        patch.setattr(FakeValue, "ortvalue_from_shape_and_type", refuse)
        with pytest.raises(EngineError, match="smaller --size"):
            engine.run(street_like(SIZE))
    engine.run(street_like(SIZE))
    assert ort.runs == [{"gpu_graph_id": "2"}]  # other buffers, another graph


# --- with cuda-python ----------------------------------------------------------------------------


def test_with_cuda_python_runs_are_on_our_stream_between_our_buffers(
    ort: FakeOrt, cudart: FakeCudart, contents: dict[str, bytes]
) -> None:
    engine = opened(contents["fp32"])
    assert all(isinstance(engine, face) for face in (DeviceTimed, PipelinedEngine))
    stream = int(ort.opened[0]["user_compute_stream"])
    assert cudart.live[stream] == "stream"
    for seed in range(5):
        frames = street_like(SIZE, seed)
        assert np.array_equal(engine.run(frames), expected(contents["fp32"], frames))
    # Two slots take turns: two pairs of addresses, and a graph for each.
    assert len(ort.bindings) == 2
    assert [run["gpu_graph_id"] for run in ort.runs] == ["1", "2", "1", "2", "1"]
    assert all(run["disable_synchronize_execution_providers"] == "1" for run in ort.runs)
    engine.close()


def test_two_batches_may_be_on_their_way(
    ort: FakeOrt, cudart: FakeCudart, contents: dict[str, bytes]
) -> None:
    engine = opened(contents["fp32"])
    first, second = street_like(SIZE, 0), street_like(SIZE, 1)
    engine.submit(first)
    engine.submit(second)
    with pytest.raises(UsageError, match="on their way"):
        engine.submit(first)
    assert np.array_equal(engine.collect(), expected(contents["fp32"], first))
    assert np.array_equal(engine.collect(), expected(contents["fp32"], second))


def test_another_size_gets_other_buffers_and_gives_the_old_ones_back(
    ort: FakeOrt, cudart: FakeCudart, contents: dict[str, bytes]
) -> None:
    engine = opened(contents["dynamic"])
    engine.run(street_like(SIZE))
    taken = len(cudart.live)
    for size in (OTHER, SIZE):
        frames = street_like(size)
        assert np.array_equal(engine.run(frames), expected(contents["dynamic"], frames))
        assert len(cudart.live) == taken
    assert all("gpu_graph_id" not in run for run in ort.runs)
    assert len(ort.bindings) == 3


def test_frames_that_do_not_fit_reach_no_session(
    ort: FakeOrt, cudart: FakeCudart, contents: dict[str, bytes]
) -> None:
    engine = opened(contents["fp32"])
    with pytest.raises(UsageError, match="64x96"):
        engine.run(street_like(OTHER))
    assert ort.runs == []


def test_time_on_the_device_leaves_the_copies_out(
    ort: FakeOrt, cudart: FakeCudart, contents: dict[str, bytes]
) -> None:
    engine = opened(contents["fp32"])
    with pytest.raises(UsageError, match="run one batch"):
        engine.time_on_device(2)
    engine.run(street_like(SIZE))

    def work(stream: int, compute: Callable[[], None]) -> None:
        cudart.now += 2.0
        compute()

    ort.enqueue = work
    runs = len(ort.runs)
    assert engine.time_on_device(3) == [2.0, 2.0, 2.0]
    assert {run["gpu_graph_id"] for run in ort.runs[runs:]} == {"1"}, "no new addresses"


def test_a_lost_gpu_is_told_and_nothing_is_tried_on_it_again(
    ort: FakeOrt, cudart: FakeCudart, contents: dict[str, bytes]
) -> None:
    engine = opened(contents["fp32"])
    engine.run(street_like(SIZE))
    ort.fail = lambda run: binding.EPFail(LOST)
    for _ in range(2):
        with pytest.raises(DeviceLostError, match="start again"):
            engine.run(street_like(SIZE))
    assert len(ort.runs) == 2


def test_memory_that_runs_out_in_a_run_is_no_lost_gpu(
    ort: FakeOrt, cudart: FakeCudart, contents: dict[str, bytes]
) -> None:
    engine = opened(contents["fp32"])
    ort.fail = lambda run: binding.Fail(OUT_OF_MEMORY) if run == 1 else None
    with pytest.raises(EngineError, match="smaller --size"):
        engine.run(street_like(SIZE))
    frames = street_like(SIZE)
    assert np.array_equal(engine.run(frames), expected(contents["fp32"], frames))


def test_close_gives_everything_back_the_session_before_its_stream(
    ort: FakeOrt, cudart: FakeCudart, contents: dict[str, bytes]
) -> None:
    engine = opened(contents["fp32"])
    engine.run(street_like(SIZE))
    seen: list[list[str]] = []
    destroy = FakeCudart._StreamDestroy

    def note(fake: FakeCudart, stream: int) -> tuple[int]:
        gc.collect()
        seen.append(list(ort.closed))
        return destroy(fake, stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeCudart, "_StreamDestroy", note)
        engine.close()
        engine.close()
    assert seen == [["session"]]
    assert cudart.live == {}
    with pytest.raises(UsageError, match="closed"):
        engine.run(street_like(SIZE))


def test_an_engine_that_cannot_be_opened_leaves_no_stream(
    ort: FakeOrt, cudart: FakeCudart, contents: dict[str, bytes]
) -> None:
    ort.refuse = lambda options: binding.InvalidGraph("broken")
    with pytest.raises(EngineError, match="fasterseg export"):
        opened(contents["fp32"])
    assert cudart.live == {}


def test_a_file_is_opened_on_the_gpu_as_its_content_is(
    ort: FakeOrt, cudart: FakeCudart, contents: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "engine.onnx"
    path.write_bytes(contents["fp16"])
    engine = OnnxRuntimeEngine.open(path, "auto", threads=1)
    assert (engine.device, engine.spec.precision, engine.captured) == ("cuda", "fp16", True)
    path.write_bytes(contents["fp16"][:1000])
    with pytest.raises(EngineError, match=str(path)):
        OnnxRuntimeEngine.open(path, "cuda")
