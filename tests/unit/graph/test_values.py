"""Values inside a graph: which there are, what they are called, and a graph that gives them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from fasterseg.arch.plan import Plan, plan
from fasterseg.graph.emit import EmitOptions, emit
from fasterseg.graph.values import READ, ValueGraph
from fasterseg.graph.weights import seeded_weights
from fasterseg.types import Precision, Size
from tests.unit.graph.test_precision import made

pytestmark = pytest.mark.onnx


def written(network: Plan, **options: object) -> ValueGraph:
    chosen = EmitOptions(**options)  # type: ignore[arg-type]
    model = emit(network, seeded_weights(network, 0), chosen)
    return ValueGraph(model.SerializeToString(), network.size)


def test_layers_stand_in_the_order_of_the_graph_and_end_at_the_logits(tiny_plan: Plan) -> None:
    layers = written(tiny_plan, inline=True).layers()
    names = [layer.name for layer in layers]
    assert (names[0], names[-1]) == ("input", "head/3.project")
    assert len(set(names)) == len(names)
    assert {"Conv", "Relu", "Resize", "Concat"} <= {layer.op for layer in layers}
    # Normalised picture: 3 x 64 x 96 float32.
    assert layers[0].bytes == 3 * 64 * 96 * 4


def test_a_dynamic_graph_has_the_same_layers_with_their_sizes(tiny_plan: Plan) -> None:
    fixed = written(tiny_plan, inline=True).layers()
    assert written(tiny_plan, dynamic=True).layers() == fixed


def test_half_precision_values_are_half_as_large(tiny_plan: Plan) -> None:
    sizes = {layer.name: layer.bytes for layer in written(tiny_plan, inline=True).layers()}
    halves = written(tiny_plan, inline=True, precision="fp16").layers()
    for layer in halves[2:]:
        assert layer.bytes is not None
        assert 2 * layer.bytes == sizes[layer.name], layer


def test_insides_of_functions_are_no_layers_and_their_results_are(tiny_plan: Plan) -> None:
    plain = {layer.name for layer in written(tiny_plan, inline=True).layers()}
    folded = {layer.name for layer in written(tiny_plan).layers()}
    assert "input" in folded
    assert folded < plain
    assert any(name.endswith("/5.relu") for name in folded), "the zoomed cell's result"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_shares_the_names_and_gives_the_values(precision: Precision) -> None:
    case = made("student")
    fp32 = emit(case.plan, case.weights, EmitOptions(inline=True))
    reference = ValueGraph(fp32.SerializeToString(), case.plan.size)
    other = emit(
        case.plan,
        case.weights,
        EmitOptions(precision=precision, inline=True),
        ranges=case.ranges,
    )
    graph = ValueGraph(other.SerializeToString(), case.plan.size)
    names = [graph.as_read(layer.name) for layer in reference.layers()]
    found = [name for name in names if name is not None]
    assert len(found) == len(names)
    assert any(name.endswith(READ) for name in found) == (precision == "int8")
    session = onnxruntime.InferenceSession(
        graph.giving(found[:9]), providers=["CPUExecutionProvider"]
    )
    values = session.run(None, {graph.input: case.frames[:1]})
    kind = np.float16 if precision == "fp16" else np.float32
    assert [value.dtype for value in values[1:]] == [kind] * 8


def test_a_name_that_a_graph_lacks_is_none(tiny_plan: Plan) -> None:
    assert written(tiny_plan).as_read("nothing") is None


def test_what_follows_the_values_asked_for_is_no_output(tiny_plan: Plan) -> None:
    model = onnx.load_from_string(written(tiny_plan).giving(["input"]))
    assert [value.name for value in model.graph.output] == ["input"]


def test_size_of_the_frames_settles_a_dynamic_graph(tiny_plan: Plan) -> None:
    network = plan(tiny_plan.genotype, Size(96, 128))
    layers = written(network, dynamic=True).layers()
    assert layers[0].bytes == 3 * 96 * 128 * 4
