"""The CUDA port of torch, over a fake of `torch.cuda`; and what CUDA says, in our words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch not installed")

from fasterseg.errors import (  # noqa: E402
    DeviceLostError,
    DeviceUnavailableError,
    EngineError,
    UnsupportedError,
)
from fasterseg.nn import cuda_port  # noqa: E402
from fasterseg.nn.cuda_errors import told  # noqa: E402
from tests.fake_torch_cuda import FakeTorchCuda, host_port  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def fake() -> Iterator[FakeTorchCuda]:
    with host_port() as made:
        yield made


def test_a_frame_goes_to_the_gpu_and_back(fake: FakeTorchCuda) -> None:
    stream, there = cuda_port.Stream(), cuda_port.DeviceBuffer((2, 3))
    source, target = cuda_port.PinnedBuffer((2, 3)), cuda_port.PinnedBuffer((2, 3))
    source.array[...] = np.arange(6).reshape(2, 3)
    stream.copy_in(there, source)
    stream.copy_out(target, there)
    stream.synchronize()
    assert np.array_equal(target.array, source.array)


def test_a_graph_does_the_same_again_with_new_values(fake: FakeTorchCuda) -> None:
    stream, there, here = (
        cuda_port.Stream(),
        cuda_port.DeviceBuffer((4,)),
        cuda_port.PinnedBuffer((4,)),
    )
    back = cuda_port.PinnedBuffer((4,))
    with stream.capture():
        stream.copy_in(there, here)
        with cuda_port.on(stream.handle):
            doubled = there.tensor * 2
        stream.copy(there.tensor, doubled)
        stream.copy_out(back, there)
    here.array[...] = [1, 2, 3, 4]
    assert stream.graph is not None
    stream.graph.launch(stream.handle)
    assert back.array.tolist() == [2, 4, 6, 8]


def test_graphs_of_a_stream_share_their_memory_as_long_as_one_is_open(fake: FakeTorchCuda) -> None:
    stream = cuda_port.Stream()
    graphs = []
    for _ in range(3):
        with stream.capture():
            pass
        graphs.append(stream.graph)
    assert fake.pools == {0: 3}
    for graph in graphs:
        assert graph is not None
        graph.close()
        graph.close()
    assert fake.pools == {0: 0}
    with stream.capture():
        pass
    assert fake.pools == {0: 0, 1: 1}


def test_a_capture_that_fails_is_ended_and_leaves_no_graph(fake: FakeTorchCuda) -> None:
    stream = cuda_port.Stream()
    with pytest.raises(ValueError, match="inside"), stream.capture():
        raise ValueError("inside")
    assert not fake.capturing
    assert stream.graph is None
    assert not any(fake.pools.values())
    fake.failing["capture_end"] = RuntimeError("CUDA error: operation failed due to a previous")
    with pytest.raises(EngineError, match="capturing a CUDA graph"), stream.capture():
        pass
    assert stream.graph is None
    assert not any(fake.pools.values())


def test_memory_nobody_uses_is_there_for_the_graph(fake: FakeTorchCuda) -> None:
    stream = cuda_port.Stream()
    with stream.capture():
        pass
    assert fake.log.index("empty_cache") < fake.log.index("capture_begin")


def test_streams_in_use_are_all_different_though_torch_deals_the_same_again() -> None:
    with host_port(streams=4):
        kept = [cuda_port.Stream() for _ in range(3)]
        for _ in range(8):
            other = cuda_port.Stream()
            assert other.handle not in {stream.handle for stream in kept}
            other.close()
        # More than torch has: better shared than none.
        shared = [cuda_port.Stream() for _ in range(2)]
        assert shared[1].handle
        for stream in (*kept, *shared):
            stream.close()
        assert not cuda_port._HELD


def test_a_stream_that_was_left_is_the_next_ones(fake: FakeTorchCuda) -> None:
    first, kept = cuda_port.Stream(), cuda_port.Stream()
    first.close()
    first.close()
    again = cuda_port.Stream()
    assert again.handle == first.handle
    assert cuda_port.Stream().handle not in (again.handle, kept.handle)


def test_the_gpus_clock_is_read_between_two_events(fake: FakeTorchCuda) -> None:
    stream = cuda_port.Stream()
    start, end = cuda_port.Event(timing=True), cuda_port.Event(timing=True)
    start.record(stream.handle)
    fake.now += 7.0
    end.record(stream.handle)
    assert end.ms_since(start) == 7.0


@pytest.mark.parametrize(
    ("stream", "producer", "ordered"),
    [(5, None, False), (5, 5, False), (0, 1, False), (5, 6, True), (5, 1, True)],
)
def test_a_stream_waits_for_the_one_its_input_comes_from(
    fake: FakeTorchCuda, stream: int, producer: int | None, ordered: bool
) -> None:
    cuda_port.order_after(stream, producer)
    expected = (stream, 0 if producer == 1 else producer)
    assert fake.waits == ([expected] if ordered else [])


def test_device_memory_is_everybodys(fake: FakeTorchCuda) -> None:
    buffer = cuda_port.DeviceBuffer((2, 3), "<f4")
    facts = buffer.__cuda_array_interface__
    assert (facts["shape"], facts["typestr"], facts["strides"]) == ((2, 3), "<f4", None)
    assert facts["data"] == (buffer.tensor.data_ptr(), False)
    assert buffer.nbytes == 24
    buffer.close()
    buffer.close()
    assert buffer.pointer == 0


def test_pinned_memory_lives_as_long_as_its_array(fake: FakeTorchCuda) -> None:
    buffer = cuda_port.PinnedBuffer((3,))
    buffer.array[...] = 7
    kept = buffer.array
    buffer.close()
    assert kept.tolist() == [7, 7, 7]
    assert buffer.array.size == 0


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ("CUDA error: out of memory\nCompile with", EngineError, "memory ran out.*smaller --size"),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", EngineError, "memory ran out"),
        (
            "CUDA error: no kernel image is available for execution on the device",
            UnsupportedError,
            "no code for this GPU.*pytorch.org",
        ),
        ("No CUDA GPUs are available", DeviceUnavailableError, "nvidia-smi"),
        (
            "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might",
            DeviceLostError,
            "illegal memory access was encountered. What was computed is lost.*start again",
        ),
        ("CUDA error: device-side assert triggered", DeviceLostError, "lost"),
        ("CUDA error: uncorrectable ECC error encountered", DeviceLostError, "lost"),
        ("GET was unable to find an engine to execute this", UnsupportedError, "--precision"),
        ("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED", UnsupportedError, "--precision"),
        ("CUDA error: operation not permitted when stream is capturing", EngineError, "permitted"),
    ],
)
def test_what_cuda_says_becomes_our_error(
    said: str, error: type[EngineError], message: str
) -> None:
    with pytest.raises(EngineError, match=message) as caught, told("trying"):
        raise RuntimeError(said)
    assert type(caught.value) is error
    assert "while trying" in str(caught.value)
    assert "Compile with" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_torchs_own_out_of_memory_is_one() -> None:
    with (
        pytest.raises(EngineError, match=r"while trying \(CUDA out of memory. Tried"),
        told("trying"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB\nMore")


def test_our_kernels_errors_are_ours_but_tell_a_lost_device_and_a_foreign_gpu() -> None:
    with pytest.raises(EngineError, match=r"^kernel resize: refused$"), told("trying"):
        raise EngineError("kernel resize: refused")
    with pytest.raises(DeviceLostError), told("trying"):
        raise EngineError("kernel resize: an illegal memory access was encountered (result 700)")
    with pytest.raises(UnsupportedError, match=r"make plugins.*--plugins off"), told("trying"):
        raise EngineError("kernel resize: no kernel image is available (result 209)")


def test_a_lost_device_is_told_once() -> None:
    with (
        pytest.raises(DeviceLostError, match="while inside") as caught,
        told("outside"),
        told("inside"),
    ):
        raise RuntimeError("CUDA error: unspecified launch failure")
    assert str(caught.value).count("What was computed") == 1


def test_mistakes_that_are_not_cudas_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="same device, but found cuda:0"), told("trying"):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found cuda:0 and cpu"
        )
