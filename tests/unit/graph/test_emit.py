"""The emitted ONNX equals the torch network, and the gate that says so can fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fasterseg.arch.plan import Plan, plan
from fasterseg.deploy.parity import LOGITS_MARGIN, LOGITS_TOLERANCE
from fasterseg.errors import UsageError
from fasterseg.graph.emit import EmitOptions, emit
from fasterseg.graph.functions import IR_VERSION, opset_imports, zoomed_conv, zoomed_name
from fasterseg.graph.weights import Weights, seeded_weights
from fasterseg.preprocess import normalize
from fasterseg.runtime.base import PIXEL_AGREEMENT
from fasterseg.types import Precision, Size
from tests.parity import (
    Float,
    assert_meaningful,
    balanced,
    random_genotype,
    run_onnx,
    small_plan,
    street_like,
)
from tests.shared import zoo_genotype

torch = pytest.importorskip("torch", reason="torch not installed")

from torch.nn import functional  # noqa: E402

from fasterseg.nn.network import Network  # noqa: E402
from fasterseg.nn.weights import from_arrays  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

SIZE = Size(256, 512)
NETWORKS = ["student", "teacher", "random-0", "random-1", "random-2", "random-4", "random-7"]


class Case:
    """A network with balanced weights, its frames, and what torch makes of them."""

    def __init__(self, network_plan: Plan) -> None:
        self.plan = network_plan
        self.frames = street_like(network_plan.size)
        self.weights: Weights = balanced(network_plan, self.frames)
        network = Network(network_plan).eval()
        from_arrays(network, self.weights)
        self.normalized = normalize(self.frames)
        with torch.inference_mode():
            x = torch.from_numpy(self.normalized)
            self.logits8: Float = network.logits8(x).numpy()
            self.logits: Float = network(x).numpy()
        self.labels = self.logits.argmax(axis=1).astype(np.uint8)
        best = np.partition(self.logits, -2, axis=1)[:, -2:]
        self.margin: Float = best[:, 1] - best[:, 0]
        assert_meaningful(self.labels, network_plan.genotype.num_classes)

    def emit(self, options: EmitOptions) -> onnx.ModelProto:
        return emit(self.plan, self.weights, options)


def genotype_case(name: str) -> Case:
    kind, _, seed = name.partition("-")
    genotype = random_genotype(int(seed)) if kind == "random" else zoo_genotype(f"fasterseg-{name}")
    return Case(plan(genotype, SIZE))


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest) -> Case:
    return genotype_case(request.param)


@pytest.fixture(scope="module")
def student() -> Case:
    return genotype_case("student")


def assert_logits_close(theirs: NDArray[np.generic], reference: Float) -> None:
    bound = LOGITS_TOLERANCE * max(1.0, float(np.abs(reference).max()))
    assert theirs.shape == reference.shape
    assert np.abs(theirs.astype(np.float64) - reference).max() <= bound


def passes_label_gate(labels: NDArray[np.generic], case: Case) -> bool:
    """The gate of an fp32 engine."""
    equal = labels == case.labels
    return bool(
        equal.mean() >= PIXEL_AGREEMENT["fp32"] and equal[case.margin > LOGITS_MARGIN].all()
    )


def test_logits_equal_torch(case: Case) -> None:
    model = case.emit(EmitOptions("logits8"))
    onnx.checker.check_model(model, full_check=True)
    assert_logits_close(run_onnx(model, frames=case.frames), case.logits8)


def test_labels_equal_torch(case: Case) -> None:
    model = case.emit(EmitOptions("labels"))
    onnx.checker.check_model(model, full_check=True)
    labels = run_onnx(model, frames=case.frames)
    assert labels.dtype == np.uint8
    assert labels.shape == case.labels.shape
    assert passes_label_gate(labels, case)


def test_bare_network_equals_torch(case: Case) -> None:
    model = case.emit(EmitOptions("network"))
    onnx.checker.check_model(model, full_check=True)
    assert_logits_close(run_onnx(model, input=case.normalized), case.logits)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_zoomed_cells_as_one_node_or_as_many_give_the_same_bits(
    student: Case, precision: Precision
) -> None:
    whole = student.emit(EmitOptions("logits8", precision))
    plain = student.emit(EmitOptions("logits8", precision, inline=True))
    nodes = [n for n in whole.graph.node if n.op_type.startswith("ZoomedConv")]
    halves = [n for n in plain.graph.node if n.name.endswith(".half")]
    assert len(nodes) == len(halves) == 12
    assert {n.output[0] for n in nodes} <= {n.output[0] for n in plain.graph.node}
    outputs = [run_onnx(model, frames=student.frames) for model in (whole, plain)]
    assert np.array_equal(outputs[0], outputs[1])


@pytest.mark.parametrize("convs", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_body_of_a_zoomed_node_is_its_formula(convs: int, stride: int) -> None:
    random = np.random.default_rng(convs)
    channels = [6, 10, 10]
    half, out = (6, 9), (13, 18) if stride == 1 else (6, 9)
    x = random.standard_normal((2, 6, 13, 18), np.float32)
    arrays: dict[str, Float] = {}
    for n in range(convs):
        shape = (channels[n + 1], channels[n], 3, 3)
        arrays[f"weight{n + 1}"] = random.standard_normal(shape, np.float32) / np.float32(8)
        arrays[f"bias{n + 1}"] = random.standard_normal(shape[0], np.float32)

    resize = partial(functional.interpolate, mode="bilinear", align_corners=True)
    y = resize(torch.from_numpy(x), half)
    for n in range(convs):
        y = y if n == 0 else y.relu()
        weight, bias = (torch.from_numpy(arrays[f"{kind}{n + 1}"]) for kind in ("weight", "bias"))
        y = functional.conv2d(y, weight, bias, padding=1)
    expected = (resize(y, out) if stride == 1 else y).relu().numpy()

    sizes: dict[str, Any] = {"half_sizes": [2, 6, *half]}
    if stride == 1:
        sizes["out_sizes"] = [2, 10, *out]
    name, versions = zoomed_name(convs, stride), {"plugin_version": "1", "plugin_namespace": "x"}
    node = helper.make_node(name, ["x", *arrays], ["y"], domain="fasterseg", **sizes, **versions)
    graph = helper.make_graph(
        [node], "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, expected.shape)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(
        graph,
        functions=[zoomed_conv(convs, stride)],
        opset_imports=opset_imports(),
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    assert np.abs(run_onnx(model, x=x).astype(np.float32) - expected).max() < 1e-4


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_inlined_and_dynamic_graphs_give_the_same_labels(
    student: Case, inline: bool, dynamic: bool
) -> None:
    model = student.emit(EmitOptions("labels", dynamic=dynamic, inline=inline))
    assert passes_label_gate(run_onnx(model, frames=student.frames), student)
    domains = {node.domain for node in model.graph.node}
    assert domains == ({""} if inline else {"", "fasterseg"})
    names = {function.name for function in model.functions}
    zoomed = {"ZoomedConv2xS1", "ZoomedConv1xS2", "ZoomedConv2xS2"}
    ends = {"NormalizeBGR", "UpsampleArgmax"}
    assert names == (set() if inline else ends if dynamic else ends | zoomed)


def test_one_dynamic_graph_serves_other_sizes_and_batches(student: Case) -> None:
    model = student.emit(EmitOptions("labels", dynamic=True))
    for size, batch in ((Size(64, 64), 1), (Size(131, 203), 2), (Size(200, 333), 1)):
        static = emit(
            plan(student.plan.genotype, size), student.weights, EmitOptions("labels", batch=batch)
        )
        frames = np.concatenate([street_like(size, seed) for seed in range(batch)])
        equal = run_onnx(model, frames=frames) == run_onnx(static, frames=frames)
        assert equal.shape == (batch, *size)
        assert equal.mean() >= PIXEL_AGREEMENT["fp32"]


@pytest.mark.parametrize("name", ["student", "teacher"])
@pytest.mark.parametrize("size", [Size(257, 515), Size(300, 450), Size(263, 521)])
def test_sizes_that_are_no_multiples_of_8_are_cropped_as_torch_does(name: str, size: Size) -> None:
    case = Case(plan(zoo_genotype(f"fasterseg-{name}"), size))
    labels = run_onnx(case.emit(EmitOptions("labels")), frames=case.frames)
    assert labels.shape == (1, *size)
    assert passes_label_gate(labels, case)


def test_a_batch_is_its_frames_one_by_one(student: Case) -> None:
    frames = np.concatenate([street_like(SIZE, seed) for seed in (0, 1, 2)])
    batch = run_onnx(student.emit(EmitOptions("labels", batch=3)), frames=frames)
    single = student.emit(EmitOptions("labels"))
    for index in range(3):
        alone = run_onnx(single, frames=frames[index : index + 1])
        assert np.mean(alone[0] == batch[index]) >= PIXEL_AGREEMENT["fp32"]


def test_fp16_differs_only_where_classes_are_close(student: Case) -> None:
    # Untrained weights have no margins worth the name: rounding the weights alone to fp16 moves
    # 0.4 % of the labels. What can be asked of them is that clear pixels stay.
    model = student.emit(EmitOptions("labels", "fp16"))
    onnx.checker.check_model(model, full_check=True)
    equal = run_onnx(model, frames=student.frames) == student.labels
    assert equal.mean() >= 0.99
    assert equal[student.margin > 0.01 * np.abs(student.logits).max()].all()
    kinds = {init.data_type for init in model.graph.initializer if len(init.dims) == 4}
    assert kinds == {TensorProto.FLOAT16}


def test_precisions_that_cannot_be_emitted_are_refused() -> None:
    network = small_plan()
    with pytest.raises(UsageError, match="fp32, fp16, int8"):
        emit(network, seeded_weights(network), EmitOptions(precision="bf16"))


def test_metadata_is_stored() -> None:
    network = small_plan()
    model = emit(network, seeded_weights(network), metadata={"key": "value"})
    assert [(p.key, p.value) for p in model.metadata_props] == [("key", "value")]


# --- mutations: each breaks one promise, and the gate must notice -------------------------------


def node_of(model: onnx.ModelProto, op: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(
        node
        for holder in (*model.functions, model.graph)
        for node in holder.node
        if node.op_type == op
    )
    return found


def without_align_corners(model: onnx.ModelProto) -> None:
    for holder in (*model.functions, model.graph):
        for node in holder.node:
            for attribute in node.attribute:
                if attribute.name == "coordinate_transformation_mode":
                    attribute.s = b"half_pixel"


def tail_without_align_corners(model: onnx.ModelProto) -> None:
    tail = next(f for f in model.functions if f.name == "UpsampleArgmax")
    resize = next(n for n in tail.node if n.op_type == "Resize")
    for attribute in resize.attribute:
        if attribute.name == "coordinate_transformation_mode":
            attribute.s = b"half_pixel"


def swapped_colours(model: onnx.ModelProto) -> None:
    normalize_node = node_of(model, "NormalizeBGR")
    next(a for a in normalize_node.attribute if a.name == "order").ints[:] = [0, 1, 2]


def argmax_before_upsample(model: onnx.ModelProto) -> None:
    function = next(f for f in model.functions if f.name == "UpsampleArgmax")
    scales = numpy_helper.from_array(np.asarray([1, 8, 8], np.float32), "scales")
    del function.node[:]
    function.node.extend([
        helper.make_node("Constant", [], ["scales"], value=scales),
        helper.make_node("ArgMax", ["logits"], ["ids"], axis=1, keepdims=0),
        helper.make_node("Cast", ["ids"], ["small"], to=TensorProto.FLOAT),
        helper.make_node(
            "Resize", ["small", "", "scales"], ["full"], mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        ),
        helper.make_node("Cast", ["full"], ["labels"], to=TensorProto.INT8),
    ])  # fmt: skip


def relu_before_resize(model: onnx.ModelProto) -> None:
    """In one zoomed cell, swap the last resize and the ReLU after it."""
    cell = next(n for n in model.graph.node if n.op_type == "ZoomedConv2xS1")
    function = model.functions.add()
    function.CopyFrom(next(f for f in model.functions if f.name == cell.op_type))
    function.name = cell.op_type = "Mutated"
    resize, relu = function.node[-2:]
    assert (resize.op_type, relu.op_type) == ("Resize", "Relu")
    source, end = resize.input[0], relu.output[0]
    relu.input[:], relu.output[:] = [source], ["rectified"]
    resize.input[0], resize.output[:] = "rectified", [end]
    swapped = [onnx.NodeProto.FromString(n.SerializeToString()) for n in (relu, resize)]
    del function.node[-2:]
    function.node.extend(swapped)


@pytest.mark.parametrize(
    "mutate",
    [
        without_align_corners,
        tail_without_align_corners,
        swapped_colours,
        argmax_before_upsample,
        relu_before_resize,
    ],
)
def test_the_gate_fails_on_a_mutated_graph(
    student: Case, mutate: Callable[[onnx.ModelProto], None]
) -> None:
    model = student.emit(EmitOptions("labels"))
    assert passes_label_gate(run_onnx(model, frames=student.frames), student)
    mutate(model)
    onnx.checker.check_model(model)
    mutated = run_onnx(model, frames=student.frames)
    assert mutated.shape == student.labels.shape
    assert not passes_label_gate(cast("NDArray[np.uint8]", mutated), student)
