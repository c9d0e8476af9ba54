from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fasterseg.errors import EngineError, UsageError
from fasterseg.graph.foreign import Contract, fit, load, wrap
from fasterseg.preprocess import normalize
from fasterseg.types import Size

pytestmark = pytest.mark.onnx

SIZE = Size(64, 96)
Dims = tuple[str | int, ...]
FREE: Dims = ("n", 3, "h", "w")


def network(
    *,
    dims: Dims = FREE,
    stride: int = 8,
    kind: int = TensorProto.FLOAT,
    opset: int = 18,
    classes: int = 5,
) -> onnx.ModelProto:
    """One convolution from a picture to logits."""
    dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    weight = np.random.default_rng(0).normal(size=(classes, 3, stride, stride)).astype(dtype)
    nodes = [
        helper.make_node(
            "Conv", ["picture", "w"], ["logits"], strides=[stride] * 2, auto_pad="SAME_UPPER"
        )
    ]
    taken = "picture"
    if kind == TensorProto.UINT8:
        nodes[0].input[0] = "floats"
        nodes.insert(0, helper.make_node("Cast", [taken], ["floats"], to=TensorProto.FLOAT))
    return _model(nodes, (taken, kind, dims), [numpy_helper.from_array(weight, "w")], opset)


def _model(
    nodes: list[onnx.NodeProto],
    taken: tuple[str, int, Dims],
    weights: list[TensorProto],
    opset: int = 18,
    given: tuple[tuple[str, int], ...] = (("logits", TensorProto.FLOAT),),
) -> onnx.ModelProto:
    kind = TensorProto.FLOAT16 if taken[1] == TensorProto.FLOAT16 else None
    outputs = [
        helper.make_tensor_value_info(
            n, kind or t, ["n", "c", "i", "j"][: 3 if t == TensorProto.INT64 else 4]
        )
        for n, t in given
    ]
    name, element, dims = taken
    picture = helper.make_tensor_value_info(name, element, list(dims))
    graph = helper.make_graph(nodes, "g", [picture], outputs, weights)
    made: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )
    return made


def run(model: onnx.ModelProto, name: str, value: NDArray[Any]) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {name: value})[0])


def frames(size: Size, batch: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (batch, *size, 3), np.uint8)


def enlarged(logits: NDArray[Any], scale: int) -> NDArray[np.uint8]:
    """Labels by bilinear interpolation with align_corners, in float64."""
    maps = logits.astype(np.float64)
    for axis in (2, 3):
        small = maps.shape[axis]
        large = small * scale
        at = np.arange(large) * (small - 1) / max(1, large - 1)
        low = np.minimum(at.astype(int), max(0, small - 2))
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(4)])
        high = np.minimum(low + 1, small - 1)
        maps = maps.take(low, axis) * (1 - share) + maps.take(high, axis) * share
    return np.asarray(maps.argmax(1), np.uint8)


@pytest.mark.parametrize("size", [SIZE, Size(66, 100)])
@pytest.mark.parametrize("stride", [1, 4, 8])
@pytest.mark.parametrize("opset", [11, 18, 21])
def test_labels_are_those_of_the_networks_own_logits(size: Size, stride: int, opset: int) -> None:
    model = network(stride=stride, opset=opset)
    found = fit(model, size, batch=2)
    assert (found.scale, found.classes, found.precision) == (stride, 5, "fp32")
    whole = wrap(found, metadata={"key": "value"})
    onnx.checker.check_model(whole, full_check=True)
    assert [(p.key, p.value) for p in whole.metadata_props] == [("key", "value")]
    labels = run(whole, "frames", frames(size))
    logits = run(model, "picture", normalize(frames(size)))
    expected = enlarged(logits, stride)[:, : size.height, : size.width]
    assert labels.shape == (2, *size)
    assert labels.dtype == np.uint8
    assert np.mean(labels == expected) > 0.9999


def test_mean_deviation_and_colour_order_are_the_contracts() -> None:
    contract = Contract(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), channel_order="bgr")
    model = network(stride=1)
    labels = run(wrap(fit(model, SIZE), contract), "frames", frames(SIZE, 1))
    picture = (frames(SIZE, 1) / 255 - contract.mean) / contract.std
    planes = np.ascontiguousarray(picture.transpose(0, 3, 1, 2), np.float32)
    assert np.mean(labels == run(model, "picture", planes).argmax(1)) > 0.9999


def test_values_up_to_255_are_a_contract_too() -> None:
    contract = Contract(mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3)
    model = network(stride=1)
    labels = run(wrap(fit(model, SIZE), contract), "frames", frames(SIZE, 1))
    planes = np.ascontiguousarray(frames(SIZE, 1)[..., ::-1].transpose(0, 3, 1, 2), np.float32)
    assert np.mean(labels == run(model, "picture", planes).argmax(1)) > 0.999


def test_bytes_reach_a_network_that_takes_bytes() -> None:
    model = network(stride=1, kind=TensorProto.UINT8)
    found = fit(model, SIZE)
    assert found.input_type == "UINT8"
    labels = run(wrap(found), "frames", frames(SIZE, 1))
    planes = np.ascontiguousarray(frames(SIZE, 1)[..., ::-1].transpose(0, 3, 1, 2))
    assert np.array_equal(labels, run(model, "picture", planes).argmax(1))


def test_half_precision_is_told_by_the_weights() -> None:
    found = fit(network(stride=4, kind=TensorProto.FLOAT16), SIZE)
    assert (found.input_type, found.precision) == ("FLOAT16", "fp16")
    onnx.checker.check_model(wrap(found), full_check=True)


def test_the_file_given_is_left_as_it_was() -> None:
    model = network()
    before = model.SerializeToString()
    wrap(fit(model, SIZE))
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        (("n", "h", "w", 3), r"picture: FLOAT \(n, h, w, 3\).*export it as NCHW"),
        ((1, 3, 64), r"FLOAT \(1, 3, 64\); a picture of rank 4"),
        ((1, 1, "h", "w"), r"FLOAT \(1, 1, h, w\)"),
        ((1, 3, 512, 1024), "its height is 512, not 64"),
        ((2, 3, 64, 96), "its batch is 2, not 1"),
    ],
)
def test_a_wrong_input_is_refused_by_what_was_found(dims: Dims, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(network(dims=dims), SIZE, title="peer X")


def test_class_ids_instead_of_logits_are_refused() -> None:
    nodes = [helper.make_node("ArgMax", ["picture"], ["logits"], axis=1, keepdims=0)]
    model = _model(
        nodes, ("picture", TensorProto.FLOAT, FREE), [], given=(("logits", TensorProto.INT64),)
    )
    with pytest.raises(UsageError, match="without argmax"):
        fit(model, SIZE)


def test_logits_of_no_known_scale_are_refused() -> None:
    with pytest.raises(UsageError, match="1, 4, 8 times smaller"):
        fit(network(stride=16), SIZE)
    with pytest.raises(UsageError, match="1, 4, 8 times smaller"):
        fit(network(stride=8), SIZE, contract=Contract(scale=4))
    with pytest.raises(UsageError, match="scale 3"):
        fit(network(stride=8), SIZE, contract=Contract(scale=3))


def test_several_outputs_are_refused_by_name() -> None:
    nodes = [helper.make_node("Relu", ["picture"], [name]) for name in ("logits", "aux")]
    given = (("logits", TensorProto.FLOAT), ("aux", TensorProto.FLOAT))
    model = _model(nodes, ("picture", TensorProto.FLOAT, FREE), [], given=given)
    with pytest.raises(UsageError, match=r"2 outputs \(logits.*aux"):
        fit(model, SIZE)


def test_files_that_are_no_networks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"not an ONNX file" * 9)
    for name, message in (("a.onnx", "as an ONNX model"), ("b.onnx", "no file"), (".", "no file")):
        with pytest.raises(EngineError, match=message):
            load(tmp_path / name)


def test_a_file_is_read(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "a.onnx")
    assert load(tmp_path / "a.onnx").graph.name == "g"
