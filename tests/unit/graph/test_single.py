"""One operator as a model: what it holds, and that nothing but the operator is its difference."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx.inliner import inline_local_functions

from fasterseg.arch.genotype import Branch
from fasterseg.arch.operators import OPERATORS, OpSpec, expand
from fasterseg.arch.plan import plan
from fasterseg.arch.single import PARTS, Part, is_nothing, single
from fasterseg.arch.space import Placed, SearchSpace
from fasterseg.errors import UsageError
from fasterseg.graph.emit import EmitOptions, emit
from fasterseg.graph.precision import PROFILES, Profile
from fasterseg.graph.single import emit_single
from fasterseg.graph.weights import seeded_weights
from fasterseg.types import Size

SIZE = Size(64, 128)
SPACE = SearchSpace(widths=(4, 6), stem_widths=(4,), head_widths=(4,))


def one_of_each() -> list[Placed]:
    """An operator of every kind and stride that has a graph."""
    found: dict[tuple[str, int], Placed] = {}
    for placed in SPACE.operators(SIZE):
        if not is_nothing(placed.spec):
            found.setdefault((placed.spec.op, placed.spec.stride), placed)
    return list(found.values())


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in inline_local_functions(model).graph.node)


def test_the_space_has_operators_of_every_kind() -> None:
    assert {placed.spec.op for placed in one_of_each()} == set(OPERATORS)


@pytest.mark.parametrize("placed", one_of_each(), ids=lambda p: p.spec.key())
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_part_of_every_operator_is_a_valid_model(placed: Placed, precision: str) -> None:
    options = EmitOptions(precision=precision, batch=2)  # type: ignore[arg-type]
    for part in PARTS:
        onnx.checker.check_model(emit_single(single(placed, SIZE, part), options), full_check=True)


@pytest.mark.parametrize("placed", one_of_each(), ids=lambda p: p.spec.key())
def test_inside_is_around_and_the_operator(placed: Placed) -> None:
    alone, inside, around = (
        kinds(emit_single(single(placed, SIZE, part), EmitOptions())) for part in PARTS
    )
    del inside["GlobalAveragePool"], around["GlobalAveragePool"]
    assert inside == alone + around


@pytest.mark.parametrize("placed", one_of_each(), ids=lambda p: p.spec.key())
def test_the_operator_alone_is_what_a_network_holds(placed: Placed) -> None:
    spec = placed.spec
    convs = kinds(emit_single(single(placed, SIZE, "alone"), EmitOptions()))["Conv"]
    shapes = [s for layer in expand(spec) for s in layer.parameter_shapes.values()]
    assert convs == sum(len(shape) == 4 for shape in shapes)


def test_operators_of_a_network_add_up_to_its_graph() -> None:
    branch = Branch(("conv_2x", "conv_2x_downup", "conv"), (8, 16, 32), (4, 6))
    network = plan(SPACE.genotype((branch,)), SIZE)
    whole = kinds(emit(network, seeded_weights(network)))
    total: Counter[str] = Counter()
    for node in network.nodes:
        maps = tuple(
            (network.nodes[i].spec.out_channels, network.nodes[i].spec.output_size)
            for i in node.inputs
        )
        total += kinds(emit_single(single(Placed(node.spec, maps), SIZE, "alone"), EmitOptions()))
    assert total == whole


@pytest.mark.onnx
def test_an_operator_gives_the_shape_it_has_in_a_network() -> None:
    import onnxruntime

    for placed in one_of_each():
        model = emit_single(single(placed, SIZE, "alone"), EmitOptions()).SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        feeds = {
            value.name: np.zeros(
                value.shape, np.uint8 if value.type == "tensor(uint8)" else np.float32
            )
            for value in session.get_inputs()
        }
        [output] = session.run(None, feeds)
        spec = placed.spec
        wanted = (1, *SIZE) if spec.op == "output" else (1, spec.out_channels, *spec.output_size)
        assert output.shape == wanted, spec.key()


def test_the_last_operator_is_cut_to_odd_frames() -> None:
    size = Size(65, 67)
    [last] = [placed for placed in SPACE.operators(size) if placed.spec.op == "output"]
    model = emit_single(single(last, size, "inside"), EmitOptions())
    dims = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    assert dims == [1, 65, 67]
    assert kinds(model)["Slice"] == 1


def test_a_skip_that_changes_nothing_has_no_graph() -> None:
    spec = OpSpec("skip", 32, 32, 1, 8, 16)
    assert is_nothing(spec)
    assert not is_nothing(OpSpec("skip", 32, 48, 1, 8, 16))
    with pytest.raises(UsageError, match="changes nothing"):
        single(Placed(spec, ((32, Size(8, 16)),)), SIZE, "alone")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("part", PARTS)
def test_int8_holds_what_an_operator_reads_and_gives_in_integers(
    part: Part, profile: Profile
) -> None:
    options = EmitOptions(precision="int8", profile=profile)
    for placed in one_of_each():
        model = emit_single(single(placed, SIZE, part), options)
        onnx.checker.check_model(model, full_check=True)
        made = {name: node for node in model.graph.node for name in node.output}
        for conv in (node for node in model.graph.node if node.op_type == "Conv"):
            assert made[conv.input[0]].op_type == "DequantizeLinear", placed
            if placed.spec.op not in ("head", "output"):
                assert made[conv.input[1]].op_type == "DequantizeLinear", placed


def test_int8_ends_in_integers_where_a_network_goes_on_with_them() -> None:
    options = EmitOptions(precision="int8")
    for placed in one_of_each():
        [given] = emit_single(single(placed, SIZE, "alone"), options).graph.output
        is_float = given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert is_float == (placed.spec.op == "head"), placed
        assert given.name.endswith("/q") == (placed.spec.op not in ("head", "output"))


def test_the_last_operator_may_end_at_the_logits() -> None:
    [last] = [placed for placed in one_of_each() if placed.spec.op == "output"]
    [given] = emit_single(single(last, SIZE, "inside"), EmitOptions("logits8")).graph.output
    assert given.name == "logits8"
    shape = [side.dim_value for side in given.type.tensor_type.shape.dim]
    assert shape == [1, last.spec.in_channels, *last.spec.size]
