"""The CUDA port, over a fake of CUDA's runtime API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fasterseg.errors import DeviceLostError, DeviceUnavailableError, EngineError
from tests.fake_cuda import FakeCudart, fake_port

Port = tuple[Any, FakeCudart]


@pytest.fixture
def port() -> Iterator[Port]:
    with fake_port() as made:
        yield made


def test_a_frame_goes_to_the_gpu_and_back(port: Port) -> None:
    cuda, _ = port
    stream, there = cuda.Stream(), cuda.DeviceBuffer((2, 3))
    source, target = cuda.PinnedBuffer((2, 3)), cuda.PinnedBuffer((2, 3))
    source.array[...] = np.arange(6).reshape(2, 3)
    stream.copy_in(there, source)
    stream.copy_out(target, there)
    stream.synchronize()
    assert np.array_equal(target.array, source.array)


def test_everything_taken_is_given_back_once(port: Port) -> None:
    cuda, fake = port
    resources = [cuda.Stream(), cuda.DeviceBuffer((4,)), cuda.PinnedBuffer((4,)), cuda.Event()]
    assert len(fake.live) == 4
    for resource in resources:
        resource.close()
        resource.close()
    assert not fake.live


def test_a_capture_runs_nothing_until_it_is_launched(port: Port) -> None:
    cuda, fake = port
    stream, there, here = cuda.Stream(), cuda.DeviceBuffer((1,)), cuda.PinnedBuffer((1,))
    back = cuda.PinnedBuffer((1,))
    back.array[0] = 7
    with stream.capture():
        stream.copy_in(there, here)
        stream.copy_out(back, there)
    assert back.array[0] == 7
    here.array[0] = 3
    stream.graph.launch(stream.handle)
    assert back.array[0] == 3
    assert "cudaGraphDestroy" in fake.log


def test_a_capture_that_fails_is_ended_and_leaves_no_graph(port: Port) -> None:
    cuda, fake = port
    stream = cuda.Stream()
    with pytest.raises(ValueError, match="inside"), stream.capture():
        raise ValueError("inside")
    assert not fake.capturing
    assert stream.graph is None


def test_the_gpus_clock_is_read_between_two_events(port: Port) -> None:
    cuda, _ = port
    stream, there, here = cuda.Stream(), cuda.DeviceBuffer((1,)), cuda.PinnedBuffer((1,))
    start, end = cuda.Event(timing=True), cuda.Event(timing=True)
    start.record(stream.handle)
    stream.copy_in(there, here)
    end.record(stream.handle)
    assert end.ms_since(start) == 10.0


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (2, EngineError, "memory ran out while taking GPU memory.*smaller --size"),
        (35, DeviceUnavailableError, "InsufficientDriver.*nvidia-smi"),
        (100, DeviceUnavailableError, "nvidia-smi"),
        (700, DeviceLostError, "cudaErrorUnknown .700.*start again"),
        (719, DeviceLostError, "What was computed is lost"),
        (801, EngineError, "cudaErrorUnknown .801."),
    ],
)
def test_cudas_errors_become_ours(
    port: Port, code: int, error: type[Exception], message: str
) -> None:
    cuda, fake = port
    fake.failing["cudaMalloc"] = code
    with pytest.raises(error, match=message) as caught:
        cuda.DeviceBuffer((8,))
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("stream", "producer", "ordered"),
    [(5, None, False), (5, 5, False), (0, 1, False), (5, 6, True)],
)
def test_a_stream_waits_for_the_one_its_input_comes_from(
    port: Port, stream: int, producer: int | None, ordered: bool
) -> None:
    cuda, fake = port
    cuda.order_after(stream, producer)
    assert ("cudaStreamWaitEvent" in fake.log) == ordered
    assert not fake.live
