"""The tail in NumPy, and what the door refuses; no library is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg import native
from fasterseg.errors import UsageError
from tests.unit.cpp.cpu_cases import CASES, Case, assert_labels, eightfold

Array = NDArray[Any]


def zeros(*shape: int, kind: type[np.generic] = np.uint8) -> Array:
    return np.zeros(shape, kind)


def floats(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def read_only(array: Array) -> Array:
    array.setflags(write=False)
    return array


@pytest.mark.parametrize("case", CASES, ids=str)
def test_numpy_labels_are_exact_where_the_best_class_leads(case: Case) -> None:
    labels = np.full((case.batch, *case.full), 255, np.uint8)
    native.numpy_upsample_argmax(case.logits, labels, scale=None)
    assert_labels(labels[:, : case.out[0], : case.out[1]], case)


def test_numpy_labels_are_cropped_not_stretched() -> None:
    case = eightfold(1, 5, 37, 61)
    cropped, whole = zeros(1, 37, 61), zeros(1, 40, 64)
    stretched = zeros(1, 37, 61)
    native.numpy_upsample_argmax(case.logits, cropped)
    native.numpy_upsample_argmax(case.logits, whole)
    native.numpy_upsample_argmax(case.logits, stretched, scale=None)
    np.testing.assert_array_equal(cropped, whole[:, :37, :61])
    assert (cropped != stretched).any()


def test_numpy_gives_ties_to_the_first_and_nan_to_nobody() -> None:
    logits = np.full((1, 4, 2, 3), 7, np.float32)
    labels = np.full((1, 16, 24), 255, np.uint8)
    native.numpy_upsample_argmax(logits, labels)
    assert (labels == 0).all()
    logits[:, 0], logits[:, 1] = np.nan, 6
    native.numpy_upsample_argmax(logits, labels)
    assert (labels == 2).all()
    native.numpy_upsample_argmax(np.full_like(logits, np.nan), labels)
    assert (labels == 0).all()


@pytest.mark.parametrize("function", [native.upsample_argmax, native.numpy_upsample_argmax])
@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (zeros(1, 2, 3, 4, kind=np.float64), zeros(1, 24, 32), "logits is float64"),
        (floats(2, 3, 4), zeros(1, 24, 32), "logits is float32 (2, 3, 4)"),
        (floats(1, 3, 4, 2).transpose(0, 3, 1, 2), zeros(1, 24, 32), "not C-contiguous"),
        (floats(1, 0, 3, 4), zeros(1, 24, 32), "empty"),
        (floats(1, 128, 3, 4), zeros(1, 24, 32), "at most 127"),
        (floats(1, 2, 3, 4), zeros(1, 24, 32, kind=np.int8), "labels is int8"),
        (floats(1, 2, 3, 4), zeros(2, 24, 32), "(1, 24, 32)"),
        (floats(1, 2, 3, 4), zeros(24, 32), "(1, ?, ?)"),
        (floats(1, 2, 3, 4), zeros(1, 0, 32), "empty"),
        (floats(1, 2, 3, 4), read_only(zeros(1, 24, 32)), "read-only"),
        (floats(1, 2, 3, 4), zeros(1, 24, 64)[:, :, ::2], "not C-contiguous"),
        (floats(1, 2, 3, 4), zeros(1, 25, 32), "larger than 8 times"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    function: Callable[..., None], logits: Array, labels: Array, said: str
) -> None:
    with pytest.raises(UsageError) as raised:
        function(logits, labels)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: blend(frame=zeros(3, 4, 4)), "frame is uint8 (3, 4, 4)"),
        (lambda: blend(labels=zeros(3, 5)), "out is uint8 (3, 4, 3)"),
        (lambda: blend(palette=zeros(19, 3)), "palette is uint8 (19, 3)"),
        (lambda: blend(out=read_only(zeros(3, 4, 3))), "read-only"),
        (lambda: blend(alpha=1.5), "alpha is 1.5"),
        (lambda: blend(alpha=float("nan")), "alpha is nan"),
        (lambda: normalize(frames=zeros(4, 6, 3)), "frames is uint8 (4, 6, 3)"),
        (lambda: normalize(out=floats(1, 4, 6, 3)), "out is float32 (1, 4, 6, 3)"),
        (lambda: normalize(std=(0.1, 0.0, 0.1)), "std above 0"),
        (lambda: normalize(mean=(0.1, 0.2)), "three values each"),
    ],
)
def test_other_arguments_that_do_not_fit_are_refused(call: Callable[[], None], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        call()
    assert said in str(raised.value)


def blend(**changed: Any) -> None:
    arguments = {
        "frame": zeros(3, 4, 3), "labels": zeros(3, 4), "palette": zeros(256, 3), "alpha": 0.5,
        "out": zeros(3, 4, 3), **changed,
    }  # fmt: skip
    native.blend(**arguments)


def normalize(**changed: Any) -> None:
    arguments = {
        "frames": zeros(1, 4, 6, 3), "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2),
        "out": floats(1, 3, 4, 6), **changed,
    }  # fmt: skip
    native.normalize_bgr(**arguments)
