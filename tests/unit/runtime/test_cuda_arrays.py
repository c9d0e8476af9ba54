"""Arrays of others on the GPU: which are taken as they lie, and which are refused."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fasterseg.errors import UsageError
from fasterseg.runtime.cuda_arrays import same_stream, view, view_both
from fasterseg.types import Size
from tests.fake_cuda import fake_port
from tests.plans import plan


def foreign(**changes: Any) -> Any:
    facts = {"shape": (1, 4, 6), "typestr": "|u1", "data": (4096, False), "version": 3}
    return SimpleNamespace(__cuda_array_interface__={**facts, **changes})


def test_our_device_memory_is_everybodys() -> None:
    with fake_port() as (cuda, _):
        seen = view(cuda.DeviceBuffer((1, 4, 6, 3)), "frames")
    assert seen.shape == (1, 4, 6, 3)
    assert seen.stream is None


@pytest.mark.parametrize("strides", [None, (24, 6, 1), (99, 6, 1)])
def test_contiguous_arrays_of_others_are_taken(strides: Any) -> None:
    seen = view(foreign(strides=strides, stream=7), "frames")
    assert (seen.pointer, seen.shape, seen.stream) == (4096, (1, 4, 6), 7)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 4, 6), np.uint8), "no array on the GPU .ndarray."),
        (foreign(typestr="<f4"), "float32"),
        (foreign(strides=(24, 1, 4)), "not contiguous"),
        (foreign(data=(4096, True)), "read-only"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(array: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        view(array, "labels", writable=True)


@pytest.mark.parametrize(
    ("frames", "labels", "message"),
    [
        ((1, 4, 8, 3), (1, 4, 8), "4x6"),
        ((1, 4, 6, 3), (1, 6, 4), r"not \(1, 6, 4\)"),
        ((4, 6, 3), (4, 6), r"\(N, H, W, 3\)"),
    ],
)
def test_frames_and_labels_must_fit_the_engine_and_each_other(
    frames: tuple[int, ...], labels: tuple[int, ...], message: str
) -> None:
    spec = replace(plan().facts.spec, size=Size(4, 6), batch=1)
    with pytest.raises(UsageError, match=message):
        view_both(foreign(shape=frames), foreign(shape=labels), spec)
    taken, given = view_both(foreign(shape=(1, 4, 6, 3)), foreign(), spec)
    assert (taken.shape, given.shape) == ((1, 4, 6, 3), (1, 4, 6))


@pytest.mark.parametrize(("one", "other", "same"), [(5, 5, True), (0, 1, True), (5, 6, False)])
def test_the_default_stream_has_two_handles(one: int, other: int, same: bool) -> None:
    assert same_stream(one, other) is same
