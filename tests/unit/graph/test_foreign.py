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
from fasterseg.graph.foreign import Contract, digest, fit, load, own_size
from fasterseg.graph.opsets import opset_of
from fasterseg.graph.outputs import only_output
from fasterseg.graph.wrapping import wrap
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


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("opset", [9, 10, 13])
def test_resizes_of_old_opsets_sample_where_they_did(opset: int, mode: str) -> None:
    """Until 10 there was one way to place samples, and the default has been another one since."""
    model = network(stride=8, opset=opset)
    inputs = ["small", "scales"] if opset <= 10 else ["small", "", "scales"]
    model.graph.node[0].output[0] = "small"
    model.graph.node.append(
        helper.make_node("Upsample" if opset == 9 else "Resize", inputs, ["logits"], mode=mode)
    )
    scales = np.array([1, 1, 8, 8], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(scales, "scales"))
    converted = fit(model, SIZE).model
    assert opset_of(converted) >= 18
    picture = normalize(frames(SIZE, 1))
    np.testing.assert_array_equal(
        run(converted, "picture", picture), run(model, "picture", picture)
    )


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


def chain(*steps: onnx.NodeProto, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Nodes after the logits "scores" of one convolution at full size; the last gives "given"."""
    weight = np.random.default_rng(0).normal(size=(5, 3, 1, 1)).astype(np.float32)
    conv = helper.make_node("Conv", ["picture", "w"], ["scores"])
    return _model(
        [conv, *steps],
        ("picture", TensorProto.FLOAT, FREE),
        [numpy_helper.from_array(weight, "w")],
        given=(("given", kind),),
    )


def with_argmax(keepdims: int = 0) -> onnx.ModelProto:
    return chain(
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=keepdims),
        helper.make_node("Identity", ["best"], ["given"]),
        kind=TensorProto.INT64,
    )


def scores(size: Size) -> NDArray[np.uint8]:
    """Labels of `chain`'s logits."""
    plain = chain(helper.make_node("Identity", ["scores"], ["given"]))
    return np.asarray(run(plain, "picture", normalize(frames(size, 1))).argmax(1), np.uint8)


def test_class_ids_instead_of_logits_are_refused_with_what_they_are_made_of() -> None:
    with pytest.raises(UsageError, match=r"without argmax.*--logits scores.*--scale labels"):
        fit(with_argmax(), SIZE)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_class_ids_are_taken_as_they_are_where_that_is_said(keepdims: int) -> None:
    model = with_argmax(keepdims)
    if keepdims:
        model.graph.output[0].CopyFrom(
            helper.make_tensor_value_info("given", TensorProto.INT64, ["n", 1, "i", "j"])
        )
    found = fit(model, SIZE, contract=Contract(scale="labels"))
    assert (found.classes, found.scale) == (None, None)
    assert np.array_equal(run(wrap(found), "frames", frames(SIZE, 1)), scores(SIZE))


def test_logits_are_no_class_ids() -> None:
    with pytest.raises(UsageError, match="is for class ids"):
        fit(network(stride=1), SIZE, contract=Contract(scale="labels"))


def test_a_value_inside_can_be_the_logits_and_what_follows_it_is_dropped() -> None:
    found = fit(with_argmax(), SIZE, contract=Contract(output="scores"))
    assert [node.op_type for node in found.model.graph.node] == ["Conv"]
    assert np.array_equal(run(wrap(found), "frames", frames(SIZE, 1)), scores(SIZE))


def test_probabilities_are_as_good_as_logits() -> None:
    model = chain(helper.make_node("Softmax", ["scores"], ["given"], axis=1))
    labels = run(wrap(fit(model, SIZE)), "frames", frames(SIZE, 1))
    assert np.mean(labels == scores(SIZE)) > 0.999


@pytest.mark.parametrize("scale", [1, 4, 8])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.UINT8])
def test_channels_may_be_last(scale: int, kind: int) -> None:
    model = network(stride=scale, kind=kind)
    graph = model.graph
    graph.input[0].CopyFrom(helper.make_tensor_value_info("last", kind, ["n", "h", "w", 3]))
    graph.node.insert(0, helper.make_node("Transpose", ["last"], ["picture"], perm=[0, 3, 1, 2]))
    graph.node.append(helper.make_node("Transpose", ["logits"], ["given"], perm=[0, 2, 3, 1]))
    graph.output[0].name = "given"
    size = Size(68, 100)
    with pytest.raises(UsageError, match="--layout nhwc"):
        fit(model, size)
    labels = run(
        wrap(fit(model, size, contract=Contract(layout="nhwc"))), "frames", frames(size, 1)
    )
    plain = run(wrap(fit(network(stride=scale, kind=kind), size)), "frames", frames(size, 1))
    assert np.array_equal(labels, plain)


def test_logits_with_channels_last_behind_a_picture_with_channels_first_are_named() -> None:
    model = network(stride=1)
    model.graph.node.append(helper.make_node("Transpose", ["logits"], ["g"], perm=[0, 2, 3, 1]))
    model.graph.output[0].name = "g"
    with pytest.raises(UsageError, match=r"NHWC: wrap it with --layout nhwc"):
        fit(model, SIZE)


@pytest.mark.parametrize(("inline", "left"), [(False, {"NormalizeBGR", "UpsampleArgmax"}),
                                              (True, set())])  # fmt: skip
def test_inlined_files_have_standard_operators_only(inline: bool, left: set[str]) -> None:
    whole = wrap(fit(network(), SIZE), inline=inline)
    assert {node.op_type for node in whole.graph.node if node.domain} == left
    assert len(whole.functions) == len(left)
    onnx.checker.check_model(whole, full_check=True)
    assert np.array_equal(
        run(whole, "frames", frames(SIZE, 1)),
        run(wrap(fit(network(), SIZE)), "frames", frames(SIZE, 1)),
    )


@pytest.mark.parametrize("stride", [1, 4])
def test_only_logits_at_an_eighth_keep_the_node_that_kernels_take(stride: int) -> None:
    whole = wrap(fit(network(stride=stride), SIZE))
    assert "UpsampleArgmax" not in {node.op_type for node in whole.graph.node}


def test_logits_at_an_eighth_can_be_given_out() -> None:
    whole = wrap(fit(network(kind=TensorProto.FLOAT), Size(66, 100)), stage="logits8")
    onnx.checker.check_model(whole, full_check=True)
    logits = run(whole, "frames", frames(Size(66, 100), 1))
    assert logits.shape == (1, 5, 9, 13)
    assert logits.dtype == np.float32
    expected = run(network(), "picture", normalize(frames(Size(66, 100), 1)))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("classes", "message"), [(1, "a mask of one class"), (150, "150 classes; 2 to 127")]
)
def test_too_few_and_too_many_classes_are_told(classes: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(network(classes=classes), SIZE)


def test_an_input_of_another_type_is_told_by_name() -> None:
    model = network()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    with pytest.raises(UsageError, match=r"picture: DOUBLE .*FLOAT, FLOAT16 or UINT8"):
        fit(model, SIZE)


def test_two_inputs_are_told_by_name() -> None:
    model = network()
    model.graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1, 2]))
    with pytest.raises(UsageError, match=r"2 inputs .*scale: FLOAT \(1, 2\)"):
        fit(model, SIZE)


def test_a_scale_that_is_not_that_of_the_shapes_is_told() -> None:
    with pytest.raises(UsageError, match="They are 8 times smaller, not 4"):
        fit(network(stride=8), SIZE, contract=Contract(scale=4))
    with pytest.raises(UsageError, match="enlargement to the frame's size, which is scale 1"):
        fit(network(stride=16), SIZE)


def test_a_file_says_the_size_it_is_fixed_to() -> None:
    assert own_size(network(dims=(1, 3, 64, 96))) == SIZE
    assert own_size(network(dims=(1, 64, 96, 3)), "nhwc") == SIZE
    assert own_size(network(dims=(1, 3, "h", 96))) is None
    assert own_size(network(dims=(1, 3, 64))) is None


def test_weights_beside_the_file_are_read_and_hashed_with_it(tmp_path: Path) -> None:
    file, weights = tmp_path / "a.onnx", tmp_path / "weights.bin"
    onnx.save(network(), file, save_as_external_data=True, location=weights.name, size_threshold=0)
    before = digest(load(file))
    labels = run(wrap(fit(load(file), SIZE)), "frames", frames(SIZE, 1))
    assert np.array_equal(labels, run(wrap(fit(network(), SIZE)), "frames", frames(SIZE, 1)))
    weights.write_bytes(weights.read_bytes()[::-1])
    assert digest(load(file)) != before
    weights.unlink()
    with pytest.raises(EngineError, match="have to lie beside it"):
        load(file)


def test_logits_of_no_known_scale_are_refused() -> None:
    with pytest.raises(UsageError, match="1, 4, 8 times smaller"):
        fit(network(stride=16), SIZE)
    with pytest.raises(UsageError, match="1, 4, 8 times smaller"):
        fit(network(stride=8), SIZE, contract=Contract(scale=4))
    with pytest.raises(UsageError, match="scale 3"):
        fit(network(stride=8), SIZE, contract=Contract(scale=3))


def two_outputs() -> onnx.ModelProto:
    """Logits, and those of a training head with weights of its own."""
    model = network(stride=1)
    weight = np.ones((5, 3, 1, 1), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w_aux"))
    model.graph.node.append(helper.make_node("Conv", ["picture", "w_aux"], ["aux"]))
    model.graph.output.append(
        helper.make_tensor_value_info("aux", TensorProto.FLOAT, ["n", 5, "h", "w"])
    )
    return model


def test_several_outputs_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"2 outputs \(logits.*aux.*--logits NAME"):
        fit(two_outputs(), SIZE)
    with pytest.raises(UsageError, match=r"no value 'lgits'; its outputs are logits.*aux"):
        fit(two_outputs(), SIZE, contract=Contract(output="lgits"))


def test_one_of_several_outputs_is_kept_with_its_weights_alone() -> None:
    found = fit(two_outputs(), SIZE, contract=Contract(output="logits"))
    assert [tensor.name for tensor in found.model.graph.initializer] == ["w"]
    assert [value.name for value in found.model.graph.output] == ["logits"]
    whole = wrap(found)
    onnx.checker.check_model(whole, full_check=True)
    expected = run(wrap(fit(network(stride=1), SIZE)), "frames", frames(SIZE, 1))
    assert np.array_equal(run(whole, "frames", frames(SIZE, 1)), expected)


def test_what_a_branch_reads_from_outside_is_kept() -> None:
    """An If whose branches read a weight and another node's output by name."""

    def branch(op: str) -> onnx.GraphProto:
        given = helper.make_tensor_value_info(f"y_{op}", TensorProto.FLOAT, None)
        node = helper.make_node(op, ["scores", "shift"], [f"y_{op}"])
        return helper.make_graph([node], op, [], [given])

    model = chain(
        helper.make_node("If", ["choice"], ["given"], then_branch=branch("Add"),
                         else_branch=branch("Sub")),
        helper.make_node("Relu", ["given"], ["aux"]),
    )  # fmt: skip
    shift = np.arange(5, dtype=np.float32).reshape(1, 5, 1, 1)
    model.graph.initializer.append(numpy_helper.from_array(shift, "shift"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "choice"))
    model.graph.output.append(helper.make_tensor_value_info("aux", TensorProto.FLOAT, None))
    cut = only_output("it", model, "given")
    assert [node.op_type for node in cut.graph.node] == ["Conv", "If"]
    assert {tensor.name for tensor in cut.graph.initializer} == {"w", "shift", "choice"}


def test_files_that_are_no_networks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"not an ONNX file" * 9)
    for name, message in (("a.onnx", "as an ONNX model"), ("b.onnx", "no file"), (".", "no file")):
        with pytest.raises(EngineError, match=message):
            load(tmp_path / name)


def test_a_file_is_read(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "a.onnx")
    assert load(tmp_path / "a.onnx").graph.name == "g"
