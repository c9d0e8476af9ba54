"""A graph of one size and any batch gives the labels of the graph whose batch is fixed."""

from __future__ import annotations

from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from fasterseg.graph.emit import EmitOptions
from fasterseg.graph.free_batch import free_batch
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.store import onnx_bytes
from fasterseg.types import Precision, Size

pytestmark = pytest.mark.onnx

SIZE = Size(72, 100)
"""No multiple of 8: the last step crops."""


def freed(precision: Precision = "fp32") -> bytes:
    options = EmitOptions(precision=precision, dynamic=True, inline=True)
    return free_batch(
        onnx_bytes(resolve_model("fasterseg-camvid"), SIZE, options), SIZE, {"k": "v"}
    )


def run(data: bytes, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    labels: NDArray[np.uint8] = session.run(["labels"], {"frames": frames})[0]
    return labels


def test_height_and_width_are_fixed_and_the_batch_is_not() -> None:
    model = onnx.load_from_string(freed())
    onnx.checker.check_model(model, full_check=True)
    shapes = [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [["batch", *SIZE, 3], ["batch", *SIZE]]


def test_metadata_is_what_was_given_alone() -> None:
    model = onnx.load_from_string(freed())
    assert {entry.key: entry.value for entry in model.metadata_props} == {"k": "v"}


@pytest.mark.parametrize("precision", [name for name in get_args(Precision) if name != "bf16"])
def test_each_batch_gives_the_labels_of_single_frames(precision: Precision) -> None:
    fixed = onnx_bytes(
        resolve_model("fasterseg-camvid"), SIZE, EmitOptions(precision=precision, inline=True)
    )
    frames = np.random.default_rng(5).integers(0, 256, (3, *SIZE, 3), np.uint8)
    alone = np.concatenate([run(fixed, frames[i : i + 1]) for i in range(3)])
    data = freed(precision)
    for count in (1, 2, 3):
        equal = (run(data, frames[:count]) == alone[:count]).mean()
        assert equal >= (0.999 if precision == "fp16" else 0.9999)
